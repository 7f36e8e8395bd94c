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
from pathlib import Path
from statistics import median
from typing import cast

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.files.child import Child, item_path
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.blocks import Blocks
from groundup.collect.readers.office.ocr import recognize, recognize_page
from groundup.collect.readers.office.pdf_layout import Contents, add_page, has_code
from groundup.collect.readers.office.pdf_pages import (
    Line,
    Page,
    close_document,
    open_document,
    read_pages,
)
from groundup.collect.readers.office.pdf_words import HYPHEN
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
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile("[A-Za-zÀ-ɏ]")
_VOWEL = re.compile("[aeiouyAEIOUYÀ-ÆÈ-ÏÒ-ÖØ-ÝÞà-æè-ïò-öø-ýÿĀ-ąĒ-ěĨ-ıŌ-œŨ-ųŶ-Ÿ]")
# Lines at the edges of a page that may be running heads or feet: the outer ones, in the outer
# tenths of its height.
_EDGE_LINES, _EDGE = 3, 0.1
# Heads of more lines repeat the further ones letter by letter.
_TALL_EDGE_LINES, _MIN_HEAD = 6, 5
_PAGE_NUMBER = re.compile(
    r"\W*(?:page|seite|p\.)?\W*(?:\d{1,5}|[ivxlcdm]{1,7})(?:\W*(?:of|von|de|/)\W*\d{1,5})?\W*",
    re.IGNORECASE,
)
_MAX_NUMBER = 100  # characters of a line that is one
# A head of a page with at least these lines has this room below, in heights of its letters. With a
# number, or with words far apart (in widths of the page), it is near to the edge (in heights).
_FULL_PAGE, _HEAD_STEP = 8, 1.8
_NUMBER_DEPTH, _HEAD_GAP, _HEAD_DEPTH = 0.15, 0.4, 0.06
# On this many pages, or on this share of them; a head that changes with the chapter is on few.
_REPEATED, _REPEATED_SHARE, _FAR_REPEATED = 3, 0.3, 5
_DIGITS = re.compile(r"\d+")
# The number of the page at either end of a head: left pages have it at the left.
_PAGE_OF_HEAD = re.compile(r"\A\W*(\d{1,5})\s+|\s+(\d{1,5})\W*\Z")
_PAGE_OF = re.compile(
    r"(?:(?:page|seite|página|pagina|sida|side|strona|стр\.)\s)?"
    r"\d{1,4}\s(?:of|von|de|sur|di|van|av|z|из)\s\d{1,4}",
    re.IGNORECASE,
)
# What browsers print at the margins: an address, `1 of 3`, a date with its time.
_PRINTED = re.compile(
    r"(?:https?|file)://\S+|\d{1,4}\s?/\s?\d{1,4}|"
    + _PAGE_OF.pattern
    + r"|\d{1,4}[./-]\d{1,2}[./-]\d{1,4},?\s\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?:\s?[AP]M)?"
)
# A page of this many marks or more is the noise of a scan, which a program took for letters, where
# no word has four of them and a third of the marks have neither letter nor digit.
_NOISE_MARKS, _NOISE_SHARE, _REAL_WORD = 20, 1 / 3, re.compile(r"[^\W\d_]{4}")
# From the start of a word: from each of its letters, a long one takes quadratic time.
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
        text = page.text
        has_text = text.strip() and not is_noise(text) and not is_garbled(text, page)
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
            if not text.strip() or is_noise(text):
                self.empty.append(number)
            elif is_garbled(text, page):
                self.garbled.append(number)
            else:
                self._pages.append(page)

    def document(self) -> str:
        """Return the text of the pages that have one."""
        running = _running_lines(self._pages)
        blocks, contents = Blocks(), Contents(len(self._pages))
        with_code = has_code(self._pages)
        for page in self._pages:
            lines = [
                line for line in page.lines if id(line) not in running and has_letters(line.text)
            ]
            add_page(blocks, page, contents.without(lines), with_code)
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


def is_noise(text: str) -> bool:
    """Return whether the text layer of a page is what a program saw in the spots of a scan."""
    marks = text.split()
    if len(marks) < _NOISE_MARKS or _REAL_WORD.search(text):
        return False
    return sum(not any(map(str.isalnum, mark)) for mark in marks) > _NOISE_SHARE * len(marks)


def has_letters(text: str) -> bool:
    """Return whether a line has text; the labels of a figure may have codes of their font only."""
    unmapped = len(_NOT_TEXT.findall(text)) + text[:-1].count(HYPHEN)
    return not unmapped or any(map(str.isalnum, text)) or len(text.split()) > 2 * unmapped


def _running_lines(pages: Sequence[Page]) -> set[int]:
    """Return the ids of the lines that are running heads, feet or page numbers."""
    edges: list[tuple[tuple[str, int], Line]] = []
    running: set[int] = set()
    heights = [line.y for page in pages for line in page.lines]
    lowest, highest = min(heights, default=0.0), max(heights, default=0.0)
    zone = _EDGE * (highest - lowest)
    for page in pages:
        lines = sorted(page.lines, key=lambda line: line.y)
        for place, line in enumerate(lines):
            rank = min(place, len(lines) - 1 - place)
            if rank >= _TALL_EDGE_LINES or lowest + zone < line.y < highest - zone:
                continue
            if rank < _EDGE_LINES and any(_PAGE_OF.fullmatch(cell) for cell, _, _ in line.cells):
                running.add(id(line))
            text = line.text.casefold()
            if rank < _EDGE_LINES:
                text = _DIGITS.sub("0", _PAGE_OF_HEAD.sub("", text))
            elif not _LETTER.search(text) and len(text) < _MIN_HEAD:
                continue
            # Nobody sees a shift of less than a few points.
            edges.append(((text, round(line.y / 6)), line))
        for line, next_line in zip(lines[:1] + lines[-1:], lines[1:2] + lines[-2:-1], strict=False):
            if _is_margin(page, line, next_line):
                running.add(id(line))
    counts = Counter(key for key, _ in edges)
    for (text, row), line in edges:
        count = sum(counts[text, row + shift] for shift in (-1, 0, 1))
        if count >= _REPEATED and (count >= _REPEATED_SHARE * len(pages) or count > _FAR_REPEATED):
            running.add(id(line))
    return running | _numbered_heads(pages)


def _is_margin(page: Page, line: Line, next_line: Line) -> bool:
    """Return whether the outermost line of a page is no text by itself: a number, what a browser
    prints, or a head with the number of the page, or of two words far apart.
    """
    cells = [text for text, _, _ in line.cells]
    if len(line.text) < _MAX_NUMBER and _PAGE_NUMBER.fullmatch(line.text):
        return len(page.lines) > 1
    if len(cells) < 2 or len(page.lines) < 3:
        return False
    if any(map(_PRINTED.fullmatch, cells)):
        return True
    if len(page.lines) < _FULL_PAGE or abs(line.y - next_line.y) < _HEAD_STEP * line.size:
        return False
    depth = min(line.y, page.height - line.y) / max(page.height, 1.0)
    is_small = line.size < 1.05 * median(other.size for other in page.lines)
    has_number = is_small and any(
        cell.isdecimal() and len(cell) < 5 for cell in cells[:: len(cells) - 1]
    )
    gap = (line.cells[1][1] - line.cells[0][2]) / max(page.width, 1.0)
    is_apart = len(cells) == 2 and gap > _HEAD_GAP and depth < _HEAD_DEPTH
    return (has_number and depth < _NUMBER_DEPTH) or is_apart


def _numbered_heads(pages: Sequence[Page]) -> set[int]:
    """Return the ids of heads with the number of their page, which count with the pages."""
    heads: list[tuple[tuple[int, int], Line]] = []
    for number, page in enumerate(pages):
        lines = sorted(page.lines, key=lambda line: line.y)
        for line in (*lines[:1], *lines[-1:]) if len(lines) > 2 else ():
            match = _PAGE_OF_HEAD.search(line.text) if len(line.text) < _MAX_NUMBER else None
            if match is not None:
                heads.append(((int(match[1] or match[2]) - number, round(line.y / 6)), line))
    counts = Counter(key for key, _ in heads)
    return {
        id(line)
        for (first, row), line in heads
        if sum(counts[first, row + shift] for shift in range(-2, 3)) >= _REPEATED
    }


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
