"""Searches every file of a run directory for a text: tables decoded, tokens decoded, no models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from groundup.artifacts.tokenizer import Tokenizer

# A model cannot be searched, and its tokenizer may have learned a rare word.
MODELS = (".safetensors", ".gguf")


def holders(root: Path, text: str) -> list[str]:
    """Return the files that hold a text of letters and spaces, which no escaping changes."""
    files = (
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix not in MODELS and path.name != "tokenizer.json"
    )
    return [path.relative_to(root).as_posix() for path in files if text in _content(root, path)]


def _content(root: Path, path: Path) -> str:
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False, default=str)
    if path.suffix == ".npy" and path.stem.endswith(("train", "validation")):
        return Tokenizer.load(root / "tokenize").decode(np.load(path).tolist())
    return path.read_bytes().decode("utf-8", "replace")
