"""Count the bytes of n-grams of words that a text repeats (Rae et al. 2021, appendix A.1.1).

    the cat sat and the cat slept and the cat sat

    n = 2    "the cat" 3 times, "cat sat" and "and the" twice       3 × 7 bytes
    n = 3    "the cat sat" and "and the cat" twice, equally long    2 × 11 bytes

From n = 5 on, all n-grams count that occurred before, not only the most frequent one.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.kernels import Number, helper, kernel
from groundup.refine.scan import table_size

_BASE = np.uint64(0x9E3779B97F4A7C15)


@kernel
def repeated_words(
    hashes: Array, starts: Array, ends: Array, first: Array, tokens_per_word: Array
) -> Array:
    """Return the bytes of repeated n-grams of words in each text, n = 2 … 10, shape (texts, 9).

    Up to n = 4 all copies of the most frequent one, then all that occurred before, no byte twice.

    An n-gram recurs only where both of its parts of n - 1 words recur. So each n looks only at what
    n - 1 left, a few percent of the text from n = 5 on.
    """
    out = np.zeros((len(first) - 1, 9), np.int64)
    longest = 0
    for text in range(len(first) - 1):
        longest = max(longest, first[text + 1] - first[text])
    prefix, keys = np.zeros(longest + 1, np.uint64), np.empty(longest, np.uint64)
    # Runs of words, by the first one; the group of each, which are equal runs; members of groups.
    runs, groups, members = np.empty((3, longest), np.int32)
    table = np.empty(table_size(longest), np.int32)
    for text in range(len(first) - 1):
        begin, count, word = first[text], first[text + 1] - first[text], tokens_per_word[text]
        _hash_prefixes(hashes[begin : begin + count], prefix)
        unit = np.uint64(1)
        for _ in range(word):
            unit *= _BASE
        left, power = max(count - 2 * word + 1, 0), unit
        for k in range(left):
            runs[k] = k
        for n in range(2, 11):
            power *= unit
            if n > 2:
                left = _continued(runs, left, word, count - n * word)
            left = _recurring(prefix, n * word, power, keys, table, runs[:left], groups, members)
            if not left:
                break
            spans = starts[begin:], ends[begin + n * word - 1 :]
            if n < 5:
                out[text, n - 2] = _most_frequent(runs[:left], groups, members, spans)
            else:
                out[text, n - 2] = _repeated(runs[:left], groups, members, spans, n * word)
    return out


@helper
def _hash_prefixes(hashes: Array, prefix: Array) -> None:
    """Write polynomial hashes of all prefixes: that of a run of words is a difference of two."""
    for k in range(len(hashes)):
        prefix[k + 1] = prefix[k] * _BASE + hashes[k]


@helper
def _recurring(
    prefix: Array,
    words: int,
    power: Number,
    keys: Array,
    table: Array,
    runs: Array,
    groups: Array,
    members: Array,
) -> int:
    """Move the runs of words that occur more than once to the front; return how many there are.

    `groups` receives the number of the group of each, and `members` the size of each group. `keys`
    (hashes by group) and `table` (of hashes, with numbers of groups from 1) are scratch space.
    """
    bits = 2
    while 1 << bits < 2 * len(runs):
        bits += 1
    table = table[: 1 << bits]
    table[:] = 0
    count = 0
    for k in range(len(runs)):
        key = prefix[runs[k] + words] - prefix[runs[k]] * power
        slot = np.int64(key >> np.uint64(64 - bits))
        while table[slot] and keys[table[slot] - 1] != key:
            slot = (slot + 1) & (len(table) - 1)
        if not table[slot]:
            keys[count], members[count] = key, 0
            count += 1
            table[slot] = count
        groups[k] = table[slot] - 1
        members[groups[k]] += 1
    left = 0
    for k in range(len(runs)):
        runs[left], groups[left] = runs[k], groups[k]
        left += members[groups[k]] > 1
    return left


@helper
def _continued(runs: Array, count: int, word: int, last: int) -> int:
    """Move the runs up to `last` to the front whose second word begins a run as well."""
    left = ahead = 0
    for k in range(count):
        begin = runs[k]
        while ahead < count and runs[ahead] < begin + word:
            ahead += 1
        if ahead == count or begin > last:
            break
        runs[left] = begin
        left += runs[ahead] == begin + word
    return left


@helper
def _most_frequent(runs: Array, groups: Array, members: Array, spans: tuple[Array, Array]) -> int:
    """Return the bytes of all copies of the most frequent run, or of the longest of several.

    The last copy of a run, whose punctuation may differ, gives its length.
    """
    starts, ends = spans
    most = total = 0
    for k in range(len(runs)):
        most = max(most, members[groups[k]])
    for k in range(len(runs) - 1, -1, -1):
        if members[groups[k]] == most:
            total = max(total, most * (ends[runs[k]] - starts[runs[k]]))
            members[groups[k]] = 0
    return total


@helper
def _repeated(
    runs: Array, groups: Array, members: Array, spans: tuple[Array, Array], words: int
) -> int:
    """Return the bytes of the runs that occurred before; they do not overlap."""
    starts, ends = spans
    total = end = 0
    for k in range(len(runs)):
        if runs[k] < end:
            continue
        # A group that was met has no members.
        if members[groups[k]] == 0:
            total += ends[runs[k]] - starts[runs[k]]
            end = runs[k] + words
        members[groups[k]] = 0
    return total
