"""A local web site under test names, `http://a.test:PORT/`, that behaves well or badly."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from groundup.runtime.fetch import https
from groundup.runtime.fetch.https import resolve_public


@dataclass
class Reply:
    """A response; `endless` repeats the body, `drip` seconds pass per byte, `length` may lie."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html"})
    endless: bool = False
    drip: float = 0.0
    length: int | None = None


Answering = Callable[["Seen"], Reply]


@dataclass
class Seen:
    """A request: host without port, path, headers, time, the connection that brought it, body."""

    host: str
    path: str
    headers: dict[str, str]
    at: float
    connection: int
    method: str = "GET"
    body: bytes = b""


class Site:
    """Answers by (host, path), then by path; anything else is 404."""

    def __init__(self) -> None:
        self.pages: dict[str, Reply | Answering] = {}
        self.seen: list[Seen] = []
        self.port = 0
        # In place of pages: one answer to everything.
        self.answer: Answering | None = None

    def url(self, host: str, path: str) -> str:
        return f"http://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [f"{seen.host}{seen.path}" for seen in self.seen]

    def reply(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if self.answer is not None:
            return self.answer(seen)
        found = self.pages.get(seen.host + seen.path, self.pages.get(seen.path, Reply(status=404)))
        return found if isinstance(found, Reply) else found(seen)


def page(text: str) -> Reply:
    """Return a page with enough text for main-text extraction."""
    words = (
        f"{text}. "
        + "The harbour wall was built in the spring of that year by people from the town. " * 5
    )
    return Reply(
        f"<html><head><title>{text}</title></head><body><article><h1>{text}</h1><p>{words}</p></article></body></html>".encode()
    )


def redirect(to: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"Location": to})


def _handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            seen = Seen(
                host,
                self.path,
                {k.lower(): v for k, v in self.headers.items()},
                time.monotonic(),
                self.client_address[1],
                self.command,
                self._body(),
            )
            try:
                self._send(site.reply(seen))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if not reply.endless:
                self.send_header(
                    "Content-Length", str(len(reply.body) if reply.length is None else reply.length)
                )
            else:
                self.close_connection = True
            self.end_headers()
            if self.command == "HEAD":
                return
            parts = (
                [reply.body[n : n + 1] for n in range(len(reply.body))]
                if reply.drip
                else [reply.body]
            )
            while True:
                for part in parts:
                    time.sleep(reply.drip)
                    self.wfile.write(part)
                    self.wfile.flush()
                if not reply.endless:
                    break
            if reply.length is not None and reply.length > len(reply.body):
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def resolve(host: str, port: int) -> list[str]:
    """Resolve names that end in .test to this machine."""
    return ["127.0.0.1"] if host.endswith(".test") else resolve_public(host, port)


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site; only its names bypass the check for private addresses."""
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with mock.patch.object(https, "resolve_public", resolve):
        yield site
    server.shutdown()
    server.server_close()
