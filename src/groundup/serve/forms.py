"""The two forms of an answer: chat and completion, whole and in parts. Reads pieces of the engine;
writes answers.

A form is made for one request. `part` gives the events of a piece; `whole` the answer that all
pieces make.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from groundup.engines.own import Piece, TokenScore
from groundup.serve.replies import (
    Chat,
    ChatChoice,
    ChatChunk,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Reason,
    ScoredToken,
    TopToken,
    Usage,
)
from groundup.serve.requests import Work
from groundup.serve.serving import Serving


class Form(Protocol):
    """How the pieces of a request become what its client reads."""

    def part(self, index: int, piece: Piece) -> Iterator[Any]:
        """Yield the events that a piece of choice `index` makes."""
        ...

    def whole(self, pieces: Sequence[Sequence[Piece]], usage: Usage) -> Any:
        """Return the answer; `pieces` has those of each choice."""
        ...

    def usage(self, usage: Usage) -> Any:
        """Return the event that ends a stream whose client wants the usage."""
        ...


class _Named:
    """What all parts of an answer share."""

    def __init__(self, serving: Serving, work: Work, prefix: str) -> None:
        self.serving, self.work = serving, work
        self.id = f"{prefix}-{uuid.uuid4().hex}"
        self.created = int(time.time())

    @property
    def common(self) -> dict[str, Any]:
        serving = self.serving
        return {
            "id": self.id,
            "created": self.created,
            "model": serving.name,
            "system_fingerprint": serving.fingerprint,
        }


class ChatForm(_Named):
    """Answers of POST /v1/chat/completions."""

    def __init__(self, serving: Serving, work: Work) -> None:
        super().__init__(serving, work, "chatcmpl")
        self._begun: set[int] = set()

    def part(self, index: int, piece: Piece) -> Iterator[ChatChunk]:
        """Yield the role, the text, and the reason of the end, each by itself."""
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(ChatDelta(index, {"role": "assistant", "content": ""}, None, None))
        if piece.text or piece.tokens:
            yield self._chunk(
                ChatDelta(index, {"content": piece.text}, None, self._scores(index, [piece]))
            )
        if piece.finish is not None:
            yield self._chunk(ChatDelta(index, {}, _reason(piece), None))

    def whole(self, pieces: Sequence[Sequence[Piece]], usage: Usage) -> Chat:
        """Return the answer."""
        choices = [
            ChatChoice(
                index,
                ChatMessage("".join(piece.text for piece in parts)),
                _reason(parts[-1]),
                self._scores(index, parts),
            )
            for index, parts in enumerate(pieces)
        ]
        return Chat(**self.common, choices=choices, usage=usage)

    def usage(self, usage: Usage) -> ChatChunk:
        """Return the last event."""
        return ChatChunk(**self.common, choices=[], usage=usage)

    def _chunk(self, delta: ChatDelta) -> ChatChunk:
        return ChatChunk(**self.common, choices=[delta], usage=None)

    def _scores(self, index: int, pieces: Sequence[Piece]) -> ChatLogprobs | None:
        if self.work.jobs[index].top < 0:
            return None
        return ChatLogprobs([self._scored(token) for piece in pieces for token in piece.tokens])

    def _scored(self, token: TokenScore) -> ScoredToken:
        vocabulary = self.serving.vocabulary
        top = [
            TopToken(_text(vocabulary[other]), list(vocabulary[other]), logprob)
            for other, logprob in token.top
        ]
        return ScoredToken(_text(token.data), list(token.data), token.logprob, top)


class CompletionForm(_Named):
    """Answers of POST /v1/completions."""

    def __init__(self, serving: Serving, work: Work) -> None:
        super().__init__(serving, work, "cmpl")
        self._begun: set[int] = set()
        self._offset = [0] * len(work.jobs)

    def part(self, index: int, piece: Piece) -> Iterator[Completion]:
        """Yield the text, and then the reason of the end; the echo goes with the first."""
        echo = "" if index in self._begun else self.work.echoes[index]
        self._begun.add(index)
        if echo or piece.text or piece.tokens or piece.prompt:
            yield self._event(
                CompletionChoice(index, echo + piece.text, None, self._scores(index, [piece]))
            )
        if piece.finish is not None:
            yield self._event(CompletionChoice(index, "", _reason(piece), None))

    def whole(self, pieces: Sequence[Sequence[Piece]], usage: Usage) -> Completion:
        """Return the answer."""
        choices = [
            CompletionChoice(
                index,
                self.work.echoes[index] + "".join(piece.text for piece in parts),
                _reason(parts[-1]),
                self._scores(index, parts),
            )
            for index, parts in enumerate(pieces)
        ]
        return Completion(**self.common, choices=choices, usage=usage)

    def usage(self, usage: Usage) -> Completion:
        """Return the last event."""
        return Completion(**self.common, choices=[], usage=usage)

    def _event(self, choice: CompletionChoice) -> Completion:
        return Completion(**self.common, choices=[choice], usage=None)

    def _scores(self, index: int, pieces: Sequence[Piece]) -> CompletionLogprobs | None:
        if self.work.jobs[index].top < 0:
            return None
        scores = CompletionLogprobs([], [], [], [])
        for piece in pieces:
            # The end-of-text id that we put before a text is no token of the client's.
            for token in (*piece.prompt[self.work.added :], *piece.tokens):
                self._add(scores, index, token)
        return scores

    def _add(self, scores: CompletionLogprobs, index: int, token: TokenScore) -> None:
        scores.tokens.append(_name(token.data))
        scores.token_logprobs.append(token.logprob)
        scores.top_logprobs.append(
            None if token.logprob is None else self._top(token, token.logprob)
        )
        scores.text_offset.append(self._offset[index])
        # Characters are counted by the bytes that begin one.
        self._offset[index] += sum(byte & 0xC0 != 0x80 for byte in token.data)

    def _top(self, token: TokenScore, logprob: float) -> dict[str, float]:
        """Return the best tokens and the one that was taken, as the protocol has it: up to one more
        than was asked for.
        """
        if not self.work.jobs[0].top:
            return {_name(token.data): logprob}
        return {_name(self.serving.vocabulary[other]): value for other, value in token.top} | {
            _name(token.data): logprob
        }


def count(work: Work, generated: int) -> Usage:
    """Return the usage of a request."""
    return Usage(work.prompt_tokens, generated, work.prompt_tokens + generated)


def _reason(piece: Piece) -> Reason:
    return "stop" if piece.finish == "stop" else "length"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _name(data: bytes) -> str:
    """Return a token as text, or as OpenAI writes a part of a character, so that two of them are
    not called the same.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
