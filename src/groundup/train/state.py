"""Checkpoints: `RUN/train/checkpoints/step-NNNNNN/`, each committed whole: a Hugging Face model
folder (with its tokenizer), optimizer.safetensors and state.json. Reads them back and takes the
newest whose bytes are intact.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.artifacts.checkpoints import (
    CHECKPOINTS,
    STATE,
    checkpoint_name,
    list_checkpoints,
)
from groundup.model.hf_io import WEIGHTS, save_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import say
from groundup.runtime.store import Artifact, Store, changed_files, commit, load_artifact
from groundup.train.batch_spans import Span
from groundup.train.guard import Guard

OPTIMIZER = "optimizer.safetensors"


@dataclass
class State:
    """Where training stands. Nothing here is measured by the clock, so equal runs write equal
    bytes.

    Attributes:
        step: optimizer steps taken, refused ones too.
        tokens: targets learned from.
        spans: which samples a step takes (see samples.py); `skipped` are the ranges [first, last)
            that were passed over.
        best_step: step of the lowest validation loss so far, 0 before the first validation.
        best_losses: that loss by window, which a later one is compared with.
        loss_scale: of fp16; `good_steps` counts those since it last changed.
    """

    step: int = 0
    tokens: int = 0
    spans: list[Span] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    best_losses: list[float] = field(default_factory=list)
    loss_scale: float = 1.0
    good_steps: int = 0
    guard: Guard = field(default_factory=Guard)

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> State:
        """Return the state that a state.json holds.

        Raises:
            TypeError: another version of groundup wrote it.
        """
        plain = dict(table)
        guard = Guard(**plain.pop("guard", {}))
        for name in ("spans", "skipped"):
            plain[name] = [tuple(item) for item in plain.get(name, [])]
        return cls(**plain, guard=guard)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run."""

    root: Path
    key: str = ""

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.root / CHECKPOINTS

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / checkpoint_name(step)

    def steps(self) -> list[int]:
        """Steps that have a folder, ascending."""
        return list(list_checkpoints(self.root))

    def save(
        self,
        model: Transformer,
        optimizer: dict[str, Tensor],
        state: State,
        *,
        facts: dict[str, int],
        seconds: float,
        extra: Sequence[Path] = (),
    ) -> Artifact:
        """Commit a checkpoint; `facts` and `seconds` go into its manifest only, `extra` files are
        copied into it.
        """
        store = Store(self.root)
        with store.stage() as folder:
            save_model(folder, model)
            save_file(optimizer, folder / OPTIMIZER)
            write_json(folder / STATE, dataclasses.asdict(state))
            for path in extra:
                shutil.copyfile(path, folder / path.name)
            manifest = {
                "step": "train/checkpoint",
                "name": checkpoint_name(state.step),
                "key": self.key,
                "settings": {},
                "inputs": {},
            }
            return commit(
                folder,
                self.path(state.step),
                manifest | {"facts": facts, "seconds": round(seconds, 3)},
            )

    def newest(self) -> tuple[Artifact, State] | None:
        """Return the newest checkpoint whose files are all there, without reading them through."""
        for step in reversed(self.steps()):
            found = self._open(step)
            if found is not None:
                return found
        return None

    def latest_valid(
        self, set_aside: bool = False, calm: bool = False
    ) -> tuple[Artifact, State] | None:
        """Return the newest checkpoint whose bytes are those that were written; damaged ones are
        named.

        With `set_aside` (under the run's lock only), a damaged one is renamed to
        `damaged-step-NNNNNN`; with `calm`, one that was saved while the guard refused steps is
        passed over.
        """
        for step in reversed(self.steps()):
            found = self._open(step)
            if calm and found is not None and found[1].guard.streak:
                continue
            wrong = (
                changed_files(found[0]) if found is not None else [f"{self.path(step)}: incomplete"]
            )
            if found is not None and not wrong:
                return found
            say(f"{wrong[0]}; going back to the checkpoint before it")
            if set_aside:
                self._set_aside(step)
        return None

    def _set_aside(self, step: int) -> None:
        path = self.path(step)
        target = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(target, ignore_errors=True)
        path.rename(target)

    def _open(self, step: int) -> tuple[Artifact, State] | None:
        artifact = load_artifact(self.path(step))
        table = read_json(self.path(step) / STATE)
        if artifact is None or not isinstance(table, dict) or artifact.key != self.key:
            return None
        try:
            return artifact, State.read(table)
        except TypeError:
            return None

    def restore(self, artifact: Artifact, model: torch.nn.Module) -> dict[str, Tensor]:
        """Load the weights of a checkpoint into `model` and return the optimizer's state."""
        model.load_state_dict(load_file(artifact.path / WEIGHTS))
        return load_file(artifact.path / OPTIMIZER)

    def prune(self, kept: Collection[int]) -> None:
        """Delete the checkpoints whose step is not among `kept`."""
        Store(self.root).discard(self.path(step) for step in self.steps() if step not in kept)
