"""Where a tuning stands at a step, and the checkpoints that it resumes from.

RUN/.store/tune/checkpoint/step-NNNNNN-KEY/   committed whole, or absent
    weights.safetensors      what learns: all weights, or the adapter
    optimizer.safetensors    `Optimizer.state_dict`
    state.json               `TuneState`

They are deleted when the tuned model is committed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.artifacts.checkpoints import STATE, checkpoint_name
from groundup.runtime.files import read_json_object, write_json
from groundup.runtime.progress import say
from groundup.runtime.store import Artifact, Store, changed_files, commit, load_artifact
from groundup.train.guard import Guard
from groundup.train.state import OPTIMIZER
from groundup.tune.metrics import Measured, Reply

STEP = "tune/checkpoint"
WEIGHTS = "weights.safetensors"
# A tuning is saved this often at even distances, but not after fewer steps than these.
SAVES, MIN_STEPS = 8, 25


def save_interval(steps: int) -> int:
    """Return the steps between two checkpoints of a tuning; one that is short has none."""
    return max(MIN_STEPS, math.ceil(steps / SAVES))


@dataclass
class TuneState:
    """State of a tuning at one step; nothing in it is measured by the clock."""

    step: int = 0  # steps so far, refused ones too
    every: int = MIN_STEPS  # steps between two checkpoints
    metrics: list[dict[str, Any]] = field(default_factory=list)  # one line a step
    before: Measured = field(default_factory=lambda: ({}, []))  # figures of the untuned model
    guard: Guard = field(default_factory=Guard)

    @property
    def is_calm(self) -> bool:
        """Whether an undisturbed tuning saves this state too, and may roll back to it."""
        return self.step % self.every == 0 and self.guard.streak == 0


@dataclass(frozen=True)
class TuneCheckpoints:
    """The checkpoints of the tuning of this key in a run directory."""

    root: Path
    key: str

    def steps(self) -> dict[int, Path]:
        """Return the folder of each step that has one, the last first."""
        paths = self._path(0).parent.glob(f"step-*-{self.key[:16]}")
        return dict(sorted(((int(path.name.split("-")[1]), path) for path in paths), reverse=True))

    def save(self, trained: nn.Module, optimizer: Mapping[str, Tensor], state: TuneState) -> None:
        """Commit a checkpoint. Of the others, keep the last one that a rollback may return to.

        Raises StoreError if the disk is full.
        """
        name = checkpoint_name(state.step)
        manifest = {"step": STEP, "name": name, "key": self.key, "settings": {}, "inputs": {}}
        # Copies: the parameters are views of one buffer, which safetensors refuses.
        weights = {n: weight.detach().cpu().clone() for n, weight in trained.named_parameters()}
        with Store(self.root).stage() as folder:
            save_file(weights, folder / WEIGHTS)
            save_file(dict(optimizer), folder / OPTIMIZER)
            write_json(folder / STATE, dataclasses.asdict(state))
            commit(folder, self._path(state.step), manifest | {"facts": {}, "seconds": 0.0})
        calm = next((step for step in self.steps() if self._open(step, calm=True)), None)
        Store(self.root).discard(
            path for step, path in self.steps().items() if step not in (state.step, calm)
        )

    def latest_valid(self, calm: bool = False) -> tuple[Artifact, TuneState] | None:
        """Return the newest checkpoint whose bytes are those that were written.

        `calm` skips those that are there only because a signal stopped the tuning.
        """
        for step in self.steps():
            opened = self._open(step, calm)
            damage = changed_files(opened[0]) if opened else []
            if opened and not damage:
                return opened
            if damage:
                say(f"{damage[0]}; using the checkpoint before it")
        return None

    def discard(self) -> None:
        """Delete all checkpoints of tunings of this run, those of other keys too."""
        Store(self.root).discard(self._path(0).parent.glob("*"))

    def _path(self, step: int) -> Path:
        return Store(self.root).artifact_path(STEP, checkpoint_name(step), self.key)

    def _open(self, step: int, calm: bool = False) -> tuple[Artifact, TuneState] | None:
        artifact = load_artifact(self._path(step))
        table = read_json_object(self._path(step) / STATE)
        if artifact is None or table is None or artifact.key != self.key:
            return None
        figures, replies = table["before"]
        table["before"] = (figures, [Reply(**reply) for reply in replies])
        state = TuneState(**table | {"guard": Guard(**table["guard"])})
        return (artifact, state) if state.is_calm or not calm else None

    def restore(self, artifact: Artifact, trained: nn.Module) -> dict[str, Tensor]:
        """Load what a checkpoint has learned into `trained`, and return the optimizer's state."""
        trained.load_state_dict(load_file(artifact.path / WEIGHTS))
        return load_file(artifact.path / OPTIMIZER)
