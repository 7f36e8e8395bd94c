"""Repetition inside a text: lines, paragraphs, n-grams of words (Rae et al. 2021, appendix A.1.1,
table A1).

Reads and writes nothing on disk. Everything is counted in bytes of UTF-8, to be divided by those of
the text.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.minhash import mix
from groundup.refine.kernels import Number, kernel

# A paragraph ends at two line breaks, a line at one.
PARAGRAPHS = 2
_PRIME, _BASE = np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)


@kernel
def _slot(keys: Array, used: Array, key: Number) -> Number:
    """Return where `key` stands, or belongs, in an open-addressing table whose size is a power of
    two.
    """
    last = np.uint64(len(keys) - 1)
    at = key & last
    while used[at] and keys[at] != key:
        at = (at + np.uint64(1)) & last
    return np.int64(at)


@kernel
def _table_size(count: int) -> int:
    size = 4
    while size < 2 * count:
        size *= 2
    return size


@kernel
def repeated_lines(offsets: Array, data: Array, breaks: int) -> Array:
    """Count units (lines, or paragraphs for `breaks` = 2), those that occurred before in their
    text, and their bytes.

    Returns:
        shape (n, 3): units with text, repeated ones, bytes of the repeated ones.
    """
    out = np.zeros((len(offsets) - 1, 3), np.int64)
    for text in range(len(offsets) - 1):
        _repeated_units(data, offsets[text], offsets[text + 1], breaks, out[text])
    return out


@kernel
def _repeated_units(data: Array, begin: int, stop: int, breaks: int, row: Array) -> None:
    size = _table_size((data[begin:stop] == 0x0A).sum() + 1)
    keys, used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    newlines = 0
    for i in range(begin, stop + 1):
        newlines = newlines + 1 if i < stop and data[i] == 0x0A else 0
        if i == stop or newlines == breaks:
            _count_unit(data, begin, min(i + 1 - newlines, stop), keys, used, row)
            begin, newlines = i + 1, 0


@kernel
def _count_unit(data: Array, begin: int, end: int, keys: Array, used: Array, row: Array) -> None:
    while begin < end and data[begin] in (0x20, 0x09, 0x0A):
        begin += 1
    if begin >= end:
        return
    key = np.uint64(0)
    for i in range(begin, end):
        key = (key ^ np.uint64(data[i])) * _PRIME
    key = mix(key)
    at = _slot(keys, used, key)
    row[0] += 1
    if used[at]:
        row[1] += 1
        row[2] += end - begin
    keys[at], used[at] = key, True


@kernel
def repeated_words(hashes: Array, starts: Array, ends: Array, first: Array) -> Array:
    """Measure n-grams of words that repeat inside their text.

    Returns:
        shape (n, 9), bytes: for n = 2, 3, 4 all copies of the most frequent n-gram; for n = 5 … 10
        every n-gram that occurred before, overlaps counted once.
    """
    out = np.zeros((len(first) - 1, 9), np.int64)
    for text in range(len(first) - 1):
        a, b = first[text], first[text + 1]
        size = _table_size(b - a)
        keys, used, counts = (
            np.empty(size, np.uint64),
            np.zeros(size, np.bool_),
            np.empty(size, np.int32),
        )
        prefix = _prefixes(hashes[a:b])
        for n in range(2, 5):
            out[text, n - 2] = _top(prefix, n, starts[a:b], ends[a:b], keys, used, counts)
        for n in range(5, 11):
            out[text, n - 2] = _duplicates(prefix, n, starts[a:b], ends[a:b], keys, used)
    return out


@kernel
def _prefixes(hashes: Array) -> Array:
    """Return polynomial hashes of all beginnings, of which the hash of any run of words is a
    difference.
    """
    out = np.zeros(len(hashes) + 1, np.uint64)
    for k in range(len(hashes)):
        out[k + 1] = out[k] * _BASE + hashes[k]
    return out


@kernel
def _power(n: int) -> Number:
    value = np.uint64(1)
    for _ in range(n):
        value *= _BASE
    return value


@kernel
def _top(
    prefix: Array, n: int, starts: Array, ends: Array, keys: Array, used: Array, counts: Array
) -> int:
    used[:] = False
    power, most, most_bytes = _power(n), 1, 0
    for i in range(len(starts) - n + 1):
        key = mix(prefix[i + n] - prefix[i] * power)
        at = _slot(keys, used, key)
        counts[at] = counts[at] + 1 if used[at] else 1
        keys[at], used[at] = key, True
        size = ends[i + n - 1] - starts[i]
        if counts[at] > most or (counts[at] == most > 1 and size * most > most_bytes):
            most, most_bytes = counts[at], size * counts[at]
    return most_bytes


@kernel
def _duplicates(prefix: Array, n: int, starts: Array, ends: Array, keys: Array, used: Array) -> int:
    used[:] = False
    power, total, i = _power(n), 0, 0
    while i + n <= len(starts):
        key = mix(prefix[i + n] - prefix[i] * power)
        at = _slot(keys, used, key)
        if used[at]:
            total += ends[i + n - 1] - starts[i]
            i += n
        else:
            keys[at], used[at] = key, True
            i += 1
    return total
