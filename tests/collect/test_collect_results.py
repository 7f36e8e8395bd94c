"""What is read while records are counted comes back with its numbers, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from groundup.artifacts import document
from groundup.artifacts.document import Document, Reject
from groundup.collect.results import TABLES, copy_results, shard_writer, write_results
from groundup.recipe import Source

SOURCE = Source(path="x", kind="web", name="s")
MANY: list[Document | Reject] = [
    Document(f"text {n} é\ud800" * 9, n, "g", "l", "en", [{"role": "a", "content": "b"}], 1, 9 * n)
    if n % 3
    else Reject("malformed", n, "why")
    for n in range(500)
]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_results_are_copied_as_they_would_be_read(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a run that was killed in between reads again, and must end with the same bytes."""
    monkeypatch.setattr(document, "ROW_GROUP_BYTES", 4000)
    path, copied, read = (tmp_path / name for name in ("results/r", "copied", "read"))
    copied.mkdir()
    read.mkdir()
    assert write_results(path, SOURCE, "file", MANY[:count]) == count
    with shard_writer(read, SOURCE) as writer:
        for result in MANY[:count]:
            writer.add("file", replace(result, record=result.record + 70))
    assert copy_results(path, copied, 70) == writer.facts()
    for name in TABLES:
        assert (copied / name).read_bytes() == (read / name).read_bytes()
    assert pq.read_metadata(read / "documents.parquet").num_row_groups > 1 or count < 500
    # Another worker with the same call finds nothing, and reads the file.
    assert copy_results(path, copied, 70) is None
    assert not list(path.parent.iterdir())


def test_the_same_results_twice(tmp_path: Path) -> None:
    """A worker that was given up as lost may end after the one in its place."""
    for _ in range(2):
        assert write_results(tmp_path / "r", SOURCE, "file", MANY) == 500
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_half_of_the_results_is_none(tmp_path: Path) -> None:
    """Protects: a damaged range would pass for a whole one, with the results before the damage."""

    def damaged() -> Iterator[Document | Reject]:
        yield from MANY
        raise ValueError("damage")

    with pytest.raises(ValueError, match="damage"):
        write_results(tmp_path / "results", SOURCE, "file", damaged())
    assert not list(tmp_path.iterdir())
