"""Answers of the OpenAI protocol, as the official client reads them. Reads nothing; orjson writes
them as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["stop", "length"]


@dataclass(slots=True)
class Usage:
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(slots=True)
class TopToken:
    """A token that might have stood there; its bytes may be a part of a character."""

    token: str
    bytes: list[int]
    logprob: float


@dataclass(slots=True)
class ScoredToken:
    """A token of a chat's answer."""

    token: str
    bytes: list[int]
    logprob: float | None
    top_logprobs: list[TopToken]


@dataclass(slots=True)
class ChatLogprobs:
    """Scores of a chat's answer."""

    content: list[ScoredToken]
    refusal: None = None


@dataclass(slots=True)
class ChatMessage:
    """An answer."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


@dataclass(slots=True)
class ChatChoice:
    """One answer of a chat."""

    index: int
    message: ChatMessage
    finish_reason: Reason
    logprobs: ChatLogprobs | None


@dataclass(slots=True)
class ChatDelta:
    """A part of one answer; `delta` holds role or content, and nothing in the last."""

    index: int
    delta: dict[str, str]
    finish_reason: Reason | None
    logprobs: ChatLogprobs | None


@dataclass(slots=True)
class CompletionLogprobs:
    """Scores of a completion, and of its prompt with echo.

    Attributes:
        tokens: `bytes:\\xe2` where a token is a part of a character only.
        text_offset: where each token begins in the choice's text, in characters.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


@dataclass(slots=True)
class CompletionChoice:
    """One completion, or a part of it in a stream."""

    index: int
    text: str
    finish_reason: Reason | None
    logprobs: CompletionLogprobs | None


@dataclass(slots=True)
class Chat:
    """Answer of POST /v1/chat/completions."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage | None
    object: Literal["chat.completion"] = "chat.completion"


@dataclass(slots=True)
class ChatChunk:
    """An event of a streamed chat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatDelta]
    usage: Usage | None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


@dataclass(slots=True)
class Completion:
    """Answer of POST /v1/completions, and an event of its stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None
    object: Literal["text_completion"] = "text_completion"


@dataclass(slots=True)
class Model:
    """A model that is served."""

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "groundup"


@dataclass(slots=True)
class Models:
    """Answer of GET /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


@dataclass(slots=True)
class Health:
    """Answer of GET /health."""

    status: Literal["ok"] = "ok"


@dataclass(slots=True)
class ErrorDetail:
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


@dataclass(slots=True)
class ErrorAnswer:
    """Answer of every request that failed."""

    error: ErrorDetail


@dataclass(slots=True)
class Suggestion:
    """A text to begin with; `kind` is the source that it came from."""

    text: str
    kind: str
    mode: Literal["chat", "complete"]


@dataclass(slots=True)
class Info:
    """Answer of GET /info."""

    run: str
    model: str
    checkpoint: str
    context: int
    tuned: bool
    sampling: dict[str, Any]
    prompts: list[Suggestion]
