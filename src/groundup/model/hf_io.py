"""Reads and writes a model folder in the Hugging Face layout: config.json and safetensors, whole or
in numbered parts.
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
from groundup.model.transformer import Body, Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Names in which part each tensor stands, where there are several.
INDEX = "model.safetensors.index.json"

# What generation_config.json advises, where a model does not bring its own.
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}

# As safetensors names them; anything else is a quantized model.
TYPES = ("F64", "F32", "F16", "BF16")
# Angles of rotary positions, which old Llama folders carry along; they follow from the sizes.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def save_model(folder: Path, model: Transformer) -> None:
    """Write config.json and model.safetensors; a head that is the embedding is not written twice."""
    (folder / CONFIG).write_text(json.dumps(to_hf(model.config), indent=1) + "\n", encoding="utf-8")
    # Copies: in training the parameters are views of one buffer, which the format does not allow.
    tensors = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    # transformers refuses weights without this mark.
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """Read a model folder, ready for use (dropout off).

    Raises:
        GroundupError: a file is missing, torn, or of another architecture.
    """
    config = read_config(folder)
    # Before memory is taken for what a config.json promises.
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
        raise GroundupError(
            f"{folder / CONFIG}: {str(error).removeprefix(f'{CONFIG}: ')}"
        ) from None


def read_table(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a model folder holds.

    Raises:
        GroundupError: it is missing, or no such file.
    """
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
    """Return the files that hold the weights of a folder.

    Raises:
        GroundupError: there is none, or the index names one that is not beside it.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [_present(folder / WEIGHTS)]
    places = read_table(folder / INDEX).get("weight_map")
    names = (
        set(places.values())
        if isinstance(places, Mapping) and all(isinstance(v, str) for v in places.values())
        else set()
    )
    if not names or any(Path(name).name != name for name in names):
        raise GroundupError(f"{folder / INDEX}: weight_map names no files beside it")
    return [_present(folder / name) for name in sorted(names)]


def _present(path: Path) -> Path:
    if not path.is_file():
        raise GroundupError(
            f"{path}: there is no such file; a model folder needs it (nothing but safetensors is"
            " opened)"
        )
    return path


def read_weights(folder: Path, model: Transformer) -> None:
    """Copy the weights of a folder that `check_weights` passed into a model of its sizes, one
    tensor at a time.

    Raises:
        GroundupError: a file is missing.
    """
    parameters = dict(model.named_parameters())
    for path in weight_files(folder):
        with torch.no_grad(), safe_open(path, "pt") as file:
            for name in filter(parameters.__contains__, file.keys()):
                parameters[name].copy_(file.get_tensor(name))


def check_weights(folder: Path, config: ModelConfig) -> None:
    """See that a folder holds every weight of these sizes once, and nothing else; only the headers
    of its files are read.

    Raises:
        GroundupError: naming the file and the weight.
    """
    wanted = parameter_shapes(config)
    found: set[str] = set()
    for path in weight_files(folder):
        for name, kind, shape in _headers(path):
            if _DERIVED.fullmatch(name) or (config.tied and name == "lm_head.weight"):
                continue
            if name not in wanted or name in found:
                raise GroundupError(
                    f"{path}: does not fit its {CONFIG}: {name[:80]} is"
                    f" {'there twice' if name in found else 'unknown'}"
                )
            if kind not in TYPES:
                raise GroundupError(
                    f"{path}: {name} is stored as {kind}; quantized weights cannot be read, only"
                    f" {', '.join(TYPES)}"
                )
            if shape != wanted[name]:
                raise GroundupError(
                    f"{path}: does not fit its {CONFIG}: {name} has the shape {shape}, not"
                    f" {wanted[name]}"
                )
            found.add(name)
    missing = sorted(wanted.keys() - found)
    if missing:
        raise GroundupError(
            f"{weight_files(folder)[0]}: does not fit its {CONFIG}: {missing[0]} is missing"
        )


def _headers(path: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield name, type and shape of each tensor."""
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                part = file.get_slice(name)
                yield name, part.get_dtype(), tuple(part.get_shape())
    except (OSError, ValueError, SafetensorError) as error:
        raise GroundupError(f"{path}: cannot be read as a model: {error}") from None


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a model by name, without making it."""
    with torch.device("meta"):
        skeleton = nn.ModuleDict({"model": Body(config)})
        if not config.tied:
            skeleton["lm_head"] = nn.Linear(config.width, config.vocab_size, bias=False)
    return {name: tuple(weight.shape) for name, weight in skeleton.named_parameters()}
