"""Clients that disconnect, stall, pile up or send garbage do not affect other clients."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.helpers.served import (
    ENDLESS,
    connect,
    raw,
    read_all,
    request_bytes,
    serving_of,
    stalled,
    status_of,
    until,
)

from groundup.serve.requests import ServedModel
from groundup.serve.server import running

JSON = {"Content-Type": "application/json"}
LONG = {"prompt": "a", "max_tokens": 2000, "logit_bias": ENDLESS}


def post(body: dict[str, Any], path: str = "/v1/completions", **headers: str) -> bytes:
    content = json.dumps(body).encode()
    headers = JSON | {"Content-Length": str(len(content))} | headers
    return request_bytes("POST", path, headers, content)


@pytest.fixture(scope="module")
def brisk(served: Path) -> ServedModel:
    """A server with short time limits, for fast tests."""
    return serving_of(
        served,
        slots=2,
        queue=2,
        idle_seconds=1,
        body_seconds=1,
        write_seconds=1,
        connections=40,
        silence_seconds=0.2,
        pending=100_000,
    )


@pytest.fixture(scope="module")
def url(brisk: ServedModel) -> Iterator[str]:
    with running(brisk) as url:
        yield url
        assert httpx.get(url + "health").status_code == 200


def idle(serving: ServedModel) -> bool:
    load = serving.engine.stats()
    return load.running == load.waiting == 0


@pytest.mark.parametrize("stream", [True, False])
def test_disconnecting_client_frees_its_slots(url: str, brisk: ServedModel, stream: bool) -> None:
    before = brisk.engine.stats()
    with connect(url) as plain:
        plain.sendall(post(LONG | {"stream": stream, "n": 4}))
        if stream:
            plain.recv(100)
        assert until(lambda: brisk.engine.stats().running > 0)
    assert until(lambda: idle(brisk))
    after = brisk.engine.stats()
    assert after.finished.get("cancelled", 0) - before.finished.get("cancelled", 0) == 4
    assert after.generated_tokens - before.generated_tokens < 4 * 2000


def test_disconnecting_client_leaves_the_queue(url: str, brisk: ServedModel) -> None:
    before = brisk.engine.stats().finished.get("cancelled", 0)
    with stalled(brisk), connect(url) as plain:
        plain.sendall(post(LONG))
        assert until(lambda: brisk.engine.stats().waiting == 1)
    assert until(lambda: idle(brisk))
    # The second one is the request that stalled the engine.
    assert brisk.engine.stats().finished["cancelled"] == before + 2


def test_slow_reader_is_disconnected(url: str, brisk: ServedModel) -> None:
    """It requests megabytes and reads nothing; unsent data stays within the buffers."""
    before = brisk.engine.stats().finished.get("cancelled", 0)
    with connect(url, SO_RCVBUF=2048) as plain:
        plain.sendall(post(LONG | {"stream": True, "logprobs": 20}))
        assert until(lambda: brisk.engine.stats().running > 0)
        assert until(
            lambda: idle(brisk) and brisk.engine.stats().finished.get("cancelled", 0) == before + 1,
            60,
        )


def test_unsent_output_is_bounded(served: Path) -> None:
    serving = serving_of(served, slots=1, queue=1, pending=50)
    with running(serving) as url, connect(url, SO_RCVBUF=2048) as plain:
        plain.sendall(post(LONG | {"stream": True, "logprobs": 20}))
        assert until(
            lambda: idle(serving) and serving.engine.stats().finished.get("cancelled", 0) == 1, 60
        )
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        said = read_all(plain)
        assert b'"code":"slow_reader"' in said and b"[DONE]" not in said


@pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"POST /v1/completions HTTP/1.1\r\nX: "],
)
def test_connection_without_a_complete_request_is_closed(url: str, sent: bytes) -> None:
    with connect(url) as plain:
        plain.sendall(sent)
        assert read_all(plain) == b""


def test_slow_headers_get_no_more_time(url: str) -> None:
    """Slowloris: one byte now and then must not keep the connection open."""
    with connect(url) as plain, pytest.raises(OSError):
        for byte in b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 2000:
            plain.sendall(bytes([byte]))
            time.sleep(0.05)


def test_slow_body_is_408(url: str) -> None:
    with connect(url) as plain:
        plain.sendall(
            request_bytes(
                "POST", "/v1/completions", JSON | {"Content-Length": "1000"}, b'{"prompt":'
            )
        )
        answer = read_all(plain)
    assert status_of(answer) == 408 and b'"slow_body"' in answer


def test_too_many_concurrent_bodies_are_429(served: Path) -> None:
    serving = serving_of(served, bodies=3, body_seconds=30)
    with running(serving) as url, ExitStack() as open_:
        for _ in range(3):
            plain = open_.enter_context(connect(url))
            plain.sendall(
                request_bytes(
                    "POST", "/v1/completions", JSON | {"Content-Length": "1000"}, b'{"prompt":'
                )
            )
        assert until(lambda: serving.bodies == 3)
        assert status_of(raw(url, post({"prompt": "a", "max_tokens": 1}))) == 429
        open_.close()
        assert until(lambda: serving.bodies == 0)
        assert status_of(raw(url, post({"prompt": "a", "max_tokens": 1}))) == 200


def test_idle_connections_do_not_block_new_ones(url: str) -> None:
    """The limit is 40; a new connection replaces the one that idles longest."""
    with ExitStack() as open_:
        for _ in range(300):
            open_.enter_context(connect(url))
        assert status_of(raw(url, post({"prompt": "a", "max_tokens": 3}))) == 200


def test_idle_connections_do_not_replace_an_active_one(url: str, brisk: ServedModel) -> None:
    with connect(url) as plain, ExitStack() as open_:
        plain.sendall(post(LONG | {"max_tokens": 1000}))
        assert until(lambda: brisk.engine.stats().running > 0)
        for _ in range(100):
            open_.enter_context(connect(url))
        answer = read_all(plain)
    assert status_of(answer) == 200 and b'"completion_tokens":1000' in answer


def test_keep_alive_and_pipelining(url: str) -> None:
    both = request_bytes("GET", "/health", {"Connection": "keep-alive"}) + request_bytes(
        "GET", "/v1/models"
    )
    answer = raw(url, both)
    assert answer.count(b"HTTP/1.1 200") == 2 and b'"object":"list"' in answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Name: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda nonsense: repr(nonsense[:30]),
)
def test_what_is_not_http_is_400(url: str, nonsense: bytes) -> None:
    answer = raw(url, nonsense)
    assert status_of(answer) in (400, 403) and b'"error"' in answer


def test_garbage_after_a_request_is_harmless(url: str, caplog: pytest.LogCaptureFixture) -> None:
    chunked = request_bytes("POST", "/v1/completions", JSON | {"Transfer-Encoding": "chunked"})
    assert b" 400 " in raw(url, chunked + b"zz\r\nnonsense")[:20]
    with connect(url) as plain:
        plain.sendall(post(LONG | {"stream": True, "max_tokens": 50}) + b"\x00\x01nonsense\r\n\r\n")
        assert status_of(read_all(plain)) == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/health", {"X-Long": "a" * 60_000}),
        ("/health", {f"X-{n}": "b" for n in range(3_000)}),
        ("/health?" + "a" * 60_000, {}),
        ("/health", {"X-Long": "a" * (16 << 10)}),
    ],
)
def test_large_headers_in_one_write_are_400(url: str, path: str, headers: dict[str, str]) -> None:
    """The HTTP parser bounds only headers that come in pieces."""
    assert status_of(raw(url, request_bytes("GET", path, headers))) == 400
    assert status_of(raw(url, request_bytes("GET", "/health", {"X": "a" * 15_000}))) == 200


def test_large_body_is_refused_before_it_is_sent(url: str) -> None:
    """curl sends Expect: 100-continue before a large body."""
    headers = JSON | {"Content-Length": "10000000", "Expect": "100-continue"}
    answer = raw(url, request_bytes("POST", "/v1/completions", headers))
    assert status_of(answer) == 413


def test_endless_body_is_cut_off(url: str) -> None:
    """The response is sent at once; later data is discarded until the idle limit."""
    with connect(url) as plain, pytest.raises(OSError):
        plain.sendall(
            request_bytes(
                "POST",
                "/v1/completions",
                JSON | {"Transfer-Encoding": "chunked", "Connection": "keep-alive"},
            )
        )
        for _ in range(10_000):
            plain.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            time.sleep(0.005)


def test_content_length_with_transfer_encoding_is_refused(url: str) -> None:
    """Request smuggling needs a length that two servers read differently."""
    headers = JSON | {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    smuggled = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert (
        raw(url, request_bytes("POST", "/v1/completions", headers, smuggled)).count(b"HTTP/1.1 200")
        == 0
    )


def test_silent_stream_sends_comments(url: str, brisk: ServedModel) -> None:
    """Proxies close silent connections."""
    with connect(url) as plain:
        with stalled(brisk):
            plain.sendall(post({"prompt": "a", "max_tokens": 2, "stream": True}))
            said = b""
            while said.count(b": still here\n\n") < 2:
                said += plain.recv(1000)
        assert b"data: [DONE]" in read_all(plain)


def test_request_timeout(served: Path) -> None:
    serving = serving_of(served, request_seconds=0.5)
    with running(serving) as url, httpx.Client(base_url=url, timeout=60) as client:
        with stalled(serving):
            answer = client.post("/v1/completions", json=LONG)
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "too_long"
            assert answer.headers["x-should-retry"] == "false"
            streamed = client.post("/v1/completions", json=LONG | {"stream": True})
            assert (
                streamed.status_code == 200
                and b'"code":"too_long"' in streamed.content
                and b"[DONE]" not in streamed.content
            )
        assert until(lambda: idle(serving))
