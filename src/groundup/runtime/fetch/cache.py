"""Cache of downloaded files: whole or absent, verified by SHA-256, reused without a network.

The cache is `$GROUNDUP_CACHE`, else a folder of the user:

    CACHE/files/SHA256/NAME    the files
    CACHE/names/KEY.json       which file an address gave when it was first fetched
    CACHE/partial/KEY/         downloads that are not complete
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from groundup.errors import SourceError, is_full_disk
from groundup.runtime.fetch import index
from groundup.runtime.fetch.download import PartialFile, download, partial_file
from groundup.runtime.fetch.https import Access, redact_url
from groundup.runtime.files import file_digest, flush, read_json, write_json
from groundup.runtime.progress import progress


def cache_root() -> Path:
    """Return the cache: $GROUNDUP_CACHE, else groundup in $XDG_CACHE_HOME, else in ~/.cache."""
    if path := os.environ.get("GROUNDUP_CACHE"):
        return Path(path).absolute()
    if path := os.environ.get("XDG_CACHE_HOME"):
        return Path(path).absolute() / "groundup"
    return Path.home() / ".cache" / "groundup"


def fetch(path: str, sha256: str = "") -> Path:
    """Return the cached file that an `https:` or `pypi:` path names, after fetching it if needed.

    Args:
        path: `https://...`, `pypi:NAME==VERSION` or `pypi:NAME==VERSION/FILENAME`.
        sha256: of the file; "" takes what the index says, or what was seen first.

    Raises:
        SourceError: it cannot be fetched, or has another SHA-256.
    """
    file = cached(path, sha256)
    if file is not None:
        return file
    url, filename, access = path, filename_of(path), Access()
    if path.startswith("pypi:"):
        package = index.find_file(path)
        if sha256 and package.sha256 and sha256 != package.sha256:
            raise SourceError(
                f"{path}: the recipe wants sha256 {sha256[:12]}…, the index has"
                f" {package.sha256[:12]}…; correct the recipe"
            )
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

    Args:
        path: that the cache knows the file by.
        filename: in the cache.
        sha256: of the file; "" takes it as it comes.
        write: downloads the file.
        where: its address, for errors.

    Raises:
        SourceError: it cannot be fetched, has another SHA-256, or the cache cannot be written.
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
    value = read_json(_entry_file(path))
    entry = value if isinstance(value, dict) else {}
    digest, filename = sha256 or str(entry.get("sha256", "")), str(entry.get("filename", ""))
    folder = cache_root() / "files" / digest
    names = []
    if filename and entry.get("sha256") == digest:
        names = [filename]
    elif sha256:
        # Another address may have given the same file.
        names = sorted(file.name for file in folder.glob("*"))
    for name in names:
        file = folder / name
        if file.is_file() and (_stat(file) == entry.get("look") or file_digest(file) == digest):
            return file
    if digest and folder.is_dir():
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
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[-200:] or "file"
