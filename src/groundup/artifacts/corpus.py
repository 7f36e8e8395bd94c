"""Reads the documents that the stage `refine` left: the one place where text meets its verdict.

A refined shard `SOURCE.SHARD` is three files of the view `RUN/refine`, which later stages only
ever see together:

    documents/SOURCE.SHARD.parquet   every document that passed cleaning and filters
    split/SOURCE.SHARD.npy           uint8, one a document: 0 dropped, 1 train, 2 validation
    cuts/SOURCE.SHARD.npy            int64 [n, 3]: row, first byte, byte after the last (optional)

Global steps such as deduplication write verdicts and cuts; they never rewrite documents. So a
document as training reads it is its row with a verdict above 0, without the cuts:

    for batch in kept_documents(root, ["id", "text"], split="train"):
        ...
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, text_array, text_buffers
from groundup.artifacts.document import Row, read_batches
from groundup.errors import GroundupError, StoreError
from groundup.runtime.store import Store

Split = Literal["train", "validation"]

# Verdicts of the split.
DROPPED, TRAIN, VALIDATION = 0, 1, 2
VERDICTS: Mapping[Split, int] = {"train": TRAIN, "validation": VALIDATION}

# Names in the document schema; None for all.
Columns = Sequence[str] | None
# Columns of a document that people look at.
SHOWN = ("id", "text", "source", "origin", "record", "license", "language")


@dataclass(frozen=True)
class Cuts:
    """Bytes that are cut out of the texts of one shard, such as lines that its source repeats."""

    rows: Array  # row of each cut among the documents, ascending (int64)
    spans: Array  # int64 [n, 2], first byte of the text and the byte after the last

    @staticmethod
    def load(path: Path | None) -> Cuts:
        """Read a file of cuts; without a file nothing is cut."""
        table = np.load(path) if path is not None and path.exists() else np.zeros((0, 3), np.int64)
        return Cuts(np.ascontiguousarray(table[:, 0]), table[:, 1:])

    def removed(self, documents: int) -> Array:
        """Return the number of bytes that each of a shard's documents loses (int64)."""
        sizes = self.spans[:, 1] - self.spans[:, 0]
        return np.bincount(self.rows, sizes, documents).astype(np.int64)

    def apply(self, batch: pa.RecordBatch, rows: Array) -> pa.RecordBatch:
        """Return a batch, of ascending `rows` of the shard, without the cuts of its texts."""
        column = batch.schema.get_field_index("text")
        if column < 0 or not len(rows) or not len(self.rows):
            return batch
        near = slice(*np.searchsorted(self.rows, [rows[0], rows[-1] + 1]))
        inside = np.isin(self.rows[near], rows)
        if not inside.any():
            return batch
        texts, spans = batch.column(column), self.spans[near][inside]
        texts = remove_spans(texts, np.searchsorted(rows, self.rows[near][inside]), spans)
        return batch.set_column(column, batch.schema.field(column), texts)


def remove_spans(texts: pa.StringArray, rows: Array, spans: Array) -> pa.StringArray:
    """Return texts (without nulls) without some of their bytes.

    `rows` has the text of each span. `spans` [n, 2] are the first byte of a text and the byte after
    the last. Both ascend, and the spans of a text are disjoint.
    """
    offsets, data = text_buffers(texts)
    data = data[offsets[0] : offsets[-1]]
    # +1 where a span begins and -1 where it ends: the running sum is 1 inside of spans.
    edges = np.zeros(len(data) + 1, np.int8)
    starts = offsets[rows] - offsets[0]
    edges[starts + spans[:, 0]] += 1
    edges[starts + spans[:, 1]] -= 1
    removed = np.bincount(rows, spans[:, 1] - spans[:, 0], len(texts)).astype(np.int64)
    kept = offsets - offsets[0] - np.concatenate([[0], np.cumsum(removed)])
    return text_array(kept.astype(np.int32), data[np.cumsum(edges[:-1], dtype=np.int8) == 0])


def read_rows(
    documents: Path,
    cuts: Path | None = None,
    columns: Columns = None,
    chosen: Array | None = None,
    only: int | None = None,
) -> Iterator[tuple[Array, pa.RecordBatch]]:
    """Yield rows of a file of documents with their row numbers, one row group at a time.

    The file `cuts` says what is cut out of the texts. `chosen` is a mask of the rows; a row group
    without any of them is not read, and none but the row group `only`, if it is given.
    """
    removed, begin = Cuts.load(cuts), 0
    with pq.ParquetFile(documents) as file:
        for group in range(file.num_row_groups):
            begin, first = begin + file.metadata.row_group(group).num_rows, begin
            rows = np.arange(first, begin)
            if chosen is not None:
                rows = rows[chosen[first:begin]]
            if not len(rows) or only not in (None, group):
                continue
            table = file.read_row_group(group, columns=None if columns is None else list(columns))
            (batch,) = table.combine_chunks().to_batches()
            if len(rows) < len(batch):
                batch = batch.take(pa.array(rows - first))
            yield rows, removed.apply(batch, rows)


@dataclass(frozen=True)
class RefinedShard:
    """One shard of refined documents."""

    folder: Path  # the view, `RUN/refine`
    name: str  # `SOURCE.SHARD`
    # SHA-256 of the files by role: documents, split, and cuts if the shard has any.
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Name of the source that the shard belongs to."""
        return self.name.rpartition(".")[0]

    @property
    def documents(self) -> Path:
        """Parquet file of the documents that passed cleaning and filters."""
        return self.folder / "documents" / f"{self.name}.parquet"

    @property
    def split(self) -> Path:
        """File of verdicts."""
        return self.folder / "split" / f"{self.name}.npy"

    @property
    def cuts(self) -> Path:
        """File of cuts; it exists if anything is cut."""
        return self.folder / "cuts" / f"{self.name}.npy"

    def verdicts(self) -> Array:
        """Read the verdict of each document (uint8)."""
        return np.load(self.split, allow_pickle=False)

    def batches(
        self, columns: Columns = None, split: Split | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the kept documents in order, or those of one split, a row group at a time.

        `columns` may name `split` (uint8, the verdict), too; None is all but it. Raises
        GroundupError if the verdicts are those of other documents.
        """
        verdicts, count = self.verdicts(), pq.read_metadata(self.documents).num_rows
        if count != len(verdicts):
            documents = f"the {count} documents of {self.documents}; run with --redo refine"
            raise GroundupError(f"{self.split}: holds {len(verdicts)} verdicts for {documents}")
        chosen = verdicts != DROPPED if split is None else verdicts == VERDICTS[split]
        stored = None if columns is None else [name for name in columns if name != "split"]
        with_split = columns is not None and "split" in columns
        for rows, batch in read_rows(self.documents, self.cuts, stored, chosen):
            yield batch.append_column("split", pa.array(verdicts[rows])) if with_split else batch


def refined_shards(root: Path, source: str | None = None) -> list[RefinedShard]:
    """Return the refined shards of a run, or of one source, as they were collected.

    Raises StoreError if the run has no refined documents, GroundupError if there is no such source.
    """
    view = Store(root).view("refine")
    if view is None:
        advice = "`groundup run` builds it, with --redo refine if it stays damaged"
        raise StoreError(f"{root / 'refine'}: missing or damaged; {advice}")
    files = view.manifest["files"]
    shards = []
    for entry in view.manifest["artefacts"]:
        if entry["step"] == "refine/shard":
            shard = RefinedShard(view.path, entry["name"])
            roles = {"documents": shard.documents, "split": shard.split, "cuts": shard.cuts}
            names = {role: path.relative_to(view.path).as_posix() for role, path in roles.items()}
            digests = {role: files[name]["sha256"] for role, name in names.items() if name in files}
            shards.append(RefinedShard(view.path, shard.name, digests))
    sources = {shard.source for shard in shards}
    if source is not None and source not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise GroundupError(f'{root}: no source "{source}" has documents; sources: {known}')
    return [shard for shard in shards if source in (None, shard.source)]


def kept_documents(
    root: Path, columns: Columns = None, split: Split | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the kept documents of a run in order; see `RefinedShard.batches`."""
    for shard in refined_shards(root):
        yield from shard.batches(columns, split)


def find_documents(
    paths: Iterable[Path], ids: Collection[str], columns: Sequence[str] = SHOWN
) -> dict[str, Row]:
    """Return documents by id, with the cuts of their shard; an id that no file holds is left out.

    `paths` are files in `documents/` of the view collect or refine; `columns` include `id`. Only
    row groups that hold one of the documents are read in full.
    """
    missing, documents = set(ids), dict[str, Row]()
    for path in paths:
        if not missing:
            break
        values = pa.array(sorted(missing), pa.string())
        masks = [pc.is_in(batch.column("id"), values) for batch in read_batches([path], ["id"])]
        if any(pc.any(mask).as_py() for mask in masks):
            chosen = np.concatenate([mask.to_numpy(zero_copy_only=False) for mask in masks])
            # The view collect has no cuts.
            cuts = path.parent.parent / "cuts" / f"{path.stem}.npy"
            for _, batch in read_rows(path, cuts, columns, chosen):
                documents |= {row["id"]: row for row in batch.to_pylist()}
            missing -= documents.keys()
    return documents


def tables(root: Path, folder: str, source: str | None = None) -> list[Path]:
    """Return the Parquet files of a folder such as `collect/dropped`: all, or those of a source."""
    paths = sorted((root / folder).glob("*.parquet"))
    return [path for path in paths if source in (None, path.stem.rpartition(".")[0])]
