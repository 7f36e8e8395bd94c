"""The training loop. Reads `RUN/tokenize` and `RUN/train/train.json`; writes metrics.jsonl,
best.json and checkpoints.

The state after step N depends on the plan, its changes and on N alone: samples, dropout and
learning rate are functions of the step, and so is what the guard refuses. So a run that was killed
and goes on from a checkpoint ends with the bytes of one that was not.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.runtime.progress import progress, say
from groundup.train import validation
from groundup.train.batch_spans import place, resized
from groundup.train.data import Ahead
from groundup.train.distributed import Ranks
from groundup.train.hardware import out_of_memory
from groundup.train.logging import Interval, memory_bytes, perplexity, utilization
from groundup.train.rollback import Trouble
from groundup.train.sample_callback import Watcher
from groundup.train.schedule import rate
from groundup.train.setup import Plan
from groundup.train.signals import StopFlag, stop_flag
from groundup.train.standing import Standing
from groundup.train.step import Reading, Stepper
from groundup.train.validation import Validation

LOG_EVERY = 10
# fp16: halve the scale of the loss when a gradient overflows, double it after so many good steps.
# At a scale of one an overflow is the gradient's own, and the guard's business.
FP16_PATIENCE, FP16_FLOOR = 2000, 1.0


class Trainer(Standing):
    """One process of one training, moving."""

    def __init__(self, root: Path, plan: Plan, ranks: Ranks | None = None) -> None:
        super().__init__(root, plan, ranks)
        self.stepper = Stepper(
            self.model, self.parameters, self.optimizer, plan.machine, plan.seed, self.ranks
        )
        self.ahead = Ahead(self.loader, self.ranks.rank, self.ranks.world)
        self.trouble = Trouble(self)
        # The plan of the step that is being taken.
        self.now = self.plan
        self.asked = StopFlag()
        self._log = Interval()
        self._validation = Validation(
            self.open_loader("validation"), self.now.train.validation_tokens, self.ranks
        )
        if plan.machine.compile:
            for layer in self.model.model.layers:
                layer.compile()

    def run(self) -> None:
        """Train to the end step.

        Raises:
            GroundupError: stopped by a signal (after a checkpoint), out of memory, or the guard
                gave up.
        """
        left = max(0, self.plan.steps - self.state.step)
        with (
            stop_flag(patient=self.ranks.world > 1) as flag,
            progress("train", left, "step") as shown,
            self.ahead,
        ):
            watcher = self._watcher()
            self._clock = time.perf_counter()
            if self.plan.base and self.state.step == 0:
                # What the model knew before, to hold later losses against; it is no candidate for
                # the best.
                self._measure()
            while self.state.step < self.plan.steps:
                self._advance_within_memory(flag)
                if watcher is not None:
                    watcher.look(
                        self.model,
                        self.state.step,
                        self._log.last,
                        now=self.state.step == self.plan.steps,
                    )
                shown.add(1, f"loss {self._log.last:.3f}")
                self._obey(flag)
        self._publish()

    def _watcher(self) -> Watcher | None:
        if not self.ranks.first:
            return None
        train = self.plan.train
        return Watcher(
            self.root / "tokenize" / "tokenizer.json", train.sample_prompt, train.sample_seconds
        )

    def _advance_within_memory(self, flag: StopFlag) -> None:
        try:
            self._advance(flag)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            size = self.whole.machine.micro_batch
            less = f"[train] micro_batch = {size // 2}" if size > 1 else '[train] recompute = "on"'
            raise GroundupError(
                f"out of memory at step {self.state.step}, with micro-batches of {size}; set {less}"
                " and run again, which goes on from the last checkpoint"
            ) from None

    def _advance(self, flag: StopFlag) -> None:
        """Take one step, and what is due after it; the rows of the next are read meanwhile."""
        start = time.perf_counter()
        self.now, self.asked = self.plan, StopFlag(flag.set, flag.reload)
        self._set_batch()
        rows_NT = torch.from_numpy(self.ahead.take(*place(self.state.spans, self.state.step)))
        self._log.waited += time.perf_counter() - start
        self.ahead.start(*place(self.state.spans, self.state.step + 1))
        self._update(rows_NT)
        self._log.busy += time.perf_counter() - start
        if not self.trouble.reason:
            self._do_what_is_due()
        if self.trouble.reason:
            self.trouble.go_back()
            self._log = Interval()

    def _set_batch(self) -> None:
        """Let another number of sequences begin here; the guard learns its range anew then."""
        state = self.state
        spans = resized(state.spans, state.step, self.now.sequences)
        if state.spans and spans != state.spans:
            state.guard.forget_range()
        state.spans = spans

    def _update(self, rows_NT: Tensor) -> None:
        """One optimizer step, which is not applied where the guard refuses it."""
        state = self.state
        reading = self.stepper.gradients(
            rows_NT, state.step, state.loss_scale, self.asked.set, self.asked.reload
        )
        self.asked = StopFlag(reading.stop, reading.reload)
        if self._overflow(reading):
            self._log.refuse(reading.tokens)
        elif reason := state.guard.judge(reading.loss, reading.norm, self.now.train.guard):
            self._log.refuse(reading.tokens)
            self.trouble.refuse(reason, reading)
        else:
            self._apply(reading)
        state.step += 1

    def _overflow(self, reading: Reading) -> bool:
        """Whether the scale of fp16 was too large, which is no event of the guard; keep the books
        of that scale.
        """
        state = self.state
        if self.whole.machine.precision != "fp16":
            return False
        overflow = (
            math.isfinite(reading.loss)
            and not math.isfinite(reading.norm)
            and state.loss_scale > FP16_FLOOR
        )
        state.good_steps = 0 if overflow else state.good_steps + 1
        if overflow:
            state.loss_scale /= 2
        elif state.good_steps % FP16_PATIENCE == 0:
            state.loss_scale *= 2
        return overflow

    def _apply(self, reading: Reading) -> None:
        train, state = self.now.train, self.state
        peak = (
            rate(state.step, self.now.steps, train.warmup_steps, train.final_learning_rate)
            * state.guard.rate
        )
        self.optimizer.weight_decay = train.weight_decay
        self.stepper.apply(
            reading, train.learning_rate * peak, train.muon_learning_rate * peak, train.clip
        )
        state.guard.accept(reading.loss, reading.norm)
        state.tokens += reading.tokens
        self._log.add(reading.loss, reading.norm, train.learning_rate * peak, reading.tokens)

    def _do_what_is_due(self) -> None:
        train, step = self.now.train, self.state.step
        last = step == self.now.steps
        best = (step % train.validate_every == 0 or last) and self._validate()
        # Nothing is kept for going back to while the guard refuses; what the recipe names is kept
        # whatever happens.
        grid = step % train.checkpoint_every == 0 and self.state.guard.streak == 0
        due = best or last or grid or step in train.checkpoint_steps
        if step % LOG_EVERY == 0 or due:
            self._write_log()
        if due:
            self._save()

    def _validate(self) -> bool:
        """Write the validation loss, and say whether it is the lowest so far by more than its
        noise.
        """
        state, losses = self.state, self._measure()
        best = (
            bool(losses)
            and state.guard.streak == 0
            and validation.is_better(losses, state.best_losses)
        )
        if best:
            state.best_step, state.best_loss, state.best_losses = (
                state.step,
                validation.mean(losses),
                losses,
            )
        return best

    def _measure(self) -> list[float]:
        """Write the validation loss and return it by window."""
        start = time.perf_counter()
        if self.now.train.validation_tokens != self._validation.tokens:
            self._validation = Validation(
                self._validation.loader, self.now.train.validation_tokens, self.ranks
            )
        losses = self._validation.losses(self.model, self.whole.machine)
        if losses and self.logbook is not None:
            loss = validation.mean(losses)
            figures = {
                "validation_loss": loss,
                "validation_error": validation.standard_error(losses),
            }
            sources = validation.by_source(losses, self._validation.sources)
            figures |= {"validation_perplexity": perplexity(loss)} | {
                f"validation_loss.{name}": one for name, one in sources.items()
            }
            self.logbook.write(
                self.state.step, **figures, validation_seconds=round(time.perf_counter() - start, 3)
            )
        return losses

    def _write_log(self) -> None:
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        figures = self._log.take()
        if self.logbook is not None and figures:
            used = utilization(figures["tokens_per_second"], self.whole)
            figures |= {"utilisation": round(used, 4)} if used else {}
            figures |= {
                "memory_bytes": memory_bytes(self.ranks.device),
                "tokens": self.state.tokens,
            }
            self.logbook.write(self.state.step, **figures, seconds=round(self.seconds, 3))

    def _save(self) -> None:
        """Commit a checkpoint; weights that are no numbers are trouble instead."""
        self._write_log()
        if self.parameters.finite():
            self.commit()
        else:
            self.trouble.reason = "the weights are not finite"

    def _obey(self, flag: StopFlag) -> None:
        """Do what signals asked for; several ranks agree on it with the step's reading, one need
        not wait for that.
        """
        asked = flag if self.ranks.world == 1 else self.asked
        if asked.reload:
            self._read_recipe()
            flag.reload = False
        if asked.set and self.state.step < self.plan.steps:
            self._save()
            raise GroundupError(
                f"stopped at step {self.checkpoints.steps()[-1]}; run again to go on"
            )

    def _read_recipe(self) -> None:
        if self.ranks.first:
            try:
                say(
                    f"  step {self.state.step}:"
                    f" {self.changes.reload(self.state.step, self.ranks.world)}"
                )
            except GroundupError as error:
                say(f"  step {self.state.step}: {error}; going on as before")
        # The others read what the first one wrote.
        self.ranks.wait()
        self.changes.read()
