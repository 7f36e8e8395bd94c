"""Finds the raw files of a source. Reads folders (and the network, through the cache); writes
nothing else.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from groundup.collect.files.archives import Refused, printable_name
from groundup.collect.files.globs import Selection, has_pattern, translate
from groundup.collect.scrape.scrape import SCHEME, scrape
from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.runtime.fetch.cache import fetch
from groundup.runtime.fetch.remote import bring_all, select
from groundup.runtime.fetch.resolve import FAR, place_of

RUN_MARK = "recipe.lock.toml"


@dataclass(frozen=True, slots=True, order=True)
class RawFile:
    """A raw file: its origin inside the source, where it lies, and its bytes."""

    origin: str
    path: Path
    size: int


@dataclass
class Listing:
    """What a source holds, sorted by origin: files to read, and what is refused unread with the
    reason.

    `skipped` counts the files that its include and exclude patterns leave out. `pinned` is the
    source's path with the state of a far place that was seen, where that place keeps several.
    """

    files: list[RawFile] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    skipped: int = 0
    pinned: str = ""


def list_source(source: Source, root: Path, pinned: str = "", again: bool = False) -> Listing:
    """Return the raw files of a source; relative paths start from `root`, and what lies elsewhere
    is fetched first.

    Args:
        pinned: of an earlier listing, to see the same.
        again: try once more what a scrape could not fetch.

    Raises:
        SourceError: the path is missing, an empty folder, matches nothing, or cannot be fetched.
    """
    if source.path.startswith(FAR):
        return _far(source, pinned or source.path)
    if source.path.startswith(SCHEME):
        found = scrape(source, root, again)
        files = sorted(
            RawFile(origin, path, path.stat().st_size) for origin, path in found.files.items()
        )
        # A line that stands in the list twice is listed once.
        refused = {one.origin: one for one in reversed(found.refused)}
        return Listing(files, [refused[origin] for origin in sorted(refused)])
    if source.path.startswith("http://"):
        raise SourceError(f'source "{source.name}": {source.path}: only https:// is fetched')
    if source.path.startswith(("pypi:", "https://")):
        file = fetch(source.path, source.sha256)
        return Listing([RawFile(file.name, file, file.stat().st_size)])
    return _local(source, root)


def _far(source: Source, path: str) -> Listing:
    place, inside = place_of(path)
    selected = select(place, inside, Selection(source.include, source.exclude))
    paths = bring_all(selected, source.name)
    files = [
        RawFile(origin, path, path.stat().st_size)
        for origin, path in zip(selected.files, paths, strict=True)
    ]
    pinned = f"{place.address}/{inside}".rstrip("/")
    return Listing(
        sorted(files), [], selected.skipped, "" if pinned == source.path.rstrip("/") else pinned
    )


def _local(source: Source, root: Path) -> Listing:
    top, pattern = split_pattern(str(Path(source.path).expanduser()), root)
    where = f'source "{source.name}": {top}'
    if not top.exists():
        raise SourceError(
            f"{where}: there is no such file or folder; correct its path in the recipe"
        )
    if not pattern and not top.is_dir():
        top, pattern = top.parent, _literal(top.name)
    listing = _listed(top.resolve(), pattern, Selection(source.include, source.exclude))
    if not listing.files and not listing.refused:
        raise SourceError(
            f"{where}: {_nothing(pattern, listing.skipped)}; correct its path in the recipe"
        )
    return listing


def _nothing(pattern: str, skipped: int) -> str:
    if skipped:
        return f"include and exclude leave nothing of {skipped} files"
    return f'no file matches "{pattern}"' if pattern else "the folder holds no file"


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def split_pattern(path: str, root: Path) -> tuple[Path, str]:
    """Split a path before its first pattern: the source's root, and the pattern.

    A component that exists as it is written is no pattern, whatever characters its name has.
    """
    parts = [part for part in path.split("/") if part]
    folder = Path("/") if path.startswith("/") else root
    for number, part in enumerate(parts):
        if has_pattern(part) and not os.path.lexists(folder / part):
            return folder, "/".join(parts[number:])
        folder = folder / part
    return folder, ""


def _listed(top: Path, pattern: str, wanted: Selection) -> Listing:
    expression = re.compile(translate(pattern) if pattern else ".*", re.DOTALL)
    listing = Listing()
    for name, entry in _walk(top):
        origin = printable_name(name)
        if isinstance(entry, Refused):
            listing.refused.append(Refused(origin, entry.reason, entry.detail))
        elif expression.fullmatch(name) is None:
            continue
        elif wanted.opens(origin):
            _add(listing, origin, entry, top)
        else:
            listing.skipped += 1
    listing.files.sort()
    listing.refused.sort(key=lambda refused: refused.origin)
    return listing


def _walk(top: Path) -> Iterator[tuple[str, os.DirEntry[str] | Refused]]:
    """Yield every file below a folder but hidden ones; neither links to folders nor run directories
    are entered.
    """
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = list(os.scandir(top / prefix))
        except OSError as error:
            yield prefix, Refused(prefix, "unreadable", str(error.strerror))
            continue
        if any(entry.name == RUN_MARK for entry in entries):
            # A run directory inside a source is our own output, never raw text.
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry


def _add(listing: Listing, origin: str, entry: os.DirEntry[str], top: Path) -> None:
    """Put a directory entry on the list; what is no regular file below `top` is refused without
    being opened.
    """
    path = Path(entry.path)
    try:
        if entry.is_symlink() and (entry.is_dir() or not path.resolve().is_relative_to(top)):
            listing.refused.append(
                Refused(origin, "link", "a link to a folder, or out of the source")
            )
            return
        status = path.stat()
    except OSError as error:
        listing.refused.append(Refused(origin, "unreadable", str(error.strerror)))
        return
    if not stat.S_ISREG(status.st_mode):
        listing.refused.append(Refused(origin, "special-file", "neither a file nor a folder"))
    elif not os.access(path, os.R_OK):
        listing.refused.append(Refused(origin, "unreadable", "permission denied"))
    else:
        listing.files.append(RawFile(origin, path, status.st_size))
