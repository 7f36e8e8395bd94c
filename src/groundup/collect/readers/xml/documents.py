"""Documents in XML: DocBook (4 and 5), JATS, TEI (P5, and P4) and FictionBook.

One document a file, or one an article of a set (`pmc-articleset`) and a text of a corpus
(`teiCorpus`), which are cut before they are parsed: a broken one costs itself. The title, the
license and the language come from what the document says of itself; see `xml_dialects.py` for what
is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import strip_controls
from groundup.collect.files.formats import XML_PROLOGUE
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item, read_all
from groundup.collect.licenses import detect_license
from groundup.collect.readers.books import edition_group
from groundup.collect.readers.markup.plain import clean_input, with_title
from groundup.collect.readers.office.office import attribute, bounded_parsing
from groundup.collect.readers.web.feeds import parse_xml, xml_parser
from groundup.collect.readers.web.html import decode_html
from groundup.collect.readers.xml.dialects import DOCBOOK, FICTION_BOOK, JATS, TEI, Dialect
from groundup.collect.readers.xml.text import XmlWriter, identified
from groundup.recipe import Source

# Declared where a part of a set is parsed alone.
_NAMESPACES = (
    ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"'
    ' xmlns:ali="http://www.niso.org/schemas/ali/1.0/" xmlns:l="http://www.w3.org/1999/xlink"'
)
_BINARY = re.compile(r"<binary\b[^<>]*>[^<]*(?:</binary\s*>|\Z)")
_DECLARED = re.compile(r"<!ENTITY\s+([\w.-]{1,100})\s+(?:\"([^\"&%<]{0,500})\"|'([^'&%<]{0,500})')")
_ENTITY = re.compile(r"&([A-Za-z_][\w.-]{0,99});")
# Entities of a file may make it this much longer.
_MAX_GROWTH = 1 << 20
_ROOT = re.compile(r"<([A-Za-z_][\w.:-]*)")
_END_CHARACTERS = 1000
_TITLE_SEARCH = 3000
_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/([a-z-]{2,11})/(\d\.\d)|publicdomain/(zero|mark)/1\.0)"
)
_LICENSE_CHARACTERS = 100
# ISO 639-2 codes of the languages of most editions in TEI.
_LANGUAGES = dict(
    code.split("=")
    for code in "eng=en deu=de ger=de fra=fr fre=fr spa=es ita=it rus=ru lat=la nld=nl dut=nl"
    " por=pt pol=pl swe=sv dan=da nor=no ces=cs cze=cs fin=fi hun=hu gre=el".split()
)


@dataclass(frozen=True)
class _Vocabulary:
    """A sort of documents: how its elements are read, and where it says what about itself."""

    dialect: Dialect
    record: str = ""  # names of the elements that are documents of a set, as a pattern
    title: str = ""  # where the text does not begin with it
    author: str = ""
    license: str = ""
    language: str = ""


_DOCBOOK = _Vocabulary(DOCBOOK, license=".//{*}legalnotice")
_JATS = _Vocabulary(JATS, "article", license=".//{*}article-meta/{*}permissions")
_TEI = _Vocabulary(
    TEI,
    r"TEI(?:\.2)?",
    title=".//{*}teiHeader//{*}titleStmt/{*}title",
    license=".//{*}teiHeader//{*}availability",
    language=".//{*}teiHeader//{*}langUsage/{*}language",
)
_FICTION_BOOK = _Vocabulary(
    FICTION_BOOK,
    title=".//{*}title-info/{*}book-title",
    author=".//{*}title-info/{*}author",
    language=".//{*}title-info/{*}lang",
)


def read_docbook(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of a book, an article, a manual page or a part of one in DocBook."""
    yield from _read(item, _DOCBOOK)


def read_jats(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the articles of a file in JATS."""
    yield from _read(item, _JATS)


def read_tei(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the texts of a file in TEI."""
    yield from _read(item, _TEI)


def read_fiction_book(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the book of a FictionBook."""
    yield from _read(item, _FICTION_BOOK)


def _read(item: Item, vocabulary: _Vocabulary) -> Iterator[Document | Reject]:
    """Yield a document, or a rejection, for each record of a file, and damage at its end."""
    data = strip_controls(read_all(item.stream, MAX_RECORD))
    markup = _expanded(clean_input(_BINARY.sub("", decode_html(data))))
    root = _ROOT.search(XML_PROLOGUE.sub("", markup, count=1))
    name = root[1] if root else ""
    is_cut = f"</{name}" not in markup[-_END_CHARACTERS:]
    index = 0
    for record in _records(markup, vocabulary.record):
        group = item.origin if record is markup else f"{item.origin}#{index}"
        parser = xml_parser()
        with bounded_parsing():
            document = _document(parse_xml(record, parser, _NAMESPACES), vocabulary, index, group)
        yield document
        index += 1
        limits = [error for error in parser.error_log if error.type_name == "ERR_RESOURCE_LIMIT"]
        if limits:
            reason = "nesting" if "depth" in limits[0].message else "too-large"
            yield Reject(reason, index, f"the text after line {limits[0].line} is not read")
            index += 1
    if is_cut:
        raise DamagedError("truncated", f"it ends before its element {name} does")


def _records(markup: str, names: str) -> Iterator[str]:
    """Yield the parts of a set, each from its start to the start of the next; else the whole."""
    starts = [m.start() for m in re.finditer(rf"<(?:\w+:)?(?:{names})(?=[\s>])", markup)]
    if not names or len(starts) < 2:
        yield markup
        return
    for start, end in pairwise([*starts, len(markup)]):
        yield markup[start:end]


def _expanded(markup: str) -> str:
    """Return markup with the short texts that its DOCTYPE declares for entities of its own."""
    prologue = XML_PROLOGUE.match(markup)
    declared = {name: a or b for name, a, b in _DECLARED.findall(prologue[0] if prologue else "")}
    if not declared:
        return markup
    room = _MAX_GROWTH

    def text_of(reference: re.Match[str]) -> str:
        nonlocal room
        text = declared.get(reference[1], reference[0])
        room -= len(text) - len(reference[0])
        if room < 0:
            raise DamagedError("bomb", "the entities that it declares repeat too much text")
        return text

    return _ENTITY.sub(text_of, markup)


def _document(root: Any, vocabulary: _Vocabulary, index: int, group: str) -> Document | Reject:
    writer = XmlWriter(vocabulary.dialect, identified(root))
    writer.add_children(root)
    text = writer.finish().text()
    if not text:
        return Reject("no-text", index, "no text but what is said about it")
    title, author = (_text(root, path) for path in (vocabulary.title, vocabulary.author))
    if " ".join(text[:_TITLE_SEARCH].split()).casefold().find(title.casefold()) < 0:
        text = with_title(title, text)
    if author:
        group = edition_group(title, author)
    return Document(
        text, index, group, _license(root, vocabulary.license), _language(root, vocabulary)
    )


def _text(root: Any, path: str) -> str:
    element = root.find(path) if path else None
    return "" if element is None else " ".join("".join(element.itertext("*")).split())


def _license(root: Any, path: str) -> str:
    """Return the license that a document grants by its SPDX name, else its first words."""
    element = root.find(path) if path else None
    if element is None:
        return ""
    addresses = (str(value) for part in element.iter("*") for value in part.attrib.values())
    text = _text(root, path)
    if commons := _COMMONS.search(" ".join((*addresses, text))):
        if commons[1]:
            return f"CC-{commons[1].upper()}-{commons[2]}"
        return "CC0-1.0" if commons[3] == "zero" else "PDM-1.0"
    return detect_license(text) or text[:_LICENSE_CHARACTERS]


def _language(root: Any, vocabulary: _Vocabulary) -> str:
    """Return the language of a document as a code of ISO 639-1; "" where it tells none."""
    element = root.find(vocabulary.language) if vocabulary.language else None
    told = "" if element is None else element.get("ident") or element.text or ""
    document = next(iter(root), root)
    code = re.split(r"[-_]", (told or attribute(document, "lang")).strip().lower())[0]
    return code if len(code) == 2 else _LANGUAGES.get(code, "")
