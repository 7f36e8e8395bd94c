"""Downloads into a cache: whole or absent, verified by SHA-256, reused without a network.

Reads `https:` and `pypi:` addresses; writes `CACHE/files/SHA256/NAME` and `CACHE/names/*.json`, which remember what an
address gave when it was first fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from groundup.collect import index
from groundup.collect.transfer import Access, download, shown
from groundup.errors import SourceError, is_full_disk
from groundup.store import file_digest, flush, read_json, write_json


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the bytes are, what they should hash to ("" when nobody said), and who vouches for the host."""

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
    found = _cached(path, sha256)
    if found is not None:
        return found
    try:
        return _download(path, sha256)
    except OSError as error:
        why = "the disk is full; free some space and run again" if is_full_disk(error) else f"the cache cannot be written: {error.strerror}"
        raise SourceError(f"{cache_root()}: {why}") from None


def _cached(path: str, sha256: str) -> Path | None:
    """Return the file from the cache if its bytes are still what they were; a damaged one is removed."""
    known = read_json(_name_file(path))
    entry = known if isinstance(known, dict) else {}
    digest, filename = sha256 or str(entry.get("sha256", "")), str(entry.get("filename", ""))
    folder = cache_root() / "files" / digest
    names = [filename] if filename and entry.get("sha256") == digest else ([p.name for p in folder.glob("*")] if sha256 else [])
    for name in sorted(names):
        file = folder / name
        if file.is_file() and file_digest(file) == digest:
            return file
    if digest and folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _name_file(path: str) -> Path:
    return cache_root() / "names" / f"{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def _address(path: str, sha256: str) -> _Address:
    if not path.startswith("pypi:"):
        return _Address(path, _filename(path), sha256, Access())
    file = index.find(index.parse(path))
    if sha256 and file.sha256 and sha256 != file.sha256:
        raise SourceError(f"{path}: the recipe wants sha256 {sha256[:12]}…, the index has {file.sha256[:12]}…; correct the recipe")
    return _Address(file.url, file.filename, sha256 or file.sha256, Access(trusted=True))


def _filename(url: str) -> str:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "file"


def _download(path: str, sha256: str) -> Path:
    address = _address(path, sha256)
    root = cache_root()
    (root / "partial").mkdir(parents=True, exist_ok=True)
    partial = root / "partial" / uuid.uuid4().hex
    try:
        with partial.open("wb") as file:
            digest = download(address.url, file, address.access)
        if address.sha256 and digest != address.sha256:
            raise SourceError(f"{shown(address.url)}: its sha256 is {digest}, not {address.sha256}; it was not kept")
        return _keep(path, partial, digest, address.filename)
    finally:
        partial.unlink(missing_ok=True)


def _keep(path: str, partial: Path, digest: str, filename: str) -> Path:
    flush(partial)
    target = cache_root() / "files" / digest / filename
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(target)
    _name_file(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(_name_file(path), {"path": path, "sha256": digest, "filename": filename})
    return target
