"""Hashes that outgrow memory, a range of them at a time: hashes are even, so equal ranges hold
about equally many. Reads arrays in memory or mapped ones; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from groundup.artifacts.arrays import Array

# Hashes that are looked at in one go: 2 MB of them.
BLOCK = 1 << 18


def ranges(count: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield first and last hash of ranges that hold about `most` of `count` hashes each."""
    parts = 1 + count // most
    bounds = [(number << 64) // parts for number in range(parts + 1)]
    for low, high in pairwise(bounds):
        yield low, high - 1


def inside(hashes: Array, low: int, high: int) -> Array:
    """Return the places of the hashes (uint64) with low <= hash <= high, ascending."""
    found = [np.zeros(0, np.int64)]
    for begin in range(0, len(hashes), BLOCK):
        block = hashes[begin : begin + BLOCK]
        found.append(np.flatnonzero((block >= np.uint64(low)) & (block <= np.uint64(high))) + begin)
    return np.concatenate(found)
