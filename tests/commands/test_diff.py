"""Test `groundup diff` against plain dictionaries of all documents."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.shards_kit import between, names, run, texts, write, write_project

from groundup.api import open_run
from groundup.commands import diff
from groundup.commands.diff import compare_runs, format_comparison
from groundup.commands.forget import forget
from groundup.errors import GroundupError, StoreError
from groundup.flow import run_flow
from groundup.recipe import load_recipe

Fates = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and one with a file added, removed and changed, other settings, and one forgotten."""
    recipe = write_project(tmp_path_factory.mktemp("diff"))
    one = run(recipe)
    copy = shutil.copytree(recipe.parent, recipe.parent.parent / "second") / recipe.name
    raw, first = copy.parent / "raw", next(names(begin=True))
    write(raw / between(first, after=4), ["A new text that nothing else holds.", texts(0)[0]])
    write(
        raw / first,
        [f"{text} changed" if n == 3 else text for n, text in enumerate(texts(0)) if n != 7],
    )
    (raw / between(first)).unlink()
    other = run_flow(
        load_recipe(copy, ["seed=2", 'refine.filters=["gopher_quality"]']),
        copy.parent / "run",
        "tokenize",
        workers=1,
    ).root
    kept = next(batch.column("id")[0].as_py() for batch in open_run(other).documents(["id"]))
    forget(other, [kept], workers=1)
    return one, other


def fates(root: Path) -> Fates:
    """Return what became of each document, and its text if it was kept, by id."""
    difference = {
        row["id"]: (row["reason"], "")
        for batch in open_run(root).dropped()
        for row in batch.to_pylist()
    }
    for split in ("train", "validation"):
        for batch in open_run(root).documents(["id", "text"], split):
            difference |= {row["id"]: (split, row["text"]) for row in batch.to_pylist()}
    return difference


def expected(one: Fates, other: Fates) -> dict[str, Counter[tuple[str, str]]]:
    kept = ("train", "validation")
    difference: dict[str, Counter[tuple[str, str]]] = {}

    def note(category: str, *pair: str) -> None:
        difference.setdefault(category, Counter())[pair[0], pair[1]] += 1

    for name in {*one, *other}:
        (a, text), (b, second) = one.get(name, ("", "")), other.get(name, ("", ""))
        if not a or not b:
            note("only_second" if b else "only_first", a, b)
        elif a in kept and b in kept:
            if text != second:
                note("text", a, b)
            if a != b:
                note("split", a, b)
        elif a != b:
            one_kept = "kept_dropped" if a in kept else "dropped_kept"
            note(one_kept if a in kept or b in kept else "reason", a, b)
    return difference


@pytest.mark.parametrize("at_once", [1 << 20, 5])
def test_counts_are_those_of_dictionaries(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(diff, "PART_RECORDS", at_once)
    one, other = runs
    rows = compare_runs(one, other)["documents"]
    difference = {
        name: Counter({(row["first"], row["second"]): row["documents"] for row in table})
        for name, table in rows.items()
        if table
    }
    assert difference == expected(fates(one), fates(other))
    assert {"text", "split", "kept_dropped", "only_first", "only_second"} <= difference.keys()


def test_examples_do_not_depend_on_the_parts(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = runs
    whole = compare_runs(one, other)
    monkeypatch.setattr(diff, "PART_RECORDS", 7)
    assert compare_runs(one, other) == whole
    known = [fates(root) for root in runs]
    origins: dict[str, tuple[str, int]] = {}
    for root in runs:
        for path in [
            *root.glob("collect/documents/*.parquet"),
            *root.glob("collect/dropped/*.parquet"),
        ]:
            origins |= {
                row["id"]: (row["origin"], row["record"])
                for row in pq.read_table(path, columns=["id", "origin", "record"]).to_pylist()
            }
    for rows in whole["examples"].values():
        for row in rows:
            assert (row["first"], row["second"]) == tuple(
                side.get(row["id"], ("", ""))[0] for side in known
            )
            assert (row["origin"], row["record"]) == origins[row["id"]]


def test_differing_settings_and_counts(
    runs: tuple[Path, Path],
) -> None:
    difference = compare_runs(*runs)
    assert difference["settings"]["seed"] == [1, 2]
    assert difference["settings"]["refine.filters"] == [[], ["gopher_quality"]]
    assert set(difference["settings"]) == {"seed", "refine.filters"}
    tokens = [sum(len(shard) for _, shard in open_run(root).tokens("train")) for root in runs]
    assert difference["counts"]["notes"]["train tokens"] == tokens
    assert difference["counts"]["notes"]["dropped forgotten"] == [None, 1]
    json.dumps(difference)


def test_text_shows_reasons_examples_and_changed_words(runs: tuple[Path, Path]) -> None:
    text = format_comparison(compare_runs(*runs), 100)
    for part in (
        "seed: 1 → 2",
        "kept in A, dropped in B",
        "→ forgotten",
        "kept in both, with another text",
        "changed",
        "only in B",
    ):
        assert part in text


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path]) -> None:
    difference = compare_runs(runs[0], runs[0])
    assert (
        not difference["settings"]
        and not difference["counts"]
        and not any(difference["documents"].values())
    )
    assert "no document differs" in format_comparison(difference)


def test_unfinished_runs_are_compared_up_to_their_common_stage(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = shutil.copytree(runs[0].parent, tmp_path / "copy") / "notes.toml"
    shutil.rmtree(tmp_path / "copy/run")
    write(recipe.parent / "raw" / next(names(begin=True)), [*texts(0)[:-1], "Another text."])
    third = run(recipe, until="collect")
    difference = compare_runs(runs[0], third)
    assert difference["compared"] == "collect" and difference["unfinished"] == [
        [],
        ["refine", "tokenize"],
    ]
    assert [
        (name, row["documents"]) for name, rows in difference["documents"].items() for row in rows
    ] == [("text", 1)]
    assert "B is not finished: it has no refine and no tokenize" in format_comparison(difference)


def test_a_folder_that_is_no_run_is_an_error(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run here"):
        compare_runs(runs[0], tmp_path)
    shutil.copy(runs[0] / "recipe.lock.toml", tmp_path)
    with pytest.raises(GroundupError, match="collected nothing"):
        compare_runs(runs[0], tmp_path)
