"""Assign documents to train or validation, by whole clusters of groups and near duplicates.

split/SHARD.npy   uint8, one number per row of the shard: 0 dropped, 1 train, 2 validation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.artifacts.corpus import DROPPED, TRAIN, VALIDATION
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch
from groundup.refine.split.clusters import BYTES, CLUSTER, SOURCE, cluster_sizes, find_clusters
from groundup.runtime.run import BuildStep

# A source whose smallest cluster exceeds its share of validation gives that cluster, if it is at
# most this share of the source.
MAX_OF_SOURCE = 0.2


def split_documents(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    seed: int,
    validation: float,
    memory: int = 1 << 30,
) -> dict[str, Any]:
    """Assign every kept document to train or validation.

    Args:
        folder: receives split/SHARD.npy.
        shards, cuts: as for DocumentTable; similarity and bytes are those after the cuts.
        kinds: kind of each source.
        dropped: lists of dropped documents.
        seed: chooses the clusters that are held out.
        validation: share of the bytes of every source.
        memory: bytes that a part of the index may take.
    """
    table, all_kinds = DocumentTable(shards, cuts), sorted(set(kinds.values()))
    kind_of_source = np.array([all_kinds.index(kinds[name]) for name in table.sources], np.int64)
    with (
        Scratch(folder / ".scratch") as scratch,
        RowFile(scratch.folder / "entries", np.dtype(np.int64), 3) as file,
    ):
        kept, lengths = scratch.kept(table, dropped), scratch.lengths(table)
        cluster = find_clusters(table, kept, scratch, memory)
        cluster_sizes(table, kept, cluster, lengths, seed, scratch, memory, file)
        entries, held_out = file.view(), scratch.full("held_out", table.rows, np.bool_)
        choose_validation(entries, kind_of_source, validation, held_out)
        split = scratch.full("split", table.rows, np.uint8)
        counts = _assign(table, kept, cluster, held_out, lengths, split)
        (folder / "split").mkdir()
        for (name, _), rows in zip(shards, table.spans, strict=True):
            np.save(folder / "split" / f"{name}.npy", split[rows])
        return {"sources": _facts(table.sources, _totals(entries, len(table.sources))[0], counts)}


SPLIT = BuildStep("refine/split", 3, split_documents)


def choose_validation(
    entries: Array, kind_of_source: Array, validation: float, held_out: Array
) -> None:
    """Hold out clusters, about the share `validation` of the bytes of each source.

    1. Clusters are taken in order while they fit into every source that they touch. 2. Each source
    takes one more cluster, if one brings it closer to its target. 3. Each kind with nothing held
    out takes one in the same way: its sources are one project or host
       each.

    Args:
        entries: bytes of clusters by source in their order, from `cluster_sizes`.
        kind_of_source: index of the kind of each source.
        validation: share of the bytes.
        held_out: mask by first row of a cluster, all False; changed in place.
    """
    sources = np.arange(len(kind_of_source))
    totals = _totals(entries, len(sources))[1].astype(np.float64)
    target, held = validation * totals, np.zeros(len(sources))
    _take_while_fitting(entries, target, held, held_out)
    for source in sources.tolist():
        entry = _next_cluster(entries, source, held_out, (sources, totals, target, held))
        _hold_out(entries, entry, held, held_out)
    totals, of_kind = np.bincount(kind_of_source, totals), np.bincount(kind_of_source, held)
    shares = (kind_of_source, totals, validation * totals, of_kind)
    # All kinds choose before any cluster is held out, so their order does not matter.
    empty = np.flatnonzero(of_kind == 0).tolist()
    for entry in [_next_cluster(entries, kind, held_out, shares) for kind in empty]:
        _hold_out(entries, entry, held, held_out)


@kernel
def _totals(entries: Array, sources: int) -> Array:
    """Return clusters and bytes of each source, shape (2, sources)."""
    totals = np.zeros((2, sources), np.int64)
    for k in range(len(entries)):
        totals[0, entries[k, SOURCE]] += 1
        totals[1, entries[k, SOURCE]] += entries[k, BYTES]
    return totals


@kernel
def _end(entries: Array, begin: int) -> int:
    """Return the entry after the last one of a cluster."""
    end = begin
    while end < len(entries) and entries[end, CLUSTER] == entries[begin, CLUSTER]:
        end += 1
    return end


@kernel
def _take_while_fitting(entries: Array, target: Array, held: Array, held_out: Array) -> None:
    """Hold out clusters in order while they fit into the targets of all of their sources."""
    begin = 0
    while begin < len(entries):
        end, fits = _end(entries, begin), True
        for k in range(begin, end):
            source = entries[k, SOURCE]
            fits = fits and held[source] + entries[k, BYTES] <= target[source]
        if fits:
            _hold_out(entries, begin, held, held_out)
        begin = end


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

    Args:
        entries: bytes of clusters by source.
        unit: the unit.
        held_out: mask by first row of a cluster.
        shares: unit of each source; bytes of each unit; to hold out; held out so far.
    """
    units, totals, target, held = shares
    best, least, sizes = -1, np.inf, np.zeros(len(held))
    for pos in range(len(entries)):
        if units[entries[pos, SOURCE]] != unit or entries[pos, BYTES] >= least:
            continue
        if held_out[entries[pos, CLUSTER]]:
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


def _assign(
    table: DocumentTable, kept: Array, cluster: Array, held_out: Array, lengths: Array, split: Array
) -> Array:
    """Write the split of each row; return documents and bytes, shape (sources, sides, 2)."""
    counts = np.zeros((len(table.sources), 3, 2), np.int64)
    for source, rows in table.blocks():
        side = np.where(held_out[cluster[rows]], np.uint8(VALIDATION), np.uint8(TRAIN))
        split[rows] = side = np.where(kept[rows], side, np.uint8(DROPPED))
        counts[source, :, 0] += np.bincount(side, minlength=3)
        counts[source, :, 1] += np.bincount(side, lengths[rows], minlength=3).astype(np.int64)
    return counts


def _facts(sources: Sequence[str], clusters: Array, counts: Array) -> dict[str, dict[str, Any]]:
    """Return clusters, documents and bytes on both sides, by source."""
    facts: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(sources):
        facts[name] = {"clusters": int(clusters[k])}
        for side, value in (("train", TRAIN), ("validation", VALIDATION)):
            documents, size = counts[k, value].tolist()
            facts[name][side] = {"documents": documents, "bytes": size}
        if facts[name]["validation"]["bytes"] == 0 and facts[name]["train"]["bytes"]:
            facts[name]["note"] = (
                f"no validation: its smallest cluster is more than {MAX_OF_SOURCE:.0%} of the"
                " source"
            )
    return facts
