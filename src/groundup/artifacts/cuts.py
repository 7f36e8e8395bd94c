"""What is cut out of the texts of a shard's documents. Reads cuts/SHARD.npy of the view `refine`;
writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Cuts:
    """Cuts of one shard.

    Attributes:
        rows: of the documents, ascending (int64).
        spans: int64 [n, 2], first byte of the text and the byte after the last.
    """

    rows: Array
    spans: Array

    @staticmethod
    def load(path: Path | None) -> Cuts:
        """Read a file of cuts; where there is none, nothing is cut."""
        table = np.load(path) if path is not None and path.exists() else np.zeros((0, 3), np.int64)
        return Cuts(np.ascontiguousarray(table[:, 0]), table[:, 1:])

    def removed(self, documents: int) -> Array:
        """Return how many bytes each of a shard's documents loses (int64)."""
        return np.bincount(self.rows, self.spans[:, 1] - self.spans[:, 0], documents).astype(
            np.int64
        )

    def apply(self, batch: pa.RecordBatch, rows: Array) -> pa.RecordBatch:
        """Return a batch with the cuts taken out of its column `text`, if it has one.

        Args:
            batch: documents of the shard.
            rows: which ones they are, ascending.
        """
        at = batch.schema.get_field_index("text")
        near = (
            slice(*np.searchsorted(self.rows, [rows[0], rows[-1] + 1])) if len(rows) else slice(0)
        )
        own = np.isin(self.rows[near], rows)
        if at < 0 or not own.any():
            return batch
        places = np.searchsorted(rows, self.rows[near][own])
        return batch.set_column(
            at, batch.schema.field(at), without(batch.column(at), places, self.spans[near][own])
        )


def without(texts: pa.StringArray, rows: Array, spans: Array) -> pa.StringArray:
    """Return texts without some of their bytes.

    Args:
        texts: without nulls.
        rows: the text of each span, ascending.
        spans: int64 [n, 2], first byte of a text and the byte after the last; apart from each
            other, ascending.
    """
    # Imported here, since it loads numba, and most shards have no cuts.
    from groundup.artifacts.arrays import text_array, text_buffers

    offsets, data = text_buffers(texts)
    data = data[offsets[0] : offsets[-1]]
    edges = np.zeros(len(data) + 1, np.int8)
    starts = offsets[rows] - offsets[0]
    edges[starts + spans[:, 0]] += 1
    edges[starts + spans[:, 1]] -= 1
    lost = np.bincount(rows, spans[:, 1] - spans[:, 0], len(texts)).astype(np.int64)
    kept = offsets - offsets[0] - np.concatenate([[0], np.cumsum(lost)])
    return text_array(kept.astype(np.int32), data[np.cumsum(edges[:-1], dtype=np.int8) == 0])
