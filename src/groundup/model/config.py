"""Sizes of the transformer: `ModelConfig`, the named presets, and how "auto" picks one of them.

hf_io.py translates a `ModelConfig` to and from the config.json of Hugging Face.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from groundup.errors import RecipeError
from groundup.recipe import Model
from groundup.schema import nearest

# Qwen3 normalizes the queries and keys of each head, Llama does not. Everything else is the same.
Layout = Literal["qwen3", "llama"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a decoder-only transformer with grouped-query attention and a gated feed-forward."""

    vocab_size: int  # rows of the embedding; the tokenizer may have fewer ids
    layers: int
    width: int
    heads: int  # of queries; each group of `heads / kv_heads` shares one key and value head
    kv_heads: int
    head_width: int  # even, since rotary embedding turns pairs; 64 or 128 run everywhere
    feed_forward: int
    context: int  # maximum number of positions
    dropout: float = 0.0  # on the embedding and the output of each branch, in training only
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    layout: Layout = "qwen3"
    tied: bool = True  # whether the output head shares the weights of the embedding

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "layers", "width", "heads", "kv_heads", "head_width")
        for name in (*sizes, "feed_forward", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        heads, kv_heads = self.heads, self.kv_heads
        if heads % kv_heads:
            raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
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
        """Parameters in the matrices of one layer."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_width * self.width
        return attention + 3 * self.width * self.feed_forward

    @property
    def layer_norm_parameters(self) -> int:
        """Parameters in the norms of one layer."""
        return 2 * self.width + (2 * self.head_width if self.query_key_norm else 0)

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head; none if it shares those of the embedding."""
        return 0 if self.tied else self.vocab_size * self.width

    def parameter_count(self) -> int:
        """Return the number of trained parameters; a tied head counts once."""
        layers = self.layers * (self.layer_matrix_parameters + self.layer_norm_parameters)
        return self.vocab_size * self.width + layers + self.width + self.head_parameters

    def flops_per_token(self) -> float:
        """Return the floating-point operations of training on one token.

        Forward, plus twice that for backward. Counts every matrix product, the head too, and
        attention over the (context + 1) / 2 positions that a token sees on average. Norms, softmax
        and rotary embedding are left out: less than 1 % at these sizes.
        """
        attention = 4 * self.heads * self.head_width * (self.context + 1) / 2
        layers = self.layers * (2 * self.layer_matrix_parameters + attention)
        return 3 * (2 * self.vocab_size * self.width + layers)

    def key_settings(self) -> dict[str, Any]:
        """Return the sizes as they enter the key of a training.

        Settings that only pretrained models change were added later: at their default they are left
        out, so old keys stay the same.
        """
        added = {"layout": "qwen3", "tied": True}
        table = dataclasses.asdict(self)
        return {name: value for name, value in table.items() if added.get(name) != value}


def _preset(layers: int, width: int, feed_forward: int, context: int) -> ModelConfig:
    # vLLM and llama.cpp need heads of 64 or 128.
    return ModelConfig(1, layers, width, width // 64, width // 64, 64, feed_forward, context)


def _large_preset(layers: int, width: int, feed_forward: int) -> ModelConfig:
    # Heads of 128 and few keys, as Llama 3 and Qwen3 have them from a billion parameters on: wider
    # heads keep a GPU busier, and fewer keys make a smaller cache when the model generates.
    return ModelConfig(1, layers, width, width // 128, 8, 128, feed_forward, context=2048)


# Named sizes, from small to large, as "auto" tries them. The recipe gives vocabulary and dropout.
PRESETS = {
    "tiny": _preset(layers=2, width=64, feed_forward=192, context=128),
    "starter": _preset(layers=4, width=128, feed_forward=384, context=256),
    "small": _preset(layers=6, width=192, feed_forward=512, context=256),
    "30m": _preset(layers=8, width=384, feed_forward=1024, context=512),
    "125m": _preset(layers=12, width=768, feed_forward=2048, context=1024),
    "300m": _preset(layers=20, width=1024, feed_forward=2688, context=2048),
    "500m": _preset(layers=22, width=1280, feed_forward=3456, context=2048),
    # 1.05 and 2.97 billion parameters with 50,000 ids.
    "1b": _large_preset(layers=20, width=2048, feed_forward=5632),
    "3b": _large_preset(layers=28, width=3072, feed_forward=8192),
}

# Four epochs are worth nearly as much as new text (Muennighoff et al. 2023, arXiv 2305.16264), and
# 20 tokens per parameter are enough (Hoffmann et al. 2022, arXiv 2203.15556): 20 / 4 = 5 tokens of
# text per parameter.
TOKENS_PER_PARAMETER = 5
# Without a GPU, time runs out before text does; two were enough for 1.4M parameters in five minutes
# (docs/experiments.md).
CPU_TOKENS_PER_PARAMETER = 2
# The largest presets that "auto" picks, without a GPU and with one. The recipe can still name a
# larger one: weights and gradients of a billion parameters leave little room on most GPUs.
CPU_LIMIT, GPU_LIMIT = "starter", "500m"


def resolve(model: Model, vocab_size: int, train_tokens: int, gpu: bool = False) -> ModelConfig:
    """Return the sizes that a recipe's [model] table asks for; RecipeError if they do not fit.

    Explicit sizes override those of the preset. `train_tokens`, the tokens of training text, limit
    the "auto" preset; `gpu` lets it be above `CPU_LIMIT`.
    """
    name = model.preset
    if name == "auto":
        # The largest preset for which there is enough text.
        names = list(PRESETS)
        names = names[: names.index(GPU_LIMIT if gpu else CPU_LIMIT) + 1]
        per_parameter = TOKENS_PER_PARAMETER if gpu else CPU_TOKENS_PER_PARAMETER
        sized = {n: dataclasses.replace(PRESETS[n], vocab_size=vocab_size) for n in names}
        fitting = [n for n in names if sized[n].parameter_count() * per_parameter <= train_tokens]
        name = fitting[-1] if fitting else names[0]
    if name not in PRESETS:
        raise RecipeError(f'[model] preset "{name}" is unknown{nearest(name, [*PRESETS, "auto"])}')
    keys = ("layers", "width", "head_width", "feed_forward", "context")
    sizes = {key: getattr(model, key) or getattr(PRESETS[name], key) for key in keys}
    # A recipe that changes the width need not give the heads.
    width, head_width = sizes["width"], sizes["head_width"]
    heads = model.heads or width // head_width
    if not model.heads and width % head_width:
        multiple = f"a multiple of head_width {head_width}"
        raise RecipeError(f"[model] width {width} is not {multiple}; set heads too")
    grouped = PRESETS[name].kv_heads if heads == PRESETS[name].heads else heads
    sizes |= {"heads": heads, "kv_heads": model.kv_heads or grouped}
    options: dict[str, Any] = {"dropout": model.dropout, "rope_theta": model.rope_theta}
    try:
        return ModelConfig(vocab_size=vocab_size, **sizes, **options)
    except ValueError as error:
        raise RecipeError(f"[model] {error}") from None
