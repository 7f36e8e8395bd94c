"""Continuous batching on our model: requests join and leave the batch between two steps.

    submit -> queue -> [Scheduler: prefill chunk, decode, sample] -> on_output
                              |
                        SlotCache: keys and values, one slot for each running request

The scheme is that of Orca (Yu et al. 2022) with chunked prefill (Agrawal et al. 2023, arXiv
2308.16369): a long prompt is computed in chunks, so it does not stall the requests that decode.
One thread runs the steps; any thread may submit. An output depends on its request alone, up to
rounding: products of a larger batch differ in their last bits.

Shape suffixes: B rows, T new positions of a row, N sequences or positions, M rows that want
scores, V vocabulary, D width.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.request import (
    EngineClosed,
    EngineRequest,
    EngineStats,
    FinishReason,
    Logprob,
    OutputCallback,
    OutputProcessor,
    QueueFull,
    RequestHandle,
    RequestOutput,
)
from groundup.model.config import ModelConfig
from groundup.model.cross_entropy import chunks
from groundup.model.kv_cache import SlotCache
from groundup.model.sampling import SequenceSampler, sample
from groundup.model.transformer import Transformer

log = logging.getLogger(__name__)

# Operations of one prefill chunk, which delays the decoding requests: a few tenths of a second on
# two cores, some hundredths on a GPU. The size depends neither on timing nor on load, so rounding
# does not either.
CHUNK_FLOPS = {"cpu": 4e10, "cuda": 1e13}
MIN_CHUNK, MAX_CHUNK = 32, 2048

Result = TypeVar("Result")


class SequenceState:
    """One request that waits or runs; ValueError if it cannot be served."""

    def __init__(
        self,
        request: EngineRequest,
        config: ModelConfig,
        byte_strings: Sequence[bytes],
        on_output: OutputCallback,
        device: torch.device | str = "cpu",
    ) -> None:
        request.check(config.context, config.vocab_size)
        self.prompt, self.params = request.prompt_token_ids, request.params
        self.handle = RequestHandle()
        self.sampler = SequenceSampler(self.params, self.params.seed, config.vocab_size, device)
        self.output = OutputProcessor(self.params.stop, byte_strings)
        self.slot = 0  # of its keys and values in the cache, while it runs
        self.num_computed_tokens = 0  # whose keys and values are in the cache
        self.last_token = self.prompt[-1]
        self.hidden_D: Tensor | None = None  # from which the next token is sampled
        # Tokens that it may still generate.
        self.remaining = min(self.params.max_tokens, config.context - len(self.prompt))
        self.finish_reason: FinishReason | None = None
        self._on_output = on_output
        self.final_output: RequestOutput | None = None

    @property
    def num_prompt_tokens_left(self) -> int:
        """Prompt tokens that are not computed yet; 0 while it decodes."""
        return max(0, len(self.prompt) - self.num_computed_tokens)

    def append(self, token_id: int, logprob: Logprob | None) -> None:
        """Add a sampled token; -1 means that the logits were not finite."""
        if token_id < 0:
            log.error("the logits of a request are not finite; the request ends")
            self.finish("error")
        elif token_id in self.params.stop_token_ids:
            self.finish("stop")
        else:
            self.last_token, self.remaining = token_id, self.remaining - 1
            self.sampler.accept(token_id)
            self.output.add(token_id, logprob)
            if self.output.stopped:
                self.finish("stop")
            elif not self.remaining:
                self.finish("length")
            else:
                self.send(self.output.next_output())

    def finish(self, reason: FinishReason) -> None:
        """End, unless ended already; the last output is still to be sent."""
        if self.finish_reason is None:
            self.final_output = self.output.finish(reason)
            self.finish_reason = self.final_output.finish_reason

    def send(self, output: RequestOutput | None) -> None:
        """Call the output callback; if it fails, the request ends."""
        try:
            if output is not None:
                self._on_output(output)
        except Exception:
            log.exception("the output callback of a request failed; the request ends")
            self.finish_reason = self.finish_reason or "cancelled"


Sequences = list[SequenceState]


class Scheduler:
    """Runs the requests that hold a slot, one step at a time.

    Slots 0 to n - 1 belong to the n sequences that decode, so a step reads their keys in place;
    sequences in prefill use any slot above.
    """

    def __init__(
        self, model: Transformer, slots: int, byte_strings: Sequence[bytes], chunk: int = 0
    ) -> None:
        self._model, self._byte_strings, self._slots = model.eval(), byte_strings, slots
        self._cache = SlotCache(model.config, slots, model.head_weight)
        self._chunk = chunk or chunk_tokens(model.config, model.device.type)
        self._prefilling: Sequences = []
        self._decoding: Sequences = []
        self.steps = self.prompt_tokens = self.generated_tokens = 0

    @property
    def running(self) -> Sequences:
        """All sequences that hold a slot."""
        return [*self._decoding, *self._prefilling]

    def add(self, sequence: SequenceState) -> None:
        """Give a sequence a slot; one must be free."""
        taken = {other.slot for other in self._prefilling}
        free = (slot for slot in range(len(self._decoding), self._slots) if slot not in taken)
        sequence.slot = next(free)
        self._prefilling.append(sequence)

    @torch.inference_mode()
    def step(self) -> Sequences:
        """Compute one prefill chunk and one token for each decoding sequence.

        Returns the sequences that ended, whose final outputs are still to be sent.
        """
        for sequence in self.running:
            if sequence.handle.canceled:
                sequence.finish("cancelled")
        finished = self._update_slots()
        # The first prompts that fit, padded, into one chunk.
        batch: Sequences = []
        width = 0
        for sequence in self._prefilling:
            width = max(width, min(sequence.num_prompt_tokens_left, self._chunk))
            if batch and width * (len(batch) + 1) > self._chunk:
                break
            batch.append(sequence)
        ready = self._isolate(self._forward, batch)
        ready += self._isolate(self._forward, list(self._decoding))
        for sequence, token_id, logprob in self._isolate(self._sample, ready):
            sequence.append(token_id, logprob)
        self.steps += 1
        return finished + self._update_slots()

    def reset(self) -> None:
        """Drop all sequences after an error that no single request caused."""
        self._prefilling, self._decoding = [], []
        for slot in range(self._slots):
            self._cache.clear(slot)

    def _isolate(
        self, compute: Callable[[Sequences], list[Result]], batch: Sequences
    ) -> list[Result]:
        """Call `compute` on the batch; if it fails, on each sequence, which alone may then end."""
        try:
            return compute(batch) if batch else []
        except Exception:
            if len(batch) > 1:
                return [result for seq in batch for result in self._isolate(compute, [seq])]
            log.exception("a request failed")
            batch[0].finish("error")
            return []

    def _forward(self, batch: Sequences) -> Sequences:
        """Run the model on the next tokens; return the sequences that are ready to sample."""
        # The next tokens of the prompt, or after it the token sampled last.
        prompts = [seq.prompt[seq.num_computed_tokens :][: self._chunk] for seq in batch]
        inputs = [prompts[row] or (seq.last_token,) for row, seq in enumerate(batch)]
        counts = [len(tokens) for tokens in inputs]
        width = max(counts)
        padded = [[*tokens, *[0] * (width - len(tokens))] for tokens in inputs]
        tokens_BT = torch.tensor(padded, device=self._model.device)
        slots, starts = [seq.slot for seq in batch], [seq.num_computed_tokens for seq in batch]
        x_BTD = self._model.hidden(tokens_BT, self._cache.rows(slots, starts, counts))
        # All scores before any state changes: a failure here is retried for each sequence alone.
        logprobs = [self._prompt_logprobs(*row) for row in zip(batch, x_BTD, counts, strict=True)]
        for row, (seq, count) in enumerate(zip(batch, counts, strict=True)):
            if seq.num_prompt_tokens_left:
                self.prompt_tokens += count
            seq.num_computed_tokens += count
            seq.hidden_D = x_BTD[row, count - 1]
            seq.output.prompt_logprobs += logprobs[row]
            if not seq.num_prompt_tokens_left and not seq.remaining:
                seq.finish("length")
        prefilled = [seq for seq in batch if not seq.num_prompt_tokens_left]
        return [seq for seq in prefilled if seq.finish_reason is None]

    def _prompt_logprobs(self, seq: SequenceState, x_TD: Tensor, count: int) -> list[Logprob]:
        """Return the scores of the prompt tokens that this chunk predicts."""
        prompt, start, top = seq.prompt, seq.num_computed_tokens, seq.params.prompt_logprobs
        if top is None or not seq.num_prompt_tokens_left:
            return []
        # The first token has no context and so no score.
        logprobs = [] if start else [Logprob(prompt[0], self._byte_strings[prompt[0]], None)]
        targets_N = torch.tensor(prompt[start + 1 : start + count + 1], device=x_TD.device)
        head_VD = self._model.head_weight
        for part in chunks(len(targets_N), len(head_VD), x_TD.device.type):
            logprobs_NV = torch.log_softmax(x_TD[part] @ head_VD.T, dim=1, dtype=torch.float32)
            if logprobs_NV.isnan().any():
                raise FloatingPointError("the model's scores are not numbers")
            tops = [top] * len(logprobs_NV)
            logprobs += gather_logprobs(logprobs_NV, targets_N[part], tops, self._byte_strings)
        return logprobs

    def _sample(self, batch: Sequences) -> list[tuple[SequenceState, int, Logprob | None]]:
        """Return each sequence's next token, with its score where it was asked for."""
        x_ND = torch.stack([seq.hidden_D for seq in batch if seq.hidden_D is not None])
        logits_NV = (x_ND @ self._model.head_weight.T).float()
        scored = [row for row, seq in enumerate(batch) if seq.params.logprobs is not None]
        tops = [seq.params.logprobs for seq in batch if seq.params.logprobs is not None]
        # Before `sample`, which changes the logits: penalties, biases and temperature.
        logprobs_MV = torch.log_softmax(logits_NV[scored], dim=1) if scored else None
        tokens_N = sample(logits_NV, [seq.sampler for seq in batch])
        logprobs: dict[int, Logprob] = {}
        if logprobs_MV is not None:
            tokens_M = tokens_N[scored].clamp(min=0)
            scores = gather_logprobs(logprobs_MV, tokens_M, tops, self._byte_strings)
            logprobs = dict(zip(scored, scores, strict=True))
        self.generated_tokens += len(batch)
        tokens = tokens_N.tolist()
        return [(seq, tokens[row], logprobs.get(row)) for row, seq in enumerate(batch)]

    def _update_slots(self) -> Sequences:
        """Free the slots of ended sequences, which are returned, and keep decoding ones first."""
        finished = [seq for seq in self.running if seq.finish_reason is not None]
        self._prefilling = [seq for seq in self._prefilling if seq.finish_reason is None]
        for sequence in sorted(finished, key=lambda sequence: -sequence.slot):
            self._cache.clear(sequence.slot)
            if sequence in self._decoding:
                # The last one moves into the gap.
                last = self._decoding.pop()
                if last is not sequence:
                    self._cache.swap(last.slot, sequence.slot)
                    self._decoding[sequence.slot], last.slot = last, sequence.slot
        for sequence in [seq for seq in self._prefilling if not seq.num_prompt_tokens_left]:
            target = len(self._decoding)
            self._prefilling.remove(sequence)
            if sequence.slot != target:
                self._cache.swap(sequence.slot, target)
                for occupant in [seq for seq in self._prefilling if seq.slot == target]:
                    occupant.slot = sequence.slot
                sequence.slot = target
            self._decoding.append(sequence)
        return finished


def chunk_tokens(config: ModelConfig, device: str) -> int:
    """Return the prompt tokens of one step: a power of two that fits the size of the model."""
    budget = CHUNK_FLOPS.get(device, CHUNK_FLOPS["cpu"])
    tokens = int(budget / (2 * config.parameter_count()))
    return min(MAX_CHUNK, max(MIN_CHUNK, 1 << tokens.bit_length() - 1))


def gather_logprobs(
    logprobs_NV: Tensor, tokens_N: Tensor, tops: Sequence[int], byte_strings: Sequence[bytes]
) -> list[Logprob]:
    """Return the score of one token in each row, with the row's `tops` best alternatives."""
    chosen = logprobs_NV.gather(1, tokens_N[:, None])[:, 0].tolist()
    best = logprobs_NV.topk(min(max(tops), logprobs_NV.shape[1]), dim=1)
    best_ids, best_scores = best.indices.tolist(), best.values.tolist()
    rows = zip(tokens_N.tolist(), chosen, best_ids, best_scores, tops, strict=True)
    return [
        Logprob(token, byte_strings[token], score, tuple(zip(ids, values, strict=True))[:top])
        for token, score, ids, values, top in rows
    ]


class Engine:
    """Serves requests on one model, on its device and in its dtype.

    `slots` limits running requests, whose memory is allocated at once (`fitting_slots` chooses);
    `queue` limits waiting ones; `chunk`, the prompt tokens of a step, follows the model if it is 0.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, slots: int, queue: int, chunk: int = 0
    ) -> None:
        # The bytes of each token id. The vocabulary of the model may be padded beyond that of the
        # tokenizer; those ids have no text.
        self.byte_strings = tokenizer.byte_strings()
        self.byte_strings += [b""] * (model.config.vocab_size - len(self.byte_strings))
        self._model, self._slots, self._queue = model, slots, queue
        self._scheduler = Scheduler(model, slots, self.byte_strings, chunk)
        self._waiting: deque[SequenceState] = deque()
        self._running: Sequences = []
        self._finished: Counter[FinishReason] = Counter()
        self._changed = threading.Condition()
        self._closing = self._aborting = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def submit(self, request: EngineRequest, on_output: OutputCallback) -> RequestHandle:
        """Queue a request.

        The engine's thread calls `on_output`, which must not block, until an output has a finish
        reason. If `on_output` raises, that request ends and gets no more outputs.

        Raises ValueError if the model cannot serve the request, QueueFull, or EngineClosed.
        """
        sequence = SequenceState(
            request, self._model.config, self.byte_strings, on_output, self._model.device
        )
        with self._changed:
            if self._closing:
                raise EngineClosed("the engine is shutting down")
            if len(self._running) + len(self._waiting) >= self._slots + self._queue:
                raise QueueFull(f"{self._slots} requests run and {self._queue} wait")
            self._waiting.append(sequence)
            self._changed.notify()
        return sequence.handle

    def stats(self) -> EngineStats:
        """Return load and counters."""
        scheduler = self._scheduler
        with self._changed:
            running, waiting = len(self._running), len(self._waiting)
            counters = (scheduler.prompt_tokens, scheduler.generated_tokens, scheduler.steps)
            finished = dict(self._finished)
        return EngineStats(running, waiting, self._slots, self._queue, *counters, finished)

    def close(self, drain_seconds: float = 0.0) -> None:
        """Refuse new requests, finish submitted ones for `drain_seconds`, and cancel the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            self._aborting = True
            self._admit()
        else:
            self._thread.join(drain_seconds)
            self._aborting = True
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._admit():
                try:
                    finished = self._scheduler.step()
                except Exception:
                    log.exception("a step failed; all running requests end")
                    self._retire(list(self._running), "error")
                    self._scheduler.reset()
                else:
                    self._retire(finished)
        except Exception:
            log.exception("the engine failed and stops")
            with self._changed:
                self._closing = True
                left = [*self._running, *self._waiting]
                self._waiting.clear()
            self._retire(left, "error")

    def _admit(self) -> bool:
        """Wait for work and fill free slots; False when the engine closes and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or self._waiting or self._closing)
            if self._aborting:
                for sequence in [*self._waiting, *self._running]:
                    sequence.handle.cancel()
            canceled = [sequence for sequence in self._waiting if sequence.handle.canceled]
            self._waiting = deque(seq for seq in self._waiting if not seq.handle.canceled)
            while self._waiting and len(self._running) < self._slots:
                self._running.append(self._waiting.popleft())
                self._scheduler.add(self._running[-1])
            has_work = bool(self._running) or not self._closing
        self._retire(canceled, "cancelled")
        return has_work

    def _retire(self, sequences: Sequences, reason: FinishReason = "error") -> None:
        """End sequences, count them, and only then send their final outputs."""
        for sequence in sequences:
            sequence.finish(reason)
        with self._changed:
            self._running = [seq for seq in self._running if seq not in sequences]
            self._finished.update(seq.finish_reason for seq in sequences if seq.finish_reason)
        # The slots are free by now: the caller may submit at once.
        for sequence in sequences:
            sequence.send(sequence.final_output)
