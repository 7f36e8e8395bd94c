"""Bad input of every sort: what can be read is read, the rest is one reason, and nothing crashes or waits."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable

import pyarrow as pa
import pytest
from mutations import read_between

from groundup.collect import records
from groundup.document import Document, Reject

Read = Callable[..., list[Document | Reject]]
LINE = b'{"text": "whole"}\n'
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data, asbytes=True)),
}


def _told(found: object) -> list[str]:
    assert isinstance(found, list)
    return [one.text if isinstance(one, Document) else one.reason for one in found]


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_files_one_after_another(suffix: str) -> None:
    """Streams that were appended to one file are all read, as the tools themselves do."""
    data = b"".join(PACKERS[suffix](LINE) for _ in range(3))
    assert _told(read_between("text", f"x.jsonl{suffix}", data)[1:-1]) == ["whole"] * 3


@pytest.mark.parametrize("suffix", PACKERS)
def test_cut_compressed_files(suffix: str) -> None:
    """A stream that is cut off, keeps the streams before it, and says so."""
    pack = PACKERS[suffix]
    cut = _told(read_between("text", f"x.jsonl{suffix}", pack(LINE * 99) + pack(LINE)[:-6])[1:-1])
    assert cut[:60] == ["whole"] * 60 and cut[-1] in ("truncated", "damaged", "malformed")


@pytest.mark.parametrize(
    ("kind", "name", "data", "told"),
    [
        ("text", "x.txt", b"", ["empty"]),
        ("text", "x.jsonl", b"", ["empty"]),
        ("web", "x.warc", b"", ["empty"]),
        ("books", "x.epub", b"", ["empty"]),
        ("text", "x.txt", b"\0" * 1000, ["binary"]),
        ("text", "x.txt", b"a text\0 with a zero byte in it, as disks leave them", ["binary"]),
        ("text", "x.jsonl", LINE * 600 + b"\0" * 400 + b"\n" + LINE, ["whole"] * 601),
        ("text", "x.jsonl", LINE + b'{"text": "lone \\ud800 half"}\n' + LINE, ["whole", "lone \ud800 half", "whole"]),
        ("text", "x.jsonl", LINE + b'{"text": "caf\xe9 \xff"}\n' + LINE, ["whole", "caf\u00e9 \u00ff", "whole"]),
        ("text", "x.jsonl", LINE + b'{"text": "cut in a str', ["whole", "malformed"]),
        ("text", "x.json", b'[{"text": "whole"}, {"text": "cut in a str', ["whole", "truncated"]),
        ("text", "x.csv", b'text\nwhole\n"cut in a str', ["whole", "cut in a str"]),
        ("web", "x.html", b"<html><body>" + b"<div>" * 100_000 + b"deep", ["nesting"]),
        ("conversations", "x.yml", b"a: &a [x]\nb: [*a, *a]\n", ["malformed"]),
        ("conversations", "x.yml", b"[" * 50_000, ["nesting"]),
        ("conversations", "x.yml", b"- " * 50_000, ["nesting"]),
        ("conversations", "x.yml", b"{a: " * 50_000, ["nesting"]),
        ("wikipedia", "x.txt", b"{{" * 20_000 + b"[[a]]" * 99, None),
    ],
)
def test_bad_files(kind: str, name: str, data: bytes, told: list[str] | None, read: Read) -> None:
    """Each costs itself: its whole records are kept, and its neighbours in an archive are read."""
    found = _told(read(kind, name, data))
    assert found == told or (told is None and found)
    read_between(kind, name, data)


def test_entities_never_unfold(read: Read) -> None:
    """No entity that a dump declares is in force: a page that uses one is a rejection, its neighbours are read."""
    declared = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    pages = "".join(f"<page><title>T</title><ns>0</ns><revision><text>{text}</text></revision></page>" for text in ("A.", "&e11;", "B."))
    found = read("wikipedia", "x.xml", f'<!DOCTYPE mediawiki [<!ENTITY e0 "ha">{declared}]><mediawiki>{pages}</mediawiki>')
    assert _told(found) == ["T\n\nA.", "malformed", "T\n\nB."]


def test_very_long_lines(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """A line beyond what a record may be is one rejection, and the next line is read."""
    monkeypatch.setattr(records, "MAX_RECORD", 1000)
    for size in (1001, 1000, 2000, 5000):
        long = json.dumps({"text": "x" * size}).encode() + b"\n"
        assert _told(read("text", "x.jsonl", LINE + long + LINE)) == ["whole", "too-large", "whole"]
    assert len(read("text", "x.txt", b"word " * 1_000_000)) == 1


@pytest.mark.parametrize("wrong", ["10", "0", "999999", "99999999999999999999", "-1", "x", ""])
def test_wrong_lengths_in_a_web_archive(wrong: str, read: Read) -> None:
    """A record whose length is wrong costs itself; one that reaches beyond the end of the file, the rest."""
    page = f"<html><body><article><p>{'It was late in the year. ' * 20}</p></article></body></html>"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}"
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://{}.org/\r\nContent-Type: application/http; msgtype=response\r\n"

    def record(host: str, length: str) -> str:
        return f"{head.format(host)}Content-Length: {length}\r\n\r\n{body}\r\n\r\n"

    whole = str(len(body))
    found = read("web", "x.warc", (record("a", whole) + record("b", wrong) + record("c", whole)) * 2)
    pages = [one.group for one in found if isinstance(one, Document)]
    beyond = wrong == "999999"
    assert pages == (["a.org"] if beyond else ["a.org", "c.org", "a.org", "c.org"])
    assert [one.record for one in found] == list(range(len(found)))
    assert beyond or isinstance(found[2], Reject)


def test_a_web_archive_that_is_broken_throughout(read: Read) -> None:
    """Looking for the next record ends after a thousand times; what was found before is listed."""
    found = read("web", "x.warc", b"WARC/1.0\r\nContent-Length: 1\r\n\r\nxxxx\n" * 3000)
    assert 1000 < len(found) < 2100 and all(isinstance(one, Reject) for one in found)
