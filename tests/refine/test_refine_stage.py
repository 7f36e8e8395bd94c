"""The stage: what it publishes, and what runs again after a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.artifacts.corpus import DROPPED, TRAIN, VALIDATION, kept_documents
from groundup.artifacts.document import document_id
from groundup.commands.inspect import describe_duplicates, raw_and_cleaned
from groundup.commands.verify import Note, check_checkpoints, check_overlap
from groundup.errors import RecipeError, SourceError, StoreError
from groundup.recipe import Personal, Recipe, Refine, Source, Tokenize
from groundup.refine import stage
from groundup.refine.dedup.lsh_index import ENTRY_BYTES
from groundup.refine.filter.rules import C4, RULE_SETS
from groundup.refine.leakage import measure_leakage
from groundup.refine.refinement import Refinement
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Run
from groundup.runtime.store import Facts, Step
from groundup.runtime.workers.map import Workers

Row = dict[str, Any]
KINDS = {"one": "text", "two": "web", "three": "code", "tests": "evaluation"}


def sentences(seed: int, count: int = 12) -> str:
    chance = np.random.default_rng(seed)
    word = lambda: "".join(chance.choice(list("abcdefghij"), 5))  # noqa: E731
    return "\n".join(
        f"The {word()} and {' '.join(word() for _ in range(8))} have it." for _ in range(count)
    )


def copy_shard(folder: Path, rows: Sequence[Row], kind: str, write: Callable[..., Path]) -> Facts:
    write(folder, rows)
    return {
        "kind": kind,
        "documents": len(rows),
        "bytes_out": sum(len(row["text"]) for row in rows),
    }


def collect(
    run: Run,
    row: Callable[..., Row],
    write: Callable[..., Path],
    count: int = 60,
    salt: int = 0,
    alike: bool = False,
) -> None:
    """Publish a collect view with copies; `alike` adds documents of Jaccard 0.6."""
    artifacts = []
    for base, (name, kind) in enumerate(KINDS.items()):
        texts = [
            sentences(base * 1_000 + n + (salt if name == "two" and n == 7 else 0))
            for n in range(count)
        ]
        texts[0] = sentences(5)
        if alike and kind != "evaluation":
            texts[1] = "\n".join([sentences(9_000, 9), sentences(9_001 + base, 3)])
        rows = [row(text, n, kind, name) for n, text in enumerate(texts)]
        step = Step(
            "collect/shard",
            f"{name}.s",
            1,
            {"kind": kind},
            {"raw": f"{salt if name == 'two' else 0} {alike}"},
        )
        artifacts.append(
            run.store.build(step, copy_shard, {"rows": rows, "kind": kind, "write": write})
        )
    links = {f"documents/{a.name}.parquet": a.path / "documents.parquet" for a in artifacts}
    run.publish("collect", artifacts, links)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    sources = tuple(Source(path=name, name=name, kind=kind) for name, kind in KINDS.items())
    return Recipe(name="test", source=sources, refine=Refine(), root=tmp_path)


@pytest.fixture
def run(
    tmp_path: Path, recipe: Recipe, row: Callable[..., Row], collected: Callable[..., Path]
) -> Run:
    run = Run(tmp_path / "run", recipe)
    (tmp_path / "run").mkdir()
    collect(run, row, collected)
    return run


def rebuilt(run: Run, recipe: Recipe | None = None) -> set[str]:
    """Run the stage; return the artifacts built by this run."""
    before = {path.name for path in (run.root / ".store" / "refine").glob("*/*")}
    stage.run(replace(run, recipe=recipe) if recipe else run)
    after = [
        path
        for path in (run.root / ".store" / "refine").glob("*/*")
        if path.is_dir() and path.name not in before
    ]
    return {f"{path.parent.name} {path.name.rpartition('-')[0]}" for path in after}


def test_publishes(run: Run) -> None:
    """The view holds documents, lists and split of every source, without evaluation files."""
    stage.run(run)
    view = run.store.view("refine")
    assert view is not None
    names = [f"{name}.s" for name in ("one", "two", "three")]
    lists = [
        "dropped/duplicates.parquet",
        "dropped/lines.parquet",
        "dropped/contaminated.parquet",
        "lines.parquet",
        "quality.json",
    ]
    want = [
        path
        for name in names
        for path in (f"documents/{name}.parquet", f"dropped/{name}.parquet", f"split/{name}.npy")
    ]
    assert sorted(view.manifest["files"]) == sorted([*want, *lists])
    facts = view.manifest["facts"]
    assert facts["dropped"] == {"contaminated": 1, "exact_duplicate": 3}
    assert (
        facts["documents"]
        == 176
        == sum(source["documents"] for source in facts["sources"].values())
    )
    assert facts["bytes"] == sum(
        len(text.as_py())
        for batch in kept_documents(run.root, ["text"])
        for text in batch.column("text")
    )


def test_kept_documents(run: Run) -> None:
    """Train and validation partition the kept documents, in order."""
    stage.run(run)
    ids = {
        split: [
            i
            for batch in kept_documents(run.root, ["id"], split)
            for i in batch.column("id").to_pylist()
        ]
        for split in (None, "train", "validation")
    }
    assert len(ids[None]) == len(set(ids[None])) == 176
    assert sorted(ids["train"] + ids["validation"]) == sorted(ids[None])
    assert [i for i in ids[None] if i in set(ids["train"])] == ids["train"]
    assert 0 < len(ids["validation"]) < 20


def test_only_what_changed_runs_again(
    run: Run, recipe: Recipe, row: Callable[..., Row], collected: Callable[..., Path]
) -> None:
    """Each setting, and one edited input, rebuild exactly what depends on them."""
    lists = {
        "duplicates duplicates",
        "lines lines",
        "contaminated contaminated",
        "split split",
        "quality quality",
    }
    shards = {
        f"{step} {name}.s" for step in ("shard", "occurrences") for name in ("one", "two", "three")
    }
    counts = {"line_counts one.0000", "line_counts two.0000"}
    assert rebuilt(run) == shards | lists | counts | {"evaluation evaluation"}
    assert rebuilt(run) == set()
    # Where the list comes out the same, the wave stops at it.
    assert rebuilt(run, replace(recipe, refine=Refine(near_threshold=0.9))) == {
        "duplicates duplicates"
    }
    assert rebuilt(run, replace(recipe, seed=2)) == {"split split"}
    assert rebuilt(run, replace(recipe, tokenize=Tokenize(validation=0.1))) == {"split split"}
    # C4's rules are for pages only, and languages are not asked of code.
    assert rebuilt(run, replace(recipe, refine=Refine(filters=("gopher", "code")))) == {
        "shard two.s",
        "quality quality",
    }
    few = {"c4": {"few_sentences": 2.0, "curly_brackets": 5.0}}
    assert rebuilt(run, replace(recipe, refine=Refine(thresholds=few))) == {
        "shard two.s",
        "quality quality",
    }
    assert (
        rebuilt(
            run,
            replace(recipe, refine=Refine(thresholds={"c4": dict(reversed(few["c4"].items()))})),
        )
        == set()
    )
    assert rebuilt(run, replace(recipe, refine=Refine(languages=("en",)))) == {
        "shard one.s",
        "shard two.s",
        "quality quality",
    }
    # Phone numbers are looked for in prose; in code only where it is asked for.
    assert rebuilt(run, replace(recipe, refine=Refine(personal=Personal(phone="keep")))) == {
        "shard one.s",
        "shard two.s",
    }
    # What a source may lose is no part of any key.
    assert rebuilt(run, replace(recipe, refine=Refine(most_dropped=0.9))) == set()
    # A phrase that no item holds changes nothing but the settings.
    assert rebuilt(run, replace(recipe, refine=Refine(allowed_overlap=("one two three",)))) == {
        "evaluation evaluation"
    }
    assert rebuilt(run, recipe) == set()
    collect(run, row, collected, salt=1)
    # No line repeats, before and now.
    again = {"shard two.s", "occurrences two.s"} | counts
    assert rebuilt(run) == again | lists - {"lines lines"}


def test_workers_do_not_matter(
    run: Run, tmp_path: Path, row: Callable[..., Row], collected: Callable[..., Path]
) -> None:
    """Two processes build the same artifacts as one."""
    stage.run(run)
    other = Run(tmp_path / "other", run.recipe, Workers(2))
    (tmp_path / "other").mkdir()
    collect(other, row, collected)
    try:
        stage.run(other)
    finally:
        other.workers.close()
    views = [one.store.view("refine") for one in (run, other)]
    contents = [
        [(entry["name"], entry["content"]) for entry in view.manifest["artefacts"]]
        for view in views
        if view
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("documents", [90, 1_000])
def test_lists_in_parts_have_the_same_bytes(
    run: Run,
    tmp_path: Path,
    row: Callable[..., Row],
    collected: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    documents: int,
) -> None:
    """Parts of bands, and ranges of keys, change neither duplicates nor split; none is left."""
    other = Run(tmp_path / "other", run.recipe)
    (tmp_path / "other").mkdir()
    for one in (run, other):
        collect(one, row, collected, alike=True)
        stage.run(one)
        monkeypatch.setattr(Refinement, "memory", documents * ENTRY_BYTES)
    views = [one.store.view("refine") for one in (run, other)]
    files = [view.manifest["files"] for view in views if view]
    assert files[0] == files[1]
    steps = ("duplicates", "split", "buckets", "near_rows", "cluster_rows", "shingles")
    built = [other.root / ".store" / "refine" / step for step in steps]
    assert [len(list(folder.glob("*"))) for folder in built] == [1, 1, 0, 0, 0, 0]
    assert all(folder.is_dir() for folder in built)


def test_leakage(run: Run) -> None:
    """Independent documents do not leak; a copied train document is found with its pair."""
    stage.run(run)
    clean = measure_leakage(run.root)
    assert clean.documents > 0
    assert (clean.leaking, clean.worst) == (0.0, ())
    leak(run.root)
    leaked = measure_leakage(run.root)
    assert leaked.documents == clean.documents + 2 and leaked.sampled == 1.0
    assert {pair.validation for pair in leaked.worst} == {
        document_id(name, "file", 0) for name in ("two", "three")
    }
    assert {(pair.train, pair.share) for pair in leaked.worst} == {
        (document_id("one", "file", 0), 1.0)
    }


def leak(root: Path) -> None:
    """Put a text that was dropped everywhere into train once, and into validation twice."""
    for name, side in (("one", TRAIN), ("two", VALIDATION), ("three", VALIDATION)):
        path = root / "refine" / "split" / f"{name}.s.npy"
        verdict = np.load(path)
        assert verdict[0] == DROPPED
        verdict[0] = side
        path.unlink()
        np.save(path, verdict)


def test_verify_finds_a_leak(
    run: Run, row: Callable[..., Row], collected: Callable[..., Path]
) -> None:
    """A half-similar document that was moved to the other side is named with its pair."""
    collect(run, row, collected, alike=True)
    stage.run(run)
    problems = lambda: [line for line in check_overlap(run.root) if not isinstance(line, Note)]  # noqa: E731
    assert problems() == []
    verdicts = [run.root / "refine" / "split" / f"{name}.s.npy" for name in ("one", "two")]
    sides = [int(np.load(path)[1]) for path in verdicts]
    assert sides[0] == sides[1] != DROPPED
    moved = np.load(verdicts[0])
    moved[1] = TRAIN + VALIDATION - sides[0]
    verdicts[0].unlink()
    np.save(verdicts[0], moved)
    (line,) = problems()
    assert document_id("one", "file", 1) in line and "Jaccard 0.6" in line


def test_verify_reads_texts_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.run(run)
    leak(run.root)
    passes = []

    def counted(*given: Any) -> Any:
        passes.append(given)
        return kept_documents(*given)

    monkeypatch.setattr("groundup.artifacts.corpus.kept_documents", counted)
    found = [line for line in check_overlap(run.root) if not isinstance(line, Note)]
    assert len(found) == 2 and all("Jaccard 1.00" in line for line in found)
    assert len(passes) == 1


def test_inspect_follows_a_dropped_winner(
    run: Run,
) -> None:
    """The kept document of the cluster is contaminated, so nothing of it is kept."""
    stage.run(run)
    text = describe_duplicates(run.root, document_id("two", "file", 0))
    kept = text.split(" ", 1)[0]
    assert text.startswith(f"{kept} is dropped for contaminated; dropped as its duplicates: 3\n")


def test_verify_before_training(run: Run) -> None:
    stage.run(run)
    assert list(check_checkpoints(run.root)) == [
        f"{run.root / 'train'}: missing; `groundup run` trains"
    ]


def test_a_changed_bound_of_a_built_in_rule_refines_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: after an edit of rules.py, no verdict of the old bounds stays."""
    stage.run(run)
    rules = tuple(replace(rule, high=10) for rule in C4.rules)
    monkeypatch.setitem(RULE_SETS, "c4", replace(C4, rules=rules))
    assert {name for name in rebuilt(run) if name.startswith("shard")} == {"shard two.s"}


def test_inspect_shows_what_the_filters_saw(
    run: Run, recipe: Recipe, row: Callable[..., Row], collected: Callable[..., Path]
) -> None:
    """Lines are cut from English pages only; the language that was told counts."""
    prose, short = (
        "This is a line of a page that somebody wrote about the weather in town.",
        "So it is, or is it so?",
    )
    cases = (
        ("web", "", prose, prose),
        ("text", "", prose, f"Home\n{prose}"),
        ("web", "en", short, short),
        ("web", "de", short, f"Home\n{short}"),
    )
    for kind, told, text, seen in cases:
        rows = [row(f"Home\n{text}", 0, kind, "one") | {"language": told}]
        step = Step("collect/shard", "one.s", 1, {"kind": kind, "told": told}, {})
        made = run.store.build(step, copy_shard, {"rows": rows, "kind": kind, "write": collected})
        run.publish("collect", [made], {"documents/one.s.parquet": made.path / "documents.parquet"})
        write_lock(run.root, replace(recipe, refine=Refine(filters=("gopher", "c4_lines"))))
        assert raw_and_cleaned(run.root, [rows[0]["id"]], 1_000) == {
            rows[0]["id"]: (rows[0]["text"], seen)
        }
    assert raw_and_cleaned(run.root, ["0" * 32], 1_000) == {}


def test_errors(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    """No collect stage, an unknown filter, nothing kept, no refine stage."""
    empty = Run(tmp_path / "empty", recipe)
    with pytest.raises(StoreError, match="collect"):
        stage.run(empty)
    with pytest.raises(StoreError, match="refine"):
        list(kept_documents(tmp_path / "empty"))
    with pytest.raises(RecipeError, match="did you mean"):
        stage.run(replace(run, recipe=replace(recipe, refine=Refine(filters=("gophr",)))))
    with pytest.raises(
        RecipeError, match='c4 has no rule "few_sentence"; did you mean "few_sentences"'
    ):
        stage.run(
            replace(
                run, recipe=replace(recipe, refine=Refine(thresholds={"c4": {"few_sentence": 5}}))
            )
        )
    (tmp_path / "nothing_of_a_test.py").write_text(
        "def drop(batch):\n    return [False] * len(batch), [0.5] * len(batch)\n"
    )
    with pytest.raises(
        SourceError, match='"one": no document of it is kept; listed are 60 nothing_of_a_test:drop'
    ):
        stage.run(
            replace(run, recipe=replace(recipe, refine=Refine(filters=("nothing_of_a_test:drop",))))
        )
