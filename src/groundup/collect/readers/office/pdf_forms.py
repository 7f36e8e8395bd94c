"""What a person typed into the fields of a form of a PDF → lines of its page.

A form keeps the values apart from the page, which shows them where the fields are: a value becomes
a cell of the line that it stands in, such as that of its label. Boxes to tick have no text, and
fields of passwords and hidden ones show none.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundup.collect.readers.office.pdf_words import MAX_CHARACTERS

# Fields of a page beyond are not read.
_MAX_FIELDS = 10_000
_HIDDEN = 2 | 32  # flags of an annotation: hidden, or not on the screen
_PASSWORD = 1 << 13  # flag of a field
_LINE_STEP, _SIZE = 1.2, 10.0  # of several lines in a field, in heights of letters, and those


@dataclass(slots=True)
class Value:
    """A line of a value, with its place in points; `y` is its baseline."""

    text: str
    left: float
    right: float
    y: float
    size: float


def form_values(page: Any, form: Any) -> list[Value]:
    """Return the values of the fields of a page, without those of a field that it has again."""
    from pypdfium2 import raw

    values: list[Value] = []
    seen: set[tuple[str, str]] = set()
    size = 0
    for number in range(min(raw.FPDFPage_GetAnnotCount(page), _MAX_FIELDS)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            if not _is_shown(raw, form, annotation):
                continue
            name = _string(raw.FPDFAnnot_GetFormFieldName, form, annotation)
            text = _string(raw.FPDFAnnot_GetFormFieldValue, form, annotation)
            size += len(text)
            if text.strip() and (name, text) not in seen and size <= MAX_CHARACTERS:
                seen.add((name, text))
                values += _lines(raw, annotation, text)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return values


def _is_shown(raw: Any, form: Any, annotation: Any) -> bool:
    if raw.FPDFAnnot_GetSubtype(annotation) != raw.FPDF_ANNOT_WIDGET:
        return False
    sort = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    is_text = sort in (
        raw.FPDF_FORMFIELD_TEXTFIELD,
        raw.FPDF_FORMFIELD_COMBOBOX,
        raw.FPDF_FORMFIELD_LISTBOX,
    )
    is_secret = raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD
    return is_text and not is_secret and not raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN


def _string(function: Any, form: Any, annotation: Any) -> str:
    """Return a string that pdfium writes into a buffer, as UTF-16 with a zero at its end."""
    from pypdfium2 import raw

    length = min(function(form, annotation, None, 0), 2 * MAX_CHARACTERS)
    buffer = ctypes.create_string_buffer(length)
    function(form, annotation, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), length)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")


def _lines(raw: Any, annotation: Any, text: str) -> Iterator[Value]:
    rect = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(annotation, rect)
    height = abs(rect.top - rect.bottom)
    size = max(1.0, min(_SIZE, height))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    y = rect.bottom + (height - size) / 2 if len(lines) == 1 else rect.top - size
    for number, line in enumerate(lines):
        yield Value(line, rect.left, rect.right, y - number * _LINE_STEP * size, size)
