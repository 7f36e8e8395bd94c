"""Train or validation, by group and by cluster of near-duplicates. Reads refined shards and the
lists of what is dropped; writes split/SOURCE.SHARD.npy, one number for every row of the shard's
documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.artifacts.corpus import DROPPED, TRAIN, VALIDATION
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.out_of_core.scratch import Scratch
from groundup.refine.split.cluster_sizes import BYTES, CLUSTER, SOURCE, sizes_in_order
from groundup.refine.split.clusters import clusters

# A source whose smallest cluster is larger than its share of validation gives that one, up to this
# share of itself.
MOST_OF_SOURCE = 0.2


def split_documents(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    dropped: Sequence[Path],
    cuts: Mapping[str, Path],
    seed: int,
    share: float,
    memory: int = 1 << 30,
) -> dict[str, Any]:
    """Assign every kept document to train or validation.

    Args:
        folder: where split/NAME.npy (uint8: 0 on one of the lists, 1 train, 2 validation) is
            written.
        shards: refined shards by name and folder, in order.
        kinds: kind of each source.
        dropped: lists of documents that are not kept: duplicates, those that were nothing but
            boilerplate, contaminated ones.
        cuts: files of what is cut out of the texts, by shard; similarity and bytes are of what is
            left.
        seed: chooses which clusters are held out.
        share: of the bytes of every source that goes to validation.
        memory: bytes that a part of the index may take.
    """
    corpus = Corpus(shards, cuts)
    of_kind = np.array(
        [sorted(set(kinds.values())).index(kinds[name]) for name in corpus.names], np.int64
    )
    with (
        Scratch(folder / ".scratch") as scratch,
        Spool(scratch.folder / "entries", np.dtype(np.int64), 3) as entries,
    ):
        kept, lengths = scratch.kept(corpus, dropped), scratch.lengths(corpus)
        cluster = clusters(corpus, kept, scratch, memory)
        sizes_in_order(corpus, kept, cluster, lengths, seed, scratch, memory, entries)
        table, held_out = entries.view(), scratch.full("held_out", corpus.rows, np.bool_)
        choose(table, of_kind, share, held_out)
        verdict = scratch.full("verdict", corpus.rows, np.uint8)
        counts = _decide(corpus, kept, cluster, held_out, lengths, verdict)
        (folder / "split").mkdir()
        for (name, _), rows in zip(shards, corpus.spans, strict=True):
            np.save(folder / "split" / f"{name}.npy", verdict[rows])
        return {"sources": _facts(corpus.names, _totals(table, len(of_kind))[0], counts)}


@dataclass(frozen=True)
class Shares:
    """Bytes of units: sources, or kinds of sources.

    Attributes:
        unit: number of the unit of each source.
        totals: bytes of each unit (float64, as are the others).
        target: how many of them are to be held out.
        held: how many are.
    """

    unit: Array
    totals: Array
    target: Array
    held: Array

    def one_more(self, entries: Array, unit: int, held_out: Array) -> int:
        """Return the first entry of the smallest cluster that brings a unit nearer to its target
        without taking another one away from its own, or -1."""
        return int(
            _smallest_that_helps(
                entries, unit, held_out, self.unit, self.totals, self.target, self.held
            )
        )

    def merged(self, unit: Array, share: float) -> Shares:
        """Return the shares of units of these units."""
        totals = np.bincount(unit, self.totals)
        return Shares(unit[self.unit], totals, share * totals, np.bincount(unit, self.held))


def choose(entries: Array, of_kind: Array, share: float, held_out: Array) -> None:
    """Hold out clusters, so that about `share` of the bytes of each source is.

    Clusters are taken in order while they fit into every source that they touch. Then each source
    may take one more that brings it nearer to its target; and one that has none gets its smallest
    cluster if that is no more than MOST_OF_SOURCE of it. Last, a kind that has none gets one in the
    same way: its sources are one project or host each.

    Args:
        entries: bytes of clusters by source in their order, as `sizes_in_order` makes them.
        of_kind: number of the kind of each source.
        share: of the bytes.
        held_out: mask by first row of a cluster, all False; changed in place.
    """
    totals = _totals(entries, len(of_kind))[1].astype(np.float64)
    sources = Shares(np.arange(len(of_kind)), totals, share * totals, np.zeros(len(of_kind)))
    _take(entries, sources.target, sources.held, held_out)
    for source in range(len(of_kind)):
        _hold(entries, sources.one_more(entries, source, held_out), sources.held, held_out)
    kinds = sources.merged(of_kind, share)
    for entry in [
        kinds.one_more(entries, kind, held_out) for kind in np.flatnonzero(kinds.held == 0).tolist()
    ]:
        _hold(entries, entry, sources.held, held_out)


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
def _take(entries: Array, target: Array, held: Array, held_out: Array) -> None:
    """Hold out clusters in order while they fit into all of their sources; `held` and `held_out`
    are changed in place.
    """
    begin = 0
    while begin < len(entries):
        end, fits = _end(entries, begin), True
        for k in range(begin, end):
            fits = (
                fits and held[entries[k, SOURCE]] + entries[k, BYTES] <= target[entries[k, SOURCE]]
            )
        if fits:
            _hold(entries, begin, held, held_out)
        begin = end


@kernel
def _hold(entries: Array, begin: int, held: Array, held_out: Array) -> None:
    """Hold out the cluster that begins at an entry, if that is one."""
    if begin >= 0:
        held_out[entries[begin, CLUSTER]] = True
        for k in range(begin, _end(entries, begin)):
            held[entries[k, SOURCE]] += entries[k, BYTES]


@kernel
def _smallest_that_helps(
    entries: Array,
    unit: int,
    held_out: Array,
    units: Array,
    totals: Array,
    target: Array,
    held: Array,
) -> int:
    """Return the first entry of the smallest cluster of a unit that helps it, the earlier one of
    two equal ones, or -1.
    """
    best, least, sizes = -1, np.inf, np.zeros(len(held))
    for at in range(len(entries)):
        if (
            units[entries[at, SOURCE]] != unit
            or entries[at, BYTES] >= least
            or held_out[entries[at, CLUSTER]]
        ):
            continue
        begin = at
        while begin > 0 and entries[begin - 1, CLUSTER] == entries[at, CLUSTER]:
            begin -= 1
        sizes[:] = 0
        for k in range(begin, _end(entries, begin)):
            sizes[units[entries[k, SOURCE]]] += entries[k, BYTES]
        nearer, only = True, held[unit] == 0
        for k in range(begin, _end(entries, begin)):
            other = units[entries[k, SOURCE]]
            nearer = nearer and abs(held[other] + sizes[other] - target[other]) < abs(
                held[other] - target[other]
            )
            only = only and sizes[other] <= MOST_OF_SOURCE * totals[other]
        if sizes[unit] < least and (nearer or only):
            best, least = begin, sizes[unit]
    return best


def _decide(
    corpus: Corpus, kept: Array, cluster: Array, held_out: Array, lengths: Array, verdict: Array
) -> Array:
    """Write the verdict on each row; return documents and bytes, shape (sources, verdicts, 2)."""
    counts = np.zeros((len(corpus.names), 3, 2), np.int64)
    for source, rows in corpus.blocks():
        side = np.where(held_out[cluster[rows]], np.uint8(VALIDATION), np.uint8(TRAIN))
        verdict[rows] = np.where(kept[rows], side, np.uint8(DROPPED))
        counts[source, :, 0] += np.bincount(verdict[rows], minlength=3)
        counts[source, :, 1] += np.bincount(verdict[rows], lengths[rows], minlength=3).astype(
            np.int64
        )
    return counts


def _facts(names: Sequence[str], clusters: Array, counts: Array) -> dict[str, dict[str, Any]]:
    """Name what is counted on both sides by source."""
    facts: dict[str, dict[str, Any]] = {}
    for name, own, of_source in zip(names, clusters.tolist(), counts.tolist(), strict=True):
        sides = (("train", TRAIN), ("validation", VALIDATION))
        facts[name] = {"clusters": own} | {
            side: dict(zip(("documents", "bytes"), of_source[value], strict=True))
            for side, value in sides
        }
        if facts[name]["validation"]["bytes"] == 0 and facts[name]["train"]["bytes"]:
            facts[name]["note"] = (
                f"no validation: its smallest cluster is more than {MOST_OF_SOURCE:.0%} of the"
                " source"
            )
    return facts
