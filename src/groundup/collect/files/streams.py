"""Bounds for untrusted input: unpacked bytes, time per record, and one exception for any damage."""

from __future__ import annotations

import io
import lzma
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

import psutil

from groundup.artifacts.document import MAX_DOCUMENT_BYTES

# XML dumps unpack to 20 times their size and logs to 60; decompression bombs start at 1,000.
MAX_RATIO = 200
# A file that unpacks to less than this is never a bomb.
RATIO_FLOOR = 256 << 20
# The largest Wikipedia dump unpacks to about 100 GB.
MAX_UNPACKED = 1 << 40
BUFFER = 1 << 16
# First bytes of a file that a format is detected from.
HEAD = 1 << 16
# An archive member whose reader must seek is kept in memory up to the first size, on disk up to
# the second.
SPOOL_BYTES = 16 << 20
MAX_SPOOLED = 1 << 34
# Bytes or characters of one record of a file.
MAX_RECORD = 64 << 20
# A hundred times the slowest real page. Sizes are bounded first, so this limit, which depends on
# the speed of the machine, does not decide results in practice.
RECORD_SECONDS = 60.0

_TRUNCATED = (EOFError, tarfile.ReadError)
_COMMON_ERRORS = (OSError, RuntimeError, ValueError, zlib.error, zipfile.BadZipFile)
_DAMAGED = (*_COMMON_ERRORS, lzma.LZMAError, tarfile.TarError)
# zipfile raises more than it documents on a damaged directory or header, such as negative offsets.
ZIP_ERRORS = (*_COMMON_ERRORS, OverflowError, EOFError, struct.error)


class DamagedError(Exception):
    """A stream that cannot be read further: `reason` is a short code, `detail` is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class TooLongError(Exception):
    """A record that took longer than its time limit."""


@contextmanager
def deadline(seconds: float = RECORD_SECONDS) -> Iterator[None]:
    """Raise TooLongError when the block takes longer than `seconds`, or there are none left.

    Only in the main thread, where Python delivers signals; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise TooLongError(f"it took longer than {RECORD_SECONDS:.0f} s")

    if seconds <= 0:
        expire(signal.SIGALRM, None)
    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def memory_limit(growth: int) -> Iterator[None]:
    """Let the block allocate at most `growth` bytes more than the process has; Linux only.

    For libraries that allocate what a file tells them to. Raises DamagedError if the block needs
    more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + growth
    if soft != resource.RLIM_INFINITY:
        limit = min(soft, limit)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError:
        detail = f"it takes more than {growth >> 20:,} MB of memory at a time"
        raise DamagedError("too-large", detail) from None
    finally:
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass
class Budget:
    """Bytes that one raw file may still unpack to, shared by everything inside it."""

    left: int

    @classmethod
    def of(cls, size: int) -> Budget:
        """Return the budget of a raw file of `size` bytes."""
        return cls(min(MAX_UNPACKED, max(RATIO_FLOOR, MAX_RATIO * size)))

    def take(self, count: int) -> None:
        """Subtract bytes; raise DamagedError when none are left."""
        self.left -= count
        if self.left < 0:
            bounds = f"{MAX_RATIO} times its size, or to more than {MAX_UNPACKED >> 30} GB"
            raise DamagedError("bomb", f"it unpacks to more than {bounds}")


class BoundedStream(io.RawIOBase):
    """A stream with lookahead that charges a budget and raises only DamagedError.

    Damage is raised after all bytes before it were returned, so that nothing readable is lost.
    """

    source: Any  # what has `read`, and `read1` if `read` waits for all bytes

    def __init__(self, source: IO[bytes] | io.RawIOBase, budget: Budget | None = None) -> None:
        super().__init__()
        self.source, self.budget = source, budget
        self._peeked = b""
        self._damage: DamagedError | None = None

    def readable(self) -> bool:
        """Tell io.BufferedReader that this stream can be read."""
        return True

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end, without consuming them."""
        try:
            while len(self._peeked) < count and self._damage is None:
                if not (chunk := self._pull(BUFFER)):
                    break
                self._peeked += chunk
        except DamagedError as damage:
            self._damage = damage
        return self._peeked[:count]

    def readinto(self, target: Any) -> int:
        """Fill `target` with the bytes that are available."""
        view = memoryview(target).cast("B")
        if self._peeked:
            data, self._peeked = self._peeked[: len(view)], self._peeked[len(view) :]
        elif self._damage is not None:
            raise self._damage
        else:
            data = self._pull(len(view))
        view[: len(data)] = data
        return len(data)

    def _pull(self, count: int) -> bytes:
        try:
            data = read_some(self.source, count)
        except _TRUNCATED as error:
            raise DamagedError("truncated", str(error) or "the file ends too early") from None
        except _DAMAGED as error:
            raise DamagedError("damaged", str(error) or type(error).__name__) from None
        if self.budget is not None:
            self.budget.take(len(data))
        return data


class FileRange(io.RawIOBase):
    """The bytes `start` to `stop` of a file that others may read, too."""

    def __init__(self, file: IO[bytes], start: int, stop: int) -> None:
        super().__init__()
        self._file, self._position, self._stop = file, start, stop

    def readable(self) -> bool:
        """Tell io.BufferedReader that this stream can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` with the next bytes of the range."""
        view = memoryview(target).cast("B")
        self._file.seek(self._position)
        data = self._file.read(min(len(view), self._stop - self._position))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class PrefixedStream(io.RawIOBase):
    """Bytes that were read already, followed by the rest of their stream."""

    def __init__(self, prefix: bytes, rest: io.BufferedReader) -> None:
        super().__init__()
        self._prefix, self._rest = io.BytesIO(prefix), rest

    def readable(self) -> bool:
        """Tell io.BufferedReader that this stream can be read."""
        return True

    def readinto(self, target: Any) -> int:
        """Fill `target` with the next bytes of either."""
        return self._prefix.readinto(target) or self._rest.readinto1(target)


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a member of an archive, as a reader gets it."""

    origin: str  # its path inside the source, `archive!/member` inside archives
    name: str  # its file name without a compression suffix
    stream: io.BufferedReader  # its bytes, decompressed
    head: bytes  # the first bytes, not consumed
    path: Path | None = None  # the file itself where it is neither compressed nor inside an archive
    project: str = ""  # the project of a source file, "" outside of code
    license: str = ""  # the license of that project
    people: Mapping[str, str] = field(default_factory=dict)  # id → name, in an export of chats
    # What the raw file may still unpack to; a format that stores a value once and repeats it
    # charges every time.
    budget: Budget = field(default_factory=lambda: Budget.of(0))
    # Number of the first record in `stream`: more than 0 in a piece of a large file, whose `head`
    # is that of the file. What a reader decides by the first record, it then decided before.
    first: int = 0
    # In a piece of CSV: lines before it, and what was earned there to look ahead with.
    lines: int = 0
    credit: int = 0
    # In a piece of a file that is read by `path`: the bytes of the file that the piece is made of.
    span: tuple[int, int] | None = None


def read_some(stream: IO[bytes] | io.RawIOBase, count: int) -> bytes:
    """Return up to `count` bytes; those before damage, which `read` would lose with the error."""
    data: bytes = getattr(stream, "read1", stream.read)(count)
    return data


def make_item(
    origin: str,
    name: str,
    bounded: BoundedStream,
    path: Path | None = None,
    budget: Budget | None = None,
) -> Item:
    """Return an item over a bounded stream; without a budget it has that of a file of 0 bytes."""
    head, budget = bounded.peek(HEAD), budget or Budget.of(0)
    return Item(origin, name, io.BufferedReader(bounded, BUFFER), head, path, budget=budget)


def read_all(stream: IO[bytes], limit: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return the rest of a stream; DamagedError if it is damaged, or longer than `limit` bytes."""
    parts, size = [], 0
    while part := stream.read(1 << 20):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise DamagedError("too-large", f"it is longer than {limit >> 20} MB")
    return b"".join(parts)


def bounded_lines(file: Any, ends: Any, limit: int) -> Iterator[Any]:
    """Yield the lines of a file of bytes or text; None for one longer than `limit`."""
    while line := file.readline(limit):
        if len(line) == limit and not line.endswith(ends):
            while (rest := file.readline(limit)) and not rest.endswith(ends):
                pass
            yield None
        else:
            yield line


def spool(stream: io.BufferedIOBase | io.RawIOBase) -> IO[bytes]:
    """Return the rest of a stream as a seekable file: in memory, or unnamed on disk if it is long.

    Raises DamagedError if it is damaged, or longer than MAX_SPOOLED.
    """
    # The reader closes it.
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
    size = 0
    while data := stream.read(1 << 20):
        size += len(data)
        if size > MAX_SPOOLED:
            detail = "a file in an archive that has to be unpacked is longer than"
            raise DamagedError("too-large", f"{detail} {MAX_SPOOLED >> 30} GB")
        file.write(data)
    file.seek(0)
    return cast("IO[bytes]", file)
