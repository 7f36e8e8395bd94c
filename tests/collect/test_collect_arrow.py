"""Arrow files: both formats, plain and compressed. Damage keeps the batches before it."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.detect import detect_kind
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]
TABLE = pa.table(
    {
        "id": range(300),
        "text": [f"Sentence {n}." for n in range(300)],
        "url": ["http://a.org/"] * 300,
    }
)


def _written(new: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    out = io.BytesIO()
    with new(out, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=100)
    return out.getvalue()


def _feather() -> bytes:
    out = io.BytesIO()
    feather.write_feather(TABLE, out)
    return out.getvalue()


FILES = {
    "x.arrow": _written(pa.ipc.new_stream),
    "y.arrow": _written(pa.ipc.new_file),
    "z.feather": _feather(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_row(name: str, read: Read, tmp_path: Path) -> None:
    """Rows come in order, with their numbers, from files and streams; `init` detects them."""
    results = read("text", name, FILES[name])
    assert [(result.record, result.text) for result in results if isinstance(result, Document)] == [
        (n, f"Sentence {n}.") for n in range(300)
    ]
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(FILES[name]))
    seen = detect_kind(tmp_path / f"{name}.gz")
    assert (seen.kind, seen.format) == ("web", "arrow")


@pytest.mark.parametrize("name", FILES)
def test_damage(name: str) -> None:
    """A truncated file keeps whole batches where its format allows it, and gives one rejection."""
    cut = FILES[name][: len(FILES[name]) * 5 // 6]
    *rows, last = read_item(item_from_bytes(cut, name), Source(path="x"))
    assert isinstance(last, Reject) and last.reason == "damaged"
    assert len(rows) == (200 if name == "x.arrow" else 0) and last.record == len(rows)


def test_cut_before_the_first_byte(read: Read) -> None:
    """A compressed file that ends inside its header is truncated, not empty."""
    from groundup.collect.files.archives import open_items
    from groundup.collect.files.globs import Selection

    data = gzip.compress(b"a sentence")[:11]
    (item,) = open_items(Path("x.txt.gz"), io.BytesIO(data), "x.txt.gz", len(data), Selection())
    assert [result.reason for result in read_item(item, Source(path="x"))] == ["truncated"]  # type: ignore[arg-type, union-attr]
