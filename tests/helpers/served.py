"""A small model with random weights behind a real server on a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from groundup.artifacts.tokenizer import Tokenizer
from groundup.engines.request import EngineRequest, RequestOutput, SamplingParams
from groundup.model.transformer import Transformer
from groundup.runtime.lock import write_lock
from groundup.serve.limits import Limits
from groundup.serve.requests import ServedModel
from groundup.serve.server import open_model
from tests.helpers.trained import add_checkpoint, tiny_model, trained_run

KEY = "0123456789abcdef-key"
# Keeps the model from ending a text: <|endoftext|> and <|im_end|> are its only stops.
ENDLESS = {"0": -100, "2": -100}


def served_run(root: Path, context: int = 2048, name: str = "tiny") -> Path:
    """Return a run whose best checkpoint has the given context."""
    run = trained_run(root, name=name)
    model = tiny_model(Tokenizer.load(root / "tokenize").vocab_size)
    longer = Transformer(replace(model.config, context=context))
    longer.load_state_dict(model.state_dict())
    add_checkpoint(run, longer, step=8)
    for folder, file in product(
        (root / "train" / "checkpoints").glob("step-*"), ("tokenizer.json", "tokenizer_config.json")
    ):
        (folder / file).write_bytes((root / "tokenize" / file).read_bytes())
    write_lock(run.root, run.recipe)
    return root


def serving_of(root: Path, slots: int = 4, queue: int = 8, **limits: Any) -> ServedModel:
    """Load the model of such a run."""
    return open_model(root, "", slots, queue, "cpu", "float32", Limits(**limits))


@contextmanager
def stalled(serving: ServedModel) -> Iterator[None]:
    """Block the engine in a callback while the block runs; one slot is taken."""
    begun, go_on = threading.Event(), threading.Event()

    def on_output(output: RequestOutput) -> None:
        begun.set()
        go_on.wait(60)

    logit_bias = tuple((int(token_id), bias) for token_id, bias in ENDLESS.items())
    params = SamplingParams(max_tokens=100, logit_bias=logit_bias)
    handle = serving.engine.submit(EngineRequest((0,), params), on_output)
    assert begun.wait(60)
    handle.cancel()
    try:
        yield
    finally:
        go_on.set()


def until(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until a condition holds, with patience for a busy machine."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def connect(url: str, **options: int) -> socket.socket:
    """Open a TCP connection to a server."""
    parts = urlsplit(url)
    plain = socket.socket()
    for name, value in options.items():
        plain.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    plain.settimeout(30)
    plain.connect((parts.hostname, parts.port))
    return plain


def read_all(plain: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    try:
        while part := plain.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def raw(url: str, request: bytes) -> bytes:
    """Send bytes and return the whole response; the request should ask for Connection: close."""
    with connect(url) as plain:
        plain.sendall(request)
        return read_all(plain)


def request_bytes(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """Return an HTTP/1.1 request with an unmodified path."""
    named = {"Host": "127.0.0.1", "Connection": "close", **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
