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
from groundup.errors import GroundupError, InterruptionError
from groundup.model.hf_io import SAMPLING, load_model, read_config, save_model
from groundup.model.packed_attention import PackedAttention, choose_packed_kernel
from groundup.model.transformer import Transformer
from groundup.recipe import Train, Tune
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import progress, say
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts
from groundup.train.data import derive_seed
from groundup.train.distributed import DistributedContext, Signals, catch_signals
from groundup.train.guard import MAX_ROLLBACKS, SLOWER
from groundup.train.hardware import Hardware
from groundup.train.memory import out_of_memory_explained
from groundup.train.optimizer import FlatParameters, Optimizer, lr_scale
from groundup.train.ranks import call_on_ranks
from groundup.train.sharding import Sharding
from groundup.train.step import StepStats, TrainStep
from groundup.tune.data import Row, Rows, TuningData, make_rows
from groundup.tune.lora import Adapter
from groundup.tune.metrics import DEFINITIONS, HeldOutEvaluator, Measured, baseline, examples
from groundup.tune.packing import Pack, collate, loss_sum, packed_size, packed_steps
from groundup.tune.state import TuneCheckpoints, TuneState, save_interval

# As [train] clip and [train] guard have them.
CLIP, GUARD = Train().clip, Train().guard
# Share of the steps; then a cosine to this share of the peak.
WARMUP_SHARE, FINAL_RATE = 0.1, 0.1
# The peak of AdamW's learning rate is this over the width of the model, the best of those tried on
# the starter (docs/experiments.md): 2.4e-4 at width 1,024. An adapter needs several times as much.
RATE_TIMES_WIDTH = {"sft": 0.25, "lora": 1.25}
# Positions in one forward pass: where attention needs a mask, it may materialize its matrix.
MICRO_TOKENS = 16_384
# Settings of [tune] that only LoRA uses.
LORA_KEYS = ("rank", "alpha")


class Finetuner:
    """One process of a tuning: tunes a model on rows, as the [tune] table asks for."""

    def __init__(
        self,
        model: Transformer,
        tune: Tune,
        hardware: Hardware,
        tokens: tuple[int, ...],
        seed: int,
        ranks: DistributedContext | None = None,
        checkpoints: TuneCheckpoints | None = None,
    ) -> None:
        self.model, self.tune, self.hardware, self.seed = model.train(), tune, hardware, seed
        self.model.recompute = hardware.recompute
        self.ranks, self.checkpoints = ranks or DistributedContext(), checkpoints
        auto = RATE_TIMES_WIDTH[tune.method] / model.config.width
        self.rate = auto if tune.learning_rate == "auto" else tune.learning_rate
        self.adapter = None
        if tune.method == "lora":
            adapter_seed = derive_seed(seed, "adapter")
            self.adapter = Adapter(model, tune.rank, tune.alpha, tokens, adapter_seed)
        self.trained = self.adapter or model
        self.parameters = FlatParameters(self.trained, self.ranks.rank, self.ranks.world)
        self.optimizer = Optimizer(self.parameters, "adamw", weight_decay=0.0)
        self.sharding = Sharding(self.trained, self.parameters, self.ranks)
        self.train_step = TrainStep(
            model, self.parameters, self.optimizer, hardware, seed, self.sharding
        )
        self.kernel = hardware.packed_attention or choose_packed_kernel(
            hardware.device, hardware.precision
        )
        # The step of the last checkpoint; -1 before the first.
        self.state, self._saved = TuneState(), -1
        if hardware.compile:
            PackedAttention.keep_from_compiler()
            for block in model.model.layers:
                block.forward = torch.compile(block.forward)

    def train(
        self, rows: Sequence[Row], after_epoch: Callable[[], float | None]
    ) -> list[dict[str, Any]]:
        """Run all steps after that of the state; return loss, rate and gradient norm of each.

        The last step of an epoch also gets what `after_epoch` returns. Raises GroundupError if
        stopped by a signal (after a checkpoint), out of memory, or rolled back too often.
        """
        tune, sizes = self.tune, [packed_size(row) for row in rows]
        context = self.model.config.context
        steps = list(packed_steps(sizes, context, tune.batch_tokens, tune.epochs, self.seed))
        self.state.every = save_interval(len(steps))
        with (
            catch_signals(patient=self.ranks.world > 1) as signals,
            progress("tune", len(steps) - self.state.step, "step") as bar,
            out_of_memory_explained(self._without_memory),
        ):
            while (n := self.state.step) < len(steps):
                if len(steps) > self.state.every and self.state.is_calm and n != self._saved:
                    self.save_state()
                epoch, packs = steps[n]
                stats = self.forward_backward(n, rows, packs, signals)
                self._update(stats, epoch, len(steps))
                if n + 1 == len(steps) or steps[n + 1][0] != epoch:
                    self.state.metrics[-1]["held_out_loss"] = after_epoch()
                bar.add(1, f"loss {stats.loss:.3f}")
                # Several ranks agree on it in the stats of the step.
                stop = stats.stop if self.ranks.world > 1 else signals.stop
                if stop and n + 1 < len(steps):
                    self.save_state()
                    stopped = f"tuning stopped at step {n + 1} of {len(steps)}"
                    raise InterruptionError(f"{stopped}; run the same command to resume")
        self.sharding.wait_for_weights()
        return self.state.metrics

    def _without_memory(self) -> str:
        size, context = self.hardware.micro_batch, self.model.config.context
        smaller = f"batch_tokens = {size // 2 * context}" if size > 1 else 'method = "lora"'
        where = f"out of memory at step {self.state.step} of tuning, with micro-batches of {size}"
        return f"{where}; set [tune] {smaller}, or use a device with more memory"

    def forward_backward(
        self, step: int, rows: Sequence[Row], packs: Sequence[Pack], signals: Signals | None = None
    ) -> StepStats:
        """Compute the gradients of a step, of which this rank takes its share of the sequences."""
        ranks, size = self.ranks, self.hardware.micro_batch
        first, last = (len(packs) * (ranks.rank + n) // ranks.world for n in (0, 1))
        # Learned tokens of all ranks, and of this one.
        tokens, own = (
            sum(int(rows[n].loss_mask.sum()) for pack in part for n in pack)
            for part in (packs, packs[first:last])
        )
        # Compiled for one width.
        width = self.model.config.context if self.hardware.compile else 0
        total = torch.zeros((), device=ranks.device)
        self.parameters.zero_grad()
        for start in range(first, last, size):
            batch = collate(rows, packs[start : min(start + size, last)], width)
            if self.model.config.dropout:
                # A function of the step, whatever rank takes the sequences.
                torch.manual_seed(derive_seed(self.seed, "tune dropout", step, start))
            if start + size >= last:
                self.sharding.expect_gradients()
            with self.hardware.autocast():
                loss = loss_sum(self.model, batch.to(ranks.device), self.kernel)
            (loss / tokens).backward()
            total += loss.detach()
        if first == last:
            # A rank without a sequence of this step adds zeros.
            self.sharding.expect_gradients()
        if self.adapter is not None:
            self.adapter.read_token_gradients()
        self.sharding.finish_gradients()
        return self.train_step.reduce(total, own, tokens, signals)

    def _update(self, stats: StepStats, epoch: int, steps: int) -> None:
        """Apply a step, unless the guard refuses it; roll back after repeated refusals."""
        state, warmup = self.state, math.ceil(WARMUP_SHARE * steps)
        line: dict[str, Any] = {"step": state.step + 1, "epoch": epoch + 1}
        if reason := state.guard.judge(stats.loss, stats.norm, GUARD):
            state.metrics.append(line | {"refused": reason})
            if self.ranks.is_first:
                say(f"  step {state.step + 1}: {reason}; this step is not applied")
            state.step += 1
            if state.guard.refuse(state.step):
                self._roll_back(reason)
            return
        scale = lr_scale(state.step, steps, warmup, FINAL_RATE) * state.guard.rate
        rate = self.rate * scale
        self.train_step.update(stats, rate, 0.0, CLIP)
        if self.adapter is not None:
            self.sharding.wait_for_weights()
            self.adapter.write_token_rows()
        state.guard.accept(stats.loss, stats.norm)
        line |= {"loss": stats.loss, "learning_rate": rate, "gradient_norm": stats.norm}
        state.metrics.append(line | {"learnt_tokens": stats.tokens})
        state.step += 1

    def _roll_back(self, reason: str) -> None:
        """Return to the weights of the last checkpoint; the steps since are not learned."""
        failed = self.state
        if failed.guard.rollbacks >= MAX_ROLLBACKS or not self.restore(calm=True):
            again = (
                f"{failed.guard.rollbacks} rollbacks" if failed.guard.rollbacks else "repeatedly"
            )
            where = f"tuning: step {failed.step}: {reason}, {again}"
            raise GroundupError(f"{where}; lower [tune] learning_rate and run again")
        state, guard = self.state, self.state.guard
        rollbacks, rate = failed.guard.rollbacks + 1, failed.guard.rate * SLOWER
        state.metrics.append(failed.metrics[-1] | {"back_to": state.step})
        if self.ranks.is_first:
            back = f"back to the weights of step {state.step}, learning rate times {rate:g}"
            say(f"  step {failed.step}: {reason}; {back}")
        state.step = failed.step
        state.guard = dataclasses.replace(guard, rollbacks=rollbacks, rate=rate)

    def save_state(self) -> None:
        """Commit a checkpoint, unless the weights are broken; all ranks must call it."""
        self.sharding.wait_for_weights()
        if self.checkpoints is None or not self.parameters.are_finite():
            return
        optimizer = self.sharding.optimizer_state(self.optimizer)
        if self.ranks.is_first:
            self.checkpoints.save(self.trained, optimizer, self.state)
        self._saved = self.state.step
        self.ranks.barrier()

    def restore(self, calm: bool = False) -> bool:
        """Return to the newest checkpoint, or `calm` one; False if there is none."""
        found = self.checkpoints.latest_valid(calm) if self.checkpoints is not None else None
        if self.checkpoints is None or found is None:
            return False
        artifact, self.state = found
        self._saved = self.state.step
        self.sharding.wait_for_weights()
        self.optimizer.load_state_dict(self.checkpoints.restore(artifact, self.trained))
        if self.adapter is not None:
            self.adapter.write_token_rows()
        # All ranks must have read before rank 0 writes.
        self.ranks.barrier()
        return True

    def save(self, folder: Path, base: Path) -> None:
        """Merge the adapter, if there is one, and let rank 0 write it and the model.

        `base` is the checkpoint that was tuned. All ranks must call it.
        """
        if self.adapter is not None:
            if self.ranks.is_first:
                # It exists if a lost rank made all of them restart.
                (folder / "adapter").mkdir(exist_ok=True)
                self.adapter.save(folder / "adapter", base.name)
            self.adapter.merge()
        if self.ranks.is_first:
            write_model(folder / "model", self.model.eval(), base)


@build_step("tune/model", version=3)
def tune_model(
    folder: Path,
    *,
    checkpoint: Path,
    data: TuningData,
    tune: Tune,
    seed: int,
    computed_from: Mapping[str, str],
    hardware: Hardware,
    checkpoints: TuneCheckpoints,
) -> Facts:
    """Tune a checkpoint on all ranks and write the artifact; return counts and seconds."""
    context = read_config(checkpoint).context
    rows = _read_rows(data, Tokenizer.load(checkpoint), context, tune, seed)
    sequences = max(1, min(hardware.micro_batch, MICRO_TOKENS // context))
    hardware = dataclasses.replace(hardware, micro_batch=sequences)
    processes = f"{hardware.processes} x " if hardware.processes > 1 else ""
    say(
        f"tune: {hardware.precision} on {processes}{hardware.device}, {hardware.threads} threads,"
        f" micro-batch {sequences}, attention in packed sequences by {hardware.packed_attention}"
    )
    figures, metrics, seconds = call_on_ranks(
        folder, hardware, tune_rows, folder, checkpoint, rows, tune, seed, hardware, checkpoints
    )
    figures |= {"base": checkpoint.name, "data": data.title}
    figures |= {"computed_from": computed_from, "definitions": DEFINITIONS}
    write_json(folder / "tuning.json", rounded(figures))
    _write_lines(folder / "metrics.jsonl", rounded(metrics))
    _write_lines(folder / "left-out.jsonl", rows.listed())
    counts = {"rows": len(rows.train), "steps": len(metrics)}
    return counts | {"learning_seconds": round(seconds, 3), "device": hardware.device}


def tune_rows(
    ranks: DistributedContext,
    folder: Path,
    checkpoint: Path,
    rows: Rows,
    tune: Tune,
    seed: int,
    hardware: Hardware,
    checkpoints: TuneCheckpoints,
) -> tuple[dict[str, Any], list[dict[str, Any]], float]:
    """Tune as one rank, and let rank 0 write the model; return figures, metrics and seconds."""
    tokenizer = Tokenizer.load(checkpoint)
    model = load_model(checkpoint, ranks.device)
    evaluator = HeldOutEvaluator(tokenizer, rows.held_out, rows.labels, tune.answer_tokens, ranks)
    finetuner = Finetuner(model, tune, hardware, tokenizer.chat_ids, seed, ranks, checkpoints)
    if not finetuner.restore():
        # An adapter begins as nothing, so these are the figures of the checkpoint.
        finetuner.state.before = evaluator.figures(model)
    elif ranks.is_first:
        say(f"tune: resumes at step {finetuner.state.step}")
    start = time.perf_counter()
    metrics = finetuner.train(rows.train, lambda: evaluator.loss(model))
    seconds = time.perf_counter() - start
    finetuner.save(folder, checkpoint)
    return _figures(rows, finetuner, evaluator.figures(model)), metrics, seconds


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


def _figures(rows: Rows, finetuner: Finetuner, after: Measured) -> dict[str, Any]:
    metrics, before = finetuner.state.metrics, finetuner.state.before
    lora_keys = LORA_KEYS if finetuner.adapter is not None else ()
    names = ("method", "epochs", "learning_rate", "batch_tokens", *lora_keys)
    settings = {name: getattr(finetuner.tune, name) for name in names}
    return {
        "settings": settings | {"learning_rate": finetuner.rate, "seed": finetuner.seed},
        "rows": {key: len(getattr(rows, key)) for key in ("train", "held_out", "left_out")},
        "left_out": rows.reasons,
        "labels": rows.labels,
        "steps": len(metrics),
        "tokens_learnt": sum(line.get("learnt_tokens", 0) for line in metrics),
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
    folder.mkdir(exist_ok=True)
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
