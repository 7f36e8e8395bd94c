"""Byte streams that cannot hurt: damage becomes one exception with a reason, and decompressed bytes
are counted.

Reads raw bytes; writes nothing.
"""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from groundup.artifacts.document import MAX_DOCUMENT_BYTES

# A raw file may unpack to 200 times its size: XML dumps reach 20, logs 60; bombs start at 1,000.
MAX_RATIO = 200
# Below this much nothing is called a bomb.
RATIO_FLOOR = 256 << 20
# One raw file unpacks to this much at most; the largest Wikipedia dump is about 100 GB.
MAX_UNPACKED = 1 << 40
BUFFER = 1 << 16
# What of a file in an archive is kept in memory, and on disk, where its reader has to seek.
SPOOL_BYTES = 16 << 20
MAX_SPOOLED = 1 << 34

_TRUNCATED = (EOFError, tarfile.ReadError)
_DAMAGED = (
    OSError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


# What zipfile raises over a damaged table of contents or header: more than it says, down to
# negative places in the file.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)


class DamagedError(Exception):
    """A stream that cannot be read on: `reason` is a short code, `detail` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass
class Budget:
    """Bytes that one raw file may still unpack to, shared by everything inside it."""

    left: int

    @classmethod
    def of(cls, size: int) -> Budget:
        """Return the budget of a raw file of `size` bytes."""
        return cls(min(MAX_UNPACKED, max(RATIO_FLOOR, MAX_RATIO * size)))

    def take(self, count: int) -> None:
        """Count bytes; raise DamagedError when there are too many of them."""
        self.left -= count
        if self.left < 0:
            raise DamagedError(
                "bomb",
                f"it unpacks to more than {MAX_RATIO} times its size, or to more than"
                f" {MAX_UNPACKED >> 30} GB",
            )


class BoundedStream(io.RawIOBase):
    """A stream over `source` that can be looked into, counts against a budget and raises nothing
    but DamagedError.

    Damage is raised when all bytes before it have been handed out, so that what can be read is
    read.
    """

    def __init__(self, source: IO[bytes], budget: Budget | None = None) -> None:
        super().__init__()
        self._source, self._budget = source, budget
        self._front = b""
        self._damage: DamagedError | None = None

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end, without consuming them."""
        while len(self._front) < count and self._damage is None:
            try:
                more = self._pull(BUFFER)
            except DamagedError as damage:
                self._damage = damage
                break
            if not more:
                break
            self._front += more
        return self._front[:count]

    def readinto(self, target: Any) -> int:
        """Fill `target` as far as bytes are there."""
        view = memoryview(target).cast("B")
        if self._front:
            data, self._front = self._front[: len(view)], self._front[len(view) :]
        elif self._damage is not None:
            raise self._damage
        else:
            data = self._pull(len(view))
        view[: len(data)] = data
        return len(data)

    def _pull(self, count: int) -> bytes:
        try:
            # read1 hands out what is there before damage; read would lose it together with the
            # exception.
            data: bytes = getattr(self._source, "read1", self._source.read)(count)
        except DamagedError:
            raise
        except _TRUNCATED as error:
            raise DamagedError("truncated", str(error) or "the file ends too early") from None
        except _DAMAGED as error:
            raise DamagedError("damaged", str(error) or type(error).__name__) from None
        if self._budget is not None:
            self._budget.take(len(data))
        return data


@dataclass(frozen=True, slots=True)
class Item:
    """One raw thing for a reader: a file, or a member of an archive.

    Attributes:
        origin: its path inside the source, `archive!/member` inside archives.
        name: its file name without a compression suffix.
        stream: its bytes, decompressed.
        head: the first bytes, not consumed.
        path: the file itself where it is neither compressed nor inside an archive.
    """

    origin: str
    name: str
    stream: io.BufferedReader
    head: bytes
    path: Path | None = None
    project: str = ""
    license: str = ""


HEAD = 1 << 16


def make_item(origin: str, name: str, guarded: BoundedStream, path: Path | None = None) -> Item:
    """Return an item over a guarded stream."""
    head = guarded.peek(HEAD)
    return Item(origin, name, io.BufferedReader(guarded, BUFFER), head, path)


def item_from_bytes(data: bytes, origin: str) -> Item:
    """Return an item over bytes in memory."""
    return make_item(origin, origin.rpartition("/")[2], BoundedStream(io.BytesIO(data)))


def read_all(stream: IO[bytes], limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return everything that is left of a stream.

    Raises:
        DamagedError: it is damaged, or longer than `limit` bytes.
    """
    parts, size = [], 0
    while part := stream.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise DamagedError("too-large", f"it is longer than {limit >> 20} MB")
    return b"".join(parts)


def spool(stream: io.BufferedIOBase | io.RawIOBase) -> IO[bytes]:
    """Return what is left of a stream as a file that can seek, in memory or, where it is long,
    without a name on disk.

    Raises:
        DamagedError: it is damaged, or too long to be kept.
    """
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - lives as long as its reader
    size = 0
    while data := stream.read(1 << 20):
        size += len(data)
        if size > MAX_SPOOLED:
            raise DamagedError(
                "too-large",
                "a file in an archive that has to be unpacked is longer than"
                f" {MAX_SPOOLED >> 30} GB",
            )
        spool.write(data)
    spool.seek(0)
    return cast("IO[bytes]", spool)
