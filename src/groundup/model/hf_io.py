"""Reads and writes a model folder in the layout of Hugging Face.

    config.json                       sizes of a Qwen3 or a Llama
    model.safetensors                 all weights, or
    model-00001-of-00003.safetensors  a part of them, and
    model.safetensors.index.json      {"weight_map": {name of a weight: file name}}

Only JSON and safetensors are opened, never a pickle. Settings that this transformer does not have
are refused by name, so a foreign model never loads as a different function.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from groundup.errors import GroundupError
from groundup.model.config import Layout, ModelConfig
from groundup.model.transformer import Decoder, Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"

# What generation_config.json advises if a model does not bring its own.
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}

# Types of safetensors that can be read. All others are quantized models.
TYPES = ("F64", "F32", "F16", "BF16")
# Angles of rotary embedding, which old Llama folders contain. They follow from the sizes.
_DERIVED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")

CLASSES: dict[Layout, str] = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}

# The defaults of transformers' Qwen3Config and LlamaConfig, for entries that are missing.
_ROPE_THETA, _EPSILON, _QWEN3_HEAD = 10_000.0, 1e-6, 128
# Far above any model; a hostile number would keep us counting.
MAX_LAYERS = 1_000
# Entries that change what a model computes, and the only value of each that ours computes.
_REQUIRED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,
}


def save_model(folder: Path, model: Transformer, entries: Mapping[str, Any] | None = None) -> None:
    """Write config.json, with `entries` added, and model.safetensors, a tied head once."""
    save_config(folder, model.config, entries)
    # Copies: in training the parameters are views of one buffer, which safetensors refuses.
    tensors = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    # transformers refuses weights without this metadata.
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def save_config(
    folder: Path, config: ModelConfig, entries: Mapping[str, Any] | None = None
) -> None:
    """Write config.json, with `entries` added."""
    table = to_hf(config) | dict(entries or {})
    (folder / CONFIG).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def load_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Transformer:
    """Read a model folder; the model is in evaluation mode.

    Raises GroundupError if a file is missing, torn, or of another architecture.
    """
    config = read_config(folder)
    # Before memory is allocated for what config.json claims.
    check_weights(folder, config)
    model = Transformer(config, seed=None)
    read_weights(folder, model)
    return model.to(device=device, dtype=dtype).eval()


def read_config(folder: Path) -> ModelConfig:
    """Return the sizes of the model in a folder; GroundupError if `load_model` would refuse it."""
    return from_hf(read_table(folder / CONFIG), str(folder / CONFIG))


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
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            needed = "a model folder needs it (nothing but safetensors is opened)"
            raise GroundupError(f"{path}: there is no such file; {needed}")
    return paths


def read_weights(folder: Path, model: Transformer) -> None:
    """Copy the weights of a folder, which `check_weights` has passed, into a model."""
    parameters = dict(model.named_parameters())
    for path in weight_files(folder):
        with torch.no_grad(), safe_open(path, "pt") as file:
            for name in filter(parameters.__contains__, file.keys()):
                parameters[name].copy_(file.get_tensor(name))


def check_weights(folder: Path, config: ModelConfig) -> None:
    """Check that a folder has every weight of these sizes once, and no other; reads headers only.

    Raises GroundupError, which names the file and the weight.
    """
    expected = parameter_shapes(config)
    seen: set[str] = set()
    misfit = f"does not fit its {CONFIG}:"
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                headers = [(n, p.get_dtype(), tuple(p.get_shape())) for n, p in parts.items()]
        except (OSError, ValueError, SafetensorError) as error:
            raise GroundupError(f"{path}: cannot be read as a model: {error}") from None
        for name, dtype, shape in headers:
            if _DERIVED.fullmatch(name) or (config.tied and name == "lm_head.weight"):
                continue
            problem = ""
            if name not in expected or name in seen:
                problem = f"{misfit} {name[:80]} is {'there twice' if name in seen else 'unknown'}"
            elif dtype not in TYPES:
                readable = f"quantized weights cannot be read, only {', '.join(TYPES)}"
                problem = f"{name} is stored as {dtype}; {readable}"
            elif shape != expected[name]:
                problem = f"{misfit} {name} has the shape {shape}, not {expected[name]}"
            if problem:
                raise GroundupError(f"{path}: {problem}")
            seen.add(name)
    for name in sorted(expected.keys() - seen):
        raise GroundupError(f"{weight_files(folder)[0]}: {misfit} {name} is missing")


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a model by name, without allocating it."""
    with torch.device("meta"):
        skeleton = nn.ModuleDict({"model": Decoder(config)})
        if not config.tied:
            skeleton["lm_head"] = nn.Linear(config.width, config.vocab_size, bias=False)
    return {name: tuple(weight.shape) for name, weight in skeleton.named_parameters()}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json with which transformers, vLLM and llama.cpp load these weights."""
    extra: dict[str, Any] = {"use_sliding_window": False}
    if config.layout == "llama":
        # Llama's defaults would begin texts with id 1 and end them at id 2.
        extra = {"mlp_bias": False, "bos_token_id": None, "eos_token_id": None}
    return {
        "architectures": [CLASSES[config.layout]],
        "model_type": config.layout,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.feed_forward,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        **extra,
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        # Both layouts know attention dropout only, so ours has a name that other programs ignore.
        "groundup_dropout": config.dropout,
    }


def from_hf(table: Mapping[str, Any], where: str = CONFIG) -> ModelConfig:
    """Return the sizes in the config.json of a Qwen3 or Llama.

    Raises GroundupError if an entry is invalid or asks for what this transformer lacks.
    """
    try:
        layout = _check_supported(table)
        heads, width = _integer(table, "num_attention_heads"), _integer(table, "hidden_size")
        head_width = _QWEN3_HEAD if layout == "qwen3" else width // heads
        return ModelConfig(
            vocab_size=_integer(table, "vocab_size"),
            layers=_integer(table, "num_hidden_layers", maximum=MAX_LAYERS),
            width=width,
            heads=heads,
            kv_heads=_integer(table, "num_key_value_heads", heads),
            head_width=_integer(table, "head_dim", head_width),
            feed_forward=_integer(table, "intermediate_size"),
            context=_integer(table, "max_position_embeddings"),
            dropout=_number(table, "groundup_dropout", 0.0),
            rope_theta=_number(table.get("rope_parameters") or table, "rope_theta", _ROPE_THETA),
            norm_epsilon=_number(table, "rms_norm_eps", _EPSILON),
            layout=layout,
            tied=table.get("tie_word_embeddings") or False,
        )
    except ValueError as error:
        raise GroundupError(f"{where}: {error}") from None


def _check_supported(table: Mapping[str, Any]) -> Layout:
    """Return the layout; refuse settings that this transformer does not have."""
    layout, classes = table.get("model_type"), table.get("architectures")
    if layout not in ("qwen3", "llama"):
        raise ValueError(f"model_type is {_short(layout)}; only qwen3 and llama can be read")
    if classes not in (None, [CLASSES[layout]]):
        readable = f"only [{CLASSES[layout]!r}] can be read for {layout}"
        raise ValueError(f"architectures is {_short(classes)}; {readable}")
    for name, required in _REQUIRED.items():
        # None and False both mean that a model has none of it.
        if (table.get(name, required) or None) != (required or None):
            raise ValueError(f"{name} is {_short(table[name])}; only {required!r} can be read")
    for name in ("rope_scaling", "rope_parameters"):
        rope = table.get(name) or {}
        plain = isinstance(rope, Mapping) and rope.get("partial_rotary_factor", 1.0) == 1.0
        # Older folders call the type "type".
        if not plain or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"{name} is {_short(rope)}; only plain rotary positions can be read")
    types = table.get("layer_types") or []
    for layer_type in types if isinstance(types, list) else [types]:
        if layer_type != "full_attention":
            name = _short(layer_type)
            raise ValueError(f"layer_types names {name}; only full_attention can be read")
    if not isinstance(tied := table.get("tie_word_embeddings") or False, bool):
        raise ValueError(f"tie_word_embeddings is {_short(tied)}; expected true or false")
    return layout


def _integer(
    table: Mapping[str, Any], name: str, default: int | None = None, maximum: int = 1 << 31
) -> int:
    """Return a positive integer entry; the default if it is missing or null."""
    value = default if table.get(name) is None else table[name]
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise ValueError(f"{name} is {_short(value)}; expected a whole number from 1 to {maximum}")
    return value


def _number(table: Mapping[str, Any], name: str, default: float) -> float:
    """Return a finite, non-negative entry; the default if it is missing or null."""
    value = default if table.get(name) is None else table[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {_short(value)}; expected a number from 0 on")
    return float(value)


def _short(value: Any) -> str:
    return repr(value)[:80]
