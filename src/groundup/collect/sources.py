"""Raw files of a source: where they are, how large, and their digests, remembered between runs."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from groundup.collect.files.archives import Refused, is_hidden, is_unsafe_path, printable_name
from groundup.collect.files.globs import Selection, glob_to_regex, has_glob
from groundup.collect.scrape import SCHEME, estimate_scrape, scrape
from groundup.errors import SourceError, StoreError
from groundup.recipe import Recipe, Source, all_sources
from groundup.runtime.fetch.download import cache_root, cached, content_length, fetch, filename_of
from groundup.runtime.fetch.remote import (
    REMOTE_SCHEMES,
    RemoteFile,
    RemoteStore,
    fetch_all,
    not_cached,
    open_remote,
)
from groundup.runtime.files import file_digest
from groundup.runtime.progress import progress, say
from groundup.runtime.sealed import read_sealed, write_sealed

# A folder with this file is a run directory.
RUN_MARK = "recipe.lock.toml"
# Notion exports a database twice: as it is shown, and with all rows as `Tasks 0123…cdef_all.csv`.
_NOTION_VIEW = re.compile(r"(.+ [0-9a-f]{32})\.csv", re.DOTALL)
# File system clocks tick as slowly as once in two seconds: a younger file may change unnoticed.
SETTLED_SECONDS = 2.0
# A younger file is hashed again after each reading. One that is larger than this is read in pieces,
# so it is first waited for.
_WAIT_BYTES = 64 << 20

# Size, modification time, inode change time, inode: if they are the same, so are the bytes.
Fingerprint = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class RawFile:
    """A raw file: its origin inside the source, its path and its size in bytes.

    There may be millions: the path is kept as a text, which takes a third of the memory.
    """

    origin: str
    location: str | Path
    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "location", os.fspath(self.location))

    @property
    def path(self) -> Path:
        """Where it is on this machine."""
        return Path(self.location)


def origin_hash(origin: str) -> str:
    """Return 64 bits of an origin (16 hexadecimal digits), which name what is made of its file."""
    data = origin.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@dataclass
class Listing:
    """What a source holds, sorted by origin."""

    files: list[RawFile] = field(default_factory=list)  # to read
    refused: list[Refused] = field(default_factory=list)  # what is not opened, with the reason
    skipped: int = 0  # number of files that the include and exclude patterns leave out
    pinned: str = ""  # the source's path with the revision that was listed, if there are any


def list_source(source: Source, root: Path, pinned: str = "", retry: bool = False) -> Listing:
    """Return the raw files of a source, after fetching those that are not on this machine.

    Relative paths start from `root`. `pinned` is that of an earlier listing, to see the same
    revision. With `retry`, pages that an earlier scrape could not fetch are requested again.

    Raises SourceError if the path is missing, an empty folder, matches nothing, or cannot be
    fetched.
    """
    if source.path.startswith(REMOTE_SCHEMES):
        store, inside = open_remote(pinned or source.path)
        selected, skipped = _select_remote(source, store, inside)
        paths = fetch_all(store, list(selected.values()), source.name)
        listed = f"{store.address}/{inside}".rstrip("/")
        unchanged = listed == source.path.rstrip("/")
        files = _raw_files(zip(selected, paths, strict=True))
        return Listing(files, [], skipped, "" if unchanged else listed)
    if source.path.startswith(SCHEME):
        warcs, missed = scrape(source, root, retry)
        # An address that the list repeats is refused once, for its first reason.
        refused = {entry.origin: entry for entry in reversed(missed)}
        return Listing(_raw_files(warcs.items()), [refused[origin] for origin in sorted(refused)])
    if source.path.startswith("http://"):
        raise SourceError(f'source "{source.name}": {source.path}: only https:// is fetched')
    if source.path.startswith(("pypi:", "https://")):
        file = fetch(source.path, source.sha256)
        return Listing(_raw_files([(file.name, file)]))
    return _list_local(source, root)


def _raw_files(paths: Iterable[tuple[str, Path]]) -> list[RawFile]:
    return sorted(RawFile(origin, path, path.stat().st_size) for origin, path in paths)


def source_sizes(source: Source, root: Path) -> Sequence[tuple[str, int]]:
    """Return names and bytes of a source's raw files, and say which of them a run will fetch.

    Only files of the package index are fetched for this. Raises SourceError if the source cannot be
    found.
    """
    sizes, to_fetch = None, ""
    if source.path.startswith(REMOTE_SCHEMES):
        store, inside = open_remote(source.path)
        selected, _ = _select_remote(source, store, inside)
        if missing := not_cached(store, selected.values()):
            size = sum(file.size for file in missing)
            to_fetch = f"{len(missing):,} files, {size / 1e6:,.1f} MB, from {store.address}"
        sizes = [(origin, file.size) for origin, file in selected.items()]
    elif source.path.startswith(SCHEME):
        size, to_fetch = estimate_scrape(source, root)
        sizes = [("pages.warc.gz", size)]
    elif source.path.startswith("https://") and cached(source.path, source.sha256) is None:
        size = content_length(source.path)
        to_fetch = f"{size / 1e6:,.1f} MB" if size else "a file of unknown size"
        sizes = [(filename_of(source.path), size)]
    if to_fetch:
        say(f'source "{source.name}" will be fetched: {to_fetch}')
    if sizes is None:
        sizes = [(file.origin, file.size) for file in list_source(source, root).files]
    return sizes


def shared_paths(recipe: Recipe) -> dict[str, Path]:
    """Return what every node of a cluster must see besides the run directory, by title."""
    paths: dict[str, Path] = {}
    if any(":" in name for name in recipe.refine.filters):
        paths["the folder of the recipe"] = recipe.root
    for path in (source.path for source in all_sources(recipe)):
        if "://" in path or path.startswith(("pypi:", SCHEME)):
            cache_root().mkdir(parents=True, exist_ok=True)
            paths["the cache ($GROUNDUP_CACHE moves it)"] = cache_root()
        else:
            top = split_pattern(str(Path(path).expanduser()), recipe.root)[0]
            if top.exists():
                paths[f"the raw files {path} in"] = top.resolve()
    return paths


def _select_remote(
    source: Source, store: RemoteStore, path: str
) -> tuple[dict[str, RemoteFile], int]:
    """Return the files that a path or glob names, by origin, and how many patterns leave out.

    Raises SourceError if the store cannot be listed, or nothing in it belongs to the source.
    """
    parts = [part for part in path.split("/") if part]
    first = next((index for index, part in enumerate(parts) if has_glob(part)), len(parts))
    folder, pattern = "/".join(parts[:first]), "/".join(parts[first:])
    listed = store.list_files(folder)
    if not pattern and [file.path for file in listed] == [folder]:
        folder = folder.rpartition("/")[0]
    regex = re.compile(glob_to_regex(pattern or "**"), re.DOTALL)
    selection, selected, skipped = Selection(source.include, source.exclude), {}, 0
    for file in listed:
        name = file.path.removeprefix(folder).lstrip("/")
        if is_hidden(name) or is_unsafe_path(name) or regex.fullmatch(name) is None:
            continue
        if selection.opens(printable_name(name)):
            selected[printable_name(name)] = file
        else:
            skipped += 1
    if not selected:
        why = f"none of its {len(listed)} files matches"
        if skipped:
            why = f"include and exclude leave nothing of {skipped} files"
        raise SourceError(f"{store.address}/{path}: {why}; correct the path in the recipe")
    return dict(sorted(selected.items())), skipped


def _list_local(source: Source, root: Path) -> Listing:
    top, pattern = split_pattern(str(Path(source.path).expanduser()), root)
    where = f'source "{source.name}": {top}'
    correct = "correct its path in the recipe"
    if not top.exists():
        raise SourceError(f"{where}: there is no such file or folder; {correct}")
    if not pattern and not top.is_dir():
        top, pattern = top.parent, glob.escape(top.name)
    top = top.resolve()
    regex = re.compile(glob_to_regex(pattern or "**"), re.DOTALL)
    selection = Selection(source.include, source.exclude)
    stores = _link_stores(top, root, source.follow_links)
    listing = Listing()
    for name, entry in _walk(top):
        origin = printable_name(name)
        if isinstance(entry, Refused):
            listing.refused.append(Refused(origin, entry.reason, entry.detail))
        elif regex.fullmatch(name) is None:
            continue
        elif not selection.opens(origin):
            listing.skipped += 1
        elif isinstance(file := _check_entry(origin, entry, stores), RawFile):
            listing.files.append(file)
        else:
            listing.refused.append(file)
    if not listing.files and not listing.refused:
        why = f'no file matches "{pattern}"' if pattern else "the folder holds no file"
        if listing.skipped:
            why = f"include and exclude leave nothing of {listing.skipped} files"
        raise SourceError(f"{where}: {why}; {correct}")
    _refuse_twins(listing)
    listing.files.sort()
    listing.refused.sort(key=lambda refused: refused.origin)
    return listing


def _refuse_twins(listing: Listing) -> None:
    """Leave out the view of a database of Notion where a file of all its rows lies beside it."""
    names, kept = {file.origin for file in listing.files}, []
    for file in listing.files:
        view = _NOTION_VIEW.fullmatch(file.origin)
        if view and f"{view[1]}_all.csv" in names:
            listing.refused.append(
                Refused(file.origin, "twin", f"its rows are in {view[1]}_all.csv")
            )
        else:
            kept.append(file)
    listing.files = kept


def split_pattern(path: str, root: Path) -> tuple[Path, str]:
    """Split a path before its first glob: the folder or file, and the pattern below it.

    A component that exists as it is written is no glob, whatever characters its name has.
    """
    parts = [part for part in path.split("/") if part]
    folder = Path("/") if path.startswith("/") else root
    for index, part in enumerate(parts):
        if has_glob(part) and not os.path.lexists(folder / part):
            return folder, "/".join(parts[index:])
        folder = folder / part
    return folder, ""


def _walk(top: Path) -> Iterator[tuple[str, os.DirEntry[str] | Refused]]:
    """Yield every file below a folder but hidden ones; links to folders are not followed."""
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


def _link_stores(top: Path, root: Path, follow_links: str) -> list[Path]:
    """Return the folders that a link below `top` may lead into.

    Besides the source itself these are the stores of tools that keep a data set as links: the cache
    of the Hugging Face Hub (OWNER/snapshots/COMMIT/* → OWNER/blobs/), git-annex and DVC.
    """
    stores = [top]
    if follow_links:
        stores.append((root / Path(follow_links).expanduser()).resolve())
    for folder in (top, *top.parents):
        stores += [folder / ".git/annex/objects", folder / ".dvc/cache"]
        if folder.name == "snapshots":
            stores.append(folder.parent / "blobs")
        if (folder / ".git").exists():
            # What is above this working tree belongs to others.
            break
    return stores


def _check_entry(origin: str, entry: os.DirEntry[str], stores: Sequence[Path]) -> RawFile | Refused:
    """Return a raw file; anything but a regular file in `stores` is refused without opening it."""
    path = Path(entry.path)
    try:
        if entry.is_symlink():
            target = path.resolve()
            if entry.is_dir():
                return Refused(origin, "link", "a link to a folder")
            if not any(target.is_relative_to(store) for store in stores):
                # Not the target: the detail enters a key, which no absolute path may.
                detail = 'a link out of the source; [[source]] follow_links = "DIR" names a folder'
                return Refused(origin, "link", f"{detail} that links may lead into")
        status = path.stat()
    except OSError as error:
        return Refused(origin, "unreadable", str(error.strerror))
    if not stat.S_ISREG(status.st_mode):
        return Refused(origin, "special-file", "neither a file nor a folder")
    if not os.access(path, os.R_OK):
        return Refused(origin, "unreadable", "permission denied")
    return RawFile(origin, path, status.st_size)


def fingerprint(status: os.stat_result) -> Fingerprint:
    """Return what shows whether a file changed."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A raw file as it was hashed; `settled` is false if a change just after could go unnoticed."""

    file: RawFile
    sha256: str
    fingerprint: Fingerprint
    settled: bool

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for a block of code.

        Raises SourceError if it is not what was hashed, or changes or vanishes during the block.
        """
        what = "it changed or vanished while it was being read; run again when it no longer changes"
        changed = SourceError(f"{self.file.path}: {what}")
        try:
            file = self.file.path.open("rb")
        except OSError:
            raise changed from None
        with file:
            if fingerprint(os.fstat(file.fileno())) != self.fingerprint:
                raise changed
            yield file
        same = False
        with suppress(OSError):
            same = fingerprint(self.file.path.stat()) == self.fingerprint and (
                self.settled or file_digest(self.file.path) == self.sha256
            )
        if not same:
            raise changed


@dataclass
class Digests:
    """SHA-256 of raw files, kept in `RUN/.store/raw.json`: path → [digest, *fingerprint]."""

    path: Path
    entries: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Digests:
        """Read the digests of earlier runs; none when the file is missing or damaged."""
        with suppress(StoreError):
            return cls(path, read_sealed(path) or {})
        return cls(path)

    def hash_files(self, files: Sequence[RawFile]) -> tuple[list[HashedFile], list[Refused]]:
        """Return the files with their digests, and those that cannot be read.

        Only files that are new or changed are read.
        """
        hashed, failed = [], []
        with progress("hashing raw files", sum(file.size for file in files), "B") as bar:
            for file in files:
                try:
                    hashed.append(self._hash(file))
                except OSError as error:
                    why = str(error.strerror or error)
                    failed.append(Refused(file.origin, "unreadable", why))
                bar.add(file.size)
        return hashed, failed

    def _hash(self, file: RawFile) -> HashedFile:
        name = os.fsencode(file.path.absolute()).decode("utf-8", "backslashreplace")
        before = fingerprint(file.path.stat())
        entry = self.entries.pop(name, None)
        if isinstance(entry, list) and len(entry) == 5 and tuple(entry[1:]) == before:
            digest, settled = str(entry[0]), True
        else:
            age = time.time() - max(before[1], before[2]) / 1e9
            if file.size > _WAIT_BYTES and 0 <= age <= SETTLED_SECONDS:
                time.sleep(SETTLED_SECONDS - age + 0.1)
            digest = file_digest(file.path)
            if fingerprint(file.path.stat()) != before:
                what = "it is being written; run again when it is complete"
                raise SourceError(f"{file.path}: {what}")
            settled = time.time() - max(before[1], before[2]) / 1e9 > SETTLED_SECONDS
        if settled:
            self.entries[name] = [digest, *before]
        return HashedFile(file, digest, before, settled)

    def save(self) -> None:
        """Write the digests for the next run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(self.path, self.entries)
