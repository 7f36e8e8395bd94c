"""Assign documents to train or validation, by whole clusters of groups and near duplicates.

A cluster holds documents that may not be separated, since they are of one group (a book, a host) or
half similar:

    books   moby-dick: 135 chapters          one group, one cluster
    web     a.org/1, a.org/2                 one host, one cluster
    web     b.org/menu ~ c.org/menu          two hosts with one text: both hosts are one cluster

Sizes of clusters are summed within blocks of rows, and the sums are sorted one range of hashes at a
time. So neither many clusters nor one cluster of all documents has to fit in memory.

split/SHARD.npy   uint8, one number per row of the shard: 0 dropped, 1 train, 2 validation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, text_buffers
from groundup.artifacts.corpus import DROPPED, TRAIN, VALIDATION
from groundup.refine.dedup.lsh_index import CLUSTER as CLUSTER_BANDS
from groundup.refine.dedup.lsh_index import LshIndex
from groundup.refine.dedup.minhash import hash_texts, jaccard, mix, mix_all
from groundup.refine.dedup.parts import Prepared
from groundup.refine.kernels import helper, kernel
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch, hash_parts, map_array
from groundup.runtime.run import build_step

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
# A source whose smallest cluster exceeds its share of validation gives that cluster, if it is at
# most this share of the source.
MAX_OF_SOURCE = 0.2


@build_step("refine/split", version=3)
def split_documents(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    seed: int,
    validation: float,
    memory: int = 1 << 30,
    threads: int = 1,
    prepared: Prepared | None = None,
) -> dict[str, Any]:
    """Write split/SHARD.npy: assign every document on no list of `dropped` to a side.

    Validation is the share `validation` of the bytes of every source, in clusters that `seed`
    chooses; similarity and bytes are those after the cuts. A part of the index may take `memory`
    bytes; `threads` make the shingles, unless other tasks `prepared` the split.
    """
    table = DocumentTable(shards, cuts, threads, prepared.shingles if prepared else ())
    all_kinds = sorted(set(kinds.values()))
    kind_of_source = np.array([all_kinds.index(kinds[name]) for name in table.sources], np.int64)
    with Scratch(folder / ".scratch") as scratch, scratch.rows("entries", np.int64, 3) as file:
        kept, lengths = scratch.kept(table, dropped), scratch.lengths(table)
        cluster = find_clusters(table, kept, scratch, memory, prepared)
        cluster_sizes(table, kept, cluster, lengths, seed, scratch, memory, file)
        entries, split = file.view(), scratch.full("split", table.rows, np.uint8)
        held_out = scratch.full("held_out", table.rows, np.bool_)
        choose_validation(entries, kind_of_source, validation, held_out)
        counts = np.zeros((len(table.sources), 3, 2), np.int64)
        for source, rows in table.blocks():
            side = np.where(held_out[cluster[rows]], VALIDATION, TRAIN)
            split[rows] = side = np.where(kept[rows], side, DROPPED)
            counts[source, :, 0] += np.bincount(side, minlength=3)
            counts[source, :, 1] += np.bincount(side, lengths[rows], minlength=3).astype(np.int64)
        (folder / "split").mkdir()
        for (name, _), rows in zip(shards, table.spans, strict=True):
            np.save(folder / "split" / f"{name}.npy", split[rows])
        return {"sources": _facts(table.sources, _totals(entries, len(table.sources))[0], counts)}


# Clusters


@build_step("refine/cluster_rows", version=1)
def find_cluster_rows(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    buckets: Sequence[Path],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    memory: int,
) -> dict[str, Any]:
    """Write what the split compares: compared.npy, a mask, and the groups, parent.npy."""
    table = DocumentTable(shards, cuts)
    with Scratch(folder / ".scratch") as scratch:
        index = _cluster_index(table, scratch, memory, buckets)
        parent, compared = _compared_rows(index, scratch.kept(table, dropped), scratch)
        np.save(folder / "parent.npy", parent)
        np.save(folder / "compared.npy", compared)
    return {}


def find_clusters(
    table: DocumentTable,
    kept: Array,
    scratch: Scratch,
    memory: int,
    prepared: Prepared | None = None,
) -> Array:
    """Return the cluster of each row: kept rows are united by group and by similarity.

    A cluster is named by its first row (int64, mapped); a row that is not kept is alone. A part of
    the index may take `memory` bytes.
    """
    index = _cluster_index(table, scratch, memory, prepared.buckets if prepared else ())
    if prepared is None:
        parent, compared = _compared_rows(index, kept, scratch)
    else:
        parent = scratch.full("parent", table.rows, np.int64)
        parent[:] = map_array(prepared.rows, "parent")
        compared = map_array(prepared.rows, "compared")
    offsets = scratch.full("offsets", table.rows + 1, np.int64)
    with scratch.rows("shingles", np.uint64) as file:
        sets = table.shingles(compared, file, offsets)
        for band in CLUSTER_BANDS:
            for starts, rows in index.buckets(band, compared):
                _unite(parent, starts, rows, sets, offsets)
    # Replace every parent by its root. A root is the smallest row of its cluster, so the parents of
    # earlier blocks are roots already.
    for _, block in table.blocks():
        while ((nearer := parent[parent[block]]) != parent[block]).any():
            parent[block] = nearer
    return parent


def _cluster_index(
    table: DocumentTable, scratch: Scratch, memory: int, written: Sequence[Path]
) -> LshIndex:
    # Two pages may be similar only after the cuts. The index of such texts is beside their cuts.
    updates = {name: path.parent for name, path in table.cuts.items()}
    # Buckets that are written have their order.
    sizes = ids = np.zeros(0, np.uint64)
    if not written:
        sizes, ids = scratch.joined(table, "sizes"), scratch.joined(table, "ids")
    return LshIndex(table, sizes, ids, memory, scratch.folder, updates, written)


def _compared_rows(index: LshIndex, kept: Array, scratch: Scratch) -> tuple[Array, Array]:
    """Unite kept rows by group; return the parents, and the rows that are to be compared.

    Most documents share no bucket with one of another cluster: they need no shingles.
    """
    table = index.table
    parent = scratch.full("parent", table.rows, np.int64)
    for _, block in table.blocks():
        parent[block] = np.arange(block.start, block.stop)
    _unite_groups(table, kept, parent, scratch, index.memory)
    compared = scratch.full("compared", table.rows, np.bool_)
    for band in CLUSTER_BANDS:
        for starts, rows in index.buckets(band, kept):
            _mark_compared(parent, starts, rows, compared)
    return parent, compared


def _unite_groups(
    table: DocumentTable, kept: Array, parent: Array, scratch: Scratch, memory: int
) -> None:
    """Unite kept rows by group; a row whose group has no name is alone.

    Rows are united within each batch first. That leaves one row per group and batch, so even one
    group of all documents fits in memory.
    """
    with scratch.rows("groups", np.uint64) as groups, scratch.rows("firsts", np.int64) as firsts:
        for rows, batch in table.batches(["group"], kept):
            names = pc.fill_null(batch.column("group"), "")
            named = ~mask(pc.match_substring_regex(names, "^[a-z]*:?$"))
            hashes = hash_texts(text_buffers(names))[named]
            unique, first = _unite_equal(parent, hashes, rows[named])
            groups.append(unique)
            firsts.append(first)
        hashes, first = groups.view(), firsts.view()
        for part in hash_parts(hashes, max(1, memory // _GROUP_BYTES)):
            _unite_equal(parent, hashes[part], first[part])


def _unite_equal(parent: Array, hashes: Array, rows: Array) -> tuple[Array, Array]:
    """Unite rows of equal hash with the first (smallest); return unique hashes and firsts."""
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    parent[rows] = rows[first[inverse]]
    return unique, rows[first]


@helper
def _root(parent: Array, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def _mark_compared(parent: Array, starts: Array, rows: Array, compared: Array) -> None:
    """Mark the rows of all buckets with members of several clusters."""
    for bucket in range(len(starts) - 1):
        members = rows[starts[bucket] : starts[bucket + 1]]
        first, several = _root(parent, members[0]), False
        for row in members:
            several |= _root(parent, row) != first
        if several:
            for row in members:
                compared[row] = True


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
    """Append the entries (CLUSTER, SOURCE, BYTES) of all clusters to `out`, in random order.

    The order is a seeded hash of the smallest id of a cluster, which later data rarely changes. The
    entries of a cluster are ordered by source.
    """
    # The smallest first half of an id of each cluster, at the first row of the cluster.
    smallest = scratch.full("smallest", table.rows, np.uint64, ~np.uint64(0))
    ids, salt = scratch.joined(table, "ids"), np.uint64(mix(np.uint64(seed) + np.uint64(1)))
    for _, block in table.blocks():
        rows = block.start + np.flatnonzero(kept[block])
        np.minimum.at(smallest, cluster[rows], ids[rows, 0])
    with scratch.rows("order", np.uint64) as order, scratch.rows("sums", np.int64, 3) as sums:
        for source, block in table.blocks():
            rows = block.start + np.flatnonzero(kept[block])
            first, inverse = np.unique(cluster[rows], return_inverse=True)
            sizes = np.bincount(inverse, lengths[rows], len(first)).astype(np.int64)
            order.append(mix_all(smallest[first] ^ salt))
            sums.append(np.stack([first, np.full(len(first), source), sizes], axis=1))
        hashes, entries = order.view(), sums.view()
        for part in hash_parts(hashes, max(1, memory // _ENTRY_BYTES)):
            # Add up the entries that one cluster and source have in several blocks.
            rows = entries[part]
            rows = rows[np.lexsort((rows[:, SOURCE], rows[:, CLUSTER], hashes[part]))]
            new = (rows[1:, :BYTES] != rows[:-1, :BYTES]).any(axis=1)
            first = np.flatnonzero(np.append(True, new))
            sizes = np.add.reduceat(rows[:, BYTES], first)
            out.append(np.column_stack([rows[first, :BYTES], sizes]))


# The choice


def choose_validation(
    entries: Array, kind_of_source: Array, validation: float, held_out: Array
) -> None:
    """Hold out clusters, about the share `validation` of the bytes of each source.

    1. Clusters are taken in order while they fit into every source that they touch.
    2. Each source takes one more cluster, if one brings it closer to its target.
    3. Each kind with nothing held out takes one in the same way: its sources are one project or
       host each.

    `entries` are those of `cluster_sizes`. `held_out`, a mask by first row of a cluster, is all
    False at first.
    """
    sources = np.arange(len(kind_of_source))
    totals = _totals(entries, len(sources))[1].astype(np.float64)
    target, held = validation * totals, np.zeros(len(sources))
    _hold_out_fitting(entries, target, held, held_out)
    for source in sources:
        entry = _next_cluster(entries, source, held_out, (sources, totals, target, held))
        _hold_out(entries, entry, held, held_out)
    totals, of_kind = np.bincount(kind_of_source, totals), np.bincount(kind_of_source, held)
    shares = (kind_of_source, totals, validation * totals, of_kind)
    # All kinds choose before any cluster is held out, so their order does not matter.
    empty = np.flatnonzero(of_kind == 0)
    for entry in [_next_cluster(entries, kind, held_out, shares) for kind in empty]:
        _hold_out(entries, entry, held, held_out)


@kernel
def _hold_out_fitting(entries: Array, target: Array, held: Array, held_out: Array) -> None:
    """Hold out the clusters, in order, that fit into every source that they touch."""
    begin = np.int64(0)
    while begin < len(entries):
        end, fits = _end(entries, begin), True
        for k in range(begin, end):
            source = entries[k, SOURCE]
            fits = fits and held[source] + entries[k, BYTES] <= target[source]
        if fits:
            _hold_out(entries, begin, held, held_out)
        begin = end


@kernel
def _totals(entries: Array, sources: int) -> Array:
    """Return clusters and bytes of each source, shape (2, sources)."""
    totals = np.zeros((2, sources), np.int64)
    for k in range(len(entries)):
        totals[0, entries[k, SOURCE]] += 1
        totals[1, entries[k, SOURCE]] += entries[k, BYTES]
    return totals


@helper
def _end(entries: Array, begin: int) -> int:
    """Return the index after the last entry of a cluster."""
    end = begin
    while end < len(entries) and entries[end, CLUSTER] == entries[begin, CLUSTER]:
        end += 1
    return end


@kernel
def _hold_out(entries: Array, begin: int, held: Array, held_out: Array) -> None:
    """Hold out the cluster at an entry; -1 is no cluster."""
    if begin >= 0:
        held_out[entries[begin, CLUSTER]] = True
        for k in range(begin, _end(entries, begin)):
            held[entries[k, SOURCE]] += entries[k, BYTES]


@kernel
def _next_cluster(
    entries: Array, unit: int, held_out: Array, shares: tuple[Array, Array, Array, Array]
) -> int:
    """Return the first entry of the smallest cluster to hold out for a unit, or -1.

    A unit is a source or a kind. The cluster brings it closer to its target, and no other unit away
    from its own. A unit with nothing held out may also take one that is at most MAX_OF_SOURCE of
    every unit that it touches. Of two equally small clusters, the earlier one is taken.

    `shares` are the unit of each source, and of each unit its bytes, those to hold out, and those
    held out so far.
    """
    units, totals, target, held = shares
    best, least, sizes = -1, np.inf, np.zeros(len(held))
    for pos in range(len(entries)):
        taken = held_out[entries[pos, CLUSTER]] or entries[pos, BYTES] >= least
        if taken or units[entries[pos, SOURCE]] != unit:
            continue
        begin = pos
        while begin > 0 and entries[begin - 1, CLUSTER] == entries[pos, CLUSTER]:
            begin -= 1
        end = _end(entries, begin)
        sizes[:] = 0
        for k in range(begin, end):
            sizes[units[entries[k, SOURCE]]] += entries[k, BYTES]
        closer, allowed = True, held[unit] == 0
        for k in range(begin, end):
            other = units[entries[k, SOURCE]]
            distance = abs(held[other] - target[other])
            closer = closer and abs(held[other] + sizes[other] - target[other]) < distance
            allowed = allowed and sizes[other] <= MAX_OF_SOURCE * totals[other]
        if sizes[unit] < least and (closer or allowed):
            best, least = begin, sizes[unit]
    return best


def _facts(sources: Sequence[str], clusters: Array, counts: Array) -> dict[str, dict[str, Any]]:
    """Return clusters, documents and bytes of both sides; `counts` is [source, side, 2]."""
    facts: dict[str, dict[str, Any]] = {}
    for name, count, sides in zip(sources, clusters.tolist(), counts.tolist(), strict=True):
        facts[name] = {"clusters": count}
        for side, value in (("train", TRAIN), ("validation", VALIDATION)):
            facts[name][side] = dict(zip(("documents", "bytes"), sides[value], strict=True))
        if sides[VALIDATION][1] == 0 < sides[TRAIN][1]:
            reason = f"its smallest cluster is more than {MAX_OF_SOURCE:.0%} of the source"
            facts[name]["note"] = f"no validation: {reason}"
    return facts
