"""Knows the bytes of raw files: their SHA-256, remembered as long as a file looks unchanged.

Reads raw files; reads and writes `RUN/.store/raw.json`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.collect.sources import RawFile
from groundup.errors import SourceError
from groundup.runtime.files import file_digest, read_json, write_json
from groundup.runtime.progress import progress

# Clocks of file systems tick as slowly as once in two seconds: a younger file may change without
# looking so.
SETTLED_SECONDS = 2.0

Look = tuple[int, int, int, int]


def look(status: os.stat_result) -> Look:
    """Return what tells whether a file changed: size, time of its bytes, time of its entry, inode."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@dataclass(frozen=True, slots=True)
class Known:
    """A raw file as it was hashed. `settled` is false when it was so young that a change could
    hide.
    """

    file: RawFile
    sha256: str
    look: Look
    settled: bool

    def check(self, descriptor: int) -> None:
        """Raise SourceError unless the open file still looks as it did when it was hashed."""
        if look(os.fstat(descriptor)) != self.look:
            raise self.changed()

    def check_after(self) -> None:
        """Raise SourceError if the file changed, or vanished, while it was being read."""
        try:
            same = look(self.file.path.stat()) == self.look and (
                self.settled or file_digest(self.file.path) == self.sha256
            )
        except OSError:
            same = False
        if not same:
            raise self.changed()

    def changed(self) -> SourceError:
        """Return the error for a file that is not what was hashed any more."""
        return SourceError(
            f"{self.file.path}: it changed or vanished while it was being read; run again when it"
            " is at rest"
        )


@dataclass
class Digests:
    """The SHA-256 of raw files by absolute path, kept between runs."""

    path: Path
    entries: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Digests:
        """Read what is remembered; nothing when the file is missing or torn."""
        entries = read_json(path)
        return cls(path, entries if isinstance(entries, dict) else {})

    def known(self, files: Iterable[RawFile]) -> tuple[list[Known], list[tuple[RawFile, str]]]:
        """Return the files with their digests, hashing those that are new or look changed, and
        those that cannot be read.
        """
        files = list(files)
        found, failed = [], []
        with progress("hashing raw files", sum(file.size for file in files), "B") as bar:
            for file in files:
                try:
                    found.append(self._known(file))
                except OSError as error:
                    failed.append((file, str(error.strerror or error)))
                bar.add(file.size)
        return found, failed

    def _known(self, file: RawFile) -> Known:
        name = os.fsencode(file.path.absolute()).decode("utf-8", "backslashreplace")
        before = look(file.path.stat())
        entry = self.entries.get(name)
        if isinstance(entry, list) and len(entry) == 5 and tuple(entry[1:]) == before:
            return Known(file, str(entry[0]), before, True)
        digest = file_digest(file.path)
        after = look(file.path.stat())
        if after != before:
            raise SourceError(f"{file.path}: it is being written; run again when it is at rest")
        settled = time.time() - max(after[1], after[2]) / 1e9 > SETTLED_SECONDS
        if settled:
            self.entries[name] = [digest, *after]
        else:
            self.entries.pop(name, None)
        return Known(file, digest, after, settled)

    def save(self) -> None:
        """Remember the digests for the next run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.entries)
