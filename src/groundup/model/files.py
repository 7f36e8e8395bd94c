"""Reads and writes a model folder in the Hugging Face layout: config.json and model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"

# What generation_config.json advises, where a model does not bring its own.
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}


def save_model(folder: Path, model: Transformer) -> None:
    """Write config.json and model.safetensors; the head is the embedding and is not written twice."""
    (folder / CONFIG).write_text(json.dumps(model.config.to_hf(), indent=1) + "\n", encoding="utf-8")
    # Copies: in training the parameters are views of one buffer, which the format does not allow.
    tensors = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    # transformers refuses weights without this mark.
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_model(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a model folder, ready for use (dropout off).

    Raises:
        GroundupError: a file is missing, torn, or of another architecture.
    """
    try:
        config = ModelConfig.from_hf(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise GroundupError(f"{error.filename or folder / WEIGHTS}: there is no such file; a model folder needs it") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise GroundupError(f"{folder}: cannot be read as a model: {error}") from None
    tensors.pop("lm_head.weight", None)
    model = Transformer(config)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise GroundupError(f"{folder / WEIGHTS}: does not fit its config.json: {' '.join(str(error).split())[:300]}") from None
    return model.to(device=device, dtype=dtype).eval()
