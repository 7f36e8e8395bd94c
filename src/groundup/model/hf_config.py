"""Translates sizes to and from Hugging Face's config.json of a Qwen3 or a Llama.

Settings that this transformer does not have are refused by name, so a foreign model never loads as
a different function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.errors import GroundupError
from groundup.model.config import Layout, ModelConfig

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


def from_hf(table: Mapping[str, Any]) -> ModelConfig:
    """Return the sizes in the config.json of a Qwen3 or Llama.

    Raises:
        GroundupError: an entry is missing, invalid, or asks for what this transformer lacks.
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
        raise GroundupError(f"config.json: {error}") from None


def _check_supported(table: Mapping[str, Any]) -> Layout:
    """Return the layout; refuse settings that this transformer does not have."""
    layout, classes = table.get("model_type"), table.get("architectures")
    if layout not in ("qwen3", "llama"):
        raise ValueError(f"model_type is {_short(layout)}; only qwen3 and llama can be read")
    if classes not in (None, [CLASSES[layout]]):
        raise ValueError(
            f"architectures is {_short(classes)}; only [{CLASSES[layout]!r}] can be read for"
            f" {layout}"
        )
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
            raise ValueError(
                f"layer_types names {_short(layer_type)}; only full_attention can be read"
            )
    if not isinstance(tied := table.get("tie_word_embeddings") or False, bool):
        raise ValueError(f"tie_word_embeddings is {_short(tied)}; expected true or false")
    return layout


def _integer(
    table: Mapping[str, Any], name: str, default: int | None = None, maximum: int = 1 << 31
) -> int:
    """Return a positive integer entry; the default if it is missing or null."""
    value = table.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
        raise ValueError(f"{name} is {_short(value)}; expected a whole number from 1 to {maximum}")
    return value


def _number(table: Mapping[str, Any], name: str, default: float) -> float:
    """Return a finite, non-negative entry; the default if it is missing or null."""
    value = table.get(name)
    value = default if value is None else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {_short(value)}; expected a number from 0 on")
    return float(value)


def _short(value: Any) -> str:
    return repr(value)[:80]
