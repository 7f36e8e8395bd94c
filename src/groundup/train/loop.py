"""The training loop. Reads `RUN/tokenize` and `RUN/train/train.json`; writes metrics.jsonl, best.json and checkpoints.

The state after step N depends on the plan and on N alone: samples, dropout and learning rate are functions of the step,
so a run that was killed and goes on from a checkpoint ends with the bytes of one that was not.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.errors import GroundupError
from groundup.metrics import Metrics, cut_back, size_of
from groundup.model.score import evaluating
from groundup.model.transformer import Transformer
from groundup.progress import progress
from groundup.store import read_json, write_json
from groundup.train.checkpoint import Checkpoints, State
from groundup.train.flat import FlatParameters
from groundup.train.loader import Loader
from groundup.train.optimizer import Optimizer
from groundup.train.parallel import Ranks
from groundup.train.permutation import key_from
from groundup.train.plan import Plan
from groundup.train.schedule import rate
from groundup.train.stopping import StopFlag, stop_flag
from groundup.train.watch import Watcher

LOG_EVERY = 10
LEDGER = "ledger.jsonl"
# fp16: halve the scale of the loss when a gradient overflows, double it after so many good steps.
FP16_SCALE, FP16_PATIENCE = 2.0**16, 2000
# Gradients that are not finite this often in a row do not recover.
MAX_BAD_STEPS = 20


class Trainer:
    """One process of one training."""

    def __init__(self, root: Path, plan: Plan, ranks: Ranks | None = None) -> None:
        self.root, self.plan, self.ranks = root, plan, ranks or Ranks()
        self.folder = root / "train"
        loader = partial(
            Loader, root / "tokenize" / "shards", context=plan.config.context, vocab_size=plan.config.vocab_size, seed=plan.seed
        )
        self.loader = loader(split="train", weights=plan.weights)
        self.model = Transformer(plan.config, key_from(plan.seed, "weights")).to(self.ranks.device).train()
        self.parameters = FlatParameters(self.model)
        dtype = torch.bfloat16 if plan.machine.precision == "bf16" else torch.float32
        self.optimizer = Optimizer(self.parameters, plan.train.optimizer, plan.train.weight_decay, dtype)
        self.metrics = Metrics(self.folder / "metrics.jsonl")
        self.checkpoints = Checkpoints(root, plan.key_parts.key)
        self.state = State(loss_scale=FP16_SCALE if plan.machine.precision == "fp16" else 1.0)
        self.seconds = 0.0
        self._validation = self._validation_rows(loader(split="validation"))
        self._log = Interval()
        self._resume()
        if plan.machine.compile:
            for layer in self.model.model.layers:
                layer.compile()

    def _validation_rows(self, loader: Loader) -> Tensor:
        """The same windows at every validation: the first samples of the validation split, shared out over the ranks."""
        count = min(loader.epoch, max(1, self.plan.train.validation_tokens // self.plan.config.context))
        first, last = (count * (self.ranks.rank + n) // self.ranks.world for n in (0, 1))
        return torch.from_numpy(loader.samples(first, last - first) if last > first else np.empty((0, 2), np.int64))

    def _resume(self) -> None:
        found = self.checkpoints.latest_valid()
        facts = {"metrics_bytes": 0}
        if found is not None:
            artefact, self.state = found
            self.optimizer.load_state_dict(self.checkpoints.restore(artefact, self.model))
            self.seconds, facts = artefact.seconds, artefact.facts
        # After going back past a damaged checkpoint: an older best gave way to one that will be reached again.
        if self.state.best_step and not self.checkpoints.path(self.state.best_step).exists():
            self.state.best_step, self.state.best_loss = 0, None
        # All ranks have read before the first one writes.
        self.ranks.wait()
        if self.ranks.first:
            cut_back(self.metrics.path, facts["metrics_bytes"])

    def run(self) -> None:
        """Train to the end step.

        Raises:
            GroundupError: stopped by a signal (after a checkpoint), or the loss is not finite any more.
        """
        left = self.plan.steps - self.state.step
        with stop_flag() as stop, progress("train", max(0, left), "step") as shown, ThreadPoolExecutor(1) as ahead:
            rows = ahead.submit(self._rows, self.state.step)
            watcher = self._watcher()
            self._clock = time.perf_counter()
            while self.state.step < self.plan.steps:
                rows = self._advance(rows, ahead)
                if watcher is not None:
                    watcher.look(self.model, self.state.step, self._log.last, now=self.state.step == self.plan.steps)
                shown.add(1, f"loss {self._log.last:.3f}")
                if self._stopped(stop) and self.state.step < self.plan.steps:
                    self._save()
                    raise GroundupError(f"stopped at step {self.state.step}; run again to go on")
        self._publish()

    def _watcher(self) -> Watcher | None:
        if not self.ranks.first:
            return None
        train = self.plan.train
        return Watcher(self.root / "tokenize" / "tokenizer.json", train.sample_prompt, train.sample_seconds)

    def _rows(self, step: int) -> NDArray[np.int64]:
        return self.loader.batch(step, self.plan.sequences, self.ranks.rank, self.ranks.world)

    def _advance(self, rows: Future[NDArray[np.int64]], ahead: ThreadPoolExecutor) -> Future[NDArray[np.int64]]:
        """Take one step, and what is due after it; return the rows of the next, which are read meanwhile."""
        start = time.perf_counter()
        rows_NT = torch.from_numpy(rows.result())
        self._log.waited += time.perf_counter() - start
        following = ahead.submit(self._rows, self.state.step + 1)
        self._update(rows_NT)
        self._log.busy += time.perf_counter() - start
        train, step = self.plan.train, self.state.step
        last = step == self.plan.steps
        best = (step % train.validate_every == 0 or last) and self._validate()
        due = best or last or step % train.checkpoint_every == 0 or step in train.checkpoint_steps
        if step % LOG_EVERY == 0 or due:
            self._write_log()
        if due:
            self._save()
        return following

    def _update(self, rows_NT: Tensor) -> None:
        """One optimizer step; it is skipped, and counted, where the gradient is not finite."""
        loss, count = self._backward(rows_NT.to(self.ranks.device))
        norm = self.parameters.norm()
        train, state = self.plan.train, self.state
        peak = rate(state.step, self.plan.steps, train.warmup_steps, train.final_learning_rate)
        finite = np.isfinite(norm)
        if finite:
            if norm > train.clip:
                self.parameters.gradients.mul_(train.clip / norm)
            self.optimizer.step(train.learning_rate * peak, train.muon_learning_rate * peak)
        self._count(bool(finite))
        state.step += 1
        state.tokens += count
        self._log.add(loss, norm, train.learning_rate * peak, count)

    def _backward(self, rows_NT: Tensor) -> tuple[float, int]:
        """Fill the gradients with those of the mean loss over all ranks; return that loss and the targets that count."""
        device = self.ranks.device
        count = int(self.ranks.sum((rows_NT[:, 1:] >= 0).sum()))
        total = torch.zeros((), device=device)
        self.parameters.zero()
        for number, part in enumerate(rows_NT.split(self.plan.machine.micro_batch)):
            if self.plan.config.dropout:
                torch.manual_seed(key_from(self.plan.seed, "dropout", self.state.step, number, self.ranks.rank))
            with self.plan.machine.autocast():
                loss = self.model.loss(part[:, :-1], part[:, 1:], "sum")
            (loss * (self.state.loss_scale / count)).backward()
            total += loss.detach()
        self.ranks.sum(self.parameters.gradients)
        if self.state.loss_scale != 1:
            self.parameters.gradients.mul_(1 / self.state.loss_scale)
        return float(self.ranks.sum(total)) / count, count

    def _count(self, finite: bool) -> None:
        """Keep the books of good and bad steps, and the scale of fp16 with them."""
        state = self.state
        state.good_steps, state.bad_steps = (state.good_steps + 1, 0) if finite else (0, state.bad_steps + 1)
        if self.plan.machine.precision == "fp16":
            if not finite:
                state.loss_scale /= 2
            elif state.good_steps % FP16_PATIENCE == 0:
                state.loss_scale *= 2
        elif state.bad_steps >= MAX_BAD_STEPS:
            raise GroundupError(
                f"the gradient was not finite in {MAX_BAD_STEPS} steps up to {state.step}; lower the learning rate and run again"
            )

    def _validate(self) -> bool:
        """Write the validation loss, and say whether it is the lowest so far."""
        start = time.perf_counter()
        loss = self.validation_loss()
        if loss is None:
            return False
        if self.ranks.first:
            self.metrics.write(step=self.state.step, validation_loss=loss, validation_seconds=round(time.perf_counter() - start, 3))
        best = np.isfinite(loss) and (self.state.best_loss is None or loss < self.state.best_loss)
        if best:
            self.state.best_step, self.state.best_loss = self.state.step, loss
        return bool(best)

    def validation_loss(self) -> float | None:
        """Return the mean loss (nats a token) over the fixed validation windows, or None where there are none."""
        device = self.ranks.device
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        with evaluating(self.model), torch.compiler.set_stance("force_eager"), self.plan.machine.autocast():
            # An empty tensor splits into one empty part.
            for part in self._validation.split(self.plan.machine.micro_batch) if len(self._validation) else ():
                rows = part.to(device)
                sums[0] += self.model.loss(rows[:, :-1], rows[:, 1:], "sum")
                sums[1] += rows[:, 1:].numel()
        total, count = self.ranks.sum(sums).tolist()
        return total / count if count else None

    def _write_log(self) -> None:
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        figures = self._log.take()
        if self.ranks.first and figures:
            self.metrics.write(step=self.state.step, **figures, tokens=self.state.tokens, seconds=round(self.seconds, 3))

    def _save(self) -> None:
        """Commit a checkpoint, name the best one, and delete those that nothing asks for."""
        self._write_log()
        if self.ranks.first:
            extra = sorted((self.root / "tokenize").glob("*token*.json"))
            facts = {"metrics_bytes": self.metrics.size(), "ledger_bytes": size_of(self.folder / LEDGER)}
            self.checkpoints.save(self.model, self.optimizer.state_dict(), self.state, facts=facts, seconds=self.seconds, extra=extra)
            self._publish()
        self.ranks.wait()

    def _publish(self) -> None:
        if not self.ranks.first:
            return
        best = {"step": self.state.best_step or self.state.step, "loss": self.state.best_loss}
        if read_json(self.folder / "best.json") != best:
            write_json(self.folder / "best.json", best)
        self.checkpoints.prune(self._kept())

    def _kept(self) -> set[int]:
        """The newest, the best, the named, and the last few on the grid."""
        train, steps = self.plan.train, self.checkpoints.steps()
        grid = [step for step in steps if step % train.checkpoint_every == 0 and step <= self.state.step]
        return {self.state.step, self.state.best_step, *train.checkpoint_steps, *grid[-train.keep :]}

    def _stopped(self, stop: StopFlag) -> bool:
        """Agree with the other ranks whether to stop: a signal does not reach all between the same two steps."""
        if self.ranks.world == 1:
            return stop.set
        return bool(self.ranks.sum(torch.tensor([int(stop.set)], device=self.ranks.device)).item())


class Interval:
    """Figures of the steps since the last line of metrics.

    `busy` seconds went into steps, `waited` of them into waiting for data; validation and checkpoints count in neither.
    """

    def __init__(self) -> None:
        self.last, self.busy, self.waited = float("nan"), 0.0, 0.0
        self._losses: list[float] = []
        self._tokens = 0
        self._norm = self._rate = 0.0

    def add(self, loss: float, norm: float, learning_rate: float, tokens: int) -> None:
        """Take in one step."""
        self.last, self._norm, self._rate = loss, norm, learning_rate
        self._losses.append(loss)
        self._tokens += tokens

    def take(self) -> dict[str, float]:
        """Return the figures and begin anew; nothing when no step was taken."""
        if not self._losses:
            return {}
        figures = {
            "loss": sum(self._losses) / len(self._losses),
            "learning_rate": self._rate,
            "gradient_norm": self._norm,
            "tokens_per_second": round(self._tokens / self.busy, 1),
            "data_wait": round(self.waited, 4),
        }
        self._losses, self._tokens, self.busy, self.waited = [], 0, 0.0, 0.0
        return figures
