"""Brings bytes from far away into one file, going on where an earlier try broke off. Writes
`CACHE/partial/NAME/`.

What is half there counts only together with the validator (ETag, or time of change) that its server
gave it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import SourceError
from groundup.runtime.fetch.transfer import BusyError, LostError, StoppedError
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import Progress

MAX_BYTES = 1 << 40
# Tries in a row that bring nothing new; seconds before the next one double.
TRIES = 4
BACK_OFF_SECONDS = 1.0
# A transfer that brings less than this in that time has stalled.
STALL_SECONDS, STALL_BYTES = 120.0, 64 << 10


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes on their way: where they start in the file, its whole size (0 when unknown) and what
    tells it from a changed one.
    """

    start: int
    total: int
    validator: str
    parts: Iterator[bytes]


Opener = Callable[[int, str], AbstractContextManager[Body]]


@dataclass(frozen=True, slots=True)
class Partial:
    """A file that is on its way, and the validator of what is there of it; who sets `stop` ends its
    transfer.
    """

    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def file(self) -> Path:
        """The bytes so far."""
        return self.folder / "bytes"

    @property
    def validator(self) -> str:
        """What the server gave to tell this file from a changed one; "" when there is nothing to go
        on from.
        """
        seen: Any = read_json(self.folder / "seen.json")
        return (
            str(seen.get("validator", "")) if isinstance(seen, dict) and self.file.is_file() else ""
        )

    @property
    def size(self) -> int:
        """Bytes that are there, and may be gone on from."""
        return self.file.stat().st_size if self.validator else 0

    def drop(self) -> None:
        """Forget what is there."""
        (self.folder / "seen.json").unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)

    def begin(self, body: Body) -> None:
        """Keep what is there where the body goes on from it, else make room for another file."""
        if body.start == 0 or body.validator != self.validator:
            self.file.unlink(missing_ok=True)
            write_json(self.folder / "seen.json", {"validator": body.validator})


@contextmanager
def partial(root: Path, name: str) -> Iterator[Partial]:
    """Hand out the file `name` on its way below `root`, to one process at a time; without a
    validator nothing of it stays.
    """
    folder = root / name
    descriptor = _locked(folder)
    try:
        half = Partial(folder)
        yield half
    finally:
        if not half.validator:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Return a descriptor that locks the folder; who had it before may have taken it away."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def fill(half: Partial, opener: Opener, bar: Progress, where: str) -> None:
    """Bring what is missing of a file, with more tries as long as there is something to go on from.

    Args:
        opener: from the bytes that are there and their validator to a body that starts behind them,
            or at 0.
        where: the address, for errors.

    Raises:
        SourceError: it cannot be fetched, or is longer than `MAX_BYTES`.
    """
    failed, anew = 0, False
    while True:
        before = half.size
        try:
            with opener(before, half.validator) as body:
                _write(half, body, bar, where)
                return
        except LostError as error:
            failed = 0 if half.size >= before + STALL_BYTES else failed + 1
            if failed >= TRIES or not (half.validator or isinstance(error, BusyError)):
                raise
        except SourceError:
            # What does not go on from here may begin anew: the half that is there was of another
            # file, or whole already.
            half.drop()
            if anew or not before:
                raise
            anew = True
        time.sleep(BACK_OFF_SECONDS * 2**failed)


def _write(half: Partial, body: Body, bar: Progress, where: str) -> None:
    half.begin(body)
    if body.total and not bar.total:
        bar.expect(body.total)
        bar.add(body.start)
    done, since, mark = body.start, time.monotonic(), body.start
    with half.file.open("ab") as file:
        if file.tell() != body.start:
            raise SourceError(
                f"{where}: the server goes on at byte {body.start:,}, not at {file.tell():,}; run"
                " again"
            )
        for part in body.parts:
            if half.stop.is_set():
                raise StoppedError
            file.write(part)
            done += len(part)
            bar.add(len(part))
            if done > MAX_BYTES:
                raise SourceError(f"{where}: it is longer than {MAX_BYTES >> 40} TB")
            if time.monotonic() - since > STALL_SECONDS:
                if done - mark < STALL_BYTES:
                    raise LostError(
                        f"{where}: {done - mark:,} bytes came in {STALL_SECONDS:.0f} s; run again"
                    )
                since, mark = time.monotonic(), done
    if body.total and done > body.total:
        raise SourceError(
            f"{where}: {done:,} bytes came, and {body.total:,} were announced; run again"
        )
    if body.total and done != body.total:
        raise LostError(
            f"{where}: the connection ended after {done:,} of {body.total:,} bytes; run again"
        )
