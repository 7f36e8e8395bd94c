"""The sheets of a spreadsheet as rows of text, by calamine, in a child process (`files/child.py`).

Only the standard library and python_calamine are imported here: the child starts in 0.2 s.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MAX_CELLS = 2_000_000  # of a sheet


@lru_cache(maxsize=1)
def _open(path: str) -> Any:
    """Return the workbook that is open: one of 4,000 sheets takes long to open for each of them."""
    import python_calamine

    return python_calamine.CalamineWorkbook.from_path(path)


def sheet_names(path: str) -> tuple[list[tuple[str, bool]], tuple[str, str] | None]:
    """Return the name of each sheet, and whether it is shown; or why the file cannot be read."""
    import python_calamine

    _open.cache_clear()
    try:
        book = _open(path)
    except python_calamine.PasswordError:
        return [], ("encrypted", "it wants a password: save it without one first")
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        return [], ("damaged", f"not a whole workbook: {error}")
    shown = python_calamine.SheetVisibleEnum.Visible
    return [(sheet.name, sheet.visible == shown) for sheet in book.sheets_metadata], None


def sheet_rows(
    path: str, number: int, limit: int
) -> tuple[list[list[str]], tuple[str, str] | None]:
    """Return the rows of a sheet as text of at most `limit` characters, or why it has none."""
    import python_calamine

    try:
        sheet = _open(path).get_sheet_by_index(number)
    except python_calamine.CalamineError as error:
        return [], ("damaged", str(error))
    rows, cells, size = [], 0, 0
    for row in sheet.iter_rows():
        texts = [_cell_text(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        cells += len(texts)
        size += sum(map(len, texts))
        if cells > MAX_CELLS or size > limit:
            return [], ("too-large", f"it has more than {MAX_CELLS:,} cells, or {limit >> 20} MB")
        rows.append(texts)
    return rows, None


def _cell_text(cell: Any) -> str:
    """Return a cell as a person sees it: whole numbers without a fraction."""
    if isinstance(cell, float):
        return f"{cell:.10g}"
    return " ".join(str(cell).split())
