"""The stage `export`. Reads the best checkpoint and the view `tokenize`; writes the view `export`:

hf/ (a Hugging Face folder) and parity.json (what it was compared with).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundup.checkpoints import find_checkpoint, trained_on
from groundup.errors import GroundupError
from groundup.export import hf, parity
from groundup.model.files import load_model
from groundup.run import Job, Run
from groundup.store import Facts, Step, write_json
from groundup.tokenizer import CONFIG, FILE, Tokenizer

# Raise by hand when the folder changes.
VERSION = 1

# Tokens of held-out text that the gate reads, from the beginning of each shard, and of how many shards.
TEXT_TOKENS, TEXTS = 2_000, 8


def run(run: Run) -> None:
    """Export the best checkpoint and publish the view.

    Raises:
        GroundupError: there is no checkpoint, or the exported folder does not say what the model says.
    """
    checkpoint, tokens = find_checkpoint(run.root), run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(f"{run.root / 'tokenize'}: there is no tokenizer; run with --redo tokenize")
    trained_on(run.root, tokens)
    wanted = {"name": run.recipe.name, "seed": run.recipe.seed, "transformers": parity.transformers_version()}
    files = tokens.manifest["files"]
    inputs = {"checkpoint": checkpoint.content, "tokenizer": files[FILE]["sha256"], "tokenizer_config": files[CONFIG]["sha256"]}
    inputs |= {name: entry["sha256"] for name, entry in files.items() if name in _held_out(tokens.path)}
    step = Step("export/hf", "best", VERSION, wanted, inputs)
    arguments = {"checkpoint": checkpoint.path, "tokens": tokens.path, "name": run.recipe.name, "seed": run.recipe.seed}
    (artefact,) = run.build("export", [Job(step, export, arguments)], "exporting", "model")
    run.publish("export", [artefact], {name: artefact.path / name for name in artefact.manifest["files"]})


def export(folder: Path, *, checkpoint: Path, tokens: Path, name: str, seed: int) -> Facts:
    """Write `hf/` and `parity.json`; nothing is committed unless both agree with the checkpoint.

    Raises:
        GroundupError: the exported folder gives other logits or other token ids.
    """
    target = folder / "hf"
    target.mkdir()
    config = hf.write_folder(target, checkpoint, tokens, name)
    found = parity.check(target, load_model(checkpoint), held_out_texts(tokens), seed)
    write_json(folder / "parity.json", found)
    return {"parameters": config.parameter_count(), "transformers": found["transformers"]}


def held_out_texts(tokens: Path) -> list[str]:
    """Return the beginnings of some validation shards as text."""
    tokenizer = Tokenizer.load(tokens)
    parts = [np.load(tokens / name, mmap_mode="r")[:TEXT_TOKENS] for name in _held_out(tokens)]
    return [tokenizer.decode(part) for part in parts if len(part)]


def _held_out(tokens: Path) -> list[str]:
    return [f"shards/{path.name}" for path in sorted((tokens / "shards").glob("*.validation.npy"))[:TEXTS]]
