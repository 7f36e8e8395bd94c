"""Invalid input never makes the server fail, leak or stop; each kind has a clear error."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.served import (
    ENDLESS,
    KEY,
    raw,
    request_bytes,
    serving_of,
    stalled,
    status_of,
    until,
)

from groundup.serve.protocol import CompletionRequest
from groundup.serve.requests import ServedModel
from groundup.serve.server import running

COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
USER = b'[{"role":"user","content":"a"}]'


@pytest.fixture(scope="module")
def client(live: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live, timeout=60) as client:
        yield client
        assert client.get("/health").json() == {"status": "ok"}


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check that a response is an OpenAI error and reveals nothing about the server."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert not any(
        word in answer.text
        for word in ("Traceback", "site-packages", "groundup/", ".py", "pydantic")
    )
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "a"',
        b"prompt=a",
        b"null",
        b"[]",
        b'"text"',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "\\udc00\\ud800"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a"} {"prompt": "b"}',
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
        b"\x00" * 100,
        '{"prompt": "a"}'.encode("utf-16"),
        b"{" + b",".join(b'"x%d":1' % n for n in range(100_000)) + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", [COMPLETE, CHAT])
def test_body_that_is_not_a_json_object_is_400(
    client: httpx.Client, path: str, body: bytes
) -> None:
    assert error_of(client.post(path, content=body, headers=JSON), 400)["code"] == "invalid_json"


WRONG: dict[str, Any] = {
    "prompt": [
        1,
        1.5,
        True,
        {},
        [],
        [[]],
        [""] * 0,
        ["a", 1],
        [1, "a"],
        [[1], "a"],
        [1, 2.5],
        [-1],
        [10**30],
        [True],
        [None],
        [[[1]]],
        [10**6],
    ],
    "max_tokens": [-1, 1.5, "5", True, 10**10, 10**30, [], {}],
    "temperature": [-0.1, 2.1, 1e308, "1", True, [], {}],
    "top_p": [0, -1, 1.1, "1", []],
    "top_k": [-2, 1.5, "3", 10**20],
    "min_p": [-0.1, 1.1, "x"],
    "frequency_penalty": [-2.1, 2.1, "x"],
    "presence_penalty": [-1e300, 1e300],
    "logit_bias": [
        {"a": 1},
        {"-1": 1},
        {"1": 101},
        {"1": "1"},
        {"٣": 1},
        {"9" * 5000: 1},
        [],
        "x",
        {str(n): 1 for n in range(301)},
    ],
    "n": [0, -1, 129, 1.5, "2", 100],
    "stop": ["", [""], ["a"] * 17, [1], 1, {}, "x" * 257, [["a"]]],
    "seed": [1.5, "1", 2**63, -(2**63) - 1, []],
    "stream": ["true", 1, []],
    "stream_options": [{"include_usage": "yes"}, [], True, {"include_usage": True}],
    "model": [1, [], {}, "m" * 1000],
    "echo": ["yes", 1],
    "logprobs": [-1, 21, "1", True],
    "best_of": [0, 5],
    "suffix": ["x", 1],
    "unknown": [1, None],
    "\x1b]0;title\x07": [1],
    # Attacks on other servers: templates, grammars, code and files from a request.
    "chat_template": ["{{ cycler.__init__.__globals__ }}"],
    "chat_template_kwargs": [{"a": 1}],
    "guided_regex": ["(a+)+$"],
    "prompt_embeds": ["gASVKAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjA1lY2hv"],
    "logits_processors": ["os.system"],
    "lora": ["/etc/passwd"],
    "__class__": ["x"],
    "constructor": [{"a": 1}],
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_completion_parameters_are_400(client: httpx.Client, name: str) -> None:
    for value in WRONG[name]:
        error = error_of(
            client.post(COMPLETE, json={"prompt": "a", "max_tokens": 1} | {name: value}), 400
        )
        assert error["message"].isprintable() and len(error["message"]) < 1000, value
        assert error["code"] == (
            "invalid_value" if name in TAKEN else "unknown_parameter"
        ) or name in ("model", "n")


TAKEN = CompletionRequest.model_fields

WRONG_CONTENTS: list[Any] = [None, 1, [], {}, [1], [{}], ["a"], [{"type": "text"}], True]
WRONG_CHATS: dict[str, Any] = {
    "messages": [
        *(None, [], {}, "a", [1], [None], [[]], [{}], [{"role": "user"}], [{"content": "a"}]),
        *(
            [{"role": role, "content": "a"}]
            for role in ("tool", "function", "", "User", "user\n", None, 1, "<|im_start|>")
        ),
        *([{"role": "user", "content": content}] for content in WRONG_CONTENTS),
        [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
            }
        ],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        [{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}],
        [{"role": "user", "content": "a"}] * 5000,
    ],
    "top_logprobs": [1, -1, 21, "1"],
    "logprobs": [1, "true", []],
    "response_format": [{"type": "json_schema"}, {}, [], "text"],
    "tools": [[{"type": "function"}], {}, "x"],
    "tool_choice": ["required", {"type": "function"}],
    "functions": [[{}]],
    "modalities": [["audio"], ["text", "audio"], "text"],
    "max_completion_tokens": [-1, "1", 0],
    "max_tokens": [0],
    "prompt": ["a"],
}


@pytest.mark.parametrize("name", WRONG_CHATS)
def test_invalid_chat_parameters_are_400(client: httpx.Client, name: str) -> None:
    for value in WRONG_CHATS[name]:
        error_of(
            client.post(
                CHAT, json={"messages": [{"role": "user", "content": "a"}]} | {name: value}
            ),
            400,
        )


def test_error_names_the_missing_field(client: httpx.Client) -> None:
    assert error_of(client.post(COMPLETE, json={}), 400)["param"] == "prompt"
    assert error_of(client.post(CHAT, json={}), 400)["param"] == "messages"


def test_null_means_the_default(client: httpx.Client) -> None:
    for path, start in ((COMPLETE, {"prompt": "a"}), (CHAT, {"messages": json.loads(USER)})):
        schema = client.get("/openapi.json").json()["components"]["schemas"][
            "CompletionRequest" if path == COMPLETE else "ChatRequest"
        ]
        nulls = {name: None for name in schema["properties"] if name not in start}
        assert client.post(path, json=nulls | start | {"max_tokens": 2}).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json5",
        "",
    ],
)
def test_other_content_types_are_415(client: httpx.Client, kind: str | None) -> None:
    error_of(
        client.post(
            COMPLETE,
            content=b'{"prompt":"a"}',
            headers={} if kind is None else {"Content-Type": kind},
        ),
        415,
    )
    error_of(client.post(COMPLETE, content=b"x", headers=JSON | {"Content-Encoding": "gzip"}), 415)


def test_charset_in_the_content_type_is_accepted(client: httpx.Client) -> None:
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (
        client.post(COMPLETE, content=b'{"prompt":"a","max_tokens":1}', headers=kind).status_code
        == 200
    )


def test_large_body_is_413_with_and_without_content_length(client: httpx.Client) -> None:
    body = b'{"prompt":"' + b"a" * 10_000_000 + b'"}'
    assert (
        error_of(client.post(COMPLETE, content=body, headers=JSON), 413)["code"] == "body_too_large"
    )
    chunks = (body[at : at + 65536] for at in range(0, len(body), 65536))
    error_of(client.post(COMPLETE, content=chunks, headers=JSON), 413)


PATHS = """/nothing // /v1 /v1/ /v1/models/ /v1/models/x/y /v1/models/..%2f..%2fetc%2fpasswd /docs
/redoc /chat.css/../app.py /..%2f..%2fapp.py /%2e%2e/app.py /../app.py /app.py /page/index.html
/static/x /v1/completions/ /V1/models /%00 /\\..\\x /v1//models //v1/models /index.html%00.js
/api.js%2f /openapi.json/ http://127.0.0.1/v1/models //127.0.0.1/health /%ff%fe *""".split()


@pytest.mark.parametrize("path", PATHS)
def test_unknown_paths_are_404(live: str, path: str) -> None:
    answer = raw(live, request_bytes("GET", path))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (
        status_of(answer) == 404
        and orjson.loads(body)["error"]["message"] == "There is nothing at this path."
    )
    assert b"groundup/" not in head and b"server:" not in head.lower()


def test_other_methods_are_405(client: httpx.Client) -> None:
    for method, path in (
        ("GET", COMPLETE),
        ("DELETE", CHAT),
        ("POST", "/health"),
        ("PUT", "/"),
        ("OPTIONS", COMPLETE),
        ("TRACE", "/info"),
    ):
        answer = client.request(method, path)
        error_of(answer, 405)
        assert "allow" in answer.headers
    assert client.request("X" * 200, "/info").status_code == 405


def test_unknown_model_names_are_404_and_not_evaluated(client: httpx.Client) -> None:
    for name in (
        "../../etc/passwd",
        "tiny\x00",
        "TINY",
        "tiny ",
        "{{7*7}}",
        "<script>",
        "%s%n",
        "🎈" * 60,
    ):
        error = error_of(client.post(COMPLETE, json={"prompt": "a", "model": name}), 404)
        assert "49" not in error["message"] and name not in error["message"]


def test_hostile_text_is_returned_unchanged(client: httpx.Client, serving: ServedModel) -> None:
    """Templates, scripts and control sequences come back unchanged, and only as JSON."""
    for text in (
        "{{ messages.__class__.__mro__ }}{% for x in range(10**9) %}",
        "<script>alert(1)</script>",
        "\x1b]0;x\x07\x1b[2J\x00\x7f",
        "\u202e\ufeff",
    ):
        answer = client.post(COMPLETE, json={"prompt": text, "echo": True, "max_tokens": 1})
        assert answer.status_code == 200 and answer.json()["choices"][0]["text"].startswith(text)
        assert (
            answer.headers["content-type"] == "application/json"
            and answer.headers["x-content-type-options"] == "nosniff"
        )
        said = client.post(
            CHAT, json={"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        )
        assert (
            said.json()["usage"]["prompt_tokens"]
            == len(serving.tokenizer.encode(f"user\n{text}"))
            + len(serving.tokenizer.encode("assistant\n"))
            + 4
        )


def test_output_is_valid_utf_8_for_any_bytes(client: httpx.Client) -> None:
    """An untrained model generates random bytes; no character is split between events."""
    body = {"prompt": "", "max_tokens": 300, "temperature": 2, "seed": 3, "logit_bias": ENDLESS}
    whole = client.post(COMPLETE, json=body).json()["choices"][0]["text"]
    with client.stream("POST", COMPLETE, json=body | {"stream": True}) as answer:
        events = [
            orjson.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")
        ]
    assert "".join(event["choices"][0]["text"] for event in events) == whole and "\ufffd" in whole


def test_full_queue_is_429_with_retry_after(served: Path) -> None:
    serving = serving_of(served, slots=1, queue=2)
    with running(serving) as url, httpx.Client(base_url=url, timeout=60) as client:
        with stalled(serving):
            # Two of three fit: they are taken back when the third is refused.
            answer = client.post(COMPLETE, json={"prompt": "a", "n": 3})
            assert (
                error_of(answer, 429)["type"] == "rate_limit_error"
                and int(answer.headers["retry-after"]) >= 1
            )
            assert "groundup_refused_total 1.0" in client.get("/metrics").text
            assert client.get("/health").status_code == client.get("/").status_code == 200
        assert until(lambda: not serving.engine.stats().waiting)
        assert (
            client.post(COMPLETE, json={"prompt": "a", "n": 3, "max_tokens": 1}).status_code == 200
        )
        # A request that never fits is an error, not a 429 to be repeated forever.
        assert (
            error_of(client.post(COMPLETE, json={"prompt": ["a"] * 4}), 400)["code"]
            == "too_many_choices"
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = sorted({*WRONG, *WRONG_CHATS})


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([COMPLETE, CHAT]),
    body=st.dictionaries(st.sampled_from(NAMES), json_values, max_size=5),
    good=st.booleans(),
)
def test_any_json_gets_a_response(
    client: httpx.Client, path: str, body: dict[str, Any], good: bool
) -> None:
    start = (
        {"prompt": "a", "max_tokens": 1}
        if path == COMPLETE
        else {"messages": json.loads(USER), "max_tokens": 1}
    )
    content = json.dumps(body | (start if good else {})).encode()
    assert client.post(path, content=content, headers=JSON).status_code in (200, 400, 404)


def test_a_million_errors_are_reported_as_one(client: httpx.Client) -> None:
    """An error for each element would make a response of gigabytes."""
    for body in (
        b'{"prompt":[' + b"[]," * 400_000 + b"[]]}",
        b'{"prompt":["a"' + b",1" * 400_000 + b"]}",
        b'{"prompt":["a"' + b',"a"' * 400_000 + b"]}",
        b'{"prompt":[[1]' + b",[1]" * 400_000 + b"]}",
        b'{"prompt":"a","stop":[' + b"1," * 400_000 + b"1]}",
        b'{"prompt":"a","logit_bias":{'
        + b",".join(b'"%d":"x"' % n for n in range(100_000))
        + b"}}",
        b'{"messages":[' + b"{}," * 400_000 + b"{}]}",
        b'{"messages":[{"role":"user","content":[' + b"{}," * 400_000 + b"{}]}]}",
    ):
        path = CHAT if b"messages" in body else COMPLETE
        error_of(client.post(path, content=body, headers=JSON), 400)


def test_too_many_log_probabilities_are_refused(served: Path) -> None:
    with (
        running(serving_of(served, scores=1000)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        long = {"prompt": "a " * 300, "max_tokens": 1, "logprobs": 5}
        assert client.post(COMPLETE, json=long).status_code == 200
        assert (
            error_of(client.post(COMPLETE, json=long | {"echo": True}), 400)["code"]
            == "too_many_logprobs"
        )
        assert (
            error_of(client.post(COMPLETE, json=long | {"max_tokens": 500}), 400)["code"]
            == "too_many_logprobs"
        )


def test_random_bytes_are_400(client: httpx.Client) -> None:
    random_ = random.Random(1)
    for _ in range(50):
        error_of(
            client.post(
                CHAT,
                content=b'{"messages":' + random_.randbytes(random_.randrange(100)),
                headers=JSON,
            ),
            400,
        )


def test_internal_error_reveals_nothing(
    served: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serving = serving_of(served)

    def broken(*_: object) -> None:
        raise RuntimeError(f"secret {KEY} in {served}")

    with running(serving) as url, httpx.Client(base_url=url) as client:
        monkeypatch.setattr(serving.engine, "submit", broken)
        answer = client.post(COMPLETE, json={"prompt": "a"})
        assert (
            error_of(answer, 500)["type"] == "server_error"
            and KEY not in answer.text
            and str(served) not in answer.text
        )
        assert client.get("/health").status_code == 200
