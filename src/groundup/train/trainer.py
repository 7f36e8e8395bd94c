"""The training loop. `Trainer.train` is the loop; the `Trainer` owns everything that it changes.

    settings of this step ─► rows of this step (data.py)
                                  │                            ┌─ a thread reads the rows of
                             TrainStep.forward_backward        │  the next step meanwhile
                                  │ StepStats
                  guard ──────────┤
                  accepts         │ refuses: recorded, not applied (rollback.py)
                     │            │
              TrainStep.update    └─ too often: back to a checkpoint
                     │
              validation, metrics, checkpoint, if they are due at this step
                     │
              signals: reload the recipe, or save and stop

The state after step N depends on the setup, its changes and N alone: samples, dropout and learning
rate are functions of the step, and the guard's memory is part of the state. So a run that was
killed and resumed from a checkpoint ends with the same bytes as one that was not.

An example: checkpoints every 500 steps, killed at step 1,203. The next run loads step-001000, cuts
metrics.jsonl back to where it was then, and repeats steps 1,000 to 1,202 with the same samples,
dropout and rates. Going back after repeated bad steps follows PaLM (Chowdhery et al. 2022, arXiv
2204.02311); the schedule is a cosine with warm-up (Loshchilov and Hutter 2017, arXiv 1608.03983).
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

from groundup.artifacts.metrics import cut_back
from groundup.errors import GroundupError, InterruptionError
from groundup.model.hf_io import check_weights, read_weights
from groundup.model.transformer import Transformer
from groundup.runtime.progress import progress, say
from groundup.runtime.sealed import read_sealed, write_sealed
from groundup.runtime.store import Artifact
from groundup.train import validation
from groundup.train.checkpoint_writer import CheckpointWriter
from groundup.train.data import Prefetcher, derive_seed, resize, samples_of_step
from groundup.train.distributed import DistributedContext, Signals, catch_signals
from groundup.train.guard import MAX_ROLLBACKS
from groundup.train.logging import Interval, Logbook, SampleCallback, perplexity
from groundup.train.memory import out_of_memory_explained
from groundup.train.optimizer import FlatParameters, Optimizer, lr_scale
from groundup.train.rollback import Incidents, rolled_back
from groundup.train.setup import SettingsTimeline, TrainSetup
from groundup.train.sharding import Sharding
from groundup.train.state import FP16_FLOOR, FP16_PATIENCE, FP16_SCALE, Checkpoints, TrainState
from groundup.train.step import StepStats, TrainStep
from groundup.train.validation import Validation

LOG_EVERY = 10


class Trainer:
    """One process of the training in the run directory `root`, whose stages before it are done."""

    def __init__(
        self, root: Path, setup: TrainSetup, ranks: DistributedContext | None = None
    ) -> None:
        self.root, self.setup, self.ranks = root, setup, ranks or DistributedContext()
        hardware, train = setup.hardware, setup.train
        # The setup is that before step 0; the timeline knows the changes since.
        self.timeline = SettingsTimeline(root, setup)
        self.loader = setup.open_loader(root, "train")
        self.prefetcher = Prefetcher(self.loader, self.ranks.rank, self.ranks.world)
        # Weights follow in `_restore`.
        self.model = Transformer(setup.config, seed=None).to(self.ranks.device).train()
        hardware.set_up(self.model)
        self.parameters = FlatParameters(self.model, self.ranks.rank, self.ranks.world)
        self.sharding = Sharding(self.model, self.parameters, self.ranks)
        dtype = torch.bfloat16 if hardware.precision == "bf16" else torch.float32
        self.optimizer = Optimizer(self.parameters, train.optimizer, train.weight_decay, dtype)
        self.train_step = TrainStep(
            self.model, self.parameters, self.optimizer, hardware, setup.seed, self.sharding
        )
        windows = setup.open_loader(root, "validation")
        self.validation = Validation(windows, train.validation_tokens, self.ranks)
        self.incidents = Incidents(root, self.loader, self.model, self.parameters, hardware)
        self.checkpoints = Checkpoints(root, setup.key_parts.key)
        # Only rank 0 writes files and messages.
        self.logbook = Logbook(root, setup) if self.ranks.is_first else None
        self.samples = SampleCallback(root, train) if self.ranks.is_first else None
        # Metrics since the last line of metrics.jsonl; summary of the last refused step examined.
        self.interval, self.last_incident = Interval(), ""
        # Seconds of training so far, those before a resume included.
        self.state, self.seconds, self._clock = TrainState(), 0.0, time.perf_counter()
        self.writer = CheckpointWriter(
            self.checkpoints, self.model, self.parameters, self.optimizer, self.ranks
        )
        if self.ranks.is_first:
            self.writer.clean()
        self._restore(self.checkpoints.latest_valid(ranks=self.ranks))
        if hardware.compile:
            for block in self.model.model.layers:
                # And not `block.compile()`, which would compile its hooks too (sharding.py).
                block.forward = torch.compile(block.forward)

    def train(self) -> None:
        """Train to the end step.

        Raises GroundupError if stopped by a signal (after a checkpoint), out of memory, or rolled
        back too often.
        """
        remaining = max(0, self.timeline.at(self.state.step).steps - self.state.step)
        with (
            catch_signals(patient=self.ranks.world > 1) as signals,
            progress("train", remaining, "step") as bar,
            self.prefetcher,
            self.writer,
            out_of_memory_explained(self._without_memory),
        ):
            self._clock = time.perf_counter()
            if self.setup.init_from and self.state.step == 0:
                # The loss of the pretrained model, to compare later ones with.
                self._validate(self.setup)
            # `now` is the setup with the settings of this step, which the ledger may have changed.
            while self.state.step < (now := self.timeline.at(self.state.step)).steps:
                start = time.perf_counter()
                rows_NT = self._next_rows(now)
                self.interval.waited += time.perf_counter() - start
                # Gradients only. The weights change in `_update`, after the guard has judged them.
                stats = self.train_step.forward_backward(
                    rows_NT, self.state.step, now.sequences, self.state.loss_scale, signals
                )
                trouble = self._update(stats, now)
                self.interval.busy += time.perf_counter() - start
                # After trouble nothing is saved: the state is about to be replaced.
                if trouble := trouble or self._do_what_is_due(now):
                    self._roll_back(trouble)
                self._sample()
                bar.add(1, f"loss {self.interval.last_loss:.3f}")
                self._obey(signals, stats)
                self.writer.check()
            self._finish_saving()
        if self.ranks.is_first:
            self._publish(self.state)

    def _sample(self) -> None:
        """Write samples if it is time, and at the end."""
        step, loss = self.state.step, self.interval.last_loss
        if self.samples is not None:
            self.samples(self.model, step, loss, force=step == self.timeline.at(step).steps)

    def _without_memory(self) -> str:
        size = self.setup.hardware.micro_batch
        smaller = f"micro_batch = {size // 2}" if size > 1 else 'recompute = "on"'
        return (
            f"out of memory at step {self.state.step}, with micro-batches of {size}; set"
            f" [train] {smaller} and run again to resume from the last checkpoint"
        )

    def _next_rows(self, now: TrainSetup) -> Tensor:
        """Return this rank's rows [N, context + 1] of the step, and begin to read the next ones."""
        state = self.state
        # A new batch size, if a reload brought one, begins at the next sample.
        spans = resize(state.spans, state.step, now.sequences)
        if state.spans and spans != state.spans:
            # A smaller batch has larger gradients, so the guard learns its range again.
            state.guard.losses, state.guard.norms = [], []
        state.spans = spans
        rows_NT = torch.from_numpy(self.prefetcher.take(*samples_of_step(spans, state.step)))
        # A guess, if a reload or a rollback comes in between; then `take` reads others.
        self.prefetcher.start(*samples_of_step(spans, state.step + 1))
        return rows_NT

    def _update(self, stats: StepStats, now: TrainSetup) -> str:
        """Apply the step, unless the guard refuses it. Return why to roll back, or ""."""
        state, train, trouble = self.state, now.train, ""
        overflow = False
        if self.setup.hardware.precision == "fp16":
            is_inf = math.isfinite(stats.loss) and not math.isfinite(stats.norm)
            overflow = is_inf and state.loss_scale > FP16_FLOOR
            state.good_steps = 0 if overflow else state.good_steps + 1
            if overflow:
                state.loss_scale /= 2
            elif state.good_steps % FP16_PATIENCE == 0:
                state.loss_scale *= 2
        # An overflow of fp16 says nothing about the data, so the guard does not hear of it.
        if overflow:
            self.interval.refuse(stats.tokens)
        elif reason := state.guard.judge(stats.loss, stats.norm, train.guard):
            trouble = self._refuse(stats, reason)
        else:
            # `rate` is 1, halved by each rollback.
            scale = lr_scale(state.step, now.steps, train.warmup_steps, train.final_learning_rate)
            scale *= state.guard.rate
            # Settings of this step: a reload may have changed them.
            self.optimizer.weight_decay = train.weight_decay
            rates = train.learning_rate * scale, train.muon_learning_rate * scale
            self.train_step.update(stats, *rates, train.clip)
            state.guard.accept(stats.loss, stats.norm)
            state.tokens += stats.tokens
            self.interval.add(stats.loss, stats.norm, rates[0], stats.tokens)
        state.step += 1
        return trouble

    def _refuse(self, stats: StepStats, reason: str) -> str:
        """Record a step that the guard refused. Return why to roll back, or ""."""
        state = self.state
        self.interval.refuse(stats.tokens)
        # The first of a row is examined: the others mostly have the same cause.
        norms = self.sharding.norms() if state.guard.streak == 0 else {}
        if self.logbook is not None:
            say(f"  step {state.step}: {reason}; this step is not applied")
            refused = {"refused_loss": stats.loss, "refused_norm": stats.norm}
            self.logbook.write(state.step, guard=reason, **refused)
            if norms:
                self.last_incident = self.incidents.record(state, reason, stats, norms)
                say(f"    {self.last_incident}")
        return reason if state.guard.refuse(state.step) else ""

    def _roll_back(self, reason: str) -> None:
        """Return to the last checkpoint before the trouble, and skip what was read since."""
        failed = self.state
        if failed.guard.rollbacks >= MAX_ROLLBACKS:
            incident = f"; {self.last_incident}" if self.last_incident else ""
            raise GroundupError(
                f"step {failed.step}: {reason}, after {MAX_ROLLBACKS} rollbacks{incident};"
                " lower [train] learning_rate, or remove those documents, and run again"
            )
        # Weights, optimizer and state of that checkpoint; metrics.jsonl is cut back too.
        self._finish_saving()
        self._restore(self.checkpoints.latest_valid(before_refusals=True, ranks=self.ranks))
        state = self.state = rolled_back(failed, self.state)
        self.interval = Interval()
        if self.logbook is None:
            return
        # Newer checkpoints belong to what is discarded.
        self.checkpoints.prune([step for step in self.checkpoints.steps() if step <= state.step])
        skipped, rate = list(state.skipped[-1]), state.guard.rate
        event = {"step": failed.step, "to": state.step, "reason": reason}
        self.timeline.ledger.write_once("rollback", **event, skipped=skipped, rate=rate)
        self.logbook.write(state.step, guard=f"back from step {failed.step}: {reason}")
        back = f"back to step {state.step}, learning rate times {rate:g}"
        say(f"  step {failed.step}: {reason}; {back}")

    def _do_what_is_due(self, now: TrainSetup) -> str:
        """Validate, log and save if this step is one for it. Return why to roll back, or ""."""
        train, step = now.train, self.state.step
        is_last = step == now.steps
        is_best = (step % train.validate_every == 0 or is_last) and self._validate(now)
        # A checkpoint amid refusals is no place to roll back to. Those that the recipe names are
        # saved anyway.
        on_grid = step % train.checkpoint_every == 0 and self.state.guard.streak == 0
        save = is_best or is_last or on_grid or step in train.checkpoint_steps
        if step % LOG_EVERY == 0 or save:
            self._write_log()
        return self._save() if save else ""

    def _validate(self, now: TrainSetup) -> bool:
        """Measure the validation loss. Return whether it is the best so far, beyond its noise."""
        start, state = time.perf_counter(), self.state
        if now.train.validation_tokens != self.validation.tokens:
            loader = self.validation.loader
            self.validation = Validation(loader, now.train.validation_tokens, self.ranks)
        losses = self.validation.losses(self.model, self.setup.hardware)
        if not losses:
            return False
        loss = validation.mean(losses)
        if self.logbook is not None:
            error = validation.standard_error(losses)
            metrics = {"validation_loss": loss, "validation_error": error}
            metrics["validation_perplexity"] = perplexity(loss)
            for source, value in self.validation.by_source(losses).items():
                metrics[f"validation_loss.{source}"] = value
            seconds = round(time.perf_counter() - start, 3)
            self.logbook.write(state.step, **metrics, validation_seconds=seconds)
        # A pretrained model is no result of this training.
        if state.step == 0 or state.guard.streak:
            return False
        if is_best := validation.is_better(losses, state.best_losses):
            state.best_step, state.best_loss, state.best_losses = state.step, loss, losses
        return is_best

    def _write_log(self) -> None:
        """Write the metrics of the steps since the last line."""
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        metrics = self.interval.take(self.setup, self.ranks.device)
        if self.logbook is not None and metrics:
            metrics |= {"tokens": self.state.tokens, "seconds": round(self.seconds, 3)}
            self.logbook.write(self.state.step, **metrics)

    def _save(self) -> str:
        """Begin to write a checkpoint, unless the weights are broken. Return why to roll back, or
        "".
        """
        self._write_log()
        self.sharding.wait_for_weights()
        if not self.parameters.are_finite():
            return "the weights are not finite"
        facts = {"metrics_bytes": self.logbook.metrics.size()} if self.logbook is not None else {}
        self.writer.start(self.state, facts, self.seconds, self._publish)
        return ""

    def _finish_saving(self) -> None:
        """Wait until the checkpoint that is being written is there, for all ranks."""
        self.writer.wait()
        self.ranks.barrier()

    def _publish(self, state: TrainState) -> None:
        """Name the best checkpoint so far, and delete those that nothing asks for."""
        path = self.root / "train" / "best.json"
        best = {"step": state.best_step or state.step, "loss": state.best_loss}
        if read_sealed(path) != best:
            write_sealed(path, best)
        self.checkpoints.prune(self.checkpoints.wanted(state, self.timeline.at(state.step).train))

    def _restore(self, checkpoint: tuple[Artifact, TrainState] | None) -> None:
        """Load a checkpoint, or begin at step 0 if there is none."""
        self.sharding.wait_for_weights()
        metrics_bytes = 0
        if checkpoint is not None:
            artifact, self.state = checkpoint
            self.checkpoints.restore(artifact, self.parameters, self.optimizer)
            # And those of the other ranks.
            self.sharding.gather_weights()
            self.sharding.wait_for_weights()
            self.seconds = max(self.seconds, artifact.seconds)
            metrics_bytes = artifact.facts["metrics_bytes"]
        else:
            fp16 = self.setup.hardware.precision == "fp16"
            self.state = TrainState(loss_scale=FP16_SCALE if fp16 else 1.0)
            self.optimizer.reset()
            if self.setup.init_from is None:
                self.model.init_weights(derive_seed(self.setup.seed, "weights"))
            else:
                folder = Path(self.setup.init_from.folder)
                check_weights(folder, self.setup.config)
                read_weights(folder, self.model)
                if not self.parameters.are_finite():
                    broken = "some of its weights are not finite"
                    raise GroundupError(f"{folder}: {broken}; no training can start there")
        # If a damaged checkpoint was passed over, the best one may be gone: its place was taken by
        # one that will be reached again.
        if self.state.best_step and not self.checkpoints.path(self.state.best_step).exists():
            self.state.best_step, self.state.best_loss, self.state.best_losses = 0, None, []
        # All ranks must have read before rank 0 writes.
        self.ranks.barrier()
        if self.logbook is not None:
            cut_back(self.logbook.metrics.path, metrics_bytes)

    def _obey(self, signals: Signals, stats: StepStats) -> None:
        """Do what signals asked for."""
        # Several ranks agree on it in the stats of the step; a single one need not wait for those.
        step, stop, reload = self.state.step, stats.stop, stats.reload
        if self.ranks.world == 1:
            stop, reload = signals.stop, signals.reload
        if reload:
            signals.reload = False
            if self.ranks.is_first:
                try:
                    say(f"  step {step}: {self.timeline.reload_recipe(step, self.ranks.world)}")
                except GroundupError as error:
                    say(f"  step {step}: {error}; the settings stay as they were")
            # The other ranks read what rank 0 wrote.
            self.ranks.barrier()
            self.timeline.reload()
        if stop and step < self.timeline.at(step).steps:
            self._save()
            self._finish_saving()
            saved = self.checkpoints.steps()[-1]
            raise InterruptionError(f"stopped at step {saved}; run the same command to resume")
