"""Sends an answer, whole or as a stream, while it watches that its client is still there. Reads
pieces; writes HTTP.

The jobs are canceled however it ends: a client that hangs up frees its slots before the next step
of the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groundup.engines.own import Piece
from groundup.serve.errors import ApiError, JSONAnswer, answer_error
from groundup.serve.forms import Form, count
from groundup.serve.generation import Generation
from groundup.serve.requests import Work


class Answer(Response):
    """The answer of a request whose jobs are in the engine.

    Args:
        stream: whether to send it in parts.
        usage: whether a stream ends with the usage.
    """

    def __init__(
        self, generation: Generation, work: Work, form: Form, stream: bool, usage: bool
    ) -> None:
        super().__init__()
        self._generation, self._work, self._form = generation, work, form
        self._stream, self._usage = stream, usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, until all is said or the client is gone."""
        answer = asyncio.create_task(
            self._send_events(send) if self._stream else self._send_whole(scope, receive, send)
        )
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._generation.cancel()
            answer.cancel()
            gone.cancel()
            results = await asyncio.gather(answer, gone, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces: list[list[Piece]] = [[] for _ in self._work.jobs]
        try:
            async for batch in self._generation.batches():
                for index, piece in batch:
                    pieces[index].append(piece)
        except ApiError as error:
            await answer_error(error)(scope, receive, send)
            return
        usage = count(self._work, sum(piece.count for parts in pieces for piece in parts))
        await JSONAnswer(orjson.dumps(self._form.whole(pieces, usage)))(scope, receive, send)

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
        generated = 0
        try:
            async for batch in self._generation.batches():
                generated += sum(piece.count for _, piece in batch)
                # One write a batch: many to a connection that is gone fill the log.
                yield (
                    b"".join(_event(event) for part in batch for event in self._form.part(*part))
                    or b": still here\n\n"
                )
        except ApiError as error:
            # The status is sent already; the official client raises APIError on such an event.
            yield b"data: " + error.body() + b"\n\n"
            return
        if self._usage:
            yield _event(self._form.usage(count(self._work, generated)))
        yield b"data: [DONE]\n\n"


def _event(content: Any) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
