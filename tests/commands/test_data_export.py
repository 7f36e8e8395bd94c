"""The export of kept documents: all of them, as training reads them, in a whole folder or none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.helpers.refined import Shards, refined_run

from groundup.artifacts.corpus import kept_documents
from groundup.artifacts.document import DOCUMENT
from groundup.commands import data_export
from groundup.commands.data_export import export_data
from groundup.errors import GroundupError
from groundup.runtime.lock import write_lock
from groundup.runtime.store import changed_files, load_artifact

TURNS = [{"role": "user", "content": 'Say "\\n"\n\x01'}, {"role": "assistant", "content": "語"}]
SHARDS: Shards = {
    "a.1": [("first", 1), ("a copy", 0), ('tab\t, "quote", é', 2, TURNS), ("third", 1)],
    "b.1": [("of another source", 1)],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run = refined_run(tmp_path / "run", SHARDS)
    write_lock(run.root, run.recipe)
    return run.root


def kept(root: Path, split: Any = None) -> list[dict[str, Any]]:
    return [row for batch in kept_documents(root, split=split) for row in batch.to_pylist()]


def test_parquet_files_hold_the_kept_documents_by_split(root: Path, tmp_path: Path) -> None:
    said = export_data(root, str(tmp_path / "out"))
    assert "4 documents (train 3, validation 1)" in said
    for split in ("train", "validation"):
        table = pq.read_table(tmp_path / "out" / "data" / f"{split}-00000-of-00001.parquet")
        assert table.schema.equals(DOCUMENT)
        assert table.to_pylist() == kept(root, split)


@pytest.mark.parametrize(
    ("compress", "suffix", "opened"),
    [("", "", open), ("gzip", ".gz", gzip.open), ("zstd", ".zst", None)],
)
def test_lines_of_json_hold_the_same(
    root: Path, tmp_path: Path, compress: str, suffix: str, opened: Any
) -> None:
    export_data(root, str(tmp_path / "out"), "jsonl", "validation", compress=compress)
    (path,) = (tmp_path / "out" / "data").glob("validation*")
    assert path.name == f"validation-00000-of-00001.jsonl{suffix}"
    data = opened(path, "rb").read() if opened else pa.input_stream(str(path)).read()
    assert [json.loads(line) for line in data.splitlines()] == kept(root, "validation")


def test_a_data_set_of_the_hub_names_splits_licenses_and_counts(root: Path, tmp_path: Path) -> None:
    export_data(root, str(tmp_path / "out"), "hf")
    _, head, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    (config,) = yaml.safe_load(head)["configs"]
    files = {
        entry["split"]: list((tmp_path / "out").glob(entry["path"]))
        for entry in config["data_files"]
    }
    assert {split: len(paths) for split, paths in files.items()} == {"train": 1, "validation": 1}
    assert "| a |  | not stated | 2 | 1 |" in body
    assert "| b |  | not stated | 1 | 0 |" in body


def test_a_full_file_is_followed_by_another(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is in each name, as the hub has it, and known only at the end."""
    monkeypatch.setattr(data_export, "FILE_BYTES", 1)
    export_data(root, str(tmp_path / "out"), split="train")
    paths = sorted((tmp_path / "out" / "data").glob("*.parquet"))
    assert [path.name for path in paths] == [f"train-{n:05}-of-00002.parquet" for n in (0, 1)]
    assert pq.read_table(tmp_path / "out" / "data").num_rows == 3


def test_one_source(root: Path, tmp_path: Path) -> None:
    export_data(root, str(tmp_path / "out"), source="b")
    assert pq.read_table(tmp_path / "out" / "data")["text"].to_pylist() == ["of another source"]
    with pytest.raises(GroundupError, match='no source "c" has documents; sources: a, b'):
        export_data(root, str(tmp_path / "other"), source="c")


def test_an_export_is_replaced_with_force_and_nothing_else_is(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    export_data(root, str(target), source="a")
    with pytest.raises(GroundupError, match="--force replaces it"):
        export_data(root, str(target))
    export_data(root, str(target), source="b", force=True)
    assert pq.read_table(target / "data").num_rows == 1
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("mine")
    with pytest.raises(GroundupError, match="is no export"):
        export_data(root, str(home), force=True)
    assert (home / "letter.txt").read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_export, "manifest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_data(root, str(tmp_path / "new" / "out"))
    assert list((tmp_path / "new").iterdir()) == []


def test_the_manifest_proves_the_bytes(root: Path, tmp_path: Path) -> None:
    export_data(root, str(tmp_path / "out"))
    artifact = load_artifact(tmp_path / "out")
    assert artifact is not None and not changed_files(artifact)
    assert artifact.manifest["splits"]["train"] == {"documents": 3, "bytes": 5 + 5 + 17}
