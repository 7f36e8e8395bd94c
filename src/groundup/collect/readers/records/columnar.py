"""Rows of Parquet files, Arrow files (Feather) and Arrow streams.

A value that Python cannot hold costs nothing but itself: text that is not UTF-8 is repaired, a date
beyond the year 9999 becomes its number. A damaged row group or batch costs its rows, and is listed.

A few bytes of such a file may stand for gigabytes: a dictionary of one long text, a run, zeros that
compress. So values are charged to the budget of the raw file before they become Python objects, and
the library decodes within a limit of memory.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.document import Reject
from groundup.collect.charset import decode
from groundup.collect.files.formats import detect_format
from groundup.collect.files.streams import DamagedError, Item, memory_limit, spool
from groundup.errors import one_line

# Rows that Parquet decodes at a time, and bytes of values that become Python objects at a time.
BATCH_ROWS = 64
BATCH_BYTES = 16 << 20
MAX_ROW = 64 << 20
# Of columns that nobody asked for, this many are named, or read where there are no others.
MAX_UNUSED = 64
# A row without a value takes time too: of a file of kilobytes at most 4 million rows are read.
ROW_BYTES = 64.0
# What the library may allocate for a batch. `datasets` and Feather write 1,000 to 65,536 rows.
MAX_BATCH = 2 << 30
# Bytes of a Parquet column that are read at a time; by default it is the whole column.
_BUFFER = 1 << 20


Rows = Iterator[tuple[int, dict[str, Any] | Reject]]
Batches = Iterator[tuple[int, pa.RecordBatch | Reject]]  # each with the number of its first row


def read_columnar(item: Item, columns: Collection[str] | None = None) -> Rows:
    """Yield the rows of a file, numbered; one that cannot be read is a Reject.

    `columns` are those to read, in lower case; by default all are read, and the first ones where
    the file has none of them. The value of a column that is not read is None; only the first such
    columns of a wide table are named at all. Raises DamagedError if the file cannot be read any
    further, or its values exceed its budget.
    """
    is_parquet = detect_format(item.name, item.head) == "parquet"
    try:
        for first, batch in (_read_parquet if is_parquet else _read_arrow)(item, columns):
            if isinstance(batch, Reject):
                yield first, batch
            else:
                yield from _rows(batch, first, item)
    except (pa.ArrowException, OSError) as error:
        raise _damage(error, f"not {'Parquet' if is_parquet else 'Arrow'}") from None


def _damage(error: Exception, where: str) -> DamagedError:
    if isinstance(error, DamagedError):
        return DamagedError(error.reason, f"{where}: {error.detail}")
    return DamagedError("damaged", f"{where}: {one_line(error, 200)}")


def _read_parquet(item: Item, columns: Collection[str] | None) -> Batches:
    """Yield batches; a Reject for the rest of a damaged row group."""
    with memory_limit(MAX_BATCH):
        file = pq.ParquetFile(item.path or spool(item.stream), buffer_size=_BUFFER)
    schema = file.schema_arrow
    used = _used_columns(schema, columns)
    first = item.first
    with file:
        for group in _groups_of(file.metadata, item.span):
            rows, done = max(0, file.metadata.row_group(group).num_rows), 0
            damage: DamagedError | None = None
            # Where 64 rows take too much memory, they are decoded one at a time.
            for size in (BATCH_ROWS, 1):
                batches = file.iter_batches(size, [group], used, use_threads=False)
                try:
                    for batch in _bounded(batches, done):
                        yield first + done, _complete(batch, schema)
                        done += len(batch)
                    damage = None
                    break
                except (pa.ArrowException, OSError, DamagedError) as error:
                    where = f"rows {first + done} to {first + rows - 1} (row group {group})"
                    damage = _damage(error, where)
                    if damage.reason == "damaged":
                        break
            if damage is not None:
                yield first + done, Reject(damage.reason, first + done, damage.detail)
            first += max(rows, done)


def _groups_of(metadata: Any, span: tuple[int, int] | None) -> Iterable[int]:
    """Return the row groups of a piece of a file: those that begin in these bytes; or all."""
    groups = range(metadata.num_row_groups)
    if span is None:
        return groups
    starts = _group_starts(metadata)
    return [group for group in groups if span[0] <= starts[group] < span[1]]


def _group_starts(metadata: Any) -> list[int]:
    """Return the place of the first byte of each row group."""
    starts = []
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = [group.column(number) for number in range(group.num_columns)]
        places = [(c.dictionary_page_offset, c.data_page_offset) for c in columns]
        starts.append(min((min(filter(None, place), default=0) for place in places), default=0))
    return starts


def cut_row_groups(path: Path, size: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Return where to cut a Parquet file: the first byte and the first row of each piece.

    A piece is longer than `piece_bytes` only if it is one row group. A file whose row groups do not
    lie one after another, or that cannot be read, is one piece.
    """
    cuts = [(0, 0)]
    try:
        with memory_limit(MAX_BATCH), pq.ParquetFile(path) as file:
            starts = _group_starts(file.metadata)
            groups = map(file.metadata.row_group, range(len(starts)))
            rows = [group.num_rows for group in groups]
    except (pa.ArrowException, OSError, DamagedError):
        return cuts
    places = [*starts, size]
    if min(rows, default=0) < 0 or any(a >= b for a, b in pairwise([0, *places])):
        return cuts
    first = 0
    for (start, stop), count in zip(pairwise(places), rows, strict=True):
        if first and stop - cuts[-1][0] > piece_bytes:
            cuts.append((start, first))
        first += count
    return cuts


def _bounded(batches: Iterator[pa.RecordBatch], passed: int = 0) -> Iterator[pa.RecordBatch]:
    """Yield batches, each decoded within MAX_BATCH, but those of the first `passed` rows."""
    while True:
        with memory_limit(MAX_BATCH):
            batch = next(batches, None)
        if batch is None:
            return
        if passed > 0:
            passed -= len(batch)
        else:
            yield batch


def _read_arrow(item: Item, columns: Collection[str] | None) -> Batches:
    """Yield batches; a Reject for each that is damaged: Arrow trusts offsets, and may crash."""
    is_file = item.head.startswith(b"ARROW1")
    with memory_limit(MAX_BATCH):
        if is_file:
            file: Any = pa.ipc.open_file(item.path or spool(item.stream))
        else:
            file = pa.ipc.open_stream(_ChunkedReader(item.stream))  # `datasets` saves streams
    used = _used_columns(file.schema, columns)
    first = 0
    # A map goes on after the error of one batch; a stream is lost from there on.
    batches = _bounded(map(file.get_batch, range(file.num_record_batches)) if is_file else file)
    with file:
        for batch in batches:
            read = batch.select(used)
            try:
                try:
                    read.validate(full=True)
                except pa.ArrowInvalid:
                    # It may be that a text is not UTF-8, and nothing else is wrong.
                    for column in read.columns:
                        column.cast(_bytes_type(column.type)).validate(full=True)
                yield first, _complete(read, file.schema)
            except pa.ArrowException as error:
                damage = _damage(error, f"rows {first} to {first + len(batch) - 1}")
                yield first, Reject(damage.reason, first, damage.detail)
            first += len(batch)


def _used_columns(schema: pa.Schema, columns: Collection[str] | None) -> list[str]:
    used = [name for name in schema.names if columns is None or name.lower() in columns]
    return used or schema.names[:MAX_UNUSED]


def _complete(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the columns of its file; those that were not read are null.

    Of these only the first MAX_UNUSED stay: they are what a person is shown.
    """
    read = dict(zip(batch.schema.names, batch.columns, strict=True))
    unread = pa.nulls(len(batch))
    names = list(dict.fromkeys((*schema.names[:MAX_UNUSED], *read)))
    return pa.RecordBatch.from_arrays([read.get(name, unread) for name in names], names)


def _bytes_type(kind: pa.DataType) -> pa.DataType:
    """Return a type with bytes in the places of texts."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_bytes_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_bytes_type(kind.value_type))
    return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)


def _rows(batch: pa.RecordBatch, first: int, item: Item) -> Rows:
    """Yield the rows of a batch; at a time, those whose values take BATCH_BYTES."""
    names = batch.schema.names
    start = 0
    while start < len(batch):
        block = batch.slice(start, BATCH_ROWS)
        sizes = sum(map(value_sizes, block.columns), np.full(len(block), ROW_BYTES))
        count = max(1, int(np.searchsorted(np.cumsum(sizes), BATCH_BYTES, "right")))
        size = int(sizes[:count].sum())
        item.budget.take(size)
        index = first + start
        if size > MAX_ROW:
            yield index, Reject("too-large", index, f"a row of {size >> 20} MB")
        else:
            columns = block.slice(0, count).columns
            try:
                values = [column.to_pylist() for column in columns]
            except (ValueError, OverflowError, LookupError):
                # A text that is not UTF-8, a date after the year 9999, a time zone nobody knows.
                values = [list(map(_repaired, column)) for column in columns]
            for number, row in enumerate(zip(*values, strict=True), index):
                yield number, dict(zip(names, row, strict=True))
        start += count


def value_sizes(array: pa.Array) -> npt.NDArray[np.float64]:  # noqa: PLR0911 - a table of types
    """Return about how many bytes each value of [rows] takes as an object of Python.

    What a dictionary, a run or a view stands for counts wherever it is used.
    """
    kind = array.type
    fixed = np.full(len(array), 8.0)
    if isinstance(array, pa.ExtensionArray):
        return value_sizes(array.storage)
    if pa.types.is_dictionary(kind):
        codes = array.indices.cast(pa.int64()).fill_null(-1).to_numpy()
        return _repeated_sizes(array.dictionary, codes)
    if pa.types.is_run_end_encoded(kind):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, np.arange(len(array.values)))
        decoded = pc.run_end_decode(runs.slice(array.offset, len(array)))
        return _repeated_sizes(array.values, decoded.to_numpy())
    if isinstance(array, pa.StructArray):
        return sum((value_sizes(field) for field in array.flatten()), fixed)
    if pa.types.is_union(kind):
        raise DamagedError("unsupported-format", "a column of a union type is not read")
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        # They may overlap: what they show is summed without being written out.
        ends = np.cumsum(np.append(0.0, value_sizes(array.values)))
        starts, lengths = array.offsets.to_numpy(), array.sizes.to_numpy()
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        return fixed + np.where(valid, ends[starts + lengths] - ends[starts], 0)
    if kind.num_fields == 1:
        sizes = value_sizes(pc.list_flatten(array))  # lists, and maps
        return fixed + np.bincount(pc.list_parent_indices(array), sizes, len(array))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        views = array.cast(pa.binary_view())
        return fixed + [value.as_buffer().size if value.is_valid else 0 for value in views]
    try:
        return fixed + pc.fill_null(pc.binary_length(array), 0).to_numpy()
    except pa.ArrowNotImplementedError:
        return fixed


def _repeated_sizes(values: pa.Array, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the size of the value at each of `rows`; -1 is a null."""
    used, places = np.unique(rows, return_inverse=True)
    return value_sizes(values.take(pa.array(used, mask=used < 0)))[places]


def _repaired(scalar: pa.Scalar) -> Any:
    """Return the value of a scalar: text in any encoding, and the number of a time."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, LookupError):
        pass
    if isinstance(scalar, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar):
        return decode(scalar.as_buffer().to_pybytes())
    if isinstance(scalar, pa.StructScalar):
        return {name: _repaired(scalar[name]) for name in scalar}
    if isinstance(scalar, pa.ListScalar):
        return list(map(_repaired, scalar.values))
    if isinstance(scalar, pa.DictionaryScalar | pa.ExtensionScalar):
        return _repaired(scalar.value)
    return scalar.value


class _ChunkedReader(io.RawIOBase):
    """A stream that reads in chunks, so a length field that lies allocates no memory."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all that are left."""
        chunks = []
        while size and (chunk := self._stream.read(min(size, 1 << 20) if size > 0 else 1 << 20)):
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)
