"""Reads ARC files, the web archives from before WARC (Internet Archive, 1996). Yields what `warc`
makes of each record.

A record is a line (address, IP, date, type, …, length), as many bytes as it says, and a line break.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import Item
from groundup.collect.readers.html import MAX_HTML_BYTES
from groundup.collect.readers.warc import read_record
from groundup.recipe import Source

_DATE = re.compile(rb"\d{8,18}")
_URL = re.compile(rb"[a-z][\w+.-]*:", re.IGNORECASE)
_MAX_LINE = 1 << 16
# Headers of an answer come on top of its page.
_MAX_RECORD = MAX_HTML_BYTES + (1 << 20)


@dataclass(frozen=True, slots=True)
class _Header:
    url: str
    type: str
    length: int


def read_arc(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the pages of an ARC file; every other record is rejected by number, with what it is.

    Lines where a record should start are skipped to the next one that does, and listed once.
    """
    number, lost = 0, 0
    while line := item.stream.readline(_MAX_LINE):
        header = _header(line)
        if header is None:
            lost += bool(line.strip())
            continue
        if lost:
            yield Reject("damaged", number, f"{lost:,} lines that belong to no record")
            number, lost = number + 1, 0
        yield _found(item.stream, header, number)
        number += 1
    if lost:
        yield Reject("damaged", number, f"{lost:,} lines that belong to no record")


def _header(line: bytes) -> _Header | None:
    """Return what the first line of a record says, or None for any other line."""
    fields = line.split()
    if not _URL.match(line) or len(fields) < 5 or not fields[-1].isdigit():
        return None
    # The date is the third field of five, or of ten in version 2; addresses were written with
    # spaces in them.
    date = next(
        (
            len(fields) - back
            for back in (3, 8)
            if len(fields) > back and _DATE.fullmatch(fields[-back])
        ),
        0,
    )
    url = b" ".join(fields[: max(date - 1, 0)])
    return (
        _Header(
            url.decode("utf-8", "replace"),
            fields[date + 1].decode("utf-8", "replace"),
            int(fields[-1][:18]),
        )
        if url
        else None
    )


def _found(stream: io.BufferedReader, header: _Header, number: int) -> Document | Reject:
    """Return what one record holds; what is too long for a page is read past."""
    target, length = header.url, header.length
    body = stream.read(min(length, _MAX_RECORD))
    left = length - len(body)
    while left > 0 and (part := stream.read(min(left, 1 << 20))):
        left -= len(part)
    if left > 0:
        return Reject(
            "truncated", number, f"it ends {left:,} bytes before its record does: {target}"
        )
    if length > _MAX_RECORD:
        return Reject("too-large", number, f"longer than {_MAX_RECORD >> 20} MB: {target}")
    if not body.startswith(b"HTTP/"):
        return Reject("not-http", number, f"{header.type} {target}")
    return read_record(body, target, number)
