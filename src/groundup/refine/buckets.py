"""The documents that share a key with others, bucket by bucket. Reads the index of refined shards; writes nothing.

A band is gone through in parts, ranges of its keys, so small that a part of all shards fits into the memory given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundup.refine.arrays import Array, kernel
from groundup.refine.corpus import Corpus
from groundup.refine.index import NO_KEY, find_keys, read_range

# What an entry of a part costs at most while it is joined and sorted: tests/refine/test_refine_memory.py.
ENTRY_BYTES = 64


@dataclass(frozen=True)
class Buckets:
    """Rows that share a key: those of bucket b are rows[starts[b] : starts[b + 1]], in total order.

    Attributes:
        rows: of the corpus (int64).
        starts: int64, one longer than there are buckets.
    """

    rows: Array
    starts: Array


@dataclass(frozen=True)
class Shelf:
    """What is needed to find buckets and to put them in order.

    Attributes:
        corpus: the refined shards.
        precedence, ids: of all documents; the higher precedence (bytes, or more than that) comes first, then the smaller id.
        memory: bytes that a part may take.
        again: folders of more indexes, of texts that have changed since: in documents.npy the row of the corpus that each row of
            the index stands for.
    """

    corpus: Corpus
    precedence: Array
    ids: Array
    memory: int
    again: Sequence[Path] = ()

    def buckets(self, band: int, among: Array | None = None, touching: Array | None = None) -> Iterator[Buckets]:
        """Yield the buckets of a band with two members or more; a row may be a member twice where it is indexed again.

        Args:
            band: row of keys.npy.
            among: mask of the rows that count; None for all.
            touching: mask of rows of which a bucket must hold one; None for any bucket.
        """
        parts = max(1, -(-self.corpus.rows * ENTRY_BYTES // self.memory))
        bounds = [int(NO_KEY) * part // parts for part in range(parts + 1)]
        for low, high in pairwise(bounds):
            keys, rows = self._entries(band, low, high, among, touching)
            if len(keys):
                yield self._shared(keys, rows)

    def _entries(self, band: int, low: int, high: int, among: Array | None, touching: Array | None) -> tuple[Array, Array]:
        """Return keys and rows of a range of keys of all shards, shard by shard."""
        wanted = None if touching is None else self._touched(band, low, high, touching)
        keys, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for found, places in self._parts(band, low, high, wanted):
            counts = slice(None) if among is None else among[places]
            keys.append(found[counts])
            rows.append(places[counts])
        return np.concatenate(keys), np.concatenate(rows)

    def _parts(self, band: int, low: int, high: int, wanted: Array | None) -> Iterator[tuple[Array, Array]]:
        """Yield keys and rows of each shard, then of what is indexed again; with `wanted` only those of these keys."""
        for (_, folder), start in zip(self.corpus.shards, self.corpus.starts, strict=False):
            keys, rows = read_range(folder, band, low, high) if wanted is None else find_keys(folder, band, wanted)
            yield keys, rows + start
        for folder in self.again:
            keys, rows = read_range(folder, band, low, high)
            yield keys, np.load(folder / "documents.npy", mmap_mode="r").view(np.ndarray)[rows]

    def _touched(self, band: int, low: int, high: int, touching: Array) -> Array:
        """Return the keys of a range that rows of a mask have, ascending, each once."""
        own = [np.zeros(0, np.uint64)]
        for (_, folder), span in zip(self.corpus.shards, self.corpus.spans, strict=True):
            marked = touching[span]
            if marked.any():
                keys, rows = read_range(folder, band, low, high)
                own.append(keys[marked[rows]])
        return np.unique(np.concatenate(own))

    def _shared(self, keys: Array, rows: Array) -> Buckets:
        """Group entries by key, and leave out those that are alone with theirs."""
        # Not stable, but several times as fast; members are put in order below.
        order = np.argsort(keys)
        keys, rows = keys[order], rows[order]
        rows, starts = _gathered(keys, rows)
        _put_in_order(rows, starts, self.precedence, self.ids)
        return Buckets(rows, starts)


@kernel
def _gathered(keys: Array, rows: Array) -> tuple[Array, Array]:
    """Move the rows of each key (ascending) that has two or more to the front of `rows`; return these, and where each key begins."""
    starts, buckets, count, begin = np.zeros(len(keys) // 2 + 1, np.int64), 0, 0, 0
    while begin < len(keys):
        end = begin + 1
        while end < len(keys) and keys[end] == keys[begin]:
            end += 1
        if end - begin > 1:
            for k in range(begin, end):
                rows[count] = rows[k]
                count += 1
            buckets += 1
            starts[buckets] = count
        begin = end
    return rows[:count], starts[: buckets + 1]


@kernel
def _put_in_order(rows: Array, starts: Array, precedence: Array, ids: Array) -> None:
    """Sort each bucket by the total order, where it lies: a heap sort, which takes no room and no longer for a large bucket."""
    for bucket in range(len(starts) - 1):
        members = rows[starts[bucket] : starts[bucket + 1]]
        for top in range(len(members) // 2 - 1, -1, -1):
            _sift(members, top, len(members), precedence, ids)
        for end in range(len(members) - 1, 0, -1):
            members[0], members[end] = members[end], members[0]
            _sift(members, 0, end, precedence, ids)


@kernel
def _sift(heap: Array, at: int, end: int, precedence: Array, ids: Array) -> None:
    """Let an entry sink in a heap of `end` entries, whose top is the last of them in total order."""
    while 2 * at + 1 < end:
        child = 2 * at + 1
        if child + 1 < end and before(heap[child], heap[child + 1], precedence, ids):
            child += 1
        if not before(heap[at], heap[child], precedence, ids):
            return
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@kernel
def before(a: int, b: int, precedence: Array, ids: Array) -> bool:
    """Whether one document comes before another in the total order."""
    if precedence[a] != precedence[b]:
        return bool(precedence[a] > precedence[b])
    if ids[a, 0] != ids[b, 0]:
        return bool(ids[a, 0] < ids[b, 0])
    return bool(ids[a, 1] < ids[b, 1])
