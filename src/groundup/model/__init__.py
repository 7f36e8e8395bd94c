"""The transformer: its sizes, weights on disk, loss, scores and sampling. Names load torch only
when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from groundup.model.config import ModelConfig
from groundup.model.presets import PRESETS, resolve

if TYPE_CHECKING:
    from groundup.model.generate import generate
    from groundup.model.hf_io import load_model, save_model
    from groundup.model.score import token_log_probabilities
    from groundup.model.transformer import Transformer

__all__ = [
    "PRESETS",
    "ModelConfig",
    "Transformer",
    "generate",
    "load_model",
    "resolve",
    "save_model",
    "token_log_probabilities",
]

_HOME = {
    "Transformer": "transformer",
    "generate": "generate",
    "load_model": "files",
    "save_model": "files",
    "token_log_probabilities": "score",
}


def __getattr__(name: str) -> Any:
    # `groundup plan` counts parameters without waiting for torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
