"""CORE: nanochat's scores of the same items, the tasks that lack data, and damaged bundles."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.bpe import train_bpe
from tests.helpers.trained import tiny_model

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.evaluate.core import CORE_TASKS, ask_task, core_figures, read_core
from groundup.model.transformer import Transformer

WORDS = "the cat sat on a mat and ran to another old house with dogs".split()
FORMS = ("multiple_choice", "schema", "language_modeling")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_bpe([" ".join(WORDS) * 20], 320))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    small = tiny_model(tokenizer.vocab_size)
    longer = Transformer(dataclasses.replace(small.config, context=96))
    longer.load_state_dict(small.state_dict())
    return longer.eval()


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


def row(form: str, draw: random.Random) -> dict[str, Any]:
    """A row at random, of any length, sometimes longer than the context."""
    some = [words(draw, draw.randint(3, 12)) for _ in range(3)]
    if form == "multiple_choice":
        return {
            "query": words(draw, draw.randint(3, 30)),
            "choices": some,
            "gold": draw.randrange(3),
        }
    if form == "schema":
        return {"context_options": some[:2], "continuation": some[2], "gold": draw.randrange(2)}
    return {"context": some[0] + " ", "continuation": words(draw, 1)}


def bundle(folder: Path, labels: Sequence[str], shots: int = 2) -> dict[str, Path]:
    """Write a bundle with made-up rows of some tasks; return its files by origin."""
    entries, guesses = [], ["Eval Task,Random baseline"]
    for n, label in enumerate(CORE_TASKS):
        form = FORMS[n % 3]
        entries.append(
            f"- label: {label}\n  dataset_uri: set/{label}.jsonl\n  num_fewshot: [{shots}]\n"
            f"  icl_task_type: {form}\n  continuation_delimiter: ' '\n"
        )
        guesses.append(f"{label},{(33, 50, 0)[n % 3]}")
        if label in labels:
            draw = random.Random(n)
            path = folder / "eval_data/set" / f"{label}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row(form, draw)) + "\n" for _ in range(12)))
    (folder / "core.yaml").write_text("icl_tasks:\n" + "".join(entries))
    (folder / "eval_meta_data.csv").write_text("\n".join(guesses))
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def test_the_average_needs_every_task(
    tmp_path: Path, model: Transformer, tokenizer: Tokenizer
) -> None:
    """Accuracies are centered; a task without data is named, and there is no average."""
    figures = core_figures(model, tokenizer, bundle(tmp_path, CORE_TASKS), 0)
    centered = [figures["tasks"][label]["centered"] for label in CORE_TASKS]
    assert figures["core"] == pytest.approx(sum(centered) / 22)
    jeopardy = figures["tasks"]["jeopardy"]
    assert jeopardy["centered"] == pytest.approx((jeopardy["accuracy"] - 0.5) / 0.5)
    (tmp_path / "eval_data/set/squad.jsonl").unlink()
    files = {name: path for name, path in bundle(tmp_path, ()).items() if "squad" not in name}
    figures = core_figures(model, tokenizer, files, 0)
    assert ("core" in figures, figures["missing"]) == (False, ["squad"])


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("core.yaml", "icl_tasks: [{label: copa}]", "missing or damaged"),
        ("core.yaml", "[", "missing or damaged"),
        ("eval_data/set/copa.jsonl", '{"query": "a", "gold": 0}\n', "copa.jsonl: line 1 has no ch"),
        ("eval_data/set/copa.jsonl", "", "0 rows are too few for 2 examples"),
    ],
)
def test_a_damaged_bundle_is_named(
    file: str, content: str, reason: str, tmp_path: Path, model: Transformer, tokenizer: Tokenizer
) -> None:
    """One line with the file and what it lacks."""
    files = bundle(tmp_path, ["copa"])
    files[file].write_text(content)
    if "query" in content:
        files["core.yaml"].write_text(
            files["core.yaml"]
            .read_text()
            .replace("schema", "multiple_choice")
            .replace("language_modeling", "multiple_choice")
        )
    with pytest.raises(GroundupError, match=reason):
        core_figures(model, tokenizer, files, 0)


def test_a_folder_without_core_yaml(model: Transformer, tokenizer: Tokenizer) -> None:
    """It is said what is expected."""
    with pytest.raises(GroundupError, match="eval_bundle"):
        core_figures(model, tokenizer, {}, 0)


class _Peer:
    """The interfaces that nanochat's scorer uses of a model and of a tokenizer."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer, self.max_seq_len = model, tokenizer, model.config.context

    def get_bos_token_id(self) -> int:
        return self.tokenizer.end_id

    def encode(self, prompts: Sequence[str], prepend: int) -> list[list[int]]:
        return [[prepend, *self.tokenizer.encode(prompt)] for prompt in prompts]

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.encode(*args, **options) if options else self.model(*args)


@pytest.mark.skipif(
    "GROUNDUP_NANOCHAT" not in os.environ,
    reason="needs GROUNDUP_NANOCHAT: the path of nanochat/core_eval.py",
)
def test_rows_equal_nanochat(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """Row by row, for each form of task, with examples and prompts that the context cuts."""
    spec = importlib.util.spec_from_file_location("core_eval", os.environ["GROUNDUP_NANOCHAT"])
    assert spec is not None and spec.loader is not None
    nanochat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nanochat)
    peer = _Peer(model, tokenizer)
    files = bundle(tmp_path, CORE_TASKS)
    for task in read_core(files):
        path = files[f"eval_data/{task.file}"]
        data = [json.loads(line) for line in path.read_text().splitlines()]
        random.Random(1337).shuffle(data)
        meta = {"task_type": task.form, "num_fewshot": task.shots}
        meta |= {"continuation_delimiter": task.delimiter}
        device = torch.device("cpu")
        theirs = [nanochat.evaluate_example(n, peer, peer, data, device, meta) for n in range(12)]
        assert ask_task(model, tokenizer, task, path, 0) == theirs
