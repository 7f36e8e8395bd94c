"""The file that [tune] data names is collected as a source of kind tuning; nothing trains on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.helpers.talking import talks

from groundup.collect.stage import collect_tuning
from groundup.collect.stage import run as collect
from groundup.commands.tune import tuning_recipe
from groundup.errors import SourceError
from groundup.recipe import Recipe, overridden, recipe_from
from groundup.refine.stage import run as refine
from groundup.report.figures import collected
from groundup.runtime.lock import load_lock, write_lock
from groundup.runtime.run import Run


def recipe(folder: Path, name: str = "books") -> Recipe:
    """A recipe with one text source; its folder also holds rows.jsonl to tune on."""
    (folder / "raw").mkdir()
    for number in range(4):
        text = " ".join(f"{word} {number}" for word in ("the", "cat", "and", "a", "dog")) + ".\n"
        (folder / "raw" / f"{number}.txt").write_text(text * 30)
    rows = [json.dumps({"messages": talk}) for talk in talks()[:5]]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    source = {"path": "raw/*.txt", "name": name}
    table = {"source": [source], "refine": {"filters": [], "most_dropped": 1.0}}
    return recipe_from(table, "test", folder)


def kinds(run: Run) -> dict[str, str]:
    """Source of each collected document file → kind."""
    view = run.store.view("collect")
    assert view is not None
    shards = [run.store.artifact(entry) for entry in view.manifest["artefacts"]]
    return {shard.name.rpartition(".")[0]: shard.facts["kind"] for shard in shards if shard}


@pytest.mark.parametrize(("name", "tuning"), [("books", "tuning"), ("tuning", "tuning-2")])
def test_tuning_data_are_collected_and_not_refined(tmp_path: Path, name: str, tuning: str) -> None:
    tuned = overridden(recipe(tmp_path, name), ["tune.method=sft", "tune.data=rows.jsonl"])
    run = Run(tmp_path / "run", tuned)
    collect(run)
    assert kinds(run) == {name: "text", tuning: "tuning"}
    assert list((run.root / "collect/documents").glob(f"{tuning}.*.parquet"))
    refine(run)
    documents = (run.root / "refine/documents").glob("*.parquet")
    assert {path.name.partition(".")[0] for path in documents} == {name}
    figures = {figure.name: figure.value for figure in collected(run.root)}
    assert figures["collect.documents"] == 4 and f"collect.documents.{tuning}" not in figures


def test_a_tuning_file_does_not_replace_sources_without_documents(tmp_path: Path) -> None:
    tuned = overridden(recipe(tmp_path), ["tune.method=sft", "tune.data=rows.jsonl"])
    for path in (tmp_path / "raw").iterdir():
        path.write_text("")
    with pytest.raises(SourceError, match=r'source "books": no document'):
        collect(Run(tmp_path / "run", tuned))


def test_tuning_by_hand_leaves_the_other_shards_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs none of the raw files, and a run without the data takes them back out."""
    run = Run(tmp_path / "run", recipe(tmp_path))
    collect(run)
    write_lock(run.root, run.recipe)
    shutil.move(tmp_path / "raw", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for rows in ("rows.jsonl", "other.jsonl"):
        shutil.copyfile("rows.jsonl", "other.jsonl")
        by_hand = Run(run.root, tuning_recipe(run.root, rows))
        collect_tuning(by_hand)
        assert kinds(run) == {"books": "text", "tuning": "tuning"}
        assert (by_hand.built, by_hand.reused) == (1, 1)
    shutil.move(tmp_path / "elsewhere", tmp_path / "raw")
    again = Run(run.root, load_lock(run.root))
    collect(again)
    assert kinds(run) == {"books": "text"} and again.built == 0
