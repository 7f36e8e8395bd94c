"""Words, shingles, MinHash signatures and exact Jaccard over Arrow buffers. Reads and writes
nothing on disk.

A word is a run of letters and digits, in small letters; in scripts without spaces every code point
is a word. A shingle is five words in a row; a text of fewer words is one shingle. MinHash: Broder,
"On the resemblance and containment of documents" (1997).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.refine.clean.unicode_classes import (
    BREAK,
    LOWERCASE,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.kernels import Number, kernel

SHINGLE_WORDS = 5
# 16 bands of 7: the S-curve's middle lies at (1/16)^(1/7) = 0.67, and a pair at Jaccard 0.8 is
# found with 0.98.
PERMUTATIONS, BANDS, BAND_ROWS = 112, 16, 7
# A text without a word: no shingle, all rows of its signature at this value.
EMPTY = np.uint32(0xFFFFFFFF)

_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@kernel
def mix(x: Number) -> Number:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@kernel
def scrambled(values: Array) -> Array:
    """Return `mix` of every number (uint64)."""
    out = np.empty(len(values), np.uint64)
    for k in range(len(values)):
        out[k] = mix(np.uint64(values[k]))
    return out


def _parameters() -> tuple[Array, Array]:
    """Return the multipliers (odd) and summands of the permutations x → a·x + b modulo 2^32."""
    seeds = np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * _GOLDEN
    numbers = scrambled(seeds) >> np.uint64(32)
    return (numbers[::2] | np.uint64(1)).astype(np.uint32), numbers[1::2].astype(np.uint32)


_MULTIPLIERS, _SUMMANDS = _parameters()
# Byte → the small letter of an ASCII letter, the digit itself, 0 for every other byte.
_LOWERED = np.array(
    [LOWERCASE[byte] if byte < 0x80 and WORD_CLASSES[byte] == WORD else 0 for byte in range(256)],
    np.uint8,
)


def words(texts: Texts) -> tuple[Array, Array, Array, Array]:
    """Find the words of every text.

    Returns:
        hashes (uint64), start and end byte (int32) of all words in order, and for n texts n + 1
        positions of their first word (int64).
    """
    hashes, starts, ends, first = _words(*texts, WORD_CLASSES, LOWERCASE, _LOWERED)
    return hashes[: first[-1]], starts[: first[-1]], ends[: first[-1]], first


def hash_words(of: Sequence[str]) -> Array:
    """Return the hashes (uint64) that `words` gives to these words."""
    return words(text_buffers(pa.array(of, pa.string())))[0]


@kernel
def _words(
    offsets: Array, data: Array, classes: Array, small: Array, lowered: Array
) -> tuple[Array, Array, Array, Array]:
    count = len(offsets) - 1
    # One-letter words need a byte between them, so no text of b bytes has more than (b + 1) / 2
    # words.
    most = (offsets[-1] - offsets[0]) // 2 + count + 1
    hashes, starts, ends = (
        np.empty(most, np.uint64),
        np.empty(most, np.int32),
        np.empty(most, np.int32),
    )
    first = np.zeros(count + 1, np.int64)
    at = 0
    for text in range(count):
        at = _split(
            data,
            offsets[text],
            offsets[text + 1],
            (classes, small, lowered),
            hashes,
            starts,
            ends,
            at,
        )
        first[text + 1] = at
    return hashes, starts, ends, first


@kernel
def _split(
    data: Array,
    i: int,
    stop: int,
    tables: tuple[Array, Array, Array],
    hashes: Array,
    starts: Array,
    ends: Array,
    at: int,
) -> int:
    """Write the words of data[i:stop] from position `at`; return the position after them."""
    classes, small, lowered = tables
    hashed, begin, inside = _FNV_BASIS, i, False
    while i < stop:
        here = i
        i, hashed = _ascii_run(data, i, stop, lowered, hashed)
        if i > here and not inside:
            begin, inside = here, True
        if i == stop:
            break
        here, kind, point = i, BREAK, 0
        if data[i] < 0x80:
            i += 1
        else:
            point, i = code_point(data, i, stop)
            kind = classes[point]
        if kind == WORD:
            begin, inside, hashed = (
                begin if inside else here,
                True,
                (hashed ^ np.uint64(small[point])) * _FNV_PRIME,
            )
            continue
        if inside:
            hashes[at], starts[at], ends[at] = mix(hashed), begin, here
            at, inside, hashed = at + 1, False, _FNV_BASIS
        if kind == UNSPACED:
            hashes[at], starts[at], ends[at] = mix(_hash_bytes(data, here, i, _FNV_BASIS)), here, i
            at += 1
    if inside:
        hashes[at], starts[at], ends[at] = mix(hashed), begin, stop
        at += 1
    return at


@kernel
def _ascii_run(
    data: Array, i: int, stop: int, lowered: Array, hashed: Number
) -> tuple[int, Number]:
    """Hash ASCII letters and digits from `i` on; return where they end."""
    while i < stop and lowered[data[i]]:
        hashed = (hashed ^ np.uint64(lowered[data[i]])) * _FNV_PRIME
        i += 1
    return i, hashed


@kernel
def _hash_bytes(data: Array, begin: int, end: int, hashed: Number) -> Number:
    """FNV-1a."""
    for k in range(begin, end):
        hashed = (hashed ^ np.uint64(data[k])) * _FNV_PRIME
    return hashed


@kernel
def shingle_count(word_count: int, width: int) -> int:
    """Return how many shingles of `width` words a text of `word_count` words has: at least one
    unless it has no word.
    """
    return max(word_count - width + 1, min(word_count, 1))


@kernel
def shingle(hashes: Array, begin: int, end: int, width: int) -> Number:
    """Return the hash of the shingle that starts at word `begin` of a text that ends at word `end`."""
    value = np.uint64(width)
    for k in range(begin, min(begin + width, end)):
        value = (value ^ hashes[k]) * _FNV_PRIME
        value ^= value >> np.uint64(29)
    return mix(value)


def signatures(texts: Texts) -> Array:
    """Return the MinHash signatures of texts, shape (n, 112), uint32; EMPTY for a text without
    words.
    """
    hashes, _, _, first = words(texts)
    return _sketch(hashes, first, SHINGLE_WORDS, _MULTIPLIERS, _SUMMANDS)


@kernel
def _sketch(hashes: Array, first: Array, width: int, multipliers: Array, summands: Array) -> Array:
    count = len(first) - 1
    out = np.full((count, len(multipliers)), EMPTY, np.uint32)
    for text in range(count):
        row = out[text]
        for s in range(shingle_count(first[text + 1] - first[text], width)):
            x = np.uint32(shingle(hashes, first[text] + s, first[text + 1], width) >> np.uint64(32))
            for p in range(len(multipliers)):
                value = np.uint32(multipliers[p] * x + summands[p])
                row[p] = min(row[p], value)
    return out


def shingle_sets(texts: Texts, width: int = SHINGLE_WORDS) -> tuple[Array, Array]:
    """Return the shingles of every text, sorted and each once: hashes (uint64) of all, and n + 1
    offsets (int64).
    """
    hashes, _, _, first = words(texts)
    sets, offsets = _sets(hashes, first, width)
    return sets[: offsets[-1]].copy(), offsets


@kernel
def _sets(hashes: Array, first: Array, width: int) -> tuple[Array, Array]:
    count = len(first) - 1
    out, offsets = np.empty(len(hashes) + count, np.uint64), np.zeros(count + 1, np.int64)
    at = 0
    for text in range(count):
        begin = at
        for s in range(shingle_count(first[text + 1] - first[text], width)):
            out[at] = shingle(hashes, first[text] + s, first[text + 1], width)
            at += 1
        offsets[text + 1] = at = begin + unique(out[begin:at])
    return out, offsets


@kernel
def unique(values: Array) -> int:
    """Sort in place and move each value's first copy to the front; return how many there are."""
    values.sort()
    kept = min(len(values), 1)
    for k in range(1, len(values)):
        if values[k] != values[k - 1]:
            values[kept] = values[k]
            kept += 1
    return kept


@kernel
def jaccard(a: Array, b: Array, threshold: float = 0.0) -> float:
    """Return the exact Jaccard similarity of two sorted sets, or 0 as soon as it cannot reach
    `threshold`.

    An empty set is similar to nothing.
    """
    if len(a) == 0 or len(b) == 0:
        return 0.0
    # |A and B| / |A or B| >= t means |A and B| >= t (|A| + |B|) / (1 + t); what is missed on either
    # side is spare. The bound is taken one element low, so that rounding never refuses a pair: the
    # quotient at the end decides.
    need = threshold * (len(a) + len(b)) / (1 + threshold) - 1
    i, j, common = 0, 0, 0
    while i < len(a) and j < len(b):
        if common + min(len(a) - i, len(b) - j) < need:
            return 0.0
        if a[i] == b[j]:
            i, j, common = i + 1, j + 1, common + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return common / (len(a) + len(b) - common)


@kernel
def band_keys(rows: Array, seed: int) -> Array:
    """Return a hash (uint64) of each column of some rows of signatures, shape (rows, n)."""
    keys = np.full(rows.shape[1], np.uint64(seed), np.uint64)
    for row in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            keys[k] = mix((keys[k] + _GOLDEN) ^ np.uint64(rows[row, k]))
    return keys


def hash_texts(texts: Texts) -> Array:
    """Return a 64-bit hash of the bytes of every text."""
    return _hash_texts(*texts)


@kernel
def _hash_texts(offsets: Array, data: Array) -> Array:
    out = np.empty(len(offsets) - 1, np.uint64)
    for text in range(len(offsets) - 1):
        out[text] = mix(_hash_bytes(data, offsets[text], offsets[text + 1], _FNV_BASIS))
    return out
