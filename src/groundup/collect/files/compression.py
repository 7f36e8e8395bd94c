"""Streaming decompressors for bzip2, xz and zstd, in bounded memory, and gzip of whole bodies.

Each stream class has `read(size)`, which returns b"" at the end. Damage is raised only after the
bytes before it were returned.
"""

from __future__ import annotations

import bz2
import lzma
import os
import re
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import IO, Any

from groundup.collect.files.streams import HEAD, DamagedError, read_some

# Header of a bzip2 stream that is not empty: block size, then the magic of its first block.
_BZIP2_START = re.compile(rb"BZh[1-9]1AY&SY")
_BZIP2_START_BYTES = 10
_BZIP2_THREADS = min(4, os.cpu_count() or 1)
_BZIP2_CHUNK, _BZIP2_STEP = 1 << 20, 1 << 16
# A stream that is longer, packed or unpacked, is read in steps: together with the threads this
# bounds the memory. 100 Wikipedia pages are 1 to 5 MB.
_BZIP2_MAX_PACKED, _BZIP2_MAX_PLAIN = 8 << 20, 32 << 20
# A file states how much memory unpacking takes, up to 4 GB, and Python's own reader allows it;
# `xz -9` needs 65 MB.
_XZ_MAX_MEMORY = 256 << 20
# When liblzma raises, the output of the whole chunk is lost, so chunks are small.
_XZ_CHUNK = 1 << 13
# Likewise for pyarrow's zstd.
_ZSTD_STEP = 512
# A frame, or a skippable one (0x50 to 0x5F), which seekable files and web archives start with.
ZSTD_MAGIC = re.compile(rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)", re.DOTALL)
# Codec → what the members begin with that a file may consist of. A header of gzip names deflate,
# and flags, the upper three of which are zero.
MEMBER_STARTS = {
    "bzip2": _BZIP2_START,
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}


class Bzip2Stream:
    """The plain bytes of one or more bzip2 streams, several streams unpacked in parallel.

    Wikipedia dumps pack 100 pages per stream ("multistream"), pbzip2 one block per stream.
    Decompression releases the GIL, so each stream is unpacked ahead by a thread. From the first
    piece that is not exactly one stream, the rest of the file is unpacked in steps, which yields
    the same bytes as `bz2.BZ2File`, damage included. Memory: one stream per thread, plus one.
    """

    def __init__(self, source: IO[bytes]) -> None:
        # It does not know this object, so it ends as soon as nobody reads.
        self._plain = _Bzip2Unpacker(source).unpack()
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; raise EOFError inside a stream, OSError for damage."""
        if not self._rest:
            self._rest = memoryview(next(self._plain, b""))
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


class _Bzip2Unpacker:
    """Unpacks the streams of a bzip2 file, in order."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._damage: Exception | None = None

    def _pieces(self) -> Iterator[bytes]:
        """Yield packed bytes, cut where a stream seems to begin and where one is too long.

        An exception of the source is kept in `_damage`, to be raised after the bytes before it.
        """
        held = b""
        while True:
            try:
                more = read_some(self._source, _BZIP2_CHUNK)
            except Exception as error:
                self._damage, more = error, b""
            if not more:
                break
            search_from, held = max(1, len(held) - _BZIP2_START_BYTES), held + more
            piece_start = 0
            while (start := _BZIP2_START.search(held, search_from)) is not None:
                yield held[piece_start : start.start()]
                piece_start = start.start()
                search_from = piece_start + 1
            held = held[piece_start:]
            if len(held) > _BZIP2_MAX_PACKED:
                yield held
                held = b""
        if held:
            yield held

    def unpack(self) -> Iterator[bytes]:
        """Yield what the pieces unpack to, in order."""
        pieces = self._pieces()
        first, second = next(pieces, b""), next(pieces, b"")
        pieces = chain((first, second), pieces)
        if not second:
            yield from self._unpack_in_steps(pieces)
            return
        ahead: deque[tuple[bytes, Future[bytes]]] = deque()
        # Many files are opened for their first bytes only: nothing is unpacked ahead of those.
        streams = size = 0
        pool = ThreadPoolExecutor(_BZIP2_THREADS, thread_name_prefix="bzip2")
        try:
            while True:
                most = min(streams, _BZIP2_THREADS) if size > HEAD else 0
                while len(ahead) <= most and (piece := next(pieces, b"")):
                    ahead.append((piece, pool.submit(_unpack_whole, piece)))
                if not ahead:
                    break
                piece, future = ahead.popleft()
                plain = future.result()
                if not plain:
                    rest = chain((piece,), (piece for piece, _ in ahead), pieces)
                    yield from self._unpack_in_steps(rest)
                    return
                streams += 1
                size += len(plain)
                yield plain
        finally:
            # Without waiting: the garbage collector may end a stream that nobody reads to its end,
            # while a thread holds what another one needs to finish.
            pool.shutdown(wait=False, cancel_futures=True)
        if self._damage is not None:
            raise self._damage

    def _unpack_in_steps(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield what streams unpack to in small steps, so that damage costs few bytes before it."""
        stream = bz2.BZ2Decompressor()
        cuts = ((piece, start) for piece in pieces for start in range(0, len(piece), _BZIP2_STEP))
        for piece, start in cuts:
            # Short, because what follows the end of a stream is copied for each stream in it.
            packed = piece[start : start + _BZIP2_STEP]
            # Files on tape end in zeros.
            rest = packed.lstrip(b"\0") if stream.eof else packed
            while rest or not (stream.needs_input or stream.eof):
                if stream.eof:
                    stream = bz2.BZ2Decompressor()
                plain = stream.decompress(rest, _BZIP2_STEP)
                rest = stream.unused_data.lstrip(b"\0") if stream.eof else b""
                if plain:
                    yield plain
        if self._damage is not None:
            raise self._damage
        if not stream.eof:
            raise EOFError("it ends inside a bzip2 stream")


def first_bzip2_bytes(packed: bytes, count: int) -> bytes:
    """Return the first plain bytes of a stream, b"" if there are none; it unpacks one block."""
    with suppress(OSError):
        return bz2.BZ2Decompressor().decompress(packed, count)
    return b""


def _unpack_whole(piece: bytes) -> bytes:
    """Return what a piece unpacks to if it is exactly one stream and not too long, else b""."""
    stream, plain = bz2.BZ2Decompressor(), b""
    if len(piece) <= _BZIP2_MAX_PACKED:
        with suppress(OSError):
            plain = stream.decompress(piece, _BZIP2_MAX_PLAIN)
    return plain if stream.eof and not stream.unused_data else b""


class XzStream:
    """The plain bytes of one or more xz streams; zeros may stand between two of them."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._packed = source, b""
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MAX_MEMORY)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes.

        Raises EOFError inside a stream, LZMAError for damage, and DamagedError if it needs more
        memory than _XZ_MAX_MEMORY.
        """
        plain = b""
        while not plain:
            if self._stream.eof:
                rest = self._stream.unused_data.lstrip(b"\0")
                while not rest and (more := read_some(self._source, _XZ_CHUNK)):
                    rest = more.lstrip(b"\0")
                if not rest:
                    return b""
                self._packed = rest
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MAX_MEMORY)
            packed, self._packed = self._packed, b""
            if not packed and self._stream.needs_input:
                packed = read_some(self._source, _XZ_CHUNK)
                if not packed:
                    raise EOFError("it ends inside an xz stream")
            try:
                plain = self._stream.decompress(packed, size)
            except lzma.LZMAError as error:
                if "Memory usage limit" not in str(error):
                    raise
                detail = f"to unpack it takes more than {_XZ_MAX_MEMORY >> 20} MB of memory"
                raise DamagedError("too-large", detail) from None
        return plain


class ZstdStream:
    """The plain bytes of one or more zstd frames, by pyarrow's codec; memory is up to 128 MB."""

    def __init__(self, source: IO[bytes]) -> None:
        import pyarrow as pa

        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")
        self._damage: Exception | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes.

        Raises DamagedError inside a frame, and OSError if it is damaged, or needs a dictionary or a
        window of more than 128 MB.
        """
        if self._damage is not None:
            raise self._damage
        parts: list[bytes] = []
        try:
            while size > 0 and (part := self._stream.read(min(size, _ZSTD_STEP))):
                parts.append(part)
                size -= len(part)
        except (OSError, DamagedError) as error:
            self._damage = error
            if "Truncated" in str(error):
                self._damage = DamagedError("truncated", "it ends inside a zstd frame")
            if not parts:
                raise self._damage from None
        return b"".join(parts)


def gunzip(body: bytes, limit: int) -> bytes:
    """Return a body without the gzip that it may be packed in.

    Raises DamagedError if it is damaged, or unpacks to more than `limit` bytes.
    """
    if body.startswith(b"\x1f\x8b"):
        try:
            body = zlib.decompressobj(31).decompress(body, limit + 1)
        except zlib.error as error:
            raise DamagedError("damaged", str(error)) from None
    if len(body) > limit:
        raise DamagedError("too-large", f"it is longer than {limit:,} bytes")
    return body
