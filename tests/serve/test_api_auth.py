"""Authentication: a key protects all but page and /health; without one, only loopback is served."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from tests.helpers.served import KEY, raw, request_bytes, serving_of, status_of

from groundup.errors import GroundupError
from groundup.serve.app import PAGE, create_app
from groundup.serve.auth import CONTENT_POLICY, is_loopback
from groundup.serve.requests import ServedModel
from groundup.serve.server import listen, read_key, running

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "",
)
OPEN = {"/health", "/", *(f"/{file.name}" for file in PAGE.iterdir())}
HEADERS = [(b"host", b"127.0.0.1:8000")]


def ask(
    app: Any,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]] = HEADERS,
    kind: str = "http",
) -> tuple[int, dict[str, str]]:
    """Call an ASGI application with an unmodified path; return status and headers."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
    }
    scope |= {
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    scope |= {"scheme": "http", "state": {}}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if kind != "http":
        return (403 if sent == [{"type": "websocket.close", "code": 1008}] else 200), {}
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def paths_of(app: Any) -> set[str]:
    """Return the paths of all routes of an application, mounted ones included."""
    paths = set()
    todo = [("", route) for route in app.routes]
    while todo:
        before, route = todo.pop()
        inner = (
            getattr(route, "routes", None)
            or getattr(getattr(route, "original_router", None), "routes", None)
            or []
        )
        path = getattr(route, "path", "")
        todo += [(before + path, child) for child in inner]
        if path:
            paths.add(before + path)
    return paths


@pytest.fixture(scope="module")
def keyed(serving: ServedModel) -> Any:
    app = create_app(serving, KEY)
    # Routes that are added later need the key too.
    app.mount(
        "/mounted", Starlette(routes=[Route("/inner", lambda request: PlainTextResponse("secret"))])
    )
    app.router.routes.append(
        Mount("/files", routes=[Route("/x", lambda request: PlainTextResponse("secret"))])
    )
    return app


def test_paths_of_finds_all_routes(keyed: Any) -> None:
    assert paths_of(keyed) >= {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{model}",
        "/metrics",
        "/info",
        "/mounted/inner",
    }
    assert paths_of(keyed) >= {"/openapi.json", "/health", "/", "/files/x"}


def test_every_route_needs_the_key_except_page_and_health(keyed: Any) -> None:
    for path, method in itertools.product(sorted(paths_of(keyed)), METHODS):
        status, headers = ask(keyed, method, path)
        public = path in OPEN and method in ("GET", "HEAD")
        assert (status != 401) == public, (method, path)
        assert public or headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    """/nothing //v1/models /v1//models /v1/models/ /v1%2fmodels /%2fv1/models /./v1/models /health/
    //health /health/../info /HEALTH /Health /health%00 /health;x /index.html/ /index.html/../info
    /chat.js/x //index.html //chat.css /page/index.html /mounted/../health http://x/health * /docs
    /redoc /favicon.ico""".split(),
)
def test_other_spellings_of_a_public_path_need_the_key(keyed: Any, path: str) -> None:
    for method in METHODS:
        assert ask(keyed, method, path)[0] == 401, method


def test_websockets_are_closed(keyed: Any, serving: ServedModel) -> None:
    for app in (keyed, create_app(serving)):
        for path in ("/", "/health", "/v1/completions"):
            assert ask(app, "GET", path, kind="websocket")[0] == 403


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY.upper()}",
        f"Bearer{KEY}",
        f"Bearer {KEY} {KEY}",
        f"Bearer {KEY},",
        f'Bearer "{KEY}"',
        f"Bearer {KEY}\x00",
        "Bearer \xff\xfe",
        "Bearer " + "a" * 8000,
        f"Token {KEY}",
    ],
)
def test_a_wrong_key_is_401(keyed: Any, value: str) -> None:
    assert (
        ask(keyed, "GET", "/v1/models", [*HEADERS, (b"authorization", value.encode("latin-1"))])[0]
        == 401
    )


def test_right_key_is_accepted(keyed: Any) -> None:
    good = (b"authorization", f"Bearer {KEY}".encode())
    assert ask(keyed, "GET", "/v1/models", [*HEADERS, good])[0] == 200
    assert (
        ask(keyed, "GET", "/metrics", [*HEADERS, (b"authorization", f"bearer  {KEY} ".encode())])[0]
        == 200
    )
    # With a key any host name is accepted, since no page knows the key; two keys are refused.
    assert ask(keyed, "GET", "/v1/models", [(b"host", b"example.org"), good])[0] == 200
    assert ask(keyed, "GET", "/v1/models", [*HEADERS, good, good])[0] == 401
    assert ask(keyed, "GET", "/v1/models", [*HEADERS, (b"x-api-key", KEY.encode())])[0] == 401
    assert ask(keyed, "GET", "/nothing", [*HEADERS, good])[0] == 404


def test_responses_have_security_headers_and_no_cors(keyed: Any, serving: ServedModel) -> None:
    for path in ("/", "/health", "/v1/models", "/nothing"):
        for app in (keyed, create_app(serving)):
            for method in ("GET", "OPTIONS"):
                _, headers = ask(
                    app, method, path, [*HEADERS, (b"access-control-request-method", b"POST")]
                )
                assert (
                    headers["content-security-policy"] == CONTENT_POLICY
                    and "unsafe" not in CONTENT_POLICY
                )
                assert (
                    headers["x-content-type-options"] == "nosniff"
                    and headers["referrer-policy"] == "no-referrer"
                )
                assert (
                    "frame-ancestors 'none'" in headers["content-security-policy"]
                    and headers["x-frame-options"] == "DENY"
                )
                assert not [name for name in headers if name.startswith("access-control")]


LOCAL = [
    "127.0.0.1",
    "127.0.0.1:8000",
    "localhost",
    "localhost:8000",
    "LOCALHOST:1",
    "[::1]",
    "[::1]:8000",
    "127.9.9.9:80",
]
FOREIGN = [
    "",
    "example.org",
    "example.org:8000",
    "localhost.example.org",
    "127.0.0.1.nip.io",
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "localhost@example.org",
]
FOREIGN += [
    "example.org@localhost",
    "example.org/localhost",
    "localhost:8000@x",
    "localhost:99999",
    "localhost:x",
    "[::1",
    "::1]",
    "127.1 ",
    "a b",
    "\xff",
]
FOREIGN += [
    "localhost#",
    "2130706433",
    "0x7f000001",
    "127.0.0.1:0",
    "[::ffff:10.0.0.1]",
    "localhost, example.org",
    "localhost.",
    "[::1]evil",
    "[::1]:80evil",
    "localhost:+80",
    "localhost:80:80",
]


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nothing", "/metrics"])
def test_without_a_key_the_host_must_be_loopback(serving: ServedModel, path: str) -> None:
    """DNS rebinding: a page whose name now points to 127.0.0.1 still sends that name."""
    app = create_app(serving)
    for host in LOCAL:
        assert ask(app, "GET", path, [(b"host", host.encode())])[0] != 403, host
    for host in FOREIGN:
        assert ask(app, "GET", path, [(b"host", host.encode("latin-1"))])[0] == 403, host
    assert ask(app, "GET", path, [])[0] == 403
    assert ask(app, "GET", path, [(b"host", b"localhost"), (b"host", b"example.org")])[0] == 403


def test_without_a_key_the_origin_must_be_this_server(serving: ServedModel) -> None:
    """CSRF: another page in the browser can send requests, but not with this origin."""
    app = create_app(serving)
    same_origin = [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")]
    assert ask(app, "GET", "/info", same_origin)[0] == 200
    for origin in (
        "null",
        "http://example.org",
        "https://localhost:8000",
        "http://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:8000",
        "",
    ):
        assert ask(app, "GET", "/info", [same_origin[0], (b"origin", origin.encode())])[0] == 403, (
            origin
        )
    assert ask(app, "GET", "/info", [*same_origin, (b"origin", b"http://example.org")])[0] == 403
    assert ask(app, "GET", "/info", [same_origin[0], (b"x-forwarded-for", b"10.0.0.1")])[0] == 403


def test_authentication_over_a_real_connection(served: Path) -> None:
    with running(serving_of(served), KEY) as url:
        for path in (
            "/v1/models",
            "//v1/models",
            "/v1%2Fmodels",
            "/metrics",
            "/%2e%2e/",
            "/health/../v1/models",
        ):
            for method in ("GET", "HEAD", "OPTIONS", "POST"):
                assert status_of(raw(url, request_bytes(method, path))) == 401, (method, path)
        assert status_of(raw(url, request_bytes("GET", "/health"))) == 200
        answer = raw(url, request_bytes("GET", "/"))
        assert status_of(answer) == 200 and KEY.encode() not in answer
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        }
        with httpx.Client() as client:
            assert client.get(f"{url}v1/models", headers=upgrade).status_code == 401
        # The body of a request without the key is not read.
        assert (
            status_of(
                raw(url, request_bytes("POST", "/v1/completions", {"Content-Length": "1000000"}))
            )
            == 401
        )
        official = openai.OpenAI(base_url=url + "v1", api_key=KEY, max_retries=0)
        assert [model.id for model in official.models.list()] == ["tiny"]
        with pytest.raises(openai.AuthenticationError) as error:
            official.with_options(api_key="wrong").models.list()
        assert error.value.code == "invalid_api_key"


def test_openapi_declares_the_key(serving: ServedModel, keyed: Any) -> None:
    assert (
        keyed.openapi()["security"] == [{"key": []}]
        and "security" not in create_app(serving).openapi()
    )


@pytest.fixture
def key_file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "key"


def test_key_from_first_line_of_file_or_environment(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GROUNDUP_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("GROUNDUP_API_KEY", KEY)
    assert read_key(None) == KEY
    key_file.write_text(f"  {KEY}1\r\nsecond line\n")
    assert read_key(key_file) == KEY + "1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n" + KEY.encode(),
        b"short",
        b"with a space in it",
        b"\xff" * 20,
        b"\x00" * 20,
        "schlüsselschlüssel".encode(),
    ],
)
def test_invalid_key_is_refused(key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    with pytest.raises(GroundupError, match="a key has at least 16"):
        read_key(key_file)


def test_empty_key_in_the_environment_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GROUNDUP_API_KEY", "")
    with pytest.raises(GroundupError, match="GROUNDUP_API_KEY"):
        read_key(None)


def test_unreadable_key_file_is_an_error(key_file: Path) -> None:
    with pytest.raises(GroundupError, match="No such file"):
        read_key(key_file)
    key_file.mkdir()
    with pytest.raises(GroundupError, match="directory"):
        read_key(key_file)


def test_other_addresses_than_loopback_need_a_key(serving: ServedModel) -> None:
    with pytest.raises(GroundupError, match="needs a key"), running(serving, None, host="0.0.0.0"):
        pass


def test_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.255.0.1")))
    assert not any(
        map(
            is_loopback,
            ("0.0.0.0", "::", "", "localhost.", "10.0.0.1", "example.org", "::ffff:8.8.8.8"),
        )
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "1.2.3.4.5", "a" * 300, "\x00"])
def test_invalid_address_is_an_error(host: str) -> None:
    with pytest.raises(GroundupError, match="cannot listen there"):
        listen(host, 0, None)


def test_port_in_use_is_an_error() -> None:
    with listen("127.0.0.1", 0, None) as taken, pytest.raises(GroundupError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1], None)
    if os.geteuid():
        with pytest.raises(GroundupError, match="ermission"):
            listen("127.0.0.1", 1, None)
