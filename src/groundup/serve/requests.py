"""From an HTTP request to engine requests: read the body within limits, check it, tokenize it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
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
from groundup.serve import protocol
from groundup.serve.limits import Limits
from groundup.serve.metrics import ServerMetrics
from groundup.serve.protocol import ApiError

# No request has more names; pydantic would make an error for each unknown one.
MAX_NAMES = 64
# OpenAI's own default of 16 makes a first try look broken.
COMPLETION_TOKENS = 256
# Parameters that the engine takes under the same names, with defaults that are OpenAI's.
SAMPLED = {"temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty"}


@dataclass
class ServedModel:
    """One model with everything that its routes need."""

    name: str  # of the run; the model's id in the API
    checkpoint: str  # `tuned` or `step-N`
    content: str  # SHA-256 of the model's files, for the fingerprint in responses
    context: int  # positions: limit on prompt and output together
    tokenizer: Tokenizer
    engine: Engine
    prompts: list[protocol.PromptSuggestion] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    draining: bool = False  # the server is stopping and takes no new requests
    bodies: int = 0  # request bodies that are being read
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def metrics(self) -> ServerMetrics:
        """Counters of this model's server."""
        return ServerMetrics(self.engine)

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token; a text of more than `context` times that cannot fit."""
        return max(map(len, self.engine.byte_strings))

    def check_open(self) -> None:
        """Refuse new requests while the server stops."""
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


def _too_large(limits: Limits) -> ApiError:
    """Return the refusal of a body; the connection stays open and discards the rest.

    Closing it while the client sends would reset it, and the client would not read the response;
    `idle_seconds` ends it.
    """
    message = f"The body is larger than {limits.body_bytes} bytes."
    return ApiError(413, message, "body_too_large")


class BoundedRequest(Request):
    """A request whose body is read within the server's limits.

    orjson parses it: NaN, Infinity, invalid UTF-8, lone surrogates and more than 1,024 levels are
    errors.
    """

    async def body(self) -> bytes:
        """Return the body; refuse one that is not JSON, too large, too slow, or one too many."""
        if not hasattr(self, "_body"):
            served: ServedModel = self.app.state.served
            self._check_headers(served.limits)
            served.check_open()
            if served.bodies >= served.limits.bodies:
                raise served.busy()
            served.bodies += 1
            try:
                body = await self._received(served.limits)
            finally:
                served.bodies -= 1
            if not body:
                raise ApiError(400, "The body is empty; send a JSON object.", "invalid_json")
            self._body = body
        return self._body

    def _check_headers(self, limits: Limits) -> None:
        """Refuse a body by its headers: a declared length saves the upload."""
        media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        wrong = ""
        if media_type != "application/json":
            wrong = "Send the body as Content-Type: application/json."
        elif self.headers.get("content-encoding", "identity").lower() != "identity":
            wrong = "Send the body as it is, without Content-Encoding."
        if wrong:
            raise ApiError(415, wrong, "wrong_content_type")
        declared = self.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limits.body_bytes:
            raise _too_large(limits)

    async def _received(self, limits: Limits) -> bytes:
        """Return what arrives; its length is counted, whatever the headers declare."""
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in self.stream():
                    body += chunk
                    if len(body) > limits.body_bytes:
                        raise _too_large(limits)
        except TimeoutError:
            message = f"The body did not arrive within {limits.body_seconds:g} s."
            raise ApiError(408, message, "slow_body") from None
        return bytes(body)

    async def json(self) -> Any:
        """Return the body as an object; refuse any other JSON."""
        try:
            content = orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            message = f"The body is not valid JSON: {error.msg[:100]}"
            raise ApiError(400, message, "invalid_json") from None
        if not isinstance(content, dict) or len(content) > MAX_NAMES:
            message = f"The body must be a JSON object with at most {MAX_NAMES} names."
            raise ApiError(400, message, "invalid_json")
        return content


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
    """The engine requests of one API request."""

    requests: tuple[EngineRequest, ...]  # one for each choice: n of the first prompt, and so on
    prompt_tokens: int  # of all prompts; a prompt counts once, whatever its number of choices
    echoes: tuple[str, ...]  # text before each choice
    hidden_tokens: int = 0  # that we put before each prompt and do not report


def prepare_completion(served: ServedModel, body: protocol.CompletionRequest) -> PreparedRequest:
    """Return the engine requests; ApiError if a prompt exceeds the context or a limit is passed.

    A text follows the end-of-text token, as documents do in training; token ids are taken as is.
    """
    tokenizer = served.tokenizer
    if isinstance(body.prompt, list):
        one_prompt = isinstance(body.prompt[0], int)
        prompts: list[Any] = [body.prompt] if one_prompt else body.prompt
    else:
        prompts = [body.prompt or ""]
    # Counted before encoding: a body may hold half a million short texts.
    n = _check_choices(served, body, len(prompts))
    encoded = []
    for prompt in prompts:
        if isinstance(prompt, str):
            _check_size(served, [prompt], "prompt")
            encoded.append([tokenizer.end_id, *tokenizer.encode(prompt)])
        elif max(prompt) < tokenizer.vocab_size:
            encoded.append(prompt)
        else:
            size = tokenizer.vocab_size
            message = f"prompt: a token id is not below {size}, the size of the vocabulary"
            raise ApiError(400, message, "invalid_value", "prompt")
    max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if not max_tokens and not body.echo:
        message = "max_tokens: 0 gives nothing, unless echo is true"
        raise ApiError(400, message, "invalid_value", "max_tokens")
    limits = [_limit_tokens(served, prompt, max_tokens, "prompt") for prompt in encoded]
    requests = _engine_requests(served, body, encoded, limits, body.logprobs, bool(body.echo))
    echoes = [""] * len(requests)
    if body.echo:
        texts = [text if isinstance(text, str) else tokenizer.decode(text) for text in prompts]
        echoes = [text for text in texts for _ in range(n)]
    hidden_tokens = 1 if isinstance(prompts[0], str) else 0
    return PreparedRequest(requests, sum(map(len, encoded)), tuple(echoes), hidden_tokens)


def prepare_chat(served: ServedModel, body: protocol.ChatRequest) -> PreparedRequest:
    """Return the engine requests of a chat completion; raises as `prepare_completion`."""
    roles = {"developer": "system"}
    turns = [{"role": roles.get(m.role, m.role), "content": m.text()} for m in body.messages]
    _check_size(served, [turn["content"] for turn in turns], "messages")
    prompt = encode_prompt(served.tokenizer, turns)
    stated = (body.max_completion_tokens, body.max_tokens, served.context)
    max_tokens = next(count for count in stated if count is not None)
    if max_tokens == 0:
        raise ApiError(400, "max_tokens: 0 gives no answer", "invalid_value", "max_tokens")
    limit = _limit_tokens(served, prompt, max_tokens, "messages")
    n = _check_choices(served, body, 1)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    requests = _engine_requests(served, body, [prompt], [limit], logprobs)
    return PreparedRequest(requests, len(prompt), ("",) * n)


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
    holds = f"this model's context holds {served.context}, of which one must be left for the answer"
    message = f"The prompt has {tokens} tokens; {holds}."
    return ApiError(400, message, "context_length_exceeded", param)


def _check_choices(served: ServedModel, body: protocol.GenerationRequest, prompts: int) -> int:
    """Return n. More choices than slots and queue hold would be refused as busy forever."""
    stats, n = served.engine.stats(), body.n or 1
    max_choices = min(served.limits.choices, stats.slots + stats.queue)
    if prompts * n > max_choices:
        message = f"n: {prompts * n} completions in one request; at most {max_choices}"
        raise ApiError(400, message, "too_many_choices", "n")
    return n


def _engine_requests(
    served: ServedModel,
    body: protocol.GenerationRequest,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    logprobs: int | None,
    score_prompts: bool = False,
) -> tuple[EngineRequest, ...]:
    """Return n requests for each prompt; absent parameters have OpenAI's default."""
    bias, vocab_size = body.logit_bias or {}, served.tokenizer.vocab_size
    # `\d` alone takes digits of other scripts, and int() of a long text is slow.
    if not all(re.fullmatch(r"[0-9]{1,10}", name) and int(name) < vocab_size for name in bias):
        message = f"logit_bias: its names are token ids below {vocab_size}"
        raise ApiError(400, message, "invalid_value", "logit_bias")
    sampling = {"temperature": 1.0} | body.model_dump(include=SAMPLED, exclude_none=True)
    params = SamplingParams(
        **sampling,
        top_k=max(0, body.top_k or 0),
        logit_bias=tuple((int(name), value) for name, value in bias.items()),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        stop_token_ids=frozenset({served.tokenizer.end_id, served.tokenizer.stop_id}),
        logprobs=logprobs,
        prompt_logprobs=logprobs if score_prompts else None,
    )
    n, first_seed = body.n or 1, secrets.randbits(63) if body.seed is None else body.seed
    requests = []
    for i in range(n * len(prompts)):
        # Hashed, not seed + i: the second choice of seed 1 must not be the first of seed 2.
        digest = hashlib.blake2b(f"{first_seed}/{i}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest) >> 1 if i else first_seed
        params = replace(params, max_tokens=limits[i // n], seed=seed)
        requests.append(EngineRequest(tuple(prompts[i // n]), params))
    scored = n * (sum(limits) + (sum(map(len, prompts)) if score_prompts else 0))
    scores = 0 if logprobs is None else scored * (logprobs + 1)
    max_scores = served.limits.scores
    if scores > max_scores:
        message = f"logprobs: {scores} log-probabilities in one request; at most {max_scores}"
        raise ApiError(400, message, "too_many_logprobs", "logprobs")
    return tuple(requests)
