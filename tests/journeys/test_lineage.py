"""Test inspect, trace and forget on a whole run."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path

import pyarrow.compute as pc
import pytest
from tests.helpers.holders import holders

import groundup
from groundup.commands.forget import forget
from groundup.commands.inspect import (
    describe_document,
    describe_dropped,
    describe_duplicates,
    describe_token,
    display_width,
    raw_and_cleaned,
)
from groundup.commands.trace import TrainingTrace
from groundup.commands.verify import check_forgotten, check_round_trip, check_split, check_tokens
from groundup.errors import ExpensiveError, GroundupError
from groundup.flow import run_flow
from groundup.recipe import load_recipe
from groundup.train.data import Loader

CONTEXT, SEQUENCES, STEPS = 64, 512 // 64, 6


def steps_by_document(root: Path) -> dict[str, set[int]]:
    """Return the steps of each document, from the documents in every sample that training took."""
    run = groundup.open_run(root)
    weights = {source["name"]: source["weight"] for source in run.settings()["source"]}
    vocabulary = run.tokenizer().vocab_size
    loader = Loader(
        root / "tokenize/shards",
        "train",
        context=CONTEXT,
        vocab_size=vocabulary,
        seed=1,
        weights=weights,
    )
    index = run.index()
    rows = index.filter(pc.equal(index["split"], "train")).to_pylist()
    found = defaultdict(set)
    for sample, (_, shard, start) in enumerate(loader.places(0, SEQUENCES * STEPS)):
        for row in rows:
            inside = row["offset"] <= start + CONTEXT and start < row["offset"] + row["length"]
            if f"{row['shard']}.train.npy" == shard and inside:
                found[row["id"]].add(sample // SEQUENCES)
    return found


def test_steps_of_a_document_are_those_whose_samples_hold_it(tiny_run: Path) -> None:
    """For every document of the run, with the checkpoints that have it in their past."""
    run, expected = groundup.open_run(tiny_run), steps_by_document(tiny_run)
    trace = TrainingTrace.open(tiny_run)
    assert trace is not None and expected
    ids = run.index()["id"].to_pylist()
    traced = trace.of_documents(ids)
    for row in run.index().to_pylist():
        seen = traced.get(row["id"])
        assert trace.of_documents([row["id"]]).get(row["id"]) == seen
        if row["split"] == "validation":
            assert seen is None
        else:
            assert seen is not None and set(seen.steps) == expected.get(row["id"], set())
            first = min(seen.steps, default=STEPS)
            assert seen.checkpoints == tuple(f"step-{step:06d}" for step in (3, 6) if step > first)


def test_a_token_has_its_document_and_its_own_steps(tiny_run: Path) -> None:
    """More steps read a document of several windows than one of its tokens."""
    run = groundup.open_run(tiny_run)
    expected = steps_by_document(tiny_run)
    index = (
        run.index()
        .filter(pc.equal(run.index()["split"], "train"))
        .sort_by([("shard", "ascending"), ("offset", "ascending")])
    )
    lengths = {row["id"]: row["length"] for row in index.to_pylist()}
    document = min(
        (name for name in expected if len(expected[name]) > 1),
        key=lambda name: (lengths[name], name),
    )
    number = sum(
        row["length"] for row in index.slice(0, index["id"].to_pylist().index(document)).to_pylist()
    )
    assert f"token {number + 3:,} is token 3 of {document}" in describe_token(tiny_run, number + 3)
    # Every window holds one of these.
    tokens = sorted({*range(0, lengths[document], CONTEXT), lengths[document] - 1})
    of_tokens = [set(run.seen(document, token).steps) for token in tokens]  # type: ignore[union-attr]
    assert set.union(*of_tokens) == expected[document]
    assert min(len(steps) for steps in of_tokens) < len(expected[document])


def test_steps_are_known_after_the_tokens_are_replaced(tiny_run: Path, tmp_path: Path) -> None:
    """Training keeps an index; without one, as in earlier versions, nothing is guessed."""
    root = shutil.copytree(tiny_run, tmp_path / "run")
    document = next(iter(steps_by_document(tiny_run)))
    before = groundup.open_run(root).seen(document)
    shutil.rmtree(root / "tokenize")
    assert groundup.open_run(root).seen(document) == before
    shutil.copytree(tiny_run / "tokenize", root / "tokenize")
    (root / "train/index.parquet").unlink()
    assert groundup.open_run(root).seen(document) == before
    shard = next((root / "tokenize/shards").glob("*.train.npy"))
    shard.rename(shard.with_name(f"other.{shard.name}"))
    text = describe_document(root, document)
    assert "which steps read it is not known" in text


def test_dropped_texts_are_shown_raw_and_cleaned(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    reason = "curly_brackets"
    ids = [
        row["id"]
        for batch in run.dropped("refine")
        for row in batch.to_pylist()
        if row["reason"] == reason
    ]
    text = describe_dropped(tiny_run, reason, 100)
    assert text.startswith(f"{len(ids)} dropped for {reason}") and all(name in text for name in ids)
    assert "c4: at most 0" in text and "score" in text
    pairs = raw_and_cleaned(tiny_run, ids, 100_000)
    assert {name: raw for name, (raw, _) in pairs.items()} == run.raw_texts(ids)
    # The filter asks for brackets in what is left after cleaning.
    assert all("{" in clean for _, clean in pairs.values())
    with pytest.raises(GroundupError, match="the reasons of this run are"):
        describe_dropped(tiny_run, "nonsense")


def test_cleaned_texts_are_those_that_refine_wrote(tiny_run: Path) -> None:
    """Dropped texts are cleaned again; for kept ones, the outcome of refine is on disk."""
    kept = {
        row["id"]: row["text"]
        for batch in groundup.open_run(tiny_run).documents(["id", "text"])
        for row in batch.to_pylist()
    }
    found = raw_and_cleaned(tiny_run, list(kept), 10**9)
    assert {name: clean for name, (_, clean) in found.items()} == kept


def test_duplicates_are_compared_in_two_columns(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    pairs = [
        row
        for batch in run.dropped("refine")
        for row in batch.to_pylist()
        if row["reason"] == "near_duplicate"
    ]
    for row in pairs:
        found = run.duplicates(row["id"])
        member = next(member for member in found.members if member.row["id"] == row["id"])
        assert member.similarity[0] == pytest.approx(row["score"], abs=1e-6)
        text = describe_duplicates(tiny_run, found.kept, 90)
        assert row["id"] in text and found.kept in text.split("\n")[0]
        # Headings hold an id and an origin, which are not wrapped.
        assert all(display_width(line) <= 90 for line in text.split("\n") if line.startswith("  "))
        assert re.search(r" [|<>]( |$)", text)


def unique_phrase(root: Path, document: str) -> str:
    """Return words of a document that no other document of the run holds."""
    run = groundup.open_run(root)
    texts = {
        row["id"]: row["text"]
        for batch in run.documents(["id", "text"])
        for row in batch.to_pylist()
    }
    dropped = [row["id"] for batch in run.dropped("refine") for row in batch.to_pylist()]
    others = " ".join(
        [
            *(text for name, text in texts.items() if name != document),
            *run.raw_texts(dropped).values(),
        ]
    )
    return next(
        phrase
        for phrase in re.findall(r"[A-Za-z]+(?: [A-Za-z]+){3,}", texts[document])
        if phrase not in others
    )


def test_a_whole_run_forgets_and_its_training_stays(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing quotes the document, and models that read it are named with their steps."""
    root = run_copy.parent / "runs" / "tiny"
    seen = steps_by_document(root)
    rows = groundup.open_run(root).index().to_pylist()
    document = next(row["id"] for row in rows if row["source"] == "talk" and seen.get(row["id"]))
    phrase = unique_phrase(root, document)
    weights = {
        path: path.read_bytes() for path in (root / "train/checkpoints").rglob("*.safetensors")
    }
    assert holders(root, phrase)

    told = forget(root, [document], workers=1)

    assert holders(root, phrase) == []
    assert {
        path: path.read_bytes() for path in (root / "train/checkpoints").rglob("*.safetensors")
    } == weights
    assert f"in steps {', '.join(map(str, sorted(seen[document])))}" in told
    past = [f"step-{step:06d}" for step in (3, 6) if step > min(seen[document])]
    assert f"in the past of {', '.join(past)}" in told and "--redo train" in told
    assert "tokenizer" in told and "aside/tune-1" in told
    assert (root / "aside/tune-1/model/model.safetensors").exists()
    assert "evaluate, report" in told and not (root / "report").exists()
    assert f"in the past of {', '.join(past)}" in describe_document(root, document)
    checks = (check_forgotten, check_round_trip, check_split, check_tokens)
    assert [problem for check in checks for problem in check(root)] == []

    monkeypatch.setattr("groundup.runtime.run.EXPENSIVE_SECONDS", 0.0)
    with pytest.raises(ExpensiveError, match=r"its data changed \(\d+ of \d+ token shards\)"):
        run_flow(load_recipe(run_copy), root, until="train", workers=1)
    assert {
        path: path.read_bytes() for path in (root / "train/checkpoints").rglob("*.safetensors")
    } == weights
    # A second one, with no training in between: its steps are known all the same.
    other = next(row["id"] for row in rows if row["id"] != document and seen.get(row["id"]))
    assert f"in steps {', '.join(map(str, sorted(seen[other])))}" in forget(
        root, [other], workers=1
    )
