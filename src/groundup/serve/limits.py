"""What a client may cost the server, and the connection class that enforces the time limits.

uvicorn waits without limit for the first request of a connection, for the end of its headers, and
for a client that does not read. Each of these is free for an attacker and costs the server a file
descriptor and buffers.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.serve.protocol import ApiError


@dataclass(frozen=True)
class Limits:
    """Limits of the server; docs/serving-reference.md lists them for users."""

    body_bytes: int = 2 << 20  # of one request, counted as they arrive
    body_seconds: float = 30  # until a body must have arrived
    bodies: int = 32  # read at a time: bodies hold at most `bodies * body_bytes`
    header_bytes: int = 16 << 10  # request line and headers
    idle_seconds: float = 30  # of a connection without a complete request, if bytes trickle in too
    write_seconds: float = 30  # for which a client may not read what was sent
    request_seconds: float = 600  # from the request to the end of its response
    connections: int = 512  # open at a time; beyond that the longest idle one is closed
    choices: int = 32  # completions of one request: prompts times n
    # Log-probabilities of a request: tokens times (1 + alternatives), about 200 bytes each.
    scores: int = 1 << 20
    pending: int = 1024  # unsent outputs of a completion before a slow reader is cut off
    # Until a silent stream sends a comment: proxies close idle streams.
    silence_seconds: float = 15
    drain_seconds: float = 30  # for running requests after the first signal to stop


class Connection(H11Protocol):
    """A connection that closes when it idles too long or its client does not read.

    uvicorn creates the instances, so a subclass sets the limits of a server.
    """

    limits = Limits()
    _idle_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; if there are too many, close the one that idles longest."""
        super().connection_made(transport)
        self._start_idle_timer()
        max_connections = self.limits.connections
        # Some systems allow few open files (macOS: 256).
        max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if max_files != resource.RLIM_INFINITY:
            max_connections = max(16, min(max_connections, max_files // 2))
        if len(self.connections) > max_connections:
            idle = {
                connection._idle_timer.when(): connection
                for connection in self.connections
                if isinstance(connection, Connection) and connection._idle_timer is not None
            }
            (idle[min(idle)] if idle else self).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read; only a complete request stops the idle timer, a byte now and then does not."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_idle_timer()

    def on_response_complete(self) -> None:
        """Start the time for the next request, unless it is here already."""
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:
            self._start_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_idle_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the write timer: more than 64 KB wait for the client."""
        super().pause_writing()
        if self._write_timer is None:
            seconds = self.limits.write_seconds
            self._write_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the write timer: the client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless a response has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = ApiError(400, "This is not a valid HTTP request.").body()
            kind, size = ("content-type", "application/json"), ("content-length", str(len(body)))
            headers = [kind, size, ("connection", "close")]
            start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            events = (start, h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) for event in events))
        self.transport.close()

    def _start_idle_timer(self) -> None:
        self._stop_idle_timer()
        # abort, not close: close waits until the client has read the rest.
        self._idle_timer = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def _stop_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
