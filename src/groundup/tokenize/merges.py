"""Learns the merges of byte pair encoding (BPE) from distinct words and their counts.

Sennrich et al. 2016 (arXiv 1508.07909): a word is a row of symbols, at first its bytes. The pair of
neighbors that occurs most often becomes a new symbol in all words, again and again:

    count   symbols
       10   h u g         h ug         hug        1st merge: (u, g) occurs 10 + 5 + 5 = 20 times
        5   p u g         p ug         p ug       2nd merge: (h, ug) occurs 10 + 5 = 15 times
        5   h u g s       h ug s       hug s

Each pair knows the words that it occurs in, so a merge visits only those. It changes the counts of
the pairs beside it:

    l a b r   →   l X r       (l, a) and (b, r) lose the count of the word, (l, X) and (X, r) get it

A queue holds the pairs by count. Two facts keep it small and simple:

* A pair comes into being in the merge that makes the later one of its symbols. From then on its
  count only falls. So an entry of the queue is never too low; one that is too high is put back with
  the true count. A pair that begins with a count below the least one can be forgotten at once.
* A symbol is made by one pair only, so there are never two ids for the same bytes: what becomes of
  a row of bytes does not depend on its surroundings, as long as no merge crosses its ends.

Of two pairs with equal counts the one with the smaller ids comes first. The merges are those that
the library `tokenizers` learns, and do not depend on the order of the words.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.artifacts.jit import helper, inlined, kernel

# Words lie one after the other in one array: number of symbols, count (low 31 bits, the rest), then
# the symbols. So a visit of a word costs one cache miss.
_HEADER = 3
_FREE = -1
# Pairs that the first table has room for; a power of two.
_TABLE = 1 << 16

# A scalar inside a kernel.
Number: TypeAlias = Any

# All kernels are in this file: numba compiles a kernel again when its file changes, but not when it
# calls code of another file that changed. Those of a few instructions are inlined: passing arrays
# would cost more.


class _Pairs(NamedTuple):
    """A hash table (open addressing), and a queue of its pairs. A pair is left << 32 | right."""

    keys: Array  # the pair, or _FREE
    counts: Array
    begins: Array  # where the list of the pair's words begins in `places`
    sizes: Array  # length of this list
    # A binary heap of (count, pair) from row 1 on: row k comes before rows 2k and 2k + 1. Row 0 is
    # the number of these rows, and the number of keys.
    queue: Array


class _Side(NamedTuple):
    """What stands on one side of the merged pair in the words of its list, by id of the symbol."""

    shift: int  # where the symbol is in the key of a pair: 32 on the left side, 0 on the right
    sums: Array  # counts of these words; 0 for a symbol that does not stand there
    ends: Array  # number of these words, later the end of their list in `places`
    last: Array  # the last of these words
    symbols: Array  # those with a sum
    notes: Array  # [n, 2]: symbol, word
    used: Array  # how many `symbols` and `notes` are in use


def learn_merges(words: Array, first: int, vocab_size: int, least: int) -> Array:
    """Return merges in order as rows of left id and right id (int32 [n, 2]).

    `words` is what `pack_words` returns, and is used up. Its ids are below `first`, the id that the
    first merge makes. Merging ends with `vocab_size` ids, or when no pair occurs `least` times.
    """
    merges = np.empty((max(0, vocab_size - first), 2), np.int32)
    return merges[: _learn(words, first, max(1, least), merges)]


def pack_words(data: Array, ends: Array, counts: Array, ids: Array) -> Array:
    """Return words as `learn_merges` takes them (int32).

    Word i is data[ends[i - 1] : ends[i]] and occurs counts[i] times. Byte b becomes ids[b]. Words
    of one byte have no pairs and are left out, as are those that occur 0 times.
    """
    sizes = np.diff(ends, prepend=0)
    chosen = np.flatnonzero((sizes > 1) & (counts > 0))
    # Words that begin alike share pairs. Side by side they share cache lines, too.
    chosen = chosen[np.argsort(_prefixes(data, ends, chosen))]
    size = int(sizes[chosen].sum()) + _HEADER * len(chosen)
    return cast(Array, _pack(data, ends, counts, ids, chosen, size))


@kernel
def _prefixes(data: Array, ends: Array, chosen: Array) -> Array:
    """Return the first 8 bytes of words as numbers that sort as they do (uint64)."""
    prefixes = np.zeros(len(chosen), np.uint64)
    for k in range(len(chosen)):
        word = chosen[k]
        begin = ends[word - 1] if word else 0
        for i in range(8):
            byte = data[begin + i] if begin + i < ends[word] else 0
            prefixes[k] = prefixes[k] << np.uint64(8) | np.uint64(byte)
    return prefixes


@kernel
def _pack(data: Array, ends: Array, counts: Array, ids: Array, chosen: Array, size: int) -> Array:
    words, pos = np.empty(size, np.int32), 0
    for word in chosen:
        begin = ends[word - 1] if word else 0
        words[pos] = ends[word] - begin
        words[pos + 1], words[pos + 2] = counts[word] & 0x7FFFFFFF, counts[word] >> 31
        pos += _HEADER
        for k in range(begin, ends[word]):
            words[pos] = ids[data[k]]
            pos += 1
    return words


@kernel
def _learn(words: Array, first: int, least: int, merges: Array) -> int:
    """Write `merges` and return how many there are."""
    neighbors = _count_neighbors(words)
    # A merge of two symbols takes one pair of neighbors away and adds its word to two lists.
    # Memory that is never written to is not taken from the machine.
    places = np.empty(3 * neighbors, np.int32)
    pairs, used = _first_pairs(words, first, least, places)
    left = _new_side(32, first + len(merges), neighbors)
    right = _new_side(0, first + len(merges), neighbors)
    for k in range(len(merges)):
        pair = _most_frequent(pairs, least)
        if pair == _FREE:
            return k
        new, slot = first + k, _slot(pairs.keys, pair)
        begin, end = pairs.begins[slot], pairs.begins[slot] + pairs.sizes[slot]
        merges[k, 0], merges[k, 1] = pair >> 32, pair & 0xFFFFFFFF
        _merge(words, places[begin:end], pair, new, left, right)
        pairs = _with_room(pairs, left.used[0] + right.used[0], least)
        # The right side first: where the pair stands twice in a row, the left side takes back what
        # the right side added.
        _count_pairs(pairs, right, new, pair & 0xFFFFFFFF)
        _count_pairs(pairs, left, new, pair >> 32)
        used = _list_words(pairs, right, new, least, places, used)
        used = _list_words(pairs, left, new, least, places, used)
    return len(merges)


# Words


@helper
def _count_neighbors(words: Array) -> int:
    count, word = 0, 0
    while word < len(words):
        count += words[word] - 1
        word += _HEADER + words[word]
    return count


@helper
def _merge(words: Array, list_: Array, pair: int, new: int, left: _Side, right: _Side) -> None:
    """Merge a pair in the words of its list, and note what stands beside it."""
    for k in range(len(list_)):
        word = list_[k]
        count = np.int64(words[word + 1]) | np.int64(words[word + 2]) << 31
        begin = word + _HEADER
        read, write, end = begin, begin, begin + words[word]
        while read < end:
            symbol = words[read]
            read += 1
            if read < end and symbol == pair >> 32 and words[read] == pair & 0xFFFFFFFF:
                symbol = new
                read += 1
                if write > begin:
                    _note(left, words[write - 1], word, count)
                if read < end:
                    _note(right, words[read], word, count)
            words[write] = symbol
            write += 1
        words[word] = write - begin


@helper
def _first_pairs(words: Array, first: int, least: int, places: Array) -> tuple[_Pairs, int]:
    """Return the pairs of bytes, and how many `places` their lists take."""
    counts = np.zeros(first * first, np.int64)
    ends = np.zeros(first * first + 1, np.int64)
    # In the first round the lists are measured, in the second they are written.
    for writing in range(2):
        last = np.full(first * first, _FREE, np.int32)
        word = 0
        while word < len(words):
            count = np.int64(words[word + 1]) | np.int64(words[word + 2]) << 31
            stop = word + _HEADER + words[word]
            for k in range(word + _HEADER, stop - 1):
                pair = words[k] * first + words[k + 1]
                if writing == 0:
                    counts[pair] += count
                if last[pair] != word:
                    last[pair] = word
                    if writing == 1:
                        places[ends[pair]] = word
                    ends[pair + 1 - writing] += 1
            word = stop
        if writing == 0:
            for pair in range(first * first):
                ends[pair + 1] += ends[pair]
            begins = ends.copy()
    pairs = _new_pairs(np.int64(_TABLE))
    for k in range(first * first):
        if counts[k] >= least:
            pairs = _with_room(pairs, np.int64(1), least)
            slot = _add(pairs, np.int64(k // first) << 32 | k % first, counts[k])
            pairs.begins[slot], pairs.sizes[slot] = begins[k], ends[k] - begins[k]
            _push(pairs.queue, counts[k], pairs.keys[slot])
    return pairs, begins[-1]


# Sides


@helper
def _new_side(shift: int, ids: int, neighbors: int) -> _Side:
    sums, ends = np.zeros(ids, np.int64), np.zeros(ids, np.int64)
    last, symbols = np.full(ids, _FREE, np.int32), np.empty(ids, np.int32)
    notes = np.empty((neighbors, 2), np.int32)
    return _Side(shift, sums, ends, last, symbols, notes, np.zeros(2, np.int64))


@inlined
def _note(side: _Side, symbol: int, word: int, count: int) -> None:
    """Note that a symbol stands on this side in a word."""
    if side.sums[symbol] == 0:
        side.symbols[side.used[0]] = symbol
        side.used[0] += 1
    side.sums[symbol] += count
    if side.last[symbol] != word:
        side.last[symbol] = word
        side.ends[symbol] += 1
        side.notes[side.used[1], 0], side.notes[side.used[1], 1] = symbol, word
        side.used[1] += 1


@inlined
def _key(side: _Side, symbol: int, other: int) -> Number:
    """Return the pair of a symbol on this side and the symbol next to it."""
    return np.int64(symbol) << side.shift | np.int64(other) << (32 - side.shift)


@helper
def _count_pairs(pairs: _Pairs, side: _Side, new: int, old: int) -> None:
    """Take the counts of the symbols from their pairs with `old` to their pairs with `new`."""
    for k in range(side.used[0]):
        symbol = side.symbols[k]
        _add(pairs, _key(side, symbol, new), side.sums[symbol])
        slot = _slot(pairs.keys, _key(side, symbol, old))
        if pairs.keys[slot] != _FREE:
            pairs.counts[slot] -= side.sums[symbol]


@helper
def _list_words(pairs: _Pairs, side: _Side, new: int, least: int, places: Array, used: int) -> int:
    """Write the lists of the new pairs, put these in the queue, and clear the side.

    Returns how many `places` are used.
    """
    for k in range(side.used[0]):
        symbol = side.symbols[k]
        slot = _slot(pairs.keys, _key(side, symbol, new))
        size, side.ends[symbol] = side.ends[symbol], _FREE
        if pairs.counts[slot] >= least:
            pairs.begins[slot], pairs.sizes[slot] = used, size
            _push(pairs.queue, pairs.counts[slot], pairs.keys[slot])
            side.ends[symbol] = used
            used += size
    for k in range(side.used[1]):
        symbol = side.notes[k, 0]
        if side.ends[symbol] != _FREE:
            places[side.ends[symbol]] = side.notes[k, 1]
            side.ends[symbol] += 1
    for k in range(side.used[0]):
        symbol = side.symbols[k]
        side.sums[symbol], side.ends[symbol], side.last[symbol] = 0, 0, _FREE
    side.used[:] = 0
    return used


# Pairs


@helper
def _new_pairs(size: int) -> _Pairs:
    keys, queue = np.full(size, _FREE, np.int64), np.zeros((size // 2 + 1, 2), np.int64)
    counts, begins = np.zeros(size, np.int64), np.empty(size, np.int64)
    return _Pairs(keys, counts, begins, np.empty(size, np.int64), queue)


@inlined
def _slot(keys: Array, pair: int) -> Number:
    """Return where a pair is in the hash table, or belongs."""
    mask = len(keys) - 1
    hashed = np.uint64(pair) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(hashed >> np.uint64(32)) & mask
    while keys[slot] != pair and keys[slot] != _FREE:
        slot = (slot + 1) & mask
    return slot


@inlined
def _add(pairs: _Pairs, pair: int, count: int) -> int:
    """Add to the count of a pair, which may be new; return where it is."""
    slot = _slot(pairs.keys, pair)
    if pairs.keys[slot] == _FREE:
        pairs.keys[slot] = pair
        pairs.queue[0, 1] += 1
    pairs.counts[slot] += count
    return slot


@helper
def _with_room(pairs: _Pairs, more: int, least: int) -> _Pairs:
    """Return pairs with room for `more`; those that are below `least` may be gone."""
    size = len(pairs.keys)
    if 2 * (pairs.queue[0, 1] + more) <= size:
        return pairs
    for slot in range(len(pairs.counts)):
        more += pairs.counts[slot] >= least
    while size < 3 * more:
        size *= 2
    larger = _new_pairs(size)
    for k in range(1, pairs.queue[0, 0] + 1):
        count, pair = pairs.queue[k, 0], pairs.queue[k, 1]
        old = _slot(pairs.keys, pair)
        if pairs.counts[old] >= least:
            new = _add(larger, pair, pairs.counts[old])
            larger.begins[new], larger.sizes[new] = pairs.begins[old], pairs.sizes[old]
            _push(larger.queue, count, pair)
    return larger


@inlined
def _comes_before(queue: Array, row: int, count: int, pair: int) -> bool:
    return queue[row, 0] > count or (queue[row, 0] == count and queue[row, 1] < pair)


@inlined
def _put(queue: Array, row: int, count: int, pair: int) -> None:
    queue[row, 0], queue[row, 1] = count, pair


@helper
def _push(queue: Array, count: int, pair: int) -> None:
    queue[0, 0] += 1
    row = queue[0, 0]
    while row > 1 and not _comes_before(queue, row // 2, count, pair):
        _put(queue, row, queue[row // 2, 0], queue[row // 2, 1])
        row //= 2
    _put(queue, row, count, pair)


@helper
def _replace_first(queue: Array, count: int, pair: int) -> None:
    """Put an entry in the place of the first, and move it to where it belongs."""
    row, rows = 1, queue[0, 0]
    while 2 * row <= rows:
        child = 2 * row
        if child < rows and _comes_before(queue, child + 1, queue[child, 0], queue[child, 1]):
            child += 1
        if not _comes_before(queue, child, count, pair):
            break
        _put(queue, row, queue[child, 0], queue[child, 1])
        row = child
    _put(queue, row, count, pair)


@helper
def _most_frequent(pairs: _Pairs, least: int) -> int:
    """Take the next pair out of the queue; return _FREE if none occurs `least` times."""
    queue = pairs.queue
    while queue[0, 0] > 0:
        count, pair = queue[1, 0], queue[1, 1]
        slot = _slot(pairs.keys, pair)
        now = pairs.counts[slot]
        if least <= now < count:
            _replace_first(queue, now, pair)
            continue
        last = queue[0, 0]
        queue[0, 0] -= 1
        _replace_first(queue, queue[last, 0], queue[last, 1])
        if now >= least:
            # So that its place is free when the table grows.
            pairs.counts[slot] = 0
            return pair
    return _FREE
