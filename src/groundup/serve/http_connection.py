"""One connection: uvicorn's, with the time limits that it lacks. Reads and writes a socket.

uvicorn waits forever for the first request of a connection, for the end of its headers, and for a
client that does not read. Each of those costs an attacker nothing and the server a file descriptor
and buffers.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.serve.errors import error_body
from groundup.serve.limits import Limits


def connections(limits: Limits) -> type[asyncio.Protocol]:
    """Return the class of connections that keep `limits`."""
    return type(
        "LimitedConnection", (Connection,), {"limits": limits, "most": limits.connections_here()}
    )


class Connection(H11Protocol):
    """A connection that is cut when it rests too long, or when its client does not take what was
    sent.
    """

    limits = Limits()
    most = limits.connections
    _resting: asyncio.TimerHandle | None = None
    _blocked: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; where there are too many, the one that rests for longest goes."""
        super().connection_made(transport)
        self._rest()
        if len(self.connections) > self.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Read; a byte now and then is no whole request and gives no more time."""
        super().data_received(data)
        if self._busy():
            self._cancel()

    def on_response_complete(self) -> None:
        """End an answer; the next request has its time from now."""
        super().on_response_complete()
        if not self._busy():
            self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._cancel()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to count: the client has left more than 64 KB lying."""
        super().pause_writing()
        self._blocked = self._blocked or self.loop.call_later(
            self.limits.write_seconds, self.transport.abort
        )

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless an answer has already begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = error_body(400, "This is not a valid HTTP request.")
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            events = (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(event) for event in events))
        self.transport.close()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _rest(self) -> None:
        self._cancel()
        # abort, not close: closing waits until the client has read the rest.
        self._resting = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _make_room(self) -> None:
        resting: list[Any] = [
            one
            for one in self.connections
            if isinstance(one, Connection) and one._resting is not None
        ]
        victim = min(resting, key=lambda one: one._resting.when(), default=self)
        victim.transport.abort()
