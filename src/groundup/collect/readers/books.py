"""Plain-text books: one document a book, its wrapped lines joined to paragraphs.

Project Gutenberg marks its books, often several in one file:

    The Project Gutenberg EBook of A Tale, by Jane Doe     header: title and author give the group
    *** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***
    Produced by Somebody                                   credits, removed
    It was a bright morning in early spring when the old
    schoolmaster set out                                   the book
    *** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***
    The license                                            removed
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.text import declared_encoding, read_text
from groundup.collect.readers.wrapped_lines import unwrap
from groundup.recipe import Source

# A long title wraps a marker into several lines. It ends at the next asterisks, or at the end of
# its paragraph.
_MARKER = re.compile(
    r"^[ \t]*\*{2,4}[ \t]*(?P<which>START|END)[ \t]+OF[ \t]+(?:TH(?:E|IS)[ \t]+)?PROJECT[ \t]+"
    r"GUTENBERG(?:[^*\n]*(?:\n(?!\n)[^*\n]*){0,4}\*{2,4}|[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
# Before 2003 the license stood in front, and ended like this.
_SMALL_PRINT = re.compile(
    r"^\*{0,3}END\*{0,2}[ \t]*THE SMALL PRINT![^\n]*\*END\*[ \t]*$"
    r"|^\*+[ \t]*SMALL PRINT! FOR __[^\n*]*\*+[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_OLD_END = re.compile(
    r"^(?:\*\*\*)?[ \t]*End of (?:The |This )?Project Gutenberg[^\n]*(?:\n[^\n]+){0,2}\s*",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = r"^{}:[ \t]*(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)"
_TITLE = re.compile(_FIELD.format("Title"), re.MULTILINE)
_AUTHOR = re.compile(_FIELD.format("(?:Author|Editor)"), re.MULTILINE)
_TITLE_BY_AUTHOR = re.compile(
    r"Project Gutenberg(?:'s|’s| (?:EBook|Etext) of)?[ \t]+(?P<title>[^\n]+?),? by"
    r" (?P<author>[^\n]+)",
    re.IGNORECASE,
)
_CHARSET = re.compile(
    r"^Character set encoding:[ \t]*(?:ISO[ -]Latin-1|([\w-]+))", re.IGNORECASE | re.MULTILINE
)
# Transcribers open a book with credits, which are not part of it.
_CREDITS = re.compile(
    r"\A\s*(?:\[?(?:(?:E-?text|This e-?(?:text|book)|HTML version|Note: Project Gutenberg"
    r"|Transcribed|Produced|Prepared|Scanned|Updated|Created)\b"
    r"|Transcriber(?:['’]?s['’]?)? Notes?\b[:. \t]*(?:\n[ \t]*\n)?)"
    r"[^\n]*(?:\n[^\n]+)*\s*){1,3}",
    re.IGNORECASE,
)
# Both begin with one character, not with a choice: so the places to try are found faster.
_NOTES = re.compile(
    r"\[(?:Illustrations?\b[^\]]{0,400}|Transcriber(?:['’]?s['’]?)? notes?:[^\]]{0,6000})\]",
    re.IGNORECASE,
)
_NOTES_OR_NOTICE = re.compile(
    rf"{_NOTES.pattern}|<<THIS ELECTRONIC VERSION[^>]{{0,1000}}>>", re.IGNORECASE
)
# Notes of transcribers in a box, and at the end of the book, where they may list every correction.
_NOTES_BOX = re.compile(
    r"^[ \t]*\+-{5,}\+?[ \t]*\n(?:[ \t]*\|[^\n]*\n){0,3}?[ \t]*\|[ \t]*Transcriber[^\n]*\n"
    r"(?:[ \t]*\|[^\n]*\n){0,100}[ \t]*\+-{5,}\+?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_LAST_NOTES = re.compile(
    r"\n[ \t]*\n(?:[ \t]*[-*=]{3}[-*= \t]*\n\s*+)?[ \t]*Transcriber(?:['’]?s['’]?)?"
    r" Notes?\b(?!\w).*",
    re.IGNORECASE | re.DOTALL,
)
_LAST_CHARACTERS = 6000
# It begins with a letter, not with a look back: so the places to try are found ten times faster.
_ITALICS = re.compile(r"_(?<![\w_]_)(\S(?:[^_]{0,400}?\S)?)_(?![\w_])")
_HEAD_CHARACTERS = 20_000
MAX_FILE_BYTES = 4 * MAX_DOCUMENT_BYTES  # several books are searched in one piece


def read_books(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the books of a file."""
    declared = declared_encoding(source)
    match = _CHARSET.search(item.head.decode("latin-1"))
    if match and source.encoding == "auto":
        is_latin = (match[1] or "latin-1").lower() in ("iso-8859-1", "latin-1")
        declared = "cp1252" if is_latin else match[1]
    data = item.stream.read(MAX_DOCUMENT_BYTES)
    if len(data) == MAX_DOCUMENT_BYTES and not find_books(decode(data, declared)):
        # A corpus of books without markers: plain text, cut at blank lines.
        yield from read_text(item, source, data)
        return
    data += item.stream.read(MAX_FILE_BYTES - len(data))
    if item.stream.peek(1):
        detail = f"books of Project Gutenberg in a file of more than {MAX_FILE_BYTES >> 20} MB"
        raise DamagedError("too-large", f"{detail}; cut it between two books")
    yield from split_books(decode(data, declared), item.origin)


def split_books(text: str, origin: str, wrapped: bool = True) -> Iterator[Document | Reject]:
    """Yield the books of a text, or the whole text as one book where no marker stands.

    Lines that are `wrapped` at a margin are joined. A book whose header names no title is a group
    of its `origin`, the file.
    """
    spans = find_books(text)
    for index, (header_start, start, end) in enumerate(spans or [(0, 0, len(text))]):
        body = text[start:end]
        header = body[:_HEAD_CHARACTERS]
        if spans:
            header = text[header_start:start][-_HEAD_CHARACTERS:]
            body = _without_additions(body)
        notes = _NOTES_OR_NOTICE if "<<" in body else _NOTES
        body = _ITALICS.sub(r"\1", notes.sub("", body)).strip()
        if body:
            body = unwrap(body) if wrapped else body
            title, author = _TITLE.search(header), _AUTHOR.search(header)
            names = (title[1] if title else "", author[1] if author else "")
            if not title and (sentence := _TITLE_BY_AUTHOR.search(header)):
                names = (sentence["title"], sentence["author"])
            yield Document(body, index, edition_group(*names) if names[0] else origin)
        else:
            yield Reject("empty", index, f"no text {'between its markers' if spans else 'in it'}")
    if spans:
        rest = text[spans[-1][2] :]
        license_start = max(rest.rfind("Project Gutenberg"), rest.rfind("PROJECT GUTENBERG"), 0)
        if len(rest) - license_start > _HEAD_CHARACTERS:
            detail = f"{len(rest):,} characters after the last end marker of Project Gutenberg"
            yield Reject("outside-book", len(spans), detail)


def _without_additions(body: str) -> str:
    """Return a book of Project Gutenberg without what its transcribers wrote around it."""
    cut = len(body) - 2000 if len(body) > 4000 else 0
    parts = []
    for part in (body[:cut], body[cut:]):
        ends = list(_marker_lines(_OLD_END, part))
        starts = [0, *(end.end() for end in ends)]
        stops = [*(end.start() for end in ends), len(part)]
        parts += [part[start:stop] for start, stop in zip(starts, stops, strict=True)]
    body = _CREDITS.sub("", "".join(parts))
    # A pattern that looks at each line takes a tenth of the time of a book.
    body = _NOTES_BOX.sub("", body) if "+-----" in body else body
    # Notes end a book: they are searched in its last tenth.
    last_part = max(len(body) - _LAST_CHARACTERS, len(body) * 9 // 10)
    notes = _LAST_NOTES.search(body, last_part)
    return body[: notes.start()] if notes else body


def find_books(text: str) -> list[tuple[int, int, int]]:
    """Return where the books between Project Gutenberg's markers are: (header, start, end)."""
    lowered = _lowered(text)
    if b"project gutenberg" not in lowered and b"gutenberg" not in lowered[:_HEAD_CHARACTERS]:
        return []
    # (start, end, START or END) of every marker. Old ones count only where a file has no new ones.
    markers = [(m.start(), m.end(), m["which"].upper()) for m in _marker_lines(_MARKER, text)]
    for which, old in (("START", _SMALL_PRINT), ("END", _OLD_END)):
        if not any(marker[2] == which for marker in markers):
            markers += [(m.start(), m.end(), which) for m in old.finditer(text)]
    spans: list[tuple[int, int, int]] = []
    header, start = 0, None
    for marker_start, marker_end, which in sorted(markers):
        if which == "START":
            start = marker_end if start is None else start
        elif start is not None:
            spans.append((header, start, marker_start))
            header, start = marker_end, None
        elif not spans:
            # An end without a start: the book starts with the file.
            spans.append((0, 0, marker_start))
            header = marker_end
    return spans if start is None else [*spans, (header, start, len(text))]


def _lowered(text: str) -> bytes:
    """Return a text with its ASCII letters in lower case."""
    # Bytes take a third of the time of characters.
    return text.encode("utf-8", "surrogatepass").lower()


def _marker_lines(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern that starts a line and has "Gutenberg" in that line."""
    position = searched = end = 0
    # A search that ignores case takes ten times as long.
    for before in _lowered(text).split(b"gutenberg")[:-1]:
        position += len(before.decode("utf-8", "surrogatepass"))
        line = text.rfind("\n", searched, position) + 1
        if line >= end and (line or not searched) and (match := pattern.match(text, line)):
            yield match
            end = match.end()
        position += len("gutenberg")
        searched = position


def edition_group(title: str, author: str) -> str:
    """Return `title|author`, normalized so that all editions of a book share it.

    "Doyle, Arthur Conan" and "Arthur Conan Doyle" are one author. A subtitle on the next line is
    left out.
    """
    first_line = title.partition("\n")[0]
    return f"{' '.join(_plain_words(first_line))}|{' '.join(sorted(_plain_words(author)))}"


def _plain_words(text: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return re.findall(r"\w+", bare.replace("'", "").replace("’", ""))
