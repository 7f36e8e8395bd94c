"""Where a training stands: weights, optimizer and state, in memory and as checkpoints. Reads and
writes checkpoints, and best.json; cuts metrics.jsonl back to the checkpoint that it goes on from.
"""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.artifacts.metrics import cut_back
from groundup.errors import GroundupError, StoreError, is_full_disk
from groundup.model.hf_io import check_weights, read_weights
from groundup.model.transformer import Transformer
from groundup.runtime.files import read_json, write_json
from groundup.runtime.store import Artifact
from groundup.train.data import Loader
from groundup.train.distributed import Ranks
from groundup.train.flat_params import FlatParameters
from groundup.train.logging import Logbook
from groundup.train.optimizer import Optimizer
from groundup.train.permutation import key_from
from groundup.train.settings_timeline import Changes
from groundup.train.setup import Plan
from groundup.train.state import Checkpoints, State

# fp16: the scale of the loss to begin with.
FP16_SCALE = 2.0**16


class Standing:
    """One process of a training, standing at a step."""

    def __init__(self, root: Path, plan: Plan, ranks: Ranks | None = None) -> None:
        self.root, self.whole, self.ranks = root, plan, ranks or Ranks()
        self.folder = root / "train"
        self.changes = Changes(self.folder, plan)
        self.loader = self.open_loader("train")
        self.model = Transformer(plan.config, seed=None).to(self.ranks.device).train()
        self.model.recompute = plan.machine.recompute
        self.parameters = FlatParameters(self.model)
        dtype = torch.bfloat16 if plan.machine.precision == "bf16" else torch.float32
        self.optimizer = Optimizer(
            self.parameters, plan.train.optimizer, plan.train.weight_decay, dtype
        )
        # One process writes and speaks.
        self.logbook = Logbook(self.folder, plan) if self.ranks.first else None
        self.checkpoints = Checkpoints(root, plan.key_parts.key)
        self.state = State()
        self.seconds = 0.0
        self.take_over(self.checkpoints.latest_valid())

    def open_loader(self, split: str) -> Loader:
        """Open the shards of a split."""
        plan = self.whole
        weights = plan.weights if split == "train" else None
        folder = self.root / "tokenize" / "shards"
        return Loader(
            folder,
            split,
            context=plan.config.context,
            vocab_size=plan.vocabulary,
            seed=plan.seed,
            weights=weights,
        )

    @property
    def plan(self) -> Plan:
        """The plan as it holds for the next step."""
        return self.changes.at(self.state.step)

    def take_over(self, found: tuple[Artifact, State] | None) -> None:
        """Stand where a checkpoint stood, or at the beginning."""
        size = 0
        if found is None:
            self._begin_anew()
        else:
            artifact, self.state = found
            self.optimizer.load_state_dict(self.checkpoints.restore(artifact, self.model))
            self.seconds, size = (
                max(self.seconds, artifact.seconds),
                artifact.facts["metrics_bytes"],
            )
        # After going back past a damaged checkpoint: an older best gave way to one that will be
        # reached again.
        if self.state.best_step and not self.checkpoints.path(self.state.best_step).exists():
            self.state.best_step, self.state.best_loss, self.state.best_losses = 0, None, []
        # All ranks have read before the first one writes.
        self.ranks.wait()
        if self.logbook is not None:
            cut_back(self.logbook.metrics.path, size)

    def _begin_anew(self) -> None:
        """Stand at step 0, with weights that are drawn, or those of the model that is gone on from.

        Raises:
            GroundupError: they cannot be read, or are no numbers.
        """
        self.state = State(loss_scale=FP16_SCALE if self.whole.machine.precision == "fp16" else 1.0)
        if self.whole.base:
            check_weights(Path(self.whole.base["folder"]), self.whole.config)
            read_weights(Path(self.whole.base["folder"]), self.model)
            if not self.parameters.finite():
                raise GroundupError(
                    f"{self.whole.base['folder']}: some of its weights are not numbers; nothing can"
                    " go on from there"
                )
        else:
            self.model.initialise(key_from(self.whole.seed, "weights"))
        self.optimizer.reset()

    def commit(self) -> None:
        """Write a checkpoint, name the best one, and delete those that nothing asks for.

        Raises:
            StoreError: the disk is full.
        """
        if self.logbook is not None:
            try:
                self._write(self.logbook.metrics.size())
            except Exception as error:
                if not is_full_disk(error):
                    raise
                kept = ", ".join(f"step-{step}" for step in self.checkpoints.steps()) or "none yet"
                text = (
                    f"{self.folder}: the disk is full, step {self.state.step} could not be saved;"
                    f" checkpoints: {kept}; free some space"
                )
                raise StoreError(f"{text} and run again") from None
            self._publish()
        self.ranks.wait()

    def _write(self, metrics_bytes: int) -> None:
        extra = sorted((self.root / "tokenize").glob("*token*.json"))
        facts = {"metrics_bytes": metrics_bytes}
        self.checkpoints.save(
            self.model,
            self.optimizer.state_dict(),
            self.state,
            facts=facts,
            seconds=self.seconds,
            extra=extra,
        )

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
        grid = [
            step for step in steps if step % train.checkpoint_every == 0 and step <= self.state.step
        ]
        return {
            self.state.step,
            self.state.best_step,
            *train.checkpoint_steps,
            *grid[-train.keep :],
        }
