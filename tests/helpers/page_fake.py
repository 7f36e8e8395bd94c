"""A fake server for the page that is cut off, slow, busy or hostile on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import groundup
from groundup.serve.auth import CONTENT_POLICY

PAGE = Path(groundup.__file__).parent / "serve" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
INFO = {
    "run": "fake",
    "model": "fake",
    "context": 20_000,
    "tuned": True,
    "sampling": {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "max_tokens": 256},
    "prompts": [
        {"text": "Who are you?", "kind": "talk", "mode": "chat"},
        {"text": "Once upon", "kind": "books", "mode": "complete"},
    ],
}


class Fake:
    """Responses of a fake server, and its faults.

    Attributes:
        pieces: texts, (text, tokens), whole events as dictionaries, or bytes that are sent as they
            are.
        cut: whether the stream ends early.
        gate: while it is not set, the stream stalls after the first piece.
        requests: the bodies of the requests.
        hung_up: set when a client disconnects before the end.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = dict(INFO)
        self.pieces: list[Any] = ["Hello", " there", "."]
        self.cut = False
        self.key = ""
        self.refusals: list[tuple[int, dict[str, Any], dict[str, str]]] = []
        self.requests: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.hung_up = threading.Event()
        self.url = ""

    def refuse(self, status: int, message: str, code: str = "", **headers: str) -> None:
        """Answer the next request with an error."""
        self.refusals.append((status, {"error": {"message": message, "code": code}}, headers))


def chunk(piece: Any, chat: bool) -> dict[str, Any]:
    """Return a stream event for a text, or for (text, [(bytes, logprob, alternatives)])."""
    text, tokens = piece if isinstance(piece, tuple) else (piece, None)
    choice: dict[str, Any] = {"index": 0, "finish_reason": None} | (
        {"delta": {"content": text}} if chat else {"text": text}
    )
    if tokens is not None:
        choice["logprobs"] = _chat_logprobs(tokens) if chat else _text_logprobs(tokens)
    return {"choices": [choice]}


def _chat_logprobs(tokens: list[Any]) -> dict[str, Any]:
    def item(raw: bytes, logprob: float) -> dict[str, Any]:
        return {"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": logprob}

    return {
        "content": [
            item(raw, logprob) | {"top_logprobs": [item(*other) for other in top]}
            for raw, logprob, top in tokens
        ]
    }


def _text_logprobs(tokens: list[Any]) -> dict[str, Any]:
    def name(raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    return {
        "tokens": [name(raw) for raw, _, _ in tokens],
        "token_logprobs": [logprob for _, logprob, _ in tokens],
        "top_logprobs": [{name(raw): logprob for raw, logprob in top} for _, _, top in tokens],
    }


class Handler(BaseHTTPRequestHandler):
    """Serves the files of the page and the routes that it calls."""

    fake: Fake

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.split("?")[0].lstrip("/") or "index.html"
        if name == "info":
            return self._json(
                *((200, self.fake.info) if self._allowed() else (401, _error("A key is needed.")))
            )
        if not (PAGE / name).is_file():
            return self._json(404, _error("There is no such page."))
        return self._send(
            200,
            (PAGE / name).read_bytes(),
            {"Content-Type": TYPES[Path(name).suffix], "Content-Security-Policy": CONTENT_POLICY},
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return self._json(401, _error("A key is needed."))
        self.fake.requests.append(body)
        if self.fake.refusals:
            status, error, headers = self.fake.refusals.pop(0)
            return self._json(
                status, error, {name.replace("_", "-"): value for name, value in headers.items()}
            )
        return self._stream("messages" in body, body)

    def _stream(self, chat: bool, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for piece in self.fake.pieces:
                self._piece(piece, chat)
                while not self.fake.gate.wait(0.02):
                    self.wfile.write(b": still here\n\n")
            if not self.fake.cut:
                end: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
                end["delta" if chat else "text"] = {} if chat else ""
                self._event({"choices": [end]})
                self._event({"choices": [], "usage": _usage(body, len(self.fake.pieces))})
                self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.fake.hung_up.set()
        self.close_connection = True

    def _piece(self, piece: Any, chat: bool) -> None:
        if isinstance(piece, bytes):
            self.wfile.write(piece)
        else:
            self._event(piece if isinstance(piece, dict) else chunk(piece, chat))

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _allowed(self) -> bool:
        return not self.fake.key or self.headers.get("Authorization") == f"Bearer {self.fake.key}"

    def _json(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        self._send(
            status,
            json.dumps(data).encode(),
            {"Content-Type": "application/json"} | (headers or {}),
        )

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


def _usage(body: dict[str, Any], completion: int) -> dict[str, int]:
    said = body.get("prompt") or "".join(turn["content"] for turn in body["messages"])
    prompt = max(len(said) // 4, 1)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@contextmanager
def serve() -> Iterator[Fake]:
    """Run a fake server on a free port of loopback."""
    fake = Fake()
    make: Callable[..., BaseHTTPRequestHandler] = type("FakeHandler", (Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), make)
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.gate.set()
        server.shutdown()
        server.server_close()
