"""MinHash: words, shingles, signatures and band keys of texts, and exact Jaccard similarity.

    text        The cat sat on the mat and slept.
    words       the cat sat on the mat and slept                 8 hashes (lowercase)
    shingles    the cat sat on the · cat sat on the mat · …      4 hashes (5 words in a row)
    minima      min of π₁(shingles), …, min of π₁₁₂(shingles)    1 signature (112 numbers)
    bands       [7 numbers] [7 numbers] … [7 numbers]            16 keys (1 hash per band)

πᵢ is a random permutation of the 32-bit numbers. Two texts have the same minimum under πᵢ with
probability J, the Jaccard similarity |A ∩ B| / |A ∪ B| of their shingle sets A and B: the minimum
of A ∪ B is equally likely to be any of its elements (Broder, "On the resemblance and containment of
documents", 1997).

Locality-sensitive hashing (LSH; Indyk and Motwani 1998) finds similar texts without comparing all
pairs. Texts that share the key of a band are in one bucket, and only these are compared:

               band 1     band 2    …   band 16
    text A       71 ┐       33      …     08
    text B       71 ┘       90 ┐    …     54       candidates: A and B, B and C
    text C       26         90 ┘    …     61

A band of 7 minima agrees with probability J⁷, so at least one of 16 bands agrees with probability
1 - (1 - J⁷)¹⁶:

    J               0.5    0.6    0.7    0.8    0.9
    candidates     0.12   0.36   0.75   0.98   1.00

`jaccard` verifies candidates on the true shingle sets:

    texts = ["The cat sat on the mat and slept.", "The cat sat on the mat and ate."]
    sets, offsets = shingle_sets(text_buffers(pa.array(texts)))
    jaccard(sets[: offsets[1]], sets[offsets[1] :])                 # 3 of 5 shingles: 0.6

A word is a run of letters and digits; in scripts without spaces every code point is a word. A text
of fewer than five words is one shingle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.refine.clean.unicode_classes import (
    BREAK,
    LOWERCASE,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.kernels import Number, helper, inlined, kernel, kernel_with

SHINGLE_WORDS = 5
PERMUTATIONS, BANDS, BAND_ROWS = 112, 16, 7
# Hashes that may fall into one of the slots of which there is about one for each hash.
_CROWD = 32
# Shingles whose minima are taken at a time.
_TOGETHER = 4
# Every number of the signature of a text without words, which has no shingle.
EMPTY = np.uint32(0xFFFFFFFF)

# FNV-1a (Fowler, Noll, Vo): xor a byte, multiply by the prime.
FNV_BASIS, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
# The increment and the multipliers of SplitMix64 (Steele, Lea, Flood 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@kernel
def mix(x: Number) -> Number:
    """Mix 64 bits with the finalizer of SplitMix64: each input bit changes half of the output."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@kernel
def mix_all(values: Array) -> Array:
    """Return `mix` of every value (uint64)."""
    out = np.empty(len(values), np.uint64)
    for k in range(len(values)):
        out[k] = mix(np.uint64(values[k]))
    return out


# The permutations x → a·x + b modulo 2³²: a is odd, so each is a bijection. They come from a
# counter and not from a random generator, so they are the same on every machine and version.
_RANDOM = mix_all(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * _GOLDEN) >> np.uint64(32)
_MULTIPLIERS = (_RANDOM[::2] | np.uint64(1)).astype(np.uint32)
_SUMMANDS = _RANDOM[1::2].astype(np.uint32)
_TABLES = (WORD_CLASSES, LOWERCASE)
# Eight bytes of 1, of the bits of ASCII, and of the bit that makes an ASCII letter a small one (and
# leaves a digit as it is).
_ONES, _SEVEN = np.uint64(0x0101010101010101), np.uint64(0x7F7F7F7F7F7F7F7F)
_LOWER = np.uint64(0x2020202020202020)
_GATHER, _ZERO = np.uint64(0x0102040810204080), np.uint64(0)
# Masks of the first bytes of eight.
_FIRST = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
# The tables of code points, and what `words` writes: hashes, starts and ends.
Tables: TypeAlias = tuple[Array, Array]
Outputs: TypeAlias = tuple[Array, Array, Array]
Span: TypeAlias = tuple[int, int, int]
# Hashes of the words of n texts (uint64), and the n + 1 indices of their first words (int64).
Words: TypeAlias = tuple[Array, Array]


# Words and shingles


@kernel_with(_TABLES)
def words(tables: Tables, texts: Texts) -> tuple[Array, Array, Array, Array]:
    """Find the words of every text.

    Returns hashes (uint64), start and end byte (int32) of all words in order, and for n texts the
    n + 1 indices of their first words (int64).
    """
    offsets, data = texts
    count = len(offsets) - 1
    # One-letter words need a byte between them, so a text of b bytes has at most (b + 1) / 2 words.
    size = (offsets[-1] - offsets[0]) // 2 + count + 1
    hashes = np.empty(size, np.uint64)
    starts, ends = np.empty(size, np.int32), np.empty(size, np.int32)
    first = np.zeros(count + 1, np.int64)
    pos, out = 0, (hashes, starts, ends)
    bits = _mark_words(data, offsets[0], offsets[-1])
    for text in range(count):
        span = (np.int64(offsets[0]), np.int64(offsets[text]), np.int64(offsets[text + 1]))
        pos = _split(data, span, bits, tables, out, pos)
        first[text + 1] = pos
    return hashes[:pos], starts[:pos], ends[:pos], first


_words = words.compiled


def hash_words(names: Sequence[str]) -> Array:
    """Return the hashes (uint64) that `words` gives to these words."""
    return words(text_buffers(pa.array(names, pa.string())))[0]


@helper
def _mark_words(data: Array, begin: int, end: int) -> Array:
    """Return a bit for each byte of data[begin:end]: a letter or digit, or not ASCII (uint64)."""
    bits = np.zeros((end - begin) // 64 + 1, np.uint64)
    for i in range(begin, end - 7, 8):
        chunk, place = np.uint64(0), np.uint64(i)
        # Compiles to one load.
        for k in range(8):
            chunk |= np.uint64(data[place + np.uint64(k)]) << np.uint64(8 * k)
        # The product moves the lowest bits of eight bytes into one byte.
        marks = (_mark_bytes(chunk) * _GATHER) >> np.uint64(56)
        bits[(i - begin) >> 6] |= marks << np.uint64((i - begin) & 63)
    for i in range(end - (end - begin) % 8, end):
        mark = _mark_bytes(np.uint64(data[i])) & np.uint64(1)
        bits[(i - begin) >> 6] |= mark << np.uint64((i - begin) & 63)
    return bits


@helper
def _mark_bytes(chunk: Number) -> Number:
    """Return 1 in each byte that is an ASCII letter or digit, or not ASCII.

    Adding 0x80 - c to seven bits sets the high bit from c on.
    """
    lower, low = (chunk | _LOWER) & _SEVEN, chunk & _SEVEN
    letter = (lower + _ONES * np.uint64(0x80 - 0x61)) ^ (lower + _ONES * np.uint64(0x80 - 0x7B))
    digit = (low + _ONES * np.uint64(0x80 - 0x30)) ^ (low + _ONES * np.uint64(0x80 - 0x3A))
    return ((letter | digit | chunk) >> np.uint64(7)) & _ONES


@cast(Any, intrinsic)
def _trailing_zeros(_: Any, value: Any) -> Any:
    """Return the number of zeros below the lowest bit of a number (uint64) that is not 0."""

    def count(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), count


@helper
def _split(data: Array, span: Span, bits: Array, tables: Tables, out: Outputs, pos: int) -> int:
    """Write the words of a text to `out` from index `pos`; return the index after them.

    A run of letters, digits and bytes beyond ASCII ends at every other byte. If all of it is ASCII,
    it is one word, hashed eight letters at a time, in lowercase. That is a permutation of the first
    eight, so short words never collide. `span` is the first byte of the bits, and the first and the
    end of the text.
    """
    hashes, starts, ends = out
    origin, begin, stop = span
    first, last, carry, inside = begin - origin, stop - origin, np.uint64(0), False
    for block in range(first >> 6, (last >> 6) + 1):
        marks = bits[block]
        if block == first >> 6:
            marks &= ~np.uint64(0) << np.uint64(first & 63)
        if block == last >> 6:
            marks &= (np.uint64(1) << np.uint64(last & 63)) - np.uint64(1)
        # Where a run begins or ends.
        edges = marks ^ (marks << np.uint64(1) | carry)
        carry = marks >> np.uint64(63)
        while edges:
            i, inside = origin + 64 * block + _trailing_zeros(edges), not inside
            edges &= edges - np.uint64(1)
            if inside:
                begin = i
                continue
            hashed, seen = _hash_letters(data, begin, i)
            if seen & ~_SEVEN:
                pos = _split_run(data, begin, i, tables, out, pos)
            else:
                hashes[pos], starts[pos], ends[pos] = hashed, begin, i
                pos += 1
    return pos


@inlined
def _hash_letters(data: Array, begin: int, end: int) -> tuple[Number, Number]:
    """Return the hash of data[begin:end] in lowercase, and all of its bits.

    It is not called: a call would count references to the array for each word.
    """
    hashed, seen = np.uint64(0), np.uint64(0)
    for k in range(begin, end, 8):
        chunk = np.uint64(0)
        if k + 8 <= len(data):
            for j in range(8):
                chunk |= np.uint64(data[np.uint64(k + j)]) << np.uint64(8 * j)
        else:
            for j in range(end - k):
                chunk |= np.uint64(data[np.uint64(k + j)]) << np.uint64(8 * j)
        chunk = (chunk | _LOWER) & _FIRST[min(end - k, 8)]
        seen |= chunk
        hashed = mix(hashed ^ chunk)
    return hashed, seen


@helper
def _split_run(data: Array, i: int, stop: int, tables: Tables, out: Outputs, pos: int) -> int:
    """Write the words of a run that is not all ASCII; return the index after them.

    A word that is ASCII in lowercase, such as that of "İ", has the hash that `_split` gives it.
    """
    classes, lowercase = tables
    hashes, starts, ends = out
    begin, hashed, is_ascii, chunks, chunk, size = i, FNV_BASIS, True, _ZERO, _ZERO, 0
    while True:
        here, kind, point = i, BREAK, 0
        if i < stop:
            point, i = code_point(data, i, stop)
            kind = classes[point]
        if kind == WORD:
            letter = np.uint64(lowercase[point])
            hashed = (hashed ^ letter) * FNV_PRIME
            is_ascii = bool(is_ascii and letter < np.uint64(0x80))
            chunk |= letter << np.uint64(8 * (size & 7))
            size += 1
            if size & 7 == 0:
                chunks, chunk = mix(chunks ^ chunk), _ZERO
            continue
        # Anything else ends the word before it.
        if size:
            whole = mix(chunks ^ chunk) if size & 7 else chunks
            hashes[pos] = whole if is_ascii else mix(hashed)
            starts[pos], ends[pos] = begin, here
            pos += 1
        if here == stop:
            return pos
        if kind == UNSPACED:
            hashes[pos], starts[pos], ends[pos] = mix(fnv(FNV_BASIS, data, here, i)), here, i
            pos += 1
        begin, hashed, is_ascii, chunks, chunk, size = i, FNV_BASIS, True, _ZERO, _ZERO, 0


@helper
def fnv(hashed: Number, data: Array, begin: int, end: int) -> Number:
    """Add data[begin:end] to an FNV-1a hash, which starts as FNV_BASIS."""
    for k in range(begin, end):
        hashed = (hashed ^ np.uint64(data[k])) * FNV_PRIME
    return hashed


@kernel
def hash_texts(texts: Texts) -> Array:
    """Return a 64-bit hash of the bytes of every text."""
    offsets, data = texts
    out = np.empty(len(offsets) - 1, np.uint64)
    for text in range(len(offsets) - 1):
        out[text] = mix(fnv(FNV_BASIS, data, offsets[text], offsets[text + 1]))
    return out


@helper
def shingle_count(word_count: int, width: int) -> int:
    """Return the number of shingles of `width` words: at least one unless there is no word."""
    return max(word_count - width + 1, min(word_count, 1))


@helper
def hash_shingles(hashes: Array, width: int, out: Array) -> None:
    """Write the hash of each shingle of a text to `out`; `hashes` are its words.

    The outer loop is over the words of a shingle, so the inner ones compile to vector code.
    """
    for s in range(len(out)):
        out[s] = np.uint64(width)
    for k in range(min(width, len(hashes))):
        following = hashes[k : k + len(out)]
        for s in range(len(out)):
            value = (out[s] ^ following[s]) * FNV_PRIME
            # The product moves bits up only; without this shift, low bits would miss the high ones.
            out[s] = value ^ (value >> np.uint64(29))
    for s in range(len(out)):
        out[s] = mix(out[s])


@kernel_with(_TABLES)
def shingle_sets(tables: Tables, texts: Texts, width: int = SHINGLE_WORDS) -> tuple[Array, Array]:
    """Return the shingle sets of texts: sorted hashes (uint64) and n + 1 offsets (int64)."""
    hashes, _, _, first = _words(tables, texts)
    count = len(first) - 1
    out, offsets = np.empty(len(hashes), np.uint64), np.zeros(count + 1, np.int64)
    pos = 0
    for text in range(count):
        found = out[pos : pos + shingle_count(first[text + 1] - first[text], width)]
        hash_shingles(hashes[first[text] : first[text + 1]], width, found)
        # A text repeats shingles, so each set is sorted and stripped of them in place.
        pos += unique(found)
        offsets[text + 1] = pos
    # A copy, so the longer array is freed.
    return out[:pos].copy(), offsets


@kernel
def unique(values: Array) -> int:
    """Sort in place and move one copy of each value to the front; return how many there are."""
    sort_hashes(values)
    kept = min(len(values), 1)
    for k in range(1, len(values)):
        if values[k] != values[k - 1]:
            values[kept] = values[k]
            kept += 1
    return kept


@kernel
def sort_hashes(values: Array) -> None:
    """Sort hashes (uint64) in place.

    Hashes are uniform, so their upper bits say about where each belongs, and little is left to do.
    """
    bits = 0
    while 1 << bits < len(values):
        bits += 1
    shift, ends = np.uint64(64 - bits), np.zeros((1 << bits) + 1, np.int32)
    if bits == 0:
        return
    for value in values:
        ends[(value >> shift) + np.uint64(1)] += 1
    is_crowded = False
    for k in range(1, len(ends)):
        is_crowded |= ends[k] > _CROWD
        ends[k] += ends[k - 1]
    unsorted = values.copy()
    for value in unsorted:
        values[ends[value >> shift]] = value
        ends[value >> shift] += 1
    if is_crowded:
        # Not uniform: a text repeats a shingle. Shell's sort, with the gaps of Knuth.
        gap = 1
        while gap < len(values) // 9:
            gap = 3 * gap + 1
        while gap > 1:
            _insert(values, gap)
            gap //= 3
    _insert(values, 1)


@helper
def _insert(values: Array, gap: int) -> None:
    """Sort all values that are a multiple of `gap` apart, by insertion."""
    for k in range(gap, len(values)):
        value, place = values[k], k
        while place >= gap and values[place - gap] > value:
            values[place] = values[place - gap]
            place -= gap
        values[place] = value


# Minima and bands


def signatures(texts: Texts) -> Array:
    """Return the MinHash signatures of texts, shape (n, 112), uint32."""
    hashes, _, _, first = words(texts)
    return sign_words(hashes, first)


@kernel_with(_MULTIPLIERS, _SUMMANDS)
def sign_words(multipliers: Array, summands: Array, hashes: Array, first: Array) -> Array:
    """Return the MinHash signatures of texts from their words."""
    out = np.empty((len(first) - 1, PERMUTATIONS), np.uint32)
    shingles = np.empty(len(hashes), np.uint64)
    for text in range(len(first) - 1):
        begin, end = first[text], first[text + 1]
        for p in range(PERMUTATIONS):
            out[text, p] = EMPTY
        found = shingles[begin : begin + shingle_count(end - begin, SHINGLE_WORDS)]
        hash_shingles(hashes[begin:end], SHINGLE_WORDS, found)
        for s in range(0, len(found), _TOGETHER):
            _lower_minima(out[text], multipliers, summands, found, s)
    return out


@helper
def _lower_minima(
    row: Array, multipliers: Array, summands: Array, shingles: Array, first: int
) -> None:
    """Lower the minima of a signature to those of _TOGETHER shingles: a loop of vector code.

    Products wrap around, which is the modulus. Several shingles at a time, so that minima are
    loaded and stored less often; at the end the last one again, which changes nothing. The upper
    half of a mixed hash is as random as all of it.
    """
    last, half = len(shingles) - 1, np.uint64(32)
    a, b = np.uint32(shingles[first] >> half), np.uint32(shingles[min(first + 1, last)] >> half)
    c = np.uint32(shingles[min(first + 2, last)] >> half)
    d = np.uint32(shingles[min(first + 3, last)] >> half)
    for p in range(PERMUTATIONS):
        m, s = multipliers[p], summands[p]
        lower = min(np.uint32(m * a + s), np.uint32(m * b + s))
        other = min(np.uint32(m * c + s), np.uint32(m * d + s))
        row[p] = min(row[p], lower, other)


@kernel
def band_keys(rows: Array, seed: int) -> Array:
    """Return the keys (uint64) of one band: a hash of each column of `rows`, shape (height, n)."""
    keys = np.empty(rows.shape[1], np.uint64)
    for k in range(len(keys)):
        keys[k] = seed
    # Row by row, so each pass reads adjacent memory.
    for row in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            keys[k] = mix((keys[k] + _GOLDEN) ^ np.uint64(rows[row, k]))
    return keys


@kernel
def jaccard(a: Array, b: Array, threshold: float = 0.0) -> float:
    """Return the exact Jaccard similarity of two sorted sets.

    Returns 0 as soon as the similarity cannot reach `threshold`, and for an empty set.
    """
    if len(a) == 0 or len(b) == 0:
        return 0.0
    # |A ∩ B| / |A ∪ B| >= t is equivalent to |A ∩ B| >= t (|A| + |B|) / (1 + t). The bound is one
    # lower, so rounding never rejects a pair; the quotient at the end decides.
    need = threshold * (len(a) + len(b)) / (1 + threshold) - 1
    i, j, common = 0, 0, 0
    # Walk through both sets as a merge sort does.
    while i < len(a) and j < len(b):
        # Even if the rest of the shorter one is in common, it is too little.
        if common + min(len(a) - i, len(b) - j) < need:
            return 0.0
        if a[i] == b[j]:
            i, j, common = i + 1, j + 1, common + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return common / (len(a) + len(b) - common)
