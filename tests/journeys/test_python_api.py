"""The public Python API: about six names, and what a notebook does with them."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import groundup
from groundup.artifacts.checkpoints import find_checkpoint
from groundup.commands.inspect import dropped_by_reason
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.train.data import Loader


def test_the_names_are_kept() -> None:
    """Names may be added, never taken away."""
    assert {
        "GroundupError",
        "load_recipe",
        "make_plan",
        "open_run",
        "run_recipe",
        "verify_run",
    } <= set(groundup.__all__)
    assert all(callable(getattr(groundup, name)) for name in groundup.__all__)


def test_a_run_is_read_from_python(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    kept = sum(len(batch) for batch in run.documents(["id"]))
    assert kept == sum(
        run.figures()[f"tokens.{split}.documents"]["value"] for split in ("train", "validation")
    )
    assert run.model().config.parameter_count() == run.figures()["model.parameters"]["value"]
    assert run.tokenizer().decode(run.tokenizer().encode("plain text")) == "plain text"
    assert run.metrics()[-1]["step"] == 6
    assert run.sample("The", tokens=5) == run.sample("The", tokens=5)


def test_a_plan_has_every_figure_and_refuses_what_cannot_fit(tiny_project: Path) -> None:
    plan = groundup.make_plan(groundup.load_recipe(tiny_project), price=2.0)
    assert {"tokens", "parameters", "training memory", "disk", "hours", "money"} <= set(
        plan.figures
    )
    plan.refuse()
    huge = groundup.load_recipe(
        tiny_project,
        ["model.width=65536", "model.layers=100", "model.head_width=64", "train.keep=1"],
    )
    with pytest.raises(groundup.GroundupError, match="memory"):
        groundup.make_plan(huge).refuse()


def test_a_context_beyond_the_text_is_refused_and_never_probed(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe of its speed would take minutes, and training would refuse it in the end."""
    contexts = []

    class Recorded(Transformer):
        def __init__(self, config: ModelConfig) -> None:
            contexts.append(config.context)
            super().__init__(config)

    monkeypatch.setattr("groundup.model.transformer.Transformer", Recorded)
    plan = groundup.make_plan(groundup.load_recipe(tiny_project, ["model.context=1048576"]))
    plan.refuse(trains=False)
    with pytest.raises(groundup.GroundupError, match=r"set a smaller \[model\] context"):
        plan.refuse()
    assert not contexts


def test_nothing_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(groundup.GroundupError, match="there is no run here"):
        groundup.open_run(tmp_path)


def test_what_was_dropped_is_told_with_its_text(tiny_run: Path) -> None:
    """The same records as `inspect` counts; raw text for those that were documents, kept or
    dropped.
    """
    run = groundup.open_run(tiny_run)
    rows = [row for batch in run.dropped() for row in batch.to_pylist()]
    assert Counter(row["reason"] for row in rows) == dropped_by_reason(tiny_run)
    parts = [sum(len(batch) for batch in run.dropped(stage)) for stage in ("collect", "refine")]
    assert sum(parts) == len(rows) and all(parts)
    duplicates = [row for row in rows if row["duplicate_of"]]
    texts = run.raw_texts([row[name] for row in duplicates for name in ("id", "duplicate_of")])
    assert duplicates and all(texts[row["id"]] and texts[row["duplicate_of"]] for row in duplicates)
    assert run.raw_texts(["f" * 32]) == run.raw_texts([]) == {}


def test_tokens_are_those_of_the_index(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    index = run.index()
    for split in ("train", "validation"):
        by_source: Counter[str] = Counter()
        for source, tokens in run.tokens(split):
            by_source[source] += len(tokens)
        rows = [row for row in index.to_pylist() if row["split"] == split]
        assert by_source == Counter(
            {name: sum(r["length"] for r in rows if r["source"] == name) for name in by_source}
        )
    kept = {
        row["id"]: len(row["text"].encode())
        for batch in run.documents(["id", "text"])
        for row in batch.to_pylist()
    }
    assert {row["id"]: row["bytes"] for row in index.to_pylist()} == kept


def test_tokens_seen_are_those_of_the_samples_that_training_took(tiny_run: Path) -> None:
    """Each sample is looked for in the shards themselves."""
    run = groundup.open_run(tiny_run)
    context, vocabulary = run.model().config.context, run.tokenizer().vocab_size
    weights = {source["name"]: source["weight"] for source in run.settings()["source"]}
    loader = Loader(
        tiny_run / "tokenize/shards",
        "train",
        context=context,
        vocab_size=vocabulary,
        seed=1,
        weights=weights,
    )
    found: Counter[str] = Counter()
    for row in loader.samples(0, 6 * 512 // context):
        holding = {
            source
            for source, tokens in run.tokens("train")
            if row.astype("<u2").tobytes() in tokens.tobytes()
        }
        found.update(dict.fromkeys(holding, context))
    assert run.tokens_seen() == found
    assert found.total() == run.metrics()[-1]["tokens"]


def test_settings_and_checkpoints_are_those_on_disk(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    assert run.settings()["train"]["batch_tokens"] == 512
    assert run.settings()["machine"]["precision"] == "fp32"
    found = run.checkpoints()
    assert [checkpoint["step"] for checkpoint in found] == [3, 6]
    assert [checkpoint["path"] for checkpoint in found if checkpoint["best"]] == [
        find_checkpoint(tiny_run).path
    ]
    assert found[-1]["tokens"] == run.metrics()[-1]["tokens"]
    assert found[-1]["bytes"] > 4 * run.figures()["model.parameters"]["value"]


def test_evaluation_and_samples_are_what_evaluate_wrote(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    assert run.evaluation() == json.loads((tiny_run / "evaluate/evaluation.json").read_text())
    assert {sample["kind"] for sample in run.samples()} == {
        "books",
        "wikipedia",
        "web",
        "code",
        "conversations",
    }


def test_scores_add_up_and_a_chat_answers(tiny_run: Path) -> None:
    run = groundup.open_run(tiny_run)
    found = run.scores("if the condition is true", alternatives=2)
    assert "".join(score.text for score in found) == "if the condition is true"
    assert all(score.log_probability <= 0 and len(score.alternatives) == 2 for score in found)
    # Six steps of training: hardly better than guessing among 512.
    assert np.mean([score.log_probability for score in found]) == pytest.approx(
        -math.log(512), abs=2
    )
    after = found[len(run.tokenizer().encode("if the condition is"))]
    words, values = zip(*run.next_tokens("if the condition is", 2), strict=True)
    expected_words, expected_values = zip(*after.alternatives, strict=True)
    assert words == expected_words and values == pytest.approx(expected_values)
    messages = [{"role": "user", "content": "Hello"}]
    assert run.chat(messages, tokens=8) == run.chat(messages, tokens=8)
    assert run.chat(messages, tokens=8, seed=2) != run.chat(messages, tokens=8)
    refused: list[Any] = [
        {"role": "robot", "content": "Hello"},
        {"role": "user"},
        {"role": "user", "content": 3},
    ]
    for wrong in refused:
        with pytest.raises(groundup.GroundupError, match="message 2"):
            run.chat([*messages, wrong])


def test_another_checkpoint_is_another_model(tiny_run: Path) -> None:
    """One model is kept between calls; it must not answer for another."""
    run = groundup.open_run(tiny_run)
    first, last, again = (
        run.scores("plain text", which)[0].log_probability
        for which in ("step-3", "step-6", "step-3")
    )
    assert first == again != last


def test_what_is_not_there_yet_is_one_line_each(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "recipe.lock.toml", tmp_path)
    run = groundup.open_run(tmp_path)
    calls = (
        lambda: list(run.documents()),
        lambda: list(run.dropped()),
        lambda: run.raw_texts(["f" * 32]),
        lambda: run.duplicates("f" * 32),
        lambda: run.difference(tiny_run),
        run.tokenizer,
        run.index,
        lambda: list(run.tokens()),
        run.tokens_seen,
        run.model,
        lambda: run.scores("text"),
        lambda: run.next_tokens("text"),
        lambda: run.chat([{"role": "user", "content": "Hello"}]),
        run.evaluation,
        run.samples,
        run.figures,
    )
    for call in calls:
        with pytest.raises(groundup.GroundupError) as error:
            call()
        assert "\n" not in str(error.value)
    assert run.metrics() == run.checkpoints() == []
