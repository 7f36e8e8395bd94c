"""Bytes of clusters by source, in the order in which they are chosen. Reads mapped arrays of the
corpus; writes in scratch.

Documents are added up by cluster a block at a time, and what that leaves is sorted a range of
hashes at a time: so neither many clusters nor one cluster of everything has to fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.minhash import mix, scrambled
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.hash_ranges import inside, ranges
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.out_of_core.scratch import Scratch

# Columns of an entry, int64: first row of the cluster, number of the source, bytes of the cluster
# in that source.
CLUSTER, SOURCE, BYTES = range(3)
# What an entry costs while it is put in order.
_ENTRY_BYTES = 128


def sizes_in_order(
    corpus: Corpus,
    kept: Array,
    cluster: Array,
    lengths: Array,
    seed: int,
    scratch: Scratch,
    memory: int,
    out: Spool,
) -> None:
    """Append to `out` the entries of all clusters, shape (n, 3): in the order of a seeded hash of
    the cluster's smallest id, which later data rarely changes; the entries of a cluster by source.

    Args:
        corpus: the refined shards.
        kept: mask of the rows that count.
        cluster: for each row the first row of its cluster.
        lengths: bytes of each row.
        seed: of the order.
        scratch: where arrays of one entry a document go.
        memory: bytes that a part may take while it is sorted.
        out: int64, of width 3.
    """
    smallest = scratch.full("smallest", corpus.rows, np.uint64, ~np.uint64(0))
    _find_smallest(cluster, kept, scratch.joined(corpus, "ids"), smallest)
    chance = np.uint64(mix(np.uint64(seed) + np.uint64(1)))
    with (
        Spool(scratch.folder / "order", np.dtype(np.uint64)) as order,
        Spool(scratch.folder / "sums", np.dtype(np.int64), 3) as sums,
    ):
        for entries in _block_sums(corpus, kept, cluster, lengths):
            order.append(scrambled(smallest[entries[:, CLUSTER]] ^ chance))
            sums.append(entries)
        hashes, every = order.view(), sums.view()
        for low, high in ranges(len(hashes), max(1, memory // _ENTRY_BYTES)):
            part = inside(hashes, low, high)
            out.append(_in_order(hashes[part], every[part]))


@kernel
def _find_smallest(cluster: Array, kept: Array, ids: Array, smallest: Array) -> None:
    """Note for each cluster, at its first row, the smallest first half of an id of its documents."""
    for row in range(len(cluster)):
        if kept[row]:
            smallest[cluster[row]] = min(smallest[cluster[row]], ids[row, 0])


def _block_sums(corpus: Corpus, kept: Array, cluster: Array, lengths: Array) -> Iterator[Array]:
    """Yield the entries of each block of rows."""
    for source, block in corpus.blocks():
        rows = block.start + np.flatnonzero(kept[block])
        found, inverse = np.unique(cluster[rows], return_inverse=True)
        sizes = np.bincount(inverse, lengths[rows], len(found)).astype(np.int64)
        yield np.stack([found, np.full(len(found), source), sizes], axis=1)


def _in_order(hashes: Array, entries: Array) -> Array:
    """Sort entries by hash, cluster and source, and add up those of one cluster and source."""
    order = np.lexsort((entries[:, SOURCE], entries[:, CLUSTER], hashes))
    entries = entries[order]
    new = np.flatnonzero((entries[1:, :BYTES] != entries[:-1, :BYTES]).any(axis=1)) + 1
    first = np.concatenate([np.zeros(min(len(entries), 1), np.int64), new])
    found = entries[first]
    found[:, BYTES] = np.add.reduceat(entries[:, BYTES], first) if len(first) else 0
    return found
