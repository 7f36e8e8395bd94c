"""All refined shards seen as one long table of rows, in shard order. Reads refine/shard artefacts; writes nothing.

What is held at once is a few numbers a document (16 bytes of id and of hash, 4 of size, 8 of one band); texts pass
through a row group at a time, and shingle sets go to a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.cuts import Cuts
from groundup.document import read_batches
from groundup.refine.arrays import Array, mask, text_buffers
from groundup.refine.kernels import EMPTY, SHINGLE_WORDS, band_keys, shingle_sets
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
        counts = [len(sizes) for sizes in self._parts("sizes.npy")]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """Number of documents."""
        return int(self.starts[-1])

    @cached_property
    def sizes(self) -> Array:
        """UTF-8 bytes of every document (uint32)."""
        whole = zip(self.shards, self._parts("sizes.npy"), strict=True)
        parts = [part - Cuts.load(self.cuts.get(name)).removed(len(part)) for (name, _), part in whole]
        return np.concatenate([np.zeros(0, np.uint32), *parts]).astype(np.uint32)

    @property
    def hashes(self) -> Array:
        """MD5 of every document, shape (rows, 2), uint64."""
        return np.concatenate([np.zeros((0, 16), np.uint8), *self._parts("hashes.npy")]).view(np.uint64)

    @cached_property
    def ids(self) -> Array:
        """Ids as two big-endian numbers, shape (rows, 2), uint64: they sort as the hexadecimal text does."""
        parts = [_id_numbers(batch.column("id")) for _, batch in self.batches(["id"])]
        return np.concatenate([np.zeros((0, 2), np.uint64), *parts])

    def id_text(self, row: int) -> str:
        """Return the id of a row as it stands in documents.parquet."""
        high, low = self.ids[row].tolist()
        return f"{high:016x}{low:016x}"

    @cached_property
    def sources(self) -> tuple[list[str], Array]:
        """Names of the sources in order of appearance, and the number of the source of every row (int32)."""
        of_shard = [name.rpartition(".")[0] for name, _ in self.shards]
        names = list(dict.fromkeys(of_shard))
        return names, np.repeat(np.array([names.index(name) for name in of_shard], np.int32), np.diff(self.starts))

    def batches(self, columns: Sequence[str], wanted: Array | None = None) -> Iterator[tuple[Array, pa.RecordBatch]]:
        """Yield row numbers and columns of the documents, row group by row group; with `wanted` (a mask) only of those."""
        for (name, folder), first in zip(self.shards, self.starts, strict=False):
            cuts, row = Cuts.load(self.cuts.get(name)), first
            for batch in read_batches([folder / "documents.parquet"], columns):
                rows = np.arange(row, row + len(batch))
                row += len(batch)
                if wanted is None:
                    yield rows, cuts.apply(batch, rows - first)
                elif wanted[rows].any():
                    yield rows[wanted[rows]], cuts.apply(batch, rows - first).filter(pa.array(wanted[rows]))

    def kept(self, lists: Sequence[Path]) -> Array:
        """Return the mask of the rows that are on none of these lists of dropped documents."""
        dropped = pa.concat_arrays([pq.read_table(path, columns=["id"]).column("id").combine_chunks() for path in lists])
        kept = np.ones(self.rows, np.bool_)
        for rows, batch in self.batches(["id"]) if len(dropped) else ():
            kept[rows] = ~mask(pc.is_in(batch.column("id"), dropped))
        return kept

    def band(self, first: int, count: int) -> Array:
        """Return a key (uint64) of signature rows first … first + count - 1 for every document."""
        parts = [band_keys(np.ascontiguousarray(part[first : first + count]), first) for part in self._parts("signatures.npy")]
        return np.concatenate([np.zeros(0, np.uint64), *parts])

    @cached_property
    def comparable(self) -> Array:
        """Mask of the documents that have a shingle at all."""
        parts = [(part[0] != EMPTY) | (part[1] != EMPTY) for part in self._parts("signatures.npy")]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def shingles(self, rows: Array, spool: Spool) -> tuple[Array, Array]:
        """Return the shingle sets of some rows (ascending): a memory map of all hashes, and their offsets (int64)."""
        wanted = np.zeros(self.rows, np.bool_)
        wanted[rows] = True
        ends = [np.zeros(1, np.int64)]
        for _, batch in self.batches(["text"], wanted):
            sets, offsets = shingle_sets(text_buffers(batch.column("text")), SHINGLE_WORDS)
            ends.append(offsets[1:] + spool.rows)
            spool.append(sets)
        return spool.view(), np.concatenate(ends)

    def _parts(self, name: str) -> Iterator[Array]:
        for _, folder in self.shards:
            yield np.load(folder / name, mmap_mode="r").view(np.ndarray)


def _id_numbers(ids: pa.StringArray) -> Array:
    offsets, data = text_buffers(ids)
    digits = _HEX[data[offsets[0] : offsets[-1]]].reshape(-1, 32)
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)


@dataclass(frozen=True)
class Buckets:
    """Which rows share a band with another row.

    Attributes:
        rows: the rows that do, ascending.
        starts: where the memberships of each of them begin in `buckets` (one longer than `rows`).
        buckets: number of the bucket of each membership, bands in order.
        count: of buckets.
    """

    rows: Array
    starts: Array
    buckets: Array
    count: int


def shared_buckets(corpus: Corpus, rows: Array, bands: int, band_rows: int) -> Buckets:
    """Find the LSH buckets that hold at least two of `rows` (ascending), one band at a time."""
    members, buckets, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for band in range(bands):
        keys = corpus.band(band * band_rows, band_rows)[rows]
        order = np.argsort(keys, kind="stable")
        new = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
        sizes = np.diff(new, append=len(order))
        number = np.repeat(np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1), sizes)
        members.append(rows[order[number >= 0]])
        buckets.append(number[number >= 0] + count)
        count += int((sizes > 1).sum())
    member, bucket = np.concatenate(members), np.concatenate(buckets)
    order = np.argsort(member, kind="stable")
    found, starts = np.unique(member[order], return_index=True)
    return Buckets(found, np.append(starts, len(member)).astype(np.int64), bucket[order], count)
