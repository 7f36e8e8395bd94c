"""Sizes of a model: counts its parameters and operations. How Hugging Face writes them down stands
in `layouts.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

# Qwen3 normalises the queries and keys of each head, Llama does not; what they share is all the
# rest.
Layout = Literal["qwen3", "llama"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a decoder-only transformer with grouped heads and a gated feed-forward.

    Attributes:
        vocab_size: rows of the embedding; a tokenizer may have fewer ids.
        heads: query heads; each group of `heads / kv_heads` shares one key and value head.
        head_width: must be even, since rotary positions turn pairs; 64 or 128 run everywhere.
        context: positions that the model was built for.
        dropout: on the embedding and on what each branch adds to the residual stream, in training
            only.
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
    layout: Layout = "qwen3"
    # Whether the output head is the embedding.
    tied: bool = True

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "layers",
            "width",
            "heads",
            "kv_heads",
            "head_width",
            "feed_forward",
            "context",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        if not self.rope_theta > 0:
            raise ValueError(f"rope_theta ({self.rope_theta}) must be positive")
        if self.head_width % 2:
            raise ValueError(f"head_width ({self.head_width}) must be even")

    @property
    def query_key_norm(self) -> bool:
        """Whether queries and keys are normalized."""
        return self.layout == "qwen3"

    @property
    def layer_matrix_parameters(self) -> int:
        """Parameters of one layer's matrices."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_width * self.width
        return attention + 3 * self.width * self.feed_forward

    @property
    def layer_norm_parameters(self) -> int:
        """Parameters of one layer's norms."""
        return 2 * self.width + (2 * self.head_width if self.query_key_norm else 0)

    @property
    def head_parameters(self) -> int:
        """Parameters of an output head of its own."""
        return 0 if self.tied else self.vocab_size * self.width

    def parameter_count(self) -> int:
        """Return the number of trained parameters; a tied head counts once."""
        layers = self.layers * (self.layer_matrix_parameters + self.layer_norm_parameters)
        return self.vocab_size * self.width + layers + self.width + self.head_parameters

    def flops_per_token(self, context: int | None = None) -> float:
        """Return the floating-point operations of training on one token: forward, and twice that
        backward.

        Counts every matrix product, the head too, and attention over the (context + 1) / 2
        positions that a token sees on average. Norms, softmax and rotary positions are left out:
        under 1 % at these sizes.
        """
        seen = ((context or self.context) + 1) / 2
        attention = 4 * self.heads * self.head_width * seen
        forward = 2 * self.vocab_size * self.width + self.layers * (
            2 * self.layer_matrix_parameters + attention
        )
        return 3 * forward

    def named(self) -> dict[str, Any]:
        """Return the sizes by name, as they enter a key: without what only models from elsewhere
        have.
        """
        table = dataclasses.asdict(self)
        usual = {"layout": "qwen3", "tied": True}
        return {
            name: value
            for name, value in table.items()
            if name not in usual or usual[name] != value
        }
