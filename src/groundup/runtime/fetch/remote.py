"""Places of many files: S3 buckets and data sets of the Hugging Face Hub. Lists them, and brings
files into the cache.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from groundup.collect.files.archives import hidden, printable_name, unsafe_path
from groundup.collect.files.globs import Selection, has_pattern, translate
from groundup.errors import SourceError
from groundup.runtime.fetch.cache import cached, filename_of, keep
from groundup.runtime.fetch.partial import Partial
from groundup.runtime.progress import Progress, progress, say

# Enough to hide the latency of small files; large ones fill the line alone.
AT_ONCE = 8


@dataclass(frozen=True, slots=True, order=True)
class RemoteFile:
    """A file in a far place: its path there, bytes, what changes with its content, and its SHA-256
    where the place says it.
    """

    path: str
    size: int
    stamp: str
    sha256: str = ""


class Place(Protocol):
    """Where files are listed and read. Its address holds no credentials, and names one state where
    the place keeps several.
    """

    @property
    def address(self) -> str:
        """What a recipe would write for it."""

    def files(self, folder: str) -> list[RemoteFile]:
        """Return the file `folder`, or all below it."""

    def bring(self, file: RemoteFile, half: Partial, bar: Progress) -> None:
        """Bring the bytes of a file, going on where `half` ends."""


@dataclass(frozen=True, slots=True)
class Selected:
    """The files of a place that belong to a source, by origin, sorted; and how many its include and
    exclude leave out.
    """

    place: Place
    files: dict[str, RemoteFile]
    skipped: int

    def missing(self) -> list[RemoteFile]:
        """Return the files that are not in the cache."""
        return [
            file
            for file in self.files.values()
            if cached(_name(self.place, file), file.sha256) is None
        ]


def select(place: Place, path: str, wanted: Selection) -> Selected:
    """Return the files that `path`, a file, folder or glob in a place, names.

    Raises:
        SourceError: the place cannot be listed, or nothing in it belongs to the source.
    """
    parts = [part for part in path.split("/") if part]
    first = next((number for number, part in enumerate(parts) if has_pattern(part)), len(parts))
    folder, pattern = "/".join(parts[:first]), "/".join(parts[first:])
    found = place.files(folder)
    if not pattern and [file.path for file in found] == [folder]:
        folder = folder.rpartition("/")[0]
    expression = re.compile(translate(pattern) if pattern else ".*", re.DOTALL)
    files, skipped = {}, 0
    for file in found:
        name = file.path.removeprefix(folder).lstrip("/")
        if hidden(name) or unsafe_path(name) or expression.fullmatch(name) is None:
            continue
        if wanted.opens(printable_name(name)):
            files[printable_name(name)] = file
        else:
            skipped += 1
    if not files:
        why = (
            f"include and exclude leave nothing of {skipped} files"
            if skipped
            else f"none of its {len(found)} files matches"
        )
        raise SourceError(f"{place.address}/{path}: {why}; correct the path in the recipe")
    return Selected(place, dict(sorted(files.items())), skipped)


def bring_all(selected: Selected, source: str) -> list[Path]:
    """Return where the files lie in the cache, in the order of `selected`, after fetching those
    that are missing.

    Raises:
        SourceError: one of them cannot be fetched.
    """
    place, files = selected.place, list(selected.files.values())
    missing = selected.missing()
    size = sum(file.size for file in missing)
    if missing:
        say(
            f'source "{source}": fetching {len(missing):,} files, {size / 1e6:,.1f} MB, from'
            f" {place.address}"
        )
    with progress(f"fetching {source}", size, "B") as bar, ThreadPoolExecutor(AT_ONCE) as pool:
        stop = threading.Event()
        work = [pool.submit(_bring, place, file, bar, stop) for file in files]
        try:
            return [one.result() for one in work]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _bring(place: Place, file: RemoteFile, bar: Progress, stop: threading.Event) -> Path:
    name, where = _name(place, file), f"{place.address}/{file.path}"
    found = cached(name, file.sha256)
    return found or keep(
        name,
        filename_of(file.path),
        file.sha256,
        lambda half: place.bring(file, replace(half, stop=stop), bar),
        where,
    )


def _name(place: Place, file: RemoteFile) -> str:
    return f"{place.address}/{file.path}#{file.stamp}"


def total(files: Sequence[RemoteFile]) -> int:
    """Return the bytes of some files."""
    return sum(file.size for file in files)
