"""Clusters of documents that may not be separated: same group, or half similar; and their sizes.

Sizes are summed within blocks of rows, and the sums are sorted one range of hashes at a time. So
neither many clusters nor one cluster of all documents has to fit in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, text_buffers
from groundup.refine.dedup.lsh_index import CLUSTER as CLUSTER_BANDS
from groundup.refine.dedup.lsh_index import WIDTH, LshIndex, document_keys, write_index
from groundup.refine.dedup.minhash import hash_texts, jaccard, mix, mix_all, signatures
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch, hash_ranges, in_range

# Documents of this Jaccard similarity stay on one side of the split.
SIMILAR = 0.5
# Comparisons of a document within one bucket: with those just before it in total order. Pages of a
# template share three minima already at a similarity of 0.3, and a million of them would cost the
# square of their number. 37 buckets of 64 are the most that a document may cost.
MAX_COMPARED = 64
# Memory for one group while its documents are united, and for one entry while it is sorted.
_GROUP_BYTES, _ENTRY_BYTES = 64, 128
# Columns of an entry, int64: first row of the cluster, index of the source, bytes of the cluster in
# that source.
CLUSTER, SOURCE, BYTES = range(3)


def find_clusters(table: DocumentTable, kept: Array, scratch: Scratch, memory: int) -> Array:
    """Return the cluster of each row: kept rows are united by group and by similarity.

    Args:
        table: the refined shards.
        kept: mask of the rows on no list of dropped documents.
        scratch: for memory-mapped arrays.
        memory: bytes that a part of the index may take.

    Returns:
        The first row of the cluster of each row (int64, mapped); a row that is not kept is alone.
    """
    parent = scratch.full("parent", table.rows, np.int64)
    for _, block in table.blocks():
        parent[block] = np.arange(block.start, block.stop)
    _unite_groups(table, kept, parent, scratch, memory)
    updates = _index_cut_documents(table, kept, scratch)
    sizes, ids = scratch.joined(table, "sizes"), scratch.joined(table, "ids")
    index = LshIndex(table, sizes, ids, memory, scratch.folder, updates)
    offsets = scratch.full("offsets", table.rows + 1, np.int64)
    with RowFile(scratch.folder / "shingles", np.dtype(np.uint64)) as file:
        sets = table.shingles(kept, file, offsets)
        for band in CLUSTER_BANDS:
            for bucket in index.buckets(band, kept):
                _unite(parent, bucket.starts, bucket.rows, sets, offsets)
    # A root is the smallest row of its cluster, so parents come before their children.
    _flatten(parent)
    return parent


def _index_cut_documents(table: DocumentTable, kept: Array, scratch: Scratch) -> list[Path]:
    """Index the kept documents with cuts again: two pages may be similar only after the cuts."""
    folders = []
    for shard, block, cuts in table.cut_shards():
        changed = np.zeros(block.stop - block.start, np.bool_)
        changed[cuts.rows] = kept[block][cuts.rows]
        (folder := scratch.folder / f"cut-{shard[0]}").mkdir()
        with RowFile(scratch.folder / "keys", np.dtype(np.uint64), WIDTH) as keys:
            for _, batch in DocumentTable([shard], table.cuts).batches(["text"], changed):
                minima = signatures(text_buffers(batch.column("text")))
                keys.append(document_keys(minima, np.zeros((len(batch), 16), np.uint8)))
            write_index(folder, keys)
        np.save(folder / "documents.npy", block.start + np.flatnonzero(changed))
        folders.append(folder)
    return folders


def _unite_groups(
    table: DocumentTable, kept: Array, parent: Array, scratch: Scratch, memory: int
) -> None:
    """Unite kept rows by group; a row whose group has no name is alone.

    Rows are united within each batch first. That leaves one row per group and batch, so even one
    group of all documents fits in memory.
    """
    with (
        RowFile(scratch.folder / "groups", np.dtype(np.uint64)) as groups,
        RowFile(scratch.folder / "firsts", np.dtype(np.int64)) as firsts,
    ):
        for rows, batch in table.batches(["group"], kept):
            names = pc.fill_null(batch.column("group"), "")
            named = ~mask(pc.match_substring_regex(names, "^[a-z]*:?$"))
            hashes = hash_texts(text_buffers(names))[named]
            unique, first = _unite_equal(parent, hashes, rows[named])
            groups.append(unique)
            firsts.append(first)
        hashes, first = groups.view(), firsts.view()
        for low, high in hash_ranges(len(hashes), max(1, memory // _GROUP_BYTES)):
            part = in_range(hashes, low, high)
            _unite_equal(parent, hashes[part], first[part])


def _unite_equal(parent: Array, hashes: Array, rows: Array) -> tuple[Array, Array]:
    """Unite rows of equal hash with the first (smallest); return unique hashes and firsts."""
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    parent[rows] = rows[first[inverse]]
    return unique, rows[first]


@kernel
def _root(parent: Array, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def _unite(parent: Array, starts: Array, rows: Array, sets: Array, offsets: Array) -> None:
    """Unite the clusters of all compared pairs of a bucket that are SIMILAR."""
    for bucket in range(len(starts) - 1):
        for pos in range(starts[bucket], starts[bucket + 1]):
            shingles = sets[offsets[rows[pos]] : offsets[rows[pos] + 1]]
            for k in range(pos - 1, max(starts[bucket], pos - MAX_COMPARED) - 1, -1):
                a, b = _root(parent, rows[pos]), _root(parent, rows[k])
                if a != b:
                    other = sets[offsets[rows[k]] : offsets[rows[k] + 1]]
                    if jaccard(shingles, other, SIMILAR) >= SIMILAR:
                        parent[max(a, b)] = min(a, b)


@kernel
def _flatten(parent: Array) -> None:
    """Replace the parent of every row by its root."""
    for row in range(len(parent)):
        parent[row] = parent[parent[row]]


def cluster_sizes(
    table: DocumentTable,
    kept: Array,
    cluster: Array,
    lengths: Array,
    seed: int,
    scratch: Scratch,
    memory: int,
    out: RowFile,
) -> None:
    """Append the bytes of all clusters by source to `out`, in a random order of the clusters.

    The order is a seeded hash of the smallest id of a cluster, which later data rarely changes. The
    entries of a cluster are ordered by source.

    Args:
        table, kept, scratch: as for `find_clusters`.
        cluster: what that returned.
        lengths: bytes of each row.
        seed: of the order.
        memory: bytes that a part may take while it is sorted.
        out: int64, of width 3.
    """
    smallest = scratch.full("smallest", table.rows, np.uint64, ~np.uint64(0))
    _find_smallest(cluster, kept, scratch.joined(table, "ids"), smallest)
    salt = np.uint64(mix(np.uint64(seed) + np.uint64(1)))
    with (
        RowFile(scratch.folder / "order", np.dtype(np.uint64)) as order,
        RowFile(scratch.folder / "sums", np.dtype(np.int64), 3) as sums,
    ):
        for source, block in table.blocks():
            rows = block.start + np.flatnonzero(kept[block])
            first, inverse = np.unique(cluster[rows], return_inverse=True)
            sizes = np.bincount(inverse, lengths[rows], len(first)).astype(np.int64)
            order.append(mix_all(smallest[first] ^ salt))
            sums.append(np.stack([first, np.full(len(first), source), sizes], axis=1))
        hashes, entries = order.view(), sums.view()
        for low, high in hash_ranges(len(hashes), max(1, memory // _ENTRY_BYTES)):
            part = in_range(hashes, low, high)
            out.append(_merge(hashes[part], entries[part]))


@kernel
def _find_smallest(cluster: Array, kept: Array, ids: Array, smallest: Array) -> None:
    """Write the smallest first half of an id of each cluster, at the first row of the cluster."""
    for row in range(len(cluster)):
        if kept[row]:
            smallest[cluster[row]] = min(smallest[cluster[row]], ids[row, 0])


def _merge(hashes: Array, entries: Array) -> Array:
    """Sort entries by hash, cluster and source, and add up those of one cluster and source."""
    order = np.lexsort((entries[:, SOURCE], entries[:, CLUSTER], hashes))
    entries = entries[order]
    new = np.flatnonzero((entries[1:, :BYTES] != entries[:-1, :BYTES]).any(axis=1)) + 1
    first = np.concatenate([np.zeros(min(len(entries), 1), np.int64), new])
    merged = entries[first]
    merged[:, BYTES] = np.add.reduceat(entries[:, BYTES], first) if len(first) else 0
    return merged
