"""Train or validation, by group and by cluster of near-duplicates. Reads refined shards and the lists of what is dropped;
writes split/SOURCE.SHARD.npy, one number for every row of the shard's documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from groundup.refine.arrays import Array, kernel, mask, text_buffers
from groundup.refine.corpus import Corpus, shared_buckets
from groundup.refine.kernels import hash_texts, jaccard, mix, scrambled
from groundup.refine.spool import Spool
from groundup.refined import TRAIN, VALIDATION

# design: what is half alike stays on one side.
SIMILAR = 0.5
# 37 bands of 3 find a pair at Jaccard 0.5 with 1 - (1 - 0.5^3)^37 = 0.993, at 0.6 with 0.9999; 28 bands of 4 would
# find 0.836 and 0.978. The price is more pairs to verify: one of 0.2 is looked at with 0.26.
BANDS, BAND_ROWS = 37, 3
# Only so many of the newest documents of a bucket are compared with the next one, or a page that a site repeats with
# small changes would cost the square of its number. They are a cluster by then, and any one of them pulls it in.
MOST_COMPARED = 1_024
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
    """
    corpus = Corpus(shards, cuts)
    kept = np.flatnonzero(corpus.kept(dropped))
    with Spool(folder / ".shingles", np.dtype(np.uint64)) as spool:
        cluster = clusters(corpus, kept, spool)
    names, source = corpus.sources
    table = Clusters.of(cluster, source[kept], corpus.sizes[kept], len(names))
    order = _cluster_order(cluster, corpus.ids[kept, 0], seed)
    held_out = choose(table, order, share)
    numbers = np.array([sorted(set(kinds.values())).index(kinds[name]) for name in names], np.int64)
    by_kind = Clusters.of(cluster, numbers[source[kept]], corpus.sizes[kept], len(set(kinds.values())))
    held_out |= choose_for_kinds(by_kind, order, held_out, share)
    verdict = np.zeros(corpus.rows, np.uint8)
    verdict[kept] = np.where(held_out[cluster], VALIDATION, TRAIN)
    (folder / "split").mkdir()
    for (name, _), begin, end in zip(shards, corpus.starts[:-1], corpus.starts[1:], strict=True):
        np.save(folder / "split" / f"{name}.npy", verdict[begin:end])
    return {"sources": {name: _facts(corpus, verdict, table, number) for number, name in enumerate(names)}}


def clusters(corpus: Corpus, kept: Array, spool: Spool) -> Array:
    """Return the cluster (0, 1, …) of each kept row: united by group, and by Jaccard similarity of at least SIMILAR."""
    parent = _groups(corpus, kept)
    rows = kept[corpus.comparable[kept]]
    buckets = shared_buckets(corpus, rows, BANDS, BAND_ROWS)
    sets, offsets = corpus.shingles(buckets.rows, spool)
    member = np.searchsorted(kept, buckets.rows)
    _unite(parent, member, buckets.starts, buckets.buckets, buckets.count, sets, offsets, SIMILAR, MOST_COMPARED)
    roots = np.array([], np.int64) if len(parent) == 0 else _roots(parent)
    return np.unique(roots, return_inverse=True)[1]


def _groups(corpus: Corpus, kept: Array) -> Array:
    """Return for each kept row the first kept row of its group; a row whose group has no name is alone."""
    wanted = np.zeros(corpus.rows, np.bool_)
    wanted[kept] = True
    hashes = [np.zeros(0, np.uint64)]
    for rows, batch in corpus.batches(["group"], wanted):
        group = pc.fill_null(batch.column("group"), "")
        nameless = mask(pc.match_substring_regex(group, "^[a-z]*:?$"))
        hashes.append(np.where(nameless, scrambled(rows), hash_texts(text_buffers(group))))
    _, first, inverse = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


@kernel
def _root(parent: Array, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def _roots(parent: Array) -> Array:
    out = np.empty(len(parent), np.int64)
    for node in range(len(parent)):
        out[node] = _root(parent, node)
    return out


@kernel
def _unite(
    parent: Array, member: Array, starts: Array, buckets: Array, count: int, sets: Array, offsets: Array, threshold: float, most: int
) -> None:
    """Unite the clusters of all pairs that share a bucket and reach the threshold; `parent` is changed in place."""
    newest, previous, owner = np.full(count, -1, np.int64), np.empty(len(buckets), np.int64), np.empty(len(buckets), np.int64)
    for document in range(len(member)):
        for membership in range(starts[document], starts[document + 1]):
            bucket = buckets[membership]
            link, looked = newest[bucket], 0
            while link >= 0 and looked < most:
                other, looked = owner[link], looked + 1
                a, b = _root(parent, member[document]), _root(parent, member[other])
                if a != b and _similar(sets, offsets, document, other, threshold):
                    parent[max(a, b)] = min(a, b)
                link = previous[link]
            previous[membership], newest[bucket], owner[membership] = newest[bucket], membership, document


@kernel
def _similar(sets: Array, offsets: Array, a: int, b: int, threshold: float) -> bool:
    return jaccard(sets[offsets[a] : offsets[a + 1]], sets[offsets[b] : offsets[b + 1]], threshold) >= threshold


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
    for number in order.tolist():
        sources, sizes = table.entries(number)
        if (held[sources] + sizes <= target[sources]).all():
            taken[number] = True
            held[sources] += sizes
    place = np.argsort(order, kind="stable")
    for source in range(len(table.totals)):
        extra = _one_more(table, source, taken, held, target, place)
        if extra >= 0:
            taken[extra] = True
            sources, sizes = table.entries(extra)
            held[sources] += sizes
    return taken


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
    short = target[source] - held[source]
    for at in np.lexsort((place[numbers], sizes)).tolist():
        touched, parts = table.entries(int(numbers[at]))
        nearer = (np.abs(held[touched] + parts - target[touched]) < np.abs(held[touched] - target[touched])).all()
        only = held[source] == 0 and (parts <= MOST_OF_SOURCE * table.totals[touched]).all()
        if not taken[numbers[at]] and (nearer or only):
            return int(numbers[at])
        if sizes[at] > max(2 * short, MOST_OF_SOURCE * table.totals[source]):
            break
    return -1


def _facts(corpus: Corpus, verdict: Array, table: Clusters, source: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"clusters": len(table.of_source(source)[0])}
    of_source = corpus.sources[1] == source
    for name, value in (("train", TRAIN), ("validation", VALIDATION)):
        rows = of_source & (verdict == value)
        facts[name] = {"documents": int(rows.sum()), "bytes": int(corpus.sizes[rows].sum(dtype=np.int64))}
    if facts["validation"]["bytes"] == 0 and facts["train"]["bytes"]:
        facts["note"] = f"no validation: its smallest cluster is more than {MOST_OF_SOURCE:.0%} of the source"
    return facts
