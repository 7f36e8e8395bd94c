"""Documents that may not be separated: of one group, or half alike. Reads refined shards; writes
nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, text_buffers
from groundup.refine.dedup.buckets import Shelf
from groundup.refine.dedup.lsh_index import CLUSTER, WIDTH, keys_of, write_index
from groundup.refine.dedup.minhash import hash_texts, jaccard, signatures
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.hash_ranges import inside, ranges
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.out_of_core.scratch import Scratch

# design: what is half alike stays on one side.
SIMILAR = 0.5
# A document is compared with so many others of a bucket, the nearest before it in total order.
# Pages of a template share three minima at a similarity of 0.3 already, and a million of them would
# cost the square of their number; 37 buckets times 64 is as much as a document may cost.
MOST_COMPARED = 64
# What a group costs while its documents are brought together.
_GROUP_BYTES = 64


def clusters(corpus: Corpus, kept: Array, scratch: Scratch, memory: int) -> Array:
    """Return the cluster of each row: kept ones are united by group, and by a Jaccard similarity of
    at least SIMILAR.

    Args:
        corpus: the refined shards.
        kept: mask of the rows that are not on a list of what is dropped.
        scratch: where arrays of one entry a document go.
        memory: bytes that a part of the index may take.

    Returns:
        the first row of the cluster that each row is in (int64, mapped); a row that is not kept is
        alone.
    """
    parent = scratch.full("parent", corpus.rows, np.int64)
    for _, block in corpus.blocks():
        parent[block] = np.arange(block.start, block.stop)
    _unite_groups(corpus, kept, parent, scratch, memory)
    again = _index_again(corpus, kept, scratch)
    shelf = Shelf(
        corpus,
        scratch.joined(corpus, "sizes"),
        scratch.joined(corpus, "ids"),
        memory,
        scratch.folder,
        again,
    )
    offsets = scratch.full("offsets", corpus.rows + 1, np.int64)
    with Spool(scratch.folder / "shingles", np.dtype(np.uint64)) as spool:
        sets = corpus.shingles(kept, spool, offsets)
        for band in CLUSTER:
            for found in shelf.buckets(band, kept):
                _unite(parent, found.starts, found.rows, sets, offsets, SIMILAR, MOST_COMPARED)
    _flatten(parent)
    return parent


def _index_again(corpus: Corpus, kept: Array, scratch: Scratch) -> list[Path]:
    """Index kept documents that lines were cut out of, as they are now: two pages may be alike only
    without what is around them.
    """
    folders = []
    for shard, block, cuts in corpus.cut_shards():
        wanted = np.zeros(block.stop - block.start, np.bool_)
        wanted[cuts.rows] = kept[block][cuts.rows]
        with Spool(scratch.folder / "keys", np.dtype(np.uint64), WIDTH) as keys:
            for _, batch in Corpus([shard], corpus.cuts).batches(["text"], wanted):
                keys.append(
                    keys_of(
                        signatures(text_buffers(batch.column("text"))),
                        np.zeros((len(batch), 16), np.uint8),
                    )
                )
            (folder := scratch.folder / f"cut-{shard[0]}").mkdir()
            write_index(folder, keys)
        np.save(folder / "documents.npy", block.start + np.flatnonzero(wanted))
        folders.append(folder)
    return folders


def _unite_groups(
    corpus: Corpus, kept: Array, parent: Array, scratch: Scratch, memory: int
) -> None:
    """Unite kept rows by group; a row whose group has no name is alone. `parent` is changed in
    place.

    First within each batch, which leaves one row of a group for each: so one group of all documents
    fits into memory as well.
    """
    with (
        Spool(scratch.folder / "groups", np.dtype(np.uint64)) as groups,
        Spool(scratch.folder / "firsts", np.dtype(np.int64)) as firsts,
    ):
        for rows, batch in corpus.batches(["group"], kept):
            names = pc.fill_null(batch.column("group"), "")
            named = ~mask(pc.match_substring_regex(names, "^[a-z]*:?$"))
            found, first = _unite_equal(parent, hash_texts(text_buffers(names))[named], rows[named])
            groups.append(found)
            firsts.append(first)
        hashes, first = groups.view(), firsts.view()
        for low, high in ranges(len(hashes), max(1, memory // _GROUP_BYTES)):
            part = inside(hashes, low, high)
            _unite_equal(parent, hashes[part], first[part])


def _unite_equal(parent: Array, hashes: Array, rows: Array) -> tuple[Array, Array]:
    """Unite rows of equal hash with the first of them, which is the smallest; return each hash
    once, and that row.
    """
    found, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    parent[rows] = rows[first[inverse]]
    return found, rows[first]


@kernel
def _root(parent: Array, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def _unite(
    parent: Array,
    starts: Array,
    rows: Array,
    sets: Array,
    offsets: Array,
    threshold: float,
    most: int,
) -> None:
    """Unite the clusters of all pairs of a bucket that reach the threshold; `parent` is changed in
    place.
    """
    for bucket in range(len(starts) - 1):
        for at in range(starts[bucket], starts[bucket + 1]):
            own = sets[offsets[rows[at]] : offsets[rows[at] + 1]]
            for k in range(at - 1, max(starts[bucket], at - most) - 1, -1):
                a, b = _root(parent, rows[at]), _root(parent, rows[k])
                if (
                    a != b
                    and jaccard(own, sets[offsets[rows[k]] : offsets[rows[k] + 1]], threshold)
                    >= threshold
                ):
                    parent[max(a, b)] = min(a, b)


@kernel
def _flatten(parent: Array) -> None:
    """Put its root in the place of every row's parent; no parent comes behind its row, since the
    smaller of two roots stays one.
    """
    for row in range(len(parent)):
        parent[row] = parent[parent[row]]
