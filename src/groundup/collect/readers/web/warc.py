"""Web archives: WARC, the WET files made from them, and ARC, the format before WARC (1996).

Every HTML page gives one document, its main text; the group is the host. Every other record is
rejected by number, with what it is.

An ARC record is a line (URL, IP address, date, type, ..., length), as many bytes as the length
says, and a line break:

    http://a.org/ 10.0.0.1 20000101000000 text/html 4321
    HTTP/1.1 200 OK ...
"""

from __future__ import annotations

import io
import re
import zlib
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, cast

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import BUFFER, DamagedError, Item
from groundup.collect.readers.web.html import MAX_HTML_BYTES, decode_html, host, page_document
from groundup.errors import GroundupError
from groundup.recipe import Source

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_ENCODINGS = {"chunked": "Chunked", "gzip": "Gzip", "br": "Brotli", "zstd": "Zstd"}
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
# The first tag of a page, after a byte order mark.
_PAGE_START = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*<")
_MAX_RESPONSE = MAX_HTML_BYTES + (1 << 20)  # a page and its HTTP headers, or marks of chunks
_RECORD_START = re.compile(rb"\nWARC/[01]\.\d")
# Bytes kept to search the next record in, far more than fastwarc reads ahead; and how often a file
# may break.
_HISTORY_BYTES = 1 << 20
_MAX_BREAKS = 1000

# A longer header of a record is not looked at.
_MAX_HEADER, _HEADER_STEP = 1 << 16, 1 << 11
_CONTENT_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)

_ARC_DATE = re.compile(rb"\d{8,18}")
_ARC_URL = re.compile(rb"[a-z][\w+.-]*:", re.IGNORECASE)
_ARC_MAX_LINE = 1 << 16


class _WarcStream:
    """The stream that fastwarc reads from; it can go back to a record that fastwarc read past."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self.position = stream, 0
        self._ahead = b""
        self._history: deque[bytes] = deque()
        self._history_size = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if self._ahead:
            size = size if size >= 0 else len(self._ahead)
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            # read1: bytes before damage are not lost with the exception.
            data = self._stream.read1(size)
        self.position += len(data)
        self._history.append(data)
        self._history_size += len(data)
        while self._history_size - len(self._history[0]) > _HISTORY_BYTES:
            self._history_size -= len(self._history.popleft())
        return data

    def tell(self) -> int:
        """Return the number of bytes that were read."""
        return self.position

    def seek_record(self, after: int) -> bool:
        """Go to the first line beyond position `after` that starts a record; False without one."""
        history_start = self.position - self._history_size
        skipped = max(0, after - history_start)
        start = history_start + skipped
        held = (b"".join(self._history) + self._ahead)[skipped:]
        while (match := _RECORD_START.search(held)) is None:
            more = self._stream.read1(BUFFER)
            if not more:
                return False
            # A line break and a version may be cut in two.
            start, held = start + max(0, len(held) - 16), held[-16:] + more
        self.position, self._ahead = start + match.start() + 1, held[match.start() + 1 :]
        self._history.clear()
        self._history_size = 0
        return True


def read_warc(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the pages of a WARC or WET file, and a rejection for every other record.

    A record that cannot be read is listed as damaged, and reading continues at the next one. Raises
    DamagedError if the file breaks off.
    """
    stream = _WarcStream(item.stream)
    index = item.first - 1
    for _ in range(_MAX_BREAKS):
        start = end = stream.position
        try:
            for record in _warc_records(stream):
                index += 1
                start = record.stream_pos
                # A lower bound: without line ends and the version line.
                header_size = sum(len(name) + len(value) for name, value in record.headers.items())
                end = start + int(record.content_length) + header_size
                result = _checked_document(record, index)
                if isinstance(result, Document) and end > stream.position:
                    raise DamagedError("truncated", f"it ends inside record {index}")
                yield result
            break
        except BaseException as error:
            if not _is_parser_crash(error):
                raise
            if not stream.seek_record(start):
                detail = f"it cannot be read after record {index}: {error}"[:300]
                raise DamagedError("damaged", detail) from None
            index += 1
            detail = f"it cannot be read, up to the next record: {error}"[:300]
            yield Reject("damaged", index, detail)
    else:
        detail = f"it broke {_MAX_BREAKS:,} times; what follows record {index} is not read"
        raise DamagedError("damaged", detail)
    if index < 0:
        raise DamagedError("damaged", "no WARC record can be found in it")
    if end > stream.position:
        raise DamagedError("truncated", f"it ends inside record {index}")


def _warc_records(stream: _WarcStream) -> Iterator[Any]:
    from fastwarc.warc import ArchiveIterator

    return iter(ArchiveIterator(cast("IO[bytes]", stream), parse_http=True, auto_decode="none"))


def _is_parser_crash(error: BaseException) -> bool:
    """Return whether a parser failed. A panic in Rust is a BaseException, not an Exception."""
    ours = (DamagedError, GroundupError, ImportError, MemoryError)
    return type(error).__name__ == "PanicException" or (
        isinstance(error, Exception) and not isinstance(error, ours)
    )


def count_warc_records(stream: io.BufferedReader) -> int | None:
    """Return how many records a stream holds; None unless all of it is records without a fault."""
    framing, count = _Framing(stream), 0
    try:
        for _ in _warc_records(_WarcStream(cast("io.BufferedReader", framing))):
            count += 1
    except BaseException as error:
        if not _is_parser_crash(error):
            raise
        return None
    return count if framing.is_whole and framing.records == count else None


class _Framing:
    """A stream that checks, as it is read, that each record is as long as it says.

    fastwarc accepts a record that ends a few bytes too early or too late, and fails at the next.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.records = 0
        self._header = b""  # of the next record, as far as it was read
        self._left = 0  # bytes of the last record that were not yet read
        self._is_sound = True

    @property
    def is_whole(self) -> bool:
        """Whether what was read are whole records."""
        return self._is_sound and not self._header and not self._left

    def read1(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        data = self._stream.read1(size)
        place = 0
        while self._is_sound and place < len(data):
            if self._left:
                passed = min(self._left, len(data) - place)
                self._left -= passed
                place += passed
                continue
            known, part = len(self._header), data[place : place + _HEADER_STEP]
            self._header += part
            end = self._header.find(b"\r\n\r\n")
            if end < 0:
                place += len(part)
                self._is_sound = len(self._header) <= _MAX_HEADER
                continue
            lengths = _CONTENT_LENGTH.findall(self._header, 0, end + 2)
            self._is_sound = self._header.startswith(b"WARC/") and len(lengths) == 1
            # Two line breaks follow a record.
            self._left = int(lengths[0]) + 4 if self._is_sound else 0
            place += end + 4 - known
            self._header = b""
            self.records += 1
        return data


def _checked_document(record: Any, index: int) -> Document | Reject:
    """Return what a record holds; one that a parser crashes at is listed."""
    try:
        return _record_document(record, index)
    except BaseException as error:
        if not _is_parser_crash(error):
            raise
        return Reject("damaged", index, f"it cannot be read: {error}"[:300])


def _record_document(record: Any, index: int) -> Document | Reject:  # noqa: PLR0911 - one a case
    """Return the text of a conversion record (WET), or the page of an HTTP response."""
    record_type = str(record.record_type).rpartition(".")[2]
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    if record_type == "conversion":
        text = record.reader.read(MAX_HTML_BYTES).decode("utf-8", "replace").strip()
        return Document(text, index, host(url) or url) if text else Reject("empty", index, url)
    if record_type == "unknown":
        detail = "a record whose header does not say what it is: lines that end without a carriage"
        return Reject("damaged", index, f"{detail} return, for example")
    if record_type != "response":
        return Reject(f"warc-{record_type}", index, url)
    if not record.is_http or record.http_headers is None:
        return Reject("not-http", index, url)
    status, content_type = record.http_headers.status_code, record.http_content_type or ""
    if status != 200:
        return Reject("http-status", index, f"{status} {url}")
    if content_type.lower() not in _HTML_TYPES:
        return Reject("not-html", index, f"{content_type or 'no type'} {url}")
    charset = _CHARSET.search(record.http_headers.get("Content-Type") or "")
    try:
        data = _response_body(record)
        if len(data) > MAX_HTML_BYTES:
            return Reject("too-large", index, f"longer than {MAX_HTML_BYTES >> 20} MB: {url}")
        if not data.strip():
            return Reject("empty", index, url)
        page = decode_html(data, charset[1] if charset else "")
    except DamagedError as damage:
        return Reject(damage.reason, index, f"{damage.detail}: {url}"[:300])
    return page_document(page, index, host(url) or url)


def _response_body(record: Any) -> bytes:
    """Return the body of an HTTP response, without the encodings that its headers name.

    Some crawlers decode a body and store it under the headers that it came with. So where an
    encoding does not fit, the body stays as it is, if it starts like a page; else DamagedError.
    """
    from fastwarc import stream_io

    headers = record.http_headers
    # In the order in which the server applied them.
    encodings = f"{headers.get('Content-Encoding') or ''},{headers.get('Transfer-Encoding') or ''}"
    data = record.reader.read(_MAX_RESPONSE)
    failure = ""
    for encoding in reversed(encodings.lower().split(",")):
        name = encoding.strip().removeprefix("x-")
        try:
            if name == "deflate":
                # By the standard with a zlib header; some servers leave it out.
                header = data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0
                stream = zlib.decompressobj(15 if header else -15)
                data = stream.decompress(data, MAX_HTML_BYTES + 1)
            elif name in _ENCODINGS:
                reader: Any = getattr(stream_io, f"{_ENCODINGS[name]}Reader")
                data = bytes(reader(io.BytesIO(data)).read(MAX_HTML_BYTES + 1))
            elif name not in ("", "identity"):
                raise OSError("unknown to this reader")
        except (OSError, zlib.error) as error:
            failure = failure or f"its body is not encoded as {encoding.strip()}: {error}"
    if failure and not _PAGE_START.match(data):
        raise DamagedError("damaged", failure[:200])
    return data


def read_arc(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the pages of an ARC file, and a rejection for every other record.

    Lines where a record should start are skipped up to the next record, and listed once.
    """
    index, skipped = 0, 0
    while line := item.stream.readline(_ARC_MAX_LINE):
        fields, date, url = line.split(), 0, ""
        if _ARC_URL.match(line) and len(fields) >= 5 and fields[-1].isdigit():
            # The date is the third field of five, or of ten in version 2. It is counted from the
            # end, since URLs were written with spaces in them.
            places = [len(fields) - back for back in (3, 8) if len(fields) > back]
            date = next((place for place in places if _ARC_DATE.fullmatch(fields[place])), 0)
            url = b" ".join(fields[: max(date - 1, 0)]).decode("utf-8", "replace")
        if not url:
            skipped += bool(line.strip())
            continue
        if skipped:
            yield Reject("damaged", index, f"{skipped:,} lines that belong to no record")
            index, skipped = index + 1, 0
        content_type, length = fields[date + 1].decode("utf-8", "replace"), int(fields[-1][:18])
        yield _arc_document(item.stream, url, content_type, length, index)
        index += 1
    if skipped:
        yield Reject("damaged", index, f"{skipped:,} lines that belong to no record")


def _arc_document(
    stream: io.BufferedReader, url: str, content_type: str, length: int, index: int
) -> Document | Reject:
    """Return the page of one record; a record too long for a page is skipped."""
    body = stream.read(min(length, _MAX_RESPONSE))
    left = length - len(body)
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        left -= len(chunk)
    if left > 0:
        return Reject("truncated", index, f"it ends {left:,} bytes before its record does: {url}")
    if length > _MAX_RESPONSE:
        return Reject("too-large", index, f"longer than {_MAX_RESPONSE >> 20} MB: {url}")
    if not body.startswith(b"HTTP/"):
        return Reject("not-http", index, f"{content_type} {url}")
    # The body is an HTTP response, as in WARC: wrapped as a WARC record, fastwarc parses it.
    warc_header = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {' '.join(url.split())}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    data = io.BytesIO(warc_header.encode() + body + b"\r\n\r\n")
    try:
        for record in _warc_records(_WarcStream(io.BufferedReader(data))):
            return _record_document(record, index)
    except BaseException as error:
        if not _is_parser_crash(error):
            raise
        return Reject("malformed", index, f"{type(error).__name__}: {error}"[:300])
    return Reject("empty", index)
