"""Bring texts into the normal form NFC, line by line where a line may not be in it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, text_buffers
from groundup.refine.clean.spans import add_line, put_spans, take_spans
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    MARK,
    PLAIN,
    UNSTABLE,
    code_point,
)
from groundup.refine.kernels import kernel_with
from groundup.refine.scan import next_foreign


def normalize_form(texts: pa.StringArray, rows: Array) -> tuple[pa.StringArray, Array]:
    """Bring some rows into NFC; return all texts, and the mask of those that changed."""
    buffers, changed = text_buffers(texts), np.zeros(len(rows), np.bool_)
    spans = unstable_lines(buffers, rows)
    before = take_spans(buffers, spans)
    after = pc.utf8_normalize(before, form="NFC")
    differ = mask(pc.not_equal(before, after))
    if not differ.any():
        return texts, changed
    changed[spans[differ, 0]] = True
    return put_spans(buffers, spans[differ], after.filter(pa.array(differ))), changed


@kernel_with(CLEANING_CLASSES)
def unstable_lines(classes: Array, texts: Texts, rows: Array) -> Array:
    """Return the lines of some rows that may not be in NFC (UAX 15, quick check).

    They hold a character that NFC may change or combine with the one before it, or two marks in a
    row, whose order may change. A line break combines with nothing.
    """
    offsets, data = texts
    out, count = np.empty((0, 3), np.int64), 0
    for text in range(len(rows)):
        if not rows[text]:
            continue
        stop, before = offsets[text + 1], PLAIN
        end, i = offsets[text], next_foreign(data, offsets[text], stop)
        while i < stop:
            begin = i
            point, i = code_point(data, i, stop)
            kind = classes[point]
            if kind == UNSTABLE or (kind == MARK and before == MARK):
                out, count, end = add_line(out, count, texts, text, begin, end)
                i, kind = end, PLAIN
            before = kind
            if i < stop and data[i] < 0x80:
                i, before = next_foreign(data, i, stop), PLAIN
    return out[:count]
