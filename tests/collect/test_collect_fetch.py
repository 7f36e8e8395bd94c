"""Fetching from a package index and from failing servers, into a verified cache."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from groundup.errors import SourceError
from groundup.runtime.fetch import download, https, index
from groundup.runtime.fetch.download import fetch
from groundup.runtime.fetch.https import (
    Access,
    PrivateError,
    check_literal,
    is_public,
    redact_url,
    resolve_public,
)

DATA = b"the bytes of a source distribution"
DIGEST = hashlib.sha256(DATA).hexdigest()


class _Index(http.server.BaseHTTPRequestHandler):
    """A package index with one project, in JSON or HTML."""

    as_json, requests = True, 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path == "/simple/my-pkg/":
            files = [
                {"filename": n, "url": f"../../f/{n}", "hashes": {"sha256": DIGEST}}
                for n in ("my_pkg-1.0.tar.gz", "my_pkg-2.0.tar.gz")
            ]
            links = "".join(
                f'<a href="{f["url"]}#sha256={DIGEST}">{f["filename"]}</a>' for f in files
            )
            kind = "application/vnd.pypi.simple.v1+json" if self.as_json else "text/html"
            self._answer(
                json.dumps({"files": files}).encode() if self.as_json else links.encode(), kind
            )
        elif self.path.startswith("/f/"):
            self._answer(DATA, "application/octet-stream")
        else:
            self.send_error(404)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def package_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Index]]:
    _Index.as_json, _Index.requests = True, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield _Index
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "BACK_OFF_SECONDS", 0.0)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.mark.parametrize("as_json", [True, False])
def test_package_file_is_fetched_once(package_index: type[_Index], as_json: bool) -> None:
    """Both forms of an index give the source distribution, which then comes from the cache."""
    package_index.as_json = as_json
    path = fetch("pypi:My.Pkg==2.0")
    assert (path.name, path.read_bytes()) == ("my_pkg-2.0.tar.gz", DATA)
    seen = package_index.requests
    assert fetch("pypi:My.Pkg==2.0") == path
    assert fetch("pypi:My.Pkg==2.0", DIGEST) == path
    assert package_index.requests == seen


def test_a_named_file(package_index: type[_Index]) -> None:
    """A path may name any file of the index's page."""
    assert fetch("pypi:my-pkg==1.0/my_pkg-1.0.tar.gz").name == "my_pkg-1.0.tar.gz"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("pypi:my-pkg==9.9", "does not hold"),
        ("pypi:none==1.0", "404"),
        ("pypi:my-pkg", "expected pypi:"),
    ],
)
def test_missing_packages(package_index: type[_Index], path: str, said: str) -> None:
    """A wrong version, a wrong name and a path without a version are one-line errors."""
    with pytest.raises(SourceError, match=said) as caught:
        fetch(path)
    assert "\n" not in str(caught.value)


def test_wrong_hash_keeps_nothing(
    package_index: type[_Index], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with another hash is refused and leaves no file behind."""
    with pytest.raises(SourceError, match="the recipe wants"):
        fetch("pypi:my-pkg==2.0", "0" * 64)
    real = index.find_file
    monkeypatch.setattr(
        index,
        "find_file",
        lambda path: index.PackageFile(real(path).filename, real(path).url, ""),
    )
    with pytest.raises(SourceError, match="not kept"):
        fetch("pypi:my-pkg==2.0", "0" * 64)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_damaged_cache_is_fetched_again(package_index: type[_Index]) -> None:
    """A cached file is verified at each use; a changed one is replaced."""
    path = fetch("pypi:my-pkg==2.0")
    path.write_bytes(b"changed")
    assert fetch("pypi:my-pkg==2.0").read_bytes() == DATA


def test_index_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, one line names the address, without the password in it."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(SourceError, match="cannot be fetched") as caught:
        fetch("pypi:my-pkg==2.0")
    assert "secret" not in str(caught.value)
    assert "secret" not in redact_url("https://me:secret@host/x?token=secret")


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.0.0.1 172.16.5.5 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1"
    " 255.255.255.255 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1"
    " 64:ff9b::7f00:1 2002:7f00:1:: fec0::1 feff::1 3fff::1 2001:db8::1 2001::1 64:ff9b:1::1"
    " 5f00::1 100::1 ::7f00:1 4000::1 192.0.0.8 192.88.99.1 198.19.255.255 203.0.113.9"
    " 240.0.0.1".split(),
)
def test_private_addresses(address: str) -> None:
    """Every range that is not the public internet is known, also inside IPv6."""
    assert not is_public(ip_address(address))


def test_public_addresses() -> None:
    """The public internet is reachable."""
    assert (
        is_public(ip_address("8.8.8.8"))
        and is_public(ip_address("2606:4700::1111"))
        and is_public(ip_address("64:ff9b::808:808"))
        and is_public(ip_address("::ffff:8.8.8.8"))
        and is_public(ip_address("2a00:1450:4001::1"))
        and is_public(ip_address("192.0.1.1"))
    )


@pytest.mark.parametrize(
    "host",
    "localhost LOCALHOST. a.localhost printer.local db.internal router.home.arpa 127.1 0x7f000001"
    " 2130706433 [::1] １２７.0.0.1 ｌocalhost".split(),
)
def test_local_names_are_refused_without_a_look_up(host: str) -> None:
    """A proxy looks names up itself, in a network where they mean something else."""
    with pytest.raises(PrivateError, match="may not reach it"):
        check_literal(host)


def test_names_that_only_look_local_pass() -> None:
    for host in ("localhost.example.org", "mylocal", "internal.example.com", "8.8.8.8"):
        check_literal(host)


def test_recipe_never_reaches_this_machine() -> None:
    """An address or a name of this machine in a recipe is refused before anything is sent."""
    for url in ("https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x"):
        with pytest.raises(SourceError, match="not a public address"):
            fetch(url)
    with pytest.raises(SourceError, match="cannot be found"):
        resolve_public("no-such-host.invalid", 443)


def _served(
    monkeypatch: pytest.MonkeyPatch, handler: Callable[[httpx.Request], httpx.Response]
) -> None:
    monkeypatch.setattr(
        https, "make_client", lambda: httpx.Client(transport=httpx.MockTransport(handler))
    )
    monkeypatch.setattr(
        https,
        "resolve_public",
        lambda host, port: ["8.8.8.8"] if host == "good.example" else resolve_public(host, port),
    )


def test_redirects_are_followed_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redirects to public hosts are followed; to this machine, or away from https, they are not."""

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "8.8.8.8" and request.headers["host"] == "good.example"
        to = {
            "/a": "/b",
            "/evil": "https://127.0.0.1/x",
            "/plain": "http://good.example/b",
            "/loop": "/loop",
        }.get(request.url.path)
        return (
            httpx.Response(302, headers={"location": to})
            if to
            else httpx.Response(200, stream=httpx.ByteStream(DATA))
        )

    _served(monkeypatch, handler)
    assert fetch("https://good.example/a", DIGEST).read_bytes() == DATA
    for path, said in (
        ("evil", "not a public address"),
        ("plain", "only https"),
        ("loop", "more than 5 times"),
    ):
        with pytest.raises(SourceError, match=said):
            fetch(f"https://good.example/{path}")


def test_short_and_failed_answers(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """A response that ends early, and an error of the server, keep nothing."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/short":
            return httpx.Response(
                200, headers={"content-length": "99"}, stream=httpx.ByteStream(DATA)
            )
        return httpx.Response(503)

    _served(monkeypatch, handler)
    with pytest.raises(SourceError, match="ended after 34 of 99"):
        fetch("https://good.example/short")
    with pytest.raises(SourceError, match="503"):
        fetch("https://good.example/down")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_untrusted_access_wants_https() -> None:
    """Only the configured index may be plain http."""
    Access(trusted=True).check("http://index/simple")
    hub = Access(origins=frozenset(["https://hub"]), token="secret")
    hub.check("https://hub/x")
    assert hub.is_origin("https://hub/x") and "secret" not in repr(hub)
    for url in ("http://hub/x", "https://hub:1/x", "https://hub@evil/x"):
        assert not hub.trusts(url)
    for url in ("http://host/x", "file:///etc/passwd", "ftp://host/x", "https:///x"):
        with pytest.raises(SourceError):
            Access().check(url)
    assert download.cache_root().name == "cache"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "10.1", "[::1]", "[::ffff:10.0.0.1]"]
)
def test_no_proxy_is_sent_to_a_private_address(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A proxy resolves names, but a literal private address is refused before it is contacted."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError("asked")

    _served(monkeypatch, handler)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with pytest.raises(SourceError, match="not a public address"):
        fetch(f"https://{host}/latest/meta-data/")


def test_a_part_of_unknown_length_is_not_taken_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that sends a part without the total size is asked for the whole file."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range", ""))
        etag = {"etag": '"1"'}
        if len(asked) == 1:
            return httpx.Response(
                200,
                headers=etag | {"content-length": str(len(DATA))},
                stream=httpx.ByteStream(DATA[:10]),
            )
        if asked[-1]:
            return httpx.Response(
                206,
                headers=etag | {"content-range": "bytes 10-14/*"},
                stream=httpx.ByteStream(DATA[10:15]),
            )
        return httpx.Response(
            200, headers=etag | {"content-length": str(len(DATA))}, stream=httpx.ByteStream(DATA)
        )

    _served(monkeypatch, handler)
    assert fetch("https://good.example/a").read_bytes() == DATA
    assert asked == ["", "bytes=10-", ""]
