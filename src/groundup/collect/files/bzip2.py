"""Unpacks bzip2; files of many streams by several threads. Reads compressed bytes; yields plain
ones, in order.

Dumps of Wikipedia hold 100 pages a stream ("multistream"), and pbzip2 writes a stream a block.
Streams are unpacked ahead, each by a thread, as decompression leaves the interpreter free; what is
no clean stream goes the way of `bz2.BZ2File` to the end of the file, so that the bytes are the
same, damage included.
"""

from __future__ import annotations

import bz2
import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import IO

# How a stream begins that is not empty: its size of blocks, and the mark of its first block.
_START = re.compile(rb"BZh[1-9]1AY&SY")
_MARK = 10
_THREADS = min(4, os.cpu_count() or 1)
_CHUNK, _STEP = 1 << 20, 1 << 16
# A stream that is longer, packed or unpacked, is read in steps: this and the threads bound the
# memory. 100 pages are 1 to 5 MB.
_MAX_PACKED, _MAX_PLAIN = 8 << 20, 32 << 20


class Bzip2Stream:
    """The plain bytes of one or more bzip2 streams; memory is one stream for each thread, and one
    more.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._parts = _unpacked(_Pieces(source))
        self._front = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end; damage is raised when what came before it
        has been read.

        Raises:
            EOFError: it ends inside a stream.
            OSError: it is damaged.
        """
        if not self._front:
            self._front = memoryview(next(self._parts, b""))
        part, self._front = self._front[:size], self._front[size:]
        return bytes(part)


class _Pieces:
    """Packed bytes, cut where a stream seems to begin and where one is too long; what its source
    raised waits for its turn.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._damage: Exception | None = None

    def _more(self) -> bytes:
        try:
            more: bytes = getattr(self._source, "read1", self._source.read)(_CHUNK)
        except Exception as error:
            self._damage = error
            return b""
        return more

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        while more := self._more():
            searched, held = max(1, len(held) - _MARK), held + more
            while (start := _START.search(held, searched)) is not None:
                yield held[: start.start()]
                searched, held = 1, held[start.start() :]
            if len(held) > _MAX_PACKED:
                yield held
                held = b""
        if held:
            yield held

    def check(self) -> None:
        """Raise what the source raised, when all before it has been used."""
        if self._damage is not None:
            raise self._damage


def _unpacked(pieces: _Pieces) -> Iterator[bytes]:
    """Yield what pieces unpack to, some of them ahead; from the first one that is no stream by
    itself, in steps.
    """
    cut = iter(pieces)
    first, second = next(cut, b""), next(cut, b"")
    cut = chain((first, second), cut)
    if not second:
        yield from _in_steps(cut, pieces)
        return
    ahead: deque[tuple[bytes, Future[bytes]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="bzip2") as pool:
        while True:
            while len(ahead) <= _THREADS and (piece := next(cut, b"")):
                ahead.append((piece, pool.submit(_whole, piece)))
            if not ahead:
                break
            piece, future = ahead.popleft()
            plain = future.result()
            if not plain:
                yield from _in_steps(chain((piece,), (piece for piece, _ in ahead), cut), pieces)
                return
            yield plain
    pieces.check()


def _whole(piece: bytes) -> bytes:
    """Return what a piece unpacks to when it is one stream, whole and not too long; else nothing."""
    stream = bz2.BZ2Decompressor()
    try:
        plain = b"" if len(piece) > _MAX_PACKED else stream.decompress(piece, _MAX_PLAIN)
    except OSError:
        return b""
    return plain if stream.eof and not stream.unused_data else b""


def _in_steps(cut: Iterator[bytes], pieces: _Pieces) -> Iterator[bytes]:
    """Yield what streams unpack to, a little at a time, so that little of what comes before damage
    is lost with it.
    """
    stream = bz2.BZ2Decompressor()
    for packed in cut:
        # Files on tape end in zeros.
        rest = packed.lstrip(b"\0") if stream.eof else packed
        while rest or not (stream.needs_input or stream.eof):
            if stream.eof:
                stream = bz2.BZ2Decompressor()
            plain = stream.decompress(rest, _STEP)
            rest = stream.unused_data.lstrip(b"\0") if stream.eof else b""
            if plain:
                yield plain
    pieces.check()
    if not stream.eof:
        raise EOFError("it ends inside a bzip2 stream")
