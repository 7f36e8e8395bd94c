"""A run with tokens and a best checkpoint, as the stages before evaluate leave them; the model is
small and untrained.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from groundup.model.config import ModelConfig
from groundup.model.hf_io import save_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json
from groundup.runtime.run import Run
from groundup.runtime.store import commit
from groundup.tokenize.stage import run as tokenize
from tests.helpers.refined import refined_run

WORDS = "the a cat dog mat sat saw ran and on with another under old new house".split()
KINDS = {"books": "books", "web": "web"}


def documents(seed: int, count: int) -> list[tuple[str, int]]:
    random = np.random.default_rng(seed)
    lengths = random.integers(30, 120, count)
    return [
        (" ".join(random.choice(WORDS, size)) + ".\n", 2 if n % 4 == 0 else 1)
        for n, size in enumerate(lengths)
    ]


def tiny_model(vocab_size: int, seed: int = 1) -> Transformer:
    """Return a model whose every weight is drawn at random: fresh ones start with zeros that hide
    mistakes.
    """
    config = ModelConfig(
        vocab_size,
        layers=2,
        width=64,
        heads=2,
        kv_heads=1,
        head_width=32,
        feed_forward=96,
        context=32,
    )
    model = Transformer(config)
    random = np.random.default_rng(seed)
    for parameter in model.parameters():
        noise = random.normal(0, 0.2, tuple(parameter.shape))
        parameter.data.copy_(parameter.data.new_tensor(noise) + (1 if parameter.ndim == 1 else 0))
    return model.eval()


def add_checkpoint(run: Run, model: Transformer, step: int = 7, extra: Sequence[Path] = ()) -> Path:
    """Commit a model with its tokenizer, and with copies of `extra` files, as the best checkpoint
    of a run.
    """
    folder = run.root / "train" / "checkpoints" / f"step-{step:06d}"
    files = {path.name: path for path in [*(run.root / "tokenize").glob("tokenizer*.json"), *extra]}
    with run.store.stage() as staging:
        save_model(staging, model)
        for name, path in files.items():
            shutil.copyfile(path, staging / name)
        commit(staging, folder, {"step": step})
    write_json(run.root / "train" / "best.json", {"step": step, "loss": 1.0})
    return folder


def trained_run(root: Path, seed: int = 1, **settings: object) -> Run:
    """Return a run up to the stage train."""
    shards = {"books.1": documents(1, 40), "books.2": documents(2, 30), "web.1": documents(3, 40)}
    run = refined_run(root, shards, KINDS, tokenize={"vocab_size": 350}, **settings)
    tokenize(run)
    view = run.store.view("tokenize")
    assert view is not None
    files = view.manifest["files"]
    inputs = {
        name: entry["sha256"]
        for name, entry in files.items()
        if name.endswith(".npy") or name == "tokenizer.json"
    }
    (root / "train").mkdir(exist_ok=True)
    write_json(root / "train" / "train.json", {"inputs": inputs})
    add_checkpoint(run, tiny_model(view.manifest["facts"]["vocab_size"], seed))
    return run
