"""Arrays that do not fit in memory: files of rows, scratch files, and all shards as one table.

Whatever has one entry per document lives in a memory-mapped file, whose pages the system can evict.
Columns are read one row group at a time. So memory does not grow with the corpus.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.artifacts.arrays import Array, text_array, text_buffers
from groundup.artifacts.corpus import Cuts, read_rows
from groundup.artifacts.document import read_batches
from groundup.refine.dedup.minhash import shingle_sets
from groundup.refine.kernels import kernel
from groundup.runtime.workers.map import map_ahead

# Rows or hashes processed at a time: 2 MB of 64-bit values.
BLOCK_ROWS = 1 << 18
# Rows copied at a time by RowFile.save; 448-byte signatures make this 29 MB.
_SAVED_ROWS = 1 << 16
# Rows in a table of documents, and columns of these rows.
Batch: TypeAlias = tuple[Array, pa.RecordBatch]
# Bytes of shingle sets copied at a time.
_COPIED_BYTES = 32 << 20
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass
class RowFile:
    """A temporary file to which blocks of rows of one width and type are appended."""

    path: Path
    dtype: np.dtype[np.generic]
    width: int = 1
    rows: int = 0
    _file: BinaryIO = field(init=False, repr=False)

    def __enter__(self) -> RowFile:
        self._file = self.path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def append(self, block: Array) -> None:
        """Append rows: shape (n, width), or (n,) for a width of 1."""
        self._file.write(np.ascontiguousarray(block, self.dtype).tobytes())
        self.rows += len(block)

    def clear(self) -> None:
        """Remove all rows. Views of them are invalid from now on."""
        self._file.seek(0)
        self._file.truncate()
        self.rows = 0

    def view(self, mode: Literal["r", "r+"] = "r") -> Array:
        """Return all rows as a memory map, shape (rows, width), or (rows,) for a width of 1."""
        self._file.flush()
        shape = (self.rows, self.width) if self.width > 1 else (self.rows,)
        return _map(self.path, self.dtype, mode, shape)

    def save(self, path: Path, transpose: bool = False) -> None:
        """Write the rows as `.npy`; transposed, shape (width, rows), each column is contiguous."""
        rows = self.view()
        out = create_array(path, self.dtype, rows.shape[::-1] if transpose else rows.shape)
        ordered = out.T if transpose else out
        for begin in range(0, self.rows, _SAVED_ROWS):
            ordered[begin : begin + _SAVED_ROWS] = rows[begin : begin + _SAVED_ROWS]


def _map(path: Path, dtype: Any, mode: Literal["r", "r+", "w+"], shape: tuple[int, ...]) -> Array:
    """Map a file of numbers; an empty file cannot be mapped."""
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, mode, shape=shape).view(np.ndarray)


def create_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> Array:
    """Return the memory map of a new `.npy` file of zeros; not mapped if it is empty."""
    if 0 in shape:
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(path, "w+", dtype, shape).view(np.ndarray)


def hash_ranges(count: int, max_hashes: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last hash of ranges that hold about `max_hashes` of `count` hashes each.

    Hashes are uniform, so ranges of equal width hold about equally many.
    """
    parts = 1 + count // max_hashes
    bounds = [(part << 64) // parts for part in range(parts + 1)]
    for low, high in pairwise(bounds):
        yield low, high - 1


def hash_parts(hashes: Array, max_hashes: int) -> Iterator[Array]:
    """Yield the indices (ascending) of the hashes in each of the `hash_ranges` that has any."""
    for low, high in hash_ranges(len(hashes), max_hashes):
        indices = []
        for begin in range(0, len(hashes), BLOCK_ROWS):
            block = hashes[begin : begin + BLOCK_ROWS]
            inside = (block >= np.uint64(low)) & (block <= np.uint64(high))
            indices.append(np.flatnonzero(inside) + begin)
        if any(map(len, indices)):
            yield np.concatenate(indices)


def first_of_runs(values: Array) -> Array:
    """Return the index of the first of each run of equal values."""
    return np.flatnonzero(np.diff(values, prepend=~values[:1]))


def map_array(folder: Path, name: str) -> Array:
    """Return the array in `name`.npy as a memory map."""
    return np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)


@dataclass(frozen=True)
class IndexedShard:
    """A refined shard, and where its documents stand in the table of all shards."""

    name: str  # `SOURCE.SHARD`
    folder: Path
    first: int  # row of its first document
    documents: int

    def unlisted(self, duplicates: Path) -> Array:
        """Return the mask of its documents that are not in a file of listed rows, [n, 2]."""
        rows = np.load(duplicates, mmap_mode="r")[:, 0]
        # NumPy's search would copy the column.
        begin, end = (bisect_left(rows, self.first + row) for row in (0, self.documents))
        mask = np.ones(self.documents, np.bool_)
        mask[rows[begin:end] - self.first] = False
        return mask


@dataclass(frozen=True)
class DocumentTable:
    """The documents of all refined shards as one table; a row is the index of a document in it."""

    shards: Sequence[tuple[str, Path]]  # name (`SOURCE.SHARD`) and folder of each shard, in order
    # File of the cuts of a shard, by name; texts and lengths are those after the cuts.
    cuts: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 1  # that make shingles
    # Artifacts of `write_shingles`, one for each shard, where other tasks have made them.
    sets: Sequence[Path] = ()

    @cached_property
    def starts(self) -> Array:
        """First row of each shard, then the number of rows (int64)."""
        counts = [len(sizes) for sizes in self.arrays("sizes")]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def rows(self) -> int:
        """Number of documents."""
        return int(self.starts[-1])

    @cached_property
    def sources(self) -> list[str]:
        """Names of the sources, in order of appearance."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name, _ in self.shards))

    @cached_property
    def spans(self) -> list[slice]:
        """The rows of each shard."""
        return [slice(begin, end) for begin, end in pairwise(self.starts.tolist())]

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Yield the index of a source and a block of at most BLOCK_ROWS rows of one shard."""
        for (name, _), span in zip(self.shards, self.spans, strict=True):
            source = self.sources.index(name.rpartition(".")[0])
            for begin in range(span.start, span.stop, BLOCK_ROWS):
                yield source, slice(begin, min(begin + BLOCK_ROWS, span.stop))

    def arrays(self, name: str) -> Iterator[Array]:
        """Yield the array `name`.npy of each shard as a memory map."""
        for _, folder in self.shards:
            yield map_array(folder, name)

    def cut_shards(self) -> Iterator[tuple[tuple[str, Path], slice, Cuts]]:
        """Yield the shards that have cuts, with their rows and their cuts."""
        for shard, span in zip(self.shards, self.spans, strict=True):
            if shard[0] in self.cuts:
                yield shard, span, Cuts.load(self.cuts[shard[0]])

    def batches(self, columns: Sequence[str], mask: Array | None = None) -> Iterator[Batch]:
        """Yield rows and columns of documents, one row group at a time; of a mask, if given."""
        for (name, folder), first in zip(self.shards, self.starts, strict=False):
            chosen = None if mask is None else mask[first:]
            path = folder / "documents.parquet"
            for rows, batch in read_rows(path, self.cuts.get(name), columns, chosen):
                yield rows + first, batch

    def row_group(
        self, shard: int, group: int, columns: Sequence[str], mask: Array
    ) -> Iterator[Batch]:
        """Yield rows and columns of the documents of a mask in one row group of a shard, if any."""
        (name, folder), first = self.shards[shard], self.starts[shard]
        path = folder / "documents.parquet"
        for rows, batch in read_rows(path, self.cuts.get(name), columns, mask[first:], group):
            yield rows + first, batch

    def listed(self, path: Path, columns: Sequence[str] = ()) -> Iterator[Batch]:
        """Yield the rows (int64) of the documents in a list, with columns of the list.

        Raises ValueError if the list names other documents, or not in the order of the rows.
        """
        shard, pos = 0, 0
        for batch in read_batches([path], ["id", *columns]):
            rows, done = np.empty(len(batch), np.int64), 0
            ids = parse_ids(batch.column("id"))
            while done < len(ids):
                if shard == len(self.shards):
                    problem = "lists a document that these shards do not hold, or not in this order"
                    raise ValueError(f"{path}: {problem}")
                here, first = map_array(self.shards[shard][1], "ids"), self.starts[shard]
                done, pos = _match(here, ids, done, pos, first, rows)
                if done < len(ids):
                    shard, pos = shard + 1, 0
            yield rows, batch

    def shingles(self, mask: Array, file: RowFile, offsets: Array) -> Array:
        """Return a memory map of the shingle sets of the rows of a mask, written to `file`.

        Fills `offsets`, int64 [rows + 1], all 0 before: the set of row r begins at offsets[r], and
        ends at the next offset. Rows outside of the mask have empty sets.
        """
        for rows, sizes, sets in self._shingles(mask):
            offsets[rows + 1] = sizes
            file.append(sets)
        np.cumsum(offsets, out=offsets)
        return file.view()

    def _shingles(self, mask: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Yield rows, and the sizes and shingle sets of these rows."""
        for k, folder in enumerate(self.sets):
            sets, sizes = map_array(folder, "sets"), np.diff(map_array(folder, "offsets"))
            rows, begin = self.starts[k] + np.arange(len(sizes)), 0
            for part in np.array_split(np.arange(len(sizes)), 1 + sets.nbytes // _COPIED_BYTES):
                end = begin + int(sizes[part].sum())
                yield rows[part], sizes[part], sets[begin:end]
                begin = end
        if self.sets:
            return

        def sets_of(group: tuple[int, int]) -> list[tuple[Array, Array, Array]]:
            made = []
            for rows, batch in self.row_group(*group, ["text"], mask):
                sets, ends = shingle_sets(text_buffers(batch.column("text")))
                made.append((rows, np.diff(ends), sets))
            return made

        groups = (
            (k, group)
            for k, (_, folder) in enumerate(self.shards)
            if mask[self.spans[k]].any()
            for group in range(pq.read_metadata(folder / "documents.parquet").num_row_groups)
        )
        for made in map_ahead(sets_of, groups, self.threads):
            yield from made


@kernel
def _match(
    ids: Array, listed: Array, done: int, pos: int, first: int, rows: Array
) -> tuple[int, int]:
    """Walk through the ids of a shard from `pos`; write the rows of listed ids from `done` on."""
    while pos < len(ids) and done < len(listed):
        if ids[pos, 0] == listed[done, 0] and ids[pos, 1] == listed[done, 1]:
            rows[done] = first + pos
            done += 1
        pos += 1
    return done, pos


def parse_ids(ids: pa.StringArray) -> Array:
    """Return ids as pairs of numbers, shape (n, 2), uint64; they sort as the text does."""
    offsets, data = text_buffers(ids)
    digits = _HEX[data[offsets[0] : offsets[-1]]].reshape(-1, 32)
    return (digits[:, ::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)


def format_ids(ids: Array) -> pa.StringArray:
    """Return the hexadecimal text of ids; the reverse of `parse_ids`."""
    digits = ids.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, len(digits) + 1, 32, dtype=np.int32)
    return text_array(offsets, np.frombuffer(digits, np.uint8))


@dataclass(frozen=True)
class Scratch:
    """A folder of temporary memory-mapped arrays; used as a context manager."""

    folder: Path

    def __enter__(self) -> Scratch:
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def rows(self, name: str, dtype: Any, width: int = 1) -> RowFile:
        """Return a new file of rows; used as a context manager, which removes it."""
        return RowFile(self.folder / name, np.dtype(dtype), width)

    def full(self, name: str, rows: int, dtype: Any, value: Any = 0) -> Array:
        """Return an array of `rows` entries that all equal `value`."""
        array = _map(self.folder / name, dtype, "w+", (rows,))
        if value:
            array[:] = value
        return array

    def joined(self, table: DocumentTable, name: str) -> Array:
        """Return the arrays `name`.npy of all shards as one array."""
        with (self.folder / name).open("wb") as out:
            shape, dtype = (0,), np.dtype(np.uint8)
            for part in table.arrays(name):
                shape, dtype = part.shape, part.dtype
                part.tofile(out)
        return _map(self.folder / name, dtype, "r", (table.rows, *shape[1:]))

    def kept(self, table: DocumentTable, lists: Sequence[Path]) -> Array:
        """Return the mask of the rows that no list of dropped documents names.

        Raises ValueError if a list does not belong to the table.
        """
        mask = self.full("kept", table.rows, np.bool_, True)
        for path in lists:
            for rows, _ in table.listed(path):
                mask[rows] = False
        return mask

    def lengths(self, table: DocumentTable) -> Array:
        """Return the length of every document in UTF-8 bytes after its cuts (uint32)."""
        lengths = self.full("lengths", table.rows, np.uint32)
        for part, first in zip(table.arrays("sizes"), table.starts.tolist(), strict=False):
            lengths[first : first + len(part)] = part
        for _, rows, cuts in table.cut_shards():
            lengths[rows] -= cuts.removed(rows.stop - rows.start).astype(np.uint32)
        return lengths
