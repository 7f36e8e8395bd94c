"""All pairs of documents that are alike, exactly and without hashing documents: the truth that
tools are held against.

`similar_pairs` is a set-similarity join with prefix filter (Chaudhuri, Ganti, Kaushik 2006;
Bayardo, Ma, Srikant 2007): two sets that are alike have one of the rarest members of each in
common.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.minhash import jaccard
from groundup.refine.kernels import kernel

# Pairs (n, 2), the smaller number first and ascending, and the similarity of each.
Pairs = tuple[Array, Array]


def similar_pairs(sets: Array, offsets: Array, threshold: float) -> Pairs:
    """Return all pairs of sets that reach a Jaccard similarity; sets as `shingle_sets` gives
    them.
    """
    _, member, counts = np.unique(sets, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rarest = rank[member]
    lengths = np.diff(offsets)
    for begin, end in pairwise(offsets.tolist()):
        rarest[begin:end].sort()
    # |A and B| >= t |A| for two sets at t, so one of the first |A| - t |A| + 1 members of A is in
    # B, and the other way round.
    prefixes = np.minimum(
        lengths - np.ceil(threshold * lengths - 1e-9).astype(np.int64) + 1, lengths
    )
    inside = np.arange(len(sets)) - np.repeat(offsets[:-1], lengths) < np.repeat(prefixes, lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)[inside]
    order = np.argsort(rarest[inside], kind="stable")
    starts = np.searchsorted(rarest[inside][order], np.arange(len(counts) + 1))
    return _sorted(*_join(sets, rarest, offsets, prefixes, owner[order], starts, threshold))


def every_pair(sets: Array, offsets: Array, rows: Array, threshold: float) -> Pairs:
    """Return the same among some rows by comparing each with each."""
    return _sorted(*_compare(sets, offsets, np.sort(rows), threshold))


def similarities(sets: Array, offsets: Array, pairs: Array) -> Array:
    """Return the exact Jaccard similarity of pairs, shape (n, 2)."""
    return _similarities(sets, offsets, pairs.reshape(-1, 2).astype(np.int64))


@kernel
def _join(
    sets: Array,
    rarest: Array,
    offsets: Array,
    prefixes: Array,
    owners: Array,
    starts: Array,
    threshold: float,
) -> tuple[Array, Array]:
    pairs, found, count = np.empty((1024, 2), np.int64), np.empty(1024, np.float64), 0
    last = np.full(len(prefixes), -1, np.int64)
    for row in range(len(prefixes)):
        own = sets[offsets[row] : offsets[row + 1]]
        for k in range(offsets[row], offsets[row] + prefixes[row]):
            for at in range(starts[rarest[k]], starts[rarest[k] + 1]):
                other = owners[at]
                if other >= row or last[other] == row:
                    continue
                last[other] = row
                value = jaccard(own, sets[offsets[other] : offsets[other + 1]], threshold)
                if value >= threshold:
                    if count == len(found):
                        pairs, found = (
                            np.concatenate((pairs, pairs)),
                            np.concatenate((found, found)),
                        )
                    pairs[count, 0], pairs[count, 1], found[count] = other, row, value
                    count += 1
    return pairs[:count], found[:count]


@kernel
def _compare(sets: Array, offsets: Array, rows: Array, threshold: float) -> tuple[Array, Array]:
    pairs, found, count = np.empty((1024, 2), np.int64), np.empty(1024, np.float64), 0
    for i in range(len(rows)):
        own = sets[offsets[rows[i]] : offsets[rows[i] + 1]]
        for j in range(i + 1, len(rows)):
            value = jaccard(own, sets[offsets[rows[j]] : offsets[rows[j] + 1]], threshold)
            if value >= threshold:
                if count == len(found):
                    pairs, found = np.concatenate((pairs, pairs)), np.concatenate((found, found))
                pairs[count, 0], pairs[count, 1], found[count] = rows[i], rows[j], value
                count += 1
    return pairs[:count], found[:count]


@kernel
def _similarities(sets: Array, offsets: Array, pairs: Array) -> Array:
    out = np.empty(len(pairs), np.float64)
    for k in range(len(pairs)):
        a, b = pairs[k]
        out[k] = jaccard(sets[offsets[a] : offsets[a + 1]], sets[offsets[b] : offsets[b + 1]], 0.0)
    return out


def _sorted(pairs: Array, found: Array) -> Pairs:
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], found[order]
