"""The stage evaluate: all figures, the same twice, computed again only if an input changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.trained import add_checkpoint, tiny_model, trained_run

from groundup.artifacts.checkpoints import find_checkpoint
from groundup.errors import GroundupError
from groundup.evaluate import benchmarks
from groundup.evaluate.samples import choose_prompt, document_at
from groundup.evaluate.stage import run as evaluate
from groundup.evaluate.validation_data import open_validation_data
from groundup.recipe import recipe_from
from groundup.runtime.files import read_json
from groundup.runtime.run import Run
from groundup.schema import settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    (root / "last.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"the {w} sat on the mat"}) for w in ("cat", "dog", "old house")
        )
    )
    wanted = {"benchmarks": ["last.jsonl"], "passages": 12, "sample_tokens": 10}
    made = trained_run(root, evaluate=wanted)
    evaluate(made)
    return made


def test_every_figure_is_there(run: Run) -> None:
    """Loss by source, counting models on the same tokens, benchmark, passages, and what all was
    computed from.
    """
    found = read_json(run.root / "evaluate/evaluation.json")
    index = open_validation_data(run.root / "tokenize")
    tokens = sum(len(s) - 1 for s in index.all_streams("validation"))
    view = run.store.view("tokenize")
    assert view is not None
    for name in ("model", "unigram", "trigram"):
        total = found["validation"][name]["total"]
        assert total["tokens"] == tokens
        assert total["bytes"] == view.manifest["facts"]["total"]["validation"]["bytes"]
        assert set(found["validation"][name]["sources"]) == {"books", "web"}
    # Words at random from sixteen: no model can be below four bits a word, and counting must beat
    # an untrained model.
    losses = {
        name: found["validation"][name]["total"]["loss"] for name in ("model", "unigram", "trigram")
    }
    assert losses["trigram"] < losses["model"]
    assert found["benchmarks"]["last.jsonl"]["n"] == 3
    assert found["passages"]["n"] == 12
    assert set(found["computed_from"]) == {"checkpoint", "tokens", "benchmark last.jsonl"}
    assert read_json(run.root / "evaluate/speed.json")["decode_tokens_per_second"] > 0


def test_samples_name_their_documents(run: Run) -> None:
    """One a kind, with its prompt from a held-out document and its overlap with a training
    document.
    """
    found = read_json(run.root / "evaluate/samples.json")
    assert [sample["kind"] for sample in found] == ["books", "web"]
    held_out = open_validation_data(run.root / "tokenize")
    for sample in found:
        assert 0 < sample["overlap"]["tokens"] <= sample["tokens"] <= 10
        train = "".join(held_out.tokenizer.decode(s.tokens) for s in held_out.all_streams("train"))
        assert sample["overlap"]["text"] in train
        assert len(sample["overlap"]["document"]) == 32


def test_only_what_changed_is_computed_again(run: Run) -> None:
    """Nothing the second time; all of it for another checkpoint; text but not speed for another
    setting.
    """
    first = (run.root / "evaluate/evaluation.json").read_bytes()
    speed = (run.root / "evaluate/speed.json").read_bytes()
    run.built = 0
    evaluate(run)
    assert run.built == 0
    table = settings(run.recipe) | {"evaluate": settings(run.recipe.evaluate) | {"passages": 8}}
    other = Run(run.root, recipe_from(table, "test", run.root))
    evaluate(other)
    assert other.built == 1
    assert (run.root / "evaluate/speed.json").read_bytes() == speed
    evaluate(run)
    assert (run.root / "evaluate/evaluation.json").read_bytes() == first


def test_the_same_figures_twice(tmp_path: Path, run: Run) -> None:
    """Another folder, another time: the same bytes."""
    again = trained_run(tmp_path, evaluate={"passages": 12, "sample_tokens": 10})
    evaluate(again)
    first = read_json(run.root / "evaluate/evaluation.json")
    second = read_json(tmp_path / "evaluate/evaluation.json")
    assert first["validation"] == second["validation"] and first["passages"] == second["passages"]
    assert (run.root / "evaluate/samples.json").read_bytes() == (
        tmp_path / "evaluate/samples.json"
    ).read_bytes()


def test_a_missing_checkpoint_or_benchmark_is_one_line(tmp_path: Path) -> None:
    """Said before anything is computed."""
    run = trained_run(tmp_path, evaluate={"benchmarks": ["nowhere.jsonl"]})
    with pytest.raises(GroundupError, match=r"nowhere\.jsonl"):
        evaluate(run)
    (tmp_path / "train/best.json").write_text('{"step": 8}')
    with pytest.raises(GroundupError, match="no checkpoint best; there are step-7"):
        evaluate(run)
    (tmp_path / "train/best.json").unlink()
    assert (
        find_checkpoint(tmp_path).path
        == find_checkpoint(tmp_path, "last").path
        == find_checkpoint(tmp_path, "step-7").path
    )
    (tmp_path / "train/checkpoints/step-000007/config.json").unlink()
    with pytest.raises(GroundupError, match="is damaged"):
        evaluate(run)
    with pytest.raises(GroundupError, match="no checkpoint yet"):
        find_checkpoint(tmp_path / "elsewhere")


def test_passages_are_held_out_and_distinct(run: Run) -> None:
    """The true passage follows its context; the others come from elsewhere; the same seed asks the
    same.
    """
    held_out = open_validation_data(run.root / "tokenize")
    documents = benchmarks.beginnings(held_out, "books", 20)
    asked = benchmarks.make_questions(documents, 16, 5, seed=1)
    whole = {tuple(d) for d in documents}
    for context, own, *others in asked:
        assert (*context, *own) in whole
        assert len(others) == 3 and all(len(o) == 4 and not np.array_equal(o, own) for o in others)
    again = benchmarks.make_questions(documents, 16, 5, seed=1)
    assert all(
        np.array_equal(a, b)
        for x, y in zip(asked, again, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_a_position_leads_to_its_document(run: Run) -> None:
    """First and last token of a document lead to its id; a prompt begins with a line of a held-out
    document.
    """
    import pyarrow.parquet as pq

    held_out = open_validation_data(run.root / "tokenize")
    rows = [
        r
        for r in pq.read_table(run.root / "tokenize/index.parquet").to_pylist()
        if r["shard"] == "web.1"
    ]
    for row in (r for r in rows if r["split"] == "train"):
        assert (
            document_at(held_out, "web.1", row["offset"])
            == row["id"]
            == document_at(held_out, "web.1", row["offset"] + row["length"] - 1)
        )
    chosen = choose_prompt(held_out, ["web"], 1)
    assert chosen is not None
    _, document, prompt = chosen
    (row,) = [r for r in rows if r["id"] == document]
    tokens = held_out.stream("web.1", "validation").tokens[
        row["offset"] : row["offset"] + row["length"] - 1
    ]
    text, line = held_out.tokenizer.decode(tokens), held_out.tokenizer.decode(prompt)
    assert row["split"] == "validation"
    assert text.startswith(line) or "\n" + line in text


def test_another_checkpoint_is_evaluated(tmp_path: Path) -> None:
    """The key holds the content of the checkpoint."""
    run = trained_run(tmp_path, evaluate={"passages": 4, "sample_tokens": 4})
    evaluate(run)
    run.built = 0
    add_checkpoint(
        run,
        tiny_model(open_validation_data(tmp_path / "tokenize").tokenizer.vocab_size, seed=2),
        step=9,
    )
    evaluate(run)
    assert run.built == 2


def test_tokens_that_the_model_was_not_trained_on_are_refused(tmp_path: Path) -> None:
    """What was held out of another split may have been learned."""
    run = trained_run(tmp_path, evaluate={"passages": 4, "sample_tokens": 4})
    plan = tmp_path / "train" / "train.json"
    plan.write_text(plan.read_text().replace("books.1", "books.9"))
    with pytest.raises(GroundupError, match="trained on other tokens"):
        evaluate(run)
