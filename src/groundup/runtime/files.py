"""Files and their contents: digests, JSON, atomic writes, forcing to disk, hard links."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What a file system answers that cannot link these files.
_NO_HARD_LINKS = (errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


def canonical(value: Any) -> str:
    """Return JSON that is the same ASCII text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the content of a folder: SHA-256 over its sorted lines (path, size, SHA-256)."""
    lines = [f"{name}\t{files[name]['size']}\t{files[name]['sha256']}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def flush(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and those above it; their names survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    # Values may be file names, which need not be valid UTF-8.
    write_whole(path, text.encode("utf-8", "surrogateescape"))


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file, whole or not at all: under another name, forced to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
        flush(temporary)
        temporary.rename(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file, or None when it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Return the object of a JSON file, or None when it is missing, torn or another value."""
    value = read_json(path)
    return value if isinstance(value, dict) else None


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)
        flush(target)


def link_whole(source: Path, target: Path) -> None:
    """Replace a file by a hard link to another (or a copy), whole or not at all."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        link(source, temporary)
        temporary.rename(target)
    finally:
        # A rename does nothing where both names are links to one file already.
        temporary.unlink(missing_ok=True)
