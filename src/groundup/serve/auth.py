"""The one gate in front of every route. Reads the headers of a request; writes a refusal, or
headers that harden the answer.

With a key: every path wants `Authorization: Bearer KEY`, but those named in `public`, which hold
nothing secret. The check comes before routing, so that unknown paths, other methods and mounted
things are behind it too.

Without a key the server is bound to loopback, and what threatens it are web pages that the user has
open. So the Host must be a loopback name (a page that rebinds its own name to 127.0.0.1 still sends
that name), an Origin must be this server's own, and what a proxy forwarded from elsewhere is
refused. No answer ever allows another origin (CORS).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.serve.errors import ApiError, answer_error

# The page's icon is the only thing that is not a file of this server.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
    " data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HARDENING = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
FORWARDED = {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"}


class Gate:
    """ASGI middleware that lets in who may come in.

    Args:
        app: what it guards.
        key: the key that every request must bring; None on loopback only.
        public: paths that GET and HEAD reach without the key.
    """

    def __init__(self, app: ASGIApp, key: str | None, public: Collection[str]) -> None:
        self._app = app
        self._digest = _digest(key.encode()) if key is not None else None
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            # There is no other kind of route; should one be added, it stays shut until this gate
            # knows it.
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = self._refusal(scope)
            await (self._app if refusal is None else answer_error(refusal))(
                scope, receive, _hardened(send)
            )

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._digest is None:
            return _foreign(headers)
        if scope["method"] in ("GET", "HEAD") and scope["path"] in self._public:
            return None
        return None if self._has_key(headers) else _unauthorized()

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Digests are of equal length, so the time of the comparison says nothing, not even how long
        # the key is.
        return scheme.lower() == b"bearer" and hmac.compare_digest(
            _digest(key.strip()), self._digest or b""
        )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _unauthorized() -> ApiError:
    message = "This server wants its API key: send the header Authorization: Bearer KEY."
    return ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _foreign(headers: list[tuple[bytes, bytes]]) -> ApiError | None:
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not is_loopback(_hostname(hosts[0])):
        return ApiError(
            403,
            "Without a key this server answers to loopback names only: http://127.0.0.1 or"
            " http://localhost.",
            "bad_host",
        )
    origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
    if any(origin != f"http://{hosts[0]}" for origin in origins):
        return ApiError(403, "Pages of another origin may not use this server.", "bad_origin")
    if FORWARDED & {name for name, _ in headers}:
        return ApiError(
            403, "Behind a proxy this server wants a key: start it with --api-key-file.", "proxied"
        )
    return None


def _hostname(host: str) -> str:
    # "@", "/" and the like have no place in a Host, and urlsplit would read around them.
    if not host or not set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-:[]"):
        return ""
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.port == 0 else parts.hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own: `localhost`, 127.0.0.0/8 or ::1."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hardened(send: Send) -> Send:
    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            request = (b"x-request-id", f"req_{secrets.token_hex(12)}".encode())
            message = {**message, "headers": [*message.get("headers", []), *HARDENING, request]}
        await send(message)

    return hardened
