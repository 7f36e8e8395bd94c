"""Opens archives and compressed files within bounds: one item per file inside.

Nothing is unpacked to a path that an archive names. Archives inside archives are opened one level
deep. What cannot be opened becomes a `Refused` with the reason.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

from groundup.collect.files.compression import ZSTD_MAGIC, Bzip2Stream, XzStream, ZstdStream
from groundup.collect.files.globs import COMPRESSED, Selection
from groundup.collect.files.packages import package_format
from groundup.collect.files.sevenzip import MAGIC as SEVEN_ZIP
from groundup.collect.files.sevenzip import seven_zip_members
from groundup.collect.files.streams import (
    BUFFER,
    HEAD,
    ZIP_ERRORS,
    BoundedStream,
    Budget,
    DamagedError,
    Item,
    make_item,
    spool,
)

MAX_MEMBERS = 2_000_000
MAX_DEPTH = 1
# Metadata records of a tar member (long names, dates), which tarfile reads into memory whole.
MAX_TAR_METADATA = 1 << 20
# Headers before one member: a long name, a long link and two of pax are usual.
MAX_TAR_HEADERS = 32
# All headers of one member, with the maps of sparse files, which become lists of pairs.
MAX_TAR_HEADER_BYTES = 4 << 20
# Directory of a zip file, which zipfile reads whole and makes objects of: 1 GB of them.
MAX_ZIP_DIRECTORY = 64 << 20
_TAR_METADATA_TYPES = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LOST = "a header in it cannot be read ({}); what follows is lost"
_MAGIC = {
    "zstd": ZSTD_MAGIC,
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
}
_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], object]] = {
    "zstd": ZstdStream,
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": Bzip2Stream,
    "xz": XzStream,
}
_SUFFIX_AFTER_UNPACKING = {
    **dict.fromkeys((".tgz", ".tbz2", ".tbz", ".txz", ".tzst"), ".tar"),
    **dict.fromkeys(COMPRESSED, ""),
}
# Zip files that are a program or a model as a whole.
_OPAQUE = tuple(".jar .apk .npz .pt .pth .keras".split())


@dataclass(frozen=True, slots=True)
class Refused:
    """A file or an archive member that is not opened, and why."""

    origin: str
    reason: str
    detail: str = ""


# Name of a member, whether it is a folder, and its bytes, or why it has none (reason, detail).
_Member = tuple[str, bool, BoundedStream | tuple[str, str]]


def printable_name(name: str) -> str:
    """Return a file name as text: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_unsafe_path(name: str) -> bool:
    """Return whether a member's name is absolute, or leads out of its archive."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\")) or ".." in parts or (len(name) > 1 and name[1] == ":")


def is_hidden(name: str) -> bool:
    """Return whether a path has a component that starts with a dot, as `.git` does."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def open_items(
    path: Path, file: IO[bytes], origin: str, size: int, selection: Selection
) -> Iterator[Item | Refused]:
    """Yield what a raw file holds: itself, or the members of the archive that it is.

    Each item must be read before the next is requested. Damage ends an archive with a Refused for
    the rest of it. `size`, in bytes, bounds what the file may unpack to.
    """
    opener = _Opener(Budget.of(size), selection)
    try:
        yield from opener.open(BoundedStream(file), origin, 0, file, path)
    except DamagedError as damage:
        yield Refused(origin, damage.reason, damage.detail)


def open_part(data: bytes, origin: str, budget: Budget) -> Iterator[Item | Refused]:
    """Yield what a file inside a record holds, as `open_items`; it charges the file's budget."""
    try:
        stream = BoundedStream(io.BytesIO(data), budget)
        yield from _Opener(budget, Selection()).open(stream, origin, 0)
    except DamagedError as damage:
        if damage.reason == "bomb":
            raise
        yield Refused(origin, damage.reason, damage.detail)


def find_codec(head: bytes) -> str:
    """Return what a file is compressed with, by its first bytes; "" if it is not."""
    return next((name for name, magic in _MAGIC.items() if magic.match(head)), "")


def unpack(stream: BoundedStream, codec: str, budget: Budget) -> BoundedStream:
    """Return what a stream unpacks to, or the stream itself where `codec` is ""."""
    if not codec:
        return stream
    plain = _DECOMPRESSORS[codec](cast("IO[bytes]", io.BufferedReader(stream)))
    return BoundedStream(cast("IO[bytes]", plain), budget)


@dataclass
class _Opener:
    """Opens one raw file, within bounds for everything inside it."""

    budget: Budget
    selection: Selection
    members: int = 0

    def open(
        self,
        stream: BoundedStream,
        origin: str,
        depth: int,
        seekable: IO[bytes] | None = None,
        path: Path | None = None,
    ) -> Iterator[Item | Refused]:
        """Unpack a stream if it is compressed, then yield it or its members."""
        name = origin.rpartition("/")[2]
        if codec := find_codec(stream.peek(6)):
            stream = unpack(stream, codec, self.budget)
            seekable = path = None
            for suffix, replacement in _SUFFIX_AFTER_UNPACKING.items():
                if name.lower().endswith(suffix):
                    name = name[: -len(suffix)] + replacement
                    break
        head = stream.peek(HEAD)
        zipped = head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
        opaque = zipped and (name.lower().endswith(_OPAQUE) or package_format(name, head) != "")
        tarred = head[257:262] == b"ustar" or (name.lower().endswith(".tar") and len(head) >= 512)
        seven = head.startswith(SEVEN_ZIP)
        if opaque or not (zipped or tarred or seven):
            if self.selection.keeps(origin):
                yield make_item(origin, name, stream, path, self.budget)
        elif depth > MAX_DEPTH:
            yield Refused(origin, "nested", "archives are opened one level deep only")
        else:
            if seven:
                members = seven_zip_members(seekable or spool(stream), self.budget, name)
            elif zipped:
                members = _zip_members(seekable or spool(stream), self.budget)
            else:
                members = _tar_members(io.BufferedReader(stream), self.budget)
            yield from self.open_members(origin, members, depth + 1)

    def open_members(
        self, archive: str, members: Iterable[_Member], depth: int
    ) -> Iterator[Item | Refused]:
        """Yield what the selected members of an archive hold, and those that are refused.

        A repeated name is numbered: `a`, `a#2`.
        """
        counts = Counter[str]()
        for name, is_folder, content in members:
            self.members += 1
            if self.members > MAX_MEMBERS:
                raise DamagedError("bomb", f"it holds more than {MAX_MEMBERS:,} members")
            # A header of a tar file may give all members the same long name.
            self.budget.take(len(name))
            unsafe = is_unsafe_path(name)
            if is_folder or (is_hidden(name) and not unsafe):
                continue
            inner = "/".join(part for part in name.split("/") if part not in ("", "."))
            origin = f"{archive}!/{printable_name(inner)}"
            counts[origin] += 1
            if counts[origin] > 1:
                origin = f"{origin}#{counts[origin]}"
                # Another member may have that name already.
                while origin in counts:
                    origin += "'"
                counts[origin] = 1
            if not self.selection.opens(origin):
                continue
            if unsafe:
                detail = "its name is absolute, or leads out of the archive"
                yield Refused(origin, "unsafe-path", detail)
            elif isinstance(content, tuple):
                yield Refused(origin, *content)
            else:
                try:
                    yield from self.open(content, origin, depth)
                except DamagedError as damage:
                    if damage.reason == "bomb":
                        raise
                    yield Refused(origin, damage.reason, damage.detail)


def _zip_members(file: IO[bytes], budget: Budget) -> Iterator[_Member]:
    """Yield the members of a zip file in the order of its table of contents."""
    try:
        # zipfile has no other way to tell the size before it reads the table of contents.
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        size = end[zipfile._ECD_SIZE] if end else 0  # type: ignore[attr-defined]
        # ZipFile refuses a size that damage has made longer than the file.
        if MAX_ZIP_DIRECTORY < size <= file.seek(0, io.SEEK_END):
            detail = f"its table of contents is longer than {MAX_ZIP_DIRECTORY >> 20} MB"
            raise DamagedError("too-large", detail)
        zip_file = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        detail = "a cut-off zip file has lost its table of contents, and cannot be read"
        raise DamagedError("damaged", f"{error}: {detail}") from None
    starts = set()
    with zip_file:
        for member in zip_file.infolist():
            name = member.filename
            # A table of contents of 60 MB may name one member a million times.
            if member.header_offset in starts:
                raise DamagedError("damaged", f"{name}: another member has the same bytes")
            starts.add(member.header_offset)
            # Not `is_dir`, which fails on a name that damage has emptied.
            is_folder = name.endswith("/") or name.startswith("__MACOSX/")
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                yield name, is_folder, ("link", "a symbolic link")
            elif member.flag_bits & 0x1:
                yield name, is_folder, ("encrypted", "it wants a password")
            else:
                try:
                    data = zip_file.open(member)
                except ZIP_ERRORS as error:
                    yield name, is_folder, ("damaged", str(error))
                    continue
                with data:
                    yield name, is_folder, BoundedStream(data, budget)


def _tar_members(stream: IO[bytes], budget: Budget) -> Iterator[_Member]:
    """Yield the members of a tar file; each is read before the next one is requested.

    Raises DamagedError if a header cannot be read, or the archive ends early; the members before
    are whole.
    """
    try:
        with tarfile.TarFile(fileobj=cast("IO[bytes]", _Forward(stream)), tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps a list of all members; a million of them take a gigabyte.
                tar.members = []  # type: ignore[attr-defined]
                if (data := tar.extractfile(member) if member.isreg() else None) is None:
                    reason = "link" if member.issym() or member.islnk() else "special-file"
                    yield member.name, member.isdir(), (reason, member.linkname)
                    continue
                # The bytes of the archive are charged already, not the holes of a sparse member.
                sparse = budget if member.issparse() else None
                yield member.name, False, BoundedStream(data, sparse)
            stopped = getattr(tar, "stopped", None)
            if type(stopped).__name__ not in ("EOFHeaderError", "EmptyHeaderError"):
                raise DamagedError("damaged", _LOST.format(stopped))
    except (tarfile.TarError, UnicodeError, OverflowError) as error:
        reason = "truncated" if "end of data" in str(error) else "damaged"
        raise DamagedError(reason, str(error)) from None


class _Header(tarfile.TarInfo):
    """A header that records on the archive why it could not be read: tarfile just ends silently."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header, with the headers before it that describe it."""
        in_a_row = getattr(tar, "in_a_row", 0) + 1
        tar.in_a_row = in_a_row  # type: ignore[attr-defined]
        file = cast("_Forward", tar.fileobj)
        if in_a_row == 1:
            file.limit = file.tell() + MAX_TAR_HEADER_BYTES
        try:
            # tarfile calls itself for each of them, until Python's stack is full.
            if in_a_row > MAX_TAR_HEADERS:
                message = f"more than {MAX_TAR_HEADERS} headers describe one member"
                raise tarfile.InvalidHeaderError(message)  # type: ignore[attr-defined]
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            # The first: TarFile reads one member on its own, and reads on after an error in it.
            tar.stopped = getattr(tar, "stopped", None) or error  # type: ignore[attr-defined]
            raise
        except (ValueError, LookupError) as error:
            # The only one of its errors that does not end the archive silently.
            message = _LOST.format(error)
            raise tarfile.SubsequentHeaderError(message) from None  # type: ignore[attr-defined]
        finally:
            tar.in_a_row = in_a_row - 1  # type: ignore[attr-defined]
            if in_a_row == 1:
                file.limit = None
            # tarfile copies global headers to each member; others than these it does not use.
            tar.pax_headers = {
                key: value for key, value in tar.pax_headers.items() if key in tarfile.PAX_FIELDS
            }

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header; refuse one that announces too much metadata."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _TAR_METADATA_TYPES and header.size > MAX_TAR_METADATA:
            reason = f"{header.size:,} bytes that describe a member"
            raise tarfile.InvalidHeaderError(reason)  # type: ignore[attr-defined]
        return header


class _Forward:
    """A forward-only file that stops at its end.

    tarfile's own (mode `r|`) keeps counting beyond the end: a member of eight exabytes takes years.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._position = stream, 0
        # Position that headers may be read up to.
        self.limit: int | None = None

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the end."""
        if self.limit is not None and self._position + count > self.limit:
            reason = f"more than {MAX_TAR_HEADER_BYTES:,} bytes that describe a member"
            raise tarfile.InvalidHeaderError(reason)  # type: ignore[attr-defined]
        data = self._stream.read(count)
        self._position += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, position: int) -> int:
        """Read up to `position` or the end; raise tarfile.StreamError to go backwards."""
        if position < self._position:
            raise tarfile.StreamError("it leads back to what was read before")
        while self._position < position and self.read(min(BUFFER, position - self._position)):
            pass
        return self._position
