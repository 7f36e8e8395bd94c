"""Model folders to export from, without a run: a small model with every weight drawn at random, and
a real tokenizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.artifacts.tokenizer import FILE, PROBES, write_config
from groundup.export import llamacpp
from groundup.export.parity import package_version, probe_rows
from groundup.export.source_model import SourceModel, read_source_model
from groundup.model.config import ModelConfig
from groundup.model.hf_io import save_model
from groundup.model.transformer import Transformer
from tests.helpers.bpe import train_bpe

SIZES: dict[str, Any] = {
    "layers": 2,
    "width": 64,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 32,
    "feed_forward": 96,
    "context": 64,
}
FACTS = {"name": "test", "license": "", "sources": ["books", "web"]}
TEXT = (
    "The cat (which had sat) ran;\n\tthe dog's owner said: it's 3.14 times as old...\n\nAnd so: `x"
    " = {'a': [1, 2]}` — café.\n"
)

needs_gguf = pytest.mark.skipif(
    not __import__("importlib").util.find_spec("gguf"), reason="the package gguf is not installed"
)
needs_llama = pytest.mark.skipif(
    not package_version(llamacpp.PACKAGE), reason="llama.cpp's wheel (xllamacpp) is not installed"
)


def write_tokenizer(folder: Path, vocab_size: int = 700) -> Path:
    """Train a tokenizer on code and prose whose merges cross every border that splitters disagree
    on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(json.__file__).with_name("decoder.py").read_text()
    train_bpe([source, TEXT * 4, *PROBES, *PROBES], vocab_size).save(str(folder / FILE))
    write_config(folder, 10**30)
    return folder


def random_model(vocab_size: int, scale: float = 0.1, seed: int = 1, **sizes: int) -> Transformer:
    """Return a model whose every weight is drawn at random: fresh ones start with zeros that hide
    mistakes.
    """
    model = Transformer(ModelConfig(vocab_size, **(SIZES | sizes)))
    random = np.random.default_rng(seed)
    for parameter in model.parameters():
        noise = parameter.data.new_tensor(random.normal(0, scale, tuple(parameter.shape)))
        parameter.data.copy_(noise + (1 if parameter.ndim == 1 else 0))
    return model.eval()


def write_source_model(
    folder: Path, tokenizer: Path, model: Transformer, **config: Any
) -> SourceModel:
    """Write a model folder as a checkpoint is one; `config` changes entries of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in tokenizer.glob("tokenizer*.json"):
        shutil.copyfile(path, folder / path.name)
    save_model(folder, model)
    edit(folder / "config.json", **config)
    return read_source_model(folder, "step-000007")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rows_of(source: SourceModel) -> list[torch.Tensor]:
    return probe_rows(source.tokenizer, [TEXT], source.config.context, 1)
