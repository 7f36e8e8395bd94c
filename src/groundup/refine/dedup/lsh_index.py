"""Where documents that may be alike are found: for each band of hashes the keys of a shard, sorted.
Reads signatures of its documents; writes keys.npy and rows.npy, and answers for ranges of keys
without reading the rest.

Sorted, the files of all shards are one index partitioned by key: a part of it is a slice of each,
and a few keys are found by bisection. So any part fits into memory, and what a new shard has in
common with all others costs its own keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.minhash import BAND_ROWS, BANDS, EMPTY, band_keys
from groundup.refine.out_of_core.hash_ranges import BLOCK
from groundup.refine.out_of_core.row_file import Spool

# 37 bands of 3 find a pair at Jaccard 0.5 with 1 - (1 - 0.5^3)^37 = 0.993, at 0.6 with 0.9999; 28
# bands of 4 would find 0.836 and 0.978. The price is more pairs to verify: one of 0.2 is looked at
# with 0.26.
CLUSTER_BANDS, CLUSTER_BAND_ROWS = 37, 3

# Rows of keys.npy: one for equal texts, those for near duplicates, those for clusters.
EXACT = 0
NEAR = range(1, 1 + BANDS)
CLUSTER = range(NEAR.stop, NEAR.stop + CLUSTER_BANDS)
WIDTH = CLUSTER.stop

# The key of a text without words, which is like no other; every other key is smaller.
NO_KEY = ~np.uint64(0)


def keys_of(signatures: Array, hashes: Array) -> Array:
    """Return the keys of documents, shape (n, WIDTH), uint64.

    Args:
        signatures: MinHash, shape (n, 112).
        hashes: MD5, shape (n, 16), uint8.
    """
    columns = np.ascontiguousarray(signatures.T)
    keys = np.empty((WIDTH, len(signatures)), np.uint64)
    keys[EXACT] = hashes.view(np.uint64)[:, 0]
    for bands, height in ((NEAR, BAND_ROWS), (CLUSTER, CLUSTER_BAND_ROWS)):
        for number, band in enumerate(bands):
            keys[band] = band_keys(
                columns[number * height : (number + 1) * height], number * height
            )
    np.minimum(keys, NO_KEY - np.uint64(1), out=keys)
    keys[NEAR.start :, (columns[:2] == EMPTY).all(axis=0)] = NO_KEY
    return keys.T


def write_index(folder: Path, keys: Spool) -> None:
    """Write keys.npy, shape (WIDTH, n), each band ascending, and in rows.npy (uint32) the rows that
    they belong to.
    """
    keys.save(folder / "keys.npy", transpose=True)
    shape = (WIDTH, keys.rows)
    if keys.rows == 0:
        np.save(folder / "rows.npy", np.zeros(shape, np.uint32))
        return
    ordered = np.lib.format.open_memmap(folder / "keys.npy", "r+")
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.uint32, shape)
    for band in range(WIDTH):
        order = np.argsort(ordered[band], kind="stable")
        ordered[band], rows[band] = ordered[band][order], order
    for written in (ordered, rows):
        written.flush()


def read_range(folder: Path, band: int, low: int, high: int) -> Iterator[tuple[Array, Array]]:
    """Yield keys and rows of one band of a shard with low <= key < high, ascending, some at a time."""
    keys, rows = _band(folder / "keys.npy", band), _band(folder / "rows.npy", band)
    begin, end = np.searchsorted(keys, np.array([low, high], np.uint64))
    for at in range(int(begin), int(end), BLOCK):
        # Copies, so that nothing stays mapped.
        block = slice(at, min(at + BLOCK, int(end)))
        yield np.array(keys[block]), np.array(rows[block])


def find_keys(folder: Path, band: int, wanted: Array) -> tuple[Array, Array]:
    """Return keys and rows of one band of a shard whose key is among `wanted` (ascending, each
    once).
    """
    keys, rows = _band(folder / "keys.npy", band), _band(folder / "rows.npy", band)
    begins, ends = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    counts = ends - begins
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(wanted, counts), np.array(rows[np.repeat(begins, counts) + inside])


def _band(path: Path, band: int) -> Array:
    """Map one band of an array, and not the fifty others: they would count as address space."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (_, rows), _, dtype = np.lib.format.read_array_header_1_0(file)
        if rows == 0:
            return np.zeros(0, dtype)
        return np.memmap(
            file, dtype, "r", file.tell() + band * rows * dtype.itemsize, (rows,)
        ).view(np.ndarray)
