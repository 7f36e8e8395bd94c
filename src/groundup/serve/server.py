"""Runs the server: key, socket, signals. Reads a run directory and a key file; writes one line when
it is ready.

The first SIGINT or SIGTERM lets what runs finish, up to a limit, and answers 503 meanwhile; the
second ends at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from groundup.errors import GroundupError
from groundup.runtime.progress import printable
from groundup.serve.app import create_app
from groundup.serve.auth import is_loopback
from groundup.serve.http_connection import connections
from groundup.serve.serving import Serving, open_model

KEY = "GROUNDUP_API_KEY"
# 16 random characters are beyond guessing at any rate that a server answers.
SHORTEST_KEY = 16
# What the kernel keeps for a client that does not read; left to itself it takes 4 MB for each.
SEND_BUFFER = 256 << 10
# Connections may wait here while the model is loaded.
BACKLOG = 128
KILLED = 130


class Server(uvicorn.Server):
    """uvicorn's server, which goes on listening while it drains, so that clients are told 503."""

    def __init__(self, serving: Serving, key: str | None) -> None:
        limits = serving.limits
        super().__init__(
            uvicorn.Config(
                create_app(serving, key),
                # h11 whatever else is installed: its limits are those that our tests are about.
                http=connections(limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(limits.idle_seconds),
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=limits.header_bytes,
            )
        )
        self.serving = serving
        self._drained: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Take nothing new, finish what runs, and end; a second call ends at once."""
        if self.serving.draining:
            self.should_exit = self.force_exit = True
        self.serving.draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal; nothing is on its way to disk, so the second one may end the process
        where it stands.
        """
        if self.serving.draining:
            os._exit(KILLED)
        self.stop()

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether to end."""
        leave = await super().on_tick(counter)
        if self.serving.draining and self._drained is None:
            # close waits for the engine's thread, and the answers that it finishes are sent by this
            # one.
            self._drained = asyncio.create_task(
                asyncio.to_thread(self.serving.engine.close, self.serving.limits.drain_seconds)
            )
        return leave or (self._drained is not None and self._drained.done())


def serve(
    root: Path,
    host: str,
    port: int,
    key_file: Path | None = None,
    which: str = "",
    slots: int = 0,
    queue: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    say: Callable[[str], None] = print,
) -> None:
    """Serve the model of a run until a signal comes.

    Raises:
        GroundupError: there is no such run or model, the address cannot be used, or it needs a key.
    """
    key = read_key(key_file)
    listener = listen(host, port)
    with listener:
        address, number = listener.getsockname()[:2]
        if key is None and not is_loopback(address):
            raise GroundupError(
                f"{host}: others can reach this address, so it needs a key; name its file by"
                f" --api-key-file, or set {KEY}"
            )
        serving = open_model(root, which, slots, queue, device, dtype)
        serving.engine.start()
        try:
            say(
                f"{printable(serving.name)} ({serving.checkpoint}) is served at"
                f" {url(address, number)}"
            )
            sys.stdout.flush()
            Server(serving, key).run([listener])
        finally:
            serving.engine.close(0)


def read_key(path: Path | None) -> str | None:
    """Return the first line of the key file, else what the environment says, else None.

    Raises:
        GroundupError: the file cannot be read, or the key is too short or not printable ASCII.
    """
    if path is None and KEY not in os.environ:
        return None
    where = str(path) if path is not None else KEY
    try:
        text = path.read_bytes()[:4096].decode("ascii") if path is not None else os.environ[KEY]
    except OSError as error:
        raise GroundupError(f"{path}: cannot be read as a key file: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    key = (text.splitlines() or [""])[0].strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise GroundupError(
            f"{where}: a key has at least {SHORTEST_KEY} printable ASCII characters and no space;"
            " `openssl rand -hex 32` makes one"
        )
    return key


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        GroundupError: the address is unknown, taken or forbidden.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise GroundupError(
            f"{host}:{port}: cannot listen there: {reason}; choose another --host or --port (--port"
            " 0 takes a free one)"
        ) from None
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER
    )  # its connections inherit it
    listener.setblocking(False)
    return listener


def url(address: str, port: int) -> str:
    """Return the address of the page."""
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


@contextmanager
def running(
    serving: Serving, key: str | None = None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Serve on a thread for as long as the block lasts; gives the URL. For notebooks and tests.

    Raises:
        GroundupError: the address cannot be used, or it needs a key.
    """
    listener = listen(host, port)
    address, number = listener.getsockname()[:2]
    if key is None and not is_loopback(address):
        listener.close()
        raise GroundupError(f"{host}: an address that others reach needs a key")
    server = Server(serving, key)
    thread = threading.Thread(
        target=server.run, args=([listener],), name="groundup-server", daemon=True
    )
    serving.engine.start()
    thread.start()
    try:
        yield url(address, number)
    finally:
        server.stop()
        thread.join()
        serving.engine.close(0)
