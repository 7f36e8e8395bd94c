"""What a caller sends to an engine and gets back, in vLLM's terms.

    tokens (scheduler) -> Detokenizer -> StopStringScanner -> RequestOutput (caller)

An engine answers one `EngineRequest` with several `RequestOutput`s. Each holds the text and the
log-probabilities that became final since the output before; the last one has a finish reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from groundup.artifacts.tokenizer import Detokenizer
from groundup.model.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled", "error"]


class QueueFull(Exception):  # noqa: N818
    """The waiting queue has no room; the caller may try again later."""


class EngineClosed(Exception):  # noqa: N818
    """The engine is shutting down and takes no more requests."""


@dataclass(frozen=True, slots=True)
class SamplingParams(Sampling):
    """How to sample the next token (`Sampling`), when to stop, and which scores to return."""

    max_tokens: int = 16  # 0 only reads the prompt, for `prompt_logprobs`
    seed: int = 1  # of the request's own random number generator
    stop: tuple[str, ...] = ()  # strings that end the output, and are not part of it
    stop_token_ids: frozenset[int] = frozenset()  # likewise, and not counted
    logprobs: int | None = None  # alternatives for each token's score; None returns no scores
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One prompt and how to continue it."""

    prompt_token_ids: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)

    def check(self, context: int, vocab_size: int) -> None:
        """Raise ValueError with the reason if a model cannot serve this request."""
        prompt, params = self.prompt_token_ids, self.params
        size, limit = len(prompt), context - min(params.max_tokens, 1)
        if not prompt:
            raise ValueError("the prompt has no tokens")
        if min(params.max_tokens, params.logprobs or 0, params.prompt_logprobs or 0) < 0:
            raise ValueError("max_tokens, logprobs and prompt_logprobs must not be negative")
        if size > limit:
            taken = f"the context of {context} takes at most {limit}"
            raise ValueError(f"the prompt has {size} tokens; {taken}")
        if not all(0 <= token_id < vocab_size for token_id in prompt):
            raise ValueError(f"the prompt has token ids outside of the vocabulary of {vocab_size}")
        if not all(params.stop):
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token and its log-probability in nats.

    Scores are those of the unmodified distribution: temperature 1, no cut-off, penalty or bias.
    """

    token_id: int
    token_bytes: bytes  # UTF-8; one character may span several tokens
    logprob: float | None  # None for the first token of a prompt, which has no context
    top_logprobs: tuple[tuple[int, float], ...] = ()  # most likely token ids at this position


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """New output of one request since its previous `RequestOutput`."""

    text: str  # whole characters; text that may still become a stop string is held back
    logprobs: tuple[Logprob, ...] = ()  # of the tokens that end in this text
    num_tokens: int = 0  # newly generated, those of a stop string included
    finish_reason: FinishReason | None = None  # None until the last output
    prompt_logprobs: tuple[Logprob, ...] = ()  # of the prompt's tokens, in the first output


OutputCallback = Callable[[RequestOutput], None]


class RequestHandle:
    """Lets the caller cancel a submitted request."""

    def __init__(self) -> None:
        self.canceled = False

    def cancel(self) -> None:
        """End the request before the engine's next step; no effect once it has ended."""
        self.canceled = True


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Load of an engine, and counters since its start."""

    running: int  # requests that hold a slot
    waiting: int  # requests in the queue
    slots: int  # limit on running requests
    queue: int  # limit on waiting requests
    prompt_tokens: int  # computed
    generated_tokens: int  # sampled, stop tokens included
    steps: int  # each adds at most one token to a running request
    finished: Mapping[FinishReason, int]  # ended requests by reason


class StopStringScanner:
    """Passes streamed text through up to the first stop string.

    Where several stop strings end at the same character, the longest counts. Each character
    advances one automaton for each stop string (Knuth, Morris and Pratt 1977), so the cost depends
    neither on how the text is split nor on the length of the stop strings.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        # For each prefix of a stop string the length of its longest proper prefix and suffix.
        self._stops = [(stop, [0] * len(stop)) for stop in stops]
        for stop, table in self._stops:
            for end in range(1, len(stop)):
                table[end] = _advance(stop, table, table[end - 1], stop[end])
        self._matched = [0] * len(stops)
        self._held = ""
        self.stopped = False  # no text passes after a stop string

    def add(self, text: str) -> str:
        """Return the text that can no longer become part of a stop string."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        candidate = self._held + text
        for end, character in enumerate(text, len(self._held) + 1):
            longest = 0  # of the stop strings that end here
            for n, (stop, table) in enumerate(self._stops):
                self._matched[n] = _advance(stop, table, self._matched[n], character)
                if self._matched[n] == len(stop):
                    longest = max(longest, len(stop))
            if longest:
                self.stopped, self._held = True, ""
                return candidate[: end - longest]
        free = len(candidate) - max(self._matched)
        self._held = candidate[free:]
        return candidate[:free]

    def flush(self) -> str:
        """Return the held-back text at the end of the input: no stop string was completed."""
        rest, self._held = self._held, ""
        return rest


def _advance(stop: str, table: Sequence[int], matched: int, character: str) -> int:
    """Return the length of the longest prefix of `stop` that the text now ends with."""
    while matched and stop[matched] != character:
        matched = table[matched - 1]
    return matched + (stop[matched] == character)


class OutputProcessor:
    """Turns the sampled tokens of one request into outputs."""

    def __init__(self, stops: Sequence[str], byte_strings: Sequence[bytes]) -> None:
        self._detokenizer = Detokenizer(byte_strings)
        self._scanner = StopStringScanner(stops)
        self._decoded = self._sent = self._num_tokens = 0
        self._text = ""
        # Unsent scores, with the character offsets at which their token begins and ends.
        self._logprobs: deque[tuple[int, int, Logprob]] = deque()
        self.prompt_logprobs: list[Logprob] = []  # unsent

    @property
    def stopped(self) -> bool:
        """Whether the text reached a stop string."""
        return self._scanner.stopped

    def add(self, token_id: int, logprob: Logprob | None = None) -> None:
        """Append one sampled token."""
        begin, text = self._decoded, self._detokenizer.add(token_id)
        self._decoded += len(text)
        self._num_tokens += 1
        self._text += self._scanner.add(text)
        if logprob is not None:
            # A token that ends inside a character is sent together with the rest of it.
            self._logprobs.append((begin, self._decoded + self._detokenizer.pending, logprob))

    def next_output(self) -> RequestOutput | None:
        """Return what became final since the last output; None if nothing did."""
        final = self._sent + len(self._text)
        logprobs = []
        while self._logprobs and self._logprobs[0][1] <= final:
            logprobs.append(self._logprobs.popleft()[2])
        if self._text or logprobs or self.prompt_logprobs:
            return self._take(logprobs, None)
        return None

    def finish(self, reason: FinishReason) -> RequestOutput:
        """Return the last output, with all held-back text."""
        self._text += self._scanner.add(self._detokenizer.end())
        if not self.stopped:
            self._text += self._scanner.flush()
        elif reason == "length":
            reason = "stop"
        final = self._sent + len(self._text)
        kept = [item[2] for item in self._logprobs if item[0] < final or not self.stopped]
        return self._take(kept, reason)

    def _take(self, logprobs: Sequence[Logprob], reason: FinishReason | None) -> RequestOutput:
        scores = tuple(logprobs), tuple(self.prompt_logprobs)
        output = RequestOutput(self._text, scores[0], self._num_tokens, reason, scores[1])
        self._sent += len(self._text)
        self._text, self._num_tokens, self.prompt_logprobs = "", 0, []
        return output
