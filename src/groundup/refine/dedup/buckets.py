"""The documents that share a key with others, bucket by bucket. Reads the index of refined shards;
writes nothing.

A band is gone through in parts, ranges of its keys, so small that a part of all shards fits into
the memory given. A key that so many documents share that they do not is a part of its own, whose
rows lie in a mapped file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.lsh_index import NO_KEY, find_keys, read_range
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.row_file import Spool

# What an entry of a part costs at most while it is joined and sorted:
# tests/refine/test_refine_memory.py.
ENTRY_BYTES = 64
# Keys are hashes, so equal ranges are even to some thousandths: one that holds so much more than
# its share holds a crowd.
CROWD = 1.25


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
        precedence, ids: of all documents; the higher precedence (bytes, or more than that) comes
            first, then the smaller id.
        memory: bytes that a part may take.
        folder: where the rows of a crowd go.
        again: folders of more indexes, of texts that have changed since: in documents.npy the row
            of the corpus that each row of
            the index stands for.
    """

    corpus: Corpus
    precedence: Array
    ids: Array
    memory: int
    folder: Path
    again: Sequence[Path] = ()

    def buckets(
        self, band: int, among: Array | None = None, touching: Array | None = None
    ) -> Iterator[Buckets]:
        """Yield the buckets of a band with two members or more; a row may be a member twice where
        it is indexed again.

        Args:
            band: row of keys.npy.
            among: mask of the rows that count; None for all.
            touching: mask of rows of which a bucket must hold one; None for any bucket.
        """
        parts = max(1, -(-self.corpus.rows * ENTRY_BYTES // self.memory))
        bounds = [int(NO_KEY) * part // parts for part in range(parts + 1)]
        for low, high in pairwise(bounds):
            wanted = None if touching is None else self._touched(band, low, high, touching)
            yield from self._range(band, low, high, among, wanted)

    def _range(
        self, band: int, low: int, high: int, among: Array | None, wanted: Array | None
    ) -> Iterator[Buckets]:
        """Yield the buckets of a range of keys; with `wanted` only those of these keys."""
        keys, rows, whole = self._entries(band, low, high, among, wanted)
        if whole:
            yield from (self._shared(keys, rows),) if len(keys) else ()
        elif high - low == 1:
            yield from self._crowd(band, low, among, wanted)
        else:
            middle = int(np.partition(keys, len(keys) // 2)[len(keys) // 2])
            del keys, rows
            for bounds in ((low, middle), (middle, middle + 1), (middle + 1, high)):
                yield from self._range(band, *bounds, among, wanted)

    def _entries(
        self, band: int, low: int, high: int, among: Array | None, wanted: Array | None
    ) -> tuple[Array, Array, bool]:
        """Return keys and rows of a range of keys of all shards, and whether these are all: no more
        is read than memory may hold.
        """
        keys, rows, count = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
        for found, places in self._blocks(band, low, high, among, wanted):
            keys.append(found)
            rows.append(places)
            count += len(found)
            if count > 1 and count * ENTRY_BYTES > CROWD * self.memory:
                return np.concatenate(keys), rows[0], False
        return np.concatenate(keys), np.concatenate(rows), True

    def _blocks(
        self, band: int, low: int, high: int, among: Array | None, wanted: Array | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield keys and rows of each shard, then of what is indexed again, without the rows that
        do not count.
        """
        own = (
            None
            if wanted is None
            else wanted[slice(*np.searchsorted(wanted, np.array([low, high], np.uint64)))]
        )
        for (_, folder), start in zip(self.corpus.shards, self.corpus.starts, strict=False):
            for keys, rows in (
                read_range(folder, band, low, high)
                if own is None
                else [find_keys(folder, band, own)]
            ):
                yield _counting(keys, rows + start, among)
        for folder in self.again:
            places = np.load(folder / "documents.npy", mmap_mode="r").view(np.ndarray)
            for keys, rows in read_range(folder, band, low, high):
                yield _counting(keys, places[rows], among)

    def _crowd(
        self, band: int, key: int, among: Array | None, wanted: Array | None
    ) -> Iterator[Buckets]:
        """Yield the one bucket of a key that is too large for memory."""
        with Spool(self.folder / "crowd", np.dtype(np.int64)) as crowd:
            for _, rows in self._blocks(band, key, key + 1, among, wanted):
                crowd.append(rows)
            members, starts = crowd.view("r+"), np.array([0, crowd.rows])
            _put_in_order(members, starts, self.precedence, self.ids)
            yield Buckets(members, starts)

    def _touched(self, band: int, low: int, high: int, touching: Array) -> Array:
        """Return the keys of a range that rows of a mask have, ascending, each once."""
        own = [np.zeros(0, np.uint64)]
        for (_, folder), span in zip(self.corpus.shards, self.corpus.spans, strict=True):
            marked = touching[span]
            for keys, rows in read_range(folder, band, low, high) if marked.any() else ():
                own.append(np.unique(keys[marked[rows]]))
        return np.unique(np.concatenate(own))

    def _shared(self, keys: Array, rows: Array) -> Buckets:
        """Group entries by key, and leave out those that are alone with theirs."""
        # Not stable, but several times as fast; members are put in order below.
        order = np.argsort(keys)
        keys, rows = keys[order], rows[order]
        rows, starts = _gathered(keys, rows)
        _put_in_order(rows, starts, self.precedence, self.ids)
        return Buckets(rows, starts)


def _counting(keys: Array, rows: Array, among: Array | None) -> tuple[Array, Array]:
    if among is None:
        return keys, rows
    counts = among[rows]
    return keys[counts], rows[counts]


@kernel
def _gathered(keys: Array, rows: Array) -> tuple[Array, Array]:
    """Move the rows of each key (ascending) that has two or more to the front of `rows`; return
    these, and where each key begins.
    """
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
    """Sort each bucket by the total order, where it lies: a heap sort, which takes no room and no
    longer for a large bucket.
    """
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
