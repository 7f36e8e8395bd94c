"""Opens archives and compressed files. Reads a raw file; yields items, one for each file inside,
within bounds.

Nothing is ever unpacked to a path that an archive names. Archives inside archives are opened one
level deep.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from groundup.collect.files import tar
from groundup.collect.files.bzip2 import Bzip2Stream
from groundup.collect.files.formats import is_epub
from groundup.collect.files.globs import COMPRESSED, Selection
from groundup.collect.files.streams import (
    ZIP_ERRORS,
    BoundedStream,
    Budget,
    DamagedError,
    Item,
    make_item,
    spool,
)
from groundup.collect.files.xz import XzStream
from groundup.collect.files.zstd import MAGIC, ZstdStream

MAX_MEMBERS = 2_000_000
MAX_DEPTH = 1
_OPENERS: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast("IO[bytes]", Bzip2Stream(file)),
    b"\xfd7zXZ\x00": lambda file: cast("IO[bytes]", XzStream(file)),
}
_SHORT = {
    ".tgz": ".tar",
    ".tbz2": ".tar",
    ".tbz": ".tar",
    ".txz": ".tar",
    ".tzst": ".tar",
    **dict.fromkeys(COMPRESSED, ""),
}
# Zip files that are documents or programs of their own.
_OPAQUE = (
    ".docx",
    ".xlsx",
    ".pptx",
    ".odt",
    ".ods",
    ".odp",
    ".jar",
    ".apk",
    ".npz",
    ".pt",
    ".pth",
    ".keras",
)


@dataclass(frozen=True, slots=True)
class Refused:
    """Something in an archive (or a folder) that is not opened, and why."""

    origin: str
    reason: str
    detail: str = ""


@dataclass
class _Opening:
    """What stays the same while one raw file is opened."""

    budget: Budget
    wanted: Selection
    members: int = 0

    def count(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise DamagedError("bomb", f"it holds more than {MAX_MEMBERS:,} members")


@dataclass
class _Names:
    """Origins of members: safe text, repeated ones numbered."""

    archive: str
    seen: dict[str, int] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        origin = f"{self.archive}!/{printable_name(name)}"
        number = self.seen[origin] = self.seen.get(origin, 0) + 1
        # Another member may be called by the number already.
        return origin if number == 1 else self._unused(f"{origin}#{number}")

    def _unused(self, origin: str) -> str:
        while origin in self.seen:
            origin += "'"
        self.seen[origin] = 1
        return origin


def printable_name(name: str) -> str:
    """Return a file name as text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def unsafe_path(name: str) -> bool:
    """Return whether a member's name is absolute, or climbs out of its archive."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or (len(name) > 1 and name[1] == ":")


def hidden(name: str) -> bool:
    """Return whether a path has a component that starts with a full stop, as `.git` does."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def open_items(
    path: Path, file: IO[bytes], origin: str, size: int, wanted: Selection
) -> Iterator[Item | Refused]:
    """Yield what lies in a raw file: itself, or the members of the archive that it is.

    Each item must be read before the next is asked for. Damage ends the archive with a Refused for
    the rest.

    Args:
        path: where the file lies, for readers that seek.
        file: the file, opened for reading.
        origin: its origin.
        size: its bytes, which bound what it may unpack to.
        wanted: which members belong to the source.
    """
    opening = _Opening(Budget.of(size), wanted)
    try:
        yield from _open(BoundedStream(file), file, path, origin, opening, 0)
    except DamagedError as damage:
        yield Refused(origin, damage.reason, damage.detail)


def _open(
    guarded: BoundedStream,
    seekable: IO[bytes] | None,
    path: Path | None,
    origin: str,
    opening: _Opening,
    depth: int,
) -> Iterator[Item | Refused]:
    name = origin.rpartition("/")[2]
    opener = _opener(guarded.peek(6))
    if opener is not None:
        guarded = BoundedStream(opener(io.BufferedReader(guarded)), opening.budget)
        name, seekable, path = _bare(name), None, None
    container = _container(name, guarded.peek(512))
    if container is None:
        if opening.wanted.keeps(origin):
            yield make_item(origin, name, guarded, path)
    elif depth > MAX_DEPTH:
        yield Refused(origin, "nested", "archives are opened one level deep only")
    elif container == "tar":
        yield from _tar(io.BufferedReader(guarded), origin, opening, depth)
    else:
        yield from _zip(seekable or spool(guarded), origin, opening, depth)


def _opener(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    if MAGIC.match(head):
        return lambda file: cast("IO[bytes]", ZstdStream(file))
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


def _bare(name: str) -> str:
    for suffix, replacement in _SHORT.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] + replacement
    return name


def _container(name: str, head: bytes) -> str | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None if name.lower().endswith(_OPAQUE) or is_epub(name, head) else "zip"
    if head[257:262] == b"ustar" or (name.lower().endswith(".tar") and len(head) == 512):
        return "tar"
    return None


def _tar(stream: IO[bytes], origin: str, opening: _Opening, depth: int) -> Iterator[Item | Refused]:
    names = _Names(origin)
    for member, data in tar.members(stream):
        opening.count()
        if not member.isdir():
            yield from _tar_member(member, data, names, opening, depth)


def _tar_member(
    member: tarfile.TarInfo, data: IO[bytes] | None, names: _Names, opening: _Opening, depth: int
) -> Iterator[Item | Refused]:
    if hidden(member.name) and not unsafe_path(member.name):
        return
    origin = names.origin(member.name)
    if not opening.wanted.opens(origin):
        return
    if unsafe_path(member.name):
        yield Refused(origin, "unsafe-path", "its name is absolute, or leads out of the archive")
    elif data is None:
        yield Refused(
            origin, "link" if member.issym() or member.islnk() else "special-file", member.linkname
        )
    else:
        # Only the holes of a sparse file are more than was unpacked before.
        yield from _member(
            BoundedStream(data, opening.budget if member.issparse() else None),
            origin,
            opening,
            depth,
        )


def _member(
    guarded: BoundedStream, origin: str, opening: _Opening, depth: int
) -> Iterator[Item | Refused]:
    try:
        yield from _open(guarded, None, None, origin, opening, depth + 1)
    except DamagedError as damage:
        if damage.reason == "bomb":
            raise
        yield Refused(origin, damage.reason, damage.detail)


def _zip(file: IO[bytes], origin: str, opening: _Opening, depth: int) -> Iterator[Item | Refused]:
    names = _Names(origin)
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise DamagedError(
            "damaged",
            f"{error}: a cut-off zip file has lost its table of contents, and cannot be read",
        ) from None
    with archive:
        for member in archive.infolist():
            opening.count()
            # Not `is_dir`, which fails on a name that damage has emptied.
            if not member.filename.endswith("/") and not member.filename.startswith("__MACOSX/"):
                yield from _zip_member(archive, member, names, opening, depth)


def _zip_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, names: _Names, opening: _Opening, depth: int
) -> Iterator[Item | Refused]:
    if hidden(member.filename) and not unsafe_path(member.filename):
        return
    origin = names.origin(member.filename)
    if not opening.wanted.opens(origin):
        return
    if unsafe_path(member.filename):
        yield Refused(origin, "unsafe-path", "its name is absolute, or leads out of the archive")
    elif (member.external_attr >> 16) & 0o170000 == 0o120000:
        yield Refused(origin, "link", "a symbolic link")
    elif member.flag_bits & 0x1:
        yield Refused(origin, "encrypted", "it wants a password")
    else:
        try:
            data = archive.open(member)
        except ZIP_ERRORS as error:
            yield Refused(origin, "damaged", str(error))
            return
        with data:
            yield from _member(BoundedStream(data, opening.budget), origin, opening, depth)
