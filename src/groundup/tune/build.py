"""Tunes a checkpoint and writes the artifact: model, adapter, figures and what was left out.

The artifact holds model/ (a Hugging Face folder with a chat template), adapter/ (LoRA only, in
PEFT's format), tuning.json (figures before and after, with definitions), metrics.jsonl (one step a
line) and left-out.jsonl (one conversation or row a line, with the reason).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.chat import template
from groundup.artifacts.metrics import rounded
from groundup.artifacts.tokenizer import CONFIG as TOKENIZER_CONFIG
from groundup.artifacts.tokenizer import FILE, Tokenizer, write_config
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import CONFIG, SAMPLING, load_model, save_model
from groundup.model.transformer import Transformer
from groundup.recipe import Tune
from groundup.runtime.files import write_json
from groundup.runtime.progress import say
from groundup.runtime.run import BuildStep
from groundup.runtime.store import Facts
from groundup.train.hardware import Hardware
from groundup.tune.data import DataArguments, Rows, TuningData, make_rows
from groundup.tune.finetuner import Finetuner, TuningArguments
from groundup.tune.metrics import DEFINITIONS, HeldOutEvaluator, Reply, baseline, examples

# The peak of AdamW's learning rate is this over the width of the model, the best of those tried on
# the starter (docs/experiments.md): 2.4e-4 at width 1,024. An adapter needs several times as much.
RATE_TIMES_WIDTH = {"sft": 0.25, "lora": 1.25}
# Positions in one forward pass: with the mask of packed rows, attention may materialize its matrix.
MICRO_TOKENS = 16_384
# Settings of [tune] that only LoRA uses.
LORA_KEYS = ("rank", "alpha")

Figures = dict[str, Any]


def tune_model(
    folder: Path,
    *,
    checkpoint: Path,
    data: TuningData,
    tune: Tune,
    seed: int,
    computed_from: Mapping[str, str],
    hardware: Hardware,
) -> Facts:
    """Tune a checkpoint and write the artifact; return counts and seconds.

    Raises:
        GroundupError: no row is left to train on.
    """
    hardware.apply()
    model, tokenizer = load_model(checkpoint, hardware.device), Tokenizer.load(checkpoint)
    rows = _read_rows(data, tokenizer, model.config.context, tune, seed)
    evaluator = HeldOutEvaluator(tokenizer, rows.held_out, rows.labels, tune.answer_tokens)
    before = evaluator.figures(model)
    sequences = max(1, min(hardware.micro_batch, MICRO_TOKENS // model.config.context))
    hardware = dataclasses.replace(hardware, micro_batch=sequences)
    start = time.perf_counter()
    arguments = tuning_arguments(tune, model.config, seed)
    finetuner = Finetuner(model, arguments, hardware, tokenizer.chat_ids)
    metrics = finetuner.train(rows.train, lambda: evaluator.loss(model))
    seconds = time.perf_counter() - start
    if finetuner.adapter is not None:
        (folder / "adapter").mkdir()
        finetuner.adapter.save(folder / "adapter", checkpoint.name)
    finetuner.finish()
    write_model(folder / "model", model, checkpoint)
    figures = _figures(rows, finetuner, len(metrics), before, evaluator.figures(model))
    figures |= {
        "base": checkpoint.name,
        "data": data.title,
        "computed_from": computed_from,
        "definitions": DEFINITIONS,
    }
    write_json(folder / "tuning.json", rounded(figures))
    _write_lines(folder / "metrics.jsonl", rounded(metrics))
    _write_lines(folder / "left-out.jsonl", rows.listed())
    return {
        "rows": len(rows.train),
        "steps": len(metrics),
        "learning_seconds": round(seconds, 3),
        "device": hardware.device,
    }


TUNE_MODEL = BuildStep("tune/model", 1, tune_model)


def _read_rows(data: TuningData, tokenizer: Tokenizer, context: int, tune: Tune, seed: int) -> Rows:
    """Return the rows; say what was left out, and refuse data that leave nothing to train on."""
    arguments = DataArguments(tune.validation, tune.limit, seed)
    rows = make_rows(data.conversations(), tokenizer, context, arguments)
    rows.left_out += data.unread()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows.reasons.items())
    if not rows.train:
        details = (f" (such as: {entry.detail})" for entry in rows.left_out if entry.detail)
        raise GroundupError(
            f"{data.title}: nothing is left to tune on: {reasons or 'there is no row'}"
            f'{next(details, "")}; name other data, or set [tune] method = "none"'
        )
    if rows.left_out:
        say(
            f"tune: {len(rows.train):,} rows to train on, {len(rows.held_out):,} held out,"
            f" left out: {reasons}"
        )
    return rows


def tuning_arguments(tune: Tune, config: ModelConfig, seed: int) -> TuningArguments:
    """Return the settings of the loop, with the learning rate resolved.

    Raises:
        ValueError: there is no method.
    """
    if tune.method == "none":
        raise ValueError('the method is "none"')
    rate = tune.learning_rate
    if rate == "auto":
        rate = RATE_TIMES_WIDTH[tune.method] / config.width
    return TuningArguments(
        tune.method, tune.epochs, rate, tune.batch_tokens, tune.rank, tune.alpha, seed
    )


def _figures(
    rows: Rows,
    finetuner: Finetuner,
    steps: int,
    before: tuple[Figures, list[Reply]],
    after: tuple[Figures, list[Reply]],
) -> Figures:
    settings = dataclasses.asdict(finetuner.arguments)
    if finetuner.adapter is None:
        settings = {name: value for name, value in settings.items() if name not in LORA_KEYS}
    tokens = sum(int(row.loss_mask.sum()) for row in rows.train)
    return {
        "settings": settings,
        "rows": {
            "train": len(rows.train),
            "held_out": len(rows.held_out),
            "left_out": len(rows.left_out),
        },
        "left_out": rows.reasons,
        "labels": rows.labels,
        "steps": steps,
        "tokens_learnt": tokens * finetuner.arguments.epochs,
        "parameters_learning": finetuner.parameters.weights.numel(),
        "before": before[0],
        "after": after[0],
        "baseline": baseline(rows.train, rows.held_out),
        "examples": examples(rows.held_out, {"before": before[1], "after": after[1]}),
    }


def write_model(folder: Path, model: Transformer, base: Path) -> None:
    """Write a Hugging Face folder whose chat template and generation settings end answers.

    Args:
        base: the checkpoint that the model was made from; its tokenizer is copied.
    """
    folder.mkdir()
    save_model(folder, model)
    shutil.copyfile(base / FILE, folder / FILE)
    tokenizer = Tokenizer.load(base)
    stop, end = tokenizer.stop_id, tokenizer.end_id
    _change_json(folder / CONFIG, bos_token_id=None, eos_token_id=stop, pad_token_id=end)
    # A program that goes on after an answer reaches the end of a document, so both ids end it.
    generation = {
        "bos_token_id": None,
        "eos_token_id": [stop, end] if stop != end else end,
        "pad_token_id": end,
    }
    write_json(folder / "generation_config.json", generation | SAMPLING)
    eos_token = tokenizer.special_name(stop)
    others = [name for name in tokenizer.specials if name != tokenizer.end]
    write_config(folder, model.config.context, tokenizer.end, others)
    _change_json(folder / TOKENIZER_CONFIG, eos_token=eos_token, chat_template=template(tokenizer))
    special_tokens = {
        "eos_token": eos_token,
        "pad_token": tokenizer.end,
        "additional_special_tokens": others,
    }
    write_json(folder / "special_tokens_map.json", special_tokens)


def _change_json(path: Path, **values: Any) -> None:
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    # Origins are file names, which may not be valid UTF-8.
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
