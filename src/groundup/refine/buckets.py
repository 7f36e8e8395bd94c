"""The documents that share a key with others, bucket by bucket. Reads the index of refined shards; writes nothing.

A band is gone through in parts, ranges of its keys, so small that a part of all shards fits into the memory given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundup.refine.arrays import Array
from groundup.refine.corpus import Corpus
from groundup.refine.index import NO_KEY, find_keys, read_range

# What an entry of a part costs at most while it is joined, sorted and ordered: tests/refine/test_refine_memory.py.
ENTRY_BYTES = 96


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
        again: folder of one more index, and the rows of the corpus that its rows stand for: texts that have changed since.
    """

    corpus: Corpus
    precedence: Array
    ids: Array
    memory: int
    again: tuple[Path, Array] | None = None

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
            keys, rows = self._entries(band, low, high, touching)
            if among is not None:
                keys, rows = keys[among[rows]], rows[among[rows]]
            if len(keys):
                yield self._shared(keys, rows)

    def _entries(self, band: int, low: int, high: int, touching: Array | None) -> tuple[Array, Array]:
        """Return keys and rows of a range of keys of all shards, shard by shard."""
        if touching is None:
            keys, rows = self._join([read_range(folder, band, low, high) for _, folder in self.corpus.shards])
            if self.again is None:
                return keys, rows
            more, places = read_range(self.again[0], band, low, high)
            return np.concatenate([keys, more]), np.concatenate([rows, self.again[1][places]])
        own = []
        for number, begin in enumerate(self.corpus.starts[:-1]):
            marked = touching[begin : self.corpus.starts[number + 1]]
            if marked.any():
                keys, rows = read_range(self.corpus.shards[number][1], band, low, high)
                own.append(keys[marked[rows]])
        wanted = np.unique(np.concatenate([np.zeros(0, np.uint64), *own]))
        return self._join([find_keys(folder, band, wanted) for _, folder in self.corpus.shards])

    def _join(self, parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        keys = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in parts)])
        rows = np.concatenate([np.zeros(0, np.int64), *(rows + start for (_, rows), start in zip(parts, self.corpus.starts, strict=False))])
        return keys, rows

    def _shared(self, keys: Array, rows: Array) -> Buckets:
        """Group entries by key, and leave out those that are alone with theirs."""
        # Not stable, but several times as fast; members are put in order below.
        order = np.argsort(keys)
        keys, rows = keys[order], rows[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        counts = np.diff(first, append=len(keys))
        rows, counts = rows[np.repeat(counts > 1, counts)], counts[counts > 1]
        bucket = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((self.ids[rows, 1], self.ids[rows, 0], -self.precedence[rows].astype(np.int64), bucket))
        return Buckets(rows[order], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
