"""Makes a tuned model out of a checkpoint and conversations. Reads both; writes what the view
`tune` holds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import load_model
from groundup.recipe import Tune
from groundup.runtime.progress import say
from groundup.runtime.store import Facts
from groundup.train.hardware import Hardware
from groundup.tune import metrics as measure
from groundup.tune import write
from groundup.tune.conversations import Material, reasons
from groundup.tune.data import Choice, LeftOut, Rows, make_rows
from groundup.tune.finetuner import Learner, Lesson

# The peak of AdamW's rate is this over the width of the model, best on the starter among those
# tried (docs/experiments.md): 2.4e-4 at a width of 1,024. An adapter wants several times as much.
RATE_TIMES_WIDTH = {"sft": 0.25, "lora": 1.25}
# Positions in one forward pass: beside the mask of packed rows, attention may hold its whole
# matrix.
MICRO_TOKENS = 16_384
# What [tune] says about LoRA alone.
LORA_KEYS = ("rank", "alpha")


def make_model(
    folder: Path,
    *,
    checkpoint: Path,
    material: Material,
    tune: Tune,
    seed: int,
    inputs: dict[str, str],
    machine: Hardware,
) -> Facts:
    """Write model, adapter, figures, metrics and what was left out; return counts and seconds.

    Raises:
        GroundupError: nothing is left to learn from.
    """
    machine.apply()
    model, tokenizer = load_model(checkpoint, machine.device), Tokenizer.load(checkpoint)
    rows = _rows(material, tokenizer, model.config, tune, seed)
    held_out = measure.HeldOut(tokenizer, rows.held_out, rows.labels, tune.answer_tokens)
    before = held_out.figures(model)
    start = time.perf_counter()
    learner = Learner(
        model, lesson_of(tune, model.config, seed), _fit(machine, model.config), tokenizer.chat_ids
    )
    metrics = learner.learn(rows.train, lambda: held_out.loss(model))
    seconds = time.perf_counter() - start
    _write_weights(folder, learner, checkpoint)
    figures = _figures(rows, learner, len(metrics)) | _measured(
        rows, before, held_out.figures(model)
    )
    figures |= {
        "base": checkpoint.name,
        "data": material.title,
        "computed_from": inputs,
        "definitions": measure.DEFINITIONS,
    }
    write.write_plain(folder / "tuning.json", write.rounded(figures))
    write.write_lines(folder / "metrics.jsonl", write.rounded(metrics))
    write.write_lines(folder / "left-out.jsonl", rows.listed())
    return {
        "rows": len(rows.train),
        "steps": len(metrics),
        "learning_seconds": round(seconds, 3),
        "device": machine.device,
    }


def lesson_of(tune: Tune, config: ModelConfig, seed: int) -> Lesson:
    """Return the settings of the loop, the learning rate resolved.

    Raises:
        ValueError: there is no method.
    """
    if tune.method == "none":
        raise ValueError('the method is "none"')
    rate = (
        RATE_TIMES_WIDTH[tune.method] / config.width
        if tune.learning_rate == "auto"
        else tune.learning_rate
    )
    return Lesson(tune.method, tune.epochs, rate, tune.batch_tokens, tune.rank, tune.alpha, seed)


def _fit(machine: Hardware, config: ModelConfig) -> Hardware:
    sequences = max(1, min(machine.micro_batch, MICRO_TOKENS // config.context))
    return dataclasses.replace(machine, micro_batch=sequences)


def _rows(
    material: Material, tokenizer: Tokenizer, config: ModelConfig, tune: Tune, seed: int
) -> Rows:
    rows = make_rows(
        material.talks(), tokenizer, config.context, Choice(tune.validation, tune.limit, seed)
    )
    rows.left_out += material.unread()
    if not rows.train:
        first = next((f" (such as: {one.detail})" for one in rows.left_out if one.detail), "")
        message = (
            f"{material.title}: nothing is left to tune on:"
            f" {_words(rows.left_out) or 'there is no row'}{first}"
        )
        raise GroundupError(f'{message}; name other data, or set [tune] method = "none"')
    if rows.left_out:
        say(
            f"tune: {len(rows.train):,} rows to learn, {len(rows.held_out):,} held out, left out:"
            f" {_words(rows.left_out)}"
        )
    return rows


def _words(left_out: Sequence[LeftOut]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons(left_out).items())


def _write_weights(folder: Path, learner: Learner, checkpoint: Path) -> None:
    """Write the adapter, if there is one, and the model with the adapter merged into it."""
    if learner.adapter is not None:
        (folder / "adapter").mkdir()
        learner.adapter.save(folder / "adapter", checkpoint.name)
    learner.finish()
    write.write_model(folder / "model", learner.model, checkpoint)


Measured = tuple[dict[str, Any], list[measure.Answer]]


def _measured(rows: Rows, before: Measured, after: Measured) -> dict[str, Any]:
    """Return the figures before and after side by side, and a few answers."""
    figures = {
        "before": before[0],
        "after": after[0],
        "baseline": measure.baseline(rows.train, rows.held_out),
    }
    return figures | {"examples": measure.examples(rows.held_out, before[1], after[1])}


def _figures(rows: Rows, learner: Learner, steps: int) -> dict[str, Any]:
    lesson = learner.lesson
    unused = () if lesson.method == "lora" else LORA_KEYS
    return {
        "settings": {
            name: value for name, value in dataclasses.asdict(lesson).items() if name not in unused
        },
        "rows": {
            "train": len(rows.train),
            "held_out": len(rows.held_out),
            "left_out": len(rows.left_out),
        },
        "left_out": reasons(rows.left_out),
        "labels": rows.labels,
        "steps": steps,
        "tokens_learnt": sum(int(row.learned.sum()) for row in rows.train) * lesson.epochs,
        "parameters_learning": learner.learning_parameters,
    }
