"""All refined shards seen as one long table of rows, in shard order. Reads refine/shard artefacts; writes nothing.

Nothing here holds more than a few bytes a document: columns pass through a row group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.cuts import Cuts
from groundup.refine.arrays import Array, kernel, text_buffers
from groundup.refine.kernels import SHINGLE_WORDS, shingle_sets
from groundup.refine.spool import Spool

_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True)
class Corpus:
    """Refined shards by name ("SOURCE.SHARD") and folder, in order.

    Attributes:
        cuts: files of what is cut out of the texts, by name of the shard; texts and sizes are those without it.
    """

    shards: Sequence[tuple[str, Path]]
    cuts: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def starts(self) -> Array:
        """Row at which each shard begins, and the number of rows at the end (int64)."""
        counts = [len(sizes) for sizes in self.parts("sizes")]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """Number of documents."""
        return int(self.starts[-1])

    @cached_property
    def sizes(self) -> Array:
        """UTF-8 bytes of every document (uint32)."""
        whole = zip(self.shards, self.parts("sizes"), strict=True)
        parts = [part - Cuts.load(self.cuts.get(name)).removed(len(part)) for (name, _), part in whole]
        return np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.uint32)

    @cached_property
    def names(self) -> list[str]:
        """Names of the sources, in order of appearance."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in self.shards))

    def sources_of(self, rows: Array) -> Array:
        """Return for each of these rows the number of its source among `names` (int32)."""
        of_shard = np.array([self.names.index(name.rpartition(".")[0]) for name, _ in self.shards], np.int32)
        return of_shard[np.searchsorted(self.starts, rows, side="right") - 1]

    def id_text(self, row: int) -> str:
        """Return the id of a row as it stands in documents.parquet."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return id_text(np.load(self.shards[shard][1] / "ids.npy", mmap_mode="r")[row - self.starts[shard]])

    def cut_rows(self) -> Array:
        """Return the rows out of whose texts something is cut, ascending (int64)."""
        parts = [
            np.unique(Cuts.load(self.cuts[name]).rows) + first
            for (name, _), first in zip(self.shards, self.starts, strict=False)
            if name in self.cuts
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def batches(self, columns: Sequence[str], wanted: Array | None = None) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield row numbers and columns of the documents, row group by row group; with `wanted` (a mask) only of those."""
        for (name, folder), first in zip(self.shards, self.starts, strict=False):
            cuts, row = Cuts.load(self.cuts.get(name)), int(first)
            with pq.ParquetFile(folder / "documents.parquet") as file:
                for group in range(file.num_row_groups):
                    begin, row = row, row + file.metadata.row_group(group).num_rows
                    rows = np.arange(begin, row) if wanted is None else begin + np.flatnonzero(wanted[begin:row])
                    if len(rows):
                        yield rows, cuts.apply(_read(file, group, columns, rows - begin), rows - first)

    def kept(self, lists: Sequence[Path]) -> Array:
        """Return the mask of the rows that are on none of these lists of dropped documents, which are in the order of rows.

        Raises:
            ValueError: a list does not belong to these shards.
        """
        kept = np.ones(self.rows, np.bool_)
        for path in lists:
            shard, at = 0, 0
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["id"]):
                    shard, at = self._strike(kept, id_numbers(batch.column(0)), shard, at)
                    if shard == len(self.shards):
                        raise ValueError(f"{path}: lists a document that these shards do not hold, or not in this order")
        return kept

    def _strike(self, kept: Array, listed: Array, shard: int, at: int) -> tuple[int, int]:
        """Take listed ids out of `kept`, looking from row `at` of a shard on; return where the last one stands."""
        done = 0
        while done < len(listed) and shard < len(self.shards):
            ids = np.load(self.shards[shard][1] / "ids.npy", mmap_mode="r").view(np.ndarray)
            begin = int(self.starts[shard])
            done, at = _follow(ids, listed, done, at, kept[begin : begin + len(ids)])
            if done < len(listed):
                shard, at = shard + 1, 0
        return shard, at

    def shingles(self, wanted: Array, spool: Spool, offsets: Array) -> Array:
        """Return a memory map of the shingle sets of the rows of a mask; row r's lies at offsets[r] to offsets[r + 1].

        Args:
            wanted: mask of rows.
            spool: where the sets go.
            offsets: int64, one longer than there are rows; filled here.
        """
        filled = 0
        for rows, batch in self.batches(["text"], wanted):
            sets, ends = shingle_sets(text_buffers(batch.column("text")), SHINGLE_WORDS)
            offsets[filled : rows[0] + 1] = spool.rows
            filled = _place(offsets, rows, ends, spool.rows)
            spool.append(sets)
        offsets[filled:] = spool.rows
        return spool.view()

    def parts(self, name: str) -> Iterator[Array]:
        """Yield the array `name`.npy of each shard as a memory map."""
        for _, folder in self.shards:
            yield np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)


def _read(file: pq.ParquetFile, group: int, columns: Sequence[str], rows: Array) -> pa.RecordBatch:
    (batch,) = file.read_row_group(group, columns=list(columns)).combine_chunks().to_batches()
    return batch if len(rows) == len(batch) else batch.take(pa.array(rows))


@kernel
def _place(offsets: Array, rows: Array, ends: Array, base: int) -> int:
    """Write where the sets of ascending `rows` begin and end; rows between them have none. Return the row after the last."""
    for k in range(len(rows)):
        offsets[rows[k]] = base + ends[k]
        until = rows[k + 1] if k + 1 < len(rows) else rows[k] + 1
        for row in range(rows[k] + 1, until + 1):
            offsets[row] = base + ends[k + 1]
    return rows[-1] + 1


@kernel
def _follow(ids: Array, listed: Array, done: int, at: int, kept: Array) -> tuple[int, int]:
    """Walk through ids from row `at`, striking those that are listed from position `done` on, in the same order."""
    while at < len(ids) and done < len(listed):
        if ids[at, 0] == listed[done, 0] and ids[at, 1] == listed[done, 1]:
            kept[at] = False
            done += 1
        at += 1
    return done, at


def id_numbers(ids: pa.StringArray) -> Array:
    """Return ids as two big-endian numbers, shape (n, 2), uint64: they sort as the hexadecimal text does."""
    offsets, data = text_buffers(ids)
    digits = _HEX[data[offsets[0] : offsets[-1]]].reshape(-1, 32)
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)


def id_text(numbers: Array) -> str:
    """Return the hexadecimal text of one id; the reverse of `id_numbers`."""
    high, low = numbers.tolist()
    return f"{high:016x}{low:016x}"
