"""Dumps of databases (`sql_dump.py`) and SQLite files: their tables of prose, row by row.

    posts(id, title, body)     →  a document for each row: its title, then its body
    phpbb_posts, phpbb_topics  →  a document for each topic (`boards.py`)
    options(name, value)       →  no prose: not read, and listed once

The first rows of a table decide. `text = "body"` in a source reads the tables that have the column,
`text = "posts.body"` one of them.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields, replace
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import repair_text
from groundup.collect.files.child import Child, item_path
from groundup.collect.files.formats import SQLITE
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.forum.boards import (
    BoardTable,
    find_board,
    private_table,
    table_prefix,
)
from groundup.collect.readers.forum.forums import thread_documents
from groundup.collect.readers.forum.post_markup import prose_text
from groundup.collect.readers.forum.threads import PackedRows, Post, join_threads, post_row
from groundup.collect.readers.records.columns import MissingColumnError, fill, prose_columns
from groundup.collect.readers.records.sql_dump import RowOrReject, SqlDump, TableRow
from groundup.collect.readers.records.sqlite_rows import Table, sqlite_rows, sqlite_tables
from groundup.collect.readers.text import text_document, with_named_columns
from groundup.recipe import Source
from groundup.recipe.templates import parse_template

# Rows of a table that decide what it is, and about how many characters of them are held.
SAMPLE_ROWS, SAMPLE_SIZE = 100, 16 << 20
# Bytes of a dump that `init` looks at: options and lists of permissions come before posts.
SAMPLE_BYTES = 32 << 20
Row = dict[str, Any]
_document_row = attrgetter(*(field.name for field in fields(Document)))
# What a table makes of the number and the values of a row.
RowReader = Callable[[int, Row], Document | Post | Reject]


class Tables(Protocol):
    """The rows of tables, one table after the other; a table in `skipped` is passed over."""

    skipped: set[str]

    def __iter__(self) -> Iterator[RowOrReject]:
        """Yield the rows."""


def read_sql(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield what the tables of a dump hold. DamagedError where it cannot be read any further."""
    yield from table_documents(SqlDump(item), item, source)


def read_sqlite(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield what the tables of a SQLite file hold; damage costs the rest of its table."""
    with item_path(item) as path:
        yield from table_documents(SqliteFile(path), item, source)


class SqliteFile:
    """The rows of the tables in a SQLite file. DamagedError if its schema cannot be read."""

    def __init__(self, path: str) -> None:
        self.skipped: set[str] = set()
        self._path = path

    def __iter__(self) -> Iterator[RowOrReject]:
        tables, damage = Child.call(sqlite_tables, self._path)
        number = 0
        for table in tables:
            reached = yield from self._rows(table, number)
            number = max(reached, number + table.rows) + 1
        if damage:
            raise DamagedError("damaged", damage)

    def _rows(self, table: Table, number: int) -> Generator[RowOrReject, None, int]:
        """Yield the rows of a table, numbered from `number` on; return the number after them.

        Damage ends it, and has the last number.
        """
        after, problem = -(1 << 63) if table.has_rowid else 0, ""
        if not table.columns:
            problem = "its columns cannot be read"
        while not problem and table.name not in self.skipped:
            try:
                rows, after, problem = Child.call(sqlite_rows, self._path, table, after)
            except DamagedError as error:
                rows, problem = [], error.detail
            if not (rows or problem):
                break
            for row in rows:
                if table.name not in self.skipped:
                    values = (repair_text(it) if isinstance(it, str) else it for it in row)
                    record = dict(zip(table.columns, values, strict=True))
                    yield TableRow(number, table.name, record)
                number += 1
        if problem:
            yield Reject("damaged", number, f"{table.name}: {problem}")
        return number


def sample_documents(item: Item) -> Iterator[Document]:
    """Yield documents of the first rows of each table; of a dump, those in its first bytes."""
    source = Source(path=item.origin)
    with item_path(item) if item.head.startswith(SQLITE) else nullcontext() as path:
        if path is None:
            start = io.BytesIO(item.stream.read(SAMPLE_BYTES))
            tables: Tables = SqlDump(replace(item, stream=io.BufferedReader(start)))
        else:
            tables = SqliteFile(path)
        for result in table_documents(_FirstRows(tables), item, source):
            if isinstance(result, Document):
                yield result


class _FirstRows:
    """The first rows of each table."""

    def __init__(self, tables: Tables) -> None:
        self._tables, self.skipped = tables, tables.skipped

    def __iter__(self) -> Iterator[RowOrReject]:
        counts = Counter[str]()
        for row in self._tables:
            if isinstance(row, TableRow):
                counts[row.table] += 1
                if counts[row.table] > 2 * SAMPLE_ROWS:
                    self.skipped.add(row.table)
            yield row


def table_documents(tables: Tables, item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the documents of tables, then the threads of boards.

    Documents of other tables wait in a temporary file: those of a board hold what it shows to
    nobody, and which tables are its own is known at the end.
    """
    boards: dict[str, str] = {}  # prefix of its tables → its name
    damage: list[DamagedError] = []  # raised when all before it was yielded
    with PackedRows() as posts, PackedRows() as others:
        rows = _until_damage(tables, damage)
        for table, result in _row_results(rows, tables.skipped, item, source, boards):
            if isinstance(result, Post):
                posts.add(post_row(result))
            elif isinstance(result, Document) and table:
                others.add((table, *_document_row(result)))
            else:
                yield result
        yield from _other_documents(others, boards)
        for thread in join_threads(Post(*row) for row in posts.rows()):
            ordered = sorted(thread, key=lambda post: (post.place, post.record))
            hidden = next((post for post in ordered if post.reason), None)
            if hidden:
                yield Reject(hidden.reason, hidden.record, hidden.detail)
            else:
                opening = next((post for post in ordered if post.body), ordered[0])
                yield from thread_documents(ordered, opening.record, item, source)
    if damage:
        raise damage[0]


def _until_damage(tables: Tables, damage: list[DamagedError]) -> Iterator[RowOrReject]:
    """Yield the rows of tables; damage of the file is added to `damage`."""
    try:
        yield from tables
    except DamagedError as error:
        damage.append(error)


def _other_documents(others: PackedRows, boards: dict[str, str]) -> Iterator[Document | Reject]:
    """Yield the documents of tables that belong to no board; the others are said once each."""
    left: set[str] = set()
    for table, *values in others.rows():
        board = boards.get(table_prefix(table)) or boards.get("")
        document = Document(*values)
        if board is None:
            yield document
        elif table not in left:
            left.add(table)
            detail = f"{table}: another table of {board}; name its columns to read it"
            yield Reject("private", document.record, detail)


def _row_results(
    rows: Iterator[RowOrReject],
    skipped: set[str],
    item: Item,
    source: Source,
    boards: dict[str, str],
) -> Iterator[tuple[str, Document | Post | Reject]]:
    """Yield what each row gives, with its table where that may belong to a board.

    The first rows of a table decide how it is read; boards that are recognized go into `boards`,
    tables that are not read into `skipped`.
    """
    # By the columns, too: databases in one dump may have tables of one name.
    readers: dict[tuple[str, ...], RowReader] = {}
    held: list[TableRow] = []
    size = 0
    for row in chain(rows, (None,)):
        if isinstance(row, Reject):
            yield "", row
            continue
        is_next = bool(held) and (row is None or row.columns != held[0].columns)
        if is_next or len(held) >= SAMPLE_ROWS or size > SAMPLE_SIZE:
            reader = _choose_reader(held, item, source)
            if isinstance(reader, Reject):
                skipped.add(held[0].table)
                yield "", reader
            else:
                readers[held[0].columns] = reader
                if isinstance(reader, BoardTable):
                    boards[reader.prefix] = reader.layout.name
                yield from (_read(it, reader) for it in held)
            held, size = [], 0
        if row is None:
            return
        if row.columns in readers:
            yield _read(row, readers[row.columns])
        elif row.table not in skipped:
            held.append(row)
            size += len(str(row.record))


def _read(row: TableRow, reader: RowReader) -> tuple[str, Document | Post | Reject]:
    table = row.table if isinstance(reader, _ProseColumns) else ""
    return table, reader(row.number, row.record)


def _choose_reader(sample: Sequence[TableRow], item: Item, source: Source) -> RowReader | Reject:
    """Return what reads a table, by its first rows; why it is not read otherwise."""
    number, table = sample[0].number, sample[0].table
    rows = [row.record for row in sample]
    columns = list(rows[0])
    if source.text:
        if _has_columns(source.text, table, columns):
            return _NamedColumns(table, item, source)
        return Reject("no-text", number, f"{table}: no column {source.text}")
    if reason := private_table(table):
        return Reject("private", number, f"{table}: {reason}")
    if board := find_board(table, columns, item):
        return board
    prose = prose_columns(rows)
    if not prose:
        shown = ", ".join(columns[:8])
        return Reject("no-text", number, f"{table}: no column of prose among {shown}")
    return _ProseColumns(prose, item, source)


def _has_columns(setting: str, table: str, columns: Sequence[str]) -> bool:
    """Return whether a table has the columns that a setting names, as `body` or `posts.body`."""
    known = {name.lower() for name in columns}
    for name, is_name in parse_template(setting):
        first, _, rest = name.lower().partition(".")
        inner = rest.partition(".")[0]
        if is_name and not (first in known or (first == table.lower() and inner in known)):
            return False
    return True


@dataclass(frozen=True)
class _NamedColumns:
    """Reads the columns that a source names."""

    table: str
    item: Item
    source: Source

    def __call__(self, number: int, row: Row) -> Document | Reject:
        record = row | {self.table: row}
        document = text_document(record, number, self.item, self.source.kind, self.source.text)
        if isinstance(document, Reject):
            return document
        return with_named_columns(document, record, self.source)


@dataclass(frozen=True)
class _ProseColumns:
    """Reads the columns of prose of a table, one after the other."""

    columns: Sequence[str]
    item: Item
    source: Source

    def __call__(self, number: int, row: Row) -> Document | Reject:
        texts: list[str] = []
        for name in self.columns:
            with suppress(MissingColumnError):
                texts.append(prose_text(fill(name, row)))
        # An excerpt, or the same text with other marks, says nothing new.
        kept = [text for text in texts if not any(text in it and text != it for it in texts)]
        text = "\n\n".join(filter(None, dict.fromkeys(kept)))
        if not text:
            return Reject("empty", number)
        document = text_document(row | {"text": text}, number, self.item, self.source.kind)
        if isinstance(document, Reject):
            return document
        return with_named_columns(document, row, self.source)
