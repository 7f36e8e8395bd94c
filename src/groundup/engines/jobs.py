"""What is asked of the engine and what comes back: a job, pieces of its answer, a ticket to cancel
it. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from groundup.model.sampling import SamplingParams

Finish = Literal["stop", "length", "cancelled", "error"]


class QueueFull(Exception):  # noqa: N818
    """As many requests wait as may wait; come back later."""


class Closed(Exception):  # noqa: N818
    """The engine is shutting down and takes no more."""


@dataclass(frozen=True, slots=True)
class Job:
    """One completion.

    Attributes:
        prompt: its token ids; at least one, and fewer than the context.
        max_tokens: the most to generate; 0 only reads the prompt (with `prompt_scores`).
        seed: of its own random numbers.
        stop: texts that end the answer; they are not part of it.
        stop_ids: tokens that end it; they are not part of it either, and not counted.
        top: -1 for no log-probabilities; n for those of each token and of the n best in its place.
        prompt_scores: whether the prompt's tokens are scored too (with `top` alternatives).
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int = 1
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    top: int = -1
    prompt_scores: bool = False


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token with its log-probability in nats.

    It is that of the model as trained: temperature 1, nothing cut off, no penalty and no bias.

    Attributes:
        data: its UTF-8 bytes; a character may take several tokens.
        logprob: None for the first token of a prompt, which nothing precedes.
        top: the best ids in its place with their log-probabilities, best first.
    """

    id: int
    data: bytes
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer, in whole characters; text that may yet become a stop string is held
    back.

    Attributes:
        tokens: scores of the tokens that end in this piece, if the job asked for them.
        count: tokens generated since the last piece; those of a stop string count, a stop id does
            not.
        finish: why the answer ends with this piece; None while it goes on.
        prompt: scores of the prompt's tokens, in the first piece of a job with `prompt_scores`.
    """

    text: str
    tokens: tuple[TokenScore, ...] = ()
    count: int = 0
    finish: Finish | None = None
    prompt: tuple[TokenScore, ...] = ()


class Ticket:
    """What a caller holds of a request that was taken."""

    def __init__(self) -> None:
        self.canceled = False

    def cancel(self) -> None:
        """End the request before the next step; its last piece then says "cancelled". Harmless when
        it has ended.
        """
        self.canceled = True


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is, and what it has done since it began; the counters only grow.

    Attributes:
        running: requests that hold a slot.
        waiting: requests that wait for one.
        slots: how many run at once.
        queue: how many may wait.
        prompt_tokens: prompt tokens read.
        generated_tokens: tokens generated, those that ended an answer too.
        steps: steps of the engine; each gives every running request at most one token.
        finished: requests that ended, by reason.
    """

    running: int
    waiting: int
    slots: int
    queue: int
    prompt_tokens: int
    generated_tokens: int
    steps: int
    finished: Mapping[Finish, int]
