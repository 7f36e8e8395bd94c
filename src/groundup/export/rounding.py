"""How far a model's answers move when numbers are rounded on the way, by its own measure. Reads and
writes nothing.

llama.cpp rounds not only the weights of a quantized file but also the vectors that meet them. How
much of that reaches
the logits depends on the model: so the tolerance of its comparison is measured on the model, before
llama.cpp is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groundup.model.transformer import Transformer

# Half a step of the rounding of vectors, as a share of the number that is rounded, or of the
# largest of its block of 32 in q8_0. In f32 no vector is rounded, but sums of up to 4,096 terms run
# in another order (2^-24 times their root), and llama.cpp gets each rotary angle by multiplying up
# to it: at position 256 that is about 2^-16 off.
HALF_STEP = {"f32": 2.0**-16, "f16": 2.0**-11, "bf16": 2.0**-8, "q8_0": 1 / 254}
BLOCK = 32
# llama.cpp's errors are others than those drawn here, of the same size; the largest of many
# thousands varies little.
FACTOR = 4
# Of the largest log-probability: what two float32 programs may differ by in any case, as for
# transformers.
FLOOR = 1e-4


def allowed(model: Transformer, kind: str, rows: Sequence[Tensor], seed: int = 0) -> float:
    """Return how far log-probabilities in llama.cpp may lie from the model's own.

    It is four times what they move by when each vector before a product (into attention, out of it,
    into the feed-forward, out of it, before the head) gets a uniform error of half a step of the
    type; at least 1e-4 of the largest.
    """
    largest = moved = 0.0
    for row in rows:
        plain = log_probabilities(model, row)
        with rounded(model, kind, seed):
            noisy = log_probabilities(model, row)
        largest = max(largest, float(plain.abs().max()))
        moved = max(moved, float((noisy - plain).abs().max()))
    return max(FLOOR * max(1.0, largest), FACTOR * moved)


def log_probabilities(model: Transformer, row: Tensor) -> Tensor:
    """Return the log-probabilities [T, V] of the token after each position of a row of ids [T]."""
    with torch.no_grad():
        return model(row[None])[0].log_softmax(-1)


@contextmanager
def rounded(model: Transformer, kind: str, seed: int) -> Iterator[None]:
    """Add an error of the size of rounding to the input of every product of `model` within the
    block.
    """
    error = _error(kind, torch.Generator().manual_seed(seed))
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: (error(inputs[0]),))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    # The head is no module of its own: its input is what the last norm returns.
    hooks.append(model.model.norm.register_forward_hook(lambda _, inputs, output: error(output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _error(kind: str, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    def add(x: Any) -> Tensor:
        if kind == "q8_0" and x.shape[-1] % BLOCK == 0:
            blocks = x.abs().unflatten(-1, (-1, BLOCK))
            size = blocks.amax(-1, keepdim=True).expand_as(blocks).flatten(-2)
        else:
            size = x.abs()
        noise: Tensor = torch.rand(x.shape, generator=generator) * 2 - 1
        return x + HALF_STEP[kind] * size * noise

    return add
