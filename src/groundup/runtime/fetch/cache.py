"""Downloads into a cache: whole or absent, verified by SHA-256, reused without a network.

Reads `https:` and `pypi:` addresses, and whatever else can bring bytes; writes
`CACHE/files/SHA256/NAME` and `CACHE/names/*.json`, which remember what an address gave when it was
first fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from groundup.errors import SourceError, is_full_disk
from groundup.runtime.fetch import index
from groundup.runtime.fetch.download import download
from groundup.runtime.fetch.partial import Partial, partial
from groundup.runtime.fetch.transfer import Access, shown
from groundup.runtime.files import file_digest, flush, read_json, write_json
from groundup.runtime.progress import progress

Write = Callable[[Partial], None]


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the bytes are, what they should hash to ("" when nobody said), and who vouches for the
    host.
    """

    url: str
    filename: str
    sha256: str
    access: Access


def cache_root() -> Path:
    """Return the cache: $GROUNDUP_CACHE, else groundup in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("GROUNDUP_CACHE"):
        return Path(own).absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "groundup"
    return Path.home() / ".cache" / "groundup"


def fetch(path: str, sha256: str = "") -> Path:
    """Return the cached file that an `https:` or `pypi:` path names, after fetching it if need be.

    Args:
        path: `https://...`, `pypi:NAME==VERSION` or `pypi:NAME==VERSION/FILENAME`.
        sha256: what the file must hash to; "" takes what the index says, or what was seen first.

    Raises:
        SourceError: it cannot be fetched, or its bytes are not those that were asked for.
    """
    found = cached(path, sha256)
    return found if found is not None else _fetched(path, _address(path, sha256))


def _fetched(path: str, address: _Address) -> Path:
    def write(half: Partial) -> None:
        # The server says how long it is when it answers.
        with progress(f"fetching {address.filename}", 0, "B") as bar:
            download(address.url, half, address.access, bar)

    return keep(path, address.filename, address.sha256, write, shown(address.url))


def keep(path: str, filename: str, sha256: str, write: Write, where: str) -> Path:
    """Return the cached file of `path`, after `write` has brought its bytes, unless another process
    did meanwhile.

    Args:
        path: what the cache knows it by.
        sha256: what it must hash to; "" takes it as it comes.
        where: its address, for errors.

    Raises:
        SourceError: it cannot be fetched, its bytes are not those that were asked for, or the cache
            cannot be written.
    """
    root = cache_root()
    try:
        with partial(root / "partial", _key(path)) as half:
            found = cached(path, sha256)
            if found is not None:
                half.drop()
                return found
            write(half)
            digest = file_digest(half.file)
            if sha256 and digest != sha256:
                half.drop()
                raise SourceError(f"{where}: its sha256 is {digest}, not {sha256}; it was not kept")
            return _kept(path, half, digest, filename)
    except OSError as error:
        why = (
            "the disk is full; free some space and run again"
            if is_full_disk(error)
            else f"the cache cannot be written: {error.strerror}"
        )
        raise SourceError(f"{root}: {why}") from None


def cached(path: str, sha256: str = "") -> Path | None:
    """Return the file of `path` from the cache if its bytes are still what they were; a damaged one
    is removed.
    """
    known = read_json(_name_file(path))
    entry = known if isinstance(known, dict) else {}
    digest, filename = sha256 or str(entry.get("sha256", "")), str(entry.get("filename", ""))
    folder = cache_root() / "files" / digest
    names = (
        [filename]
        if filename and entry.get("sha256") == digest
        else ([p.name for p in folder.glob("*")] if sha256 else [])
    )
    for name in sorted(names):
        file = folder / name
        if file.is_file() and (_look(file) == entry.get("look") or file_digest(file) == digest):
            return file
    if digest and folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _look(file: Path) -> list[int]:
    """Return what tells whether a file changed since it was hashed: size, times, inode."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _key(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _name_file(path: str) -> Path:
    return cache_root() / "names" / f"{_key(path)}.json"


def _address(path: str, sha256: str) -> _Address:
    if not path.startswith("pypi:"):
        return _Address(path, filename_of(path), sha256, Access())
    file = index.find(index.parse(path))
    if sha256 and file.sha256 and sha256 != file.sha256:
        raise SourceError(
            f"{path}: the recipe wants sha256 {sha256[:12]}…, the index has {file.sha256[:12]}…;"
            " correct the recipe"
        )
    return _Address(file.url, file.filename, sha256 or file.sha256, Access(trusted=True))


def filename_of(url: str) -> str:
    """Return the name of the file at a URL, fit for any file system."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[-200:] or "file"


def _kept(path: str, half: Partial, digest: str, filename: str) -> Path:
    flush(half.file)
    target = cache_root() / "files" / digest / filename
    target.parent.mkdir(parents=True, exist_ok=True)
    half.file.rename(target)
    half.drop()
    _name_file(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(
        _name_file(path),
        {"path": path, "sha256": digest, "filename": filename, "look": _look(target)},
    )
    return target
