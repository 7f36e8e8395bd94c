"""Plain-text books: one document a book, its wrapped lines joined to paragraphs.

Project Gutenberg marks its books, often several in one file:

    The Project Gutenberg EBook of A Tale, by Jane Doe     header: title and author give the group
    *** START OF THIS PROJECT GUTENBERG EBOOK A TALE ***
    Produced by Somebody                                   credits, removed
    It was a bright morning in early spring when the old
    schoolmaster set out                                   the book
    *** END OF THIS PROJECT GUTENBERG EBOOK A TALE ***
    The license                                            removed

A line of wrapped prose ends where the next word did not fit; a line of verse ends where the poet
ended it. `unwrap` tells the two apart and joins only the first.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import add

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.text import declared_encoding, read_text
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

# A run of spaces is tried from its start only.
_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
_FEW_SPACES = 4
_BLANK_LINES = re.compile(r"(\n[ \t]*\n\s*)")
# A line that ends this many characters before the next word would overflow was still wrapped.
_SLACK = 3
_MIN_WIDTH, _MAX_WIDTH = 50, 120  # margins that prose is wrapped at
# Share of the lines of a block that have to be wrapped, in prose and where most lines start with a
# capital letter.
_WRAPPED_SHARE, _WRAPPED_SHARE_CAPITALS = 0.75, 0.97
_SAMPLE_BLOCKS = 4000


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


def unwrap(text: str) -> str:
    """Return text with every wrapped paragraph on one line.

    Blank lines between blocks become one, or two where there were many.
    """
    text = _strip_lines(text.expandtabs(4) if "\t" in text else text).strip("\n")
    width = _wrap_width([block for block, _ in islice(_blocks(text), _SAMPLE_BLOCKS)])
    if width == 0:
        return text.strip()
    # Not a list: millions of short blocks would take a hundred times their size.
    out = io.StringIO()
    for block, breaks in _blocks(text):
        out.write(_join_wrapped(block, width) if "\n" in block else block)
        if breaks:
            out.write("\n\n" if breaks < 4 else "\n\n\n")
    return out.getvalue().strip()


def _join_wrapped(block: str, width: int) -> str:
    """Return a block of several lines as one line if it is prose wrapped at a margin."""
    lines = block.split("\n")
    bare, indents = list(map(str.strip, lines)), [0] * len(lines)
    # Most blocks have no indents.
    if bare != lines:
        indents = [len(line) - len(line.lstrip()) for line in lines]
    if not _is_wrapped_prose(bare, indents, width):
        return block
    joined = " ".join(bare)
    if "- " not in joined and "— " not in joined:
        return joined
    joined = bare[0]
    for line in bare[1:]:
        # A dash, and a hyphen inside a word, join without a space.
        is_glued = joined.endswith(("-", "—")) and joined[-2:-1] not in ("", " ")
        joined += line if is_glued else f" {line}"
    return joined


def _strip_lines(text: str) -> str:
    """Return a text without the spaces at the ends of its lines."""
    # The pattern looks at each space. Most texts have few at the ends of lines, or one or two.
    text = text.rstrip(" ")
    for _ in range(_FEW_SPACES):
        if " \n" not in text:
            return text
        text = text.replace(" \n", "\n")
    return _TRAILING_SPACE.sub("", text)


def _blocks(text: str) -> Iterator[tuple[str, int]]:
    """Yield the blocks of a text, each with the number of line breaks after it.

    Its lines have no spaces at their ends.
    """
    block, *pieces = text.split("\n\n")
    breaks = 0
    for piece in pieces:
        start = piece.lstrip() if piece[:1].isspace() else piece
        breaks += 2 + piece.count("\n", 0, len(piece) - len(start))
        if start:
            yield block, breaks
            block, breaks = start, 0
    yield block, breaks


def has_wrapped_lines(text: str) -> bool:
    """Return whether the lines of a text are wrapped at a margin."""
    return _wrap_width(_BLANK_LINES.split(text.replace("\r", ""))[::2]) > 0


def _wrap_width(blocks: list[str]) -> int:
    """Return the column that the prose of a text is wrapped at; 0 when it is not wrapped."""
    sample = [block.split("\n") for block in blocks[:_SAMPLE_BLOCKS]]
    # The last line of a paragraph is short, so it tells nothing.
    lengths = sorted(chain.from_iterable(map(len, lines[:-1]) for lines in sample))
    if len(lengths) < 8:
        lengths = sorted(len(line) for lines in sample for line in lines) or [0]
    width = lengths[min(len(lengths) - 1, int(len(lengths) * 0.95))]
    return width if _MIN_WIDTH <= width <= _MAX_WIDTH else 0


def _is_wrapped_prose(lines: Sequence[str], indents: Sequence[int], width: int) -> bool:
    """Return whether the margin ended the lines of a block, not its writer.

    `lines` are stripped of their indents. An indented block (a letter, a quotation) has its own
    margin: its longest line.
    """
    block_indent = min(indents[1:])
    if max(indents[1:]) - block_indent > 2 or any("   " in line for line in lines):
        return False
    ends = list(map(add, indents, map(len, lines)))
    longest, breaks = max(ends), len(lines) - 1
    if longest < _MIN_WIDTH:
        return False
    # Two lines cannot show their own margin; that of the text judges them.
    has_own_margin = (block_indent > 2 or longest > width + _SLACK) and len(lines) > 3
    # With a space and a word behind it, a wrapped line ends beyond this.
    margin = (longest if has_own_margin else width) - _SLACK - 1
    wrapped = sum(
        end > margin or len(following.partition(" ")[0]) > margin - end
        for end, following in zip(ends, lines[1:], strict=False)
    )
    if wrapped / breaks < _WRAPPED_SHARE:
        return False
    # Verse starts every line with a capital letter; prose one line in eight.
    capitals = sum(line.lstrip("\"'“‘(")[:1].isupper() for line in lines[1:]) / breaks
    if capitals > 0.9 and len(lines) > 3:
        return False
    least = _WRAPPED_SHARE if capitals < 0.7 else _WRAPPED_SHARE_CAPITALS
    return wrapped / breaks >= least


