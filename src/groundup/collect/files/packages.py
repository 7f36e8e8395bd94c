"""Zip files that are one document: their members, read within the bounds of every archive.

EPUB, Office Open XML (docx, pptx, xlsx) and OpenDocument (odt, odp, ods) are such packages of XML.
Nothing is unpacked to disk, no entity that a member declares is expanded, and nothing outside the
file is fetched.
"""

from __future__ import annotations

import posixpath
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast
from urllib.parse import unquote

from groundup.collect.files.streams import (
    ZIP_ERRORS,
    BoundedStream,
    Budget,
    DamagedError,
    read_all,
)

ZIP_START = (b"PK\x03\x04", b"PK\x05\x06")
# A member that is parsed as a whole; text of documents is parsed piece by piece.
MAX_XML = 16 << 20
# The text of one document with its markup: 20 times the largest that is common.
MAX_STREAMED_XML = 256 << 20
# Media types of the first member of a package, which is stored uncompressed, and format names.
_MEDIA_TYPES = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
}
_MEDIA_TYPE = re.compile(r"application/(?:epub\+zip|vnd\.oasis\.opendocument\.[a-z]+)")
# The first member of Office Open XML. An archive may hold such a file uncompressed, under its name.
_FIRST_PARTS = re.compile(
    rb"\[Content_Types\]\.xml\Z|_rels/|docProps/|(?:word|ppt|xl)/[^.]+\.xml\Z"
)
# Folders of Office Open XML, and its suffixes with those of macros, templates and shows.
_FOLDERS = {b"word/": "docx", b"ppt/": "pptx", b"xl/": "xlsx"}
_SUFFIXES = {
    "epub": "epub",
    **dict.fromkeys(("docx", "docm", "dotx", "dotm"), "docx"),
    **dict.fromkeys(("pptx", "pptm", "ppsx", "ppsm", "potx"), "pptx"),
    **dict.fromkeys(("xlsx", "xlsm", "xltx", "xlsb"), "xlsx"),
    **dict.fromkeys(("odt", "ott"), "odt"),
    **dict.fromkeys(("odp", "otp"), "odp"),
    **dict.fromkeys(("ods", "ots"), "ods"),
}


def package_format(name: str, head: bytes) -> str:
    """Return the format of a zip file that is one document, such as `docx`; "" for an archive.

    The first members decide; the suffix does where none of them is in `head`.
    """
    if not head.startswith(ZIP_START):
        return ""
    members = list(_first_members(head))
    for member, data in members[:1]:
        media_type = _MEDIA_TYPE.match(data[:80].decode("latin-1"))
        if member == b"mimetype" and media_type:
            # Templates have the type of their documents, with an ending.
            return _MEDIA_TYPES.get(media_type[0].removesuffix("-template"), "document")
    names = [member for member, _ in members]
    is_office = _FIRST_PARTS.match(names[0]) is not None if names else False
    if is_office and (b"[Content_Types].xml" in names or b"_rels/.rels" in names):
        starts = (name.partition(b"/")[0] + b"/" for name in names)
        if format := next((_FOLDERS[start] for start in starts if start in _FOLDERS), ""):
            return format
    return _SUFFIXES.get(name.lower().rpartition(".")[2], "")


def _first_members(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each member that starts in the first bytes, and what follows its name."""
    at = 0
    while (at := head.find(ZIP_START[0], at)) >= 0 and at + 30 <= len(head):
        name_size, extra_size = struct.unpack_from("<HH", head, at + 26)
        end = at + 30 + name_size
        yield head[at + 30 : end], head[end + extra_size : end + extra_size + 80]
        at = end


class Package:
    """The members of a zip file by name. DamagedError if it is no whole zip file."""

    def __init__(self, file: IO[bytes], title: str) -> None:
        self._budget = Budget.of(file.seek(0, 2))
        try:
            self._zip = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise DamagedError("damaged", f"not a whole {title}: {error}") from None
        self.names = self._zip.namelist()
        self.damage: DamagedError | None = None  # of a member that was read up to it

    def open(self, name: str) -> BoundedStream:
        """Return the stream of a member; DamagedError if it is missing, damaged or encrypted."""
        try:
            info = self._zip.getinfo(name)
            if info.flag_bits & 0x1:
                raise DamagedError("encrypted", "it wants a password")
            return BoundedStream(self._zip.open(info), self._budget)
        except KeyError:
            raise DamagedError("missing", "it is not in the file") from None
        except ZIP_ERRORS as error:
            raise DamagedError("damaged", str(error)) from None

    def read(self, name: str, limit: int = MAX_XML) -> bytes:
        """Return a member; raise DamagedError if it is missing, damaged or longer than `limit`."""
        with self.open(name) as stream:
            return read_all(cast("IO[bytes]", stream), limit)

    def xml(self, name: str) -> Any:
        """Return the root of an XML member, repaired where possible; None when it is unreadable."""
        from lxml import etree

        try:
            parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
            return etree.fromstring(self.read(name), parser)
        except (DamagedError, etree.XMLSyntaxError, ValueError):
            return None

    def elements(self, name: str, tag: str) -> list[Any]:
        """Return the elements of an XML member that have a tag; [] when it cannot be read."""
        root = self.xml(name)
        return [] if root is None else list(root.iter(tag))

    def stream_elements(self, name: str, tags: tuple[str, ...]) -> Iterator[Any]:
        """Yield the elements of an XML member that have one of the tags, as each one ends.

        The caller clears what it has read. What stands before damage is yielded, then `damage` is
        set. DamagedError if the member is missing, or a bomb.
        """
        from lxml import etree

        with self.open(name) as stream:
            source = _Source(stream)
            events = etree.iterparse(
                source,
                events=("end",),
                tag=tags,
                recover=True,
                resolve_entities=False,
                no_network=True,
                remove_comments=True,
                remove_pis=True,
            )
            try:
                for _, element in events:
                    yield element
            except (etree.XMLSyntaxError, ValueError) as error:
                self.damage = DamagedError("damaged", f"{name}: {error}"[:300])
            fatal = events.error_log.filter_from_fatals()
            if len(fatal):
                message = f"{name}, line {fatal[0].line}: {fatal[0].message}"[:300]
                reason = "nesting" if "depth" in message.lower() else "damaged"
                self.damage = DamagedError(reason, message)
            self.damage = source.damage or self.damage
            if self.damage is not None and self.damage.reason in ("bomb", "too-large"):
                raise self.damage

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Return what a part of Office Open XML refers to: id → (type, member)."""
        folder, _, name = part.rpartition("/")
        entries = self.elements(f"{folder}/_rels/{name}.rels".lstrip("/"), "{*}Relationship")
        return {
            str(entry.get("Id")): (
                str(entry.get("Type")).rpartition("/")[2],
                member_path(folder, entry.get("Target") or ""),
            )
            for entry in entries
            if entry.get("TargetMode") != "External"
        }


class _Source:
    """A stream for a parser, to which its damage is an end; it keeps what it was."""

    def __init__(self, stream: BoundedStream) -> None:
        self._stream, self._left = stream, MAX_STREAMED_XML
        self.damage: DamagedError | None = None

    def read(self, count: int) -> bytes:
        """Return the next bytes; b"" at the end and where the stream is damaged."""
        if self.damage is not None:
            return b""
        try:
            data = self._stream.read(count) or b""
            self._left -= len(data)
            if self._left < 0:
                raise DamagedError("too-large", f"it has over {MAX_STREAMED_XML >> 20} MB of XML")
            return data
        except DamagedError as damage:
            self.damage = damage
            return b""


def member_path(folder: str, reference: str) -> str:
    """Return the member that a reference in a file of `folder` names; "" for no reference."""
    path = unquote(reference.partition("#")[0])
    path = path if path.startswith("/") else posixpath.join(folder, path)
    return posixpath.normpath(path).lstrip("/") if reference else ""
