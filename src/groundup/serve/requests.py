"""From an HTTP request to engine requests: read the body within limits, check it, tokenize it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from groundup.artifacts.chat import encode_prompt
from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.own import Engine
from groundup.engines.request import EngineRequest, SamplingParams
from groundup.serve.limits import Limits
from groundup.serve.metrics import ServerMetrics
from groundup.serve.protocol import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    PromptSuggestion,
)

# No request has more names; pydantic would make an error for each unknown one.
MAX_NAMES = 64
# OpenAI's own default of 16 makes a first try look broken.
COMPLETION_TOKENS = 256


@dataclass
class ServedModel:
    """One model with everything that its routes need.

    Attributes:
        name: of the run; the model's id in the API.
        checkpoint: `tuned` or `step-N`.
        content: SHA-256 of the model's files; the fingerprint in responses is made of it.
        context: positions; limit on prompt and output together.
        vocab_size: of the model.
        prompts: suggestions that fit the training data.
        draining: whether the server is stopping and takes no new requests.
        bodies: request bodies that are being read.
    """

    name: str
    checkpoint: str
    content: str
    context: int
    vocab_size: int
    tokenizer: Tokenizer
    engine: Engine
    prompts: list[PromptSuggestion] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    draining: bool = False
    bodies: int = 0
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def metrics(self) -> ServerMetrics:
        """Counters of this model's server."""
        return ServerMetrics(self.engine)

    @cached_property
    def byte_strings(self) -> list[bytes]:
        """The bytes of each token id of the model."""
        strings = self.tokenizer.byte_strings()
        # The model's vocabulary may be padded, and padding may be among the best alternatives.
        return strings + [b""] * (self.vocab_size - len(strings))

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token; a text of more than `context` times that cannot fit."""
        return max(map(len, self.byte_strings))

    def check_open(self) -> None:
        """Refuse new requests while the server stops.

        Raises:
            ApiError: the server is stopping (503).
        """
        if self.draining:
            raise shutting_down()

    def busy(self) -> ApiError:
        """Return the error for a request that finds no room, and count it."""
        self.metrics.refused.inc()
        message = "The queue is full; try again in a moment."
        return ApiError(429, message, "queue_full", headers={"Retry-After": "1"})


def shutting_down() -> ApiError:
    """Return the error for requests that come while the server stops."""
    headers = {"Retry-After": "5", "Connection": "close"}
    return ApiError(503, "The server is shutting down.", "shutting_down", headers=headers)


class BoundedRequest(Request):
    """A request whose body is read within the server's limits.

    orjson parses it: NaN, Infinity, invalid UTF-8, lone surrogates and more than 1,024 levels are
    errors.
    """

    _bytes: bytes | None = None

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            ApiError: it is not declared as JSON, too large, too slow, or one too many.
        """
        if self._bytes is None:
            served: ServedModel = self.app.state.served
            limits = served.limits
            self._check_headers(limits.body_bytes)
            served.check_open()
            if served.bodies >= limits.bodies:
                raise served.busy()
            served.bodies += 1
            try:
                async with asyncio.timeout(limits.body_seconds):
                    self._bytes = await self._collect(limits.body_bytes)
            except TimeoutError:
                message = f"The body did not arrive within {limits.body_seconds:g} s."
                raise ApiError(408, message, "slow_body") from None
            finally:
                served.bodies -= 1
            if not self._bytes:
                raise ApiError(400, "The body is empty; send a JSON object.", "invalid_json")
        return self._bytes

    async def json(self) -> Any:
        """Return the body as an object.

        Raises:
            ApiError: it is not a JSON object.
        """
        try:
            content = orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            message = f"The body is not valid JSON: {error.msg[:100]}"
            raise ApiError(400, message, "invalid_json") from None
        if not isinstance(content, dict) or len(content) > MAX_NAMES:
            message = f"The body must be a JSON object with at most {MAX_NAMES} names."
            raise ApiError(400, message, "invalid_json")
        return content

    def _check_headers(self, max_bytes: int) -> None:
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            message = "Send the body as Content-Type: application/json."
            raise ApiError(415, message, "wrong_content_type")
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            message = "Send the body as it is, without Content-Encoding."
            raise ApiError(415, message, "wrong_content_type")
        # The declared length saves the upload; what arrives is counted all the same.
        declared = self.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _body_too_large(max_bytes)

    async def _collect(self, max_bytes: int) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > max_bytes:
                raise _body_too_large(max_bytes)
        return bytes(body)


def _body_too_large(max_bytes: int) -> ApiError:
    # The connection stays open and discards the rest, until `idle_seconds` ends it: closing it
    # while the client sends would reset it, and the client would never read the response.
    return ApiError(413, f"The body is larger than {max_bytes} bytes.", "body_too_large")


class BoundedRoute(APIRoute):
    """A route whose handler gets a `BoundedRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            return await handle(BoundedRequest(request.scope, request.receive))

        return handle_bounded


@dataclass(frozen=True)
class PreparedRequest:
    """The engine requests of one API request.

    Attributes:
        requests: one for each choice: n of the first prompt, n of the second, and so on.
        prompt_tokens: of all prompts; a prompt counts once, whatever its number of choices.
        echoes: text before each choice.
        hidden_tokens: tokens that we put before each prompt and do not report.
    """

    requests: tuple[EngineRequest, ...]
    prompt_tokens: int
    echoes: tuple[str, ...]
    hidden_tokens: int = 0


def prepare_completion(served: ServedModel, body: CompletionRequest) -> PreparedRequest:
    """Return the engine requests of a completion.

    A text follows the end-of-text token, as documents do in training; token ids are taken as
    they are. Runs on a worker thread: encoding a long text would block the event loop.

    Raises:
        ApiError: a prompt exceeds the context, or a parameter is not supported.
    """
    prompts = _list_prompts(body.prompt)
    # Counted before encoding: a body may hold half a million short texts.
    n = _check_choices(served, body, len(prompts))
    encoded = [_encode(served, prompt) for prompt in prompts]
    max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if not max_tokens and not body.echo:
        message = "max_tokens: 0 gives nothing, unless echo is true"
        raise ApiError(400, message, "invalid_value", "max_tokens")
    limits = [_limit_tokens(served, prompt, max_tokens, "prompt") for prompt in encoded]
    params = _sampling_params(served, body, body.logprobs)
    if body.echo:
        params |= {"prompt_logprobs": body.logprobs}
    requests = tuple(
        EngineRequest(
            tuple(encoded[i // n]), SamplingParams(**params, max_tokens=limits[i // n], seed=seed)
        )
        for i, seed in enumerate(_seeds(body, len(prompts) * n))
    )
    _check_scores(served, requests)
    echoes = [""] * len(requests)
    if body.echo:
        decode = served.tokenizer.decode
        texts = [prompt if isinstance(prompt, str) else decode(prompt) for prompt in prompts]
        echoes = [text for text in texts for _ in range(n)]
    hidden_tokens = 1 if isinstance(prompts[0], str) else 0
    return PreparedRequest(requests, sum(map(len, encoded)), tuple(echoes), hidden_tokens)


def prepare_chat(served: ServedModel, body: ChatRequest) -> PreparedRequest:
    """Return the engine requests of a chat completion. Runs on a worker thread.

    Raises:
        ApiError: the conversation exceeds the context, or a parameter is not supported.
    """
    turns = [
        {
            "role": "system" if message.role == "developer" else message.role,
            "content": message.text(),
        }
        for message in body.messages
    ]
    _check_size(served, [turn["content"] for turn in turns], "messages")
    prompt = encode_prompt(served.tokenizer, turns)
    max_tokens = body.max_completion_tokens
    if max_tokens is None:
        max_tokens = body.max_tokens
    if max_tokens == 0:
        raise ApiError(400, "max_tokens: 0 gives no answer", "invalid_value", "max_tokens")
    if max_tokens is None:
        max_tokens = served.context
    limit = _limit_tokens(served, prompt, max_tokens, "messages")
    n = _check_choices(served, body, 1)
    params = _sampling_params(served, body, (body.top_logprobs or 0) if body.logprobs else None)
    requests = tuple(
        EngineRequest(tuple(prompt), SamplingParams(**params, max_tokens=limit, seed=seed))
        for seed in _seeds(body, n)
    )
    _check_scores(served, requests)
    return PreparedRequest(requests, len(prompt), ("",) * n)


def _list_prompts(
    prompt: str | list[str] | list[int] | list[list[int]] | None,
) -> list[str | list[int]]:
    """Return the prompts, each a text or token ids."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if isinstance(prompt[0], int):
        return [[token_id for token_id in prompt if isinstance(token_id, int)]]
    return [item for item in prompt if isinstance(item, str | list)]


def _encode(served: ServedModel, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        _check_size(served, [prompt], "prompt")
        return [served.tokenizer.end_id, *served.tokenizer.encode(prompt)]
    vocab_size = served.tokenizer.vocab_size
    if max(prompt) >= vocab_size:
        message = f"prompt: a token id is not below {vocab_size}, the size of the vocabulary"
        raise ApiError(400, message, "invalid_value", "prompt")
    return prompt


def _check_size(served: ServedModel, texts: Sequence[str], param: str) -> None:
    """Refuse without encoding what cannot fit: no token has more bytes than the longest."""
    size = sum(len(text.encode()) for text in texts)
    if size > served.context * served.longest_token:
        raise _prompt_too_long(served, f"at least {size // served.longest_token}", param)


def _limit_tokens(served: ServedModel, prompt: Sequence[int], max_tokens: int, param: str) -> int:
    """Return `max_tokens`, or what the context leaves."""
    left = served.context - len(prompt)
    if left < min(max_tokens, 1):
        raise _prompt_too_long(served, str(len(prompt)), param)
    return min(max_tokens, left)


def _prompt_too_long(served: ServedModel, tokens: str, param: str) -> ApiError:
    message = (
        f"The prompt has {tokens} tokens; this model's context holds {served.context}, of which"
        " one must be left for the answer."
    )
    return ApiError(400, message, "context_length_exceeded", param)


def _check_choices(served: ServedModel, body: GenerationRequest, prompts: int) -> int:
    """Return n. More choices than slots and queue hold would be refused as busy forever."""
    stats, n = served.engine.stats(), body.n or 1
    max_choices = min(served.limits.choices, stats.slots + stats.queue)
    if prompts * n > max_choices:
        message = f"n: {prompts * n} completions in one request; at most {max_choices}"
        raise ApiError(400, message, "too_many_choices", "n")
    return n


def _check_scores(served: ServedModel, requests: Sequence[EngineRequest]) -> None:
    scores, max_scores = 0, served.limits.scores
    for request in requests:
        params = request.params
        if params.logprobs is not None:
            scores += (params.logprobs + 1) * params.max_tokens
        if params.prompt_logprobs is not None:
            scores += (params.prompt_logprobs + 1) * len(request.prompt_token_ids)
    if scores > max_scores:
        message = f"logprobs: {scores} log-probabilities in one request; at most {max_scores}"
        raise ApiError(400, message, "too_many_logprobs", "logprobs")


def _seeds(body: GenerationRequest, count: int) -> list[int]:
    first = secrets.randbits(63) if body.seed is None else body.seed
    seeds = [first]
    # Hashed, not first + i: the second choice of seed 1 must not be the first of seed 2.
    for i in range(1, count):
        digest = hashlib.blake2b(f"{first}/{i}".encode(), digest_size=8).digest()
        seeds.append(int.from_bytes(digest) >> 1)
    return seeds


def _sampling_params(
    served: ServedModel, body: GenerationRequest, logprobs: int | None
) -> dict[str, Any]:
    """Return the sampling parameters that all choices share; absent ones have OpenAI's default."""
    tokenizer = served.tokenizer
    logit_bias = body.logit_bias or {}
    for name in logit_bias:
        # isdecimal alone takes digits of other scripts, and int() of a long text is slow.
        valid = name.isascii() and name.isdecimal() and len(name) <= 10
        if not valid or int(name) >= tokenizer.vocab_size:
            message = f"logit_bias: its names are token ids below {tokenizer.vocab_size}"
            raise ApiError(400, message, "invalid_value", "logit_bias")
    return {
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_k": max(0, body.top_k or 0),
        "top_p": body.top_p or 1.0,
        "min_p": body.min_p or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "logit_bias": tuple((int(name), bias) for name, bias in logit_bias.items()),
        "stop": (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        "stop_token_ids": frozenset({tokenizer.end_id, tokenizer.stop_id}),
        "logprobs": logprobs,
    }
