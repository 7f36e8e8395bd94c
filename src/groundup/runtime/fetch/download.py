"""Downloads files into a cache: resumed, verified by SHA-256, reused without a network.

The cache is `$GROUNDUP_CACHE`, else a folder of the user. Its files are whole or absent:

    CACHE/files/SHA256/NAME       the files
    CACHE/names/KEY.json          which file an address gave when it was first fetched
    CACHE/partial/KEY/bytes       what has arrived of a download that is not complete
    CACHE/partial/KEY/seen.json   {"validator": ...}: ETag or modification time that came with it

A download continues where an earlier try stopped, over HTTP with Range and If-Range (RFC 9110,
13.1.5 and 14.2). Without a validator nobody can tell whether the rest belongs to the same file, and
nothing is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from groundup.errors import SourceError, is_full_disk
from groundup.recipe import clean_name
from groundup.runtime.fetch import index
from groundup.runtime.fetch.https import (
    Access,
    BusyError,
    RetryableError,
    StoppedError,
    open_url,
    redact_url,
)
from groundup.runtime.files import file_digest, flush, read_json_object, write_json
from groundup.runtime.progress import Progress, progress

MAX_BYTES = 1 << 40
# Tries in a row that bring nothing new; seconds before the next one double.
TRIES = 4
BACK_OFF_SECONDS = 1.0
# A transfer that brings less than this in that time has stalled.
STALL_SECONDS, STALL_BYTES = 120.0, 64 << 10


def cache_root() -> Path:
    """Return the cache: $GROUNDUP_CACHE, else groundup in $XDG_CACHE_HOME, else in ~/.cache."""
    if path := os.environ.get("GROUNDUP_CACHE"):
        return Path(path).absolute()
    if path := os.environ.get("XDG_CACHE_HOME"):
        return Path(path).absolute() / "groundup"
    return Path.home() / ".cache" / "groundup"


def fetch(path: str, sha256: str = "") -> Path:
    """Return the cached file that an `https:` or `pypi:` path names, after fetching it if needed.

    A `sha256` of "" takes what the index says, or what was seen first. Raises SourceError if the
    file cannot be fetched, or has another SHA-256.
    """
    file = cached(path, sha256)
    if file is not None:
        return file
    url, filename, access = path, filename_of(path), Access()
    if path.startswith("pypi:"):
        package = index.find_file(path)
        if sha256 and package.sha256 and sha256 != package.sha256:
            both = f"the recipe wants sha256 {sha256[:12]}…, the index has {package.sha256[:12]}…"
            raise SourceError(f"{path}: {both}; correct the recipe")
        url, filename, access = package.url, package.filename, Access(trusted=True)
        sha256 = sha256 or package.sha256

    def write(partial: PartialFile) -> None:
        # The server says how long it is when it answers.
        with progress(f"fetching {filename}", 0, "B") as bar:
            download(url, partial, access, bar)

    return add_to_cache(path, filename, sha256, write, redact_url(url))


def add_to_cache(
    path: str, filename: str, sha256: str, write: Callable[[PartialFile], None], where: str
) -> Path:
    """Return the cached file of `path`, downloaded by `write` unless another process did meanwhile.

    A `sha256` of "" takes the file as it comes; `where` is its address, for errors. Raises
    SourceError if it has another SHA-256, or the cache cannot be written.
    """
    root = cache_root()
    try:
        with partial_file(root / "partial", _key(path)) as partial:
            file = cached(path, sha256)
            if file is not None:
                partial.drop()
                return file
            write(partial)
            digest = file_digest(partial.file)
            if sha256 and digest != sha256:
                partial.drop()
                raise SourceError(f"{where}: its sha256 is {digest}, not {sha256}; it was not kept")
            file = root / "files" / digest / filename
            flush(partial.file)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial.file.rename(file)
            partial.drop()
            entry = {"path": path, "sha256": digest, "filename": filename, "look": _stat(file)}
            _entry_file(path).parent.mkdir(parents=True, exist_ok=True)
            write_json(_entry_file(path), entry)
            return file
    except OSError as error:
        raise cannot_write(root, error) from None


def cannot_write(folder: Path, error: OSError) -> SourceError:
    """Return the error for a folder of the cache that cannot be written."""
    if is_full_disk(error):
        return SourceError(f"{folder}: the disk is full; free some space and run again")
    return SourceError(f"{folder}: it cannot be written: {error.strerror}")


def cached(path: str, sha256: str = "") -> Path | None:
    """Return the file of `path` from the cache; one whose bytes changed is deleted."""
    entry = read_json_object(_entry_file(path)) or {}
    digest, filename = sha256 or str(entry.get("sha256", "")), str(entry.get("filename", ""))
    if not digest:
        return None
    folder = cache_root() / "files" / digest
    # Another address may have given the same file.
    known = filename and entry.get("sha256") == digest
    for file in [folder / filename] if known else sorted(folder.glob("*")):
        if file.is_file() and (_stat(file) == entry.get("look") or file_digest(file) == digest):
            return file
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _stat(file: Path) -> list[int]:
    """Return what shows whether a file changed since it was hashed: size, times, inode."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _key(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _entry_file(path: str) -> Path:
    return cache_root() / "names" / f"{_key(path)}.json"


def filename_of(url: str) -> str:
    """Return the name of the file at a URL, safe on any file system."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return clean_name(name).strip("-.")[-200:] or "file"


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
        seen = read_json_object(self.folder / "seen.json")
        if seen is None or not self.file.is_file():
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


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The rest of a file as a server sends it."""

    start: int  # offset of the first byte
    total: int  # size of the whole file, 0 when unknown
    validator: str  # tells this file from a changed one
    parts: Iterator[bytes]  # the bytes


# (bytes that are there, their validator) → the bytes behind them, or all bytes.
OpenRange = Callable[[int, str], AbstractContextManager[ByteRange]]


def download_ranges(partial: PartialFile, open_range: OpenRange, bar: Progress, where: str) -> None:
    """Download what is missing of a file; try again while there is something to continue.

    Raises SourceError, which names the address `where`.
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
        bar.total = body.total
        bar.add(body.start)
    done = stall_done = body.start
    stall_start = time.monotonic()
    with partial.file.open("ab") as file:
        if file.tell() != done:
            place = f"byte {done:,} instead of {file.tell():,}"
            raise SourceError(f"{where}: the server continues at {place}; run again")
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
                    came = f"only {done - stall_done:,} bytes came in {STALL_SECONDS:.0f} s"
                    raise RetryableError(f"{where}: {came}; run again")
                stall_start, stall_done = time.monotonic(), done
    if body.total and done > body.total:
        came = f"{done:,} bytes came, and {body.total:,} were announced"
        raise SourceError(f"{where}: {came}; run again")
    if done < body.total:
        ended = f"the connection ended after {done:,} of {body.total:,} bytes"
        raise RetryableError(f"{where}: {ended}; run again")


def download(url: str, partial: PartialFile, access: Access, bar: Progress) -> None:
    """Download the file at `url`; `partial` holds all of it in the end, else SourceError."""

    @contextmanager
    def open_range(offset: int, validator: str) -> Iterator[ByteRange]:
        headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
        with open_url(url, access, headers) as (response, deadline):
            deadline.lift()
            # If-Range takes a strong ETag or a modification time.
            tag = str(response.headers.get("etag", ""))
            if not tag.startswith('"'):
                tag = str(response.headers.get("last-modified", ""))
            start, total = 0, int(response.headers.get("content-length") or 0)
            if response.status_code != 200:
                content_range = response.headers.get("content-range", "")
                match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", content_range)
                if match is None:
                    # Nobody could tell whether this part is the last.
                    why = "the server sends a part of it without the total size"
                    raise SourceError(f"{redact_url(url)}: {why}; run again")
                start, total = int(match[1]), int(match[2])
            # Raw bytes: a server may call a .gz file a transfer encoding.
            yield ByteRange(start, total, tag, response.iter_raw())

    download_ranges(partial, open_range, bar, redact_url(url))


def content_length(url: str) -> int:
    """Return the size of the file at `url` in bytes, 0 when its server does not say."""
    with open_url(url, Access()) as (response, _):
        return int(response.headers.get("content-length") or 0)
