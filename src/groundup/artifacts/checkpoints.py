"""Which model of a run is meant. Reads train/best.json, the checkpoints' manifests and the view
`tune`; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundup.errors import GroundupError
from groundup.runtime.files import read_json
from groundup.runtime.store import Artifact, Store, load_artifact


def trained_on(root: Path, tokens: Artifact) -> None:
    """Refuse tokens that the run's model was not trained on: what was held out of them may have
    been learned.

    Raises:
        GroundupError: the split, the tokens or the tokenizer changed after training.
    """
    plan = read_json(root / "train" / "train.json")
    inputs = plan.get("inputs", {}) if isinstance(plan, dict) else {}
    files = tokens.manifest["files"]
    present = {name for name in files if name.endswith(".npy") or name == "tokenizer.json"}
    if present != set(inputs) or any(
        files[name]["sha256"] != digest for name, digest in inputs.items()
    ):
        raise GroundupError(
            f"{root}: the model was trained on other tokens than {tokens.path} holds; `groundup"
            " run` brings both together"
        )


def init_from(root: Path) -> dict[str, str]:
    """Return name and license of the model whose weights a run's training began with; nothing where
    they were drawn.
    """
    plan = read_json(root / "train" / "train.json")
    base = (plan.get("base") if isinstance(plan, dict) else None) or {}
    return {name: str(base[name]) for name in ("name", "license") if name in base}


def find_checkpoint(root: Path, which: str = "best") -> Artifact:
    """Return the checkpoint that `best` (lowest validation loss), `last` or `step-N` names.

    Raises:
        GroundupError: the run has no such checkpoint, or it is damaged.
    """
    folder = root / "train" / "checkpoints"
    steps = {int(path.name[5:]): path for path in folder.glob("step-*") if path.name[5:].isdigit()}
    if not steps:
        raise GroundupError(
            f"{root}: there is no checkpoint yet; `groundup run RECIPE --out {root} --until train`"
            " makes one"
        )
    best = read_json(root / "train" / "best.json")
    named = {
        "last": max(steps),
        "best": int(best["step"]) if isinstance(best, dict) else max(steps),
    }
    step = named.get(
        which, int(which[5:]) if which.startswith("step-") and which[5:].isdigit() else -1
    )
    if step not in steps:
        raise GroundupError(
            f"{root}: there is no checkpoint {which}; there are"
            f" {', '.join(f'step-{n}' for n in sorted(steps))}"
        )
    checkpoint = load_artifact(steps[step])
    if checkpoint is None:
        raise GroundupError(
            f"{steps[step]}: this checkpoint is damaged; run with --redo train, or choose another"
        )
    return checkpoint


@dataclass(frozen=True)
class RunModel:
    """A model of a run: a Hugging Face folder with its tokenizer.

    Attributes:
        content: SHA-256 over its files, which enters the keys of what is made from it.
        name: `step-N` or `tuned`.
    """

    path: Path
    content: str
    name: str


def find_model(root: Path, which: str = "") -> RunModel:
    """Return the model that `tuned`, `best`, `last` or `step-N` names; "" is the tuned one if there
    is one, else the best.

    Raises:
        GroundupError: the run has no such model, or it is damaged.
    """
    tuned = Store(root).view("tune") if which in ("", "tuned") else None
    if tuned is not None:
        return RunModel(tuned.path / "model", tuned.content, "tuned")
    if which == "tuned":
        raise GroundupError(
            f"{root}: there is no tuned model; `groundup tune {root} --data FILE` makes one"
        )
    checkpoint = find_checkpoint(root, which or "best")
    return RunModel(checkpoint.path, checkpoint.content, checkpoint.path.name)
