"""Spreadsheets (xlsx, xls, ods): one document a sheet that holds words, its rows as `a | b | c`.

calamine (Rust) reads them, in the child process of `files/child.py`: a file of a few bytes may name
a cell that makes a table of a billion cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.collect.files.child import Child, item_path
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.blocks import Blocks, join_cells
from groundup.recipe import Source

MAX_CELLS = 2_000_000  # of a sheet
# A sheet of which less than this share of characters is in cells with words is one of numbers.
MIN_WORDS = 0.5
_WORD = re.compile(r"[^\W\d_]{2}")
# Names that programs give sheets.
_MADE_NAME = re.compile(
    r"(?:sheet|tabelle|feuille?|hoja|blad|foglio|лист|ark|工作表|シート)[ _]?\d*", re.I
)


def read_spreadsheet(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the sheets that hold words; those of numbers, and hidden ones, are listed."""
    with item_path(item) as path:
        names, reason = Child.call(sheet_names, path)
        if reason:
            raise DamagedError(*reason)
        for number, (name, is_visible) in enumerate(names):
            if not is_visible:
                yield Reject("no-text", number, f"{name}: a hidden sheet")
                continue
            try:
                rows = Child.call(sheet_rows, path, number)
            except DamagedError as damage:
                yield Reject(damage.reason, number, f"{name}: {damage.detail}")
                continue
            yield _sheet(rows, name, number, item)


def _sheet(
    rows: Sequence[Sequence[str]] | None, name: str, number: int, item: Item
) -> Document | Reject:
    if rows is None:
        detail = f"{name}: it has more than {MAX_CELLS:,} cells, or {MAX_DOCUMENT_BYTES >> 20} MB"
        return Reject("too-large", number, detail)
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


def sheet_names(path: str) -> tuple[list[tuple[str, bool]], tuple[str, str] | None]:
    """Return the name of each sheet, and whether it is shown; or why the file cannot be read."""
    import python_calamine

    try:
        book = python_calamine.CalamineWorkbook.from_path(path)
    except python_calamine.PasswordError:
        return [], ("encrypted", "it wants a password: save it without one first")
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        return [], ("damaged", str(error))
    shown = python_calamine.SheetVisibleEnum.Visible
    return [(sheet.name, sheet.visible == shown) for sheet in book.sheets_metadata], None


def sheet_rows(path: str, number: int) -> list[list[str]] | None:
    """Return the rows of a sheet as text; None if it is too large."""
    import python_calamine

    book = python_calamine.CalamineWorkbook.from_path(path)
    try:
        sheet = book.get_sheet_by_index(number)
    except python_calamine.CalamineError as error:
        raise DamagedError("damaged", str(error)) from None
    rows, cells, size = [], 0, 0
    for row in sheet.iter_rows():
        texts = [_cell_text(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        cells += len(texts)
        size += sum(map(len, texts))
        if cells > MAX_CELLS or size > MAX_DOCUMENT_BYTES:
            return None
        rows.append(texts)
    return rows


def _cell_text(cell: Any) -> str:
    """Return a cell as a person sees it: whole numbers without a fraction."""
    if isinstance(cell, float):
        return f"{cell:.10g}"
    return " ".join(str(cell).split())
