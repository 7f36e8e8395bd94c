"""`groundup serve` as a process: output, signals, and user errors."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.helpers.served import (
    ENDLESS,
    KEY,
    connect,
    raw,
    read_all,
    request_bytes,
    status_of,
    until,
)

from groundup.errors import GroundupError
from groundup.serve.server import serve

LONG = {
    "prompt": "a",
    "max_tokens": 2000,
    "logit_bias": ENDLESS,
    "stream": True,
    "temperature": 2,
    "logprobs": 5,
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "groundup", "serve", *map(str, arguments)]


@contextmanager
def process(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server; give the process and the URL that it prints when it is ready."""
    started = subprocess.Popen(
        command(*arguments, "--port", 0),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        assert "is served at http://" in line, started.communicate()[1]
        yield started, line.rpartition(" ")[2].strip()
    finally:
        started.kill()
        started.communicate()


@contextmanager
def streaming(url: str) -> Iterator[socket.socket]:
    """Open a long streamed response and wait for its first part."""
    body = json.dumps(LONG).encode()
    with connect(url) as plain:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        plain.sendall(request_bytes("POST", "/v1/completions", headers, body))
        assert plain.recv(200)
        yield plain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_running_requests_and_answers_503(served: Path, number: int) -> None:
    with process(served, "--slots", 1) as (server, url), streaming(url) as plain:
        server.send_signal(number)
        assert until(lambda: status_of(raw(url, request_bytes("GET", "/health"))) == 503)
        body = b'{"prompt":"a"}'
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        refused = raw(url, request_bytes("POST", "/v1/completions", headers, body))
        assert (
            status_of(refused) == 503
            and b'"shutting_down"' in refused
            and b"retry-after" in refused.lower()
        )
        said = read_all(plain)
        assert b"data: [DONE]" in said and b'"finish_reason":"length"' in said
        assert server.wait(30) == 0
        assert server.stderr is not None and server.stderr.read() == ""


def test_idle_server_exits_at_once_with_0(served: Path) -> None:
    with process(served) as (server, url), connect(url):
        assert httpx.get(url + "health").status_code == 200
        server.terminate()
        assert server.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_a_second_signal_does_not_wait(served: Path) -> None:
    with process(served) as (server, url), streaming(url) as plain:
        server.terminate()
        assert until(lambda: status_of(raw(url, request_bytes("GET", "/health"))) == 503)
        server.terminate()
        assert server.wait(30) == 130
        assert b"data: [DONE]" not in read_all(plain)


def test_key_from_file_or_environment(served: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    for arguments, environment in ((("--api-key-file", file), {}), ((), {"GROUNDUP_API_KEY": KEY})):
        with process(served, *arguments, "--host", "0.0.0.0", **environment) as (server, url):
            url = url.replace("0.0.0.0", "127.0.0.1")
            assert httpx.get(url + "v1/models").status_code == 401
            assert (
                httpx.get(url + "v1/models", headers={"Authorization": f"Bearer {KEY}"}).json()[
                    "data"
                ][0]["id"]
                == "tiny"
            )
            # A key on the command line or in a log could be read by others of this machine.
            assert isinstance(server.args, list)
            assert KEY not in " ".join(map(str, server.args))


def test_serving_another_checkpoint(served: Path) -> None:
    with process(
        served, "--model", "step-7", "--slots", 2, "--queue", 0, "--dtype", "bfloat16"
    ) as (_, url):
        about = httpx.get(url + "info").json()
        assert (about["run"], about["checkpoint"], about["context"], about["tuned"]) == (
            "tiny",
            "step-000007",
            32,
            False,
        )


def test_user_error_is_one_line(served: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            command(served, "--port", taken.getsockname()[1]),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.startswith("groundup: ")
        and done.stderr.count("\n") == 1
        and "in use" in done.stderr
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"host": "0.0.0.0"}, "needs a key"),
        ({"host": "::"}, "needs a key"),
        ({"host": ""}, "cannot listen there"),
        ({"host": "nowhere.invalid"}, "cannot listen there"),
        ({"key_file": Path("none")}, "No such file"),
        ({"which": "tuned"}, "no tuned model"),
        ({"which": "step-99"}, "no checkpoint"),
        ({"which": "../../x"}, "no checkpoint"),
        ({"device": "cuda"}, "no GPU"),
        ({"slots": 10**9}, "ask for fewer"),
        ({"root": Path("nowhere")}, "there is no run here"),
    ],
    ids=str,
)
def test_invalid_options_are_reported_at_start(
    served: Path, wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDUP_API_KEY", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(GroundupError, match=said) as error:
        options: dict[str, Any] = {"root": served, "host": "127.0.0.1", "port": 0} | wrong
        serve(**options)
    assert "\n" not in str(error.value)


def test_missing_extra_is_one_line(served: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; from groundup.cli import main; sys.argv ="
        " ['groundup', 'serve', 'x']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (
        done.returncode == 1
        and done.stderr.count("\n") == 1
        and "pip install 'groundup[serve]'" in done.stderr
    )
