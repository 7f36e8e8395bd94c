"""Training state at one step, and the checkpoints that keep it (written by checkpoint_writer.py).

RUN/train/checkpoints/step-NNNNNN/    committed whole, or absent
    config.json, model.safetensors    weights, a Hugging Face model folder (model/hf_io.py)
    tokenizer.json, …                 copies
    optimizer.safetensors             `Optimizer.state_dict` of a rank that trained alone, or
    optimizer-00001-of-00002.…        that of each rank: its pieces of the stacks [groups, ...]
    state.json                        `TrainState`
    manifest.json                     key, sizes and digests of the files, seconds of training
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from groundup.artifacts.checkpoints import CHECKPOINTS, STATE, checkpoint_name, list_checkpoints
from groundup.errors import StoreError
from groundup.model.hf_io import WEIGHTS
from groundup.recipe import Train
from groundup.runtime.files import read_json_object
from groundup.runtime.progress import say
from groundup.runtime.sealed import read_sealed
from groundup.runtime.store import MANIFEST, Artifact, Store, changed_files, load_artifact
from groundup.train.data import Span
from groundup.train.distributed import DistributedContext
from groundup.train.guard import Guard
from groundup.train.optimizer import FlatParameters, Optimizer

OPTIMIZER = "optimizer.safetensors"
# That, or the file of one of several ranks.
OPTIMIZER_FILE = re.compile(r"optimizer(-\d+-of-\d+)?\.safetensors")
# fp16 multiplies the loss by a scale, or small gradients become zero. The scale is halved when a
# gradient overflows, and doubled after FP16_PATIENCE good steps. At a scale of 1 an overflow is a
# fault of the gradient, which is the guard's business.
FP16_SCALE = 2.0**16
FP16_PATIENCE, FP16_FLOOR = 2000, 1.0


@dataclass
class TrainState:
    """Training state at one step. Nothing in it is measured by the clock, so equal runs write equal
    bytes.
    """

    step: int = 0  # optimizer steps so far, refused ones too
    tokens: int = 0  # targets learned from
    spans: list[Span] = field(default_factory=list)  # which samples a step takes (data.py)
    # Ranges [first, last) of samples that rollbacks skipped.
    skipped: list[tuple[int, int]] = field(default_factory=list)
    best_step: int = 0  # step of the lowest validation loss so far, 0 before the first validation
    best_loss: float | None = None
    # That loss by window, to compare later ones with.
    best_losses: list[float] = field(default_factory=list)
    loss_scale: float = 1.0  # of fp16, 1 otherwise
    good_steps: int = 0  # since the loss scale last changed
    guard: Guard = field(default_factory=Guard)


def optimizer_file(rank: int, world: int) -> str:
    """Return the name of the file with a rank's part of the optimizer's state."""
    return OPTIMIZER if world == 1 else f"optimizer-{rank + 1:05d}-of-{world:05d}.safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run that belong to the training of this key."""

    root: Path
    key: str = ""

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.root / CHECKPOINTS / checkpoint_name(step)

    def steps(self) -> list[int]:
        """Return the steps that have a folder, ascending."""
        return list(list_checkpoints(self.root))

    def newest(self) -> tuple[Artifact, TrainState] | None:
        """Return the newest checkpoint whose files are all there, without reading the weights."""
        return next(filter(None, map(self._open, reversed(self.steps()))), None)

    def latest_valid(
        self,
        move_damaged: bool = False,
        before_refusals: bool = False,
        ranks: DistributedContext | None = None,
    ) -> tuple[Artifact, TrainState] | None:
        """Return the newest checkpoint whose bytes are those that were written; name damaged ones.

        `move_damaged` renames those to `damaged-step-NNNNNN` (under the run's lock only);
        `before_refusals` skips checkpoints that were saved while the guard refused steps. If all
        `ranks` call it, they divide the files, and agree.
        """
        ranks = ranks or DistributedContext()
        for step in reversed(self.steps()):
            checkpoint = self._open(step)
            if checkpoint is not None and before_refusals and checkpoint[1].guard.streak:
                continue
            damage = self._damage(step, checkpoint, ranks)
            if damage:
                say(f"{damage[0]}; using the checkpoint before it")
            if not ranks.sum(torch.tensor(float(len(damage)), device=ranks.device)):
                return checkpoint
            if move_damaged:
                path = self.path(step)
                target = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(target, ignore_errors=True)
                path.rename(target)
        return None

    def _damage(
        self, step: int, checkpoint: tuple[Artifact, TrainState] | None, ranks: DistributedContext
    ) -> list[str]:
        """Return a line for each damaged file of this rank's share of them."""
        if checkpoint is not None:
            names = sorted(checkpoint[0].manifest["files"])[ranks.rank :: ranks.world]
            return changed_files(checkpoint[0], names)
        if not ranks.is_first:
            return []
        path, manifest = self.path(step), None
        with suppress(StoreError):
            manifest = read_sealed(path / MANIFEST)
        damage = changed_files(Artifact(path, manifest)) if manifest else []
        return damage or [f"{path}: incomplete"]

    def _open(self, step: int) -> tuple[Artifact, TrainState] | None:
        artifact = load_artifact(self.path(step))
        table = read_json_object(self.path(step) / STATE)
        if artifact is None or table is None or artifact.key != self.key:
            return None
        try:
            guard = Guard(**table.pop("guard", {}))
            for name in ("spans", "skipped"):
                # JSON has no tuples.
                table[name] = [tuple(item) for item in table.get(name, [])]
            return artifact, TrainState(**table, guard=guard)
        except TypeError:
            return None

    def restore(self, artifact: Artifact, parameters: FlatParameters, optimizer: Optimizer) -> None:
        """Load this rank's pieces of a checkpoint, whatever the number of ranks that saved it.

        Raises GroundupError if it belongs to another model or optimizer.
        """
        # Files are mapped, so only what is needed of them is read.
        parameters.load_own(load_file(artifact.path / WEIGHTS))
        names = sorted(filter(OPTIMIZER_FILE.fullmatch, artifact.manifest["files"]))
        optimizer.load_state_dict(*(load_file(artifact.path / name) for name in names))

    def wanted(self, state: TrainState, train: Train) -> set[int]:
        """Return the steps to keep: newest, best, those that the recipe names, last on the grid."""
        steps = [step for step in self.steps() if step <= state.step]
        grid = [step for step in steps if step % train.checkpoint_every == 0]
        return {state.step, state.best_step, *train.checkpoint_steps, *grid[-train.keep :]}

    def prune(self, keep: Collection[int]) -> None:
        """Delete the checkpoints of all steps but these."""
        Store(self.root).discard(self.path(step) for step in self.steps() if step not in keep)
