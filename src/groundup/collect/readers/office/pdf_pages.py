"""Pages of a PDF → lines in reading order, in a child process that may crash.

A PDF says where each character is drawn, not which words, lines or columns there are. Characters
become words, words of one baseline become a line of cells, and lines come in the order in which
they were drawn, which is the order of reading in nearly all files. Where it is not, the page is cut
at its white columns:

    ┌─────────────────────┐
    │ A title over both   │ 1
    │ left 2  ║  right 3  │ lines that no line crosses are columns
    └─────────────────────┘

`pdf_words.py` makes the words; neither imports more than the child needs, which starts in 0.2 s.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from groundup.collect.readers.office.pdf_forms import Value, form_values
from groundup.collect.readers.office.pdf_words import HYPHEN, SCRIPT_SIZE, Word, page_words, script

# Parts of a line this far apart, in heights of its letters, are cells or columns; after a sentence
# there may be more space than between words.
_CELL_GAP, _PLAIN_GAP = 1.0, 0.8
_PAUSE = (".", "!", "?", ":", ";", ",")
_SAME_LINE, _LETTER_GAP = 0.4, 0.06
# Lines of a cell are this close, in heights of letters; a row has at most so many.
_CELL_STEP, _ROW_LINES = 1.6, 24
# Keywords of code may be in another font.
_CODE_SHARE = 0.6
_PROSE_WORDS, _BULLETS = 2, "•▪●◦‣∙■□➢"
_MARK_LENGTH = 8  # of exponents and marks of notes or authors, such as a,b,*
# Gaps of a page that are all about as wide, so many of them, are those between words.
_MIN_GAPS, _EVEN_GAPS = 12, 1.6
# Text of another direction than most of a page is kept from this many characters, or this share of
# the page, on; less is a stamp on the margin.
_MIN_TURNED, _TURNED_SHARE = 300, 0.2
# What Tesseract is made for; a larger page than some A1 is drawn with fewer pixels.
_DPI, _MAX_PIXELS = 300, 70_000_000
# A page is cut into columns where this share of its lines is drawn above the one before.
_DISORDER = 0.15
# pdfium's errors: a file that is no PDF, that wants a password, an unknown protection.
_REASONS = {3: "damaged", 4: "encrypted", 5: "encrypted", 6: "damaged"}


@dataclass(slots=True)
class Line:
    """Words of one baseline: cells of text, each with its left and right end in points."""

    cells: list[tuple[str, float, float]]
    y: float  # of the baseline, upward
    size: float  # height of its letters
    pitch: float = 0.0  # width of a letter where all are as wide, as in code; else 0

    @property
    def text(self) -> str:
        """Its cells, with a space between them."""
        return " ".join(text for text, _, _ in self.cells)

    @property
    def left(self) -> float:
        """Its left end."""
        return self.cells[0][1]

    @property
    def right(self) -> float:
        """Its right end."""
        return self.cells[-1][2]


@dataclass(slots=True)
class Page:
    """The lines of a page in reading order."""

    lines: list[Line] = field(default_factory=list)
    height: float = 0.0
    width: float = 0.0
    characters: int = 0
    unmapped: int = 0  # characters that the font gives no letter for

    @property
    def text(self) -> str:
        """Its lines, as they are."""
        return "\n".join(line.text for line in self.lines)


def open_document(path: str) -> tuple[int, str, bool]:
    """Return the number of pages of a PDF, why it cannot be read ("" if it can), if it is XFA."""
    close_document()
    try:
        document = _document(path)
    except _pdfium().PdfiumError as error:
        return 0, _REASONS.get(getattr(error, "err_code", None) or 3, "damaged"), False
    return len(document), "", document.get_formtype() == 2  # XFA in full


def read_pages(path: str, first: int, count: int) -> list[Page | None]:
    """Return pages of a PDF by number from 0; None for one that cannot be read."""
    document = _document(path)
    return [_read_page(document, number) for number in range(first, first + count)]


def is_scan(path: str, pages: int) -> bool:
    """Return whether the first pages of a PDF show something, but have no text layer."""
    if open_document(path)[1]:
        return False
    document = _document(path)
    try:
        found = [document[number] for number in range(min(pages, len(document)))]
        return bool(found) and not any(page.get_textpage().count_chars() for page in found)
    except _pdfium().PdfiumError:
        return False
    finally:
        close_document()


def draw_page(path: str, number: int, target: str) -> float:
    """Draw a page in gray as a PGM file; return its resolution in pixels an inch, 0 if it fails."""
    try:
        page = _document(path)[number]
        width, height = page.get_size()
        scale = min(_DPI / 72, (_MAX_PIXELS / max(1.0, width * height)) ** 0.5)
        bitmap = page.render(scale=scale, grayscale=True)
    except _pdfium().PdfiumError:
        return 0.0
    pixels, stride = memoryview(bitmap.buffer).cast("B"), bitmap.stride
    with Path(target).open("wb") as file:
        file.write(b"P5 %d %d 255\n" % (bitmap.width, bitmap.height))
        for start in range(0, stride * bitmap.height, stride):
            file.write(pixels[start : start + bitmap.width])
    return 72 * scale


def _pdfium() -> Any:
    import pypdfium2

    return pypdfium2


@lru_cache(maxsize=1)
def _document(path: str) -> Any:
    """Return the open document; the one before is closed as nothing refers to it any more."""
    document = _pdfium().PdfDocument(path)
    if document.get_formtype():
        # No script of the form runs: this pdfium has no JavaScript. It warns of XFA, whose values
        # stand in the fields, too.
        logging.getLogger("pypdfium2").setLevel(logging.ERROR)
        document.init_forms()
    return document


def close_document() -> None:
    """Close the document that is open."""
    if _document.cache_info().currsize:
        _document.cache_clear()


def _read_page(document: Any, number: int) -> Page | None:
    try:
        pdf_page = document[number]
        text_page = pdf_page.get_textpage()
    except _pdfium().PdfiumError:
        return None
    try:
        words = list(page_words(text_page, pdf_page.get_cropbox()))
        page = Page(height=pdf_page.get_height(), width=pdf_page.get_width())
        page.characters = sum(len(word.text) for word in words)
        page.unmapped = sum(len(word.text) for word in words if word.unmapped)
        counts = Counter[int]()
        for word in words:
            counts[word.angle] += len(word.text)
        for angle, characters in counts.most_common():
            if not page.lines or characters >= min(_MIN_TURNED, _TURNED_SHARE * page.characters):
                lines = join_words([word for word in words if word.angle == angle])
                page.lines += _in_order(lines)
        if document.formenv:
            for value in form_values(pdf_page, document.formenv):
                _add_value(page, value)
        return page
    finally:
        text_page.close()
        pdf_page.close()


def _add_value(page: Page, value: Value) -> None:
    """Add a value of a form to the line that it stands in, or as a line below those above it."""
    cell = (value.text, value.left, value.right)
    page.characters += len(value.text)
    for line in page.lines:
        if abs(line.y - value.y) < value.size / 2:
            if value.text in line.text and line.left < value.right and value.left < line.right:
                # The page has it, too.
                return
            if all(right <= value.left or value.right <= left for _, left, right in line.cells):
                line.cells = sorted([*line.cells, cell], key=lambda cell: cell[1])
                return
    below = (number for number, line in enumerate(page.lines) if line.y < value.y)
    page.lines.insert(next(below, len(page.lines)), Line([cell], value.y, value.size))


def join_words(words: Sequence[Word]) -> list[Line]:
    """Join words that follow each other on a baseline; a wide gap starts a cell."""
    lines: list[Line] = []
    members: list[list[Word]] = []  # of each line
    cell_gap = _cell_gap(words)
    for before, word in zip([None, *words], words, strict=False):
        line = lines[-1] if lines else None
        height = max(line.size, word.size) if line else word.size
        is_next = line is not None and abs(word.y - line.y) < _SAME_LINE * height
        if line is None or before is None or not is_next or word.x0 < line.right - height:
            lines.append(Line([(word.text, word.x0, word.x1)], word.y, word.size))
            members.append([word])
            continue
        members[-1].append(word)
        text, left, right = line.cells[-1]
        gap, spacing = word.x0 - right, max(before.spacing, word.spacing)
        share = 1.0 if before.text.endswith(_PAUSE) else _PLAIN_GAP
        if gap > share * cell_gap * height + 2 * spacing:
            line.cells.append((word.text, word.x0, word.x1))
        else:
            # pdfium puts a space where letters are drawn one by one, or far from each other.
            is_word = abs(gap) < _LETTER_GAP * height or (
                word.is_guessed and 0 < gap < spacing + _LETTER_GAP * height
            )
            line.cells[-1] = (_joined_text(text, before, word, is_word), left, word.x1)
        if word.size > line.size:
            # The baseline is that of the tallest letters, not of an index.
            line.y, line.size = word.y, word.size
    for line, own in zip(lines, members, strict=True):
        line.pitch = _pitch(own)
        line.size = _usual_size(own)
    return lines


def _joined_text(text: str, before: Word, word: Word, is_word: bool) -> str:
    """Return a text that ends with a word, and the next word; small raised digits as exponents."""
    if not is_word:
        return f"{text} {word.text}"
    rise = (word.y - before.y) / max(word.size, before.size)
    if word.size < SCRIPT_SIZE * before.size:
        return text + script(word.text, rise)
    if before.size < SCRIPT_SIZE * word.size and text.endswith(before.text):
        # The mark of a note or an author, before its text.
        return text.removesuffix(before.text) + script(before.text, -rise) + word.text
    return text + word.text


def _usual_size(words: Sequence[Word]) -> float:
    """Return the height of most letters of a line: a sign of another font may be taller."""
    sizes = Counter[float]()
    for word in words:
        sizes[word.size] += len(word.text)
    return max(sizes, key=lambda size: (sizes[size], size))


def _pitch(words: Sequence[Word]) -> float:
    """Return the width of a letter of a line in a font of code, 0 if it is in another one."""
    if len(words) > 1 and words[0].text.isdecimal():
        # It counts the lines.
        words = words[1:]
    pitches = [word.pitch for word in words if word.pitch]
    if not any(word.pitch for word in words[:_PROSE_WORDS]) or words[0].text in _BULLETS:
        # A sentence about names in code, or an item of a list.
        return 0.0
    in_code = sum(len(word.text) for word in words if word.pitch)
    is_code = in_code > _CODE_SHARE * sum(len(word.text) for word in words)
    return median(pitches) if is_code else 0.0


def _cell_gap(words: Sequence[Word]) -> float:
    """Return how wide the gap between two cells of a page is at least, in heights of letters."""
    gaps = sorted(
        (word.x0 - before.x1) / word.size
        for before, word in pairwise(words)
        if abs(word.y - before.y) < _SAME_LINE * word.size
        and word.x0 - before.x1 > _LETTER_GAP * word.size
    )
    quarter = len(gaps) // 4
    if len(gaps) < _MIN_GAPS or gaps[-1 - quarter] > _EVEN_GAPS * gaps[quarter]:
        return _CELL_GAP
    return max(_CELL_GAP, _EVEN_GAPS * gaps[len(gaps) // 2])


def _in_order(lines: list[Line]) -> list[Line]:
    """Return the lines of a page in the order of reading."""
    lines = _with_whole_cells(_without_raised_marks(lines))
    if len(lines) < 4:
        return sorted(lines, key=lambda line: -line.y)
    rises = sum(
        after.y > before.y + before.size and after.left < before.right and before.left < after.right
        for before, after in pairwise(lines)
    )
    if rises <= max(2, _DISORDER * len(lines)) and not _is_woven(lines):
        return lines
    spans = [Line([cell], line.y, line.size, line.pitch) for line in lines for cell in line.cells]
    return [line for block in _cut(spans, 0) for line in _joined(block)]


def _with_whole_cells(lines: list[Line]) -> list[Line]:
    """Join the lines of cells in rows that are drawn cell by cell, as TeX does.

    Two blocks of a few lines beside each other are no row, unless one above or below is alike.
    """
    whole: list[Line] = []
    number = 0
    while number < len(lines):
        row, end = _drawn_row(lines, number)
        if row is not None:
            below = _drawn_row(lines, end)[0] or lines[end] if end < len(lines) else None
            around = [other for other in (whole[-1] if whole else None, below) if other is not None]
            if any(_is_like(row, other) for other in around):
                whole.append(row)
                number = end
                continue
        whole.append(lines[number])
        number += 1
    return whole


def _drawn_row(lines: Sequence[Line], start: int) -> tuple[Line | None, int]:
    """Return the row that begins with a line, and where it ends; None where no cell has two lines
    that are drawn before the next cell.
    """
    first = lines[start]
    columns = [[cell] for cell in first.cells]
    lowest, end, rises = first.y, start + 1, False
    for line in lines[start + 1 : start + _ROW_LINES]:
        right = max(cell[2] for column in columns for cell in column)
        edge = max((cell[2] for column in columns[:-1] for cell in column), default=-1e9)
        text, left, line_right = line.cells[0]
        if abs(line.y - first.y) < _SAME_LINE * first.size and left > right:
            columns += [[cell] for cell in line.cells]
            lowest, rises = line.y, True
        elif (
            len(line.cells) == 1
            and 0 < lowest - line.y < _CELL_STEP * first.size
            and left > edge
            and any(left < cell[2] and cell[1] < line_right for cell in columns[-1])
        ):
            columns[-1].append((text, left, line_right))
            lowest = line.y
        else:
            break
        end += 1
    if not rises:
        return None, start
    cells = [
        (
            " ".join(text for text, _, _ in column).replace(f"{HYPHEN} ", HYPHEN),
            min(left for _, left, _ in column),
            max(right for _, _, right in column),
        )
        for column in columns
    ]
    return Line(cells, first.y, first.size, first.pitch), end


def _is_like(row: Line, other: Line) -> bool:
    """Return whether another line has the columns of a row."""
    if len(row.cells) != len(other.cells):
        return False
    return all(
        abs(left - x0) < row.size or (left < x1 and x0 < right)
        for (_, left, right), (_, x0, x1) in zip(row.cells, other.cells, strict=True)
    )


def _without_raised_marks(lines: list[Line]) -> list[Line]:
    """Join an exponent or a mark of a note, which has a baseline of its own, to its line."""
    merged: list[Line] = []
    for line in lines:
        if not merged:
            merged.append(line)
            continue
        before = merged[-1]
        gap = line.left - before.right
        if _is_mark(line, before, _MARK_LENGTH) and abs(gap) < 0.5 * before.size:
            text, left, _ = before.cells[-1]
            mark = script(line.text, (line.y - before.y) / before.size)
            before.cells[-1] = (text + mark, left, line.right)
        elif _is_mark(before, line, 5) and abs(gap) < line.size:
            # The mark of a footnote, before its text.
            text, _, right = line.cells[0]
            line.cells[0] = (f"{before.text} {text}", before.left, right)
            merged[-1] = line
        elif abs(line.y - before.y) < _SAME_LINE * before.size and -0.5 * before.size < gap:
            before.pitch = min(before.pitch, line.pitch)
            if gap > _CELL_GAP * before.size:
                before.cells += line.cells
            else:
                text, left, _ = before.cells[-1]
                first = line.cells[0]
                before.cells[-1:] = [(f"{text} {first[0]}", left, first[2]), *line.cells[1:]]
        else:
            merged.append(line)
    return merged


def _is_mark(small: Line, large: Line, length: int) -> bool:
    """Return whether a line of fewer than `length` letters is raised or lowered beside a larger."""
    is_smaller = len(small.text) < length and small.size < 0.85 * large.size
    return is_smaller and abs(small.y - large.y) < large.size


def _is_woven(lines: Sequence[Line]) -> bool:
    """Return whether two columns of prose are drawn line by line over both."""
    pairs = [line for line in lines if len(line.cells) == 2]
    if len(pairs) < 8 or len(pairs) < 0.4 * len(lines):
        return False
    starts = Counter(round(line.cells[1][1] / 4) for line in pairs)
    long = sum(min(len(text) for text, _, _ in line.cells) >= 20 for line in pairs)
    return starts.most_common(1)[0][1] > 0.6 * len(pairs) and long > 0.7 * len(pairs)


def _cut(spans: list[Line], depth: int) -> list[list[Line]]:
    """Cut a page at its widest white column, or where none is, at its white rows."""
    if len(spans) < 4 or depth > 8:
        return [spans]
    size = median(span.size for span in spans)
    gutter = _gap([(span.left, span.right) for span in spans], 0.8 * size)
    if gutter is not None:
        left = [span for span in spans if span.right <= gutter]
        right = [span for span in spans if span.right > gutter]
        # A narrow column is one of numbers or bullets: its lines belong to those beside it.
        widths = [max(s.right for s in part) - min(s.left for s in part) for part in (left, right)]
        if min(widths) > 8 * size and min(len(left), len(right)) > 2:
            return _cut(left, depth + 1) + _cut(right, depth + 1)
    row = _gap([(span.y, span.y + span.size) for span in spans], 0.7 * size)
    if row is None:
        return [spans]
    upper = [span for span in spans if span.y >= row]
    lower = [span for span in spans if span.y < row]
    return _cut(upper, depth + 1) + _cut(lower, depth + 1)


def _gap(ranges: list[tuple[float, float]], least: float) -> float | None:
    """Return the middle of the widest gap between ranges, at least `least` wide."""
    best, middle, end = least, None, None
    for low, high in sorted(ranges):
        if end is not None and low - end > best:
            best, middle = low - end, (low + end) / 2
        end = high if end is None else max(end, high)
    return middle


def _joined(spans: list[Line]) -> list[Line]:
    """Return the lines of a block from the top, each with its cells from the left."""
    lines: list[Line] = []
    for span in sorted(spans, key=lambda span: (-span.y, span.left)):
        if lines and abs(lines[-1].y - span.y) < _SAME_LINE * span.size:
            lines[-1].cells += span.cells
            lines[-1].pitch = min(lines[-1].pitch, span.pitch)
        else:
            lines.append(Line(list(span.cells), span.y, span.size, span.pitch))
    for line in lines:
        line.cells.sort(key=lambda cell: cell[1])
    return lines
