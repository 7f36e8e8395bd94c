"""Pages and web archives: main text, the host as group, and every other record rejected."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import Item
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.web.html import decode_html, host, nesting_depth
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]
SENTENCES = "The harvest had been late that year. " * 12
PAGE = f"""<!DOCTYPE html><html><head><title>T</title>
<link href="https://www.Example.org/a" rel="canonical">
<script>if (a<b) document.write("<div><div><div>")</script></head>
<body><nav><a href="/">Home</a> <a href="/x">Shop</a></nav>
<article><h1>Harvest</h1><p>{SENTENCES}</p><p>{SENTENCES}</p></article>
<footer>Cookies? Accept all.</footer></body></html>"""


def test_main_text(read: Read) -> None:
    """Navigation and footer are removed; the group is the canonical host."""
    (result,) = read("web", "page.html", PAGE)
    assert isinstance(result, Document)
    assert SENTENCES.strip() in result.text
    assert not re.search("Cookies|Shop|document.write", result.text)
    assert result.group == "example.org"


@pytest.mark.parametrize(
    ("codec", "head"),
    [
        ("cp1251", '<meta charset="windows-1251">'),
        ("shift_jis", '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">'),
        ("utf-16", ""),
    ],
)
def test_charset(codec: str, head: str) -> None:
    """A page declares its encoding by a BOM or in its head."""
    word = "Привет" if codec == "cp1251" else "こんにちは"
    assert word in decode_html(f"<html><head>{head}</head><body>{word}</body></html>".encode(codec))


def test_nesting_is_bounded(read: Read) -> None:
    """Deep nesting is rejected before parsing; scripts and unclosed paragraphs do not count."""
    (result,) = read("web", "deep.html", "<html><body>" + "<div>" * 5000 + "x")
    assert isinstance(result, Reject) and result.reason == "nesting"
    assert nesting_depth("<p>" * 5000 + "<script>" + "<div>" * 5000 + "</script>") == 0
    assert nesting_depth(PAGE) <= 2


def test_hosts() -> None:
    """The host comes without www; a URL without a host gives none."""
    assert [
        host(url) for url in ("https://www.A.org:8080/x", "//b.net/y", "nonsense", "http://[bad")
    ] == ["a.org", "b.net", "", ""]


def _record(kind: str, body: bytes, target: str = "http://www.example.org/a") -> bytes:
    form = "application/http; msgtype=response" if kind == "response" else "text/plain"
    lines = [
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {target}",
        f"WARC-Record-ID: <urn:uuid:{len(body)}>",
        "WARC-Date: 2020-01-01T00:00:00Z",
    ]
    lines += [f"Content-Type: {form}", f"Content-Length: {len(body)}"]
    return "\r\n".join(["WARC/1.0", *lines, "", ""]).encode() + body + b"\r\n\r\n"


def _http(body: bytes, status: str = "200 OK", form: str = "text/html; charset=utf-8") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {form}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def test_warc(read: Read) -> None:
    """HTML responses of status 200 are documents; every other record is rejected."""
    records = [
        _record("warcinfo", b"software: x"),
        _record("response", _http(PAGE.encode())),
        _record("response", _http(b"gone", "404 Not Found")),
        _record("response", _http(b"GIF89a", form="image/gif")),
        _record("request", b"GET / HTTP/1.1\r\n\r\n"),
        _record("response", _http(PAGE.encode()), "http://other.net/"),
        _record("conversion", b"Plain text of a page.", "http://wet.org/"),
    ]
    results = read("web", "x.warc", b"".join(records))
    kinds = [f.group if isinstance(f, Document) else f.reason for f in results]
    assert kinds == [
        "warc-warcinfo",
        "example.org",
        "http-status",
        "not-html",
        "warc-request",
        "other.net",
        "wet.org",
    ]
    assert [f.record for f in results] == list(range(7))


def _chunked(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:])]
    return b"".join([*parts, b"0\r\n\r\n"])


def _encoded(headers: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n\r\n"
    return _record("response", head.encode() + body)


@pytest.mark.parametrize("chunked", ["undone", "in place"])
def test_bodies_stored_decoded(chunked: str, read: Read) -> None:
    """An encoding that the headers name and the body lacks was undone by the crawler."""
    page = PAGE.encode()
    raw_deflate = zlib.compressobj(wbits=-15)
    bodies = {
        "gzip": gzip.compress(page),
        "X-Gzip": gzip.compress(page),
        "deflate": zlib.compress(page),
        "Deflate": raw_deflate.compress(page) + raw_deflate.flush(),
        "identity": page,
    }
    pairs = [*bodies.items(), *((name, page) for name in [*bodies, "br", "zstd", "utf-8"])]
    records = [
        _encoded(
            f"Content-Encoding: {name}\r\nTransfer-Encoding: chunked",
            _chunked(body) if chunked == "in place" else body,
        )
        for name, body in pairs
    ]
    (expected,) = read("web", "x.warc", _encoded("X-None: 1", page))
    assert isinstance(expected, Document)
    results = read("web", "x.warc", b"".join(records))
    assert [getattr(result, "text", result) for result in results] == [expected.text] * len(pairs)


def test_damaged_bodies_stay_listed(read: Read) -> None:
    """A body that neither fits its headers nor starts like a page is damaged; the next is read."""
    page = PAGE.encode()
    packed = gzip.compress(page, mtime=0)
    damaged = [
        ("Content-Encoding: gzip", packed[:40] + bytes(60) + packed[40:]),
        ("Content-Encoding: br", packed),
        ("Content-Encoding: utf-8", packed),
        ("Transfer-Encoding: chunked", _chunked(page)[:300]),
        ("Content-Encoding: deflate", b"\x00" * 100),
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked", _chunked(packed[5:])),
    ]
    data = b"".join(_encoded(*each) + _encoded("X-None: 1", page) for each in damaged)
    results = read("web", "x.warc", data)
    kinds = ["page" if isinstance(f, Document) else f.reason for f in results]
    assert kinds == ["damaged", "page"] * len(damaged)
    assert [f.record for f in results] == list(range(2 * len(damaged)))


def test_truncated_warc_keeps_whole_records() -> None:
    """A truncated WARC file, plain or compressed by record, keeps its whole records."""
    record = _record("response", _http(PAGE.encode()))
    source = Source(path="x", kind="web")
    for name, data in (
        ("x.warc", (record * 3)[:-200]),
        ("x.warc.gz", (gzip.compress(record) * 3)[:-100]),
    ):
        (item,) = open_items(Path(name), io.BytesIO(data), name, len(data), Selection())
        assert isinstance(item, Item)
        results = list(read_item(item, source))
        assert [isinstance(f, Document) for f in results][:2] == [True, True]
        assert isinstance(results[-1], Reject) and results[-1].reason in ("truncated", "damaged")


def test_not_a_warc(read: Read) -> None:
    """A file that is WARC by name only is rejected."""
    (result,) = read("web", "x.warc", "nothing of the kind\n" * 20)
    assert isinstance(result, Reject)


def _arc(body: bytes, target: str = "http://www.example.org/a b", extra: str = "") -> bytes:
    return (
        f"{target} 10.0.0.1 20000101000000 text/html {extra}{len(body)}\n".encode() + body + b"\n"
    )


ARC_START = _arc(
    b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n", "filedesc://x.arc"
)


@pytest.mark.parametrize("extra", ["", "200 - - 0 x.arc.gz "])
def test_arc(read: Read, extra: str) -> None:
    """ARC headers have five fields or ten, and URLs may hold spaces."""
    records = [
        ARC_START,
        _arc(b"10.0.0.1", "dns:www.example.org"),
        _arc(_http(PAGE.encode()), extra=extra),
        _arc(_http(b"gone", "404 Not Found"), extra=extra),
        _arc(_http(PAGE.encode()), "http://other.net/", extra),
    ]
    results = read("web", "x.arc", b"".join(records))
    kinds = [f.group if isinstance(f, Document) else f.reason for f in results]
    assert kinds == ["not-http", "not-http", "example.org", "http-status", "other.net"]
    assert [f.record for f in results] == list(range(5))


def test_damaged_arc_keeps_other_records(read: Read) -> None:
    """A wrong length costs its record; one that reaches beyond the file costs the rest."""
    page = _arc(_http(PAGE.encode()))
    length = str(len(_http(PAGE.encode()))).encode()
    for wrong, reason in ((b"20", "not-html damaged"), (b"x", "damaged"), (b"9" * 40, "truncated")):
        results = read(
            "web", "x.arc", ARC_START + page + page.replace(length + b"\n", wrong + b"\n", 1) + page
        )
        kinds = ["page" if isinstance(f, Document) else f.reason for f in results]
        assert " ".join(kinds) == f"not-http page {reason}" + (
            "" if reason == "truncated" else " page"
        )


def test_real_arc(real_data: Path) -> None:
    """Real ARC files, plain and compressed by record; a broken one is rejected."""
    results = {}
    for name in ("example.arc", "example.arc.gz", "bad.arc"):
        data = (real_data / "web/warc/warcio" / name).read_bytes()
        (item,) = open_items(Path(name), io.BytesIO(data), name, len(data), Selection())
        assert isinstance(item, Item)
        results[name] = list(read_item(item, Source(path="x", kind="web")))
    assert results["example.arc"] == results["example.arc.gz"]
    assert [f.group for f in results["example.arc"] if isinstance(f, Document)] == ["example.com"]
    assert {f.reason for f in results["bad.arc"] if isinstance(f, Reject)} == {
        "damaged",
        "not-http",
    }
