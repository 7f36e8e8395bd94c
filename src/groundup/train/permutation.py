"""A keyed permutation of 0 … n-1 that is computed, not stored: any position of an epoch's order is
reached at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]
Values: TypeAlias = NDArray[np.uint64]
# Four rounds make a Feistel network a pseudo-random permutation when its round function is one
# (Luby and Rackoff 1988); ours is only a mixer, so two more.
ROUNDS = 6


def key_from(*parts: int | str) -> int:
    """Return a 64-bit key from parts that name what is permuted."""
    text = "\x00".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def permute(positions: Indices, size: int, key: int) -> Indices:
    """Return where the permutation `key` of range(size) sends each of `positions`.

    A Feistel network permutes the smallest range 0 … 4^k - 1 that holds `size`; what it sends
    beyond `size` is sent on until it lands inside (cycle-walking, Black and Rogaway 2002), about
    four times at most on average.
    """
    return _walk(positions, size, key, _feistel)


def permute_back(places: Indices, size: int, key: int) -> Indices:
    """Return the positions that the permutation `key` of range(size) sends to `places`: the inverse
    of `permute`.
    """
    return _walk(places, size, key, _feistel_back)


def _walk(
    values: Indices, size: int, key: int, step: Callable[[Values, int, list[np.uint64]], Values]
) -> Indices:
    half = max(1, -(-(size - 1).bit_length() // 2))
    found = values.astype(np.uint64)
    outside = np.arange(len(found))
    keys = [np.uint64(key_from(key, number)) for number in range(ROUNDS)]
    while len(outside):
        found[outside] = step(found[outside], half, keys)
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)


def _feistel(values: Values, half: int, keys: list[np.uint64]) -> Values:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _feistel_back(values: Values, half: int, keys: list[np.uint64]) -> Values:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in reversed(keys):
        left, right = right ^ (_mix(left ^ key) & mask), left
    return (left << shift) | right


def _mix(values: Values) -> Values:
    """Stafford's variant 13 of the 64-bit finaliser (the one in SplitMix64): every input bit
    reaches every output bit.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
