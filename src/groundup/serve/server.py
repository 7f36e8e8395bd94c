"""Loads a model, binds the socket, reads the key, and stops on signals.

The first SIGINT or SIGTERM lets running requests finish, up to a limit, and answers new ones with
503; the second ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import uvicorn

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.own import Engine
from groundup.errors import GroundupError
from groundup.model.hf_io import load_model
from groundup.model.kv_cache import fitting_slots
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import echo
from groundup.runtime.resources import choose_device
from groundup.serve.app import create_app, suggest_prompts
from groundup.serve.auth import is_loopback
from groundup.serve.limits import Connection, Limits
from groundup.serve.requests import ServedModel

KEY_VARIABLE = "GROUNDUP_API_KEY"
# 16 random characters cannot be guessed at any rate that a server answers.
MIN_KEY_LENGTH = 16
# Kernel buffer for a client that does not read; the default is up to 4 MB a connection.
SEND_BUFFER = 256 << 10
# Connections that may wait here while the model loads.
BACKLOG = 128
MAX_SLOTS = 32
EXIT_KILLED = 130


class Server(uvicorn.Server):
    """uvicorn's server, which keeps listening while it drains and then answers 503."""

    def __init__(self, served: ServedModel, key: str | None) -> None:
        limits = served.limits
        super().__init__(
            uvicorn.Config(
                create_app(served, key),
                # h11 even if httptools is installed: our limits are built on it and tested with it.
                http=type("LimitedConnection", (Connection,), {"limits": limits}),
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
        self.served = served
        self._drained: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Take no new requests, finish running ones, and end; a second call ends at once."""
        if self.served.draining:
            self.should_exit = self.force_exit = True
        self.served.draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop on a signal; the server writes no files, so the second signal may kill it."""
        if self.served.draining:
            os._exit(EXIT_KILLED)
        self.stop()

    async def on_tick(self, counter: int) -> bool:
        """Return, ten times a second, whether to end."""
        should_exit = await super().on_tick(counter)
        if self.served.draining and self._drained is None:
            # On a thread: `close` waits for the engine, whose last outputs this loop must send.
            close = asyncio.to_thread(self.served.engine.close, self.served.limits.drain_seconds)
            self._drained = asyncio.create_task(close)
        return should_exit or (self._drained is not None and self._drained.done())


def serve(root: Path, host: str, port: int, key_file: Path | None = None, **options: Any) -> None:
    """Serve the model of a run until a signal arrives; the arguments are those of `open_model`.

    Raises GroundupError if there is no such model, or the address cannot be used or needs a key.
    """
    key = read_key(key_file)
    with listen(host, port, key) as listener:
        served = open_model(root, **options)
        served.engine.start()
        try:
            echo(f"{served.name} ({served.checkpoint}) is served at {url_of(listener)}")
            Server(served, key).run([listener])
        finally:
            served.engine.close(0)


@contextmanager
def running(served: ServedModel, key: str | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve on a thread while the block runs; gives the URL. For notebooks and tests.

    Raises GroundupError if the address cannot be used, or it needs a key.
    """
    listener = listen(host, 0, key)
    server = Server(served, key)
    thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
    served.engine.start()
    thread.start()
    try:
        yield url_of(listener)
    finally:
        server.stop()
        thread.join()
        served.engine.close(0)


def open_model(
    root: Path,
    which: str = "",
    slots: int = 0,
    queue: int = 64,
    device: str = "auto",
    dtype: str = "auto",
    limits: Limits | None = None,
) -> ServedModel:
    """Load the model that `find_model` calls `which`; its engine is not started yet.

    `slots` completions run at once (0: what fits into memory, up to 32), and `queue` may wait.
    `device` is auto, cpu or cuda, and `dtype` auto, float32 or bfloat16: auto takes a GPU if there
    is one, and bfloat16 there.

    Raises GroundupError if there is no such model or device, or the slots do not fit into memory.
    """
    recipe, checkpoint = load_lock(root), find_model(root, which)
    device = choose_device(device)
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    model = load_model(checkpoint.path, device, getattr(torch, dtype))
    tokenizer, config = Tokenizer.load(checkpoint.path), model.config
    fitting = fitting_slots(config, model.head_weight, slots or MAX_SLOTS)
    if fitting < slots:
        held = f"the memory that is free holds the keys and values of {fitting}"
        raise GroundupError(f"--slots {slots}: {held}; ask for fewer")
    engine, prompts = Engine(model, tokenizer, fitting, queue), suggest_prompts(root)
    names = (recipe.name, checkpoint.name, checkpoint.content)
    return ServedModel(*names, config.context, tokenizer, engine, prompts, limits or Limits())


def read_key(path: Path | None) -> str | None:
    """Return the first line of the key file, else the environment's key, else None.

    Raises GroundupError if the file cannot be read, or the key is short or not printable ASCII.
    """
    if path is None and KEY_VARIABLE not in os.environ:
        return None
    try:
        data = os.environb[KEY_VARIABLE.encode()] if path is None else path.read_bytes()[:4096]
    except OSError as error:
        raise GroundupError(f"{path}: cannot be read as a key file: {error.strerror}") from None
    key = (data.decode("ascii", "replace").splitlines() or [""])[0].strip()
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        rule = f"a key has at least {MIN_KEY_LENGTH} printable ASCII characters and no space"
        raise GroundupError(f"{path or KEY_VARIABLE}: {rule}; `openssl rand -hex 32` makes one")
    return key


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """Return a listening socket; GroundupError if the address cannot be used or needs a key."""
    try:
        kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=flags)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        remedy = "choose another --host or --port (--port 0 takes a free one)"
        raise GroundupError(f"{host}:{port}: cannot listen there: {reason}; {remedy}") from None
    if key is None and not is_loopback(listener.getsockname()[0]):
        listener.close()
        remedy = f"name its file by --api-key-file, or set {KEY_VARIABLE}"
        raise GroundupError(f"{host}: others can reach this address, so it needs a key; {remedy}")
    # Accepted connections inherit it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of the page."""
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
