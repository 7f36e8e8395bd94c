"""The rows of a SQLite file, in a child process (`files/child.py`): a damaged file may crash it.

The file is opened read-only, and as one that does not change: no journal is played back, no view,
trigger or virtual table is used, and functions that a schema names are not trusted. Only the
standard library is imported here: the child starts in 0.2 s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Rows that one call returns, and about how many bytes of them.
MAX_ROWS, MAX_BYTES = 1_000, 4 << 20
MAX_VALUE = 64 << 20
# Of a table of more columns, the first ones are read.
MAX_COLUMNS = 2_000


@dataclass(frozen=True)
class Table:
    """A table of a SQLite file."""

    name: str
    columns: list[str]
    rows: int  # 0 where they cannot be counted
    has_rowid: bool  # its rows have numbers; else one is found by counting those before it


def sqlite_tables(path: str) -> tuple[list[Table], str]:
    """Return the tables that hold rows of their own, and what is damaged, or ""."""
    tables: list[Table] = []
    try:
        with _opened(path) as database:
            names = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%'"
                " ESCAPE '@' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY rootpage, name"
            ).fetchall()
            tables += [_describe(database, name) for (name,) in names]
    except (sqlite3.Error, UnicodeError) as error:
        return tables, str(error)
    return tables, _cut_off(path)


def _cut_off(path: str) -> str:
    """Return what is wrong with a file that is shorter than its header says, or ""."""
    with Path(path).open("rb") as file:
        header = file.read(100)
        size = file.seek(0, 2)
    page = int.from_bytes(header[16:18], "big")
    page = 1 << 16 if page == 1 else page
    missing = page * int.from_bytes(header[28:32], "big") - size
    return f"it is cut off: {missing:,} bytes are missing" if missing > 0 else ""


def _describe(database: sqlite3.Connection, name: str) -> Table:
    """Return what a table has, as far as it can be read."""
    columns, rows, has_rowid = [], 0, True
    with suppress(sqlite3.Error):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(name)})")]
        ((rows,),) = database.execute(f"SELECT count(*) FROM {_quoted(name)}")
    try:
        database.execute(f"SELECT _rowid_ FROM {_quoted(name)} LIMIT 1")
    except sqlite3.OperationalError:
        has_rowid = False
    return Table(name, columns[:MAX_COLUMNS], rows, has_rowid)


def sqlite_rows(path: str, table: Table, after: int) -> tuple[list[tuple[Any, ...]], int, str]:
    """Return rows of a table, the place after them, and what is damaged there, or "".

    `after` is the place to go on at: the number of a row, or how many come before.
    """
    columns = ", ".join(
        f"CASE WHEN length({name}) > {MAX_VALUE} THEN NULL ELSE {name} END"
        for name in map(_quoted, table.columns)
    )
    query = f"SELECT 0, {columns} FROM {_quoted(table.name)} LIMIT {MAX_ROWS} OFFSET ?"
    if table.has_rowid:
        query = (
            f"SELECT _rowid_, {columns} FROM {_quoted(table.name)} WHERE _rowid_ > ?"
            f" ORDER BY _rowid_ LIMIT {MAX_ROWS}"
        )
    rows: list[tuple[Any, ...]] = []
    size = 0
    try:
        with _opened(path) as database:
            for rowid, *row in database.execute(query, (after,)):
                if table.has_rowid and rowid <= after:
                    return rows, after, "its rows are out of order"
                rows.append(tuple(row))
                after = rowid if table.has_rowid else after + 1
                size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
                if size > MAX_BYTES:
                    break
    except (sqlite3.Error, UnicodeError) as error:
        return rows, after, str(error)
    return rows, after, ""


@contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(path)}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        # A file that is cut off, or whose schema is damaged in a place, is read as far as it goes.
        for setting in (
            "writable_schema = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "cache_size = -16384",
        ):
            database.execute(f"PRAGMA {setting}")
        # Texts in other encodings are repaired later.
        database.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        yield database


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
