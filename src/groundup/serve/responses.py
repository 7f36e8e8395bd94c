"""From engine outputs to an HTTP response, whole or as a stream of server-sent events.

    engine thread -> OutputQueue -> ResponseBuilder (chat or completion) -> GeneratedResponse

A response watches whether its client is still there. Its requests are canceled however it ends,
so a client that hangs up frees its slots before the next step of the engine.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groundup.engines.request import (
    EngineClosed,
    EngineRequest,
    Logprob,
    QueueFull,
    RequestHandle,
    RequestOutput,
)
from groundup.serve.protocol import (
    ApiError,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprobs,
    ChatMessage,
    ChoiceFinishReason,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from groundup.serve.requests import PreparedRequest, ServedModel, shutting_down


class JSONResponse(Response):
    """A JSON response whose content is already encoded."""

    media_type = "application/json"


def error_response(error: ApiError) -> Response:
    """Return the response that reports an error."""
    return JSONResponse(error.body(), error.status_code, error.headers)


class OutputQueue:
    """Submits the requests of one response and passes their outputs to the event loop.

    Raises:
        ApiError: the queue has no room for all of them (429), the engine is closing (503) or
            refuses one (400).
    """

    def __init__(self, served: ServedModel, requests: Sequence[EngineRequest]) -> None:
        self._served = served
        self._loop = asyncio.get_running_loop()
        self._start = time.monotonic()
        self._last_token = [0.0] * len(requests)
        self._unfinished = len(requests)
        self._outputs: list[tuple[int, RequestOutput]] = []
        self._arrived = asyncio.Event()
        self._overflowed = False
        self._handles: list[RequestHandle] = []
        try:
            for index, request in enumerate(requests):
                on_output = partial(self._on_output, index)
                self._handles.append(served.engine.submit(request, on_output))
        except (QueueFull, EngineClosed, ValueError) as error:
            self.cancel()
            if isinstance(error, QueueFull):
                raise served.busy() from None
            if isinstance(error, EngineClosed):
                raise shutting_down() from None
            raise ApiError(400, str(error)[:200], "invalid_value") from None

    async def batches(self) -> AsyncIterator[list[tuple[int, RequestOutput]]]:
        """Yield new outputs with the index of their choice until all choices have ended.

        A batch is empty after a long silence.

        Raises:
            ApiError: the engine failed or stops, the time is up, or the client reads too slowly.
        """
        limits = self._served.limits
        while self._unfinished or self._outputs:
            left = self._start + limits.request_seconds - time.monotonic()
            if left <= 0:
                message = f"The answer took longer than {limits.request_seconds:g} s."
                raise ApiError(503, message, "too_long", headers={"X-Should-Retry": "false"})
            if self._overflowed:
                raise ApiError(503, "The client reads too slowly.", "slow_reader")
            batch, self._outputs = self._outputs, []
            reasons = {output.finish_reason for _, output in batch}
            if "error" in reasons:
                message = "The model failed on this request; the server's log says more."
                raise ApiError(500, message, "engine_failed")
            if "cancelled" in reasons:
                raise shutting_down()
            if batch or not await self._wait(min(left, limits.silence_seconds)):
                yield batch

    def cancel(self) -> None:
        """End all requests that have not ended."""
        for handle in self._handles:
            handle.cancel()

    async def _wait(self, seconds: float) -> bool:
        self._arrived.clear()
        if self._outputs:
            return True
        try:
            async with asyncio.timeout(seconds):
                return await self._arrived.wait()
        except TimeoutError:
            return False

    def _on_output(self, index: int, output: RequestOutput) -> None:
        """Take an output on the engine's thread, without waiting and without raising."""
        try:
            self._loop.call_soon_threadsafe(self._put, index, output)
        except RuntimeError:  # the event loop is closed
            self.cancel()

    def _put(self, index: int, output: RequestOutput) -> None:
        if output.num_tokens:
            now, before = time.monotonic(), self._last_token[index]
            metrics = self._served.metrics
            if before:
                metrics.time_per_token.observe((now - before) / output.num_tokens)
            else:
                metrics.time_to_first_token.observe(now - self._start)
            self._last_token[index] = now
        if output.finish_reason is not None:
            self._unfinished -= 1
        self._outputs.append((index, output))
        if len(self._outputs) > self._served.limits.pending * len(self._last_token):
            self._overflowed = True
            self.cancel()
        self._arrived.set()


class ResponseBuilder:
    """Builds the JSON of one response from engine outputs; subclasses know chat and completion."""

    id_prefix: str

    def __init__(self, served: ServedModel, prepared: PreparedRequest) -> None:
        self.served, self.prepared = served, prepared
        self.started: set[int] = set()
        # Fields of the response and of each event.
        self.header: dict[str, Any] = {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            # Changes with the weights: then a seed gives another text.
            "system_fingerprint": f"fp_{served.content[:12]}",
        }

    def body(self, outputs: Sequence[Sequence[RequestOutput]], usage: Usage) -> Any:
        """Return the whole response; `outputs` has those of each choice."""
        raise NotImplementedError

    def events(self, index: int, output: RequestOutput) -> Iterator[Any]:
        """Yield the stream events of one output of choice `index`."""
        raise NotImplementedError

    def usage_event(self, usage: Usage) -> Any:
        """Return the last event of a stream whose client asked for the usage."""
        raise NotImplementedError


class ChatBuilder(ResponseBuilder):
    """Response of POST /v1/chat/completions."""

    id_prefix = "chatcmpl"

    def body(self, outputs: Sequence[Sequence[RequestOutput]], usage: Usage) -> ChatCompletion:
        """Return the whole response."""
        choices = [
            ChatChoice(
                index,
                ChatMessage("".join(output.text for output in parts)),
                _finish_reason(parts[-1]),
                self._logprobs(index, parts),
            )
            for index, parts in enumerate(outputs)
        ]
        return ChatCompletion(**self.header, choices=choices, usage=usage)

    def events(self, index: int, output: RequestOutput) -> Iterator[ChatCompletionChunk]:
        """Yield an event each for the role, the text, and the finish reason."""
        choices = []
        if index not in self.started:
            self.started.add(index)
            choices.append(ChatChunkChoice(index, {"role": "assistant", "content": ""}, None, None))
        if output.text or output.logprobs:
            logprobs = self._logprobs(index, [output])
            choices.append(ChatChunkChoice(index, {"content": output.text}, None, logprobs))
        if output.finish_reason is not None:
            choices.append(ChatChunkChoice(index, {}, _finish_reason(output), None))
        for choice in choices:
            yield ChatCompletionChunk(**self.header, choices=[choice], usage=None)

    def usage_event(self, usage: Usage) -> ChatCompletionChunk:
        """Return the event with the usage."""
        return ChatCompletionChunk(**self.header, choices=[], usage=usage)

    def _logprobs(self, index: int, outputs: Sequence[RequestOutput]) -> ChatLogprobs | None:
        if self.prepared.requests[index].params.logprobs is None:
            return None
        byte_strings, content = self.served.byte_strings, []
        for token in (token for output in outputs for token in output.logprobs):
            top = [
                TopLogprob(_decode(byte_strings[other]), list(byte_strings[other]), logprob)
                for other, logprob in token.top_logprobs
            ]
            data = token.token_bytes
            content.append(TokenLogprob(_decode(data), list(data), token.logprob, top))
        return ChatLogprobs(content)


class CompletionBuilder(ResponseBuilder):
    """Response of POST /v1/completions."""

    id_prefix = "cmpl"

    def __init__(self, served: ServedModel, prepared: PreparedRequest) -> None:
        super().__init__(served, prepared)
        self._offsets = [0] * len(prepared.requests)

    def body(self, outputs: Sequence[Sequence[RequestOutput]], usage: Usage) -> Completion:
        """Return the whole response."""
        choices = [
            CompletionChoice(
                index,
                self.prepared.echoes[index] + "".join(output.text for output in parts),
                _finish_reason(parts[-1]),
                self._logprobs(index, parts),
            )
            for index, parts in enumerate(outputs)
        ]
        return Completion(**self.header, choices=choices, usage=usage)

    def events(self, index: int, output: RequestOutput) -> Iterator[Completion]:
        """Yield an event each for the text, the first with the echo, and the finish reason."""
        echo = "" if index in self.started else self.prepared.echoes[index]
        self.started.add(index)
        choices = []
        if echo or output.text or output.logprobs or output.prompt_logprobs:
            logprobs = self._logprobs(index, [output])
            choices.append(CompletionChoice(index, echo + output.text, None, logprobs))
        if output.finish_reason is not None:
            choices.append(CompletionChoice(index, "", _finish_reason(output), None))
        for choice in choices:
            yield Completion(**self.header, choices=[choice], usage=None)

    def usage_event(self, usage: Usage) -> Completion:
        """Return the event with the usage."""
        return Completion(**self.header, choices=[], usage=usage)

    def _logprobs(self, index: int, outputs: Sequence[RequestOutput]) -> CompletionLogprobs | None:
        if self.prepared.requests[index].params.logprobs is None:
            return None
        result = CompletionLogprobs([], [], [], [])
        for output in outputs:
            prompt_logprobs = output.prompt_logprobs[self.prepared.hidden_tokens :]
            for token in (*prompt_logprobs, *output.logprobs):
                result.tokens.append(_token_name(token.token_bytes))
                result.token_logprobs.append(token.logprob)
                result.top_logprobs.append(self._top_logprobs(index, token))
                result.text_offset.append(self._offsets[index])
                # Characters are counted by the bytes that begin one.
                self._offsets[index] += sum(byte & 0xC0 != 0x80 for byte in token.token_bytes)
        return result

    def _top_logprobs(self, index: int, token: Logprob) -> dict[str, float] | None:
        """Return the alternatives and the token itself: up to one more than asked for."""
        if token.logprob is None:
            return None
        byte_strings = self.served.byte_strings
        top = {_token_name(byte_strings[other]): logprob for other, logprob in token.top_logprobs}
        return top | {_token_name(token.token_bytes): token.logprob}


def _finish_reason(output: RequestOutput) -> ChoiceFinishReason:
    return "stop" if output.finish_reason == "stop" else "length"


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _token_name(data: bytes) -> str:
    """Return a token's text; part of a character as OpenAI writes it, so names stay distinct."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class GeneratedResponse(Response):
    """The response to a request whose completions are in the engine.

    Args:
        stream: whether to send events instead of one body.
        include_usage: whether a stream ends with the usage.
    """

    def __init__(
        self, outputs: OutputQueue, builder: ResponseBuilder, stream: bool, include_usage: bool
    ) -> None:
        super().__init__()
        self._outputs, self._builder = outputs, builder
        self._stream, self._include_usage = stream, include_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond until all is sent or the client disconnects."""
        respond = self._send_events(send) if self._stream else self._send_body(scope, receive, send)
        tasks = (asyncio.create_task(respond), asyncio.create_task(_disconnected(receive)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._outputs.cancel()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        outputs: list[list[RequestOutput]] = [[] for _ in self._builder.prepared.requests]
        try:
            async for batch in self._outputs.batches():
                for index, output in batch:
                    outputs[index].append(output)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        usage = self._usage(sum(output.num_tokens for parts in outputs for output in parts))
        body = orjson.dumps(self._builder.body(outputs, usage))
        await JSONResponse(body)(scope, receive, send)

    async def _send_events(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._events()) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncGenerator[bytes]:
        num_tokens = 0
        try:
            async for batch in self._outputs.batches():
                num_tokens += sum(output.num_tokens for _, output in batch)
                # One write for each batch: many to a lost connection would fill the log.
                events = [event for item in batch for event in self._builder.events(*item)]
                yield b"".join(map(_sse, events)) or b": still here\n\n"
        except ApiError as error:
            # The status is sent already; the official client raises APIError for such an event.
            yield b"data: " + error.body() + b"\n\n"
            return
        if self._include_usage:
            yield _sse(self._builder.usage_event(self._usage(num_tokens)))
        yield b"data: [DONE]\n\n"

    def _usage(self, completion_tokens: int) -> Usage:
        prompt_tokens = self._builder.prepared.prompt_tokens
        return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


def _sse(content: Any) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
