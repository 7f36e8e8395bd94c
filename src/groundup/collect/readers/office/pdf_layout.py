"""Lines of pages of a PDF → paragraphs, headings, rows of tables and code.

A PDF says where words stand, and no more. A line goes on with the line before unless something says
that it starts anew: a gap, an indent, an item, letters of another size, or room at the end of the
line before. Rows have cells below each other, code is in a font whose letters are all as wide, and
entries of a table of contents end with numbers that grow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from groundup.collect.readers.blocks import Blocks
from groundup.collect.readers.office.pdf_pages import Line, Page
from groundup.collect.readers.office.pdf_words import HYPHEN

_MARK = 12  # characters of a number or a mark at the end of a line
_CODE_SHARE, _MIN_NUMBERED = 0.8, 3
_EVEN_GAPS = 1.15  # the widest of a line that is spread, by the narrowest
# Lines of a cell are this close, in heights of letters; a cell has fewer lines.
_CELL_STEP, _CELL_LINES = 1.6, 12
_HEADING_SIZE = 1.2  # heights of usual letters
# Heads of tables of contents, and their lines: dots up to a number, or a number as last cell.
_CONTENTS = re.compile(
    r"(?:table of )?contents|(?:inhalts|tabellen|abbildungs)verzeichnis|inhalt|table des matières"
    r"|sommaire|índice(?: general)?|sumário|indice|sommario|inhoud(?:sopgave)?|innehåll|indhold"
    r"|spis treści|obsah|содержание|оглавление|目录|目次|目錄|list of (?:figures|tables)",
    re.IGNORECASE,
)
_LEADERS = re.compile(r"(?:[.·…] ?){4,}\s?(?:[\w-]{0,4}\d|[ivxlc]{1,7})\Z")
_ENTRY = re.compile(r"[ .·…](?:([0-9]{1,4})|[\w-]{0,4}\d|[ivxlc]{1,7})\Z")
_LETTER, _MAX_ENTRY = re.compile(r"[^\W\d_]"), 300
# A paragraph of this many characters does not go on over the page: each page would copy it.
_MAX_PARAGRAPH = 1_000_000
# Lines before and after one that may be in its column.
_COLUMN_LINES, _BLOCK_LINES = 12, 5
_SENTENCE_END = re.compile(r"[.!?…:;。！？।۔؟][\"'”’»)\]]*[\d¹²³⁰⁴-⁹]{0,3}\Z")
_ITEM = re.compile(r"(?:[•▪●◦‣∙■□➢–—*-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)])\s+\S")
# The mark of an item, or the number of a heading, in a cell of its own.
_ROW_MARK = re.compile(
    r"[•▪●◦‣∙■□➢–—*+\uf000-\uf0ff-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]|\d{1,3}(?:\.\d{1,3})+\.?"
)
# Captions, and lines such as `Date: 3 May` below each other.
_CAPTION = re.compile(
    r"(?:table|tabelle|tableau|tabla|fig(?:ure|ura|\.)|abb(?:ildung|\.)|algorithm|listing)"
    r"\s?\d{1,3}(?:\.\d{1,3})*[.:]",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[^\W\d][\w .-]{0,30}:\s")
# An entry of a bibliography.
_REFERENCE = re.compile(r"\[[\w+.-]{1,12}\]\s+\S")


@dataclass
class Contents:
    """Finds tables of contents, which may go over pages: lines whose numbers of pages grow."""

    pages: int
    is_inside: bool = False
    last: int = 0  # number of the entry before

    def without(self, lines: Sequence[Line]) -> list[Line]:
        """Return the lines of a page without those of a table of contents, and without its head."""
        kept: list[Line] = []
        for number, line in enumerate(lines):
            is_head = _CONTENTS.fullmatch(line.text.strip()) is not None
            self.last = 0 if is_head or not self.is_inside else self.last
            may_start = is_head or _LEADERS.search(line.text[-_MAX_ENTRY:]) is not None
            ahead = [False]
            if may_start or self.is_inside:
                ahead = [self._is_entry(other) for other in lines[number : number + 4]]
            # The last line of an entry has the number.
            goes_on = self.is_inside and any(ahead[:2])
            self.is_inside = goes_on or (may_start and sum(ahead) > 1)
            if not self.is_inside:
                kept.append(line)
            elif ahead[0]:
                self.last = _page_number(line)
        return kept

    def _is_entry(self, line: Line) -> bool:
        number = _page_number(line)
        is_apart = len(line.cells) > 1 or _LEADERS.search(line.text[-_MAX_ENTRY:])
        return self.last <= number and bool(is_apart or 0 < number <= self.pages)


def _page_number(line: Line) -> int:
    """Return the number at the end of a line of a table of contents: 0 if Roman, -1 if none."""
    text = line.text
    entry = _ENTRY.search(text[-_MARK:]) if len(text) <= _MAX_ENTRY else None
    return int(entry[1] or 0) if entry is not None and _LETTER.search(text) else -1


def has_code(pages: Sequence[Page]) -> bool:
    """Return whether lines in a font of code are code: a text that is all in one is typed so."""
    sizes = [(line.pitch, len(line.text)) for page in pages for line in page.lines]
    in_code = sum(size for pitch, size in sizes if pitch)
    return in_code < _CODE_SHARE * sum(size for _, size in sizes)


def _code_end(lines: Sequence[Line], start: int) -> int:
    """Return the end of the lines of code that start at a line; `start` where none do."""
    end = start
    while end < len(lines) and (lines[end].pitch or (end > start and lines[end].text.isdecimal())):
        if end > start and not 0 < lines[end - 1].y - lines[end].y < 4 * lines[end].size:
            break
        end += 1
    return end


def _code(lines: Sequence[Line]) -> str:
    """Return lines of code with their indentation, without their numbers."""
    lines = _without_numbers(lines)
    left, pitch = min(line.left for line in lines), median(line.pitch or 1.0 for line in lines)
    step = median([a.y - b.y for a, b in pairwise(lines)] or [0.0])
    parts: list[str] = []
    for before, line in zip([None, *lines], lines, strict=False):
        if before is not None and before.y - line.y > 1.6 * step:
            parts.append("")
        text, end = "", left
        for cell, start, right in line.cells:
            text += " " * max(bool(text), round((start - end) / pitch)) + cell
            end = right
        parts.append(text.replace(HYPHEN, "-"))
    return "\n".join(parts)


def _without_numbers(lines: Sequence[Line]) -> Sequence[Line]:
    """Return lines without the numbers that count them."""
    firsts = [line.cells[0][0].partition(" ") for line in lines]
    numbers = [int(first) for first, _, _ in firsts if re.fullmatch("[0-9]{1,4}", first)]
    if len(numbers) < max(_MIN_NUMBERED, len(lines)) or any(b <= a for a, b in pairwise(numbers)):
        return lines
    bare: list[Line] = []
    for line, (first, space, rest) in zip(lines, firsts, strict=True):
        _, left, right = line.cells[0]
        start = left + (len(first) + len(space)) * line.pitch
        # An empty line is seen by the distance of those around it.
        cells = [(rest, start, right), *line.cells[1:]] if rest else line.cells[1:]
        if cells:
            bare.append(Line(cells, line.y, line.size, line.pitch))
    return bare or lines


def add_page(blocks: Blocks, page: Page, lines: Sequence[Line], with_code: bool) -> None:
    """Add paragraphs, tables and code: those lines of a page that belong to the text."""
    if not lines:
        return
    size = median(line.size for line in lines)
    pitches = [a.y - b.y for a, b in pairwise(lines) if 0 < a.y - b.y < 4 * size]
    pitch = median(pitches) if pitches else 1.2 * size
    edge = page.width - min(line.left for line in lines) if page.width > page.height else 0.0
    paragraph: list[str] = []
    continues = bool(blocks.parts) and blocks.parts[-1][0] == "paragraph"
    before: Line | None = None
    number = 0
    while number < len(lines):
        line, right = lines[number], _column_end(lines, number - 1)
        is_start = before is None or _starts_paragraph(before, line, pitch, right, size, edge)
        end = _code_end(lines, number) if with_code else number
        if end > number + 1 or (end > number and is_start):
            _add_paragraph(blocks, paragraph, continues)
            paragraph, continues, before = [], False, None
            blocks.parts.append(("break", ""))
            blocks.add(_code(lines[number:end]), "code")
            number = end
            continue
        rows, end = _table(lines, number)
        if rows:
            _add_paragraph(blocks, paragraph, continues)
            paragraph, continues, before = [], False, None
            blocks.parts.append(("break", ""))
            for row in rows:
                blocks.add(" | ".join(row).replace(f"{HYPHEN} ", HYPHEN), "row")
            blocks.parts.append(("break", ""))
            number = end
            continue
        if before is not None and is_start:
            _add_paragraph(blocks, paragraph, continues)
            paragraph, continues = [], False
        paragraph.append(line.text)
        before, number = line, number + 1
    _add_paragraph(blocks, paragraph, continues)


def _starts_paragraph(
    before: Line, line: Line, pitch: float, right: float, body: float, edge: float
) -> bool:
    """Return whether a line starts a paragraph, and does not go on with the line before.

    `pitch` is the usual distance of lines, `right` the end of the column of the line before, `body`
    the usual height of letters, `edge` where lines of a slide end at the latest.
    """
    size, step = max(before.size, line.size), before.y - line.y
    is_ended = _SENTENCE_END.search(before.text) is not None
    goes_on, is_cut = line.text[:1].islower(), before.text.endswith(HYPHEN)
    is_label = _LABEL.match(line.text) and _LABEL.match(before.text)
    is_item = _ITEM.match(line.text) or _CAPTION.match(line.text) or is_label
    is_other = is_item or abs(before.size - line.size) > 0.2 * size
    if is_other and not is_cut:
        return True
    if is_cut or (size > _HEADING_SIZE * body and 0 < step < 1.35 * size):
        # A word, or a heading of two lines.
        return False
    if step < -size or step > 6 * pitch:
        # Another column.
        return is_ended or not goes_on
    is_entry = _REFERENCE.match(line.text) and line.left < before.left - 0.8 * size
    if is_entry or step > 1.45 * max(pitch, 0.9 * size):
        return True
    is_hanging = _ITEM.match(before.text) or _REFERENCE.match(before.text)
    if line.left > before.left + 0.8 * size and not is_hanging:
        return is_ended or not goes_on
    # A line that ends early is the last of its paragraph, a heading or a line of an address.
    missing, width = right - before.right, right - before.left
    least = 2 * size if is_ended else 0.6 * width
    if not is_ended and not goes_on:
        # The first word of the line would have had room in the line before.
        first = len(line.text.split(" ", 1)[0]) / max(1, len(line.text)) * (line.right - line.left)
        missing, least = max(missing, edge - before.right), max(0.15 * width, first + size)
    return missing > least


def _column_end(lines: Sequence[Line], number: int) -> float:
    """Return the right end of the column that a line is in, by the lines around it."""
    line = lines[number]
    first, last = max(0, number - _COLUMN_LINES), number + _COLUMN_LINES
    block = [line]
    for around in (lines[number:last], lines[first : number + 1][::-1]):
        for before, other in pairwise(around):
            if abs(before.y - other.y) > 4 * line.size:
                # What is apart is another column, or above all of them.
                break
            block.append(other)
    near = block if len(block) >= _BLOCK_LINES else lines[first:last]
    same = (other.right for other in near if abs(other.left - line.left) < 3 * line.size)
    return max(same, default=line.right)


def _table(lines: Sequence[Line], start: int) -> tuple[list[list[str]], int]:
    """Return the rows of the table that starts at a line, and where it ends; [] where none does.

    A table has two rows or more whose cells stand below each other. A cell of two lines goes on in
    a line that has no cell in some of the columns.
    """
    rows: list[list[str]] = []
    head, end = lines[start], start  # the first line of the last row
    while end < len(lines):
        line = lines[end]
        if rows and (columns := _continued_columns(lines, end, head)):
            for column, (text, _, _) in zip(columns, line.cells, strict=True):
                rows[-1][column] += f" {text}"
        elif _is_row(line, lines[end + 1 : end + 2]) and (
            not rows or _is_below(head, line, lines[end - 1])
        ):
            rows.append([text for text, _, _ in line.cells])
            head = line
        else:
            break
        end += 1
    return (rows, end) if len(rows) > 1 else ([], start)


def _is_row(line: Line, following: Sequence[Line]) -> bool:
    """Return whether a line may be a row of a table: an item of a list, with its mark, is none,
    nor is a line of prose whose words are spread, if no row stands below them.
    """
    cells = line.cells[1:] if _ROW_MARK.fullmatch(line.cells[0][0]) else line.cells
    return len(cells) > 1 and (
        not _is_spread(cells)
        or any(
            len(below.cells) == len(line.cells)
            and not _is_spread(below.cells)
            and _is_below(line, below, line)
            for below in following
        )
    )


def _is_below(head: Line, line: Line, before: Line) -> bool:
    """Return whether two edges of the cells of a line stand below edges of the row above."""
    edges = [edge for _, left, right in head.cells for edge in (left, right)]
    tolerance = line.size / 2
    aligned = sum(
        any(abs(edge - own) < tolerance for edge in edges for own in cell[1:])
        for cell in line.cells
    )
    return aligned > 1 and 0 < before.y - line.y < 6 * line.size


def _continued_columns(lines: Sequence[Line], number: int, head: Line) -> list[int]:
    """Return the columns of the row that begins with `head` in which a line goes on.

    [] where it is a row of its own, or no row.
    """
    line, before = lines[number], lines[number - 1]
    step = before.y - line.y
    is_near = 0 < step < _CELL_STEP * line.size and abs(line.size - head.size) < 0.2 * line.size
    if not is_near or len(line.cells) >= len(head.cells):
        return []
    columns = [_column_of(cell, head) for cell in line.cells]
    if min(columns) < 0 or any(after <= column for column, after in pairwise(columns)):
        return []
    words = [text for text, _, _ in line.cells if _LETTER.match(text)]
    goes_on = bool(words) and all(text[0].islower() for text in words)
    # Rows stand farther apart than the lines in a cell, if those are told by nothing else.
    gap = next(
        (
            above.y - row.y
            for above, row in pairwise(lines[number : number + _CELL_LINES])
            if len(row.cells) > len(line.cells) and _is_below(head, row, above)
        ),
        0.0,
    )
    is_one = columns[0] > 0 and len(columns) == 1
    return columns if goes_on or is_one or step * _EVEN_GAPS < gap else []


def _column_of(cell: tuple[str, float, float], head: Line) -> int:
    """Return the column of a row whose cell is above another one, and no other is; -1 if none."""
    _, left, right = cell
    below = [n for n, (_, x0, x1) in enumerate(head.cells) if left < x1 and x0 < right]
    return below[0] if len(below) == 1 else -1


def _is_spread(cells: Sequence[tuple[str, float, float]]) -> bool:
    """Return whether the words of a line are spread evenly, to fill its column."""
    gaps = [after[1] - before[2] for before, after in pairwise(cells)]
    return len(gaps) > 2 and max(gaps) < _EVEN_GAPS * min(gaps)


def _add_paragraph(blocks: Blocks, lines: Sequence[str], continues: bool) -> None:
    """Add a paragraph of lines; one at the start of a page may go on with the page before."""
    if not lines:
        return
    text = " ".join(lines).replace(f"{HYPHEN} ", HYPHEN)
    sort, last = blocks.parts[-1] if blocks.parts else ("", "")
    is_ended = _SENTENCE_END.search(last[-_MARK:]) is not None
    goes_on = last.endswith(HYPHEN) or (text[:1].islower() and not is_ended)
    continues = continues and len(last) < _MAX_PARAGRAPH
    if continues and sort == "paragraph" and goes_on and not _ITEM.match(text):
        joint = "" if last.endswith(HYPHEN) else " "
        blocks.parts[-1] = (sort, last + joint + text)
    else:
        blocks.add(text)
