"""Rows of CSV and TSV files, as dictionaries; a row that is damaged costs itself.

    text,label
    "two lines,                   a field in quotation marks goes on over line ends
    and a ""quoted"" word",1
    "a stray mark,2               this one ends nowhere: its line is listed, and the next one
    the next row,3                is read as if nothing had been

The delimiter is told by the first line, or by Excel's `sep=;` before it. Spark and MySQL write a
quotation mark within a field as `\\"` instead of `""`; the start of the file tells which one it is.
MySQL writes a tab or line end within a field of a TSV file behind a backslash.

The first row that is not blank is the header. Where it holds prose, the file has none, and its
columns are called 1, 2 and so on, or `text` if there is only one.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from groundup.artifacts.document import Reject
from groundup.collect.charset import detect_encoding, open_text, repair_text
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item, bounded_lines

MAX_FIELDS = 1 << 20  # a row becomes a list of Python objects before its length can be checked
MAX_LINES = 1 << 20  # lines of one quoted field; each takes 50 bytes more than its characters
READ_AGAIN = 8  # characters that may be read again, for each one that was read

_SEP_LINE = re.compile(r'"?sep=([^"\w\r\n])"?\s*', re.IGNORECASE)
_ESCAPE = re.compile(r'\\(["\\]|\r?\n)')
_ESCAPED = {'"': '""', "\\": "\\"}
_QUOTED = re.compile(r'"[^"]*"')
_NULL = r"\N"
_NUMBER = re.compile(r"[-+]?[\d.,]+\Z")
_TAB = re.compile(r"(?<!\\)\t")
_ESCAPED_CHARACTER = re.compile(r"\\\r?([\t\n])")


def read_csv(item: Item) -> Iterator[tuple[int, dict[str, Any] | Reject]]:
    """Yield the rows of a CSV or TSV file after its header, numbered; blank ones count.

    Raises DamagedError if the header cannot be read, or the file is damaged.
    """
    rows = open_rows(item)
    for index, row in enumerate(rows, item.first):
        if isinstance(row, Reject):
            yield index, replace(row, record=index)
        elif row:
            # Looking at all fields at once is fast, and most rows are ASCII and have no null.
            values: Sequence[str | None] = row
            if not "".join(row).isascii():
                values = [*map(repair_text, row)]
            if _NULL in row:
                values = [None if value == _NULL else value for value in values]
            yield index, dict(zip(rows.names, values, strict=True))
    if rows.lines.damage:
        raise rows.lines.damage


def open_rows(item: Item) -> CsvRows:
    """Return the rows of a file after its header; of a piece, those that begin in it.

    The header of a piece is in the first bytes of the file. Raises DamagedError if it cannot be
    read.
    """
    csv.field_size_limit(MAX_RECORD)
    lines = _Lines(bounded_lines(open_text(item), ("\n", "\r"), MAX_RECORD))
    if item.first:
        lines.number, lines.credit = item.lines, lines.credit + item.credit
        rows = open_rows(head_of(item))
        rows.lines, rows.start = lines, []
        return rows
    first = lines.skip_blank()
    delimiter = _SEP_LINE.fullmatch(first)
    if delimiter:
        first = lines.skip_blank()
    bare = _QUOTED.sub("", first)
    default = "\t" if item.name.lower().endswith(".tsv") else max(",;\t|", key=bare.count)
    rows = CsvRows(lines, delimiter[1] if delimiter else default, item)
    seen: Counter[str] = Counter()
    fields = names = rows.header(first)
    if _is_data(fields):
        rows.start = [fields]
        names = ["text"] if len(fields) == 1 else [str(n + 1) for n in range(len(fields))]
    for field in names:
        # A name that is there already gets a number, as in pandas.
        name = repair_text(field.strip().lstrip("\ufeff").strip('"'))
        count = seen[name.lower()]
        rows.names.append(f"{name}.{count}" if count else name)
        seen[name.lower()] += 1
    rows.width = len(rows.names)
    return rows


def head_of(item: Item) -> Item:
    """Return the first bytes of a file as a file by themselves."""
    stream: Any = io.BufferedReader(io.BytesIO(item.head))
    return replace(item, stream=stream, first=0)


class _Lines:
    """The lines of a file; those that a look ahead took for nothing can be put back.

    A line is None where it is too long, and "" at the end. How much is read again is bounded by
    how much was read, so that a file of stray quotation marks takes no quadratic time.
    """

    def __init__(self, lines: Iterator[str | None]) -> None:
        self._held: deque[str | None] = deque()
        # Returns the next line. A method around a generator would take twice the time.
        self.take = self._read(lines).__next__
        self.number = 0  # number of the line that was taken last, from 1
        self.credit = MAX_RECORD  # characters that a look ahead may take
        # Whether more lines, or more credit, might have changed what a look ahead found.
        self.lacked = False
        # Damage of the file, to be raised after everything before it was used.
        self.damage: DamagedError | None = None

    def _read(self, lines: Iterator[str | None]) -> Iterator[str | None]:
        """Yield the lines of the file, after those that were put back; "" from its end on."""
        held = self._held
        try:
            for line in lines:
                self.number += 1
                self.credit += READ_AGAIN * len(line or "")
                yield line
                while held:
                    self.number += 1
                    yield held.popleft()
        except DamagedError as damage:
            self.damage = damage
        while True:
            self.number += 1
            yield held.popleft() if held else ""

    def put_back(self, lines: list[str | None]) -> None:
        """Give back the lines that were taken last."""
        self._held.extendleft(reversed(lines))
        self.number -= len(lines)
        self.credit -= sum(len(line) for line in lines if line)

    def skip_blank(self) -> str:
        """Return the next line that is not blank, "" at the end; DamagedError if it is too long."""
        while (line := self.take()) and not line.strip("\r\n\ufeff"):
            pass
        if line is None:
            raise DamagedError("too-large", f"line {self.number}: {_too_long()}")
        if not line and self.damage:
            raise self.damage
        return line


class CsvRows:
    """The rows of a file: iterating yields a list of fields, or a Reject, for each."""

    def __init__(self, lines: _Lines, delimiter: str, item: Item) -> None:
        self.lines, self.delimiter = lines, delimiter
        self.names: list[str] = []
        self.width = 0  # fields of a row; 0 before the header is known
        self.start: list[list[str]] = []  # the first row, where the file has no header
        self._strict = csv.reader((), delimiter=delimiter, strict=True).dialect
        self._lenient = csv.reader((), delimiter=delimiter).dialect
        # What a look ahead began with, what it took, and why it stopped before the row ended.
        self._first, self._stopped = "", ""
        self._taken: list[str | None] = []
        # The second one is for quotation marks that are escaped by a backslash.
        self._readers = [csv.reader(self._look_ahead(way), self._strict) for way in (False, True)]
        sample = item.head.decode(detect_encoding(item.head), "replace")
        # Tab-separated files rarely quote, and hold stray quotation marks.
        self.is_plain = delimiter == "\t" and '\t"' not in sample
        self.has_escapes = False
        if '\\"' in sample and not self.is_plain:
            self.has_escapes = self._good_rows(sample, True) > self._good_rows(sample, False)
        if self.has_escapes:
            self._readers.reverse()

    def header(self, line: str) -> list[str]:
        """Return the fields of the first line."""
        if line.count(self.delimiter) > MAX_FIELDS:
            raise DamagedError("malformed", f"a header of more than {MAX_FIELDS:,} fields")
        with suppress(csv.Error):
            return self._split(line)
        return self._split_bare(line)

    def __iter__(self) -> Iterator[list[str] | Reject]:
        yield from self.start
        delimiter, lines = self.delimiter, self.lines
        while (line := lines.take()) != "":
            number = lines.number
            try:
                if line is None:
                    raise csv.Error(_too_long())
                if "\0" in line:
                    line = line.replace("\0", "")
                    if not line.strip("\r\n"):
                        raise csv.Error("a line of zero bytes")
                if len(line) < 3 and not line.strip("\r\n"):
                    yield []
                    continue
                count = line.count(delimiter) + 1
                if count > MAX_FIELDS:
                    raise csv.Error(f"a line of more than {MAX_FIELDS:,} fields")
                if self.is_plain and "\\" in line:
                    row = self._escaped(line)
                    self._check_width(len(row))
                elif self.is_plain or ('"' not in line and not self.has_escapes):
                    self._check_width(count)
                    row = line.rstrip("\r\n").split(delimiter)
                else:
                    row = self._split(line)
                    self._check_width(len(row))
                yield row
            except csv.Error as error:
                yield Reject("malformed", 0, f"line {number}: {error}")

    def _check_width(self, count: int) -> None:
        if count != self.width:
            raise csv.Error(f"a row of {count} fields where the header has {self.width}")

    def _escaped(self, line: str) -> list[str]:
        """Return the fields of a row without quotation marks.

        A backslash before a tab or line end is MySQL's only where the row is too wide or too short
        without it.
        """
        # Zero bytes are gone by now: one stands for an escaped backslash.
        row, taken = line.replace("\\\\", "\0"), []
        while row.endswith(("\\\n", "\\\r\n")):
            if len(row) >= self.lines.credit:
                self.lines.lacked = True
                break
            more = self.lines.take()
            taken.append(more)
            if not more:
                self.lines.lacked |= more == ""
                break
            row += more.replace("\0", "").replace("\\\\", "\0")
        fields = _TAB.split(row.removesuffix("\n").removesuffix("\r"))
        if len(fields) == self.width and (taken or line.count("\t") + 1 != self.width):
            return [_ESCAPED_CHARACTER.sub(r"\1", field).replace("\0", "\\") for field in fields]
        if taken:
            self.lines.put_back(taken)
        return line.rstrip("\r\n").split("\t")

    def _split(self, line: str) -> list[str]:
        """Return the fields of the row that starts with `line`.

        Raises csv.Error, with the lines after it put back, if a quoted field ends in no good row.
        """
        failure: csv.Error | None = None
        for reader in self._readers if '\\"' in line else self._readers[:1]:
            self._first, self._taken, self._stopped = line, [], ""
            try:
                row = next(reader)
                if len(row) == self.width or not self.width:
                    return row
                detail = f"makes a row of {len(row)} fields where the header has {self.width}"
            except csv.Error as error:
                detail = self._stopped or str(error)
            if self._taken:
                end = self.lines.number - (self._taken[-1] == "")
                failure = failure or csv.Error(f"a quoted field runs on to line {end}: {detail}")
                self.lines.put_back(self._taken)
        if failure:
            raise failure
        # Quotation marks in wrong places are read as written where that makes a row: `"Hello" he
        # said` starts with a word that is quoted, and is no quoted field.
        bare = self._split_bare(line)
        if len(bare) == self.width and line.endswith(("\n", "\r")):
            return bare
        return next(csv.reader((line,), self._lenient))

    def _look_ahead(self, has_escapes: bool) -> Iterator[Any]:
        """Yield the first line of a row, and those after it that csv.reader asks for.

        None is an error to csv.reader: it ends the row, and the next call begins another.
        """
        line, size = "", 0
        while True:
            if self._first:
                line, self._first, size = self._first, "", 0
            else:
                lines = self.lines
                more = lines.take()
                if more or line.endswith(("\n", "\r")):
                    self._taken.append(more)
                line = more.replace("\0", "") if more else ""
                size += len(line)
                is_long = size > MAX_RECORD or size > lines.credit or len(self._taken) > MAX_LINES
                lines.lacked |= more == "" or size > lines.credit
                if is_long or not more:
                    self._stopped = "it has no end" if more == "" else "it is too long"
                    yield None
                    continue
            yield _unescape(line) if has_escapes and "\\" in line else line

    def _split_bare(self, line: str) -> list[str]:
        """Return what stands between the delimiters, without quotation marks around it."""
        fields = (field.strip(" ") for field in line.rstrip("\r\n").split(self.delimiter))
        return [
            field[1:-1].replace('""', '"') if re.fullmatch(r'(?s)".*"', field) else field
            for field in fields
        ]

    def _good_rows(self, sample: str, has_escapes: bool) -> int:
        """Count the rows of a sample that are as wide as its first one, and quoted properly."""
        lines: Iterable[str] = io.StringIO(sample, newline="")
        rows = csv.reader(map(_unescape, lines) if has_escapes else lines, self._strict)
        widths = []
        while True:
            try:
                widths.append(len(next(rows)))
            except csv.Error:
                continue
            except StopIteration:
                return widths.count(widths[0]) if widths else 0


def _is_data(fields: Sequence[str]) -> bool:
    """Return whether the first row of a file is prose, not the names of columns."""
    most_words = max((len(field.split()) for field in fields), default=0)
    return most_words >= 8 or (most_words >= 5 and any(map(_NUMBER.match, fields)))


def _unescape(line: str) -> str:
    """Return a line with quotation marks doubled that are escaped by a backslash."""
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), line)


def _too_long() -> str:
    return f"a line longer than {MAX_RECORD >> 20} MB"
