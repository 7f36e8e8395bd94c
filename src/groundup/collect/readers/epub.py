"""Reads EPUB books: zip files of pages that a package document puts in order. Yields one document a
book.

Nothing is unpacked to disk by its name; pages that cannot be read, and those that only lead to
others, are listed.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any
from urllib.parse import unquote

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.deadline import TooLongError, deadline
from groundup.collect.files.streams import (
    ZIP_ERRORS,
    BoundedStream,
    Budget,
    DamagedError,
    Item,
    read_all,
    spool,
)
from groundup.collect.readers.books import books_in, group_of
from groundup.collect.readers.html import MAX_HTML_BYTES, decode_html
from groundup.collect.readers.markup import page_text
from groundup.recipe import Source

_PAGES = (".xhtml", ".html", ".htm", ".xht")
_PAGE_TYPES = frozenset(("application/xhtml+xml", "text/html", "text/x-oeb1-document"))
# Fonts are scrambled in free books, too; that is no lock.
_SCRAMBLED_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_MAX_PACKAGE = 16 << 20


@dataclass(frozen=True, slots=True)
class _Package:
    """What a package document says: title, first author, pages in reading order, and which of them
    is the table of contents.
    """

    title: str
    author: str
    pages: tuple[str, ...]
    navigation: frozenset[str]


class _Parts:
    """The members of the zip file, within the bounds of every archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self.budget = Budget.of(file.seek(0, 2))
        try:
            self._archive = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise DamagedError("damaged", f"not a whole EPUB: {error}") from None
        self.names = self._archive.namelist()

    def read(self, name: str, limit: int) -> bytes:
        """Return a member; raise DamagedError where it is missing, damaged or longer than `limit`."""
        try:
            file = self._archive.open(name)
        except KeyError:
            raise DamagedError("missing", "it is not in the book") from None
        except ZIP_ERRORS as error:
            raise DamagedError("damaged", str(error)) from None
        with file:
            return read_all(BoundedStream(file, self.budget), limit)  # type: ignore[arg-type]

    def xml(self, name: str) -> Any:
        """Return the root of a member that is XML, mended where it can be; None where there is
        nothing to be read.
        """
        from lxml import etree

        try:
            data = self.read(name, _MAX_PACKAGE)
            return etree.fromstring(
                data, etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
            )
        except (DamagedError, etree.XMLSyntaxError, ValueError):
            return None


def read_epub(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the book of an EPUB file, and a rejection for each page of it that is left out.

    Raises:
        DamagedError: it is no zip file, a bomb, longer than a document may be, or its pages are
            under DRM.
    """
    with item.path.open("rb") if item.path else spool(item.stream) as file:
        parts = _Parts(file)
        package = _package(parts)
        if _locked(parts) & set(package.pages):
            raise DamagedError(
                "encrypted",
                "it is under DRM: its pages can only be read with the key of its seller",
            )
        text, left_out = _text(parts, package)
    books = list(books_in(text, item.origin, wrapped=False))
    for found in books:
        if isinstance(found, Document) and len(books) == 1 and package.title:
            yield replace(found, group=group_of(package.title, package.author))
        else:
            yield found
    yield from (
        Reject(reason, number, detail)
        for number, (reason, detail) in enumerate(left_out, len(books))
    )


def _text(parts: _Parts, package: _Package) -> tuple[str, list[tuple[str, str]]]:
    """Return the text of all pages, and (reason, detail) for each that is left out."""
    texts: list[str] = []
    left_out: list[tuple[str, str]] = []
    size = 0
    for name in package.pages:
        try:
            text = "" if name in package.navigation else _page(parts, name)
        except DamagedError as damage:
            if damage.reason == "bomb":
                raise
            left_out.append((damage.reason, f"{name}: {damage.detail}"))
            continue
        size += len(text)
        if size > MAX_DOCUMENT_BYTES:
            raise DamagedError(
                "too-large", f"its text is longer than {MAX_DOCUMENT_BYTES >> 20} MB"
            )
        texts += [text] if text else []
    return "\n\n".join(texts), left_out


def _page(parts: _Parts, name: str) -> str:
    data = parts.read(name, MAX_HTML_BYTES)
    try:
        with deadline():
            return page_text(decode_html(data)) if data.strip() else ""
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None


def _package(parts: _Parts) -> _Package:
    """Return what the package document says; where it says nothing of use, all pages by name."""
    path = _package_path(parts)
    root = parts.xml(path) if path else None
    pages, navigation = (
        _spine(root, posixpath.dirname(path)) if root is not None else ((), frozenset())
    )
    if not pages:
        pages = tuple(sorted({name for name in parts.names if name.lower().endswith(_PAGES)}))
    return _Package(_first(root, "title"), _first(root, "creator"), pages, navigation)


def _package_path(parts: _Parts) -> str:
    container = parts.xml("META-INF/container.xml")
    named = (
        []
        if container is None
        else [element.get("full-path") or "" for element in container.iter("{*}rootfile")]
    )
    return next(
        (path for path in (*named, *sorted(parts.names)) if path.endswith(".opf") or path in named),
        "",
    )


def _spine(root: Any, folder: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the paths of the pages, each once, and of the table of contents among them."""
    entries = {str(entry.get("id")): entry.attrib for entry in root.iter("{*}item")}
    pages: dict[str, bool] = {}
    for reference in root.iter("{*}itemref"):
        entry = entries.get(str(reference.get("idref")), {})
        path = _path(folder, entry.get("href", ""))
        if path.lower().endswith(_PAGES) or (path and entry.get("media-type") in _PAGE_TYPES):
            pages[path] = "nav" in entry.get("properties", "").split()
    return tuple(pages), frozenset(path for path, navigates in pages.items() if navigates)


def _path(folder: str, reference: str) -> str:
    """Return the member that a reference of a file in `folder` names."""
    return (
        posixpath.normpath(posixpath.join(folder, unquote(reference.partition("#")[0])))
        if reference
        else ""
    )


def _first(root: Any, name: str) -> str:
    """Return the first of the Dublin Core elements of a name that says anything."""
    elements = () if root is None else root.iter("{http://purl.org/dc/elements/1.1/}" + name)
    return next(
        (text for element in elements if (text := " ".join("".join(element.itertext()).split()))),
        "",
    )


def _locked(parts: _Parts) -> frozenset[str]:
    """Return the members that are encrypted, fonts aside."""
    root = parts.xml("META-INF/encryption.xml")
    found: set[str] = set()
    for data in () if root is None else root.iter("{*}EncryptedData"):
        methods = [method.get("Algorithm") for method in data.iter("{*}EncryptionMethod")]
        if not any(method in _SCRAMBLED_FONTS for method in methods):
            found.update(
                _path("", reference.get("URI") or "")
                for reference in data.iter("{*}CipherReference")
            )
    return frozenset(found)
