"""Finds exact and near duplicates over all shards. Reads refine/shard artifacts; writes
duplicates.parquet and listed.npy.

Of a set of duplicates the winner comes first in a total order: priority of its source, then length,
then id. A document is dropped only when a kept one equals it, or shares a bucket with it and
reaches the threshold in the true Jaccard similarity of their shingle sets. Those two conditions
leave one answer: by the total order, each document is dropped if an earlier kept one drops it. So
the answer does not depend on how much memory there was, on what was known before, or on the order
of work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.refine.dedup.buckets import Shelf, before
from groundup.refine.dedup.incremental import Earlier
from groundup.refine.dedup.lsh_index import EXACT as EXACT_BAND
from groundup.refine.dedup.lsh_index import NEAR as NEAR_BANDS
from groundup.refine.dedup.minhash import jaccard
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.corpus import Corpus, id_text
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.out_of_core.scratch import Scratch
from groundup.refine.shard import dropped_rows

EXACT, NEAR = "exact_duplicate", "near_duplicate"
# A document is compared with so many kept ones of a bucket. More of them, all unlike one another,
# share seven minima only where a template makes them: without an end, a million of such pages would
# cost the square of their number. 200,000 pages that share two thirds of their words took 640
# million comparisons at 1,024.
MOST_COMPARED = 128

# Shingle sets of rows, and where that of each row begins.
Sets: TypeAlias = tuple[Array, Array]


def find_duplicates(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    near_threshold: float,
    memory: int = 1 << 30,
    earlier: Earlier | None = None,
    priorities: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """List the documents that duplicate another one.

    Args:
        folder: where duplicates.parquet is written, rows in the order of shards and documents, and
            listed.npy (int64
            [n, 2]): each of these rows with that of the document that is kept in its place.
        shards: refined shards by name and folder, in order.
        near_threshold: Jaccard similarity from which on a document counts as a near duplicate.
        memory: bytes that a part of the index may take.
        earlier: the list of an earlier run; then only what is new is compared. The result is the
            same without it.
        priorities: of sources by name, 0 where none is given: of two duplicates the one of higher
            priority is kept.
    """
    corpus = Corpus(shards)
    with Scratch(folder / ".scratch") as scratch:
        search = Search.begin(corpus, scratch, memory, priorities or {})
        if earlier is not None:
            search.take_over(earlier)
        search.run(near_threshold)
        if search.crowded and not search.everything:
            # Which documents of a crowded bucket are compared would depend on what was known.
            search = Search.begin(corpus, scratch, memory, priorities or {})
            search.run(near_threshold)
        _write(folder, search)
        return _facts(search)


@dataclass
class Search:
    """What is known of every document (mapped arrays).

    Attributes:
        winner: row of the document that drops it (int64), or -1.
        similarity: with that one.
        unequal: whether it equals no other, and so is looked for among near duplicates.
        fresh: whether it has to be compared (again).
        everything: nothing was known before.
    """

    shelf: Shelf
    scratch: Scratch
    winner: Array
    similarity: Array
    unequal: Array
    fresh: Array
    everything: bool = True
    compared: int = 0
    crowded: int = 0

    @staticmethod
    def begin(
        corpus: Corpus, scratch: Scratch, memory: int, priorities: Mapping[str, int]
    ) -> Search:
        """Return a search that knows nothing yet."""
        shelf = Shelf(
            corpus,
            _precedence(corpus, scratch, priorities),
            scratch.joined(corpus, "ids"),
            memory,
            scratch.folder,
        )

        def each(name: str, dtype: Any, value: Any = 0) -> Array:
            return scratch.full(name, corpus.rows, dtype, value)

        winner, similarity, unequal = (
            each("winner", np.int64, -1),
            each("similarity", np.float64),
            each("unequal", np.bool_, True),
        )
        return Search(shelf, scratch, winner, similarity, unequal, each("fresh", np.bool_, True))

    def take_over(self, earlier: Earlier) -> None:
        """Begin with what an earlier list says of shards that are still the same."""
        for span in earlier.known(self.shelf.corpus):
            self.fresh[span] = False
        for rows, winners, similarity, exact in earlier.listed(self.shelf.corpus):
            self.fresh[rows[winners < 0]] = True
            known, own = winners >= 0, rows[winners >= 0]
            self.winner[own], self.similarity[own], self.unequal[own] = (
                winners[known],
                similarity[known],
                ~exact[known],
            )
        self.everything = False

    def run(self, threshold: float) -> None:
        """Decide on every document: in rounds, until nobody is dropped for one that is dropped
        itself.
        """
        touching = None if self.everything else self.fresh
        self._drop_equal(touching)
        self._release()
        with Spool(self.scratch.folder / "shingles", np.dtype(np.uint64)) as spool:
            sets = self._load(spool, touching)
            while self.fresh.any():
                self._drop_near(threshold, sets, touching)
                self.fresh[:] = False
                self._release()
                touching = self.fresh
                # All that any round compares has been read where everything was compared.
                sets = sets if self.everything else self._load(spool, touching)

    def _drop_equal(self, touching: Array | None) -> None:
        hashes = self.scratch.joined(self.shelf.corpus, "hashes").view(np.uint64)
        for found in self.shelf.buckets(EXACT_BAND, touching=touching):
            _mark_equal(
                found.starts,
                found.rows,
                hashes,
                self.winner,
                self.similarity,
                self.unequal,
                self.fresh,
            )

    def _release(self) -> None:
        """Let go of near duplicates of documents that were dropped themselves since: they are
        compared again.
        """
        for _, block in self.shelf.corpus.blocks():
            lost = block.start + np.flatnonzero((self.winner[block] >= 0) & self.unequal[block])
            lost = lost[self.winner[self.winner[lost]] >= 0]
            self.winner[lost], self.similarity[lost] = -1, 0.0
            self.fresh[lost] = True

    def _load(self, spool: Spool, touching: Array | None) -> Sets:
        """Make the shingle sets of all documents that are in a bucket with one of `touching`."""
        spool.clear()
        wanted = self.scratch.full("wanted", len(self.winner), np.bool_)
        for band in NEAR_BANDS:
            for found in self.shelf.buckets(band, self.unequal, touching):
                wanted[found.rows] = True
        offsets = self.scratch.full("offsets", len(self.winner) + 1, np.int64)
        return self.shelf.corpus.shingles(wanted, spool, offsets), offsets

    def _drop_near(self, threshold: float, sets: Sets, touching: Array | None) -> None:
        order, state = (self.shelf.precedence, self.shelf.ids), (self.winner, self.similarity)
        for band in NEAR_BANDS:
            for found in self.shelf.buckets(band, self.unequal, touching):
                compared, crowded = _drop(
                    found.starts,
                    found.rows,
                    self.fresh,
                    *state,
                    *order,
                    *sets,
                    threshold,
                    MOST_COMPARED,
                )
                self.compared, self.crowded = (
                    self.compared + int(compared),
                    self.crowded + int(crowded),
                )


def _precedence(corpus: Corpus, scratch: Scratch, priorities: Mapping[str, int]) -> Array:
    """Return the bytes of every document, and above them the priority of its source where one has
    any: the higher comes first.
    """
    if not any(priorities.values()):
        return scratch.joined(corpus, "sizes")
    found = scratch.full("precedence", corpus.rows, np.int64)
    for (name, _), first, sizes in zip(
        corpus.shards, corpus.starts, corpus.parts("sizes"), strict=False
    ):
        found[first : first + len(sizes)] = sizes.astype(np.int64) + (
            priorities.get(name.rpartition(".")[0], 0) << 32
        )
    return found


@kernel
def _mark_equal(
    starts: Array,
    rows: Array,
    hashes: Array,
    winner: Array,
    similarity: Array,
    unequal: Array,
    fresh: Array,
) -> None:
    """Drop what equals an earlier document of its bucket; one that no longer does is fresh."""
    for bucket in range(len(starts) - 1):
        begin, end = starts[bucket], starts[bucket + 1]
        for at in range(begin, end):
            row, first = rows[at], -1
            for k in range(begin, at):
                other = rows[k]
                if hashes[row, 0] == hashes[other, 0] and hashes[row, 1] == hashes[other, 1]:
                    first = other
                    break
            if first >= 0:
                winner[row], similarity[row], unequal[row] = first, 1.0, False
            elif not unequal[row]:
                winner[row], similarity[row], unequal[row], fresh[row] = -1, 0.0, True, True


@kernel
def _drop(
    starts: Array,
    rows: Array,
    fresh: Array,
    winner: Array,
    similarity: Array,
    precedence: Array,
    ids: Array,
    sets: Array,
    offsets: Array,
    threshold: float,
    most: int,
) -> tuple[int, int]:
    """Give each document the first one of its bucket that reaches the threshold with it and has no
    winner itself.

    It replaces a winner that comes later in total order, so the order of bands does not matter. A
    bucket of documents that are all alike costs one comparison each, however large it is. Pairs of
    which neither is fresh were compared before. Returns how many pairs were compared, and how many
    documents nobody is compared with, since the bucket is crowded.
    """
    leaders, compared, crowded = np.empty(most, np.int64), 0, 0
    for bucket in range(len(starts) - 1):
        count = 0
        for at in range(starts[bucket], starts[bucket + 1]):
            row = rows[at]
            for k in range(count):
                other = leaders[k]
                if winner[row] >= 0 and not before(other, winner[row], precedence, ids):
                    break
                if fresh[row] or fresh[other]:
                    compared += 1
                    reached = jaccard(
                        _set(sets, offsets, row), _set(sets, offsets, other), threshold
                    )
                    if reached >= threshold:
                        winner[row], similarity[row] = other, reached
                        break
            if winner[row] < 0 and count == most:
                crowded += 1
            elif winner[row] < 0:
                leaders[count] = row
                count += 1
    return compared, crowded


@kernel
def _set(sets: Array, offsets: Array, row: int) -> Array:
    return sets[offsets[row] : offsets[row + 1]]


def _write(folder: Path, search: Search) -> None:
    """Write the list, and rows and winners as numbers: what a later run goes on from."""
    winner, ids, corpus = search.winner, search.shelf.ids, search.shelf.corpus
    with Spool(search.scratch.folder / "listed", np.dtype(np.int64), 2) as listed:
        for _, block in corpus.blocks():
            rows = block.start + np.flatnonzero(winner[block] >= 0)
            listed.append(np.stack([rows, winner[rows]], axis=1))
        listed.save(folder / "listed.npy")
    # Nothing is fresh any more, so its mask is free.
    dropped = np.greater_equal(winner, 0, out=search.fresh)
    with TableWriter(folder / "duplicates.parquet", DROPPED) as out:
        for part, batch in corpus.batches(["id", "source", "origin", "record"], dropped):
            reasons = pa.array(np.where(search.unequal[part], NEAR, EXACT).tolist())
            kept = pa.array([id_text(number) for number in ids[winner[part]]])
            out.write(
                dropped_rows(
                    batch,
                    reasons,
                    pa.array(search.similarity[part]),
                    pa.array([""] * len(part)),
                    kept,
                )
            )


def _facts(search: Search) -> dict[str, Any]:
    corpus = search.shelf.corpus
    by_source, size = {EXACT: Counter[str](), NEAR: Counter[str]()}, Counter[str]()
    for source, block in corpus.blocks():
        dropped, unequal = search.winner[block] >= 0, search.unequal[block]
        sizes = search.shelf.precedence[block].astype(np.int64) & 0xFFFFFFFF
        for reason, rows in ((EXACT, dropped & ~unequal), (NEAR, dropped & unequal)):
            if rows.any():
                by_source[reason][corpus.names[source]] += int(rows.sum())
                size[reason] += int(sizes[rows].sum())
    rows_by_shard = [
        [name, span.stop - span.start]
        for (name, _), span in zip(corpus.shards, corpus.spans, strict=True)
    ]
    facts: dict[str, Any] = {
        "documents": corpus.rows,
        "shards": rows_by_shard,
        "compared": search.compared,
        "crowded": search.crowded,
    }
    for reason, counts in by_source.items():
        facts[reason] = {
            "documents": counts.total(),
            "bytes": size[reason],
            "by_source": dict(sorted(counts.items())),
        }
    return facts
