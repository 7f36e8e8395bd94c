"""Spreadsheets (xlsx, xls, ods): one document a sheet that holds words, its rows as `a | b | c`.

calamine (Rust) reads them, in the child process of `files/child.py`: a file of a few bytes may name
a cell that makes a table of a billion cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.files.child import Child, item_path
from groundup.collect.files.packages import ZIP_START, Package
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.blocks import Blocks, join_cells
from groundup.collect.readers.office.opendocument import check_password
from groundup.collect.readers.office.sheet_rows import sheet_names, sheet_rows
from groundup.recipe import Source

# A sheet of which less than this share of characters is in cells with words is one of numbers.
MIN_WORDS = 0.5
_WORD = re.compile(r"[^\W\d_]{2}")
# Names that programs give sheets.
_MADE_NAME = re.compile(
    r"(?:sheet|tabelle|feuil(?:le)?|hoja|blad|foglio|лист|ark|工作表|シート)[ _]?\d*", re.I
)


def read_spreadsheet(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the sheets that hold words; those of numbers, and hidden ones, are listed."""
    with item_path(item) as path:
        names, reason = Child.call(sheet_names, path)
        if not names and item.head.startswith(ZIP_START):
            # calamine does not know the passwords of OpenDocument.
            with Path(path).open("rb") as file:
                check_password(Package(file, "workbook"))
        if reason:
            raise DamagedError(*reason)
        for number, (name, is_visible) in enumerate(names):
            if not is_visible:
                yield Reject("no-text", number, f"{name}: a hidden sheet")
                continue
            try:
                rows, reason = Child.call(sheet_rows, path, number, MAX_DOCUMENT_BYTES)
                if reason:
                    raise DamagedError(*reason)
            except DamagedError as damage:
                yield Reject(damage.reason, number, f"{name}: {damage.detail}")
                continue
            yield _sheet(rows, name, number, item)


def _sheet(rows: Sequence[Sequence[str]], name: str, number: int, item: Item) -> Document | Reject:
    cells = [cell for row in rows for cell in row]
    size = sum(map(len, cells))
    share = sum(len(cell) for cell in cells if _WORD.search(cell)) / max(1, size)
    if not size:
        return Reject("empty", number, name)
    if share < MIN_WORDS:
        return Reject("no-text", number, f"{name}: {share:.0%} of its text is in cells with words")
    blocks = Blocks()
    for row in rows:
        blocks.add(join_cells(row), "row")
    title = "" if _MADE_NAME.fullmatch(name.strip()) else name
    return Document(blocks.text(title), number, item.origin)
