"""Bodies of requests, bounded in size, time and number. Reads what a client sends; writes nothing.

The JSON parser is orjson: it refuses NaN, Infinity, invalid UTF-8, lone surrogates and more than
1,024 levels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from groundup.serve.errors import ApiError
from groundup.serve.serving import Serving

# No request has more names; each unknown one would be an error of its own.
MOST_NAMES = 64


class BoundedRoute(APIRoute):
    """A route that takes JSON and reads it with care."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which gets a `BoundedRequest`."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(BoundedRequest(request.scope, request.receive))

        return bounded


class BoundedRequest(Request):
    """A request whose body is read within the server's limits."""

    _bytes: bytes | None = None

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            ApiError: it is no JSON by its headers, too large, too slow, or one too many.
        """
        if self._bytes is None:
            self._bytes = await self._read(self.app.state.serving)
        return self._bytes

    async def json(self) -> Any:
        """Return the object that the body is.

        Raises:
            ApiError: it is no JSON object.
        """
        try:
            content = orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            raise ApiError(
                400, f"The body is not valid JSON: {error.msg[:100]}", "invalid_json"
            ) from None
        if not isinstance(content, dict) or len(content) > MOST_NAMES:
            raise ApiError(
                400,
                f"The body must be a JSON object with at most {MOST_NAMES} names.",
                "invalid_json",
            )
        return content

    async def _read(self, serving: Serving) -> bytes:
        limits = serving.limits
        self._check_headers(limits.body_bytes)
        with serving.reading():
            try:
                async with asyncio.timeout(limits.body_seconds):
                    body = await self._collect(limits.body_bytes)
            except TimeoutError:
                raise ApiError(
                    408, f"The body did not arrive within {limits.body_seconds:g} s.", "slow_body"
                ) from None
        if not body:
            raise ApiError(400, "The body is empty; send a JSON object.", "invalid_json")
        return body

    def _check_headers(self, limit: int) -> None:
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415, "Send the body as Content-Type: application/json.", "wrong_content_type"
            )
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(
                415, "Send the body as it is, without Content-Encoding.", "wrong_content_type"
            )
        # What the header claims saves the upload; what arrives is counted all the same.
        claimed = self.headers.get("content-length", "0")
        if claimed.isdigit() and int(claimed) > limit:
            raise _too_large(limit)

    async def _collect(self, limit: int) -> bytes:
        body = bytearray()
        async for chunk in self.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)


def _too_large(limit: int) -> ApiError:
    # The connection stays open, and what still comes is thrown away: to hang up on a client that
    # sends resets the connection, and it would never read the answer. `idle_seconds` ends that.
    return ApiError(413, f"The body is larger than {limit} bytes.", "body_too_large")
