"""A run directory with token shards, as the tokenize stage leaves one: a made-up language of 61 ids
with some grammar.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from groundup.model.config import ModelConfig
from groundup.recipe import Model, Recipe, Source, Train
from groundup.runtime.files import file_digest
from groundup.runtime.run import Run
from groundup.runtime.store import Store, commit
from groundup.train.hardware import Hardware
from groundup.train.setup import TrainSetup

VOCAB = 61
SIZES = {"books.aa": 4000, "books.bb": 2500, "web.1.cc": 3100}
CONFIG = ModelConfig(
    VOCAB,
    layers=2,
    width=32,
    heads=2,
    kv_heads=1,
    head_width=16,
    feed_forward=48,
    context=16,
    dropout=0.1,
)
# Everything that a probe would choose, so that tests do not depend on the machine.
FIXED = {"threads": 1, "precision": "fp32", "compile": "off", "micro_batch": 3, "processes": 1}
SETTINGS = {
    "learning_rate": 3e-3,
    "batch_tokens": 96,
    "warmup_steps": 3,
    "validate_every": 5,
    "validation_tokens": 160,
    "checkpoint_every": 4,
    "sample_seconds": 1e9,
}


def language(length: int, seed: int) -> np.ndarray:
    """Ids of which each depends on the one before it, with some noise, and a 0 now and then."""
    random = np.random.default_rng(seed)
    noise, jump = random.integers(0, 4, length), random.random(length) < 0.1
    tokens = np.zeros(length, dtype=np.uint16)
    for n in range(1, length):
        tokens[n] = 0 if jump[n] else (tokens[n - 1] * 7 + 3 + noise[n]) % VOCAB
    return tokens


def write_shards(root: Path, sizes: dict[str, int] | None = None, seed: int = 0) -> None:
    """Publish the view `tokenize` of a run: train and validation shards and a tokenizer that fits
    them.
    """
    with Store(root).stage() as folder:
        (folder / "shards").mkdir()
        for number, (name, size) in enumerate((sizes or SIZES).items()):
            np.save(folder / "shards" / f"{name}.train.npy", language(size, seed + number))
            np.save(
                folder / "shards" / f"{name}.validation.npy",
                language(size // 10, seed + 100 + number),
            )
        vocabulary = {"the": 0} | {chr(33 + n): n for n in range(1, VOCAB)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="the"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        commit(folder, root / "tokenize", {"view": "tokenize", "artefacts": [], "facts": {}})


def recipe(
    seed: int = 1, weight: float = 1.0, model: dict[str, object] | None = None, **train: object
) -> Recipe:
    """Return a recipe that resolves to `train_setup`."""
    sizes = {
        "preset": "tiny",
        "layers": 2,
        "width": 32,
        "heads": 2,
        "kv_heads": 1,
        "head_width": 16,
        "feed_forward": 48,
        "context": 16,
    }
    return Recipe(
        source=(Source("raw/books", weight=weight), Source("raw/web.1", name="web.1")),
        seed=seed,
        model=Model(**(sizes | {"dropout": 0.1} | (model or {}))),  # type: ignore[arg-type]
        train=Train(**(FIXED | SETTINGS | {"steps": 12} | train)),  # type: ignore[arg-type]
    )


def train_setup(
    steps: int = 12, hardware: Hardware | None = None, config: ModelConfig = CONFIG, **train: object
) -> TrainSetup:
    """Return a setup for `Trainer`, without going through the stage."""
    settings = Train(**(SETTINGS | {"steps": steps} | train))  # type: ignore[arg-type]
    hardware = hardware or Hardware(threads=1, micro_batch=3)
    return TrainSetup(config, settings, hardware, seed=1, steps=steps)


def run_in(root: Path, of: Recipe, redo: frozenset[str] = frozenset()) -> Run:
    return Run(root, of, redo=redo)


def weights_digest(root: Path, step: int) -> str:
    """What must be equal, byte by byte, between two trainings: weights, optimizer and state."""
    folder = root / "train" / "checkpoints" / f"step-{step:06d}"
    paths = [*sorted(folder.glob("*.safetensors")), folder / "state.json"]
    assert len(paths) >= 3
    return " ".join(map(file_digest, paths))
