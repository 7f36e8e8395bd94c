"""Request, response and error models of the OpenAI API.

Pydantic validates requests; orjson writes the response dataclasses field by field. A validator
that collects an error for each of a million elements would turn a small body into gigabytes, so
lists stop at their first invalid element (`fail_fast`) and names are counted before validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import HTTPException
from pydantic import BaseModel, Field, field_validator, model_validator

# 2^31 exceeds every context; a larger number is a mistake.
Count = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
TokenIds = Annotated[list[Count], Field(min_length=1, fail_fast=True)]
TokenLists = Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class StrictModel(BaseModel, strict=True):
    """Takes JSON types as they are: "5" is not a number."""


class TextPart(StrictModel):
    """A part of a message; only text is supported."""

    type: Literal["text"]
    text: str


class Message(StrictModel):
    """A turn of a conversation; names, and empty fields of a returned answer, are ignored."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=1024, fail_fast=True)]
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None

    def text(self) -> str:
        """Return the content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(StrictModel):
    """Options of a stream."""

    include_usage: bool | None = None


class ResponseFormat(StrictModel):
    """Format of the answer; JSON modes are not supported."""

    type: Literal["text"]


class GenerationRequest(StrictModel, extra="forbid"):
    """Fields of both kinds of completion. Clients send null for the default of any field."""

    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16, fail_fast=True)] | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Accepted without effect: they concern an account, a cache or a bill.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _check_logit_bias(cls, value: Any) -> Any:
        # OpenAI's own limit; each entry costs a tensor operation before the engine takes it.
        if isinstance(value, dict) and len(value) > 300:
            raise ValueError("at most 300 entries")
        return value

    @model_validator(mode="after")
    def _check_stream_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream: true")
        return self


class CompletionRequest(GenerationRequest):
    """POST /v1/completions."""

    prompt: str | Texts | TokenIds | TokenLists | None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionRequest:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of is not supported, unless it equals n")
        return self


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096, fail_fast=True)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1, fail_fast=True)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true")
        return self


ChoiceFinishReason = Literal["stop", "length"]
Mode = Literal["chat", "complete"]
Headers = Mapping[str, str] | None


@dataclass(slots=True)
class Usage:
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(slots=True)
class TopLogprob:
    """An alternative token; its bytes may be part of a character."""

    token: str
    bytes: list[int]
    logprob: float


@dataclass(slots=True)
class TokenLogprob:
    """A token of a chat completion."""

    token: str
    bytes: list[int]
    logprob: float | None
    top_logprobs: list[TopLogprob]


@dataclass(slots=True)
class ChatLogprobs:
    """Log-probabilities of a chat completion."""

    content: list[TokenLogprob]
    refusal: None = None


@dataclass(slots=True)
class ChatMessage:
    """The message of a chat completion."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


@dataclass(slots=True)
class ChatChoice:
    """One of the n completions of a chat."""

    index: int
    message: ChatMessage
    finish_reason: ChoiceFinishReason
    logprobs: ChatLogprobs | None


@dataclass(slots=True)
class ChatChunkChoice:
    """New output of one choice; `delta` has the role or content, and is empty in the last."""

    index: int
    delta: dict[str, str]
    finish_reason: ChoiceFinishReason | None
    logprobs: ChatLogprobs | None


@dataclass(slots=True)
class CompletionLogprobs:
    """Log-probabilities of a completion, and of its prompt with echo."""

    tokens: list[str]  # `bytes:\xe2` where a token is only part of a character
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # start of each token in the choice's text, in characters


@dataclass(slots=True)
class CompletionChoice:
    """One of the completions of a request, or new text of it in a stream."""

    index: int
    text: str
    finish_reason: ChoiceFinishReason | None
    logprobs: CompletionLogprobs | None


@dataclass(slots=True)
class GenerationResponse:
    """First fields of a response, and of each event of a stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str


@dataclass(slots=True)
class ChatCompletion(GenerationResponse):
    """Response of POST /v1/chat/completions."""

    choices: list[ChatChoice]
    usage: Usage | None
    object: Literal["chat.completion"] = "chat.completion"


@dataclass(slots=True)
class ChatCompletionChunk(GenerationResponse):
    """Event of a streamed chat completion."""

    choices: list[ChatChunkChoice]
    usage: Usage | None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


@dataclass(slots=True)
class Completion(GenerationResponse):
    """Response of POST /v1/completions, and event of its stream."""

    choices: list[CompletionChoice]
    usage: Usage | None
    object: Literal["text_completion"] = "text_completion"


@dataclass(slots=True)
class ModelEntry:
    """A model that is served."""

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "groundup"


@dataclass(slots=True)
class ModelList:
    """Response of GET /v1/models."""

    data: list[ModelEntry]
    object: Literal["list"] = "list"


@dataclass(slots=True)
class Health:
    """Response of GET /health."""

    status: Literal["ok"] = "ok"


@dataclass(slots=True)
class PromptSuggestion:
    """A text to start with; `kind` is the source that it comes from."""

    text: str
    kind: str
    mode: Mode


@dataclass(slots=True)
class ServerInfo:
    """Response of GET /info."""

    run: str
    model: str
    checkpoint: str
    context: int
    tuned: bool
    sampling: dict[str, Any]
    prompts: list[PromptSuggestion]


@dataclass(slots=True)
class ErrorDetail:
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


@dataclass(slots=True)
class ErrorResponse:
    """Response of every failed request; the official client maps it to its exception classes."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An error that is reported to the client, such as `context_length_exceeded` of `prompt`."""

    def __init__(
        self, status: int, message: str, code: str = "", param: str = "", headers: Headers = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.param = code, param

    def body(self) -> bytes:
        """Return the JSON of the response."""
        other = "invalid_request_error" if self.status_code < 500 else "server_error"
        kind = ERROR_TYPES.get(self.status_code, other)
        detail = ErrorDetail(str(self.detail), kind, self.param or None, self.code or None)
        return orjson.dumps(ErrorResponse(detail))
