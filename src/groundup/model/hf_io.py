"""Reads and writes a model folder in the layout of Hugging Face.

    config.json                       sizes (hf_config.py)
    model.safetensors                 all weights, or
    model-00001-of-00003.safetensors  a part of them, and
    model.safetensors.index.json      {"weight_map": {name of a weight: file name}}

Only JSON and safetensors are opened, never a pickle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_config import from_hf, to_hf
from groundup.model.transformer import Decoder, Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"

# What generation_config.json advises if a model does not bring its own.
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}

# Types of safetensors that can be read. All others are quantized models.
TYPES = ("F64", "F32", "F16", "BF16")
# Angles of rotary embedding, which old Llama folders contain. They follow from the sizes.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def save_model(folder: Path, model: Transformer) -> None:
    """Write config.json and model.safetensors. A tied head is not written twice."""
    (folder / CONFIG).write_text(json.dumps(to_hf(model.config), indent=1) + "\n", encoding="utf-8")
    # Copies: in training the parameters are views of one buffer, which safetensors refuses.
    tensors = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    # transformers refuses weights without this metadata.
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """Read a model folder; the model is in evaluation mode.

    Raises:
        GroundupError: a file is missing, torn, or of another architecture.
    """
    config = read_config(folder)
    # Before memory is allocated for what config.json claims.
    check_weights(folder, config)
    model = Transformer(config, seed=None)
    read_weights(folder, model)
    return model.to(device=device, dtype=dtype).eval()


def read_config(folder: Path) -> ModelConfig:
    """Return the sizes of the model in a folder.

    Raises:
        GroundupError: config.json is missing, torn, or of another architecture.
    """
    table = read_table(folder / CONFIG)
    try:
        return from_hf(table)
    except GroundupError as error:
        message = str(error).removeprefix(f"{CONFIG}: ")
        raise GroundupError(f"{folder / CONFIG}: {message}") from None


def read_table(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model folder."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GroundupError(f"{path}: there is no such file; a model folder needs it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GroundupError(f"{path}: cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise GroundupError(f"{path}: cannot be read: expected an object")
    return table


def weight_files(folder: Path) -> list[Path]:
    """Return the files that contain the weights of a folder."""
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        weight_map = read_table(folder / INDEX).get("weight_map")
        values = list(weight_map.values()) if isinstance(weight_map, Mapping) else []
        # An index must not lead out of its folder.
        if not values or any(not isinstance(v, str) or Path(v).name != v for v in values):
            raise GroundupError(f"{folder / INDEX}: weight_map names no files beside it")
        names = sorted(set(values))
    for name in names:
        if not (folder / name).is_file():
            raise GroundupError(
                f"{folder / name}: there is no such file; a model folder needs it (nothing but"
                " safetensors is opened)"
            )
    return [folder / name for name in names]


def read_weights(folder: Path, model: Transformer) -> None:
    """Copy the weights of a folder, which `check_weights` has passed, into a model."""
    parameters = dict(model.named_parameters())
    for path in weight_files(folder):
        with torch.no_grad(), safe_open(path, "pt") as file:
            for name in filter(parameters.__contains__, file.keys()):
                parameters[name].copy_(file.get_tensor(name))


def check_weights(folder: Path, config: ModelConfig) -> None:
    """Check that a folder has every weight of these sizes once, and no other; reads headers only.

    Raises:
        GroundupError: naming the file and the weight.
    """
    expected = parameter_shapes(config)
    seen: set[str] = set()
    for path in weight_files(folder):
        for name, dtype, shape in _headers(path):
            if _DERIVED.fullmatch(name) or (config.tied and name == "lm_head.weight"):
                continue
            if name not in expected or name in seen:
                problem = "there twice" if name in seen else "unknown"
                raise GroundupError(f"{path}: does not fit its {CONFIG}: {name[:80]} is {problem}")
            if dtype not in TYPES:
                raise GroundupError(
                    f"{path}: {name} is stored as {dtype}; quantized weights cannot be read, only"
                    f" {', '.join(TYPES)}"
                )
            if shape != expected[name]:
                raise GroundupError(
                    f"{path}: does not fit its {CONFIG}: {name} has the shape {shape}, not"
                    f" {expected[name]}"
                )
            seen.add(name)
    missing = sorted(expected.keys() - seen)
    if missing:
        raise GroundupError(
            f"{weight_files(folder)[0]}: does not fit its {CONFIG}: {missing[0]} is missing"
        )


def _headers(path: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield name, type and shape of each tensor."""
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                yield name, part.get_dtype(), tuple(part.get_shape())
    except (OSError, ValueError, SafetensorError) as error:
        raise GroundupError(f"{path}: cannot be read as a model: {error}") from None


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a model by name, without allocating it."""
    with torch.device("meta"):
        skeleton = nn.ModuleDict({"model": Decoder(config)})
        if not config.tied:
            skeleton["lm_head"] = nn.Linear(config.width, config.vocab_size, bias=False)
    return {name: tuple(weight.shape) for name, weight in skeleton.named_parameters()}
