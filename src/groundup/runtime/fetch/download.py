"""Downloads into one file that continue where an earlier try stopped.

    FOLDER/bytes        what has arrived
    FOLDER/seen.json    {"validator": ...}: ETag or modification time that the server gave with it

Without a validator nobody can tell whether the rest belongs to the same file, and nothing is kept.
Over HTTP, downloads continue with Range and If-Range (RFC 9110, 13.1.5 and 14.2).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import SourceError
from groundup.runtime.fetch.https import (
    Access,
    BusyError,
    RetryableError,
    StoppedError,
    open_url,
    redact_url,
)
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import Progress

MAX_BYTES = 1 << 40
# Tries in a row that bring nothing new; seconds before the next one double.
TRIES = 4
BACK_OFF_SECONDS = 1.0
# A transfer that brings less than this in that time has stalled.
STALL_SECONDS, STALL_BYTES = 120.0, 64 << 10


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The rest of a file as a server sends it.

    Attributes:
        start: offset of the first byte.
        total: size of the whole file, 0 when unknown.
        validator: tells this file from a changed one.
        parts: the bytes.
    """

    start: int
    total: int
    validator: str
    parts: Iterator[bytes]


# (bytes that are there, their validator) → the bytes behind them, or all bytes.
OpenRange = Callable[[int, str], AbstractContextManager[ByteRange]]


@dataclass(frozen=True, slots=True)
class PartialFile:
    """A file that is being downloaded; setting `stop` ends the transfer."""

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def file(self) -> Path:
        """The bytes so far."""
        return self.folder / "bytes"

    @property
    def validator(self) -> str:
        """Validator of the bytes so far, "" when there is nothing to continue."""
        seen: Any = read_json(self.folder / "seen.json")
        if not isinstance(seen, dict) or not self.file.is_file():
            return ""
        return str(seen.get("validator", ""))

    @property
    def size(self) -> int:
        """Number of bytes that can be continued."""
        return self.file.stat().st_size if self.validator else 0

    def drop(self) -> None:
        """Delete the bytes so far."""
        (self.folder / "seen.json").unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


@contextmanager
def partial_file(root: Path, name: str) -> Iterator[PartialFile]:
    """Lock the partial file `name` below `root` for this process; others wait."""
    partial = PartialFile(root / name)
    with locked_folder(partial.folder):
        try:
            yield partial
        finally:
            if not partial.validator:
                shutil.rmtree(partial.folder, ignore_errors=True)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and lock it for this process; others wait."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            # The previous owner may have deleted the folder.
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def download_ranges(partial: PartialFile, open_range: OpenRange, bar: Progress, where: str) -> None:
    """Download what is missing of a file, with new tries while there is something to continue.

    Args:
        partial: holds the whole file in the end.
        open_range: opens the rest of the file.
        bar: counts bytes.
        where: address, for errors.

    Raises:
        SourceError: it cannot be fetched, or is longer than `MAX_BYTES`.
    """
    failures, restarted = 0, False
    while True:
        before = partial.size
        try:
            with open_range(before, partial.validator) as body:
                _write(partial, body, bar, where)
                return
        except RetryableError as error:
            failures = 0 if partial.size >= before + STALL_BYTES else failures + 1
            if failures >= TRIES or not (partial.validator or isinstance(error, BusyError)):
                raise
        except SourceError:
            # The bytes so far may be of another file, or complete already: start again, once.
            partial.drop()
            if restarted or not before:
                raise
            restarted = True
        time.sleep(BACK_OFF_SECONDS * 2**failures)


def _write(partial: PartialFile, body: ByteRange, bar: Progress, where: str) -> None:
    if body.start == 0 or body.validator != partial.validator:
        partial.file.unlink(missing_ok=True)
        write_json(partial.folder / "seen.json", {"validator": body.validator})
    if body.total and not bar.total:
        bar.expect(body.total)
        bar.add(body.start)
    done = stall_done = body.start
    stall_start = time.monotonic()
    with partial.file.open("ab") as file:
        if file.tell() != body.start:
            raise SourceError(
                f"{where}: the server continues at byte {body.start:,} instead of {file.tell():,};"
                " run again"
            )
        for part in body.parts:
            if partial.stop.is_set():
                raise StoppedError
            file.write(part)
            done += len(part)
            bar.add(len(part))
            if done > MAX_BYTES:
                raise SourceError(f"{where}: it is longer than {MAX_BYTES >> 40} TB")
            if time.monotonic() - stall_start > STALL_SECONDS:
                if done - stall_done < STALL_BYTES:
                    raise RetryableError(
                        f"{where}: only {done - stall_done:,} bytes came in {STALL_SECONDS:.0f} s;"
                        " run again"
                    )
                stall_start, stall_done = time.monotonic(), done
    if body.total and done > body.total:
        raise SourceError(
            f"{where}: {done:,} bytes came, and {body.total:,} were announced; run again"
        )
    if body.total and done != body.total:
        raise RetryableError(
            f"{where}: the connection ended after {done:,} of {body.total:,} bytes; run again"
        )


def download(url: str, partial: PartialFile, access: Access, bar: Progress) -> None:
    """Download the file at `url`; `partial` holds all of it in the end.

    Raises:
        SourceError: it cannot be fetched, is too long, or shorter than announced.
    """

    @contextmanager
    def open_range(offset: int, validator: str) -> Iterator[ByteRange]:
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
        with open_url(url, access, headers) as opened:
            opened.deadline.lift()
            response = opened.response
            # If-Range takes a strong ETag or a modification time.
            tag = str(response.headers.get("etag", ""))
            if not tag.startswith('"'):
                tag = str(response.headers.get("last-modified", ""))
            start, total = 0, int(response.headers.get("content-length") or 0)
            if response.status_code != 200:
                content_range = response.headers.get("content-range", "")
                match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
                if match is None:
                    # Without the total nobody could tell whether this part is the last.
                    raise SourceError(
                        f"{redact_url(url)}: the server sends a part of it without the total size;"
                        " run again"
                    )
                start, total = int(match[1]), int(match[2])
            # Raw bytes: a server may call a .gz file a transfer encoding.
            yield ByteRange(start, total, tag, response.iter_raw())

    download_ranges(partial, open_range, bar, redact_url(url))


def content_length(url: str) -> int:
    """Return the size of the file at `url` in bytes, 0 when its server does not say.

    Raises:
        SourceError: it cannot be fetched.
    """
    with open_url(url, Access()) as opened:
        return int(opened.response.headers.get("content-length") or 0)
