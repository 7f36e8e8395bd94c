"""Named sizes, and the rule by which "auto" picks one. Reads the [model] table of a recipe."""

from __future__ import annotations

from typing import TypedDict

from groundup.errors import RecipeError
from groundup.model.config import ModelConfig
from groundup.recipe import Model
from groundup.schema import nearest


class Sizes(TypedDict):
    """What a preset fixes; vocabulary and dropout come from elsewhere."""

    layers: int
    width: int
    heads: int
    head_width: int
    feed_forward: int
    context: int


def _sizes(layers: int, width: int, heads: int, feed_forward: int, context: int) -> Sizes:
    return Sizes(
        layers=layers,
        width=width,
        heads=heads,
        head_width=64,
        feed_forward=feed_forward,
        context=context,
    )


# Smallest first: "auto" climbs this ladder. Heads are 64 wide everywhere, which vLLM and llama.cpp
# need.
PRESETS: dict[str, Sizes] = {
    "tiny": _sizes(layers=2, width=64, heads=1, feed_forward=192, context=128),
    "starter": _sizes(layers=4, width=128, heads=2, feed_forward=384, context=256),
    "small": _sizes(layers=6, width=192, heads=3, feed_forward=512, context=256),
    "30m": _sizes(layers=8, width=384, heads=6, feed_forward=1024, context=512),
    "125m": _sizes(layers=12, width=768, heads=12, feed_forward=2048, context=1024),
    "300m": _sizes(layers=20, width=1024, heads=16, feed_forward=2688, context=2048),
    "500m": _sizes(layers=22, width=1280, heads=20, feed_forward=3456, context=2048),
}

# Four passes are worth nearly as much as new text (Muennighoff et al. 2023, arXiv 2305.16264), and
# 20 tokens a parameter are enough (Hoffmann et al. 2022, arXiv 2203.15556): five tokens of text for
# each parameter.
TOKENS_PER_PARAMETER = 5
# Without a GPU time ends before text does; two were enough for 1.4M parameters in five minutes
# (docs/experiments.md).
CPU_TOKENS_PER_PARAMETER = 2
# Without a GPU "auto" stays where a run of minutes teaches something; a larger preset can still be
# asked for by name.
CPU_LIMIT = "starter"
_FLOOR = "tiny"


def resolve(model: Model, vocab_size: int, train_tokens: int, gpu: bool = False) -> ModelConfig:
    """Return the sizes that a recipe's [model] table asks for; explicit sizes override those of its
    preset.

    Args:
        train_tokens: tokens of text to learn from, which bound the "auto" preset.
        gpu: whether "auto" may go beyond `CPU_LIMIT`.

    Raises:
        RecipeError: the preset is unknown, or the sizes do not fit together.
    """
    preset = _largest(vocab_size, train_tokens, gpu) if model.preset == "auto" else model.preset
    if preset not in PRESETS:
        raise RecipeError(
            f'[model] preset "{preset}" is unknown{nearest(preset, [*PRESETS, "auto"])}'
        )
    sizes = PRESETS[preset]
    heads = model.heads or _heads(model, sizes)
    try:
        return ModelConfig(
            vocab_size=vocab_size,
            layers=model.layers or sizes["layers"],
            width=model.width or sizes["width"],
            heads=heads,
            kv_heads=model.kv_heads or heads,
            head_width=model.head_width or sizes["head_width"],
            feed_forward=model.feed_forward or sizes["feed_forward"],
            context=model.context or sizes["context"],
            dropout=model.dropout,
            rope_theta=model.rope_theta,
        )
    except ValueError as error:
        raise RecipeError(f"[model] {error}") from None


def _heads(model: Model, sizes: Sizes) -> int:
    """A changed width changes the number of heads with it, so that they still cover it."""
    if not (model.width or model.head_width):
        return sizes["heads"]
    width, head = model.width or sizes["width"], model.head_width or sizes["head_width"]
    if width % head:
        raise RecipeError(
            f"[model] width {width} is not a multiple of head_width {head}; set heads too"
        )
    return width // head


def _largest(vocab_size: int, train_tokens: int, gpu: bool) -> str:
    chosen = _FLOOR
    for name, sizes in PRESETS.items():
        count = ModelConfig(
            vocab_size=vocab_size, kv_heads=sizes["heads"], **sizes
        ).parameter_count()
        if count * (TOKENS_PER_PARAMETER if gpu else CPU_TOKENS_PER_PARAMETER) <= train_tokens:
            chosen = name
        if name == CPU_LIMIT and not gpu:
            break
    return chosen
