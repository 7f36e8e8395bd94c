"""From engine outputs to an HTTP response, whole or as a stream of server-sent events.

    engine thread -> OutputQueue -> CompletionBuilder or ChatBuilder -> GeneratedResponse

A response watches whether its client is still there. Its requests are canceled however it ends,
so a client that hangs up frees its slots before the next step of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from groundup.engines.request import (
    EngineClosed,
    EngineRequest,
    QueueFull,
    RequestHandle,
    RequestOutput,
)
from groundup.serve import protocol
from groundup.serve.protocol import ApiError
from groundup.serve.requests import PreparedRequest, ServedModel, shutting_down


class JSONResponse(Response):
    """A JSON response; orjson writes dataclasses field by field."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content, unless it is encoded already."""
        return content if isinstance(content, bytes) else orjson.dumps(content)


def error_response(error: ApiError) -> Response:
    """Return the response that reports an error."""
    return JSONResponse(error.body(), error.status_code, error.headers)


class OutputQueue:
    """Submits the requests of one response and passes their outputs to the event loop.

    Raises ApiError if the queue has no room for all of them (429), or the engine is closing (503)
    or refuses one (400).
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

        A batch is empty after a long silence. Raises ApiError if the engine failed or stops, the
        time is up, or the client reads too slowly.
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
            if not batch:
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, limits.silence_seconds)):
                        await self._arrived.wait()
                        continue
            yield batch

    def cancel(self) -> None:
        """End all requests that have not ended."""
        for handle in self._handles:
            handle.cancel()

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


class CompletionBuilder:
    """Builds the JSON of POST /v1/completions from engine outputs; a choice begins with the echo.

    The other route overrides the models, the choice of a body, that of an event, and its scores.
    """

    id_prefix = "cmpl"
    body_type: Callable[..., Any] = protocol.Completion
    event_type: Callable[..., Any] = protocol.Completion

    def __init__(self, served: ServedModel, prepared: PreparedRequest) -> None:
        self.served, self.prepared = served, prepared
        self.started: set[int] = set()  # choices that have sent an event
        self.offsets = [0] * len(prepared.requests)  # characters of each choice
        self.header: dict[str, Any] = {
            "id": f"{self.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
            # Changes with the weights: then a seed gives another text.
            "system_fingerprint": f"fp_{served.content[:12]}",
        }

    def body(self, outputs: Sequence[Sequence[RequestOutput]]) -> Any:
        """Return the whole response; `outputs` has those of each choice."""
        choices = []
        for index, parts in enumerate(outputs):
            text = self.prepared.echoes[index] + "".join(output.text for output in parts)
            reason, logprobs = parts[-1].finish_reason, self._logprobs(index, parts)
            choices.append(self._choice(index, text, reason, logprobs))
        usage = self.usage(sum(output.num_tokens for parts in outputs for output in parts))
        return self.body_type(**self.header, choices=choices, usage=usage)

    def events(self, index: int, output: RequestOutput) -> list[Any]:
        """Return the stream events of one output of choice `index`: text, then finish reason."""
        deltas = []
        echo = "" if index in self.started else self.prepared.echoes[index]
        if echo or output.text or output.logprobs or output.prompt_logprobs:
            logprobs = self._logprobs(index, [output])
            deltas.append(self._delta(index, echo + output.text, None, logprobs))
        if output.finish_reason is not None:
            deltas.append(self._delta(index, "", output.finish_reason, None))
        self.started.add(index)
        return [self.event(delta) for delta in deltas]

    def event(self, *deltas: Any, usage: protocol.Usage | None = None) -> Any:
        """Return a stream event with the new output of a choice, or with the usage."""
        return self.event_type(**self.header, choices=list(deltas), usage=usage)

    def usage(self, num_tokens: int) -> protocol.Usage:
        """Return the token counts of the request."""
        prompt_tokens = self.prepared.prompt_tokens
        return protocol.Usage(prompt_tokens, num_tokens, prompt_tokens + num_tokens)

    def _choice(self, index: int, text: str, reason: Any, logprobs: Any) -> Any:
        return protocol.CompletionChoice(index, text, reason, logprobs)

    _delta = _choice

    def _logprobs(self, index: int, outputs: Sequence[RequestOutput]) -> Any:
        if self.prepared.requests[index].params.logprobs is None:
            return None
        byte_strings = self.served.engine.byte_strings
        result = protocol.CompletionLogprobs([], [], [], [])
        for output in outputs:
            prompt_logprobs = output.prompt_logprobs[self.prepared.hidden_tokens :]
            for token in (*prompt_logprobs, *output.logprobs):
                name, top = _token_name(token.token_bytes), None
                if token.logprob is not None:
                    top = {_token_name(byte_strings[n]): score for n, score in token.top_logprobs}
                    # Up to one more than asked for: OpenAI adds the sampled token.
                    top |= {name: token.logprob}
                result.tokens.append(name)
                result.token_logprobs.append(token.logprob)
                result.top_logprobs.append(top)
                result.text_offset.append(self.offsets[index])
                # Characters are counted by the bytes that begin one.
                self.offsets[index] += sum(byte & 0xC0 != 0x80 for byte in token.token_bytes)
        return result


class ChatBuilder(CompletionBuilder):
    """Builds the response of POST /v1/chat/completions; its streams begin with the role."""

    id_prefix = "chatcmpl"
    body_type = protocol.ChatCompletion
    event_type = protocol.ChatCompletionChunk

    def events(self, index: int, output: RequestOutput) -> list[Any]:
        """Return the stream events of one output: the role first, then text and finish reason."""
        if index in self.started:
            return super().events(index, output)
        role = {"role": "assistant", "content": ""}
        first = self.event(protocol.ChatChunkChoice(index, role, None, None))
        return [first, *super().events(index, output)]

    def _choice(self, index: int, text: str, reason: Any, logprobs: Any) -> Any:
        return protocol.ChatChoice(index, protocol.ChatMessage(text), reason, logprobs)

    def _delta(self, index: int, text: str, reason: Any, logprobs: Any) -> Any:
        content = {"content": text} if reason is None else {}
        return protocol.ChatChunkChoice(index, content, reason, logprobs)

    def _logprobs(self, index: int, outputs: Sequence[RequestOutput]) -> Any:
        if self.prepared.requests[index].params.logprobs is None:
            return None
        byte_strings, content = self.served.engine.byte_strings, []
        for token in (token for output in outputs for token in output.logprobs):
            top = [
                protocol.TopLogprob(*_text_and_bytes(byte_strings[other]), logprob)
                for other, logprob in token.top_logprobs
            ]
            names = _text_and_bytes(token.token_bytes)
            content.append(protocol.TokenLogprob(*names, token.logprob, top))
        return protocol.ChatLogprobs(content)


def _text_and_bytes(data: bytes) -> tuple[str, list[int]]:
    return data.decode("utf-8", "replace"), list(data)


def _token_name(data: bytes) -> str:
    """Return a token's text; part of a character as OpenAI writes it, so names stay distinct."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class GeneratedResponse(StreamingResponse):
    """The response to a request whose completions are in the engine: a body or a stream."""

    def __init__(
        self, outputs: OutputQueue, builder: CompletionBuilder, request: protocol.GenerationRequest
    ) -> None:
        super().__init__(())
        self._outputs, self._builder = outputs, builder
        self._stream, options = bool(request.stream), request.stream_options
        self._include_usage = bool(options and options.include_usage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond until all is sent or the client disconnects."""
        respond = self._send_events(send) if self._stream else self._send_body(scope, receive, send)
        watch_client = self.listen_for_disconnect(receive)
        tasks = (asyncio.create_task(respond), asyncio.create_task(watch_client))
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
            response: Response = JSONResponse(self._builder.body(outputs))
        except ApiError as error:
            response = error_response(error)
        await response(scope, receive, send)

    async def _send_events(self, send: Send) -> None:
        event_stream = (b"content-type", b"text/event-stream; charset=utf-8")
        headers = [event_stream, (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        num_tokens = 0
        try:
            async for batch in self._outputs.batches():
                num_tokens += sum(output.num_tokens for _, output in batch)
                # One write for each batch: many to a lost connection would fill the log.
                events = [event for item in batch for event in self._builder.events(*item)]
                data = b"".join(map(_sse, events)) or b": still here\n\n"
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except ApiError as error:
            # The status is sent already; the official client raises APIError for such an event.
            end = b"data: " + error.body() + b"\n\n"
        else:
            end = b"data: [DONE]\n\n"
            if self._include_usage:
                end = _sse(self._builder.event(usage=self._builder.usage(num_tokens))) + end
        await send({"type": "http.response.body", "body": end, "more_body": False})


def _sse(content: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"
