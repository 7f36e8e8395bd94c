"""Reads WARC files and the WET files made from them. Yields the main text of every HTML page; the
group is the host.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, cast

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import BUFFER, DamagedError, Item
from groundup.collect.readers.html import MAX_HTML_BYTES, decode_html, host, page_document
from groundup.errors import GroundupError
from groundup.recipe import Source

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


_START = re.compile(rb"\nWARC/[01]\.\d")
# What is kept to look for the next record in, far more than fastwarc reads ahead; and how often
# that is tried in a file.
_KEPT = 1 << 20
_MAX_BREAKS = 1000


class _Tape:
    """What fastwarc asks of a stream: bytes, and how far it is. It can go back to a record that was
    read past.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self.position = stream, 0
        self._ahead = b""
        self._kept: deque[bytes] = deque()
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if self._ahead:
            size = size if size >= 0 else len(self._ahead)
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            # read1, so that bytes before damage are not lost with the exception.
            data = self._stream.read1(size)
        self.position += len(data)
        self._kept.append(data)
        self._size += len(data)
        while self._size - len(self._kept[0]) > _KEPT:
            self._size -= len(self._kept.popleft())
        return data

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self.position

    def find(self, after: int) -> bool:
        """Go to the first line beyond the position `after` that starts a record; return whether
        there is one.
        """
        skipped = max(0, after - (self.position - self._size))
        held = (b"".join(self._kept) + self._ahead)[skipped:]
        start = self.position - self._size + skipped
        while (hit := _START.search(held)) is None:
            more = self._stream.read1(BUFFER)
            if not more:
                return False
            # A line break and a version may be cut in two.
            start, held = start + max(0, len(held) - 16), held[-16:] + more
        self.position, self._ahead = start + hit.start() + 1, held[hit.start() + 1 :]
        self._kept.clear()
        self._size = 0
        return True


def read_warc(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the pages of a WARC or WET file; every other record is rejected by number, with what it
    is.

    Where no record can be read, one is listed as damaged, and reading goes on at the next that
    starts.

    Raises:
        DamagedError: it breaks off; what could be read has been yielded.
    """
    tape = _Tape(item.stream)
    number = -1
    for _ in range(_MAX_BREAKS):
        start = end = tape.position
        try:
            for record in _records(tape):
                number += 1
                start = record.stream_pos
                end = start + _length(record)
                found = _record(record, number)
                if isinstance(found, Document) and end > tape.position:
                    raise DamagedError("truncated", f"it ends inside record {number}")
                yield found
            break
        except BaseException as error:
            if not _is_crash(error):
                raise
            if not tape.find(start):
                raise _broken(error, number) from None
            number += 1
            yield Reject(
                "damaged", number, f"it cannot be read, up to the next record: {error}"[:300]
            )
    else:
        raise DamagedError(
            "damaged", f"it broke {_MAX_BREAKS:,} times; what follows record {number} is not read"
        )
    if number < 0:
        raise DamagedError("damaged", "no WARC record can be found in it")
    if end > tape.position:
        raise DamagedError("truncated", f"it ends inside record {number}")


def _is_crash(error: BaseException) -> bool:
    """Return whether a parser stumbled; a panic inside a Rust extension is no Exception."""
    ours = (DamagedError, GroundupError, ImportError, MemoryError)
    return type(error).__name__ == "PanicException" or (
        isinstance(error, Exception) and not isinstance(error, ours)
    )


def _length(record: Any) -> int:
    """Return the bytes of a record, but for line ends and the version that opens it."""
    return int(record.content_length) + sum(
        len(name) + len(value) for name, value in record.headers.items()
    )


def _broken(error: BaseException, number: int) -> DamagedError:
    return DamagedError("damaged", f"it cannot be read after record {number}: {error}"[:300])


def _records(tape: _Tape) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator

    return iter(ArchiveIterator(cast("IO[bytes]", tape), parse_http=True, auto_decode="all"))


def read_record(body: bytes, target: str, number: int) -> Document | Reject:
    """Return what an HTTP answer holds that another format than WARC kept, as the one record of a
    WARC file.
    """
    address = " ".join(target.split())
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {address}\r\nContent-Type:"
        " application/http; msgtype=response\r\n"
    )
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"
    try:
        return next(
            (
                _record(record, number)
                for record in _records(_Tape(io.BufferedReader(io.BytesIO(whole))))
            ),
            Reject("empty", number),
        )
    except BaseException as error:
        if not _is_crash(error):
            raise
        return Reject("malformed", number, f"{type(error).__name__}: {error}"[:300])


def _record(record: Any, number: int) -> Document | Reject:
    kind = str(record.record_type).rpartition(".")[2]
    target = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    if kind == "conversion":
        text = record.reader.read(MAX_HTML_BYTES).decode("utf-8", "replace").strip()
        return (
            Document(text, number, host(target) or target)
            if text
            else Reject("empty", number, target)
        )
    if kind == "unknown":
        return Reject(
            "damaged",
            number,
            "a record whose header does not say what it is: lines that end without a carriage"
            " return, for example",
        )
    if kind != "response" or not record.is_http or record.http_headers is None:
        return Reject("not-http" if kind == "response" else f"warc-{kind}", number, target)
    return _response(record, number, target)


def _response(record: Any, number: int, target: str) -> Document | Reject:
    status, form = record.http_headers.status_code, record.http_content_type or ""
    if status != 200:
        return Reject("http-status", number, f"{status} {target}")
    if form.lower() not in _HTML_TYPES:
        return Reject("not-html", number, f"{form or 'no type'} {target}")
    data = record.reader.read(MAX_HTML_BYTES + 1)
    if len(data) > MAX_HTML_BYTES:
        return Reject("too-large", number, f"longer than {MAX_HTML_BYTES >> 20} MB: {target}")
    if not data.strip():
        return Reject("empty", number, target)
    charset = _CHARSET.search(record.http_headers.get("Content-Type") or "")
    try:
        page = decode_html(data, charset[1] if charset else "")
    except DamagedError as damage:
        return Reject(damage.reason, number, f"{damage.detail}: {target}")
    return page_document(page, number, host(target) or target)
