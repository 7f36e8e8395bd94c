"""Finds documents of a run by id. Reads Parquet files, of texts only the row groups that hold one;
writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.cuts import Cuts
from groundup.artifacts.document import read_batches

Row = dict[str, Any]
SHOWN = ("id", "text", "source", "origin", "record", "license", "language")


def find_documents(
    paths: Iterable[Path], ids: Collection[str], columns: Sequence[str] = SHOWN
) -> dict[str, Row]:
    """Return documents by id; an id that no file holds is left out."""
    missing, found = set(ids), dict[str, Row]()
    for path in paths:
        if not missing:
            break
        # Beside the documents of refine lie the cuts; collect has none.
        cuts, row = Cuts.load(path.parent.parent / "cuts" / f"{path.stem}.npy"), 0
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                row, first = row + file.metadata.row_group(group).num_rows, row
                mask = pc.is_in(
                    file.read_row_group(group, columns=["id"])["id"],
                    pa.array(sorted(missing), pa.string()),
                )
                if pc.any(mask).as_py():
                    (batch,) = (
                        file.read_row_group(group, columns=list(columns))
                        .combine_chunks()
                        .filter(mask)
                        .to_batches()
                    )
                    rows = cuts.apply(batch, first + np.flatnonzero(mask.to_numpy()))
                    found |= {document["id"]: document for document in rows.to_pylist()}
                    missing -= found.keys()
    return found


def matching(
    paths: Iterable[Path],
    column: str,
    values: Collection[str],
    columns: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose `column` is one of `values`, in order, a row group at a time."""
    wanted = pa.array(sorted(values), pa.string())
    for batch in read_batches(paths, columns):
        rows = batch.filter(pc.is_in(batch.column(column), wanted))
        if len(rows):
            yield rows


def train_lengths(index: Path) -> Counter[str]:
    """Return how many training tokens each shard has, from the index of the tokens."""
    lengths: Counter[str] = Counter()
    for batch in read_batches([index], ["shard", "split", "length"]):
        train = pa.Table.from_batches([batch]).filter(pc.equal(batch.column("split"), "train"))
        for row in train.group_by("shard").aggregate([("length", "sum")]).to_pylist():
            lengths[row["shard"]] += row["length_sum"]
    return lengths


def tables(root: Path, folder: str, source: str | None = None) -> list[Path]:
    """Return the Parquet files of a folder of a view in order, those of one source or all; lists of
    all sources are left out then.
    """
    paths = sorted((root / folder).glob("*.parquet"))
    return (
        paths
        if source is None
        else [path for path in paths if path.stem.rpartition(".")[0] == source]
    )
