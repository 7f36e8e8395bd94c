"""Reads plain-text books, Project Gutenberg's above all. Yields one document a book, its lines
joined to paragraphs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.paragraphs import unwrap
from groundup.collect.readers.text import joined, read_text
from groundup.recipe import Source

# A marker may be cut into several lines by a long title; it ends at the next asterisks, or at the
# end of its paragraph.
_MARKER = re.compile(
    r"^[ \t]*\*{2,4}[ \t]*(?P<which>START|END)[ \t]+OF[ \t]+(?:TH(?:E|IS)[ \t]+)?PROJECT["
    r" \t]+GUTENBERG"
    r"(?:[^*\n]*(?:\n(?!\n)[^*\n]*){0,4}\*{2,4}|[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
# Before 2003 the license stood in front, and ended so.
_SMALL_PRINT = re.compile(
    r"^\*{0,3}END\*{0,2}[ \t]*THE SMALL PRINT![^\n]*\*END\*[ \t]*$|^\*+[ \t]*SMALL PRINT! FOR"
    r" __[^\n*]*\*+[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_OLD_END = re.compile(
    r"^(?:\*\*\*)?[ \t]*End of (?:The |This )?Project Gutenberg[^\n]*(?:\n[^\n]+){0,2}\s*",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = r"^{}:[ \t]*(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)"
_TITLE = re.compile(_FIELD.format("Title"), re.MULTILINE)
_AUTHOR = re.compile(_FIELD.format("(?:Author|Editor)"), re.MULTILINE)
_CHARSET = re.compile(
    r"^Character set encoding:[ \t]*(?:ISO[ -]Latin-1|([\w-]+))", re.IGNORECASE | re.MULTILINE
)
_OF_BY = re.compile(
    r"Project Gutenberg(?:'s|’s| (?:EBook|Etext) of)?[ \t]+(?P<title>[^\n]+?),? by"
    r" (?P<author>[^\n]+)",
    re.IGNORECASE,
)
# The credits of transcribers open a book, and are not part of it.
_CREDITS = re.compile(
    r"\A\s*(?:\[?(?:(?:E-?text|This e-?(?:text|book)|HTML version|Note: Project Gutenberg"
    r"|Transcribed|Produced|Prepared|Scanned|Updated|Created)\b|Transcriber(?:['’]?s['’]?)?"
    r" Notes?\b[:. \t]*(?:\n[ \t]*\n)?)"
    r"[^\n]*(?:\n[^\n]+)*\s*){1,3}",
    re.IGNORECASE,
)
_NOTES = re.compile(
    r"\[Illustrations?\b[^\]]{0,400}\]|\[Transcriber(?:['’]?s['’]?)? notes?:[^\]]{0,6000}\]|<<THIS"
    r" ELECTRONIC VERSION[^>]{0,1000}>>",
    re.IGNORECASE,
)
# The same in a box, or at the end of the book, where it may list every correction.
_BOX = re.compile(
    r"^[ \t]*\+-{5,}\+?[ \t]*\n(?:[ \t]*\|[^\n]*\n){0,3}?[ \t]*\|[ \t]*Transcriber[^\n]*\n(?:["
    r" \t]*\|[^\n]*\n){0,100}"
    r"[ \t]*\+-{5,}\+?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_LAST_NOTES = re.compile(
    r"\n[ \t]*\n(?:[ \t]*[-*=]{3}[-*= \t]*\n\s*)?[ \t]*Transcriber(?:['’]?s['’]?)?"
    r" Notes?\b(?!\w).*",
    re.IGNORECASE | re.DOTALL,
)
_LAST_CHARACTERS = 6000
_ITALICS = re.compile(r"(?<![\w_])_(\S(?:[^_]{0,400}?\S)?)_(?![\w_])")
_HEAD_CHARACTERS = 20_000
# A file that holds several books is looked through for their markers in one piece.
MAX_FILE_BYTES = 4 * MAX_DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class _Span:
    """One book inside a file: where its header starts, and its text from `start` to `end`."""

    header: int
    start: int
    end: int


def read_books(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the books of a file; what stands outside the markers of Project Gutenberg is rejected
    with its size.
    """
    declared = _declared(item, source)
    data = item.stream.read(MAX_DOCUMENT_BYTES)
    if len(data) == MAX_DOCUMENT_BYTES and not find_books(decode(data, declared)):
        yield from read_text(replace(item, stream=joined(data, item.stream)), source)
        return
    data += item.stream.read(MAX_FILE_BYTES - len(data))
    if item.stream.peek(1):
        raise DamagedError(
            "too-large",
            f"books of Project Gutenberg in a file of more than {MAX_FILE_BYTES >> 20} MB; cut it"
            " between two books",
        )
    yield from books_in(decode(data, declared), item.origin)


def books_in(text: str, origin: str, wrapped: bool = True) -> Iterator[Document | Reject]:
    """Yield the books of a text, the whole of it where nothing marks them; lines that were
    `wrapped` at a margin are joined.
    """
    spans = find_books(text)
    for number, span in enumerate(spans or [_Span(0, 0, len(text))]):
        yield _book(text, span, number, origin, marked=bool(spans), wrapped=wrapped)
    if spans:
        yield from _leftover(text, spans)


def _declared(item: Item, source: Source) -> str:
    if source.encoding != "auto":
        return source.encoding
    match = _CHARSET.search(item.head.decode("latin-1"))
    return (
        "cp1252"
        if match and (match[1] or "iso-8859-1").lower() in ("iso-8859-1", "latin-1")
        else (match[1] or "" if match else "")
    )


def find_books(text: str) -> list[_Span]:
    """Return the books between Project Gutenberg's markers, in order; an empty list when there are
    no markers.
    """
    if (
        "gutenberg" not in text[:_HEAD_CHARACTERS].lower()
        and "PROJECT GUTENBERG" not in text.upper()
    ):
        return []
    spans: list[_Span] = []
    header, start = 0, None
    for position, end, which in _markers(text):
        if which == "START":
            header, start = (header, end) if start is None else (header, start)
        elif start is not None:
            spans.append(_Span(header, start, position))
            header, start = end, None
        elif not spans:
            spans.append(_Span(0, 0, position))
            header = end
    return spans if start is None else [*spans, _Span(header, start, len(text))]


def _markers(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, START or END) of every marker; old ones count only where a file has none
    of today's.
    """
    found = [(m.start(), m.end(), m["which"].upper()) for m in _MARKER.finditer(text)]
    if not any(which == "START" for _, _, which in found):
        found += [(m.start(), m.end(), "START") for m in _SMALL_PRINT.finditer(text)]
    if not any(which == "END" for _, _, which in found):
        found += [(m.start(), m.end(), "END") for m in _OLD_END.finditer(text)]
    return sorted(found)


def _book(
    text: str, span: _Span, number: int, origin: str, marked: bool, wrapped: bool
) -> Document | Reject:
    body = text[span.start : span.end]
    header = (
        text[span.header : span.start][-_HEAD_CHARACTERS:] if marked else body[:_HEAD_CHARACTERS]
    )
    if marked:
        body = (
            _OLD_END.sub("", body[:-2000]) + _OLD_END.sub("", body[-2000:])
            if len(body) > 4000
            else _OLD_END.sub("", body)
        )
        body = _CREDITS.sub("", body)
        body = _without_last_notes(_BOX.sub("", body))
    body = _ITALICS.sub(r"\1", _NOTES.sub("", body)).strip()
    return (
        Document(unwrap(body) if wrapped else body, number, book_group(header) or origin)
        if body
        else Reject("empty", number, "no text between its markers" if marked else "no text in it")
    )


def _without_last_notes(body: str) -> str:
    """Return a book without what its transcriber notes at the end: in its last tenth."""
    notes = _LAST_NOTES.search(body, max(len(body) - _LAST_CHARACTERS, len(body) * 9 // 10))
    return body[: notes.start()] if notes else body


def book_group(header: str) -> str:
    """Return `title|author` of a book, so spelt that its editions meet; "" when its header names
    neither.
    """
    title, author = _TITLE.search(header), _AUTHOR.search(header)
    names = (title[1] if title else "", author[1] if author else "")
    if not names[0]:
        sentence = _OF_BY.search(header)
        names = (sentence["title"], sentence["author"]) if sentence else names
    if not names[0]:
        return ""
    return group_of(*names)


def group_of(title: str, author: str) -> str:
    """Return `title|author`, so spelt that editions of a book meet."""
    # "Doyle, Arthur Conan" and "Arthur Conan Doyle" are one person; a subtitle may or may not be
    # given.
    return f"{' '.join(_words(title.partition(chr(10))[0]))}|{' '.join(sorted(_words(author)))}"


def _words(text: str) -> list[str]:
    bare = "".join(
        c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c)
    )
    return re.findall(r"\w+", bare.replace("'", "").replace("’", ""))


def _leftover(text: str, spans: list[_Span]) -> Iterator[Reject]:
    """Reject what follows the last book, when it is more than the license that always does."""
    rest = text[spans[-1].end :]
    license = max(rest.rfind("Project Gutenberg"), rest.rfind("PROJECT GUTENBERG"), 0)
    if len(rest) - license > _HEAD_CHARACTERS:
        yield Reject(
            "outside-book",
            len(spans),
            f"{len(rest):,} characters after the last end marker of Project Gutenberg",
        )
