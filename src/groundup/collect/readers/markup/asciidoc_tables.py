"""Tables of AsciiDoc: rows of cells behind bars, or of CSV.

[cols="1,1"]
|===                         A | b
|A                     →     c
|b                           d | e
2+|c
|d |e
|===
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping

from groundup.collect.readers.markup.plain import join_lines

_CELL = re.compile(
    r"(?:(?<=\s)|\A)((?:\d+(?:\.\d+)?|\.\d+)[+*])?[<^>.]{0,4}[aehlmsdv]?(?<!\\)\||(?<!\\)\|",
    re.MULTILINE,
)
_COMMENT = re.compile(r"//(?!/)")
_COLUMNS = re.compile(r"(?:(\d+)\*)?")
_MAX_COLUMNS = 1000


def table_rows(lines: list[str], sign: str, settings: Mapping[str, str]) -> list[list[str]]:
    """Return the cells of a table by row; `sign` is what its border begins with."""
    format = settings.get("format", {",": "csv", ":": "dsv"}.get(sign, "psv"))
    if format in ("csv", "tsv", "dsv"):
        separator = settings.get("separator") or {"csv": ",", "tsv": "\t", "dsv": ":"}[format]
        separator = separator.replace("\\t", "\t")[0]
        return list(csv.reader(filter(None, lines), delimiter=separator))
    text = "\n".join(line for line in lines if not _COMMENT.match(line))
    if sign == "!":
        text = text.replace("!", "|")
    return _cells(text, _column_count(settings.get("cols", ""), text))


def _column_count(columns: str, text: str) -> int:
    """Return the number of columns that settings or the first line of a table give."""
    if columns:
        pieces = [piece.strip() for piece in re.split("[,;]", columns)]
        count = sum(int(((match := _COLUMNS.match(piece)) and match[1]) or 1) for piece in pieces)
    else:
        first = text.strip("\n").split("\n", 1)[0]
        count = sum(
            _repeats(cell[1], "*")[0] * _repeats(cell[1], "+")[0] for cell in _CELL.finditer(first)
        )
    return min(max(count, 1), _MAX_COLUMNS)


def _repeats(spec: str | None, sign: str) -> tuple[int, int]:
    """Return the columns and rows of `2.3+` before a cell, or how often it stands, as `2*`."""
    if not spec or spec[-1] != sign:
        return 1, 1
    columns, _, rows = spec[:-1].partition(".")
    return min(int(columns or 1), _MAX_COLUMNS), min(int(rows or 1), _MAX_COLUMNS)


def _cells(text: str, columns: int) -> list[list[str]]:
    """Return the cells of a table by row, each on one line."""
    rows: list[list[str]] = [[]]
    width, taken = 0, Counter[int]()  # of the row so far; by row, by cells that begin above it
    marks = list(_CELL.finditer(text))
    for number, mark in enumerate(marks):
        end = marks[number + 1].start() if number + 1 < len(marks) else len(text)
        words = text[mark.end() : end].replace("\\|", "|").split("\n")
        cell = join_lines(filter(None, (line.strip().removesuffix(" +") for line in words)))
        across, down = _repeats(mark[1], "+")
        for _ in range(_repeats(mark[1], "*")[0]):
            if width + taken[len(rows)] >= columns:
                rows.append([])
                width = 0
            rows[-1].append(cell)
            width += across
            for below in range(1, down):
                taken[len(rows) + below] += across
    return rows
