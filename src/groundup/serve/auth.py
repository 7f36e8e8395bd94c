"""Authentication in front of every route.

With a key, every path needs `Authorization: Bearer KEY` except the `public` ones, which hold
nothing secret. The check precedes routing, so it covers unknown paths, other methods and mounted
applications.

Without a key the server is bound to loopback, and the threat is web pages that the user has open.
So the Host must be a loopback name (DNS rebinding: a page whose name now points to 127.0.0.1 still
sends that name), an Origin must be this server's (CSRF), and requests that a proxy forwarded are
refused. No response allows another origin (CORS).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.serve.protocol import ApiError
from groundup.serve.requests import ServedModel
from groundup.serve.responses import error_response

# The page's icon is the only resource that is not a file of this server.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
    " data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"}


class AuthMiddleware:
    """ASGI middleware that refuses unauthorized requests, and secures and counts all responses.

    GET and HEAD may request the `public` paths without the key; no key is for loopback only.
    """

    def __init__(
        self, app: ASGIApp, served: ServedModel, key: str | None, public: Collection[str]
    ) -> None:
        self._app, self._responses = app, served.metrics.responses
        self._header_bytes = served.limits.header_bytes
        self._digest = _digest(key.encode()) if key is not None else None
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 400, 401 or 403."""

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                request_id = (b"x-request-id", f"req_{secrets.token_hex(12)}".encode())
                headers = [*message.get("headers", []), *SECURITY_HEADERS, request_id]
                message = {**message, "headers": headers}
                # The router sets it; unknown paths make no time series of their own.
                route = getattr(scope.get("route"), "path", "other")
                self._responses.labels(route, str(message["status"])).inc()
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # There are no WebSocket routes; one added later stays closed until it is checked here.
            await send({"type": "websocket.close", "code": 1008})
        else:
            error = self._check(scope)
            app = self._app if error is None else error_response(error)
            await app(scope, receive, send_secured)

    def _check(self, scope: Scope) -> ApiError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        # h11 bounds only what comes in pieces; ": " and the end of a line are four bytes.
        size = sum(len(name) + len(value) + 4 for name, value in headers)
        size += len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if size > self._header_bytes:
            message = f"Request line and headers are larger than {self._header_bytes} bytes."
            return ApiError(400, message, "headers_too_large")
        if self._digest is None:
            return _check_local(headers)
        if scope["method"] in ("GET", "HEAD") and scope["path"] in self._public:
            return None
        values = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        # Digests have equal length, so the comparison's time tells nothing, not even the length.
        matches = hmac.compare_digest(_digest(key.strip()), self._digest)
        if scheme.lower() == b"bearer" and matches:
            return None
        message = "This server wants its API key: send the header Authorization: Bearer KEY."
        return ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check_local(headers: list[tuple[bytes, bytes]]) -> ApiError | None:
    """Return the error for a request that does not come from a program of this machine."""
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not is_loopback(hostname(hosts[0])):
        names = "http://127.0.0.1 or http://localhost"
        message = f"Without a key this server answers to loopback names only: {names}."
        return ApiError(403, message, "bad_host")
    origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        return ApiError(403, "Pages of another origin may not use this server.", "bad_origin")
    if FORWARDED & {name for name, _ in headers}:
        message = "Behind a proxy this server wants a key: start it with --api-key-file."
        return ApiError(403, message, "proxied")
    return None


def hostname(host: str) -> str:
    """Return the name in a Host header without its port; "" if the header is invalid."""
    # Not urlsplit: before Python 3.11.4 it takes "[::1]evil" for ::1, and "@" and "/" for syntax.
    match = re.fullmatch(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?", host, re.ASCII)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65_536):
        return ""
    return match[1].strip("[]")


def is_loopback(host: str) -> bool:
    """Whether a name or address is loopback: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
