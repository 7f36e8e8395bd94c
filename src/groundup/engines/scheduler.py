"""Requests that run together: a step reads a chunk of the waiting prompts and gives every other
request its next token.

Reads the model; hands pieces of text to the requests' listeners. One thread owns it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from groundup.engines.jobs import TokenScore
from groundup.engines.request import Request
from groundup.engines.scores import prompt_scores, token_scores
from groundup.engines.slot_cache import SlotCache
from groundup.model.config import ModelConfig
from groundup.model.sampling import sample
from groundup.model.transformer import Transformer

log = logging.getLogger(__name__)

# Operations for which reading prompts may hold up the running streams in a step: a few tenths of a
# second on two cores, some hundredths on a GPU. A chunk never depends on timing or load, so that
# rounding does not either.
CHUNK_FLOPS = {"cpu": 4e10, "cuda": 1e13}
SMALLEST_CHUNK, LARGEST_CHUNK = 32, 2048

Found = TypeVar("Found")


def chunk_tokens(config: ModelConfig, device: str) -> int:
    """Return how many tokens of prompts a step reads: a power of two that suits the size of the
    model.
    """
    wanted = int(CHUNK_FLOPS.get(device, CHUNK_FLOPS["cpu"]) / (2 * config.parameter_count()))
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 1 << wanted.bit_length() - 1))


class Batch:
    """Requests side by side in the slots of one cache.

    Slots 0 to n - 1 hold the requests that write, so that a step reads their keys where they lie;
    those whose prompt is being read stand in any slot above.

    Args:
        byte_strings: of the tokenizer, one for each id of the model.
        chunk: tokens of prompts that a step reads; 0 lets the size of the model decide.

    Attributes:
        steps, prompt_tokens, generated_tokens: what was done so far.
    """

    def __init__(
        self, model: Transformer, slots: int, byte_strings: Sequence[bytes], chunk: int = 0
    ) -> None:
        self._model, self._strings, self._slots = model.eval(), byte_strings, slots
        self._cache = SlotCache(model.config, slots, model.device, model.head_weight.dtype)
        self._chunk = chunk or chunk_tokens(model.config, model.device.type)
        self._reading: list[Request] = []
        self._writing: list[Request] = []
        self.steps = self.prompt_tokens = self.generated_tokens = 0

    @property
    def running(self) -> list[Request]:
        """All requests that hold a slot."""
        return [*self._writing, *self._reading]

    def add(self, request: Request) -> None:
        """Give a request a slot; one must be free."""
        taken = {other.slot for other in self._reading}
        request.slot = next(
            slot for slot in range(len(self._writing), self._slots) if slot not in taken
        )
        self._reading.append(request)

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Bring every request forward; return those that ended, whose last pieces are still to be
        sent.
        """
        for request in self.running:
            if request.ticket.canceled:
                request.end("cancelled")
        ended = self._remove_ended()
        ready = self._isolated(self._read, self._next_chunk()) + self._isolated(
            self._read, list(self._writing)
        )
        for request, token, score in self._isolated(self._draw, ready):
            request.take(token, score)
        self.steps += 1
        ended += self._remove_ended()
        self._promote()
        return ended

    def forget(self) -> None:
        """Drop everything that runs, after an error that could not be laid at one request's door."""
        self._reading, self._writing = [], []
        for slot in range(self._slots):
            self._cache.clear(slot)

    def _isolated(
        self, work: Callable[[list[Request]], list[Found]], requests: list[Request]
    ) -> list[Found]:
        """Do `work` for all together; if that fails, for each alone, so that only the request at
        fault ends.
        """
        try:
            return work(requests) if requests else []
        except Exception:
            if len(requests) > 1:
                return [found for request in requests for found in self._isolated(work, [request])]
            log.exception("a request failed")
            requests[0].end("error")
            return []

    def _next_chunk(self) -> list[Request]:
        """Return the requests whose prompts are read in this step: as many, first come first, as a
        chunk has room for.
        """
        group: list[Request] = []
        widest = 0
        for request in self._reading:
            widest = max(widest, min(request.unread, self._chunk))
            if group and widest * (len(group) + 1) > self._chunk:
                break
            group.append(request)
        return group

    def _read(self, requests: list[Request]) -> list[Request]:
        """Let the model read the next tokens of these requests; return those that are ready to draw
        another.
        """
        parts = [request.next_tokens(self._chunk) for request in requests]
        counts = [len(part) for part in parts]
        widest = max(counts)
        tokens_BT = torch.tensor(
            [[*part, *[0] * (widest - len(part))] for part in parts], device=self._model.device
        )
        rows = self._cache.rows(
            [request.slot for request in requests], [request.read for request in requests], counts
        )
        x_BTD = self._model.hidden(tokens_BT, rows, rows.positions_BT)
        scores = [self._prompt_scores(*row) for row in zip(requests, x_BTD, counts, strict=True)]
        for request, x_TD, count, found in zip(requests, x_BTD, counts, scores, strict=True):
            self.prompt_tokens += count if request.unread else 0
            request.read += count
            request.hidden_D = x_TD[count - 1]
            request.answer.prompt += found
            if not request.unread and not request.room:
                request.end("length")
        return [request for request in requests if not request.unread and request.finish is None]

    def _prompt_scores(self, request: Request, x_TD: Tensor, count: int) -> list[TokenScore]:
        """Return the scores of the prompt's tokens that this chunk predicts, and before them that
        of the first, which is none.
        """
        job, start = request.job, request.read
        if not job.prompt_scores or not request.unread:
            return []
        first = (
            [TokenScore(job.prompt[0], self._strings[job.prompt[0]], None)] if start == 0 else []
        )
        predicted = job.prompt[start + 1 : start + count + 1]
        top = max(job.top, 0)
        return first + prompt_scores(
            x_TD[: len(predicted)], self._model.head_weight, predicted, top, self._strings
        )

    def _draw(self, requests: list[Request]) -> list[tuple[Request, int, TokenScore | None]]:
        """Return the next token of each request, and its score where it was asked for."""
        x_ND = torch.stack(
            [request.hidden_D for request in requests if request.hidden_D is not None]
        )
        logits_NV = (x_ND @ self._model.head_weight.T).float()
        asked = [row for row, request in enumerate(requests) if request.job.top >= 0]
        # Taken before penalties and biases change the logits.
        scores_MV = torch.log_softmax(logits_NV[asked], dim=1) if asked else None
        tokens_N = sample(logits_NV, [request.drawing for request in requests])
        scores: dict[int, TokenScore] = {}
        if scores_MV is not None:
            tops = [requests[row].job.top for row in asked]
            scores = dict(
                zip(
                    asked,
                    token_scores(scores_MV, tokens_N[asked].clamp(min=0), tops, self._strings),
                    strict=True,
                )
            )
        tokens = tokens_N.tolist()
        self.generated_tokens += len(tokens)
        return [
            (request, token, scores.get(row))
            for row, (request, token) in enumerate(zip(requests, tokens, strict=True))
        ]

    def _remove_ended(self) -> list[Request]:
        """Free the slots of requests that ended; the last that writes moves into each gap."""
        ended = [request for request in self.running if request.finish is not None]
        self._reading = [request for request in self._reading if request.finish is None]
        for request in sorted(ended, key=lambda request: -request.slot):
            self._cache.clear(request.slot)
            if request in self._writing:
                last = self._writing.pop()
                if last is not request:
                    self._cache.move(last.slot, request.slot)
                    self._writing[request.slot], last.slot = last, request.slot
        return ended

    def _promote(self) -> None:
        """Let those whose prompt has been read join those that write."""
        for request in [request for request in self._reading if not request.unread]:
            target = len(self._writing)
            other = next((other for other in self._reading if other.slot == target), None)
            if other is None:
                self._cache.move(request.slot, target)
            elif other is not request:
                self._cache.swap(request.slot, target)
                other.slot = request.slot
            request.slot = target
            self._reading.remove(request)
            self._writing.append(request)
