"""A request on its way through the engine: what it asks, how far it is, and how its pieces go out.
Reads and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from groundup.engines.answer import Answer
from groundup.engines.jobs import Finish, Job, Piece, Ticket, TokenScore
from groundup.model.config import ModelConfig
from groundup.model.sampling import SequenceSampler

log = logging.getLogger(__name__)

Deliver = Callable[[Piece], None]


class Request:
    """One job that waits or runs.

    Args:
        byte_strings: of the tokenizer, one for each id of the model.
        deliver: gets the pieces; when it raises, the request ends and hears no more.

    Attributes:
        slot: where its keys and values are, while it runs.
        read: tokens of its text that the cache holds.
        hidden_D: what the model makes of all of them, from which the next token is drawn.
        room: tokens that it may still generate.
        finish: why it ended; None while it goes on.

    Raises:
        ValueError: the job cannot be done.
    """

    def __init__(
        self,
        job: Job,
        config: ModelConfig,
        byte_strings: Sequence[bytes],
        deliver: Deliver,
        device: torch.device | str = "cpu",
    ) -> None:
        check(job, config)
        self.job, self.ticket = job, Ticket()
        self.drawing = SequenceSampler(job.sampling, job.seed, config.vocab_size, device)
        self.answer = Answer(job.stop, byte_strings)
        self.slot = self.read = 0
        self.hidden_D: Tensor | None = None
        self.room = min(job.max_tokens, config.context - len(job.prompt))
        self.finish: Finish | None = None
        self._deliver = deliver
        self._last_piece: Piece | None = None
        self._last = job.prompt[-1]

    @property
    def unread(self) -> int:
        """Tokens of the prompt that the cache does not hold yet."""
        return max(0, len(self.job.prompt) - self.read)

    def next_tokens(self, most: int) -> tuple[int, ...]:
        """Return what the model reads next: of the prompt at most so many tokens, then the token
        drawn last.
        """
        return self.job.prompt[self.read : self.read + most] or (self._last,)

    def take(self, token: int, score: TokenScore | None) -> None:
        """Go on with a token that was drawn, or end with it; -1 stands for scores that were not
        numbers.
        """
        if token < 0:
            log.error("the model's scores are not numbers; the request ends")
            self.end("error")
        elif token in self.job.stop_ids:
            self.end("stop")
        else:
            self._last, self.room = token, self.room - 1
            self.drawing.accept(token)
            self.answer.add(token, score)
            self._go_on()

    def _go_on(self) -> None:
        if self.answer.stopped:
            self.end("stop")
        elif not self.room:
            self.end("length")
        else:
            self._send(self.answer.piece())

    def end(self, finish: Finish) -> None:
        """End, unless it has ended; the last piece waits for `send_last`."""
        if self.finish is None:
            self._last_piece = self.answer.end(finish)
            self.finish = self._last_piece.finish

    def send_last(self) -> None:
        """Hand out the last piece. By then the slot should be free, for whoever hears it may ask
        again at once.
        """
        self._send(self._last_piece)

    def _send(self, piece: Piece | None) -> None:
        try:
            if piece is not None:
                self._deliver(piece)
        except Exception:
            log.exception("a listener failed; its request ends")
            self.finish = self.finish or "cancelled"


def check(job: Job, config: ModelConfig) -> None:
    """Refuse a job that cannot be done.

    Raises:
        ValueError: the prompt is empty, leaves no room or is not of this vocabulary, a number is
            negative, or a stop string
            is empty.
    """
    length, most = len(job.prompt), config.context - min(job.max_tokens, 1)
    if not job.prompt:
        raise ValueError("the prompt has no tokens")
    if job.max_tokens < 0 or job.top < -1:
        raise ValueError("max_tokens must not be negative, and top must be at least -1")
    if length > most:
        raise ValueError(
            f"the prompt has {length} tokens; the context of {config.context} takes at most {most}"
        )
    if not all(0 <= token < config.vocab_size for token in job.prompt):
        raise ValueError(
            f"the prompt names tokens outside of the vocabulary of {config.vocab_size}"
        )
    if not all(job.stop):
        raise ValueError("a stop string must not be empty")
