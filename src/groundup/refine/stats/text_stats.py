"""What a distribution is made of: five numbers a text, counted over whole buffers. Reads and writes
nothing on disk.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    NEWLINE,
    SPACE,
    UNSPACED,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.filter.repetition import repeated_lines
from groundup.refine.kernels import Number, kernel

# What each number is, for those who read the file.
MEASURES = {
    "bytes": "length in bytes of UTF-8",
    "words": "words between white space; in scripts without spaces every character is one",
    "compression": (
        "bytes of the beginning of the text, divided by those that Lempel-Ziv matching leaves of it"
    ),
    "repeated_lines": (
        "share of the bytes of the beginning that stand in lines which occurred before"
    ),
    "repeated_runs": (
        "share of the bytes of the beginning that stand in copies of at least 32 bytes of what came"
        " before"
    ),
}
# Those that are counts.
WHOLE = ("bytes", "words")
# The last three look at so much of a text, which bounds their cost and makes texts of any length
# comparable; most pages and files are shorter. `python -m benchmarks quality` compares them with
# the whole text.
BEGINNING_BYTES = 8_192
# About five words: such copies rank code and pages as Gopher's repeated 5-grams do.
LONG_COPY = 32
# What LZ4 writes for a match: two bytes of distance and one of lengths.
MATCH_BYTES = 3
# Slots of the table of last places; 12 bits find as much in 8 KB as 16 bits do, and are quick to
# empty.
_SLOT_BITS = np.uint32(12)
_MULTIPLIER = np.uint32(2_654_435_761)
_GAPS = np.array(
    [byte < 0x80 and CLEANING_CLASSES[byte] in (SPACE, NEWLINE) for byte in range(256)]
)


def measured(texts: Texts) -> Array:
    """Return the five measures of every text, shape (n, 5), float64; a share of nothing is not a
    number.
    """
    sizes = np.diff(texts[0]).astype(np.int64)
    beginnings = _beginnings(*texts, BEGINNING_BYTES)
    length = np.diff(beginnings[0]).astype(np.float64)
    length[length == 0] = np.nan
    coded = coded_sizes(*beginnings)
    words = count_words(*texts, WORD_CLASSES, CLEANING_CLASSES, _GAPS)
    copies = repeated_lines(*beginnings, 1)[:, 2]
    return np.stack(
        [sizes, words, length / np.maximum(coded[:, 0], 1), copies / length, coded[:, 1] / length],
        axis=1,
    )


@kernel
def _beginnings(offsets: Array, data: Array, most: int) -> Texts:
    """Return the first bytes of every text, at most `most`, as texts of their own; a character is
    not cut.
    """
    out = np.zeros(len(offsets), np.int32)
    for text in range(len(offsets) - 1):
        end = min(offsets[text] + most, offsets[text + 1])
        while end < offsets[text + 1] and end > offsets[text] and data[end] & 0xC0 == 0x80:
            end -= 1
        out[text + 1] = out[text] + end - offsets[text]
    found = np.empty(out[-1], np.uint8)
    for text in range(len(offsets) - 1):
        found[out[text] : out[text + 1]] = data[
            offsets[text] : offsets[text] + out[text + 1] - out[text]
        ]
    return out, found


@kernel
def count_words(offsets: Array, data: Array, classes: Array, spacing: Array, gaps: Array) -> Array:
    """Count the words of every text as the filters do (`words` of `Statistics`)."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        i, outside, count = offsets[text], True, 0
        while i < offsets[text + 1]:
            if data[i] < 0x80:
                gap, i = gaps[data[i]], i + 1
                count += outside and not gap
                outside = gap
                continue
            point, i = code_point(data, i, offsets[text + 1])
            gap = spacing[point] == SPACE or spacing[point] == NEWLINE
            single = classes[point] == UNSPACED
            count += not gap and (single or outside)
            outside = gap or single
        out[text] = count
    return out


@kernel
def coded_sizes(offsets: Array, data: Array) -> Array:
    """Replace what repeats by references, greedily, as LZ4 does (Ziv and Lempel 1977), and count
    what that would leave.

    Returns:
        shape (n, 2): bytes that are left, and bytes of the text that stand in copies of at least
        LONG_COPY bytes.
    """
    out = np.zeros((len(offsets) - 1, 2), np.int64)
    table = np.empty(1 << _SLOT_BITS, np.int32)
    for text in range(len(offsets) - 1):
        i, stop = offsets[text], offsets[text + 1]
        table[:] = -1
        while i + 4 <= stop:
            here = _four(data, i)
            slot = np.uint32(here * _MULTIPLIER) >> (np.uint32(32) - _SLOT_BITS)
            other = table[slot]
            table[slot] = i
            if other < 0 or _four(data, other) != here:
                out[text, 0] += 1
                i += 1
                continue
            length = 4
            while i + length < stop and data[i + length] == data[other + length]:
                length += 1
            out[text, 0] += MATCH_BYTES
            out[text, 1] += length if length >= LONG_COPY else 0
            i += length
        out[text, 0] += stop - i
    return out


@kernel
def _four(data: Array, i: int) -> Number:
    low = np.uint32(data[i]) | np.uint32(data[i + 1]) << np.uint32(8)
    return low | np.uint32(data[i + 2]) << np.uint32(16) | np.uint32(data[i + 3]) << np.uint32(24)
