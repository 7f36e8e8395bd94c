"""Take spans out of the texts of a column, such as suspicious lines, and put others in their place.

Regular expressions and normal forms cost 10 to 100 times what a scan for a byte costs. So a kernel
finds the few lines that can matter, and only these go through them.

A span is a row, its first byte and its end in the bytes of the column: int64 [n, 3], ascending and
disjoint.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, text_array, text_buffers
from groundup.refine.kernels import helper, kernel
from groundup.refine.scan import BLOCK, copy_bytes, next_byte

_AT, _COLON, _SLASH, _DOT, _W = b"@:/.w"
_LINE = 0x0A
FEW = 50


def take_spans(texts: Texts, spans: Array) -> pa.StringArray:
    """Return the texts of spans."""
    return text_array(*_take(texts, spans))


def put_spans(texts: Texts, spans: Array, values: pa.StringArray) -> pa.StringArray:
    """Return the column with `values` in the place of spans."""
    return text_array(*_put(texts, spans, text_buffers(values)))


def screened(
    texts: Texts, spans: Array, pattern: str, before: int = 0, after: int = 0, few: int = 0
) -> Array:
    """Return the spans in which an expression of RE2 matches; some bytes beside them count, too.

    An expression takes a millisecond to compile. Up to `few` spans are returned as they are: pass
    FEW if the caller looks at each of them anyway.
    """
    if len(spans) <= few:
        return spans
    windows = spans.copy()
    windows[:, 1] = np.maximum(spans[:, 1] - before, texts[0][spans[:, 0]])
    windows[:, 2] = np.minimum(spans[:, 2] + after, texts[0][spans[:, 0] + 1])
    return spans[mask(pc.match_substring_regex(take_spans(texts, windows), pattern))]


@kernel
def _take(texts: Texts, spans: Array) -> Texts:
    sizes = spans[:, 2] - spans[:, 1]
    offsets, out = np.zeros(len(spans) + 1, np.int32), np.empty(sizes.sum(), np.uint8)
    for k in range(len(spans)):
        offsets[k + 1] = copy_bytes(texts[1], spans[k, 1], spans[k, 2], out, offsets[k])
    return offsets, out


@kernel
def _put(texts: Texts, spans: Array, values: Texts) -> Texts:
    (offsets, data), (bounds, new) = texts, values
    size = offsets[-1] - offsets[0] + bounds[-1] - bounds[0] - (spans[:, 2] - spans[:, 1]).sum()
    ends, out, pos, k = np.zeros(len(offsets), np.int32), np.empty(size, np.uint8), 0, 0
    for text in range(len(offsets) - 1):
        done = offsets[text]
        while k < len(spans) and spans[k, 0] == text:
            pos = copy_bytes(data, done, spans[k, 1], out, pos)
            pos = copy_bytes(new, bounds[k], bounds[k + 1], out, pos)
            done, k = spans[k, 2], k + 1
        pos = copy_bytes(data, done, offsets[text + 1], out, pos)
        ends[text + 1] = pos
    return ends, out


@kernel
def lines_with(texts: Texts, rows: Array, byte: int) -> Array:
    """Return the lines of the rows of a mask that hold a byte."""
    offsets, data = texts
    out, count = np.empty((0, 3), np.int64), 0
    for text in range(len(rows)):
        if not rows[text]:
            continue
        end, i = offsets[text], next_byte(data, offsets[text], offsets[text + 1], byte)
        while i < offsets[text + 1]:
            out, count, end = add_line(out, count, texts, text, i, end)
            i = next_byte(data, end, offsets[text + 1], byte)
    return out[:count]


@helper
def add_line(
    out: Array, count: int, texts: Texts, text: int, pos: int, begin: int
) -> tuple[Array, int, int]:
    """Add the line around `pos`, which does not begin before `begin`, to a list of spans.

    Returns the list, which may be a longer one, the number of spans, and the end of the line.
    """
    offsets, data = texts
    if count == len(out):
        longer = np.empty((2 * count + 64, 3), np.int64)
        for k in range(count):
            for column in range(3):
                longer[k, column] = out[k, column]
        out = longer
    first = pos
    while first > begin and data[first - 1] != _LINE:
        first -= 1
    out[count, 0], out[count, 1] = text, first
    out[count, 2] = end = next_byte(data, pos, offsets[text + 1], _LINE)
    return out, count + 1, end


@kernel
def address_lines(texts: Texts) -> Array:
    """Return the lines that hold "@", "://" or "www.", as every address does."""
    offsets, data = texts
    out, count = np.empty((0, 3), np.int64), 0
    for text in range(len(offsets) - 1):
        end, i = offsets[text], _next_address(data, offsets[text], offsets[text + 1])
        while i < offsets[text + 1]:
            out, count, end = add_line(out, count, texts, text, i, end)
            i = _next_address(data, end, offsets[text + 1])
    return out[:count]


@helper
def _next_address(data: Array, i: int, stop: int) -> int:
    """Return where the next "@", "://" or "www." begins in data[i:stop]; `stop` if none does."""
    while i + BLOCK + 3 <= stop:
        found = False
        for k in range(i, i + BLOCK):
            p = np.uint64(k)
            found |= (data[p] == _AT) | ((data[p] == _COLON) & (data[p + np.uint64(1)] == _SLASH))
            found |= (data[p + np.uint64(2)] == _W) & (data[p + np.uint64(3)] == _DOT)
        if found:
            for k in range(i, i + BLOCK):
                if _is_address(data, k, stop):
                    return k
        i += BLOCK
    while i < stop and not _is_address(data, i, stop):
        i += 1
    return i


@helper
def _is_address(data: Array, i: int, stop: int) -> bool:
    if data[i] == _COLON:
        return bool(i + 2 < stop and data[i + 1] == _SLASH and data[i + 2] == _SLASH)
    if data[i] == _W and i + 3 < stop:
        return bool(data[i + 1] == _W and data[i + 2] == _W and data[i + 3] == _DOT)
    return bool(data[i] == _AT)
