"""Unpacks zstd as a stream, by the codec that pyarrow brings. Reads compressed bytes; yields plain
ones.
"""

from __future__ import annotations

import re
from typing import IO, Any

from groundup.collect.files.streams import DamagedError

# A frame, and a skippable one (0x50 to 0x5F), with which seekable files and web archives open.
MAGIC = re.compile(rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)", re.DOTALL)
# What the codec is asked for at a time: with an exception it loses what it had of that, however
# much came before.
_STEP = 512


class ZstdStream:
    """The plain bytes of one or more zstd frames; memory is the window of a frame, at most 128 MB."""

    def __init__(self, source: IO[bytes]) -> None:
        import pyarrow as pa

        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")
        self._damage: Exception | None = None

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end; damage is raised when what came before it
        has been read.

        Raises:
            DamagedError: it ends inside a frame.
            OSError: it is damaged, wants a dictionary, or a window of more than 128 MB.
        """
        if self._damage is not None:
            raise self._damage
        parts: list[bytes] = []
        try:
            while size > 0 and (part := self._stream.read(min(size, _STEP))):
                parts.append(part)
                size -= len(part)
        except (OSError, DamagedError) as error:
            self._damage = (
                DamagedError("truncated", "it ends inside a zstd frame")
                if "Truncated" in str(error)
                else error
            )
            if not parts:
                raise self._damage from None
        return b"".join(parts)
