"""Training state at one step, and the checkpoints that keep it.

RUN/train/checkpoints/step-NNNNNN/    committed whole, or absent
    config.json, model.safetensors    weights, a Hugging Face model folder (model/hf_io.py)
    tokenizer.json, …                 copies
    optimizer.safetensors             `Optimizer.state_dict`
    state.json                        `TrainState`
    manifest.json                     key, sizes and digests of the files, seconds of training
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.artifacts.checkpoints import CHECKPOINTS, STATE, checkpoint_name, list_checkpoints
from groundup.model.hf_io import WEIGHTS, save_model
from groundup.model.transformer import Transformer
from groundup.recipe import Train
from groundup.runtime.files import read_json_object, write_json
from groundup.runtime.progress import say
from groundup.runtime.store import Artifact, Facts, Store, changed_files, commit, load_artifact
from groundup.train.data import Span
from groundup.train.guard import Guard

Tensors = dict[str, Tensor]
OPTIMIZER = "optimizer.safetensors"
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

    def save(
        self,
        model: Transformer,
        optimizer: Tensors,
        state: TrainState,
        facts: Facts,
        seconds: float,
    ) -> Artifact:
        """Commit a checkpoint; `facts` go into the manifest."""
        path = self.path(state.step)
        manifest: dict[str, Any] = {"step": "train/checkpoint", "name": path.name, "key": self.key}
        manifest |= {"settings": {}, "inputs": {}, "facts": facts, "seconds": round(seconds, 3)}
        with Store(self.root).stage() as folder:
            save_model(folder, model)
            save_file(optimizer, folder / OPTIMIZER)
            write_json(folder / STATE, dataclasses.asdict(state))
            # So that the folder loads anywhere.
            for file in sorted((self.root / "tokenize").glob("*token*.json")):
                shutil.copyfile(file, folder / file.name)
            return commit(folder, path, manifest)

    def newest(self) -> tuple[Artifact, TrainState] | None:
        """Return the newest checkpoint whose files are all there, without reading the weights."""
        return next(filter(None, map(self._open, reversed(self.steps()))), None)

    def latest_valid(
        self, move_damaged: bool = False, before_refusals: bool = False
    ) -> tuple[Artifact, TrainState] | None:
        """Return the newest checkpoint whose bytes are those that were written; name damaged ones.

        `move_damaged` renames those to `damaged-step-NNNNNN` (under the run's lock only);
        `before_refusals` skips checkpoints that were saved while the guard refused steps.
        """
        for step in reversed(self.steps()):
            checkpoint, path = self._open(step), self.path(step)
            damage = [f"{path}: incomplete"]
            if checkpoint is not None:
                if before_refusals and checkpoint[1].guard.streak:
                    continue
                damage = changed_files(checkpoint[0])
                if not damage:
                    return checkpoint
            say(f"{damage[0]}; using the checkpoint before it")
            if move_damaged:
                target = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(target, ignore_errors=True)
                path.rename(target)
        return None

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

    def restore(self, artifact: Artifact, model: Transformer) -> Tensors:
        """Load the weights of a checkpoint into `model`, and return the optimizer's state."""
        model.load_state_dict(load_file(artifact.path / WEIGHTS))
        return load_file(artifact.path / OPTIMIZER)

    def wanted(self, state: TrainState, train: Train) -> set[int]:
        """Return the steps to keep: newest, best, those that the recipe names, last on the grid."""
        steps = [step for step in self.steps() if step <= state.step]
        grid = [step for step in steps if step % train.checkpoint_every == 0]
        return {state.step, state.best_step, *train.checkpoint_steps, *grid[-train.keep :]}

    def prune(self, keep: Collection[int]) -> None:
        """Delete the checkpoints of all steps but these."""
        Store(self.root).discard(self.path(step) for step in self.steps() if step not in keep)
