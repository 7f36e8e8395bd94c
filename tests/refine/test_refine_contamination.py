"""Documents with evaluation items are found; common phrases and test forms are ignored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.commands.inspect import describe_dropped
from groundup.commands.verify import check_contamination, check_split
from groundup.errors import GroundupError
from groundup.flow import run_flow
from groundup.recipe import load_recipe
from groundup.refine import decontaminate
from groundup.refine.decontaminate import (
    COMMON,
    LONG,
    MAX_ITEMS,
    MAX_WORDS,
    MIN_WORDS,
    EvaluationGrams,
    find_contaminated,
    find_occurrences,
    find_unlisted,
    gram_sets,
    write_grams,
)
from groundup.refine.shard import refine_shard

Row = dict[str, object]
Find = Callable[..., list[dict[str, Any]]]


def passage(seed: int, words: int = 60) -> str:
    """Return words that no other seed returns."""
    rng = np.random.default_rng(seed)
    return " ".join(f"{''.join(rng.choice(list('abcdefgh'), 4))}{seed}x" for _ in range(words))


@pytest.fixture
def find(
    tmp_path: Path, row: Callable[..., Row], collected: Callable[[Path, Sequence[Row]], Path]
) -> Find:
    """List the contaminated ones of texts, given evaluation items."""

    def found(
        texts: Sequence[str], items: Sequence[str], allowed: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        for name in ("shard", "grams", "list"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            (tmp_path / name).mkdir()
        refine_shard(
            tmp_path / "shard",
            collected(tmp_path / "text", [row(t, n) for n, t in enumerate(texts)]),
            "text",
            [],
            [],
            Path(),
        )
        tests = collected(
            tmp_path / "tests", [row(t, n, "evaluation", "exam") for n, t in enumerate(items)]
        )
        with TableWriter(tmp_path / "list" / "duplicates.parquet", DROPPED):
            pass
        write_grams(tmp_path / "grams", [tests], allowed)
        find_occurrences(tmp_path / "list", tmp_path / "shard", tmp_path / "grams")
        shards, occurrences = [("s.x", tmp_path / "shard")], {"s.x": tmp_path / "list"}
        again = list(find_unlisted(shards, [tests], allowed, tmp_path / "list"))
        gone = [tmp_path / "list" / "duplicates.parquet"]
        find_contaminated(tmp_path / "list", shards, occurrences, gone, {}, tmp_path / "grams")
        rows: list[dict[str, Any]] = pq.read_table(
            tmp_path / "list" / "contaminated.parquet"
        ).to_pylist()
        # What verify does from the texts finds the same documents before the list stands, and none
        # after.
        assert [(r["id"], r["duplicate_of"]) for r in rows] == [pair[:2] for pair in again]
        assert not list(find_unlisted(shards, [tests], allowed, tmp_path / "list"))
        return rows

    return found


def test_item_in_a_document_is_found_with_its_text(find: Find) -> None:
    item = passage(1)
    text = f"{passage(2)}\n\n«{item.upper()}», he said. {passage(3)}"
    (row,) = find([passage(4), text, passage(5)], [passage(6), item])
    assert row["record"] == 1
    assert row["reason"] == "contaminated"
    assert row["score"] == 1.0
    assert row["detail"].startswith("exam: file#1: " + item.upper()[:40])


def test_fifth_of_an_item_contaminates(find: Find) -> None:
    item = passage(1, 112).split(" ")
    assert len(item) - MAX_WORDS + 1 == 100
    for grams, listed in ((19, 0), (20, 1)):
        part = " ".join(item[7 : 7 + grams + MAX_WORDS - 1])
        assert len(find([f"{passage(2)} {part} {passage(3)}"], [" ".join(item)])) == listed


def test_long_quotation_contaminates(find: Find) -> None:
    item = passage(1, 2_000).split(" ")
    for grams, listed in ((LONG - 1, 0), (LONG, 1)):
        assert (
            len(
                find(
                    [f"a b {' '.join(item[99 : 99 + grams + MAX_WORDS - 1])} c d"], [" ".join(item)]
                )
            )
            == listed
        )


def test_short_items_must_match_completely(find: Find) -> None:
    items = [passage(1, MIN_WORDS), passage(2, MAX_WORDS - 1), passage(3, MIN_WORDS - 1)]
    rows = find(
        [f"{passage(10 + n)} {item} {passage(20 + n)}" for n, item in enumerate(items)], items
    )
    assert [row["record"] for row in rows] == [0, 1]
    broken = items[0].replace(" ", " and ", 1)
    assert find([f"{passage(10)} {broken} {passage(20)}"], items) == []


def test_common_phrases_are_ignored(find: Find) -> None:
    """Phrases of many documents, and the form of all items of a test, are ignored."""
    item = passage(1, 20)
    assert (
        len(find([f"{passage(n)} {item} {passage(100 + n)}" for n in range(2, 2 + COMMON)], [item]))
        == COMMON
    )
    assert (
        find([f"{passage(n)} {item} {passage(100 + n)}" for n in range(2, 3 + COMMON)], [item])
        == []
    )
    form = passage(1, 30)
    items = [f"{form} {passage(200 + n, 5)}" for n in range(MAX_ITEMS + 1)]
    assert find([f"{passage(2)} {form} {passage(3)}"], items) == []


def test_allowed_texts_are_ignored(find: Find) -> None:
    item = passage(1, 40)
    assert find([f"{passage(2)} {item}"], [item], [item]) == []
    assert len(find([f"{passage(2)} {item}"], [item], [passage(3)])) == 1


def test_cut_lines_are_ignored(
    tmp_path: Path, row: Callable[..., Row], collected: Callable[..., Path]
) -> None:
    """An item in a cut line is ignored, and details show the text after the cuts."""
    items = [passage(1), passage(2)]
    for name in ("shard", "grams", "list"):
        (tmp_path / name).mkdir()
    texts = [f"{items[0]}\n{items[1]}", items[0]]
    refine_shard(
        tmp_path / "shard",
        collected(tmp_path / "text", [row(t, n) for n, t in enumerate(texts)]),
        "text",
        [],
        [],
        Path(),
    )
    tests = collected(
        tmp_path / "tests", [row(t, n, "evaluation", "exam") for n, t in enumerate(items)]
    )
    cuts, gone = tmp_path / "cuts.npy", tmp_path / "list" / "duplicates.parquet"
    np.save(cuts, np.array([[0, 0, len(items[0]) + 1], [1, 0, len(items[0])]]))
    with TableWriter(gone, DROPPED):
        pass
    write_grams(tmp_path / "grams", [tests], [])
    find_occurrences(tmp_path / "list", tmp_path / "shard", tmp_path / "grams", cuts)
    shards, found = [("s.x", tmp_path / "shard")], {"s.x": tmp_path / "list"}
    find_contaminated(tmp_path / "list", shards, found, [gone], {"s.x": cuts}, tmp_path / "grams")
    (listed,) = pq.read_table(tmp_path / "list" / "contaminated.parquet").to_pylist()
    assert listed["record"] == 0
    assert listed["detail"].startswith(f"exam: file#1: {items[1][:40]}")


def test_no_items(find: Find) -> None:
    assert find([passage(1)], []) == []
    assert find([passage(1)], [""]) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=30))
def test_grams_against_a_plain_search(
    tmp_path_factory: pytest.TempPathFactory, text: list[int], item: list[int]
) -> None:
    """Of four words, with many repeats: every window is compared with every n-gram."""
    words, asked = [f"w{n}" for n in text], [f"w{n}" for n in item]
    width = min(MAX_WORDS, len(asked))
    windows = (
        {tuple(asked[i : i + width]) for i in range(len(asked) - width + 1)}
        if len(asked) >= MIN_WORDS
        else set()
    )
    want = [i for i in range(len(words) - width + 1) if tuple(words[i : i + width]) in windows]
    sets = gram_sets(pa.array([" ".join(asked)]))[0]
    grams = EvaluationGrams(
        sets, np.arange(len(sets) + 1), np.zeros(len(sets), np.int64), pa.table({})
    )
    whole = " ".join(words)
    found = np.concatenate(list(grams.find(text_buffers(pa.array([whole])))))
    places = sorted(found[:, 2].tolist())
    assert places == [len(" ".join(words[:i])) + (i > 0) for i in want]


@pytest.fixture
def exam(tiny_project: Path, tmp_path: Path) -> tuple[Path, str]:
    """Return a copy of the tiny recipe with a benchmark, and its item of 80 words of a book."""
    copy = tmp_path / "project"
    shutil.copytree(tiny_project.parent / "raw", copy / "raw")
    recipe = Path(shutil.copy(tiny_project, copy / "recipe.toml"))
    stolen = " ".join(
        (copy / "raw" / "books" / "book03.txt").read_text(encoding="utf-8").split()[300:380]
    )
    (copy / "exam.jsonl").write_text(
        json.dumps({"text": stolen}) + "\n" + json.dumps({"text": passage(1)}) + "\n"
    )
    return recipe, stolen


def refined(recipe: Path) -> Path:
    out = recipe.parent / "run"
    run_flow(load_recipe(recipe, ['evaluate.benchmarks=["exam.jsonl"]']), out, "refine", workers=1)
    return out


def test_benchmark_of_a_recipe_decontaminates(exam: tuple[Path, str]) -> None:
    """A benchmark is collected although it is no source; `inspect` shows the match."""
    recipe, stolen = exam
    out = refined(recipe)
    rows = pq.read_table(out / "refine" / "dropped" / "contaminated.parquet").to_pylist()
    assert {row["origin"] for row in rows} == {"book03.txt"}
    assert " ".join(rows[0]["detail"].split(" ")[2:]).startswith(stolen[:60])
    assert stolen[:60] in describe_dropped(out, "contaminated")
    assert list(check_contamination(out)) == []
    assert list(check_split(out)) == []


def test_verify_finds_a_missed_document(
    exam: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as blind:
        blind.setattr(decontaminate, "MIN_SHARE", 2.0)
        blind.setattr(decontaminate, "LONG", 1 << 40)
        out = refined(exam[0])
    (line,) = check_contamination(out)
    assert "is kept and holds 100% of the evaluation item" in line


def test_missing_benchmark_is_reported_first(tiny_project: Path, tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match=r"nowhere\.jsonl"):
        run_flow(
            load_recipe(tiny_project, ['evaluate.benchmarks=["nowhere.jsonl"]']),
            tmp_path / "run",
            "collect",
            workers=1,
        )
