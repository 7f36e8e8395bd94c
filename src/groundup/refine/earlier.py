"""What an earlier list of duplicates says of shards that are still the same. Reads refine/duplicates; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.refine.arrays import Array, mask
from groundup.refine.corpus import Corpus


@dataclass(frozen=True)
class Earlier:
    """An earlier artefact of refine/duplicates.

    Attributes:
        folder: of the artefact.
        shards: names of its shards in order, each with its number of documents.
        same: names of the shards that are the same now.
    """

    folder: Path
    shards: Sequence[tuple[str, int]]
    same: frozenset[str]

    @property
    def listed(self) -> Array:
        """Its rows of dropped documents and of those that are kept in their place, int64 [n, 2]."""
        return np.load(self.folder / "listed.npy", mmap_mode="r").view(np.ndarray)

    @property
    def similarity(self) -> Array:
        """Of each pair."""
        return self._column("score").to_numpy()

    @property
    def exact(self) -> Array:
        """Whether the two are equal."""
        return mask(pc.equal(self._column("reason"), "exact_duplicate"))

    def places(self, corpus: Corpus) -> Array:
        """Return the row of `corpus` for each row of then (int64), -1 where its shard is gone or another."""
        now = {name: int(start) for (name, _), start in zip(corpus.shards, corpus.starts, strict=False)}
        parts = [np.arange(now[name], now[name] + rows) if name in self.same else np.full(rows, -1) for name, rows in self.shards]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def _column(self, name: str) -> pa.Array:
        return pq.read_table(self.folder / "duplicates.parquet", columns=[name])[name].combine_chunks()
