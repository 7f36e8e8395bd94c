"""Tunes a checkpoint and writes the artifact: AdamW over all weights (SFT) or over a LoRA adapter.

The gradient of a step is that of the loss summed over its batch, divided by the number of learned
tokens in the batch. So it does not depend on the micro-batch (axolotl #2262).

    model/           a Hugging Face folder with a chat template
    adapter/         LoRA only, in PEFT's format
    tuning.json      figures before and after, with definitions
    metrics.jsonl    one step a line
    left-out.jsonl   one conversation or row a line, with the reason
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup.artifacts.chat import template
from groundup.artifacts.metrics import rounded
from groundup.artifacts.tokenizer import CONFIG, FILE, Tokenizer, write_config
from groundup.errors import GroundupError
from groundup.model.hf_io import SAMPLING, load_model, save_model
from groundup.model.transformer import Transformer
from groundup.recipe import Tune
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import progress, say
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts
from groundup.train.data import derive_seed
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer, lr_scale
from groundup.tune.data import Row, Rows, TuningData, make_rows
from groundup.tune.lora import Adapter
from groundup.tune.metrics import DEFINITIONS, HeldOutEvaluator, Measured, baseline, examples
from groundup.tune.packing import Pack, collate, loss_sum, packed_size, packed_steps

CLIP = 1.0
# Share of the steps; then a cosine to this share of the peak.
WARMUP_SHARE, FINAL_RATE = 0.1, 0.1
# The peak of AdamW's learning rate is this over the width of the model, the best of those tried on
# the starter (docs/experiments.md): 2.4e-4 at width 1,024. An adapter needs several times as much.
RATE_TIMES_WIDTH = {"sft": 0.25, "lora": 1.25}
# Positions in one forward pass: with the mask of packed rows, attention may materialize its matrix.
MICRO_TOKENS = 16_384
# Settings of [tune] that only LoRA uses.
LORA_KEYS = ("rank", "alpha")


class Finetuner:
    """Tunes a model on rows, as the [tune] table asks for."""

    def __init__(
        self, model: Transformer, tune: Tune, hardware: Hardware, tokens: tuple[int, ...], seed: int
    ) -> None:
        self.model, self.tune, self.hardware, self.seed = model.train(), tune, hardware, seed
        auto = RATE_TIMES_WIDTH[tune.method] / model.config.width
        self.rate = auto if tune.learning_rate == "auto" else tune.learning_rate
        self.adapter = None
        if tune.method == "lora":
            adapter_seed = derive_seed(seed, "adapter")
            self.adapter = Adapter(model, tune.rank, tune.alpha, tokens, adapter_seed)
        self.parameters = FlatParameters(self.adapter or model)
        self.optimizer = Optimizer(self.parameters, "adamw", weight_decay=0.0)

    def train(
        self, rows: Sequence[Row], after_epoch: Callable[[], float | None]
    ) -> list[dict[str, Any]]:
        """Run all steps; return loss, learning rate and gradient norm of each.

        The last step of an epoch also gets what `after_epoch` returns. Raises GroundupError if a
        gradient is not finite.
        """
        tune, sizes = self.tune, [packed_size(row) for row in rows]
        width = self.model.config.context
        steps = list(packed_steps(sizes, width, tune.batch_tokens, tune.epochs, self.seed))
        warmup = math.ceil(WARMUP_SHARE * len(steps))
        metrics: list[dict[str, Any]] = []
        with progress("tune", len(steps), "step") as bar:
            for n, (epoch, packs) in enumerate(steps):
                loss, tokens = self.backward(n, rows, packs)
                norm = float(self.parameters.grad_norm())
                if not math.isfinite(norm):
                    broken = f"tuning: the gradient of step {n + 1} is not finite"
                    raise GroundupError(f"{broken}; lower [tune] learning_rate")
                if norm > CLIP:
                    self.parameters.gradients.mul_(CLIP / norm)
                rate = self.rate * lr_scale(n, len(steps), warmup, FINAL_RATE)
                self.optimizer.step(rate)
                if self.adapter is not None:
                    self.adapter.write_token_rows()
                line = {"step": n + 1, "epoch": epoch + 1, "loss": loss, "learning_rate": rate}
                metrics.append(line | {"gradient_norm": norm, "learnt_tokens": tokens})
                if n + 1 == len(steps) or steps[n + 1][0] != epoch:
                    metrics[-1]["held_out_loss"] = after_epoch()
                bar.add(1, f"loss {loss:.3f}")
        return metrics

    def backward(self, step: int, rows: Sequence[Row], packs: Sequence[Pack]) -> tuple[float, int]:
        """Set the gradients of one step; return its mean loss and the number of learned tokens."""
        tokens = sum(int(rows[n].loss_mask.sum()) for pack in packs for n in pack)
        total = 0.0
        self.parameters.zero_grad()
        for start in range(0, len(packs), self.hardware.micro_batch):
            batch = collate(rows, packs[start : start + self.hardware.micro_batch])
            if self.model.config.dropout:
                torch.manual_seed(derive_seed(self.seed, "tune dropout", step, start))
            with self.hardware.autocast():
                loss = loss_sum(self.model, batch.to(self.model.device))
            (loss / tokens).backward()
            total += float(loss.detach())
        if self.adapter is not None:
            self.adapter.read_token_gradients()
        return total / tokens, tokens

    def save(self, folder: Path, base: Path) -> None:
        """Write adapter/ (LoRA only), merge it, and write model/; `base` is the checkpoint."""
        if self.adapter is not None:
            (folder / "adapter").mkdir()
            self.adapter.save(folder / "adapter", base.name)
            self.adapter.merge()
        write_model(folder / "model", self.model.eval(), base)


@build_step("tune/model", version=2)
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
    """Tune a checkpoint and write the artifact; return counts and seconds."""
    hardware.apply()
    model, tokenizer = load_model(checkpoint, hardware.device), Tokenizer.load(checkpoint)
    rows = _read_rows(data, tokenizer, model.config.context, tune, seed)
    evaluator = HeldOutEvaluator(tokenizer, rows.held_out, rows.labels, tune.answer_tokens)
    before = evaluator.figures(model)
    sequences = max(1, min(hardware.micro_batch, MICRO_TOKENS // model.config.context))
    hardware = dataclasses.replace(hardware, micro_batch=sequences)
    start = time.perf_counter()
    finetuner = Finetuner(model, tune, hardware, tokenizer.chat_ids, seed)
    metrics = finetuner.train(rows.train, lambda: evaluator.loss(model))
    seconds = round(time.perf_counter() - start, 3)
    finetuner.save(folder, checkpoint)
    figures = _figures(rows, finetuner, len(metrics), before, evaluator.figures(model))
    figures |= {"base": checkpoint.name, "data": data.title}
    figures |= {"computed_from": computed_from, "definitions": DEFINITIONS}
    write_json(folder / "tuning.json", rounded(figures))
    _write_lines(folder / "metrics.jsonl", rounded(metrics))
    _write_lines(folder / "left-out.jsonl", rows.listed())
    counts = {"rows": len(rows.train), "steps": len(metrics)}
    return counts | {"learning_seconds": seconds, "device": hardware.device}


def _read_rows(data: TuningData, tokenizer: Tokenizer, context: int, tune: Tune, seed: int) -> Rows:
    """Return the rows; say what was left out, and refuse data that leave nothing to train on."""
    conversations = data.conversations()
    rows = make_rows(conversations, tokenizer, context, tune.validation, tune.limit, seed)
    rows.left_out += data.unread()
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows.reasons.items())
    if not rows.train:
        details = (f" (such as: {entry.detail})" for entry in rows.left_out if entry.detail)
        raise GroundupError(
            f"{data.title}: nothing is left to tune on: {reasons or 'there is no row'}"
            f'{next(details, "")}; name other data, or set [tune] method = "none"'
        )
    if rows.left_out:
        counts = f"{len(rows.train):,} rows to train on, {len(rows.held_out):,} held out"
        say(f"tune: {counts}, left out: {reasons}")
    return rows


def _figures(
    rows: Rows, finetuner: Finetuner, steps: int, before: Measured, after: Measured
) -> dict[str, Any]:
    lora_keys = LORA_KEYS if finetuner.adapter is not None else ()
    names = ("method", "epochs", "learning_rate", "batch_tokens", *lora_keys)
    settings = {name: getattr(finetuner.tune, name) for name in names}
    tokens = sum(int(row.loss_mask.sum()) for row in rows.train)
    return {
        "settings": settings | {"learning_rate": finetuner.rate, "seed": finetuner.seed},
        "rows": {key: len(getattr(rows, key)) for key in ("train", "held_out", "left_out")},
        "left_out": rows.reasons,
        "labels": rows.labels,
        "steps": steps,
        "tokens_learnt": tokens * finetuner.tune.epochs,
        "parameters_learning": finetuner.parameters.weights.numel(),
        "before": before[0],
        "after": after[0],
        "baseline": baseline(rows.train, rows.held_out),
        "examples": examples(rows.held_out, {"before": before[1], "after": after[1]}),
    }


def write_model(folder: Path, model: Transformer, base: Path) -> None:
    """Write a Hugging Face folder whose chat template and generation settings end answers.

    `base`, the checkpoint that the model was made from, gives the tokenizer.
    """
    tokenizer = Tokenizer.load(base)
    stop, end = tokenizer.stop_id, tokenizer.end_id
    ids = {"bos_token_id": None, "eos_token_id": stop, "pad_token_id": end}
    folder.mkdir()
    save_model(folder, model, ids)
    shutil.copyfile(base / FILE, folder / FILE)
    # A program that goes on after an answer reaches the end of a document, so both ids end it.
    both = {"eos_token_id": [stop, end]} if stop != end else {}
    write_json(folder / "generation_config.json", ids | both | SAMPLING)
    names = {"eos_token": tokenizer.special_name(stop), "pad_token": tokenizer.end}
    others = [name for name in tokenizer.specials if name != tokenizer.end]
    write_config(folder, model.config.context, tokenizer.end, others)
    settings = read_json(folder / CONFIG) | names | {"chat_template": template(tokenizer)}
    write_json(folder / CONFIG, settings)
    write_json(folder / "special_tokens_map.json", names | {"additional_special_tokens": others})


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    # Origins are file names, which may not be valid UTF-8.
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
