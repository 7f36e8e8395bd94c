"""Bad input: what can be read is read, the rest gives one reason, nothing crashes or hangs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from typing import IO, Any, cast

import pyarrow as pa
import pytest
from tests.helpers.mutations import read_between

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import BoundedStream, make_item
from groundup.collect.readers import registry
from groundup.collect.readers.records import csv_rows, records
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]
LINE = b'{"text": "whole"}\n'
PAGES = b"<mediawiki><page><title>T</title><ns>0</ns><revision><text>%s</text></revision></page>"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data, asbytes=True)),
}


def _told(results: object) -> list[str]:
    assert isinstance(results, list)
    return [result.text if isinstance(result, Document) else result.reason for result in results]


@pytest.mark.parametrize("suffix", PACKERS)
def test_concatenated_compressed_streams(suffix: str) -> None:
    """Compressed streams that were concatenated are all read, as gzip and zstd read them."""
    data = b"".join(PACKERS[suffix](LINE) for _ in range(3))
    assert _told(read_between("text", f"x.jsonl{suffix}", data)[1:-1]) == ["whole"] * 3


@pytest.mark.parametrize("suffix", PACKERS)
def test_truncated_compressed_files(suffix: str) -> None:
    """A truncated stream keeps the streams before it, and gives a reason."""
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
        (
            "text",
            "x.jsonl",
            LINE + b'{"text": "zero \0 byte"}\n' + b"\0" * 4096 + LINE,
            ["whole", "zero  byte", "whole"],
        ),
        (
            "text",
            "x.jsonl",
            LINE + LINE[:9] + b"\0" * 99 + b"\n" + LINE,
            ["whole", "malformed", "whole"],
        ),
        (
            "text",
            "x.csv",
            b"text,b\n" + b"whole,1\n" * 9 + b"\0" * 99 + b"\nwhole,2\n",
            ["whole"] * 9 + ["malformed", "whole"],
        ),
        (
            "web",
            "x.xml",
            b"<rss>" + b"<item><title>whole</title></item>" * 3 + b"\0" * 99 + b"</rss>",
            ["whole"] * 3,
        ),
        (
            "wikipedia",
            "x.xml",
            (PAGES % b"A.") + b"\0" * 99 + (PAGES % b"\0") + (PAGES % b"B."),
            ["T\n\nA.", "malformed", "T\n\nB."],
        ),
        ("wikipedia", "x.xml", b"<mediawiki><page>" + b"x" * (17 << 20), ["truncated"]),
        (
            "text",
            "x.jsonl",
            LINE + b'{"text": "lone \\ud800 half"}\n' + LINE,
            ["whole", "lone \ud800 half", "whole"],
        ),
        (
            "text",
            "x.jsonl",
            LINE + b'{"text": "caf\xe9 \xff"}\n' + LINE,
            ["whole", "caf\u00e9 \u00ff", "whole"],
        ),
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
    """Damage costs one record: whole records are kept, and the next file of an archive is read."""
    results = _told(read(kind, name, data))
    assert results == told or (told is None and results)
    read_between(kind, name, data)


def test_entities_never_unfold(read: Read) -> None:
    """Declared entities are not expanded: a page that uses one is rejected, others are read."""
    declared = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    pages = "".join(
        f"<page><title>T</title><ns>0</ns><revision><text>{text}</text></revision></page>"
        for text in ("A.", "&e11;", "B.")
    )
    results = read(
        "wikipedia",
        "x.xml",
        f'<!DOCTYPE mediawiki [<!ENTITY e0 "ha">{declared}]><mediawiki>{pages}</mediawiki>',
    )
    assert _told(results) == ["T\n\nA.", "malformed", "T\n\nB."]


def test_very_long_lines(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """A line longer than MAX_RECORD is one rejection, and the next line is read."""
    monkeypatch.setattr(records, "MAX_RECORD", 1000)
    monkeypatch.setattr(csv_rows, "MAX_RECORD", 1000)
    for size in (1001, 1000, 2000, 5000):
        long = json.dumps({"text": "x" * size}).encode() + b"\n"
        assert _told(read("text", "x.jsonl", LINE + long + LINE)) == ["whole", "too-large", "whole"]
    assert len(read("text", "x.txt", b"word " * 1_000_000)) == 1
    assert _told(read("text", "x.csv", b"text\nwhole\n" + b"x" * 2000 + b"\nwhole\n")) == [
        "whole",
        "malformed",
        "whole",
    ]


class _Endless(io.RawIOBase):
    """A prefix, followed by one line of `size` bytes."""

    def __init__(self, front: bytes, size: int) -> None:
        super().__init__()
        self.front, self.left = io.BytesIO(front), size

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if (count := self.front.readinto(target)) == 0:
            count = min(len(target), self.left)
            self.left -= count
            target[:count] = b"x" * count
        return count


@pytest.mark.torture
@pytest.mark.parametrize(
    ("kind", "name", "front"),
    [
        ("text", "x.txt", b""),
        ("text", "x.jsonl", b'{"text": "'),
        ("text", "x.json", b'[{"text": "'),
        ("text", "x.csv", b'text,b\n"'),
        ("text", "x.tsv", "text\tb\n".encode("utf-16")),
        ("text", "x.jsonl", '\ufeff{"text": "'.encode("utf-16-le")),
        ("books", "x.txt", b""),
        ("wikipedia", "x.xml", b"<mediawiki><page><title>"),
        ("web", "x.html", b"<html><body>"),
        ("web", "x.xml", b"<rss><item><title>"),
        ("web", "x.warc", b"WARC/1.0\r\nX: "),
        ("web", "x.arc", b"filedesc://x.arc 1.1.1.1 20000101000000 text/plain 20\n"),
        ("code", "x.py", b"x = '"),
        ("conversations", "x.txt", b"[10:01] <a> b\n[10:02] <b> a\n[10:03] <a> "),
        ("conversations", "x.yml", b"- - "),
        ("evaluation", "x.jsonl", b'{"query": "'),
    ],
)
def test_line_of_two_gigabytes(kind: str, name: str, front: bytes) -> None:
    """Memory stays below 1 GB, and the file gives a document or a reason."""
    tracemalloc.start()
    try:
        stream = BoundedStream(cast("IO[bytes]", io.BufferedReader(_Endless(front, 2 << 30))))
        results = sum(
            1 for _ in read_item(make_item(name, name, stream), Source(path="x", kind=kind))
        )
        assert results and tracemalloc.get_traced_memory()[1] < 1 << 30
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wrong", ["10", "0", "999999", "99999999999999999999", "-1", "x", ""])
def test_wrong_lengths_in_warc(wrong: str, read: Read) -> None:
    """A wrong length costs its record; one that reaches beyond the file costs the rest."""
    page = f"<html><body><article><p>{'It was late in the year. ' * 20}</p></article></body></html>"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}"
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://{}.org/\r\nContent-Type:"
        " application/http; msgtype=response\r\n"
    )

    def record(host: str, length: str) -> str:
        return f"{head.format(host)}Content-Length: {length}\r\n\r\n{body}\r\n\r\n"

    whole = str(len(body))
    results = read(
        "web", "x.warc", (record("a", whole) + record("b", wrong) + record("c", whole)) * 2
    )
    pages = [result.group for result in results if isinstance(result, Document)]
    beyond = wrong == "999999"
    assert pages == (["a.org"] if beyond else ["a.org", "c.org", "a.org", "c.org"])
    assert [result.record for result in results] == list(range(len(results)))
    assert beyond or isinstance(results[2], Reject)


def test_warc_that_is_broken_throughout(read: Read) -> None:
    """The search for the next record stops after 1,000 breaks; what was read before is listed."""
    results = read("web", "x.warc", b"WARC/1.0\r\nContent-Length: 1\r\n\r\nxxxx\n" * 3000)
    assert 1000 < len(results) < 2100 and all(isinstance(result, Reject) for result in results)


def test_a_file_of_numbers_is_not_listed_number_by_number(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that begins with many records without text ends there; a text before them counts."""
    monkeypatch.setattr(registry, "MAX_WITHOUT_TEXT", 3)
    found = read("text", "x.json", "[1, 2, 3, 4, 5]")
    assert [result.record for result in found] == [0, 1, 2, 3]
    last = found[-1]
    assert isinstance(last, Reject)
    assert last.detail == "none of its first 3 records holds a text; the rest was not read"
    assert len(read("text", "x.jsonl", "{a\n" * 9)) == 4
    assert len(read("text", "x.json", '["It rained.", 2, 3, 4, 5, 6]')) == 6
