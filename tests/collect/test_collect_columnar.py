"""Parquet and Arrow: a bad value costs itself, damage costs its rows, a bomb its file."""

from __future__ import annotations

import io
import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.records.columnar import read_columnar, value_sizes
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

Row = Document | Reject
BAD = b"the river \xe9 \xff\xfe and the stone"


def parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def arrow(table: pa.Table, rows: int = 100) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def feather_file(table: pa.Table) -> bytes:
    out = io.BytesIO()
    feather.write_feather(table, out, chunksize=100)
    return out.getvalue()


WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "x.parquet": parquet,
    "x.arrow": arrow,
    "x.feather": feather_file,
}


def texts(values: list[bytes]) -> pa.Array:
    """Return a column of strings with these bytes, UTF-8 or not."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def read(data: bytes, name: str, kind: str = "text") -> list[Row]:
    return list(read_item(item_from_bytes(data, name), Source(path="x", kind=kind)))


@pytest.mark.parametrize("name", WRITERS)
def test_a_bad_value_costs_nothing_else(name: str) -> None:
    """Text that is not UTF-8 is repaired; a date in the year 50,000 and a wrong zone are read."""
    values = [b"Sentence %d." % n for n in range(300)]
    values[150] = BAD
    dates = pa.array([1_515_700_000_000] * 300, pa.int64()).cast(pa.timestamp("s", "Nowhere/Town"))
    table = pa.table({"text": texts(values), "date": dates})
    results = read(WRITERS[name](table), name)
    assert [row.record for row in results if isinstance(row, Document)] == list(range(300))
    assert isinstance(results[150], Document)
    assert results[150].text.startswith("the river é") and results[150].text.endswith("the stone")


@pytest.mark.parametrize("name", WRITERS)
def test_a_bad_value_inside_a_conversation(name: str) -> None:
    """In a list of messages too: the others keep their messages, this one its repaired text."""
    contents = [b"question", b"answer"] * 100
    contents[101] = BAD
    messages = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"] * 100), texts(contents)], ["role", "content"]
    )
    table = pa.table({"messages": pa.ListArray.from_arrays(list(range(0, 201, 2)), messages)})
    results = read(WRITERS[name](table), name, "conversations")
    assert [row.record for row in results if isinstance(row, Document)] == list(range(100))
    assert isinstance(results[50], Document) and "the river é" in results[50].text


def damaged_in(data: bytes, column: str, group: int) -> bytes:
    """Return a Parquet file with zeros in the pages of one column of one row group."""
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    index = metadata.schema.names.index(column)
    chunk = metadata.row_group(group).column(index)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return (
        data[:start]
        + bytes(chunk.total_compressed_size)
        + data[start + chunk.total_compressed_size :]
    )


def test_damage_of_a_row_group_is_its_own() -> None:
    """The other row groups are read, with the numbers they have; one line names the rows lost."""
    table = pa.table({"text": [f"Sentence {n}." for n in range(300)], "image": [b"x"] * 300})
    data = parquet(table, row_group_size=100)
    results = read(damaged_in(data, "text", 1), "x.parquet")
    (lost,) = (row for row in results if isinstance(row, Reject))
    assert (lost.reason, lost.record) == ("damaged", 100) and "rows 100 to 199" in lost.detail
    kept = [row.record for row in results if isinstance(row, Document)]
    assert kept == [*range(100), *range(200, 300)]
    # A column that is no text is not even read.
    assert all(isinstance(row, Document) for row in read(damaged_in(data, "image", 1), "x.parquet"))


def test_damage_of_an_arrow_batch_is_its_own() -> None:
    """A wrong offset would crash the process: its batch is refused, those after it are read."""
    table = pa.table({"text": [f"Sentence {n}." for n in range(300)]})
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    # Those of the second batch; the third has the same.
    offsets = np.cumsum([0] + [len(f"Sentence {n}.") for n in range(100, 200)]).astype("<i4")
    wrong = offsets.copy()
    wrong[50] = 1 << 30
    data = out.getvalue().replace(offsets.tobytes(), wrong.tobytes(), 1)
    results = read(data, "x.arrow")
    kept = [row.record for row in results if isinstance(row, Document)]
    assert kept == [*range(100), *range(200, 300)]
    assert [row.detail[:16] for row in results if isinstance(row, Reject)] == ["rows 100 to 199:"]


def test_only_columns_of_use_are_read() -> None:
    """The names of the others are known, their values are not."""
    table = pa.table({"Text": ["a"], "image": [b"x"], "url": ["http://a.org"]})
    for name, write in WRITERS.items():
        item = item_from_bytes(write(table), name)
        assert list(read_columnar(item, {"text", "url"})) == [
            (0, {"Text": "a", "image": None, "url": "http://a.org"})
        ]
        item = item_from_bytes(write(table), name)
        assert list(read_columnar(item, {"body"})) == [
            (0, {"Text": "a", "image": b"x", "url": "http://a.org"})
        ]


def size_of(value: Any) -> int:
    """Return what `value_sizes` says of a value, by its definition."""
    if isinstance(value, str):
        return 8 + len(value.encode())
    if isinstance(value, dict):
        return 8 + sum(map(size_of, value.values()))
    if isinstance(value, list):
        return 8 + sum(map(size_of, value))
    return 8


LEAVES = st.none() | st.text(max_size=5)


@given(
    st.lists(
        st.none() | st.lists(st.fixed_dictionaries({"role": LEAVES, "rank": st.integers(0, 9)})),
        min_size=1,
    ),
    st.data(),
)
def test_sizes_of_values(values: list[Any], data: st.DataObject) -> None:
    """Sizes are those of the values, for lists, views and slices of them."""
    struct = pa.struct([("role", pa.string()), ("rank", pa.int64())])
    start = data.draw(st.integers(0, len(values)))
    for kind in (pa.list_(struct), pa.large_list(struct), pa.list_view(struct)):
        sizes = value_sizes(pa.array(values, kind).slice(start))
        assert sizes.tolist() == [size_of(value) for value in values[start:]]


@given(st.lists(LEAVES, min_size=1), st.data())
def test_sizes_of_repeated_values(values: list[str | None], data: st.DataObject) -> None:
    """A dictionary, a run and a view count for each row that shows them."""
    column = pa.array(values, pa.string())
    start = data.draw(st.integers(0, len(values)))
    expected = [size_of(value) for value in values[start:]]
    for array in (column, column.cast(pa.large_string()), column.cast(pa.string_view())):
        assert value_sizes(array.slice(start)).tolist() == expected
    assert value_sizes(column.dictionary_encode().slice(start)).tolist() == expected
    runs = pc.run_end_encode(column)
    assert value_sizes(runs.slice(start)).tolist() == expected


def dictionary_bomb() -> bytes:
    """Return 640 rows of one text of 50 MB."""
    river = pa.array(["the river " * 5_000_000])
    codes = pa.array([0] * 640, pa.int32())
    table = pa.table({"text": pa.DictionaryArray.from_arrays(codes, river)})
    return parquet(table, compression="zstd")


def run_bomb() -> bytes:
    """Return a run of 2 billion rows of one text."""
    ends = pa.array([2_000_000_000], pa.int32())
    runs = pa.RunEndEncodedArray.from_arrays(ends, pa.array(["the river " * 10_000]))
    return arrow(pa.table({"text": runs}), 2_000_000_000)


def view_bomb() -> bytes:
    """Return 2,000 lists that are all the same 2,000 messages."""
    rows = 2_000
    message = pa.array([{"role": "user", "content": "the river " * 100}] * rows)
    offsets, sizes = pa.array([0] * rows, pa.int32()), pa.array([rows] * rows, pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, sizes, message)
    return arrow(pa.table({"messages": views}), rows)


def zeros_bomb() -> bytes:
    """Return one batch of 2.7 GB of zeros, which compress to kilobytes."""
    out = io.BytesIO()
    zeros = pa.array(np.zeros(320 << 20, np.int64))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    batch = pa.record_batch({"text": zeros})
    with pa.ipc.new_stream(out, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return out.getvalue()


def read_in_child(data: bytes, name: str, kind: str) -> tuple[list[str], int]:
    """Return the reasons and the growth of the peak memory, in MB."""
    read(WRITERS[name](pa.table({"text": ["a"], "messages": [[{"role": "user"}]]})), name, kind)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = read_item(item_from_bytes(data, name), Source(path="x", kind=kind))
    reasons = {row.reason for row in results if isinstance(row, Reject)}
    return sorted(reasons), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10


@pytest.mark.parametrize(
    ("make", "name", "kind", "reason"),
    [
        (dictionary_bomb, "x.parquet", "text", "bomb"),
        (run_bomb, "x.arrow", "text", "bomb"),
        (view_bomb, "x.arrow", "conversations", "bomb"),
        (zeros_bomb, "x.arrow", "text", "too-large"),
    ],
)
def test_bombs(make: Callable[[], bytes], name: str, kind: str, reason: str) -> None:
    """Kilobytes that stand for gigabytes are refused within 2.5 GB of memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        reasons, grown = pool.apply(read_in_child, (make(), name, kind))
    assert reasons == [reason] and grown < 2500
