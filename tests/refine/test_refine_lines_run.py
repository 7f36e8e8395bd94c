"""Repeated lines in a run: readers do not see them, `verify` and `inspect` do."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from groundup.api import open_run
from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.corpus import refined_shards
from groundup.artifacts.tokenizer import Tokenizer
from groundup.commands.diff import compare_runs, format_comparison
from groundup.commands.inspect import describe_dropped, describe_lines
from groundup.commands.verify import (
    check_accounted,
    check_lines,
    check_overlap,
    check_round_trip,
    check_split,
    check_tokens,
)
from groundup.errors import GroundupError
from groundup.flow import run_flow
from groundup.recipe import load_recipe
from groundup.refine.stats import TEXT_STATS, bin_codes, histogram, text_stats, unpack
from groundup.report.figures import refined
from groundup.runtime.run import Run
from groundup.runtime.store import Store
from groundup.serve.app import suggest_prompts

NOTICE = "This site uses cookies to make your visit better."


def story(seed: int) -> str:
    chance = np.random.default_rng(seed)
    sentences = [
        " ".join("".join(chance.choice(list("abcdefgh"), 5)) for _ in range(9)).capitalize()
        for _ in range(8)
    ]
    return ".\n\n".join(sentences) + "."


def make_project(tmp_path: Path) -> Path:
    """Write sources whose texts contain a notice, and a recipe; return the recipe."""
    for first, (source, count, suffix) in enumerate(
        (("site", 40, "txt"), ("blog", 30, "txt"), ("code", 20, "py"))
    ):
        (tmp_path / source).mkdir()
        for number in range(count):
            text = story(100 * first + number)
            closing = f"\n\n{NOTICE}\n" if source != "blog" or number < 5 else "\n"
            (tmp_path / source / f"{number:02}.{suffix}").write_text(
                text + closing if suffix == "txt" else f'x = """{text}\n{NOTICE}\n"""\n'
            )
    (tmp_path / "site" / "empty.txt").write_text(NOTICE)
    sources = [
        f'[[source]]\npath = "{name}"\nkind = "{kind}"\n'
        for name, kind in (("site", "text"), ("blog", "text"), ("code", "code"))
    ]
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("".join(sources) + "[refine]\nfilters = []\n[tokenize]\nvocab_size = 400\n")
    return recipe


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a recipe that may be changed."""
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run up to its tokens; treat it as read-only."""
    return run_of(make_project(tmp_path_factory.mktemp("lines"))).root


def run_of(recipe: Path, *overrides: str) -> Run:
    return run_flow(load_recipe(recipe, overrides), recipe.parent / "run", "tokenize", workers=1)


def built(recipe: Path, *overrides: str) -> set[str]:
    """Run the recipe; return the artifacts built by this run."""

    def store() -> set[str]:
        return {
            f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
            for path in (recipe.parent / "run/.store").glob("*/*/*-*")
        }

    before = store()
    run_of(recipe, *overrides)
    return {name.rpartition("-")[0] for name in store() - before}


def test_readers_do_not_see_repeated_lines(root: Path) -> None:
    """The notice is cut from the site; the blog repeats it too rarely, and code is exempt."""
    held: dict[str, int] = {}
    for batch in open_run(root).documents(["source", "text"]):
        for source, text in zip(
            *(batch.column(name).to_pylist() for name in ("source", "text")), strict=True
        ):
            held[source] = held.get(source, 0) + (NOTICE in text)
    assert held == {"site": 0, "blog": 5, "code": 20}
    view = Store(root).view("refine")
    assert view is not None
    kept = sum(
        len(text.as_py().encode())
        for batch in open_run(root).documents(["text"])
        for text in batch.column("text")
    )
    assert view.facts["bytes"] == kept
    batches = (
        batch
        for shard in refined_shards(root)
        if shard.source == "site"
        for batch in shard.batches(["text"])
    )
    texts = [text for batch in batches for text in batch.column("text").to_pylist()]
    assert len(texts) == 40
    assert not any(NOTICE in text or text != text.strip() for text in texts)
    decoded = "".join(
        Tokenizer.load(root / "tokenize").decode(ids.tolist())
        for name, ids in open_run(root).tokens()
        if name == "site"
    )
    assert "cookies" not in decoded
    suggestions = suggest_prompts(root)
    assert suggestions and all("cookies" not in suggestion.text for suggestion in suggestions)


def test_distributions_are_after_cuts(root: Path) -> None:
    """Kept documents are measured after the cuts."""
    site = json.loads((root / "refine" / "quality.json").read_text())["sources"]["site"]
    batches = open_run(root).documents(["source", "text"])
    texts = [
        row["text"] for batch in batches for row in batch.to_pylist() if row["source"] == "site"
    ]
    sizes = [len(text.encode()) for text in texts]
    assert site["steps"]["kept"] == {"documents": 40, "bytes": sum(sizes)}
    assert site["steps"]["filtered"]["bytes"] == sum(sizes) + 41 * len(NOTICE) + 40 * 2
    found = text_stats(text_buffers(pa.array(texts)))
    for column, name in enumerate(TEXT_STATS):
        assert (
            unpack(site["measures"][name]["kept"]) == histogram(bin_codes(found[:, column]))
        ).all(), name


def test_verify_inspect_and_figures(root: Path) -> None:
    checks = (
        check_accounted,
        check_split,
        check_overlap,
        check_lines,
        check_tokens,
        check_round_trip,
    )
    assert [line for check in checks for line in check(root) if type(line) is str] == []
    assert f"{41:9,}  site" in describe_lines(root)
    assert NOTICE in describe_lines(root, "site")
    with pytest.raises(
        GroundupError, match='nothing was cut from "blgo"; sources that repeat lines: site'
    ):
        describe_lines(root, "blgo")
    assert "0 words are left" in describe_dropped(root, "boilerplate")
    figures = {figure.name: figure.value for figure in refined(root)}
    assert (
        figures["refine.dropped.boilerplate"]
        == figures["refine.repeated_lines"]
        == figures["refine.repeated_lines.site"]
        == 1
    )
    assert figures["refine.bytes_cut"] == 41 * len(NOTICE) + 40 * 2


def test_diff_with_a_run_without_cuts(root: Path, tmp_path: Path) -> None:
    """`diff` compares texts after the cuts, on both sides."""
    other = run_flow(
        load_recipe(root.parent / "recipe.toml", ["refine.repeated_lines=0"]),
        tmp_path / "other",
        "refine",
        workers=1,
    ).root
    found = compare_runs(root, other)
    counts = {
        category: sum(row["documents"] for row in rows)
        for category, rows in found["documents"].items()
    }
    assert (counts["text"], counts["dropped_kept"]) == (40, 1)
    assert "> This site uses cookies" in " ".join(format_comparison(found, 100).split())


def test_verify_finds_lost_cuts(root: Path, tmp_path: Path) -> None:
    """With empty cuts, the lines are in the text again, and the tokens do not match."""
    copy = shutil.copytree(root, tmp_path / "run")
    for path in (copy / "refine" / "cuts").glob("*.npy"):
        cuts = np.load(path)
        path.unlink()
        np.save(path, cuts * np.array([1, 0, 0]))
    assert "holds a line" in next(check_lines(copy))
    assert "another text" in next(check_round_trip(copy))


def test_new_file_costs_its_shard_and_the_lists(project: Path) -> None:
    run_of(project)
    assert built(project) == set()
    (project.parent / "blog" / "new.txt").write_text(story(1_000))
    steps = Counter(name.rpartition("/")[0] for name in built(project))
    shard = ("collect/shard", "refine/shard", "tokenize/shard")
    # The new post is counted; no page has another line to cut.
    lists = tuple(f"refine/{name}" for name in ("duplicates", "line_counts", "split", "quality"))
    assert steps == dict.fromkeys((*shard, *lists, "tokenize/index"), 1)
    # Another number that lists the same lines changes nothing but the counts; none at all gives the
    # site its lines back.
    assert built(project, "refine.repeated_lines=20") == {
        "refine/line_counts/blog.0000",
        "refine/line_counts/site.0000",
    }
    without = built(project, "refine.repeated_lines=0")
    assert {one.rpartition(".")[0] for one in without if one.startswith("tokenize/shard")} == {
        "tokenize/shard/site"
    }
    assert not (project.parent / "run" / "refine" / "lines.parquet").exists()
    with pytest.raises(GroundupError, match="repeated_lines is 0"):
        describe_lines(project.parent / "run")
