"""All refined shards seen as one long table of rows, in shard order. Reads refine/shard artifacts;
writes nothing.

Nothing here holds anything for every document: columns pass through a row group at a time, and
masks are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.corpus import Cuts, read_rows
from groundup.refine.dedup.minhash import SHINGLE_WORDS, shingle_sets
from groundup.refine.kernels import kernel
from groundup.refine.out_of_core.row_file import Spool

# Rows that a step looks at in one go: 2 MB for a number of each.
BLOCK_ROWS = 1 << 18
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True)
class Corpus:
    """Refined shards by name ("SOURCE.SHARD") and folder, in order.

    Attributes:
        cuts: files of what is cut out of the texts, by name of the shard; texts and sizes are those
            without it.
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
    def names(self) -> list[str]:
        """Names of the sources, in order of appearance."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in self.shards))

    @cached_property
    def source_of_shard(self) -> list[int]:
        """For each shard the number of its source among `names`."""
        numbers = {name: number for number, name in enumerate(self.names)}
        return [numbers[name.rpartition(".")[0]] for name, _ in self.shards]

    @cached_property
    def spans(self) -> list[slice]:
        """The rows of each shard."""
        return [slice(begin, end) for begin, end in pairwise(self.starts.tolist())]

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Yield all rows, at most BLOCK_ROWS at a time and of one shard: the number of their
        source, and which they are.
        """
        for source, span in zip(self.source_of_shard, self.spans, strict=True):
            for begin in range(span.start, span.stop, BLOCK_ROWS):
                yield source, slice(begin, min(begin + BLOCK_ROWS, span.stop))

    def id_text(self, row: int) -> str:
        """Return the id of a row as it stands in documents.parquet."""
        shard = int(np.searchsorted(self.starts, row, side="right")) - 1
        return id_text(self._ids(shard)[row - self.starts[shard]])

    def cut_shards(self) -> Iterator[tuple[tuple[str, Path], slice, Cuts]]:
        """Yield the shards out of whose texts something is cut, their rows, and their cuts."""
        for shard, span in zip(self.shards, self.spans, strict=True):
            if shard[0] in self.cuts:
                yield shard, span, Cuts.load(self.cuts[shard[0]])

    def batches(
        self, columns: Sequence[str], wanted: Array | None = None
    ) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield row numbers and columns of the documents, row group by row group; with `wanted` (a
        mask) only of those.
        """
        for (name, folder), first in zip(self.shards, self.starts, strict=False):
            path, chosen = folder / "documents.parquet", None if wanted is None else wanted[first:]
            for rows, batch in read_rows(path, self.cuts.get(name), columns, chosen):
                yield rows + first, batch

    def listed(
        self, path: Path, columns: Sequence[str] = ()
    ) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield a list of documents, which is in the order of rows: their rows (int64), and columns
        of the list.

        Raises:
            ValueError: the list does not belong to these shards.
        """
        shard, at = 0, 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", *columns]):
                rows, done = np.empty(len(batch), np.int64), 0
                ids = id_numbers(batch.column("id"))
                while done < len(ids):
                    if shard == len(self.shards):
                        raise ValueError(
                            f"{path}: lists a document that these shards do not hold, or not in"
                            " this order"
                        )
                    done, at = _follow(self._ids(shard), ids, done, at, self.starts[shard], rows)
                    shard, at = (shard, at) if done == len(ids) else (shard + 1, 0)
                yield rows, batch

    def _ids(self, shard: int) -> Array:
        return np.load(self.shards[shard][1] / "ids.npy", mmap_mode="r").view(np.ndarray)

    def shingles(self, wanted: Array, spool: Spool, offsets: Array) -> Array:
        """Return a memory map of the shingle sets of the rows of a mask; row r's lies at offsets[r]
        to offsets[r + 1].

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


@kernel
def _place(offsets: Array, rows: Array, ends: Array, base: int) -> int:
    """Write where the sets of ascending `rows` begin and end; rows between them have none. Return
    the row after the last.
    """
    for k in range(len(rows)):
        offsets[rows[k]] = base + ends[k]
        until = rows[k + 1] if k + 1 < len(rows) else rows[k] + 1
        for row in range(rows[k] + 1, until + 1):
            offsets[row] = base + ends[k + 1]
    return rows[-1] + 1


@kernel
def _follow(
    ids: Array, listed: Array, done: int, at: int, first: int, rows: Array
) -> tuple[int, int]:
    """Walk through the ids of a shard from `at`, noting the rows of those that are listed from
    `done` on, in the same order.
    """
    while at < len(ids) and done < len(listed):
        if ids[at, 0] == listed[done, 0] and ids[at, 1] == listed[done, 1]:
            rows[done] = first + at
            done += 1
        at += 1
    return done, at


def id_numbers(ids: pa.StringArray) -> Array:
    """Return ids as two big-endian numbers, shape (n, 2), uint64: they sort as the hexadecimal text
    does.
    """
    offsets, data = text_buffers(ids)
    digits = _HEX[data[offsets[0] : offsets[-1]]].reshape(-1, 32)
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)


def id_text(numbers: Array) -> str:
    """Return the hexadecimal text of one id; the reverse of `id_numbers`."""
    high, low = numbers.tolist()
    return f"{high:016x}{low:016x}"
