"""Rows of SQL dumps, as mysqldump, MariaDB, phpMyAdmin, pg_dump and sqlite3 write them.

    CREATE TABLE `posts` (`id` int NOT NULL, `body` text, PRIMARY KEY (`id`));
    INSERT INTO `posts` VALUES (1,'It\\'s late.'),(2,NULL);

    COPY public.posts (id, body) FROM stdin;
    1<tab>It's late.
    2<tab>\\N
    \\.

Both give {"id": "1", "body": "It's late."} and {"id": "2", "body": None}. Nothing is executed.

A statement may have gigabytes: memory holds one row of it. A row that is damaged costs itself:
reading goes on where the next row of the statement starts, or the next line with a statement.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from groundup.artifacts.document import Reject
from groundup.collect.charset import detect_encoding
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item
from groundup.collect.readers.records.sql_values import (
    BLOCK_COMMENT,
    IDENTIFIER,
    NAME,
    RowPattern,
    copy_values,
    identifiers,
    literal_value,
    statement_pattern,
    to_text,
    uses_backslashes,
)

# The start of a statement, with the names of 10,000 columns, is at most this long.
MAX_HEAD = 1 << 20
# A statement that holds no rows.
MAX_STATEMENT = 16 << 20
MAX_TABLES = 10_000
_CHUNK = 1 << 20
# What fails so near to the end of what was read may be whole with more.
_AHEAD = 1 << 10
# Bytes that may be tried again after damage, for each byte that is read.
_READ_AGAIN = 8

_LIST = rb"\((?:[^()'\"`\[]++|" + IDENTIFIER + rb")*+\)"
# Comments, lines for psql, and what SQL Server writes without a semicolon.
_BLANK = re.compile(
    rb"(?:[\s;\0]++|(?:--|\#|\\|SET[ \t]++IDENTITY_INSERT\b)[^\n]*+\n?|GO[ \t\r]*+\n"
    rb"|" + BLOCK_COMMENT + rb")*+",
    re.DOTALL,
)
_INSERT = re.compile(
    rb"(?:INSERT|REPLACE)(?:\s++(?:IGNORE|LOW_PRIORITY|DELAYED|OR\s++\w++))*+(?:\s++INTO\b)?+\s*+"
    rb"(" + NAME + rb")\s*+(" + _LIST + rb")?+(?:\s*+OVERRIDING\s++\w++\s++VALUE)?+"
    rb"\s*+VALUES\s*+(?=\()",
    re.IGNORECASE,
)
_COPY = re.compile(
    rb"COPY\s++(" + NAME + rb")\s*+(" + _LIST + rb")?+\s*+FROM\s++stdin\b"
    rb"(?:[^\n;]*?\bDELIMITER\s++(?:AS\s++)?+'([^'\\\n])')?+[^\n;]*+;[ \t\r]*+\n",
    re.IGNORECASE,
)
_CREATE = re.compile(
    rb"CREATE\s++(?:\w++\s++)??TABLE\s++(?:IF\s++NOT\s++EXISTS\s++)?+(" + NAME + rb")\s*+\(",
    re.IGNORECASE,
)
# Between two such lines stands a program of MySQL, whose statements hold semicolons.
_DELIMITER = re.compile(rb"DELIMITER[ \t]++(?!;[ \t\r]*\n)\S", re.IGNORECASE)
_DELIMITER_END = re.compile(rb"\nDELIMITER[ \t]++;", re.IGNORECASE)
_LINE_END = re.compile(rb"\n")
_AFTER_ROW = re.compile(rb"\s*+,\s*+")
# A line that starts a statement, and the mark between two rows: reading goes on there.
_RESTART = re.compile(
    rb"\n(?=(?:INSERT|REPLACE|COPY|CREATE|DROP|ALTER|LOCK|UNLOCK|COMMIT|SET|SELECT)\s|--\s)"
)
_NEXT_ROW = re.compile(rb"\)\s*+,\s*+(?=\()|" + _RESTART.pattern)
# Pieces of the definition of a table, and the words that start one that is no column.
_PIECE = re.compile(
    rb"\s*+(?:(?P<name>"
    + IDENTIFIER
    + rb")|(?P<mark>[(),])|'[^']*+'|--[^\n]*+|"
    + BLOCK_COMMENT
    + rb"|.)",
    re.DOTALL,
)
_NO_COLUMN = frozenset(
    b"primary key unique index fulltext spatial constraint foreign check exclude like".split()
)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table: its values by column."""

    number: int  # counts the rows of all tables, those that are passed over too
    table: str
    record: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of its table, and those of the columns."""
        return (self.table, *self.record)


# One that cannot be read has its number, too.
RowOrReject = TableRow | Reject


class SqlDump:
    """The rows of the tables in a dump, in order; those of the tables in `skipped` are passed over.

    Raises DamagedError if the file is damaged in too many places, or has too many tables.
    """

    def __init__(self, item: Item) -> None:
        self.skipped: set[str] = set()
        self._window = _Window(item)
        self._encoding = self._window.encoding
        self._has_backslashes = uses_backslashes(item.head.replace(b"\0", b""))
        self._row = RowPattern(self._has_backslashes)
        self._statement = statement_pattern(self._has_backslashes)
        self._columns: dict[str, list[str]] = {}  # of tables that were defined, or seen
        self._number = 0

    def __iter__(self) -> Iterator[RowOrReject]:
        window = self._window
        while window.prepare(MAX_HEAD):
            data, at = window.data, window.at
            if (blank := _BLANK.match(data, at)) and blank.end() > at:
                window.at = blank.end()
            elif insert := _INSERT.match(data, at):
                window.at = insert.end()
                yield from self._insert(*self._table(insert))
            elif copy := _COPY.match(data, at):
                window.at = copy.end()
                yield from self._copy(*self._table(copy), copy[3] or b"\t")
            elif create := _CREATE.match(data, at):
                window.at = create.end()
                self._define(identifiers(create[1], self._encoding)[-1])
            elif _DELIMITER.match(data, at):
                window.skip_to(_DELIMITER_END)
            else:
                self._skip_statement()
        if window.damage:
            raise window.damage

    def _table(self, statement: re.Match[bytes]) -> tuple[str, list[str]]:
        """Return the table that a statement fills, and its columns; [] where nothing names them."""
        table = identifiers(statement[1], self._encoding)[-1]
        if statement[2]:
            return table, identifiers(statement[2], self._encoding)
        return table, self._columns.get(table, [])

    def _define(self, table: str) -> None:
        """Read the columns of CREATE TABLE, up to its closing parenthesis."""
        window, depth, starts = self._window, 1, True
        restart = _RESTART.search(window.data, window.at)
        end = restart.start() if restart else len(window.data)
        names: list[bytes] = []
        while depth and (piece := _PIECE.match(window.data, window.at, end)):
            window.at = piece.end()
            if name := piece["name"]:
                if starts and depth == 1 and name.lower() not in _NO_COLUMN:
                    names.append(name)
                starts = False
            elif mark := piece["mark"]:
                depth += {b"(": 1, b")": -1}.get(mark, 0)
                starts = mark == b","
        # A dump of several databases may define another table of this name.
        self.skipped.discard(table)
        self._remember(table, [identifiers(name, self._encoding)[-1] for name in names])

    def _remember(self, table: str, columns: list[str]) -> None:
        if len(self._columns) >= MAX_TABLES:
            raise DamagedError("too-large", f"it has more than {MAX_TABLES:,} tables")
        self._columns[table] = columns

    def _skip_statement(self) -> None:
        """Pass over a statement that holds no rows; where it has no end, over the next line."""
        window = self._window
        while (statement := self._statement.match(window.data, window.at)) is None:
            if window.ended or len(window.data) - window.at > MAX_STATEMENT:
                window.retry(len(window.data) - window.at)
                window.skip_to(_RESTART)
                return
            window.grow()
        window.at = statement.end()

    def _insert(self, table: str, columns: list[str]) -> Iterator[RowOrReject]:
        """Yield the rows after VALUES."""
        window, is_row = self._window, True
        while is_row:
            values, end = self._match_row()
            if values and not columns:
                columns = [str(number) for number in range(1, len(values) + 1)]
                self._remember(table, columns)
            if damage := self._row_damage(table, values, end, columns):
                yield from self._numbered(table, damage)
                # What is too long is passed over; else rows may be inside what is damaged.
                window.at = end - 1 if damage.reason == "too-large" else window.at + 1
                is_row = self._find_row(len(columns))
                continue
            window.at = end
            record = {}
            if table not in self.skipped:
                read = (literal_value(it, self._encoding, self._has_backslashes) for it in values)
                record = dict(zip(columns, read, strict=True))
            yield from self._numbered(table, record)
            window.prepare(_AHEAD)
            comma = _AFTER_ROW.match(window.data, window.at)
            window.at = comma.end() if comma else window.at
            is_row = comma is not None

    def _numbered(self, table: str, record: dict[str, Any] | Reject) -> Iterator[RowOrReject]:
        if table not in self.skipped:
            yield (
                replace(record, record=self._number)
                if isinstance(record, Reject)
                else TableRow(self._number, table, record)
            )
        self._number += 1

    def _match_row(self) -> tuple[list[re.Match[bytes]], int]:
        """Return the values of the row at the position, and where it ends.

        [] where it is damaged, or too long, and how far it goes.
        """
        window = self._window
        while True:
            values, end = self._row.match(window.data, window.at)
            end = end if values else self._row.reach(window.data, end)
            is_whole = window.ended or len(window.data) - end > _AHEAD
            if values or is_whole or end - window.at > MAX_RECORD:
                return values, end
            window.grow()

    def _row_damage(
        self, table: str, values: list[re.Match[bytes]], end: int, columns: list[str]
    ) -> Reject | None:
        """Return what is wrong with the row at the position, if something is."""
        at = self._window.at
        if end - at > MAX_RECORD:
            return Reject("too-large", detail=f"{table}: a row longer than {MAX_RECORD >> 20} MB")
        if not values:
            start = to_text(self._window.data[at : at + 40], self._encoding)
            return Reject("malformed", detail=f"{table}: not a row of values: {start!r}")
        if len(values) != len(columns):
            detail = f"{table}: a row of {len(values)} values for {len(columns)} columns"
            return Reject("malformed", detail=detail)
        return None

    def _find_row(self, width: int) -> bool:
        """Go to the next row that is whole; False where a statement starts before it."""
        window = self._window
        while window.skip_to(_NEXT_ROW):
            if window.data[window.at - 1] == ord("\n"):
                return False
            values, end = self._match_row()
            if values and len(values) == (width or len(values)):
                return True
            window.retry(end - window.at)
        return False

    def _copy(self, table: str, columns: list[str], delimiter: bytes) -> Iterator[RowOrReject]:
        """Yield the lines after COPY, up to `\\.`."""
        while (line := self._window.line()) != b"":
            if line is None:
                record: Any = Reject("too-large", detail=f"{table}: {_LONG_LINE}")
            elif line.rstrip() == b"\\.":
                return
            elif _COPY.match(line) or _INSERT.match(line):
                # The end of the table before is lost.
                self._window.at -= len(line)
                return
            else:
                values = copy_values(line.rstrip(b"\r\n"), self._encoding, delimiter)
                columns = columns or [str(number) for number in range(1, len(values) + 1)]
                record = dict(zip(columns, values, strict=False))
                if len(values) != len(columns):
                    detail = f"{table}: a row of {len(values)} values for {len(columns)} columns"
                    record = Reject("malformed", detail=detail)
            yield from self._numbered(table, record)


_LONG_LINE = f"a line longer than {MAX_RECORD >> 20} MB"


class _Window:
    """The part of a dump that was read and not yet consumed: memory holds one row."""

    def __init__(self, item: Item) -> None:
        self._stream = item.stream
        self.encoding = detect_encoding(item.head)
        self._decoder: codecs.IncrementalDecoder | None = None
        if self.encoding.startswith(("utf-16", "utf-32")):
            # PowerShell writes what a program prints so.
            self._decoder = codecs.getincrementaldecoder(self.encoding)("replace")
            self.encoding = "utf-8"
        self.data, self.at, self.ended = b"", 0, False
        # Damage of the stream, to be raised after everything before it was used.
        self.damage: DamagedError | None = None
        self._left = MAX_RECORD  # bytes that may still be tried again
        self.prepare(len(codecs.BOM_UTF8))
        if self.data.startswith(codecs.BOM_UTF8):
            self.at, self.encoding = len(codecs.BOM_UTF8), "utf-8"

    def grow(self) -> None:
        """Drop what was consumed, and double the rest."""
        parts = [self.data[self.at :]]
        count = max(_CHUNK, len(parts[0]))
        while count > 0 and not self.ended:
            try:
                chunk = self._stream.read1(_CHUNK)
            except DamagedError as damage:
                self.damage, chunk = damage, b""
            self.ended = not chunk
            self._left += _READ_AGAIN * len(chunk)
            count -= len(chunk)
            if self._decoder:
                chunk = self._decoder.decode(chunk, final=self.ended).encode("utf-8", "replace")
            parts.append(chunk)
        self.data, self.at = b"".join(parts), 0

    def prepare(self, count: int) -> bool:
        """Read until `count` bytes follow, where there are so many; return whether any do."""
        while len(self.data) - self.at < count and not self.ended:
            self.grow()
        return self.at < len(self.data)

    def retry(self, count: int) -> None:
        """Account for bytes that are tried again; raise DamagedError for too many."""
        self._left -= count
        if self._left < 0:
            raise DamagedError("malformed", "it is damaged in too many places to go on")

    def skip_to(self, pattern: re.Pattern[bytes]) -> bool:
        """Go behind the next match of a pattern; False at the end of the file."""
        while (found := pattern.search(self.data, self.at)) is None:
            self.at = max(self.at, len(self.data) - _AHEAD)
            if self.ended:
                self.at = len(self.data)
                return False
            self.grow()
        self.at = found.end()
        return True

    def line(self) -> bytes | None:
        """Consume a line with its end; b"" at the end of the file, None for a line too long."""
        while (end := self.data.find(b"\n", self.at)) < 0 and not self.ended:
            if len(self.data) - self.at > MAX_RECORD:
                self.skip_to(_LINE_END)
                return None
            self.grow()
        start, self.at = self.at, end + 1 if end >= 0 else len(self.data)
        return self.data[start : self.at]
