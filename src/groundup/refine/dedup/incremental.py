"""What an earlier list of duplicates says of shards that are still the same. Reads
refine/duplicates; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, mask
from groundup.refine.out_of_core.corpus import Corpus


@dataclass(frozen=True)
class Earlier:
    """An earlier artifact of refine/duplicates.

    Attributes:
        folder: of the artifact.
        shards: names of its shards in order, each with its number of documents.
        same: names of the shards that are the same now.
    """

    folder: Path
    shards: Sequence[tuple[str, int]]
    same: frozenset[str]

    def known(self, corpus: Corpus) -> list[slice]:
        """Return the rows of `corpus` that are in shards that are the same."""
        return [
            span
            for (name, _), span in zip(corpus.shards, corpus.spans, strict=True)
            if name in self.same
        ]

    def listed(self, corpus: Corpus) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield what it says of dropped documents that `corpus` still holds, some at a time.

        Yields:
            their rows; those of the documents kept in their place, -1 for one that is gone or may
            be another (int64); the similarity of each pair; whether the two are equal.
        """
        pairs, begin = np.load(self.folder / "listed.npy", mmap_mode="r").view(np.ndarray), 0
        with pq.ParquetFile(self.folder / "duplicates.parquet") as file:
            for batch in file.iter_batches(columns=["score", "reason"]):
                rows, winners = self._places(corpus, pairs[begin : begin + len(batch)])
                begin += len(batch)
                here, exact = rows >= 0, mask(pc.equal(batch.column("reason"), "exact_duplicate"))
                yield rows[here], winners[here], batch.column("score").to_numpy()[here], exact[here]

    def _places(self, corpus: Corpus, pairs: Array) -> tuple[Array, Array]:
        """Return the rows of `corpus` for rows of then, -1 where their shard is gone or another."""
        now = {
            name: span.start
            for (name, _), span in zip(corpus.shards, corpus.spans, strict=True)
            if name in self.same
        }
        starts = np.cumsum([0, *(rows for _, rows in self.shards)])
        moved = np.array([now.get(name, -1) for name, _ in self.shards], np.int64)
        shard = np.searchsorted(starts, pairs, side="right") - 1
        found = np.where(moved[shard] >= 0, pairs - starts[shard] + moved[shard], -1)
        return found[:, 0], found[:, 1]
