"""BPE over words, compiled: a table of the words that were seen, and the merging of new ones.

The words of a text repeat, so each is merged once and then found in the table. A slot of it is four
numbers of 64 bits:

    " cat"  →  20 63 61 74 00 00 00 00 | 00 00 00 00 00 00 00 04 | 1 id, 3797 | -, -
               first 8 bytes of the word   7 more, their number       up to three ids

A word of more than 15 bytes has a hash in place of its first bytes; its bytes stand in a list and
are compared. More than three ids stand in a list, too. When the table is half full, or a list is
full, all of it is emptied: memory is fixed, whatever the text.

A word that is new is merged as BPE learned: of all adjacent pairs, the one that was learned first
becomes one token, the leftmost if there are several, until no pair has a merge.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.artifacts.arrays import Array
from groundup.artifacts.jit import helper, inlined, kernel
from groundup.artifacts.splitter import byte_at

# Bytes that a key is read from, and that must be there after the last word.
KEY_BYTES = 16
# A word of more bytes is merged each time.
LONGEST = 255
# Merges of words of more symbols are found in a heap, not by looking at each pair.
_HEAP_FROM = 96

_SLOTS, _NAMES, _LISTED = 1 << 19, 1 << 22, 1 << 20
MAX_WORDS, MAX_BYTES = _SLOTS // 2, _NAMES
# In the place of the number of bytes: the word is long.
_LONG = 16
# No value of a pair is as high: a rank has 30 bits, an id 31.
_NO_MERGE = 1 << 62
_NO_PAIR = -1
# Odd numbers with bits everywhere (SplitMix64; as int64).
_MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47

# A scalar inside a kernel.
Number: TypeAlias = Any


class WordCache(NamedTuple):
    """Words and their ids."""

    # Slots, [4 * _SLOTS]: see the top of this file.
    table: Array
    # The bytes of long words, and the ids of words that have more than three.
    names: Array
    listed: Array
    # How many words, bytes and ids there are.
    used: Array


class Merges(NamedTuple):
    """What BPE learned."""

    # An open hash table, [2 * slots]: left id << 32 | right id, and rank << 32 | id of both.
    pairs: Array
    # The id of each byte, [256].
    of_byte: Array


def new_cache() -> WordCache:
    """Return a cache without words (21 MB)."""
    return WordCache(
        np.zeros(4 * _SLOTS, np.int64),
        np.zeros(_NAMES, np.uint8),
        np.zeros(_LISTED, np.uint32),
        np.zeros(3, np.int64),
    )


@cast(Any, intrinsic)
def number_at(_: Any, address: Any, i: Any) -> Any:
    """Load the eight bytes at `address + i` as int64, aligned or not."""

    def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = builder.inttoptr(builder.add(*arguments), ir.IntType(64).as_pointer())
        return builder.load(where, align=1)

    return types.int64(types.int64, types.int64), load


# Arrays are passed to inlined functions as addresses; see `byte_at`.


@kernel
def hash_pairs(left: Array, right: Array, merged: Array) -> Array:
    """Return the table of `Merges` from the ids of every merge, in the order of learning."""
    slots = 64
    while slots < 3 * len(left):
        slots *= 2
    pairs = np.full(2 * slots, _NO_PAIR, np.int64)
    for rank in range(len(left)):
        pair = np.int64(left[rank]) << 32 | np.int64(right[rank])
        slot = _mix(pair, 0) & (slots - 1)
        while pairs[2 * slot] != _NO_PAIR and pairs[2 * slot] != pair:
            slot = (slot + 1) & (slots - 1)
        # Of a pair that is there twice, the last one counts, as in `tokenizers`.
        pairs[2 * slot], pairs[2 * slot + 1] = pair, np.int64(rank) << 32 | np.int64(merged[rank])
    return pairs


@kernel
def encode_words(
    cache: WordCache, initial: WordCache, merges: Merges, data: int, start: int, ends: Array
) -> tuple[Array, Array]:
    """Return the ids (uint32) of the words between `start` and `ends`, and where each word's end.

    Needs KEY_BYTES bytes after the last word. `initial` is what the cache is reset to.
    """
    begin, pos, listed = start, 0, cache.listed
    table, names = cache.table.ctypes.data, cache.names.ctypes.data
    # A word has at most an id for each byte; three are written whatever their number.
    out = np.empty(ends[-1] - start + 3 if len(ends) else 0, np.uint32)
    places = np.empty(len(ends), np.int32)
    for word in range(len(ends)):
        size = ends[word] - begin
        slot = _find(table, names, data, begin, size)
        if number_at(slot, 8) == 0:
            count = _merge(merges, data, begin, size, out, pos)
            if size <= LONGEST:
                _insert(cache, initial, data, begin, size, out[pos : pos + count])
        else:
            head, tail = number_at(slot, 16), number_at(slot, 24)
            count = head & 0xFFFFFFFF
            if count <= 3:
                out[pos], out[pos + 1] = head >> 32, tail & 0xFFFFFFFF
                out[pos + 2] = tail >> 32
            else:
                for k in range(count):
                    out[pos + k] = listed[tail + k]
        pos += count
        begin, places[word] = begin + size, pos
    return out[:pos].copy(), places


@kernel
def insert_words(
    cache: WordCache, initial: WordCache, offsets: Array, data: int, ids: Array
) -> None:
    """Put words into the cache, each of which is one id."""
    for word in range(len(ids)):
        size = offsets[word + 1] - offsets[word]
        if 0 < size <= LONGEST:
            _insert(cache, initial, data, offsets[word], size, ids[word : word + 1])


@helper
def _insert(
    cache: WordCache, initial: WordCache, data: int, begin: int, size: int, ids: Array
) -> None:
    """Put a word into the cache, which is emptied first if there is no room."""
    used = cache.used
    full = used[0] >= MAX_WORDS or used[1] + size > _NAMES or used[2] + len(ids) > _LISTED
    if full:
        _copy(initial.table, cache.table)
        _copy(initial.names, cache.names)
        _copy(initial.listed, cache.listed)
        _copy(initial.used, cache.used)
    first, second = _key(data, begin, size)
    slot = _mix(first, second) & (_SLOTS - 1)
    if size >= _LONG:
        second |= used[1]
        for k in range(size):
            cache.names[used[1] + k] = byte_at(data, begin + k)
        used[1] += size
    while cache.table[4 * slot + 1] != 0:
        slot = (slot + 1) & (_SLOTS - 1)
    count = len(ids)
    head: Number = np.int64(count)
    tail: Number = np.int64(0)
    if count <= 3:
        head |= np.int64(ids[0]) << 32
        if count > 1:
            tail = np.int64(ids[1])
        if count > 2:
            tail |= np.int64(ids[2]) << 32
    else:
        tail = used[2]
        for k in range(count):
            cache.listed[tail + k] = ids[k]
        used[2] += count
    cache.table[4 * slot], cache.table[4 * slot + 1] = first, second
    cache.table[4 * slot + 2], cache.table[4 * slot + 3] = head, tail
    used[0] += 1


@inlined
def _copy(source: Array, target: Array) -> None:
    for k in range(len(source)):
        target[k] = source[k]


@inlined
def _find(table: int, names: int, data: int, begin: int, size: int) -> int:
    """Return the address of the slot of a word, or of the empty slot where its search ends."""
    first, second = _key(data, begin, size)
    slot = _mix(first, second) & (_SLOTS - 1)
    while True:
        place = table + 32 * slot
        found = number_at(place, 8)
        if found == 0:
            return place
        if number_at(place, 0) == first:
            if found == second:
                return place
            if size >= _LONG and found >> 32 == second >> 32:
                name, same = names + (found & 0xFFFFFFFF), True
                for k in range(size):
                    same &= byte_at(name, k) == byte_at(data, begin + k)
                if same:
                    return place
        slot = (slot + 1) & (_SLOTS - 1)


@inlined
def _key(data: int, begin: int, size: int) -> tuple[Number, Number]:
    """Return the two numbers that stand for a word; the second is never 0."""
    if size < 8:
        return number_at(data, begin) & ((1 << 8 * size) - 1), size << 56
    if size < _LONG:
        rest = number_at(data, begin + 8) & ((1 << 8 * (size - 8)) - 1)
        return number_at(data, begin), rest | size << 56
    hashed = np.int64(size)
    for k in range(begin, begin + size - 8, 8):
        hashed = _mix(hashed, number_at(data, k))
    hashed = _mix(hashed, number_at(data, begin + size - 8))
    return hashed, np.int64(_LONG) << 56 | size << 32


@inlined
def _mix(a: int, b: int) -> Number:
    """Mix two numbers; the low bits depend on all of both."""
    mixed = (a ^ (b * _MIX_2)) * _MIX_1
    return mixed ^ (mixed >> 29 & 0x7FFFFFFFF)


@inlined
def _pair_value(pairs: int, slots: int, left: int, right: int) -> Number:
    """Return rank << 32 | id of a pair, _NO_MERGE if it has none."""
    pair = left << 32 | right
    slot = _mix(pair, 0) & (slots - 1)
    while True:
        found = number_at(pairs, 16 * slot)
        if found == pair:
            return number_at(pairs, 16 * slot + 8)
        if found == _NO_PAIR:
            return _NO_MERGE
        slot = (slot + 1) & (slots - 1)


@helper
def _merge(merges: Merges, data: int, begin: int, size: int, out: Array, pos: int) -> int:
    """Write the ids of a word to `out` from `pos`, and return their number."""
    if size > _HEAP_FROM:
        return _merge_long(merges, data, begin, size, out, pos)
    pairs, slots, count = merges.pairs.ctypes.data, len(merges.pairs) // 2, size
    symbols, values = np.empty(size, np.int64), np.empty(size, np.int64)
    for k in range(size):
        symbols[k] = merges.of_byte[byte_at(data, begin + k)]
    for k in range(size - 1):
        values[k] = _pair_value(pairs, slots, symbols[k], symbols[k + 1])
    while True:
        best, at = np.int64(_NO_MERGE), -1
        for k in range(count - 1):
            if values[k] < best:
                best, at = values[k], k
        if at < 0:
            break
        count -= 1
        symbols[at] = best & 0xFFFFFFFF
        for k in range(at + 1, count):
            symbols[k], values[k] = symbols[k + 1], values[k + 1]
        if at > 0:
            values[at - 1] = _pair_value(pairs, slots, symbols[at - 1], symbols[at])
        if at < count - 1:
            values[at] = _pair_value(pairs, slots, symbols[at], symbols[at + 1])
    for k in range(count):
        out[pos + k] = symbols[k]
    return count


@helper
def _merge_long(merges: Merges, data: int, begin: int, size: int, out: Array, pos: int) -> int:
    """Do what `_merge` does in n log n steps: possible merges wait in a heap of rank << 32 | place.

    A merge that came to nothing, as a neighbor was merged first, is found when its turn comes: the
    pair at its place has another rank by then.
    """
    pairs, slots = merges.pairs.ctypes.data, len(merges.pairs) // 2
    symbols, values = np.empty(size, np.int64), np.full(size, _NO_MERGE, np.int64)
    before, after = np.arange(-1, size - 1), np.arange(1, size + 1)
    for k in range(size):
        symbols[k] = merges.of_byte[byte_at(data, begin + k)]
    heap = [np.int64(_NO_MERGE)]
    for k in range(size - 1):
        values[k] = _pair_value(pairs, slots, symbols[k], symbols[k + 1])
        if values[k] != _NO_MERGE:
            heap.append(values[k] >> 32 << 32 | k)
    heapq.heapify(heap)
    while heap[0] != _NO_MERGE:
        item = int(heapq.heappop(heap))
        k = item & 0xFFFFFFFF
        if values[k] >> 32 != item >> 32:
            continue
        gone = after[k]
        symbols[k], after[k], values[gone] = values[k] & 0xFFFFFFFF, after[gone], _NO_MERGE
        values[k] = _NO_MERGE
        if after[k] < size:
            before[after[k]] = k
            values[k] = _pair_value(pairs, slots, symbols[k], symbols[after[k]])
            if values[k] != _NO_MERGE:
                heapq.heappush(heap, values[k] >> 32 << 32 | k)
        left = before[k]
        if left >= 0:
            values[left] = _pair_value(pairs, slots, symbols[left], symbols[k])
            if values[left] != _NO_MERGE:
                heapq.heappush(heap, values[left] >> 32 << 32 | left)
    k = count = 0
    while k < size:
        out[pos + count] = symbols[k]
        k, count = after[k], count + 1
    return count
