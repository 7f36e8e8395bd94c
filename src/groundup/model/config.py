"""Sizes of a model: counts its parameters and operations, reads and writes Hugging Face's Qwen3 config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groundup.errors import GroundupError


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a decoder-only transformer with grouped heads, QK-norm, gated feed-forward and tied embeddings.

    Attributes:
        heads: query heads; each group of `heads / kv_heads` shares one key and value head.
        head_width: must be even, since rotary positions turn pairs; 64 or 128 run everywhere.
        context: positions that the model was built for.
        dropout: on the embedding and on what each branch adds to the residual stream, in training only.
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    context: int
    dropout: float = 0.0
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "head_width", "feed_forward", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_width % 2:
            raise ValueError(f"head_width ({self.head_width}) must be even")

    @property
    def layer_matrix_parameters(self) -> int:
        """Parameters of one layer's matrices."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_width * self.width
        return attention + 3 * self.width * self.feed_forward

    def parameter_count(self) -> int:
        """Return the number of trained parameters; the tied head counts once."""
        norms = 2 * self.width + 2 * self.head_width
        return self.vocab_size * self.width + self.layers * (self.layer_matrix_parameters + norms) + self.width

    def flops_per_token(self, context: int | None = None) -> float:
        """Return the floating-point operations of training on one token: forward, and twice that backward.

        Counts every matrix product, the head too, and attention over the (context + 1) / 2 positions that a token sees
        on average. Norms, softmax and rotary positions are left out: under 1 % at these sizes.
        """
        seen = ((context or self.context) + 1) / 2
        attention = 4 * self.heads * self.head_width * seen
        forward = 2 * self.vocab_size * self.width + self.layers * (2 * self.layer_matrix_parameters + attention)
        return 3 * forward

    def to_hf(self) -> dict[str, Any]:
        """Return the config.json under which transformers, vLLM and llama.cpp load these weights as Qwen3."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "intermediate_size": self.feed_forward,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "use_cache": True,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
            # Qwen3 knows attention dropout only, so ours keeps a name that other programs pass over.
            "groundup_dropout": self.dropout,
        }

    @classmethod
    def from_hf(cls, table: Mapping[str, Any]) -> ModelConfig:
        """Return the sizes that a Qwen3 config.json names.

        Raises:
            GroundupError: it is of another architecture, or uses what this transformer lacks.
        """
        try:
            _refuse_foreign(table)
            rope = table.get("rope_parameters") or table
            return cls(
                vocab_size=table["vocab_size"],
                layers=table["num_hidden_layers"],
                width=table["hidden_size"],
                heads=table["num_attention_heads"],
                kv_heads=table["num_key_value_heads"],
                head_width=table["head_dim"],
                feed_forward=table["intermediate_size"],
                context=table["max_position_embeddings"],
                dropout=table.get("groundup_dropout", 0.0),
                rope_theta=float(rope["rope_theta"]),
                norm_epsilon=table["rms_norm_eps"],
            )
        except KeyError as error:
            raise GroundupError(f"config.json: {error.args[0]} is missing") from None
        except ValueError as error:
            raise GroundupError(f"config.json: {error}") from None


def _refuse_foreign(table: Mapping[str, Any]) -> None:
    if table.get("model_type") != "qwen3":
        raise ValueError(f"model_type is {table.get('model_type')!r}; only qwen3 can be read")
    rope = table.get("rope_parameters") or {}
    scaling = table.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    wanted = {
        "tie_word_embeddings": (table.get("tie_word_embeddings"), True),
        "hidden_act": (table.get("hidden_act", "silu"), "silu"),
        "attention_bias": (bool(table.get("attention_bias")), False),
        "use_sliding_window": (bool(table.get("use_sliding_window")), False),
        "rope_scaling": (scaling, None),
    }
    for name, (found, needed) in wanted.items():
        if found != needed:
            raise ValueError(f"{name} is {found!r}; only {needed!r} can be read")
