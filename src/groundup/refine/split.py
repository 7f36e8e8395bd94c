"""Train or validation, by group and by cluster of near-duplicates. Reads refined shards and the lists of what is dropped;
writes split/SOURCE.SHARD.npy, one number for every row of the shard's documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.refine.arrays import Array, kernel
from groundup.refine.clusters import clusters
from groundup.refine.corpus import Corpus
from groundup.refine.kernels import mix, scrambled
from groundup.refine.scratch import Scratch
from groundup.refined import TRAIN, VALIDATION

# A source whose smallest cluster is larger than its share of validation gives that one, up to this share of itself.
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
        folder: where split/NAME.npy (uint8: 0 on one of the lists, 1 train, 2 validation) is written.
        shards: refined shards by name and folder, in order.
        kinds: kind of each source.
        dropped: lists of documents that are not kept: duplicates, those that were nothing but boilerplate, contaminated ones.
        cuts: files of what is cut out of the texts, by shard; similarity and bytes are of what is left.
        seed: chooses which clusters are held out.
        share: of the bytes of every source that goes to validation.
        memory: bytes that a part of the index may take.
    """
    corpus = Corpus(shards, cuts)
    is_kept = corpus.kept(dropped)
    with Scratch(folder / ".scratch") as scratch:
        cluster = clusters(corpus, is_kept, scratch, memory)
        kept = np.flatnonzero(is_kept)
        order = _cluster_order(cluster, scratch.joined(corpus, "ids")[kept, 0], seed)
    names, source = corpus.names, corpus.sources_of(kept)
    table = Clusters.of(cluster, source, corpus.sizes[kept], len(names))
    held_out = choose(table, order, share)
    numbers = np.array([sorted(set(kinds.values())).index(kinds[name]) for name in names], np.int64)
    by_kind = Clusters.of(cluster, numbers[source], corpus.sizes[kept], len(set(kinds.values())))
    held_out |= choose_for_kinds(by_kind, order, held_out, share)
    verdict = np.zeros(corpus.rows, np.uint8)
    verdict[kept] = np.where(held_out[cluster], VALIDATION, TRAIN)
    (folder / "split").mkdir()
    for (name, _), begin, end in zip(shards, corpus.starts[:-1], corpus.starts[1:], strict=True):
        np.save(folder / "split" / f"{name}.npy", verdict[begin:end])
    return {"sources": _facts(corpus, verdict, table)}


def _cluster_order(cluster: Array, ids: Array, seed: int) -> Array:
    """Return the clusters in the order of a seeded hash of their smallest id, which later data rarely changes."""
    smallest = np.full(cluster.max(initial=-1) + 1, ~np.uint64(0))
    np.minimum.at(smallest, cluster, ids)
    return np.argsort(scrambled(smallest ^ np.uint64(mix(np.uint64(seed) + np.uint64(1)))), kind="stable")


@dataclass(frozen=True)
class Clusters:
    """Bytes of clusters by source, without the zeros.

    Attributes:
        starts: where the entries of each cluster begin (one longer than there are clusters).
        sources: number of the source of each entry.
        sizes: bytes of each entry.
        totals: bytes of each source.
    """

    starts: Array
    sources: Array
    sizes: Array
    totals: Array

    @staticmethod
    def of(cluster: Array, source: Array, size: Array, sources: int) -> Clusters:
        """Add up the sizes of documents by cluster and source."""
        pairs, inverse = np.unique(cluster * sources + source, return_inverse=True)
        sizes = np.bincount(inverse, weights=size, minlength=len(pairs))
        starts = np.searchsorted(pairs // sources, np.arange(cluster.max(initial=-1) + 2))
        return Clusters(starts, pairs % sources, sizes, np.bincount(source, weights=size, minlength=sources))

    def entries(self, number: int) -> tuple[Array, Array]:
        """Return the sources that a cluster has documents of, and its bytes in each."""
        span = slice(self.starts[number], self.starts[number + 1])
        return self.sources[span], self.sizes[span]

    def of_source(self, source: int) -> tuple[Array, Array]:
        """Return the clusters that have documents of a source, and their bytes in it."""
        entries = np.flatnonzero(self.sources == source)
        return np.searchsorted(self.starts, entries, side="right") - 1, self.sizes[entries]


def choose(table: Clusters, order: Array, share: float) -> Array:
    """Return the mask of the clusters that are held out, so that about `share` of the bytes of each source is.

    Clusters are taken in order while they fit into every source that they touch. Then each source may take one more that
    brings it nearer to its target; and one that has none gets its smallest cluster if that is no more than MOST_OF_SOURCE
    of it.
    """
    target = share * table.totals
    taken, held = np.zeros(len(order), np.bool_), np.zeros(len(table.totals))
    _take(order, table.starts, table.sources, table.sizes, target, held, taken)
    place = np.argsort(order, kind="stable")
    for source in range(len(table.totals)):
        extra = _one_more(table, source, taken, held, target, place)
        if extra >= 0:
            taken[extra] = True
            sources, sizes = table.entries(extra)
            held[sources] += sizes
    return taken


@kernel
def _take(order: Array, starts: Array, sources: Array, sizes: Array, target: Array, held: Array, taken: Array) -> None:
    """Take clusters in order while they fit into all of their sources; `held` and `taken` are changed in place."""
    for number in order:
        fits = True
        for k in range(starts[number], starts[number + 1]):
            fits = fits and held[sources[k]] + sizes[k] <= target[sources[k]]
        if fits:
            taken[number] = True
            for k in range(starts[number], starts[number + 1]):
                held[sources[k]] += sizes[k]


def choose_for_kinds(table: Clusters, order: Array, taken: Array, share: float) -> Array:
    """Return the mask of one more cluster for each kind that has none in `taken`: sources that are one project or host each.

    Args:
        table: clusters by kind instead of source; the smallest one is held out if it is at most MOST_OF_SOURCE of the kind.
    """
    held = np.array([sizes[taken[numbers]].sum() for numbers, sizes in map(table.of_source, range(len(table.totals)))])
    extra, place = np.zeros(len(order), np.bool_), np.argsort(order, kind="stable")
    for kind in np.flatnonzero(held == 0).tolist():
        number = _one_more(table, kind, taken, held, share * table.totals, place)
        if number >= 0:
            extra[number] = True
    return extra


def _one_more(table: Clusters, source: int, taken: Array, held: Array, target: Array, place: Array) -> int:
    """Return the cluster that brings a source nearest to its target without taking another one away from its own, or -1."""
    numbers, sizes = table.of_source(source)
    order = np.lexsort((place[numbers], sizes))
    too_large = max(2 * (target[source] - held[source]), MOST_OF_SOURCE * table.totals[source])
    small = order[: int(np.searchsorted(sizes[order], too_large, side="right")) + 1]
    return int(
        _first_that_helps(numbers[small], held[source] == 0, table.starts, table.sources, table.sizes, table.totals, taken, held, target)
    )


@kernel
def _first_that_helps(
    numbers: Array,
    none_yet: bool,
    starts: Array,
    sources: Array,
    sizes: Array,
    totals: Array,
    taken: Array,
    held: Array,
    target: Array,
) -> int:
    for number in numbers:
        nearer, only = not taken[number], none_yet and not taken[number]
        for k in range(starts[number], starts[number + 1]):
            source, after = sources[k], held[sources[k]] + sizes[k]
            nearer = nearer and abs(after - target[source]) < abs(held[source] - target[source])
            only = only and sizes[k] <= MOST_OF_SOURCE * totals[source]
        if nearer or only:
            return int(number)
    return -1


def _facts(corpus: Corpus, verdict: Array, table: Clusters) -> dict[str, dict[str, Any]]:
    """Count documents and bytes on both sides by source."""
    facts: dict[str, dict[str, Any]] = {name: {"clusters": len(table.of_source(n)[0])} for n, name in enumerate(corpus.names)}
    for side, value in (("train", TRAIN), ("validation", VALIDATION)):
        rows = np.flatnonzero(verdict == value)
        source, sources = corpus.sources_of(rows), len(corpus.names)
        documents, sizes = np.bincount(source, minlength=sources), np.bincount(source, corpus.sizes[rows], sources)
        for number, name in enumerate(corpus.names):
            facts[name][side] = {"documents": int(documents[number]), "bytes": int(sizes[number])}
    for own in facts.values():
        if own["validation"]["bytes"] == 0 and own["train"]["bytes"]:
            own["note"] = f"no validation: its smallest cluster is more than {MOST_OF_SOURCE:.0%} of the source"
    return facts
