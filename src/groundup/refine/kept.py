"""The documents that are kept: refine/documents without those on the lists of what is dropped. Reads the refine view; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from groundup.document import read_batches
from groundup.errors import StoreError
from groundup.refined import DROPPED, TRAIN, VALIDATION
from groundup.store import Store

Split = Literal["train", "validation"]


def shard_names(root: Path) -> list[str]:
    """Return the names ("SOURCE.SHARD") of the refined shards of a run, in order.

    Raises:
        StoreError: the run has no refine stage yet, or it is damaged.
    """
    view = Store(root).view("refine")
    if view is None:
        raise StoreError(f"{root / 'refine'}: missing or damaged; `groundup run` builds it")
    return [entry["name"] for entry in view.manifest["artefacts"] if entry["step"] == "refine/shard"]


def kept_documents(root: Path, columns: Sequence[str] | None = None, split: Split | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents of a run in order, a row group at a time.

    Args:
        root: the run directory.
        columns: of the document schema; None for all.
        split: only train or only validation.

    Raises:
        StoreError: the run has no refine stage yet, or it is damaged.
    """
    for name in shard_names(root):
        verdict = np.load(root / "refine" / "split" / f"{name}.npy")
        wanted = verdict != DROPPED if split is None else verdict == (TRAIN if split == "train" else VALIDATION)
        row = 0
        for batch in read_batches([root / "refine" / "documents" / f"{name}.parquet"], columns):
            here = wanted[row : row + len(batch)]
            row += len(batch)
            if here.any():
                yield batch if here.all() else batch.filter(pa.array(here))
