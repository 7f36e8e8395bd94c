"""Unpacking ahead: a thread reads a compressed file while the parser works on what it has read.

    file → decompressor ──(thread)──▶ queue of 2 MB ──▶ BoundedStream → reader

Decompressors let go of the GIL. A file that is one stream of gzip, xz or bzip2 cannot be cut into
pieces, so this is all that a second core can do for it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from groundup.collect.files.streams import BUFFER, BoundedStream, Item, read_some

# Chunks of at most BUFFER bytes that wait for the reader.
_CHUNKS = 32


@contextmanager
def unpacked_ahead(item: Item) -> Iterator[None]:
    """Read the rest of an item, if it is compressed, in a thread, which ends with the block.

    What the reader gets is what it would get without it: bytes up to any damage, then the damage.
    """
    bounded = getattr(item.stream, "raw", None)
    if not isinstance(bounded, BoundedStream) or bounded.budget is None:
        # Nothing is unpacked.
        yield
        return
    source = bounded.source
    bounded.source = ahead = _AheadStream(source)
    try:
        yield
    finally:
        ahead.close()
        bounded.source = source


class _AheadStream:
    """The bytes of a source, read by a thread."""

    def __init__(self, source: Any) -> None:
        self._source = source
        # Bytes, b"" at the end, or what the source raised.
        self._chunks = queue.Queue[bytes | BaseException](_CHUNKS)
        self._rest = memoryview(b"")
        self._end: bytes | BaseException | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="unpack", daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end; raise what the source raised there."""
        if not self._rest and self._end is None:
            chunk = self._chunks.get()
            if chunk and isinstance(chunk, bytes):
                self._rest = memoryview(chunk)
            else:
                self._end = chunk
        if isinstance(self._end, BaseException):
            raise self._end
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)

    def close(self) -> None:
        """Stop the thread, and wait for it: others may read the file then."""
        self._is_closed = True
        while self._thread.is_alive():
            # It may wait for room.
            while not self._chunks.empty():
                self._chunks.get_nowait()
            self._thread.join(0.01)

    def _work(self) -> None:
        chunk: bytes | BaseException = b"-"
        while chunk and isinstance(chunk, bytes) and not self._is_closed:
            try:
                # Of the size that readers ask for: what a damaged gzip file gives depends on it.
                chunk = read_some(self._source, BUFFER)
            except BaseException as error:
                chunk = error
            self._chunks.put(chunk)
