"""Find exact and near duplicates over all shards.

Of a set of duplicates, the document kept is the first in a total order: the priority of its source,
then length, then id. A document is dropped only if a kept document equals it, or shares a bucket
with it and reaches the threshold in the Jaccard similarity of their shingle sets. By induction
along the total order, exactly one set of documents satisfies this. So the result does not depend on
the memory, on an earlier result, or on the order of work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask
from groundup.artifacts.document import DROPPED, TableWriter, dropped_rows, read_batches
from groundup.refine.dedup.lsh_index import EXACT as EXACT_BAND
from groundup.refine.dedup.lsh_index import NEAR as NEAR_BANDS
from groundup.refine.dedup.lsh_index import LshIndex, precedes
from groundup.refine.dedup.minhash import jaccard
from groundup.refine.dedup.parts import Prepared
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch, format_ids, map_array
from groundup.runtime.run import build_step

EXACT, NEAR = "exact_duplicate", "near_duplicate"
# Comparisons of a document within one bucket. A bucket with more kept documents, all unlike each
# other, comes from a template: a million such pages would cost the square of their number. 200,000
# pages that share two thirds of their words took 640 million comparisons at 1,024.
MAX_COMPARED = 128

# Shingle sets of rows, and the offset of each row.
Sets: TypeAlias = tuple[Array, Array]


@dataclass(frozen=True)
class EarlierResult:
    """A result of an earlier run, from which a search can start."""

    folder: Path  # of the artifact
    # Names of its shards in order, each with its number of documents.
    shards: Sequence[tuple[str, int]]
    same: frozenset[str]  # names of the shards whose content has not changed

    def spans(self, table: DocumentTable) -> dict[str, slice]:
        """Return the rows in `table` of the shards that have not changed, by name."""
        shards = zip(table.shards, table.spans, strict=True)
        return {name: span for (name, _), span in shards if name in self.same}

    def dropped(self, table: DocumentTable) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield the dropped documents that `table` still holds, in blocks.

        That is their rows; the rows of the documents kept instead, -1 where that one is gone or may
        have changed (int64); their similarities; whether the two are equal.
        """
        spans = self.spans(table)
        before = np.cumsum([0, *(rows for _, rows in self.shards)])
        starts = (spans[name].start if name in spans else -1 for name, _ in self.shards)
        after = np.array(list(starts), np.int64)
        pairs, begin = map_array(self.folder, "listed"), 0
        for batch in read_batches([self.folder / "duplicates.parquet"], ["score", "reason"]):
            block = pairs[begin : begin + len(batch)]
            begin += len(batch)
            shard = np.searchsorted(before, block, side="right") - 1
            moved = np.where(after[shard] >= 0, block - before[shard] + after[shard], -1)
            here, exact = moved[:, 0] >= 0, mask(pc.equal(batch.column("reason"), EXACT))
            yield (*moved[here].T, batch.column("score").to_numpy()[here], exact[here])


@build_step("refine/duplicates", version=3)
def find_duplicates(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    near_threshold: float,
    memory: int = 1 << 30,
    earlier: EarlierResult | None = None,
    priorities: Mapping[str, int] | None = None,
    threads: int = 1,
    prepared: Prepared | None = None,
) -> dict[str, Any]:
    """List the documents that duplicate another one, by a Jaccard similarity of `near_threshold`.

    duplicates.parquet has the DROPPED schema and the order of rows; listed.npy (int64 [n, 2]) holds
    the row of each dropped document, and of the one kept instead: of the source with the highest
    priority (default 0). A part of the index may take `memory` bytes. From an `earlier` result,
    only pairs with a new document are compared; the output is the same without it. `threads` make
    the shingles, unless other tasks `prepared` the list.
    """
    buckets, sets = (prepared.buckets, prepared.shingles) if prepared else ((), ())
    table = DocumentTable(shards, threads=threads, sets=sets)
    with Scratch(folder / ".scratch") as scratch:
        # In a crowded bucket, the compared pairs would depend on the earlier result.
        for start in (earlier, None):
            search = DuplicateSearch(table, scratch, memory, priorities or {}, start, buckets)
            search.run(near_threshold)
            if start is None or not search.crowded:
                break
        _write(folder, search)
        return _facts(search)


@build_step("refine/near_rows", version=1)
def find_near_rows(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    buckets: Sequence[Path],
    priorities: Mapping[str, int],
    memory: int,
) -> dict[str, Any]:
    """Write compared.npy: the mask of the documents that share a bucket with an unequal one."""
    with Scratch(folder / ".scratch") as scratch:
        table = DocumentTable(shards)
        search = DuplicateSearch(table, scratch, memory, priorities, None, buckets)
        search.mark_equal()
        np.save(folder / "compared.npy", search.compared_rows(None))
    return {}


class DuplicateSearch:
    """State of every document during the search (memory-mapped arrays)."""

    def __init__(
        self,
        table: DocumentTable,
        scratch: Scratch,
        memory: int,
        priorities: Mapping[str, int],
        earlier: EarlierResult | None,
        buckets: Sequence[Path] = (),
    ) -> None:
        """Begin with all documents fresh that an earlier result does not answer.

        `buckets` are those that other tasks have written.
        """
        precedence = scratch.joined(table, "sizes")
        if any(priorities.values()):
            # The priority of the source is in the bits above the length.
            lengths, precedence = precedence, scratch.full("precedence", table.rows, np.int64)
            for source, block in table.blocks():
                priority = priorities.get(table.sources[source], 0)
                precedence[block] = lengths[block].astype(np.int64) + (priority << 32)
        ids = scratch.joined(table, "ids")
        self.index = LshIndex(table, precedence, ids, memory, scratch.folder, written=buckets)
        self.scratch, self.everything = scratch, earlier is None
        # Pairs compared, and documents not compared with all of their bucket.
        self.compared = self.crowded = 0
        # Row of the document kept instead of it, or -1, and the similarity to that one.
        self.winner = scratch.full("winner", table.rows, np.int64, -1)
        self.similarity = scratch.full("similarity", table.rows, np.float64)
        # Whether it equals no other, so near ones are searched; whether to compare it (again).
        self.unequal = scratch.full("unequal", table.rows, np.bool_, True)
        self.fresh = scratch.full("fresh", table.rows, np.bool_, True)
        if earlier is not None:
            for span in earlier.spans(table).values():
                self.fresh[span] = False
            for rows, winners, similarity, exact in earlier.dropped(table):
                known = winners >= 0
                self.fresh[rows[~known]] = True
                self.winner[rows[known]] = winners[known]
                self.similarity[rows[known]] = similarity[known]
                self.unequal[rows[known]] = ~exact[known]

    def run(self, threshold: float) -> None:
        """Repeat until no document was dropped for a document that is dropped itself."""
        self.mark_equal()
        touching = None if self.everything else self.fresh
        order, limits = (self.index.precedence, self.index.ids), (threshold, MAX_COMPARED)
        state = (self.winner, self.similarity)
        with self.scratch.rows("shingles", np.uint64) as file:
            sets = self._load_shingles(file, touching)
            while self.fresh.any():
                for band in NEAR_BANDS:
                    for buckets in self.index.buckets(band, self.unequal, touching):
                        counts = _drop(buckets, self.fresh, state, order, sets, limits)
                        self.compared += int(counts[0])
                        self.crowded += int(counts[1])
                self.fresh[:] = False
                self._release()
                touching = self.fresh
                # The first round over everything has loaded all sets that later rounds need.
                if not self.everything:
                    sets = self._load_shingles(file, touching)

    def mark_equal(self) -> None:
        """Drop the exact duplicates."""
        touching = None if self.everything else self.fresh
        hashes = self.scratch.joined(self.index.table, "hashes").view(np.uint64)
        state = (self.winner, self.similarity, self.unequal, self.fresh)
        for starts, rows in self.index.buckets(EXACT_BAND, touching=touching):
            _mark_equal(starts, rows, hashes, state)
        self._release()

    def _release(self) -> None:
        """Mark near duplicates fresh whose winner has been dropped since."""
        for _, block in self.index.table.blocks():
            lost = block.start + np.flatnonzero((self.winner[block] >= 0) & self.unequal[block])
            lost = lost[self.winner[self.winner[lost]] >= 0]
            self.winner[lost], self.similarity[lost] = -1, 0.0
            self.fresh[lost] = True

    def _load_shingles(self, file: RowFile, touching: Array | None) -> Sets:
        """Write the shingle sets of all documents that share a bucket with one of `touching`."""
        file.clear()
        table = self.index.table
        needed = self.unequal if table.sets else self.compared_rows(touching)
        offsets = self.scratch.full("offsets", len(self.winner) + 1, np.int64)
        return table.shingles(needed, file, offsets), offsets

    def compared_rows(self, touching: Array | None) -> Array:
        """Return the mask of all documents that share a bucket with one of `touching`."""
        needed = self.scratch.full("needed", len(self.winner), np.bool_)
        for band in NEAR_BANDS:
            for _, rows in self.index.buckets(band, self.unequal, touching):
                needed[rows] = True
        return needed


@kernel
def _mark_equal(starts: Array, rows: Array, hashes: Array, state: tuple[Array, ...]) -> None:
    """Drop documents that equal an earlier one of their bucket; if no longer equal, mark fresh."""
    winner, similarity, unequal, fresh = state
    for bucket in range(len(starts) - 1):
        begin, end = starts[bucket], starts[bucket + 1]
        for pos in range(begin, end):
            row, first = rows[pos], -1
            for k in range(begin, pos):
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
    buckets: tuple[Array, Array],
    fresh: Array,
    state: tuple[Array, Array],
    order: tuple[Array, Array],
    sets: Sets,
    limits: tuple[float, int],
) -> tuple[int, int]:
    """Drop each document for the first of its bucket that is kept and reaches the threshold.

    That one replaces a winner that comes later in total order, so the order of bands is irrelevant.
    Pairs without a fresh document were compared before. Returns the pairs compared, and the
    documents that later ones are not compared with, since their bucket is crowded.
    """
    starts, rows = buckets
    (winner, similarity), (precedence, ids), (values, offsets) = state, order, sets
    threshold, size = limits
    leaders, compared, crowded = np.empty(size, np.int64), 0, 0
    for bucket in range(len(starts) - 1):
        count = 0
        for pos in range(starts[bucket], starts[bucket + 1]):
            row = rows[pos]
            for k in range(count):
                other = leaders[k]
                if winner[row] >= 0 and not precedes(other, winner[row], precedence, ids):
                    break
                if fresh[row] or fresh[other]:
                    compared += 1
                    a = values[offsets[row] : offsets[row + 1]]
                    b = values[offsets[other] : offsets[other + 1]]
                    reached = jaccard(a, b, threshold)
                    if reached >= threshold:
                        winner[row], similarity[row] = other, reached
                        break
            if winner[row] < 0 and count == size:
                crowded += 1
            elif winner[row] < 0:
                leaders[count] = row
                count += 1
    return compared, crowded


def _write(folder: Path, search: DuplicateSearch) -> None:
    """Write listed.npy, from which a later run can start, and duplicates.parquet."""
    winner, ids, table = search.winner, search.index.ids, search.index.table
    with search.scratch.rows("listed", np.int64, 2) as listed:
        for _, block in table.blocks():
            rows = block.start + np.flatnonzero(winner[block] >= 0)
            listed.append(np.stack([rows, winner[rows]], axis=1))
        listed.save(folder / "listed.npy")
    # No document is fresh any more, so that mask can be reused.
    dropped = np.greater_equal(winner, 0, out=search.fresh)
    with TableWriter(folder / "duplicates.parquet", DROPPED) as out:
        for rows, batch in table.batches(["id", "source", "origin", "record"], dropped):
            reasons = pc.if_else(pa.array(search.unequal[rows]), NEAR, EXACT)
            scores, details = pa.array(search.similarity[rows]), pa.repeat("", len(rows))
            kept = format_ids(ids[winner[rows]])
            out.write(dropped_rows(batch, reasons, scores, details, kept))


def _facts(search: DuplicateSearch) -> dict[str, Any]:
    table = search.index.table
    shards = zip(table.shards, np.diff(table.starts).tolist(), strict=True)
    facts: dict[str, Any] = {
        "documents": table.rows,
        "shards": [[name, documents] for (name, _), documents in shards],
        "compared": search.compared,
        "crowded": search.crowded,
    }
    for reason in (EXACT, NEAR):
        by_source, size = Counter[str](), 0
        for source, block in table.blocks():
            rows = (search.winner[block] >= 0) & (search.unequal[block] == (reason == NEAR))
            by_source[table.sources[source]] += int(rows.sum())
            lengths = search.index.precedence[block].astype(np.int64) & 0xFFFFFFFF
            size += int(lengths[rows].sum())
        counts = dict(sorted((+by_source).items()))
        facts[reason] = {"documents": by_source.total(), "bytes": size, "by_source": counts}
    return facts
