"""Unpacks zstd as a stream, by the codec that pyarrow brings. Reads compressed bytes; yields plain ones."""

from __future__ import annotations

import re
from typing import IO, Any

from groundup.collect.streams import DamagedError

# A frame, and a skippable one (0x50 to 0x5F), with which seekable files and web archives open.
MAGIC = re.compile(rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)", re.DOTALL)
# A block unpacks to 128 KB, of which this is a part: when one is damaged, all blocks before it have been handed out.
STEP = 1 << 14


class ZstdStream:
    """The plain bytes of one or more zstd frames; memory is the window of a frame, at most 128 MB."""

    def __init__(self, source: IO[bytes]) -> None:
        import pyarrow as pa

        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")

    def read(self, size: int) -> bytes:
        """Return some bytes, at most `size`; none at the end.

        Raises:
            DamagedError: it ends inside a frame.
            OSError: it is damaged, wants a dictionary, or a window of more than 128 MB.
        """
        try:
            data: bytes = self._stream.read(min(size, STEP))
        except OSError as error:
            if "Truncated" not in str(error):
                raise
            raise DamagedError("truncated", "it ends inside a zstd frame") from None
        return data
