"""Fixed log-spaced bins, in which the distributions of shards add up exactly. Reads and writes
nothing on disk.

Four bins to a doubling, on both sides of zero, each with its upper edge, so that a share of 1 lies
below 1. What is no more than 2^-10 from zero counts as zero, what is beyond an end to the last bin.
A histogram is a table of whole numbers, so a sum does not depend on its order. A quantile is the
middle of the bin that holds it: off by a factor of 2^(1/8) at most, which is ERROR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from groundup.artifacts.arrays import Array

ERROR = 2**0.125 - 1
# The code of a value that is not a number; all others are bins.
UNKNOWN = 255
CODES = 256
QUANTILES = (0.05, 0.5, 0.95)


def _powers(first: int, last: int) -> Array:
    """Return 2^(k/4) for k = first … last, from literals: the power of a C library may differ in
    its last bit.
    """
    parts = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
    return np.array([math.ldexp(parts[k % 4], k // 4) for k in range(first, last + 1)])


# Up to 2^26.75, since a document has 2^26 bytes at most; below zero, where only a filter of the
# user's own may lie, to 2^16.25.
EDGES = np.concatenate([-_powers(-40, 65)[::-1], _powers(-40, 107)])
ZERO = int(np.searchsorted(EDGES, 0.0))


def coded(values: Array) -> Array:
    """Return the bin of every value (uint8): the number of edges below it; UNKNOWN for what is not
    a number.
    """
    values = np.asarray(values, np.float64)
    codes = np.searchsorted(EDGES, values)
    return np.where(np.isnan(values), UNKNOWN, codes).astype(np.uint8)


def counted(codes: Array) -> Array:
    """Return how many values each code has (int64, CODES numbers)."""
    return np.bincount(codes, minlength=CODES).astype(np.int64)


def middle(code: int) -> float:
    """Return the value that stands for a bin: 0, or the geometric middle of its edges, to four
    digits.
    """
    if code == ZERO:
        return 0.0
    edge = EDGES[code - 1] if code > ZERO else -EDGES[code]
    return float(f"{edge * 1.0905077326652577:.4g}") * (1 if code > ZERO else -1)


def quantiles(counts: Array, shares: Sequence[float] = QUANTILES) -> list[float]:
    """Return for each share q of n values the smallest value that q·n values do not exceed; nothing
    where there are none.
    """
    known = np.cumsum(counts[:UNKNOWN])
    if known[-1] == 0:
        return []
    return [
        middle(int(np.searchsorted(known, max(1, math.ceil(share * int(known[-1]))))))
        for share in shares
    ]


def packed(counts: Array) -> dict[str, Any]:
    """Return a histogram as JSON holds it: the first code that occurs, and the counts from there to
    the last.
    """
    found = np.flatnonzero(counts[:UNKNOWN])
    first, last = (int(found[0]), int(found[-1])) if len(found) else (0, -1)
    return {
        "first": first,
        "counts": counts[first : last + 1].tolist(),
        "unknown": int(counts[UNKNOWN]),
    }


def unpacked(histogram: dict[str, Any]) -> Array:
    """Return the histogram that `packed` was given."""
    counts = np.zeros(CODES, np.int64)
    counts[histogram["first"] : histogram["first"] + len(histogram["counts"])] = histogram["counts"]
    counts[UNKNOWN] = histogram["unknown"]
    return counts
