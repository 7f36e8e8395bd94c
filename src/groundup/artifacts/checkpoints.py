"""Finds the models of a run: checkpoints `RUN/train/checkpoints/step-NNNNNN/` and the tuned model.

Every other module asks here which checkpoints exist. A checkpoint is an artifact: it is valid if
its manifest parses and all its files have their recorded sizes (`load_artifact`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.runtime.files import read_json_object
from groundup.runtime.sealed import read_sealed
from groundup.runtime.store import Artifact, Store, load_artifact

CHECKPOINTS = "train/checkpoints"
# Where a training stands at a step; train/state.py writes it.
STATE = "state.json"


def checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint's folder: `step-000250`."""
    return f"step-{step:06d}"


def list_checkpoints(root: Path) -> dict[int, Path]:
    """Return the folder of each checkpoint by step, ascending; damaged ones too."""
    paths = (root / CHECKPOINTS).glob("step-*")
    return dict(sorted((int(path.name[5:]), path) for path in paths if path.name[5:].isdigit()))


def best_step(root: Path) -> int | None:
    """Return the step of the lowest validation loss, None before it is known."""
    best = read_sealed(root / "train" / "best.json")
    return int(best["step"]) if best is not None else None


def newest_state(root: Path) -> dict[str, Any] | None:
    """Return the state.json of the newest checkpoint that has a readable one."""
    folders = reversed(list_checkpoints(root).values())
    states = (read_json_object(folder / STATE) for folder in folders)
    return next((state for state in states if state is not None), None)


def find_checkpoint(root: Path, which: str = "best") -> Artifact:
    """Return the checkpoint that `best` (lowest validation loss), `last` or `step-N` names.

    Raises GroundupError if the run has no such checkpoint, or it is damaged.
    """
    folders = list_checkpoints(root)
    if not folders:
        makes = f"`groundup run RECIPE --out {root} --until train` makes one"
        raise GroundupError(f"{root}: there is no checkpoint yet; {makes}")
    last, best = max(folders), best_step(root)
    step: int | None = {"last": last, "best": last if best is None else best}.get(which)
    if which.startswith("step-") and which[5:].isdigit():
        step = int(which[5:])
    if step not in folders:
        known = ", ".join(f"step-{step}" for step in folders)
        raise GroundupError(f"{root}: there is no checkpoint {which}; there are {known}")
    checkpoint = load_artifact(folders[step])
    if checkpoint is None:
        remedy = "run with --redo train, or choose another"
        raise GroundupError(f"{folders[step]}: this checkpoint is damaged; {remedy}")
    return checkpoint


@dataclass(frozen=True)
class RunModel:
    """A model of a run: a Hugging Face folder with its tokenizer."""

    path: Path
    content: str  # SHA-256 over its files, which enters the keys of what is made from it
    name: str  # `step-NNNNNN` or `tuned`


def find_model(root: Path, which: str = "") -> RunModel:
    """Return the model that `tuned`, `best`, `last` or `step-N` names; "" prefers the tuned one.

    Raises GroundupError if the run has no such model, or it is damaged.
    """
    tuned = Store(root).view("tune") if which in ("", "tuned") else None
    if tuned is not None:
        return RunModel(tuned.path / "model", tuned.content, "tuned")
    if which == "tuned":
        makes = f"`groundup tune {root} --data FILE` makes one"
        raise GroundupError(f"{root}: there is no tuned model; {makes}")
    checkpoint = find_checkpoint(root, which or "best")
    return RunModel(checkpoint.path, checkpoint.content, checkpoint.path.name)


def read_setup(root: Path) -> dict[str, Any]:
    """Return train.json, what the training of a run was set up with; empty if there is none."""
    return read_sealed(root / "train" / "train.json") or {}


def trained_on(root: Path, tokens: Artifact) -> None:
    """Refuse tokens that the run's model was not trained on, by a GroundupError.

    Text that they hold out may have been in the training data.
    """
    inputs = read_setup(root).get("inputs", {})
    files = tokens.manifest["files"]
    present = {name for name in files if name.endswith(".npy") or name == "tokenizer.json"}
    if present != set(inputs) or any(files[name]["sha256"] != inputs[name] for name in present):
        why = f"the model was trained on other tokens than {tokens.path} holds"
        raise GroundupError(f"{root}: {why}; `groundup run` brings both together")


def init_from(root: Path) -> dict[str, str]:
    """Return name and license of the model whose weights training began with; empty if random."""
    base = read_setup(root).get("base") or {}
    return {name: str(base[name]) for name in ("name", "license") if name in base}
