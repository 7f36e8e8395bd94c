"""A line, value or page without end: bounded memory, one rejection, and the rest is read."""

from __future__ import annotations

import io
import multiprocessing
import resource
import tracemalloc
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import BoundedStream, make_item
from groundup.collect.readers.records import csv_rows, records
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.wiki import dump
from groundup.recipe import Source

PAGE = "<page><title>T</title><ns>0</ns><revision><text>{}</text></revision></page>"
# Name → (kind, file, prefix, what is repeated, suffix, the expected texts and reasons).
CASES: dict[str, tuple[str, str, bytes, bytes, bytes, list[str]]] = {
    "jsonl": (
        "text",
        "x.jsonl",
        b'{"text": "a"}\n{"text": "',
        b"x",
        b'"}\n{"text": "b"}\n',
        ["a", "too-large", "b"],
    ),
    "utf-16": (
        "text",
        "x.jsonl",
        b"\xff\xfe" + '{"text": "a"}\n{"text": "'.encode("utf-16-le"),
        b"x\0",
        '"}\n{"text": "b"}\n'.encode("utf-16-le"),
        ["a", "too-large", "b"],
    ),
    "json": ("text", "x.json", b'[{"text": "a"}, {"text": "', b"x", b'"}]', ["a", "too-large"]),
    "csv": ("text", "x.csv", b"id,text\n1,a\n2,", b"x", b"\n3,b\n", ["a", "malformed", "b"]),
    "fields": ("text", "x.csv", b"id,text\n1,a\n2", b",", b"\n3,b\n", ["a", "malformed", "b"]),
    "dump": (
        "wikipedia",
        "x.xml",
        f"<mediawiki>{PAGE.format('a')}<page><title>".encode(),
        b"x",
        f"</title></page>{PAGE.format('b')}".encode(),
        ["T\n\na", "too-large", "T\n\nb"],
    ),
}


class Endless(io.RawIOBase):
    """A file that repeats `unit` for `size` bytes between `front` and `back`."""

    def __init__(self, front: bytes, unit: bytes, size: int, back: bytes) -> None:
        super().__init__()
        self._front, self._unit, self._left, self._back = (
            io.BytesIO(front),
            unit * (65536 // len(unit)),
            size,
            io.BytesIO(back),
        )

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target)
        if (count := self._front.readinto(view)) or self._left <= 0:
            return count or self._back.readinto(view)
        count = min(len(view), len(self._unit)) // 2 * 2
        view[:count] = self._unit[:count]
        self._left -= count
        return count


def told(case: str, size: int) -> list[str]:
    """Return the texts and reasons of a file with `size` bytes in the middle."""
    kind, name, front, unit, back, _ = CASES[case]
    stream = make_item(
        name, name, BoundedStream(cast("IO[bytes]", Endless(front, unit, size, back)))
    )
    return [
        result.text if isinstance(result, Document) else result.reason
        for result in read_item(stream, Source(path="x", kind=kind))
    ]


@pytest.mark.parametrize("case", CASES)
def test_memory_follows_the_limit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record 40 times longer than the limit takes less than 10 times the limit of memory."""
    limit = 1 << 20
    for module, name in (
        (records, "MAX_RECORD"),
        (csv_rows, "MAX_RECORD"),
        (csv_rows, "MAX_FIELDS"),
        (records, "MAX_ELEMENT"),
        (dump, "MAX_PAGE_BYTES"),
    ):
        monkeypatch.setattr(module, name, limit)
    told(case, 1)  # Imports on first use do not count.
    tracemalloc.start()
    try:
        assert told(case, 40 * limit) == CASES[case][-1]
        assert tracemalloc.get_traced_memory()[1] < 10 * limit
    finally:
        tracemalloc.stop()


def _peak(case: str, size: int) -> tuple[list[str], int]:
    return told(case, size), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.torture
@pytest.mark.parametrize("case", CASES)
def test_two_gigabytes(case: str) -> None:
    """The same with the real limits, in another process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        results, peak = pool.apply(_peak, (case, 2 << 30))
    assert results == CASES[case][-1] and peak < 1 << 30


def test_parquet_dictionary_of_long_texts() -> None:
    """A Parquet file that stores one long text for 1,000 rows: few rows are in memory at a time.

    Its rows count against the file's budget of 256 MB.
    """
    out = io.BytesIO()
    rows = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1000, pa.int32()), pa.array(["x" * (1 << 20)])
    )
    pq.write_table(pa.table({"text": rows}), out)
    results = read_item(item_from_bytes(out.getvalue(), "x.parquet"), Source(path="x"))
    tracemalloc.start()
    try:
        assert (
            isinstance(next(results), Document) and tracemalloc.get_traced_memory()[1] < 100 << 20
        )
    finally:
        tracemalloc.stop()
    *documents, last = results
    assert len(documents) == 251 and all(isinstance(it, Document) for it in documents)
    assert isinstance(last, Reject) and (last.reason, last.record) == ("bomb", 252)
