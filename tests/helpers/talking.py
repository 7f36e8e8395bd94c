"""A run with conversations (questions about Python's own manual) and a best checkpoint, as the
stages before tune leave them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from groundup.model.config import Layout, ModelConfig
from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Run
from groundup.tokenize.stage import run as tokenize
from tests.helpers.raw import TEXTS, paragraphs
from tests.helpers.refined import refined_run
from tests.helpers.trained import add_checkpoint

CONTEXT = 96
TUNE: dict[str, Any] = {
    "method": "sft",
    "epochs": 2,
    "batch_tokens": 192,
    "learning_rate": 3e-3,
    "answer_tokens": 8,
}
MACHINE = {
    "device": "cpu",
    "threads": 1,
    "precision": "fp32",
    "compile": False,
    "micro_batch": 4,
    "processes": 1,
}

Turns = list[dict[str, str]]


def stirred(
    vocab_size: int,
    seed: int = 3,
    dropout: float = 0.0,
    layout: Layout = "qwen3",
    tied: bool = True,
) -> Transformer:
    """A model none of whose weights is zero or one, so that no term can hide."""
    model = Transformer(
        ModelConfig(vocab_size, 2, 32, 2, 2, 16, 48, CONTEXT, dropout, layout=layout, tied=tied),
        seed,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def turns(*contents: str) -> Turns:
    """A conversation whose turns are by user and assistant."""
    return [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]


def talks() -> list[Turns]:
    """Sixty or so short conversations, no two of which ask the same."""
    parts = [
        (title, number, part)
        for title, text in TEXTS[3][:24]
        for number, part in enumerate(paragraphs(text)[:3])
    ]
    return [
        turns(f"What is {title} {number}?", " ".join(part.split())[:60])
        for title, number, part in parts
    ]


def talking_run(root: Path, **settings: object) -> Run:
    """A run up to the stage train, a quarter of whose conversations is held out; one document is a
    single speech.
    """
    rows = [
        ("\n".join(turn["content"] for turn in talk), 2 if n % 4 == 0 else 1, talk)
        for n, talk in enumerate(talks())
    ]
    rows.append(("I rise to speak.", 1, [{"role": "a member", "content": "I rise to speak."}]))
    run = refined_run(
        root,
        {"talk.1": rows},
        {"talk": "conversations"},
        **({"tokenize": {"vocab_size": 400}} | settings),
    )
    tokenize(run)
    view = run.store.view("tokenize")
    assert view is not None
    files = view.manifest["files"]
    inputs = {
        name: entry["sha256"]
        for name, entry in files.items()
        if name.endswith(".npy") or name == "tokenizer.json"
    }
    run.store.publish("collect", {}, [])
    (root / "train").mkdir()
    write_json(root / "train" / "train.json", {"inputs": inputs})
    write_json(root / "train" / "machine.json", MACHINE)
    write_lock(run.root, run.recipe)
    add_talking_checkpoint(run)
    return run


def add_talking_checkpoint(run: Run, step: int = 7, seed: int = 3) -> Path:
    """Commit a model with the run's tokenizer, as the training loop does, and call it the best."""
    view = run.store.view("tokenize")
    assert view is not None
    files = [view.path / name for name in ("tokenizer.json", "tokenizer_config.json")]
    return add_checkpoint(run, stirred(view.manifest["facts"]["vocab_size"], seed), step, files)
