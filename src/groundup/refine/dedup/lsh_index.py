"""The LSH index: sorted keys of every shard, and the buckets of documents that share a key.

A refined shard holds, for `WIDTH` bands and n documents:

    keys.npy    uint64 [WIDTH, n]   the keys of each band, ascending
    rows.npy    uint32 [WIDTH, n]   the row of the shard that each key belongs to

Sorted, the files of all shards are one index that is partitioned by key: a range of keys is a slice
of each file, and a few keys are found by bisection. So any part of the index fits in memory, and
comparing a new shard with all others costs only its own keys.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.dedup.exact import folded_hashes
from groundup.refine.dedup.minhash import (
    BAND_ROWS,
    BANDS,
    EMPTY,
    Words,
    band_keys,
    sign_words,
    signatures,
)
from groundup.refine.kernels import helper, kernel
from groundup.refine.out_of_core import (
    BLOCK_ROWS,
    DocumentTable,
    RowFile,
    create_array,
    first_of_runs,
    map_array,
)

# 37 bands of 3 find a pair of Jaccard 0.5 with probability 1 - (1 - 0.5^3)^37 = 0.993, and of 0.6
# with 0.9999; 28 bands of 4 would give 0.836 and 0.978. The price is more candidates: a pair of 0.2
# is verified with probability 0.26.
CLUSTER_BANDS, CLUSTER_BAND_ROWS = 37, 3

# Bands of the index: one for equal texts, those for near duplicates, those for clusters.
EXACT = 0
NEAR = range(1, 1 + BANDS)
CLUSTER = range(NEAR.stop, NEAR.stop + CLUSTER_BANDS)
WIDTH = CLUSTER.stop

# The beginning of a `.npy` file, whose last field is the length of the header behind it.
_HEADER_START = struct.Struct("<8xH")
# The key of texts without words, which never share a bucket. All other keys are smaller.
NO_KEY = ~np.uint64(0)
# Memory for one entry while a part is joined and sorted: see tests/refine/test_refine_memory.py.
ENTRY_BYTES = 64
# Keys are hashes, so equal ranges hold equally many to a few thousandths. A range that exceeds its
# share by this factor holds a crowd: many documents with one key.
CROWD = 1.25


def document_keys(texts: Texts, words: Words | None = None) -> tuple[Array, Array]:
    """Return the keys of texts, shape (n, WIDTH), uint64, and their hashes, shape (n, 16), uint8.

    `words` are those of the texts, where they have been found before. The hash is of a text with
    its white space folded: equal texts have equal hashes.
    """
    hashes = folded_hashes(texts)
    signed = signatures(texts) if words is None else sign_words(*words)
    columns = np.ascontiguousarray(signed.T)
    keys = np.empty((WIDTH, len(hashes)), np.uint64)
    keys[EXACT] = hashes.view(np.uint64)[:, 0]
    for bands, height in ((NEAR, BAND_ROWS), (CLUSTER, CLUSTER_BAND_ROWS)):
        for k, band in enumerate(bands):
            first = k * height
            keys[band] = band_keys(columns[first : first + height], first)
    np.minimum(keys, NO_KEY - np.uint64(1), out=keys)
    keys[NEAR.start :, (columns[:2] == EMPTY).all(axis=0)] = NO_KEY
    return keys.T, hashes


def write_index(folder: Path, keys: RowFile) -> None:
    """Write keys.npy and rows.npy from the keys of documents, shape (n, WIDTH)."""
    keys.save(folder / "keys.npy", transpose=True)
    rows = create_array(folder / "rows.npy", np.uint32, (WIDTH, keys.rows))
    if keys.rows == 0:
        return
    ordered = np.lib.format.open_memmap(folder / "keys.npy", "r+")
    for band in range(WIDTH):
        ordered[band], rows[band] = sort_keys(np.array(ordered[band]))


@kernel
def sort_keys(keys: Array) -> tuple[Array, Array]:
    """Return keys (uint64) in order, and the rows (uint32) that they had; `keys` is overwritten.

    The order is stable. Keys are hashes: their upper bits tell nearly all of them apart. So one to
    three passes of a radix sort over the upper bits, the lowest digit first, leave little to move.
    """
    passes = 1
    while passes < 3 and len(keys) >> (11 * passes) > 4:
        passes += 1
    rows, other_rows = np.empty((2, len(keys)), np.uint32)
    for k in range(len(keys)):
        rows[k] = k
    other_keys = np.empty(len(keys), np.uint64)
    for digits in range(passes, 0, -1):
        shift = np.uint64(64 - 11 * digits)
        starts = np.zeros((1 << 11) + 1, np.int64)
        for key in keys:
            starts[(key >> shift & np.uint64(0x7FF)) + np.uint64(1)] += 1
        for k in range(1, len(starts)):
            starts[k] += starts[k - 1]
        for k in range(len(keys)):
            digit = keys[k] >> shift & np.uint64(0x7FF)
            place = starts[digit]
            other_keys[place], other_rows[place] = keys[k], rows[k]
            starts[digit] = place + 1
        keys, other_keys = other_keys, keys
        rows, other_rows = other_rows, rows
    for k in range(1, len(keys)):
        key, row, place = keys[k], rows[k], k
        while place > 0 and keys[place - 1] > key:
            keys[place], rows[place] = keys[place - 1], rows[place - 1]
            place -= 1
        keys[place], rows[place] = key, row
    return keys, rows


def _read(
    folder: Path, band: int, low: int, high: int, selected: Array | None = None
) -> Iterator[tuple[Array, Array]]:
    """Yield keys and rows of one band of an index with low <= key < high, ascending, in blocks.

    With `selected` keys (ascending, unique), only entries of these are yielded.
    """
    keys = _band(folder / "keys.npy", band, np.uint64)
    rows = _band(folder / "rows.npy", band, np.uint32)
    bounds = np.array([low, high], np.uint64)
    if selected is None:
        begin, end = np.searchsorted(keys, bounds).tolist()
        for pos in range(begin, end, BLOCK_ROWS):
            # Copies, so no file stays mapped.
            block = slice(pos, min(pos + BLOCK_ROWS, end))
            yield np.array(keys[block]), np.array(rows[block])
    else:
        selected = selected[slice(*np.searchsorted(selected, bounds))]
        begins = np.searchsorted(keys, selected)
        counts = np.searchsorted(keys, selected, side="right") - begins
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(selected, counts), np.array(rows[np.repeat(begins, counts) + within])


def _band(path: Path, band: int, dtype: type[np.generic]) -> Array:
    """Map one band of an array. Mapping all of them would count as address space."""
    with path.open("rb") as file:
        # Parsing the header, a Python dictionary, takes longer than mapping: it is skipped.
        offset = _HEADER_START.size + _HEADER_START.unpack(file.read(_HEADER_START.size))[0]
        width = np.dtype(dtype).itemsize
        rows = (path.stat().st_size - offset) // (WIDTH * width)
        if rows == 0:
            return np.zeros(0, dtype)
        first = offset + band * rows * width
        return np.memmap(file, dtype, "r", first, (rows,)).view(np.ndarray)


def key_ranges(documents: int, memory: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of ranges of keys, of which a band of one takes about `memory` bytes."""
    parts = max(1, -(-documents * ENTRY_BYTES // memory))
    yield from pairwise([int(NO_KEY) * part // parts for part in range(parts + 1)])


@dataclass(frozen=True)
class LshIndex:
    """The index of all shards, read one part at a time.

    Total order of documents: the higher precedence first, then the smaller id.
    """

    table: DocumentTable  # the refined shards
    precedence: Array  # of all documents, such as their lengths
    ids: Array  # of all documents
    memory: int  # bytes that a part may take
    folder: Path  # for temporary files
    # Folders of additional indexes of texts that changed since, by shard; their documents.npy holds
    # the row of the shard for each row of the index.
    updates: Mapping[str, Path] = field(default_factory=dict)
    # Artifacts of `write_buckets` that hold all buckets; without them the index is read.
    written: Sequence[Path] = ()

    def buckets(
        self, band: int, among: Array | None = None, touching: Array | None = None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield the buckets of a band with at least two members; updated rows may occur twice.

        Of the rows in the mask `among`, and only buckets with one of the mask `touching`; None is
        all. Yields starts and rows (int64): bucket b is rows[starts[b] : starts[b + 1]], in total
        order.
        """
        if self.written:
            yield from self._written(band, among, touching)
            return
        for low, high in key_ranges(self.table.rows, self.memory):
            selected = None
            if touching is not None:
                keys = [np.zeros(0, np.uint64)]
                for (_, folder), span in zip(self.table.shards, self.table.spans, strict=True):
                    if touching[span].any():
                        for block, rows in _read(folder, band, low, high):
                            keys.append(np.unique(block[touching[span][rows]]))
                selected = np.unique(np.concatenate(keys))
            for starts, rows in self.unsorted(band, low, high, among, selected):
                sort_buckets(rows, starts, self.precedence, self.ids)
                yield starts, rows

    def _written(
        self, band: int, among: Array | None, touching: Array | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield the buckets of a band that other tasks have written, without other rows."""
        for folder in self.written:
            if not (folder / f"{band:02}.rows.npy").exists():
                continue
            starts, rows = (
                np.load(folder / f"{band:02}.{name}.npy") for name in ("starts", "rows")
            )
            count = len(starts) - 1
            bucket = np.repeat(np.arange(count), np.diff(starts))
            included = np.ones(len(rows), np.bool_) if among is None else among[rows]
            sizes = np.bincount(bucket[included], minlength=count)
            used = sizes > 1
            if touching is not None:
                used &= np.bincount(bucket[touching[rows]], minlength=count) > 0
            if used.any():
                starts = np.concatenate([[0], np.cumsum(sizes[used])])
                yield starts, rows[included & used[bucket]]

    def unsorted(
        self,
        band: int,
        low: int,
        high: int,
        among: Array | None = None,
        selected: Array | None = None,
    ) -> Iterator[tuple[Array, Array]]:
        """Yield the buckets of a range of keys; split the range where it does not fit in memory.

        Their members are in any order.
        """
        keys, rows, complete = self._load(band, low, high, among, selected)
        if complete and len(keys):
            # An unstable sort is several times faster; members are ordered below.
            order = np.argsort(keys)
            keys, rows = keys[order], rows[order]
            # A key of one document is no bucket.
            same = keys[1:] == keys[:-1]
            shared = np.append(same, False) | np.append(False, same)
            keys, rows = keys[shared], rows[shared]
            yield np.append(first_of_runs(keys), len(keys)), rows
        elif not complete and high - low == 1:
            # One key, too many rows: its bucket goes to a memory-mapped file.
            with RowFile(self.folder / "crowd", np.dtype(np.int64)) as file:
                for _, block in self._entries(band, low, high, among, selected):
                    file.append(block)
                yield np.array([0, file.rows]), file.view("r+")
        elif not complete:
            middle = int(np.partition(keys, len(keys) // 2)[len(keys) // 2])
            del keys, rows
            for bounds in ((low, middle), (middle, middle + 1), (middle + 1, high)):
                yield from self.unsorted(band, *bounds, among, selected)

    def _load(
        self, band: int, low: int, high: int, among: Array | None, selected: Array | None
    ) -> tuple[Array, Array, bool]:
        """Return keys and rows of a range of keys, and whether all of them fit in memory."""
        keys, rows, count = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
        for block, block_rows in self._entries(band, low, high, among, selected):
            keys.append(block)
            rows.append(block_rows)
            count += len(block)
            if count > 1 and count * ENTRY_BYTES > CROWD * self.memory:
                return np.concatenate(keys), rows[0], False
        return np.concatenate(keys), np.concatenate(rows), True

    def _entries(
        self, band: int, low: int, high: int, among: Array | None, selected: Array | None
    ) -> Iterator[tuple[Array, Array]]:
        """Yield keys and rows of a range of keys, shard by shard."""
        for (name, folder), first in zip(self.table.shards, self.table.starts, strict=False):
            for keys, rows in _read(folder, band, low, high, selected):
                yield self._included(keys, rows + first, among)
            if (updated := self.updates.get(name)) is not None:
                documents = map_array(updated, "documents") + first
                for keys, rows in _read(updated, band, low, high, selected):
                    yield self._included(keys, documents[rows], among)

    @staticmethod
    def _included(keys: Array, rows: Array, among: Array | None) -> tuple[Array, Array]:
        return (keys, rows) if among is None else (keys[among[rows]], rows[among[rows]])


@kernel
def sort_buckets(rows: Array, starts: Array, precedence: Array, ids: Array) -> None:
    """Sort each bucket by the total order, in place: heap sort needs no extra memory."""
    for bucket in range(len(starts) - 1):
        members = rows[starts[bucket] : starts[bucket + 1]]
        for top in range(len(members) // 2 - 1, -1, -1):
            _sift(members, top, len(members), precedence, ids)
        for end in range(len(members) - 1, 0, -1):
            members[0], members[end] = members[end], members[0]
            _sift(members, 0, end, precedence, ids)


@helper
def _sift(heap: Array, pos: int, end: int, precedence: Array, ids: Array) -> None:
    """Sift an entry down in a heap of `end` entries whose top is the last in total order."""
    while 2 * pos + 1 < end:
        child = 2 * pos + 1
        if child + 1 < end and precedes(heap[child], heap[child + 1], precedence, ids):
            child += 1
        if not precedes(heap[pos], heap[child], precedence, ids):
            return
        heap[pos], heap[child] = heap[child], heap[pos]
        pos = child


@helper
def precedes(a: int, b: int, precedence: Array, ids: Array) -> bool:
    """Whether one document comes before another in total order."""
    if precedence[a] != precedence[b]:
        return bool(precedence[a] > precedence[b])
    if ids[a, 0] != ids[b, 0]:
        return bool(ids[a, 0] < ids[b, 0])
    return bool(ids[a, 1] < ids[b, 1])
