"""Five statistics of a text, counted over whole buffers, and histograms of them.

A histogram has bins of equal ratio: the edges are ±2^(k/4), so four bins double the value. It holds
integer counts, so sums do not depend on their order. Values within 2^-10 of zero count as zero,
values beyond an end as the last bin. A quantile is the middle of its bin, so its error is at most a
factor of 2^(1/8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
from groundup.refine.filter.statistics import repeated_lines
from groundup.refine.kernels import Number, kernel, kernel_with

# Name and description of each statistic; quality.json holds both.
TEXT_STATS = {
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
COUNTS = ("bytes", "words")
# The last three look at the beginning of a text. That bounds their cost, and makes texts of any
# length comparable; most pages and files are shorter. `python -m benchmarks quality` compares them
# with the whole text.
BEGINNING_BYTES = 8_192
# About five words: such copies rank code and pages as Gopher's repeated 5-grams do.
LONG_COPY = 32
# What LZ4 writes for a match: two bytes of distance and one of lengths.
MATCH_BYTES = 3
# Slots of the hash table of last positions. 12 bits find as much in 8 KB as 16 bits do, and are
# faster to clear.
_SLOT_BITS = np.uint32(12)
_MULTIPLIER = np.uint32(2_654_435_761)
_ASCII_SPACE = np.isin(CLEANING_CLASSES[:256], (SPACE, NEWLINE)) & (np.arange(256) < 0x80)


def text_stats(texts: Texts) -> Array:
    """Return the statistics of every text, shape (n, 5), float64; a share of nothing is NaN."""
    sizes = np.diff(texts[0]).astype(np.int64)
    beginnings = _beginnings(*texts, BEGINNING_BYTES)
    length = np.diff(beginnings[0]).astype(np.float64)
    length[length == 0] = np.nan
    compressed = compressed_sizes(beginnings)
    words = _count_words(*texts)
    repeated = repeated_lines(*beginnings, 1)[:, 2] / length
    compression = length / np.maximum(compressed[:, 0], 1)
    return np.stack([sizes, words, compression, repeated, compressed[:, 1] / length], axis=1)


@kernel
def _beginnings(offsets: Array, data: Array, size: int) -> Texts:
    """Return the first `size` bytes of every text, without cutting a character."""
    out = np.zeros(len(offsets), np.int32)
    for text in range(len(offsets) - 1):
        end = min(offsets[text] + size, offsets[text + 1])
        while end < offsets[text + 1] and end > offsets[text] and data[end] & 0xC0 == 0x80:
            end -= 1
        out[text + 1] = out[text] + end - offsets[text]
    beginnings = np.empty(out[-1], np.uint8)
    for text in range(len(offsets) - 1):
        end = offsets[text] + out[text + 1] - out[text]
        beginnings[out[text] : out[text + 1]] = data[offsets[text] : end]
    return out, beginnings


@kernel_with(WORD_CLASSES, CLEANING_CLASSES, _ASCII_SPACE)
def _count_words(
    offsets: Array, data: Array, classes: Array, spacing: Array, ascii_space: Array
) -> Array:
    """Count the words of every text as the filters do (`words` of `Statistics`)."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        i, outside, count = offsets[text], True, 0
        while i < offsets[text + 1]:
            if data[i] < 0x80:
                gap, i = ascii_space[data[i]], i + 1
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
def compressed_sizes(texts: Texts) -> Array:
    """Replace repetitions by references, greedily, as LZ4 does (Ziv and Lempel 1977).

    Returns:
        shape (n, 2): bytes of the result, and bytes of the text in copies of at least LONG_COPY
        bytes.
    """
    offsets, data = texts
    out = np.zeros((len(offsets) - 1, 2), np.int64)
    table = np.empty(1 << _SLOT_BITS, np.int32)
    for text in range(len(offsets) - 1):
        i, stop = offsets[text], offsets[text + 1]
        table[:] = -1
        while i + 4 <= stop:
            here = _four_bytes(data, i)
            slot = np.uint32(here * _MULTIPLIER) >> (np.uint32(32) - _SLOT_BITS)
            other = table[slot]
            table[slot] = i
            if other < 0 or _four_bytes(data, other) != here:
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
def _four_bytes(data: Array, i: int) -> Number:
    low = np.uint32(data[i]) | np.uint32(data[i + 1]) << np.uint32(8)
    return low | np.uint32(data[i + 2]) << np.uint32(16) | np.uint32(data[i + 3]) << np.uint32(24)


# Histograms

# The largest relative error of a quantile.
ERROR = 2**0.125 - 1
# The code of NaN; all other codes are bins.
UNKNOWN = 255
CODES = 256
QUANTILES = (0.05, 0.5, 0.95)


def _powers(first: int, last: int) -> Array:
    """Return 2^(k/4) for k = first … last, from literals: pow of a C library may differ."""
    parts = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
    return np.array([math.ldexp(parts[k % 4], k // 4) for k in range(first, last + 1)])


# Up to 2^26.75, since a document has at most 2^26 bytes. Only filters of users give scores below
# zero; their bins end at -2^16.25.
EDGES = np.concatenate([-_powers(-40, 65)[::-1], _powers(-40, 107)])
ZERO = int(np.searchsorted(EDGES, 0.0))


def bin_codes(values: Array) -> Array:
    """Return the bin of every value (uint8): the number of edges below it; UNKNOWN for NaN."""
    values = np.asarray(values, np.float64)
    codes = np.searchsorted(EDGES, values)
    return np.where(np.isnan(values), UNKNOWN, codes).astype(np.uint8)


def histogram(codes: Array) -> Array:
    """Return the number of values of each code (int64 [CODES])."""
    return np.bincount(codes, minlength=CODES).astype(np.int64)


def bin_middle(code: int) -> float:
    """Return the value that stands for a bin: the geometric middle of its edges, to four digits."""
    if code == ZERO:
        return 0.0
    edge = EDGES[code - 1] if code > ZERO else -EDGES[code]
    return float(f"{edge * 1.0905077326652577:.4g}") * (1 if code > ZERO else -1)


def quantiles(counts: Array, shares: Sequence[float] = QUANTILES) -> list[float]:
    """Return the quantiles of a histogram; an empty list if it has no values.

    The quantile q of n values is the smallest value that at least q·n of them do not exceed.
    """
    known = np.cumsum(counts[:UNKNOWN])
    if known[-1] == 0:
        return []
    ranks = [max(1, math.ceil(share * int(known[-1]))) for share in shares]
    return [bin_middle(int(np.searchsorted(known, rank))) for rank in ranks]


def pack(counts: Array) -> dict[str, Any]:
    """Return a histogram for JSON: the first code that occurs, and the counts up to the last."""
    present = np.flatnonzero(counts[:UNKNOWN])
    first, last = (int(present[0]), int(present[-1])) if len(present) else (0, -1)
    return {
        "first": first,
        "counts": counts[first : last + 1].tolist(),
        "unknown": int(counts[UNKNOWN]),
    }


def unpack(packed: dict[str, Any]) -> Array:
    """Return the histogram that `pack` was given."""
    counts = np.zeros(CODES, np.int64)
    counts[packed["first"] : packed["first"] + len(packed["counts"])] = packed["counts"]
    counts[UNKNOWN] = packed["unknown"]
    return counts
