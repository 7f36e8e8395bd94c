"""Scan bytes in blocks: the loops over one block have no branch, so they compile to vector code.

A loop with a branch for every byte passes about 0.5 GB/s. Most bytes of most texts are ASCII and
need nothing, and blocks of them are passed ten times as fast.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.kernels import Number, helper, kernel

BLOCK = 32
ZERO, NINE = 0x30, 0x39
_ODD = np.uint64(0x9E3779B97F4A7C15)


@kernel
def next_byte(data: Array, i: int, stop: int, byte: int) -> int:
    """Return the position of the next `byte` in data[i:stop]; `stop` if there is none."""
    return next_between(data, i, stop, byte, byte)


@kernel
def next_between(data: Array, i: int, stop: int, low: int, high: int) -> int:
    """Return the position of the next byte from `low` to `high` in data[i:stop], or `stop`."""
    lowest, span = np.uint8(low), np.uint8(high - low)
    while i + BLOCK <= stop:
        found: Number = False
        for k in range(i, i + BLOCK):
            # Below the lowest, the difference wraps around.
            found |= np.uint8(data[np.uint64(k)] - lowest) <= span
        if found:
            break
        i += BLOCK
    while i < stop and not low <= data[i] <= high:
        i += 1
    return i


@kernel
def next_foreign(data: Array, i: int, stop: int) -> int:
    """Return the position of the next byte in data[i:stop] that is not ASCII, or `stop`."""
    while i + BLOCK <= stop:
        bits = np.uint8(0)
        for k in range(i, i + BLOCK):
            bits |= data[np.uint64(k)]
        if bits >= 0x80:
            break
        i += BLOCK
    while i < stop and data[i] < 0x80:
        i += 1
    return i


@helper
def copy_bytes(data: Array, begin: int, end: int, out: Array, pos: int) -> int:
    """Copy data[begin:end] to `out` from `pos`; return the end of the copy."""
    stop = pos + end - begin
    source, target = data[begin:end], out[pos:stop]
    # An index from 0 is never negative, so this compiles to vector code; `out[pos + k]` would not.
    for k in range(len(source)):
        target[k] = source[k]
    return stop


@kernel
def hash_bytes(data: Array, begin: int, end: int) -> Number:
    """Return an odd 64-bit hash of data[begin:end], eight bytes at a time.

    It is for tables in memory, and for the index of lines.
    """
    hashed, i = np.uint64(end - begin), begin
    while i < end:
        chunk = np.uint64(0)
        if i + 8 <= end:
            # Compiles to one load.
            for k in range(8):
                chunk |= np.uint64(data[np.uint64(i + k)]) << np.uint64(8 * k)
        else:
            for k in range(i, end):
                chunk = chunk << np.uint64(8) | np.uint64(data[k])
        hashed = (hashed ^ chunk) * _ODD
        hashed ^= hashed >> np.uint64(29)
        i += 8
    return hashed * _ODD | np.uint64(1)


@helper
def table_size(count: int) -> int:
    """Return the size of an open-addressing table for `count` keys: a power of two, half empty."""
    size = 4
    while size < 2 * count:
        size *= 2
    return size


@helper
def slot_of(keys: Array, key: Number) -> Number:
    """Return the slot of `key` in an open-addressing table, or the empty one (0) for it.

    The lowest bit of a key does not count. Keys are hashes other than 0.
    """
    last = len(keys) - 1
    slot = np.int64(key >> np.uint64(20)) & last
    while keys[slot] != np.uint64(0) and (keys[slot] ^ key) > np.uint64(1):
        slot = (slot + 1) & last
    return slot
