"""Hugging Face's config.json of a Qwen3 or a Llama: reads and writes its table. What this
transformer lacks is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.errors import GroundupError
from groundup.model.config import Layout, ModelConfig

CLASSES: dict[Layout, str] = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}

# What transformers takes where an entry is missing (its Qwen3Config and LlamaConfig).
_ROPE_THETA, _EPSILON, _QWEN3_HEAD = 10_000.0, 1e-6, 128
# Far above any model; a hostile number would keep us counting.
MOST_LAYERS = 1_000
# Entries that change what a model computes, and the only value of each that this transformer
# computes.
_NEEDED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,
}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json under which transformers, vLLM and llama.cpp load these weights."""
    # Of Llama, which would end texts at id 2 otherwise.
    own = (
        {"use_sliding_window": False}
        if config.layout == "qwen3"
        else {"mlp_bias": False, "bos_token_id": None, "eos_token_id": None}
    )
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
        **own,
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        # Both know attention dropout only, so ours keeps a name that other programs pass over.
        "groundup_dropout": config.dropout,
    }


def from_hf(table: Mapping[str, Any]) -> ModelConfig:
    """Return the sizes that the config.json of a Qwen3 or Llama names.

    Raises:
        GroundupError: naming the entry that is missing, makes no sense, or asks for what this
            transformer lacks.
    """
    try:
        return _sizes(table)
    except ValueError as error:
        raise GroundupError(f"config.json: {error}") from None


def _sizes(table: Mapping[str, Any]) -> ModelConfig:
    layout = _layout(table)
    _refuse_foreign(table)
    heads, width = _whole(table, "num_attention_heads"), _whole(table, "hidden_size")
    rope = table.get("rope_parameters") or table
    return ModelConfig(
        vocab_size=_whole(table, "vocab_size"),
        layers=_whole(table, "num_hidden_layers", most=MOST_LAYERS),
        width=width,
        heads=heads,
        kv_heads=_whole(table, "num_key_value_heads", heads),
        head_width=_whole(table, "head_dim", _QWEN3_HEAD if layout == "qwen3" else width // heads),
        feed_forward=_whole(table, "intermediate_size"),
        context=_whole(table, "max_position_embeddings"),
        dropout=_number(table, "groundup_dropout", 0.0),
        rope_theta=_number(rope, "rope_theta", _ROPE_THETA),
        norm_epsilon=_number(table, "rms_norm_eps", _EPSILON),
        layout=layout,
        tied=_truth(table, "tie_word_embeddings"),
    )


def _layout(table: Mapping[str, Any]) -> Layout:
    found, classes = table.get("model_type"), table.get("architectures")
    for layout, name in CLASSES.items():
        if found == layout:
            if classes not in (None, [name]):
                raise ValueError(
                    f"architectures is {_short(classes)}; only [{name!r}] can be read for {layout}"
                )
            return layout
    raise ValueError(f"model_type is {_short(found)}; only qwen3 and llama can be read")


def _refuse_foreign(table: Mapping[str, Any]) -> None:
    for name, needed in _NEEDED.items():
        # None and False both say that a model has none of it.
        if (table.get(name, needed) or None) != (needed or None):
            raise ValueError(f"{name} is {_short(table[name])}; only {needed!r} can be read")
    for name in ("rope_scaling", "rope_parameters"):
        _refuse_scaling(name, table.get(name) or {})
    types = table.get("layer_types") or []
    others = (
        [kind for kind in types if kind != "full_attention"] if isinstance(types, list) else [types]
    )
    if others:
        raise ValueError(f"layer_types names {_short(others[0])}; only full_attention can be read")


def _refuse_scaling(name: str, rope: Any) -> None:
    # Older folders say "type".
    plain = (
        isinstance(rope, Mapping)
        and rope.get("rope_type", rope.get("type", "default")) == "default"
    )
    if not plain or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ValueError(f"{name} is {_short(rope)}; only plain rotary positions can be read")


def _whole(
    table: Mapping[str, Any], name: str, default: int | None = None, most: int = 1 << 31
) -> int:
    """Return an entry that counts something; a missing one, or null, is the default."""
    value = table.get(name)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{name} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{name} is {_short(value)}; expected a whole number from 1 to {most}")
    return value


def _number(table: Mapping[str, Any], name: str, default: float) -> float:
    value = table.get(name)
    value = default if value is None else value
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not (math.isfinite(value) and value >= 0)
    ):
        raise ValueError(f"{name} is {_short(value)}; expected a number from 0 on")
    return float(value)


def _truth(table: Mapping[str, Any], name: str) -> bool:
    value = table.get(name) or False
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {_short(value)}; expected true or false")
    return value


def _short(value: Any) -> str:
    return repr(value)[:80]
