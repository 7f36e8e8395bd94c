"""Finds exact and near duplicates over all shards. Reads refine/shard artefacts; writes duplicates.parquet.

Of a set of duplicates the winner comes first in a total order: score, then length, then id. A document is dropped only
when a kept one equals it, or reaches the threshold with it in the true Jaccard similarity of their shingle sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.document import DROPPED, TableWriter
from groundup.refine.arrays import Array, kernel
from groundup.refine.corpus import Corpus, shared_buckets
from groundup.refine.kernels import BAND_ROWS, BANDS, jaccard
from groundup.refine.shard import dropped_rows
from groundup.refine.spool import Spool

EXACT, NEAR = "exact_duplicate", "near_duplicate"


def find_duplicates(folder: Path, shards: Sequence[tuple[str, Path]], near_threshold: float) -> dict[str, Any]:
    """List the documents that duplicate another one.

    Args:
        folder: where duplicates.parquet is written, rows in the order of shards and documents.
        shards: refined shards by name and folder, in order.
        near_threshold: Jaccard similarity from which on a document counts as a near duplicate.
    """
    corpus = Corpus(shards)
    rank = total_order(corpus)
    winner = exact_winners(corpus, rank)
    similarity = np.ones(corpus.rows)
    rows = np.flatnonzero((winner < 0) & corpus.comparable)
    with Spool(folder / ".shingles", np.dtype(np.uint64)) as spool:
        near, near_similarity, compared = near_winners(corpus, rows, rank, near_threshold, spool)
    winner[rows], similarity[rows] = near, near_similarity
    exact = winner >= 0
    exact[rows] = False
    _write(folder / "duplicates.parquet", corpus, winner, similarity, exact)
    return _facts(corpus, winner, exact) | {"compared": compared}


def total_order(corpus: Corpus) -> Array:
    """Return the rank of every document: longer first, then by id; before both goes a quality score, 0 for all so far."""
    order = np.lexsort((corpus.ids[:, 1], corpus.ids[:, 0], -corpus.sizes.astype(np.int64)))
    rank = np.empty(corpus.rows, np.int64)
    rank[order] = np.arange(corpus.rows)
    return rank


def exact_winners(corpus: Corpus, rank: Array) -> Array:
    """Return for every document the row of the best-ranked one with the same hash, or -1 if it is that itself."""
    hashes = corpus.hashes
    order = np.lexsort((rank, hashes[:, 1], hashes[:, 0]))
    new = np.ones(corpus.rows, np.bool_)
    new[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    first = np.flatnonzero(new)
    winner = np.empty(corpus.rows, np.int64)
    winner[order] = np.repeat(order[first], np.diff(first, append=corpus.rows))
    winner[order[first]] = -1
    return winner


def near_winners(corpus: Corpus, rows: Array, rank: Array, threshold: float, spool: Spool) -> tuple[Array, Array, int]:
    """Return for each of `rows` the row of the kept document that it repeats or -1, the similarity, and pairs compared."""
    winner, similarity = np.full(len(rows), -1, np.int64), np.zeros(len(rows))
    buckets = shared_buckets(corpus, rows, BANDS, BAND_ROWS)
    sets, offsets = corpus.shingles(buckets.rows, spool)
    order = np.argsort(rank[buckets.rows])
    kept, reached, compared = _greedy(order, buckets.starts, buckets.buckets, buckets.count, sets, offsets, threshold)
    at = np.searchsorted(rows, buckets.rows)
    winner[at] = np.where(kept >= 0, buckets.rows[kept], -1)
    similarity[at] = reached
    return winner, similarity, int(compared)


@kernel
def _greedy(
    order: Array, starts: Array, buckets: Array, count: int, sets: Array, offsets: Array, threshold: float
) -> tuple[Array, Array, int]:
    """Go through the candidates in total order; drop each that reaches the threshold with a kept one of its buckets.

    Every bucket keeps a list of its kept documents, in order. So a bucket of documents that are all alike costs one
    comparison each, however large it is.
    """
    winner, similarity = np.full(len(order), -1, np.int64), np.zeros(len(order))
    heads, tails = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    following, owner = np.full(len(buckets), -1, np.int64), np.empty(len(buckets), np.int64)
    asked, compared = np.full(len(order), -1, np.int64), 0
    for document in order:
        own = sets[offsets[document] : offsets[document + 1]]
        for membership in range(starts[document], starts[document + 1]):
            link = heads[buckets[membership]]
            while link >= 0 and winner[document] < 0:
                other = owner[link]
                if asked[other] != document:
                    asked[other] = document
                    compared += 1
                    reached = jaccard(own, sets[offsets[other] : offsets[other + 1]], threshold)
                    if reached >= threshold:
                        winner[document], similarity[document] = other, reached
                link = following[link]
        if winner[document] < 0:
            for membership in range(starts[document], starts[document + 1]):
                bucket = buckets[membership]
                owner[membership] = document
                if heads[bucket] < 0:
                    heads[bucket] = membership
                else:
                    following[tails[bucket]] = membership
                tails[bucket] = membership
    return winner, similarity, compared


def _write(path: Path, corpus: Corpus, winner: Array, similarity: Array, exact: Array) -> None:
    with TableWriter(path, DROPPED) as out:
        for rows, batch in corpus.batches(["id", "source", "origin", "record"], winner >= 0):
            reasons = pa.array([EXACT if is_exact else NEAR for is_exact in exact[rows].tolist()])
            kept = pa.array([corpus.id_text(row) for row in winner[rows].tolist()])
            out.write(dropped_rows(batch, reasons, pa.array(similarity[rows]), pa.array([""] * len(rows)), kept))


def _facts(corpus: Corpus, winner: Array, exact: Array) -> dict[str, Any]:
    names, source = corpus.sources
    facts: dict[str, Any] = {"documents": corpus.rows}
    for reason, rows in ((EXACT, exact), (NEAR, (winner >= 0) & ~exact)):
        by_source = Counter(names[number] for number in source[rows].tolist())
        size = int(corpus.sizes[rows].sum(dtype=np.int64))
        facts[reason] = {"documents": int(rows.sum()), "bytes": size, "by_source": dict(sorted(by_source.items()))}
    return facts
