"""CSV and TSV in pieces: where rows seem to start, and how many there are in a part of a file.

A line end within quotation marks ends no row, and whether it stands within them is known to who
read the file from its start:

    … as he said.          ← a line end within a field, or after it?
    The next line", 7
    "And this", 8          ← a row starts here, whatever the answer is

So a place to cut at is found by rows that look right, and proved later: the part before it, which
starts with a row, must end with one. Nearly all rows are *regular*: they have the fields of the
header, or no quotation mark. One expression finds them in the bytes of a file, as the reader does.
The reader itself counts from the first row that is not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from groundup.collect.charset import decode_errors, detect_encoding
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item, PrefixedStream
from groundup.collect.readers.records import csv_rows
from groundup.collect.readers.records.csv_rows import CsvRows, head_of, open_rows

# Bytes that rows are searched in at a time; those of a longer row are left to the reader.
_BLOCK = 4 << 20
# Bytes of a row that a file is cut at, and lines that are tried.
_MAX_ROW, _TRIES = 1 << 18, 1000
_MAX_WIDTH = 1000
_SYNTAX = b'",;|\t\r\n\\'


def is_cuttable(item: Item) -> bool:
    """Return whether the rows of a file can be told by its bytes, and by the first ones of them."""
    try:
        rows = open_rows(head_of(item))
    except DamagedError:
        return False
    is_whole = rows.lines.take() and not rows.lines.lacked
    if not is_whole or rows.width > _MAX_WIDTH or rows.delimiter not in ",;|\t":
        return False
    encoding = detect_encoding(item.head)
    if encoding in ("utf-8", "utf-8-sig", "ascii"):
        return True
    every = bytes(range(256))
    is_single_byte = len(every.decode(encoding, "replace")) == len(every)
    return is_single_byte and _SYNTAX.decode(encoding, "replace") == _SYNTAX.decode()


def find_row_starts(item: Item, data: bytes) -> Sequence[int]:
    """Return where rows start in bytes that begin anywhere in a file, as far as that can be seen.

    Where a row is quoted, those before it are left out: they may be lines within a quoted field.
    """
    row = re.compile(_regular_row(open_rows(head_of(item))), re.DOTALL)
    starts: list[int] = []
    has_quotes, tries, after, place = False, 0, -1, data.find(b"\n") + 1
    while place and tries < _TRIES:
        if match := row.match(data, place, place + _MAX_ROW):
            if place == after:
                starts.append(place)
            if not has_quotes and b'"' in match[0]:
                has_quotes = True
                starts.clear()
            place = after = match.end()
        else:
            tries += 1
            place = data.find(b"\n", place) + 1
    return starts


def count_rows(item: Item) -> dict[str, int] | None:
    """Return how many `records` a part of a file holds, its `lines`, and its `credit`.

    The part is read as the reader would read it after whole rows. None if it does not end with one,
    or if a look ahead would have found something else with more credit.
    """
    records = lines = characters = 0
    held = b""
    # The first part begins with the header.
    if item.first:
        layout = open_rows(head_of(item))
        one_line = rb"[^\r\n]*+(?<!\\)\r?\n" if layout.is_plain else rb'[^"\r\n]*+\r?\n'
        row = re.compile(rb"%s|%s" % (_regular_row(layout), one_line), re.DOTALL)
        encoding = detect_encoding(item.head).removesuffix("-sig")
        while data := item.stream.read(_BLOCK):
            held += data
            count, stop = _count_regular(row, held, layout.delimiter.encode())
            regular, held = held[:stop], held[stop:]
            records += count
            breaks = regular.count(b"\r") - regular.count(b"\r\n")
            lines += regular.count(b"\n") + breaks
            characters += len(regular.decode(encoding, decode_errors(encoding)))
            if len(held) > 2 * _BLOCK or b"\0" in held:
                break
    rest: Any = io.BufferedReader(PrefixedStream(held, item.stream))
    credit = csv_rows.READ_AGAIN * characters
    rows = open_rows(replace(item, stream=rest, lines=lines, credit=credit))
    records += sum(1 for _ in rows)
    if rows.lines.damage:
        raise rows.lines.damage
    credit = rows.lines.credit - MAX_RECORD
    if rows.lines.lacked or credit < 0:
        return None
    return {"records": records, "lines": rows.lines.number - 1, "credit": credit}


def _count_regular(row: re.Pattern[bytes], data: bytes, mark: bytes) -> tuple[int, int]:
    """Return how many rows come before the first one that is not regular, and where it starts."""
    count, place, end = 0, 0, data.find(b"\0")
    limit = min(csv_rows.MAX_FIELDS, csv_rows.MAX_LINES, MAX_RECORD)
    while match := row.match(data, place, len(data) if end < 0 else end):
        if match.end() - place > limit and not _is_in_bounds(match[0], mark):
            break
        count, place = count + 1, match.end()
    return count, place


def _is_in_bounds(row: bytes, mark: bytes) -> bool:
    """Return whether a long row is within the limits of the reader, for certain."""
    breaks = row.count(b"\n") + row.count(b"\r")
    is_short = len(row) <= MAX_RECORD and breaks <= csv_rows.MAX_LINES
    return is_short and row.count(mark) < csv_rows.MAX_FIELDS


def _regular_row(rows: CsvRows) -> bytes:
    """Return the expression of a row of as many fields as the header has.

    A field that is not quoted may hold quotation marks, but not begin with one. A backslash escapes
    one in some files; in those without quoted fields, it may join lines.
    """
    mark = re.escape(rows.delimiter.encode())
    if rows.is_plain:
        field, end = rb"[^%s\r\n]*+" % mark, rb"(?<!\\)\r?\n"
    elif rows.has_escapes:
        quoted, bare = rb'"(?:[^"\\]++|\\.|"")*+"', rb'[^"\\%s\r\n][^\\%s\r\n]*+' % (mark, mark)
        field, end = rb"(?:%s|%s|)" % (quoted, bare), rb"\r?\n"
    else:
        quoted, bare = rb'"(?:[^"]++|"")*+"', rb'[^"%s\r\n][^%s\r\n]*+' % (mark, mark)
        field, end = rb"(?:%s|%s|)" % (quoted, bare), rb"\r?\n"
    return rb"%s(?:%s%s){%d}%s" % (field, mark, field, rows.width - 1, end)
