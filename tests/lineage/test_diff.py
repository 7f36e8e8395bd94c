"""Two runs compared: against plain dictionaries of everything, in parts as in one, and unfinished
ones as far as they are.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.shards_kit import between, names, run, texts, write, write_project

from groundup.api import open_run
from groundup.commands import difference
from groundup.commands.diff import compare, in_words
from groundup.commands.forget import forget
from groundup.errors import GroundupError, StoreError
from groundup.flow import run_flow
from groundup.recipe import load_recipe

Fates = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and one of the same folder with a file more, one less, one changed, other settings and
    a forgotten document.
    """
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
    """Read all documents of a run into memory: id → what became of it, and its text where it was
    kept.
    """
    found = {
        row["id"]: (row["reason"], "")
        for batch in open_run(root).dropped()
        for row in batch.to_pylist()
    }
    for split in ("train", "validation"):
        for batch in open_run(root).documents(["id", "text"], split):  # type: ignore[arg-type]
            found |= {row["id"]: (split, row["text"]) for row in batch.to_pylist()}
    return found


def expected(one: Fates, other: Fates) -> dict[str, Counter[tuple[str, str]]]:
    kept = ("train", "validation")
    found: dict[str, Counter[tuple[str, str]]] = {}

    def note(category: str, *pair: str) -> None:
        found.setdefault(category, Counter())[pair[0], pair[1]] += 1

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
            note(
                "reason"
                if a not in kept and b not in kept
                else "kept_dropped"
                if a in kept
                else "dropped_kept",
                a,
                b,
            )
    return found


@pytest.mark.parametrize("at_once", [1 << 20, 5])
def test_every_difference_is_counted_as_dictionaries_count_it(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(difference, "RECORDS_AT_ONCE", at_once)
    one, other = runs
    rows = compare(one, other)["documents"]
    found = {
        name: Counter({(row["first"], row["second"]): row["documents"] for row in table})
        for name, table in rows.items()
        if table
    }
    assert found == expected(fates(one), fates(other))
    assert {"text", "split", "kept_dropped", "only_first", "only_second"} <= found.keys()


def test_examples_do_not_depend_on_the_parts_and_are_what_they_say(
    runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = runs
    whole = compare(one, other)
    monkeypatch.setattr(difference, "RECORDS_AT_ONCE", 7)
    assert compare(one, other) == whole
    known = [fates(root) for root in runs]
    origins = {}
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


def test_settings_and_counts_that_differ_are_those_of_the_recipes_and_stages(
    runs: tuple[Path, Path],
) -> None:
    found = compare(*runs)
    assert found["settings"]["seed"] == [1, 2]
    assert found["settings"]["refine.filters"] == [[], ["gopher_quality"]]
    assert set(found["settings"]) == {"seed", "refine.filters"}
    tokens = [sum(len(shard) for _, shard in open_run(root).tokens("train")) for root in runs]
    assert found["counts"]["notes"]["train tokens"] == tokens
    assert found["counts"]["notes"]["dropped forgotten"] == [None, 1]
    json.dumps(found)


def test_words_show_reasons_examples_and_the_text_that_changed(runs: tuple[Path, Path]) -> None:
    text = in_words(compare(*runs), 100)
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
    found = compare(runs[0], runs[0])
    assert not found["settings"] and not found["counts"] and not any(found["documents"].values())
    assert "no document differs" in in_words(found)


def test_unfinished_runs_say_so_and_are_compared_as_far_as_both_are(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe = shutil.copytree(runs[0].parent, tmp_path / "copy") / "notes.toml"
    shutil.rmtree(tmp_path / "copy/run")
    write(recipe.parent / "raw" / next(names(begin=True)), [*texts(0)[:-1], "Another text."])
    third = run(recipe, until="collect")
    found = compare(runs[0], third)
    assert found["compared"] == "collect" and found["unfinished"] == [[], ["refine", "tokenize"]]
    assert [
        (name, row["documents"]) for name, rows in found["documents"].items() for row in rows
    ] == [("text", 1)]
    assert "B is not finished: it has no refine and no tokenize" in in_words(found)


def test_what_is_no_run_is_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run here"):
        compare(runs[0], tmp_path)
    shutil.copy(runs[0] / "recipe.lock.toml", tmp_path)
    with pytest.raises(GroundupError, match="collected nothing"):
        compare(runs[0], tmp_path)
