"""Text of a document that grows block by block: paragraphs, headings, items of lists, rows.

Readers of office files and PDF add blocks; the text has a blank line between paragraphs, and none
between the items of a list, the rows of a table and the lines of code:

    Results

    We tried two of them.

    - the first
    - the second

    name | score
    ours | 7
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from groundup.artifacts.document import MAX_DOCUMENT_BYTES
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.web.markup import SUBSCRIPTS, SUPERSCRIPTS

# Blocks of these sorts stand below each other without a blank line.
_DENSE = frozenset(("item", "row", "code", "line"))
# A table with a cell this long lays out a page.
LAYOUT_CELL = 600
# Soft hyphens, marks of direction, and the marks that stand for objects and broken characters.
_INVISIBLE = re.compile("[\xad\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffc\0]")
_SPACE = re.compile(r"[ \t\r\f\v\xa0\u2000-\u200a\u202f\u205f\u3000]+")
# A bullet that somebody has typed.
_BULLET = re.compile(r"[•▪●◦‣∙■□▫➢➤\uf0a7\uf0b7](?:\s+|\Z)")
# Fonts whose letters are all as wide: a style in one, among others, is one of code.
CODE_FONT = re.compile(r"courier|\bmono\b|mono\Z|consol|menlo|typewriter", re.IGNORECASE)
# A title that a program has made.
_MADE_TITLE = re.compile(
    r"(?:\[?no title\]?|untitled|document|dokument|(?:powerpoint )?presentation|präsentation"
    r"|powerpoint|word document|slide|title"
    r"|microsoft\b.*|.*\.(?:docx?|odt|rtf|pptx?|indd|tex|dvi|qxd|cdr|pdf|xlsx?|html?))\s*\d*",
    re.IGNORECASE,
)
_TITLE_SEARCH = 3000


@dataclass
class Blocks:
    """The blocks of a document in order; raises DamagedError beyond the size of a document."""

    parts: list[tuple[str, str]] = field(default_factory=list)  # sort and text
    size: int = 0

    def add(self, text: str, sort: str = "paragraph") -> None:
        """Add a block of a sort: `paragraph`, `heading`, `item`, `row`, `code` or `line`."""
        text = _INVISIBLE.sub("", text)
        if sort == "code":
            text = text.rstrip()
        else:
            lines = (_SPACE.sub(" ", line).strip() for line in text.split("\n"))
            text = "\n".join(filter(None, lines))
        if sort == "paragraph" and (bullet := _BULLET.match(text)):
            text, sort = text[bullet.end() :], "item"
            text = f"- {text}" if text else ""
        # The title of a book is that of its first part, too.
        if not text or (sort == "heading" and self.parts[-1:] == [(sort, text)]):
            return
        self.size += len(text)
        if self.size > MAX_DOCUMENT_BYTES:
            limit = f"{MAX_DOCUMENT_BYTES >> 20} MB"
            raise DamagedError("too-large", f"its text is longer than {limit}")
        self.parts.append((sort, text))

    def add_table(self, rows: Sequence[Sequence[Sequence[str]]]) -> None:
        """Add a table: rows of cells of paragraphs. One that lays out a page becomes paragraphs."""
        cells = [cell for row in rows for cell in row if any(cell)]
        widest = max((sum(any(cell) for cell in row) for row in rows), default=0)
        longest = max((sum(map(len, cell)) for cell in cells), default=0)
        if widest < 2 or longest >= LAYOUT_CELL:
            for paragraph in (paragraph for cell in cells for paragraph in cell):
                self.add(paragraph)
            return
        self.parts.append(("break", ""))
        for row in rows:
            self.add(join_cells(" ".join(" ".join(cell).split()) for cell in row), "row")
        self.parts.append(("break", ""))

    def text(self, title: str = "") -> str:
        """Return the text, after a title that it does not begin with."""
        pieces, before = [], "break"
        for sort, text in self.parts:
            if text:
                pieces.append("\n" if sort == before and sort in _DENSE else "\n\n")
                pieces.append(text)
            before = sort
        joined = "".join(pieces[1:])
        if not title:
            return joined
        title = " ".join(_INVISIBLE.sub("", title).split())
        is_made = _MADE_TITLE.fullmatch(title) or not re.search(r"[^\W\d_]{2}", title)
        has_title = _squeezed(title) in _squeezed(joined[:_TITLE_SEARCH])
        opens = next((sort for sort, text in self.parts if text), "")
        if not joined or is_made or has_title or opens == "heading":
            return joined
        return f"{title}\n\n{joined}"


def join_cells(cells: Iterable[str]) -> str:
    """Return a row of a table as text; "" where all cells are empty."""
    return re.sub(r"(?:\| *)+\Z", "", " | ".join(cells)).strip()


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


_ROMAN = tuple(
    zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        "M CM D CD C XC L XL X IX V IV I".split(),
        strict=True,
    )
)
_MAX_ROMAN = 3999


def number_label(number: int, style: str) -> str:
    """Return a number of a list in a style of Office Open XML, such as `lowerLetter`."""
    if style in ("lowerLetter", "upperLetter") and number > 0:
        turn, letter = divmod(number - 1, 26)
        label = string.ascii_uppercase[letter] * min(turn + 1, 9)
    elif style in ("lowerRoman", "upperRoman") and 0 < number <= _MAX_ROMAN:
        label = ""
        for value, sign in _ROMAN:
            label += sign * (number // value)
            number %= value
    else:
        return str(number)
    return label.lower() if style.startswith("lower") else label


def raised(text: str, align: str, before: str) -> str:
    """Return exponents and indexes in characters of Unicode: 10 and a raised 23 are 10²³.

    `align` is "superscript", "subscript" or neither; a mark needs something before it.
    """
    table = {"superscript": SUPERSCRIPTS, "subscript": SUBSCRIPTS}.get(align, {})
    is_script = text.strip() != "" and all(ord(char) in table for char in text)
    is_word = re.search(r"[^\W\d_]{2}", text)
    if not is_script or is_word or not (before[-1:].isalnum() or before.endswith(")")):
        return text
    return text.translate(table)


# What the font Symbol shows for the bytes from 0x20 and from 0xA1 on; a space where Unicode has no
# character.
_SYMBOL_20 = (
    " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟ"
    "ΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
)
_SYMBOL_A1 = (
    "ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠"
    "∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪ 〉∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭"
)
_SYMBOL = dict(enumerate(_SYMBOL_20, 0x20)) | dict(enumerate(_SYMBOL_A1, 0xA1))
# Of the fonts Wingdings, the signs that stand in texts: arrows, ticks, bullets, faces.
_WINGDINGS = {
    **dict(zip((0x4A, 0x4B, 0x4C), "☺😐☹", strict=True)),
    **dict(zip((0x6C, 0x6E, 0x76, 0xA7, 0xA8), "●■❖▪◻", strict=True)),
    **dict(zip((0xD8, 0xDF, 0xE0, 0xE1, 0xE2, 0xE8, 0xF0), "➢←→↑↓➔⇨", strict=True)),
    **dict(zip((0xFB, 0xFC, 0xFD, 0xFE, 0x6F, 0xFA), "✗✓☒☑☐✓", strict=True)),
}
_PRIVATE = range(0xF000, 0xF100)
_LOW_OR_PRIVATE = frozenset((*range(0x100), *_PRIVATE))


def symbols(text: str, font: str) -> str:
    """Return the text of a run in the font Symbol or Wingdings in Unicode; other text as it is.

    What has no meaning there is left out.
    """
    is_wingdings = font.lower().startswith(("wingdings", "webdings"))
    lowest = 0x21 if is_wingdings or font.lower() == "symbol" else _PRIVATE.start
    if all(ord(char) < lowest or ord(char) not in _LOW_OR_PRIVATE for char in text):
        return text
    table = _WINGDINGS if is_wingdings else _SYMBOL
    return "".join(
        table.get(ord(char) & 0xFF, "")
        if ord(char) >= lowest and ord(char) in _LOW_OR_PRIVATE
        else char
        for char in text
    )
