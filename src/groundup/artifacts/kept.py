"""The documents that are kept: refine/documents without those on the lists of what is dropped, and
without the lines that their source repeats. Reads the refine view; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from groundup.artifacts.corpus import DROPPED, TRAIN, VALIDATION
from groundup.artifacts.cuts import Cuts
from groundup.artifacts.document import read_batches
from groundup.errors import StoreError
from groundup.runtime.store import Store

Split = Literal["train", "validation"]


def shard_names(root: Path) -> list[str]:
    """Return the names ("SOURCE.SHARD") of the refined shards of a run, in order.

    Raises:
        StoreError: the run has no refine stage yet, or it is damaged.
    """
    view = Store(root).view("refine")
    if view is None:
        raise StoreError(f"{root / 'refine'}: missing or damaged; `groundup run` builds it")
    return [
        entry["name"] for entry in view.manifest["artefacts"] if entry["step"] == "refine/shard"
    ]


def kept_documents(
    root: Path, columns: Sequence[str] | None = None, split: Split | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents of a run in order, a row group at a time.

    Args:
        root: the run directory.
        columns: of the document schema; None for all.
        split: only train or only validation.

    Raises:
        StoreError: the run has no refine stage yet, or it is damaged.
    """
    for name in shard_names(root):
        yield from kept_of_shard(root, name, columns, split)


def kept_of_shard(
    root: Path, name: str, columns: Sequence[str] | None = None, split: Split | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents of one shard, as `kept_documents` does."""
    verdict = np.load(root / "refine" / "split" / f"{name}.npy")
    wanted = (
        verdict != DROPPED
        if split is None
        else verdict == (TRAIN if split == "train" else VALIDATION)
    )
    cuts, row = Cuts.load(root / "refine" / "cuts" / f"{name}.npy"), 0
    for batch in read_batches([root / "refine" / "documents" / f"{name}.parquet"], columns):
        rows = np.arange(row, row + len(batch))
        row += len(batch)
        here, whole = wanted[rows], cuts.apply(batch, rows)
        if here.any():
            yield whole if here.all() else whole.filter(pa.array(here))
