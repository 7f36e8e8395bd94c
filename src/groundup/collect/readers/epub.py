"""EPUB books: zip files of pages, in the order that a package document gives; one document a book.

The package document lists every file (manifest) and the reading order (spine):

    <package><metadata><dc:title>A Tale</dc:title><dc:creator>Jane Doe</dc:creator></metadata>
    <manifest><item id="p1" href="one.xhtml" media-type="application/xhtml+xml"/>...</manifest>
    <spine><itemref idref="p1"/>...</spine></package>

Pages that cannot be read, pages of links, and those that come after 60 s of a book, are listed as
rejections.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.files.packages import Package, member_path
from groundup.collect.files.streams import (
    RECORD_SECONDS,
    DamagedError,
    Item,
    TooLongError,
    deadline,
    spool,
)
from groundup.collect.readers.books import edition_group, split_books
from groundup.collect.readers.web.html import MAX_HTML_BYTES, decode_html, page_text
from groundup.recipe import Source

_PAGE_SUFFIXES = (".xhtml", ".html", ".htm", ".xht")
_PAGE_TYPES = frozenset(("application/xhtml+xml", "text/html", "text/x-oeb1-document"))
# Free books scramble fonts too; that is no DRM.
_FONT_SCRAMBLING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")


class _Epub(Package):
    """The members of a book.

    Its package document gives `title`, the first `author`, and `pages` in reading order, each with
    whether it is the table of contents. Without a usable one, the pages are ordered by name.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, "EPUB")
        rootfiles = self.elements("META-INF/container.xml", "{*}rootfile")
        declared = [rootfile.get("full-path") or "" for rootfile in rootfiles]
        # Without a package document that the container names, the first .opf file is taken.
        candidates = (*declared, *sorted(name for name in self.names if name.endswith(".opf")))
        path = next(iter(candidates), "")
        root = self.xml(path) if path else None
        self.pages: dict[str, bool] = {}
        if root is not None:
            entries = {str(entry.get("id")): entry.attrib for entry in root.iter("{*}item")}
            for reference in root.iter("{*}itemref"):
                entry = entries.get(str(reference.get("idref")), {})
                page = member_path(posixpath.dirname(path), entry.get("href", ""))
                is_page = page.lower().endswith(_PAGE_SUFFIXES)
                if is_page or (page and entry.get("media-type") in _PAGE_TYPES):
                    self.pages[page] = "nav" in entry.get("properties", "").split()
        if not self.pages:
            pages = (name for name in sorted(self.names) if name.lower().endswith(_PAGE_SUFFIXES))
            self.pages = dict.fromkeys(pages, False)
        for data in self.elements("META-INF/encryption.xml", "{*}EncryptedData"):
            methods = {method.get("Algorithm") for method in data.iter("{*}EncryptionMethod")}
            references = data.iter("{*}CipherReference")
            members = {member_path("", reference.get("URI") or "") for reference in references}
            if members & self.pages.keys() and not methods.intersection(_FONT_SCRAMBLING):
                detail = "it is under DRM: its pages can only be read with the key of its seller"
                raise DamagedError("encrypted", detail)
        self.title, self.author = _first_value(root, "title"), _first_value(root, "creator")


def read_epub(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the book of an EPUB file, and a rejection for each page of it that is left out.

    Raises DamagedError if it is no zip file, a bomb, longer than a document may be, or under DRM.
    """
    texts: list[str] = []
    left_out: list[Reject] = []
    size, end = 0, time.monotonic() + RECORD_SECONDS
    with item.path.open("rb") if item.path else spool(item.stream) as file:
        epub = _Epub(file)
        for name in (page for page, is_contents in epub.pages.items() if not is_contents):
            try:
                data = epub.read(name, MAX_HTML_BYTES)
                with deadline(end - time.monotonic()):
                    text = page_text(decode_html(data)) if data.strip() else ""
                texts.append(text)
                size += len(text)
            except TooLongError as error:
                left_out.append(Reject("timeout", detail=f"{name}: {error}"))
            except DamagedError as damage:
                if damage.reason == "bomb":
                    raise
                left_out.append(Reject(damage.reason, detail=f"{name}: {damage.detail}"))
            if size > MAX_DOCUMENT_BYTES:
                limit = f"{MAX_DOCUMENT_BYTES >> 20} MB"
                raise DamagedError("too-large", f"its text is longer than {limit}")
    text = "\n\n".join(filter(None, texts))
    # A book of Project Gutenberg has its markers in EPUB, too.
    books = list(split_books(text, item.origin, wrapped=False))
    if len(books) == 1 and isinstance(books[0], Document) and epub.title:
        books[0] = replace(books[0], group=edition_group(epub.title, epub.author))
    yield from books
    for index, reject in enumerate(left_out, len(books)):
        yield replace(reject, record=index)


def _first_value(root: Any, name: str) -> str:
    """Return the first Dublin Core element of this name that is not empty."""
    elements = () if root is None else root.iter("{http://purl.org/dc/elements/1.1/}" + name)
    texts = (" ".join("".join(element.itertext()).split()) for element in elements)
    return next(filter(None, texts), "")
