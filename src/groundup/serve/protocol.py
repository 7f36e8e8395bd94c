"""Requests of the OpenAI protocol, and what is wrong with one. Reads JSON; writes nothing.

Lists stop at their first bad element (`fail_fast`) and names are counted before they are looked at:
validation otherwise makes an error for each of a million elements, and answers a small body with
gigabytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# 2^31 is beyond every context; more is a mistake.
Count = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]


def _few(value: Any) -> Any:
    # OpenAI's own limit; each is an operation on a tensor before the engine takes the request.
    if isinstance(value, dict) and len(value) > 300:
        raise ValueError("at most 300 entries")
    return value


class Part(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation. Names and the empty fields of an answer sent back are passed over."""

    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1, max_length=1024, fail_fast=True)]
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None

    def text(self) -> str:
        """Return the content as one text."""
        return (
            self.content
            if isinstance(self.content, str)
            else "".join(part.text for part in self.content)
        )


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class ResponseFormat(BaseModel):
    """The form of an answer; JSON modes are not offered."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]


class Asked(BaseModel):
    """What both kinds of completion take. None is the default everywhere, as clients send it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_few)] | None
    ) = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=16, fail_fast=True)] | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Taken and without effect: they are about an account, a cache or a bill.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Asked:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream: true")
        return self

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(Asked):
    """POST /v1/completions."""

    prompt: str | Texts | Ids | Annotated[list[Ids], Field(min_length=1, fail_fast=True)] | None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _no_choice_among_candidates(self) -> CompletionRequest:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of is not supported, unless it equals n")
        return self


class ChatRequest(Asked):
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
    def _alternatives_need_scores(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true")
        return self
