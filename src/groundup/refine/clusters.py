"""Documents that may not be separated: of one group, or half alike. Reads refined shards; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from groundup.refine.arrays import Array, kernel, mask, text_buffers
from groundup.refine.buckets import Shelf
from groundup.refine.corpus import Corpus
from groundup.refine.index import CLUSTER, WIDTH, keys_of, write_index
from groundup.refine.kernels import hash_texts, jaccard, scrambled, signatures
from groundup.refine.scratch import Scratch
from groundup.refine.spool import Spool

# design: what is half alike stays on one side.
SIMILAR = 0.5
# A document is compared with so many others of a bucket, the nearest before it in total order. Pages of a template share
# three minima at a similarity of 0.3 already, and a million of them would cost the square of their number; 37 buckets
# times 64 is as much as a document may cost.
MOST_COMPARED = 64
# What a row costs while groups are sorted, and how many rows are written at a time.
_ROW_BYTES, _BLOCK = 64, 1 << 20


def clusters(corpus: Corpus, kept: Array, scratch: Scratch, memory: int) -> Array:
    """Return the cluster of each kept row: united by group, and by a Jaccard similarity of at least SIMILAR.

    Args:
        corpus: the refined shards.
        kept: mask of the rows that are not on a list of what is dropped.
        scratch: where arrays of one entry a document go.
        memory: bytes that a part of the index may take.

    Returns:
        numbers 0, 1, … in the order of each cluster's first row, int64, one for each kept row.
    """
    parent = scratch.full("parent", corpus.rows, np.int64)
    for begin in range(0, corpus.rows, _BLOCK):
        parent[begin : begin + _BLOCK] = np.arange(begin, min(begin + _BLOCK, corpus.rows))
    for members in _groups(corpus, kept, scratch, memory):
        parent[members[0]] = members[1]
    shelf = Shelf(corpus, scratch.joined(corpus, "sizes"), scratch.joined(corpus, "ids"), memory, _index_again(corpus, kept, scratch))
    offsets = scratch.full("offsets", corpus.rows + 1, np.int64)
    with Spool(scratch.folder / "shingles", np.dtype(np.uint64)) as spool:
        sets = corpus.shingles(kept, spool, offsets)
        for band in CLUSTER:
            for found in shelf.buckets(band, kept):
                _unite(parent, found.starts, found.rows, sets, offsets, SIMILAR, MOST_COMPARED)
    return _numbers(parent, kept)


def _index_again(corpus: Corpus, kept: Array, scratch: Scratch) -> tuple[Path, Array]:
    """Index kept documents that lines were cut out of, as they are now: two pages may be alike only without what is around them."""
    cut = corpus.cut_rows()
    rows = cut[kept[cut]]
    wanted = np.zeros(corpus.rows, np.bool_)
    wanted[rows] = True
    with Spool(scratch.folder / "keys", np.dtype(np.uint64), WIDTH) as keys:
        for _, batch in corpus.batches(["text"], wanted) if len(rows) else ():
            keys.append(keys_of(signatures(text_buffers(batch.column("text"))), np.zeros((len(batch), 16), np.uint8)))
        (folder := scratch.folder / "cut").mkdir()
        write_index(folder, keys)
    return folder, rows


def _groups(corpus: Corpus, kept: Array, scratch: Scratch, memory: int) -> Iterator[tuple[Array, Array]]:
    """Yield kept rows, and for each the first kept row of its group; a row whose group has no name is alone."""
    hashes = scratch.full("groups", corpus.rows, np.uint64)
    for rows, batch in corpus.batches(["group"], kept):
        group = pc.fill_null(batch.column("group"), "")
        nameless = mask(pc.match_substring_regex(group, "^[a-z]*:?$"))
        hashes[rows] = np.where(nameless, scrambled(rows), hash_texts(text_buffers(group)))
    parts = max(1, -(-corpus.rows * _ROW_BYTES // memory))
    for part in range(parts):
        rows = np.flatnonzero(kept & (hashes % np.uint64(parts) == part))
        _, first, inverse = np.unique(hashes[rows], return_index=True, return_inverse=True)
        yield rows, rows[first[inverse]]


@kernel
def _root(parent: Array, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def _unite(parent: Array, starts: Array, rows: Array, sets: Array, offsets: Array, threshold: float, most: int) -> None:
    """Unite the clusters of all pairs of a bucket that reach the threshold; `parent` is changed in place."""
    for bucket in range(len(starts) - 1):
        for at in range(starts[bucket], starts[bucket + 1]):
            own = sets[offsets[rows[at]] : offsets[rows[at] + 1]]
            for k in range(at - 1, max(starts[bucket], at - most) - 1, -1):
                a, b = _root(parent, rows[at]), _root(parent, rows[k])
                if a != b and jaccard(own, sets[offsets[rows[k]] : offsets[rows[k] + 1]], threshold) >= threshold:
                    parent[max(a, b)] = min(a, b)


@kernel
def _numbers(parent: Array, kept: Array) -> Array:
    """Number the clusters of kept rows; the root of each is its first row, since the smaller of two roots stays one."""
    number, out = np.empty(len(parent), np.int64), np.empty(kept.sum(), np.int64)
    count, at = 0, 0
    for row in range(len(parent)):
        if kept[row]:
            root = _root(parent, row)
            if root == row:
                number[row] = count
                count += 1
            out[at] = number[root]
            at += 1
    return out
