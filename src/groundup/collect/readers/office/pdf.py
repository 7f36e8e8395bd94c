"""PDF files: one document a file, by pdfium, in a child process.

pdfium is a C++ library that reads what anybody may have written: a page that kills the child costs
itself (`files/child.py`).

Lines become paragraphs again: words that a line end has cut are joined, and running heads, feet and
page numbers, which many pages repeat at the same place, are left out. Pages without text (scans),
and pages whose fonts do not say which letters they draw, are read by Tesseract if the source asks
for it (`readers/office/ocr.py`), and else listed.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import cast

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.files.child import Child, item_path
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.blocks import Blocks
from groundup.collect.readers.office.ocr import recognize, recognize_page
from groundup.collect.readers.office.pdf_pages import (
    HYPHEN,
    Line,
    Page,
    close_document,
    open_document,
    read_pages,
)
from groundup.recipe import Source

_NO_LAYER = 'no text layer, as scans have none: [[source]] ocr = "eng" reads them by Tesseract'
_SEEN_EMPTY = "no text layer, and Tesseract sees no text in it"
# Pages that one call reads.
_BATCH = 32
# A file that kills or stops the child this often is not read further, nor are its pictures if it
# does so to Tesseract.
_MAX_FAILURES = 5
# What pdfium may take for a file, and more for each page, 5 times what a full one takes; the pages
# after are listed. A page of less than a kilobyte is one of a few that a small file repeats.
_MAX_SECONDS, _PAGE_SECONDS, _PAGE_BYTES = 120.0, 0.1, 1024
MAX_PAGES = 100_000
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
# A page of which this share of characters has no letter is garbage; so is one of Latin letters with
# few vowels: a font whose letters are shifted. English has 38 % vowels, Polish 36 %, Czech 40 %.
_UNMAPPED_SHARE, _VOWEL_SHARE, _MIN_LATIN = 0.3, 0.2, 200
_NOT_TEXT = re.compile("[\ue000-\uf8ff\ufffd\x00-\x01\x03-\x08\x0e-\x1f]")
_LATIN = re.compile("[A-Za-zÀ-ɏ]")
_VOWEL = re.compile("[aeiouyAEIOUYÀ-ÆÈ-ÏÒ-ÖØ-ÝÞà-æè-ïò-öø-ýÿĀ-ąĒ-ěĨ-ıŌ-œŨ-ųŶ-Ÿ]")
# Lines at the edges of a page that may be running heads or feet: the outer ones, in the outer
# tenths of its height.
_EDGE_LINES, _EDGE = 3, 0.1
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.)?\W*(?:\d{1,5}|[ivxlcdm]{1,7})(?:\W*(?:of|von|de|/)\W*\d{1,5})?\W*",
    re.IGNORECASE,
)
_MAX_NUMBER = 100  # characters of a line that is one
_CODE_SHARE, _MIN_NUMBERED = 0.8, 3
_EVEN_GAPS = 1.15  # the widest of a line that is spread, by the narrowest
_HEADING_SIZE = 1.2  # heights of usual letters
# Heads of tables of contents, and their lines: dots up to a number, or a number as last cell.
_CONTENTS = re.compile(
    r"(?:table of )?contents|(?:inhalts|tabellen|abbildungs)verzeichnis|inhalt|table des matières"
    r"|sommaire|índice(?: general)?|sumário|indice|sommario|inhoud(?:sopgave)?|innehåll|indhold"
    r"|spis treści|obsah|содержание|оглавление|目录|目次|目錄|list of (?:figures|tables)",
    re.IGNORECASE,
)
_LEADERS = re.compile(r"(?:[.·…] ?){4,}\s?(?:[\w-]{0,4}\d|[ivxlc]{1,7})\Z")
_ENTRY = re.compile(r".{0,200}?[^\W\d].{0,200}[ .·…](?:(\d{1,4})|[\w-]{0,4}\d|[ivxlc]{1,7})")
# A paragraph of this many characters does not go on over the page: each page would copy it.
_MAX_PARAGRAPH = 1_000_000
# On this many pages, or on this share of them; a head that changes with the chapter is on few.
_REPEATED, _REPEATED_SHARE, _FAR_REPEATED = 3, 0.3, 5
# Lines before and after one that may be in its column.
_COLUMN_LINES, _BLOCK_LINES = 12, 5
_DIGITS = re.compile(r"\d+")
# The number of the page at either end of a head: left pages have it at the left.
_PAGE_OF_HEAD = re.compile(r"\A\W*\d{1,5}\s+|\s+\d{1,5}\W*\Z")
_SENTENCE_END = re.compile(r"[.!?…:;。！？।۔؟][\"'”’»)\]]*[\d¹²³⁰⁴-⁹]{0,3}\Z")
_ITEM = re.compile(r"(?:[•▪●◦‣∙■□➢–—*-]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)])\s+\S")
# From the start of a word: from each of its letters, a long one takes quadratic time.
# Captions, and lines such as `Date: 3 May` below each other.
_CAPTION = re.compile(
    r"(?:table|tabelle|tableau|tabla|fig(?:ure|ura|\.)|abb(?:ildung|\.)|algorithm|listing)"
    r"\s?\d{1,3}(?:\.\d{1,3})*[.:]",
    re.IGNORECASE,
)
_LABEL = re.compile(r"[^\W\d][\w .-]{0,30}:\s")
# An entry of a bibliography.
_REFERENCE = re.compile(r"\[[\w+.-]{1,12}\]\s+\S")
_CUT_WORD = re.compile(rf"(?<![^\W\d_])([^\W\d_]++){HYPHEN}\s*+([^\W\d_]+)")
_WAIT = re.compile(r"please wait\.\.\.", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


def read_pdf(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of a PDF, then the pages that have none, by their numbers.

    Raises DamagedError if it is damaged, wants a password, or has too many pages.
    """
    with item_path(item) as path:
        pages = _Pages(path, source.ocr)
        text = _Text(pages.read())
    document = text.document()
    record = 0
    if pages.is_form and (not document or _WAIT.search(document[:200])):
        detail = "an XFA form without pages of its own: print it to PDF in Acrobat"
        yield Reject("unsupported-format", detail=detail)
        return
    if document:
        yield Document(document, group=item.origin)
        record = 1
    for reason, numbers, advice in (
        ("no-text-layer", text.empty, _SEEN_EMPTY if source.ocr else _NO_LAYER),
        ("no-unicode-map", text.garbled, "a font does not say which letters it draws"),
        ("damaged", pages.failed, "it cannot be read"),
        ("timeout", pages.late, "those before took too much time"),
    ):
        # Blank pages are usual; a whole file of them is a scan.
        if numbers and not (reason == "no-text-layer" and document and len(numbers) < 2):
            yield Reject(reason, record, f"{_listed(numbers)} of {pages.count}: {advice}")
            record += 1
    if not record:
        yield Reject("no-text", detail="a PDF without any text")


@dataclass
class _Pages:
    """The pages of a file, and the numbers of those that cannot be read."""

    path: str
    languages: str  # of pages without a text layer; "" leaves them empty
    count: int = 0
    is_form: bool = False
    failed: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    _seconds: float = 0.0  # that pdfium took
    _failures: int = 0  # of pdfium
    _unseen: int = 0  # failures of Tesseract

    def read(self) -> Iterator[tuple[int, Page]]:
        """Yield the pages by number from 0, in order; DamagedError if the file is not readable."""
        self.count, reason, self.is_form = Child.call(open_document, self.path)
        if reason == "encrypted":
            raise DamagedError(reason, "it wants a password: save it without one first")
        if reason:
            raise DamagedError(reason, "it is no whole PDF")
        if self.count > MAX_PAGES:
            raise DamagedError("too-large", f"it has more than {MAX_PAGES:,} pages")
        stored = min(self.count, Path(self.path).stat().st_size // _PAGE_BYTES)
        for first in range(0, self.count, _BATCH):
            if self._seconds > _MAX_SECONDS + _PAGE_SECONDS * stored:
                self.late = list(range(first, self.count))
                break
            numbers = range(first, min(first + _BATCH, self.count))
            for number, page in zip(numbers, self._batch(numbers), strict=True):
                if page is None:
                    self.failed.append(number)
                else:
                    yield number, self._recognized(number, page)
        Child.call(close_document)

    def _batch(self, numbers: range) -> Sequence[Page | None]:
        start = time.monotonic()
        try:
            pages: list[Page | None] = Child.call(
                read_pages, self.path, numbers.start, len(numbers)
            )
            return pages
        except DamagedError:
            # One by one: the page that does it costs itself.
            return [self._single(number) for number in numbers]
        finally:
            self._seconds += time.monotonic() - start

    def _single(self, number: int) -> Page | None:
        if self._failures < _MAX_FAILURES:
            try:
                (page,) = Child.call(read_pages, self.path, number, 1)
                return cast("Page | None", page)
            except DamagedError:
                self._failures += 1
        return None

    def _recognized(self, number: int, page: Page) -> Page:
        """Return a page, with what Tesseract sees where its text layer is missing or garbage."""
        has_text = page.text.strip() and not is_garbled(page.text, page)
        if has_text or not self.languages or self._unseen >= _MAX_FAILURES:
            return page
        try:
            seen = recognize_page(self.path, number, self.languages)
        except DamagedError:
            self._unseen += 1
            return page
        return seen if seen.lines else page


class _Text:
    """The text of pages: paragraphs from lines, without what pages repeat at their edges."""

    def __init__(self, pages: Iterable[tuple[int, Page]]) -> None:
        self.empty: list[int] = []
        self.garbled: list[int] = []
        self._pages: list[Page] = []
        size = 0
        for number, page in pages:
            text = page.text
            size += len(text)
            if size > MAX_DOCUMENT_BYTES:
                limit = f"{MAX_DOCUMENT_BYTES >> 20} MB"
                raise DamagedError("too-large", f"its text is longer than {limit}")
            if not text.strip():
                self.empty.append(number)
            elif is_garbled(text, page):
                self.garbled.append(number)
            else:
                self._pages.append(page)

    def document(self) -> str:
        """Return the text of the pages that have one."""
        running = _running_lines(self._pages)
        blocks, contents = Blocks(), _Contents(len(self._pages))
        sizes = [(line.pitch, len(line.text)) for page in self._pages for line in page.lines]
        in_code = sum(size for pitch, size in sizes if pitch)
        # A text that is all in a typewriter's font is no code.
        has_code = in_code < _CODE_SHARE * sum(size for _, size in sizes)
        for page in self._pages:
            lines = [line for line in page.lines if id(line) not in running]
            _add_page(blocks, page, contents.without(lines), has_code)
        text = blocks.text()
        # How other places write a word that a line end has cut.
        words = Counter(word.lower() for word in _WORD.findall(text))

        def join(match: re.Match[str]) -> str:
            first, second = match.groups()
            whole, hyphenated = f"{first}{second}", f"{first}-{second}"
            is_compound = words[hyphenated.lower()] > words[whole.lower()]
            return hyphenated if is_compound or second[0].isupper() else whole

        return _CUT_WORD.sub(join, text).replace(HYPHEN, "-").translate(_LIGATURES)


def read_image(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text that Tesseract sees in a picture, if the source asks for it."""
    if not source.ocr:
        yield Reject("unsupported-format", detail="image")
        return
    with item_path(item) as path, tempfile.TemporaryDirectory() as folder:
        text = _Text(enumerate(recognize(path, source.ocr, folder)))
    if document := text.document():
        yield Document(document, group=item.origin)
    else:
        yield Reject("no-text", detail="Tesseract sees no text in this image")


def is_garbled(text: str, page: Page) -> bool:
    """Return whether the text of a page is none: its font does not say which letters it draws."""
    characters = max(1, len("".join(text.split())))
    if page.unmapped + len(_NOT_TEXT.findall(text)) > _UNMAPPED_SHARE * characters:
        return True
    latin = len(_LATIN.findall(text))
    few_vowels = len(_VOWEL.findall(text)) < _VOWEL_SHARE * latin
    return latin >= _MIN_LATIN and latin > characters / 2 and few_vowels


def _running_lines(pages: Sequence[Page]) -> set[int]:
    """Return the ids of the lines that are running heads, feet or page numbers."""
    edges: list[tuple[tuple[str, int], Line]] = []
    running: set[int] = set()
    heights = [line.y for page in pages for line in page.lines]
    lowest, highest = min(heights, default=0.0), max(heights, default=0.0)
    zone = _EDGE * (highest - lowest)
    for page in pages:
        lines = sorted(page.lines, key=lambda line: line.y)
        outer = [*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:]]
        for line in {id(line): line for line in outer}.values():
            if not lowest + zone < line.y < highest - zone:
                # Nobody sees a shift of less than a few points.
                text = _DIGITS.sub("0", _PAGE_OF_HEAD.sub("", line.text.casefold()))
                edges.append(((text, round(line.y / 6)), line))
        for line in lines[:1] + lines[-1:]:
            is_short = len(lines) > 1 and len(line.text) < _MAX_NUMBER
            if is_short and _PAGE_NUMBER.fullmatch(line.text):
                running.add(id(line))
    counts = Counter(key for key, _ in edges)
    for (text, row), line in edges:
        count = sum(counts[text, row + shift] for shift in (-1, 0, 1))
        if count >= _REPEATED and (count >= _REPEATED_SHARE * len(pages) or count > _FAR_REPEATED):
            running.add(id(line))
    return running


@dataclass
class _Contents:
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
            # The last line of an entry has the number.
            ahead = [self._is_entry(other) for other in lines[number : number + 4]]
            has_leaders = _LEADERS.search(line.text) is not None
            starts = (is_head or has_leaders) and sum(ahead) > 1
            self.is_inside = starts or (self.is_inside and any(ahead[:2]))
            if not self.is_inside:
                kept.append(line)
            elif ahead[0]:
                self.last = _page_number(line)
        return kept

    def _is_entry(self, line: Line) -> bool:
        number = _page_number(line)
        is_apart = len(line.cells) > 1 or _LEADERS.search(line.text)
        return self.last <= number and bool(is_apart or 0 < number <= self.pages)


def _page_number(line: Line) -> int:
    """Return the number at the end of a line of a table of contents: 0 if Roman, -1 if none."""
    entry = _ENTRY.fullmatch(line.text)
    return -1 if entry is None else int(entry[1] or 0)


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


def _add_page(blocks: Blocks, page: Page, lines: Sequence[Line], has_code: bool) -> None:
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
        end = _code_end(lines, number) if has_code else number
        if end > number + 1 or (end > number and is_start):
            _add_paragraph(blocks, paragraph, continues)
            paragraph, continues, before = [], False, None
            blocks.parts.append(("break", ""))
            blocks.add(_code(lines[number:end]), "code")
            number = end
            continue
        end = _table_end(lines, number)
        if end > number:
            _add_paragraph(blocks, paragraph, continues)
            paragraph, continues, before = [], False, None
            blocks.parts.append(("break", ""))
            for row in lines[number:end]:
                blocks.add(" | ".join(text for text, _, _ in row.cells), "row")
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
    is_other = _ITEM.match(line.text) or _CAPTION.match(line.text) or is_label
    is_other = is_other or abs(before.size - line.size) > 0.2 * size
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


def _table_end(lines: Sequence[Line], start: int) -> int:
    """Return the end of the table that starts at a line; `start` where none does.

    A table has two rows or more whose cells stand below each other.
    """
    end = start
    while end < len(lines) and len(lines[end].cells) > 1 and not _is_spread(lines[end]):
        if end > start:
            edges = [edge for _, left, right in lines[end - 1].cells for edge in (left, right)]
            tolerance = lines[end].size / 2
            aligned = sum(
                any(abs(edge - own) < tolerance for edge in edges for own in cell[1:])
                for cell in lines[end].cells
            )
            if aligned < 2 or not 0 < lines[end - 1].y - lines[end].y < 6 * lines[end].size:
                break
        end += 1
    return end if end - start > 1 else start


def _is_spread(line: Line) -> bool:
    """Return whether the words of a line are spread evenly, to fill its column."""
    gaps = [after[1] - before[2] for before, after in pairwise(line.cells)]
    return len(gaps) > 2 and max(gaps) < _EVEN_GAPS * min(gaps)


def _add_paragraph(blocks: Blocks, lines: Sequence[str], continues: bool) -> None:
    """Add a paragraph of lines; one at the start of a page may go on with the page before."""
    if not lines:
        return
    text = " ".join(lines).replace(f"{HYPHEN} ", HYPHEN)
    sort, last = blocks.parts[-1] if blocks.parts else ("", "")
    is_ended = _SENTENCE_END.search(last[-_MAX_NUMBER:]) is not None
    goes_on = last.endswith(HYPHEN) or (text[:1].islower() and not is_ended)
    continues = continues and len(last) < _MAX_PARAGRAPH
    if continues and sort == "paragraph" and goes_on and not _ITEM.match(text):
        joint = "" if last.endswith(HYPHEN) else " "
        blocks.parts[-1] = (sort, last + joint + text)
    else:
        blocks.add(text)


def _listed(numbers: Sequence[int]) -> str:
    """Return page numbers from 1 as a person lists them: `pages 1-3, 7`."""
    parts: list[list[int]] = []
    for number in (number + 1 for number in numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    ranges = [f"{first}" if first == last else f"{first}-{last}" for first, last in parts]
    more = f" and {len(ranges) - 12} more" if len(ranges) > 12 else ""
    return f"pages {', '.join(ranges[:12])}{more}"
