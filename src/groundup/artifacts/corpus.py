"""What the stage `refine` left for later stages: documents and verdicts, row by row. Reads the view
`refine`; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.cuts import Cuts
from groundup.artifacts.document import read_batches
from groundup.errors import GroundupError
from groundup.runtime.store import Artifact, Store

# Verdicts of the split.
DROPPED, TRAIN, VALIDATION = 0, 1, 2


@dataclass(frozen=True)
class RefinedShard:
    """One shard of refined documents.

    Attributes:
        name: `SOURCE.SHARD`.
        documents: Parquet file of the documents that passed cleaning and filters.
        split: one uint8 a document: 0 on a list of what is dropped, 1 train, 2 validation.
        documents_digest, split_digest: SHA-256 of the two files.
        cuts: file of what is cut out of the texts, if anything is.
        cuts_digest: its SHA-256, "" without one.
    """

    name: str
    documents: Path
    split: Path
    documents_digest: str
    split_digest: str
    cuts: Path | None = None
    cuts_digest: str = ""

    @property
    def inputs(self) -> dict[str, str]:
        """What a step that reads the texts has in its key; without cuts it is the same as without a
        list of lines.
        """
        digests = {"documents": self.documents_digest, "split": self.split_digest}
        return digests | ({"cuts": self.cuts_digest} if self.cuts_digest else {})

    @property
    def source(self) -> str:
        """Name of the source that the shard belongs to."""
        return self.name.rpartition(".")[0]

    def batches(
        self, columns: Sequence[str], verdict: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield kept documents in order, those of one verdict or all; without a choice, with a
        column `split`.

        Raises:
            GroundupError: the two files do not belong together.
        """
        split, cuts = np.load(self.split), Cuts.load(self.cuts)
        row = 0
        for whole in read_batches([self.documents], columns):
            batch = cuts.apply(whole, np.arange(row, row + whole.num_rows))
            part = split[row : row + batch.num_rows]
            row += batch.num_rows
            if len(part) != batch.num_rows:
                break
            keep = part == verdict if verdict is not None else part > 0
            if verdict is None:
                batch = batch.append_column("split", pa.array(part))
            yield batch.filter(pa.array(keep))
        if row != len(split):
            raise GroundupError(
                f"{self.split}: holds {len(split)} verdicts, {self.documents} other documents; run"
                " with --redo refine"
            )


def refined_shards(store: Store) -> list[RefinedShard]:
    """Return the shards of the view `refine`, ordered by source and name.

    Raises:
        GroundupError: refine has not run, or its artifacts are gone.
    """
    view = store.view("refine")
    entries = view.manifest["artefacts"] if view is not None else []
    artifacts = [store.artifact(entry) for entry in entries]
    shards = [a for a in artifacts if a is not None and a.step == "refine/shard"]
    split = next((a for a in artifacts if a is not None and a.step == "refine/split"), None)
    lines = next((a for a in artifacts if a is not None and a.step == "refine/lines"), None)
    if split is None or None in artifacts:
        raise GroundupError(f"{store.root}: refined documents are missing; run with --redo refine")
    found = []
    for shard in sorted(shards, key=lambda a: a.name.rpartition(".")[::2]):
        verdicts = f"split/{shard.name}.npy"
        documents_digest = shard.manifest["files"]["documents.parquet"]["sha256"]
        split_digest = split.manifest["files"][verdicts]["sha256"]
        paths = shard.path / "documents.parquet", split.path / verdicts
        found.append(
            RefinedShard(
                shard.name,
                *paths,
                documents_digest,
                split_digest,
                *_cuts(lines, f"cuts/{shard.name}.npy"),
            )
        )
    return found


def _cuts(lines: Artifact | None, name: str) -> tuple[Path | None, str]:
    """Return the file of a shard's cuts and its digest."""
    files = lines.manifest["files"] if lines is not None else {}
    return (
        (lines.path / name, files[name]["sha256"])
        if lines is not None and name in files
        else (None, "")
    )
