"""Unpacks xz as a stream, in bounded memory. Reads compressed bytes; yields plain ones."""

from __future__ import annotations

import lzma
from typing import IO

from groundup.collect.files.streams import DamagedError

# A file says how much memory its unpacking takes, up to 4 GB, and Python's own reader believes it;
# `xz -9` writes 65 MB.
MAX_MEMORY = 256 << 20
# With an exception the codec loses what it had made of that.
_CHUNK = 1 << 13


class XzStream:
    """The plain bytes of one or more xz streams; zeros may stand between two of them."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._packed = source, b""
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end.

        Raises:
            EOFError: it ends inside a stream.
            LZMAError: it is damaged.
            DamagedError: it wants more memory than it may have.
        """
        plain = b""
        while not plain and (not self._stream.eof or self._another()):
            packed, self._packed = (
                self._packed or (self._more() if self._stream.needs_input else b""),
                b"",
            )
            if self._stream.needs_input and not packed:
                raise EOFError("it ends inside an xz stream")
            plain = self._unpacked(packed, size)
        return plain

    def _unpacked(self, packed: bytes, size: int) -> bytes:
        try:
            return self._stream.decompress(packed, size)
        except lzma.LZMAError as error:
            if "Memory usage limit" in str(error):
                raise DamagedError(
                    "too-large", f"to unpack it takes more than {MAX_MEMORY >> 20} MB of memory"
                ) from None
            raise

    def _more(self) -> bytes:
        more: bytes = getattr(self._source, "read1", self._source.read)(_CHUNK)
        return more

    def _another(self) -> bool:
        """Begin the next stream; return whether there is one."""
        rest = self._stream.unused_data.lstrip(b"\0")
        while not rest and (more := self._more()):
            rest = more.lstrip(b"\0")
        self._packed = rest
        if rest:
            self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY)
        return bool(rest)
