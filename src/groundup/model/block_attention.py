"""Causal attention as batched matrix products over blocks of queries.

    queries 0 … 127     × keys 0 … 127      ■
    queries 128 … 255   × keys 0 … 255      ■ ■        half of the scores are never computed
    queries 256 … 383   × keys 0 … 383      ■ ■ ■

PyTorch's own kernel for CPUs multiplies in tiles that are too small for the units that multiply
bfloat16: on such a CPU this one takes 0.6 of its time with 512 positions. Scores of one block of
all sequences and heads exist at once; they are computed again in the backward pass.

An operator of its own, so that a compiled layer calls it as it is. Only products, sums and softmax
of PyTorch, always in the same order: equal inputs give equal bits.

Shape suffixes: B batch, H heads, T positions, E width of a head, N batch · heads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from groundup.model.config import ModelConfig

BLOCK = 128  # queries
# Most positions and heads with which two kernels are compared, and tries, of which the best counts.
MEASURED_LENGTH, MEASURED_HEADS, TRIES = 1024, 4, 4


@torch.library.custom_op("groundup::block_attention", mutates_args=())
def block_attention(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(E)) v [B, H, T, E], where a position sees itself and what is
    before it; all three inputs have the same shape and type.
    """
    q, k, v = (x.flatten(0, 1) for x in (q_BHTE, k_BHTE, v_BHTE))
    out_NTE = torch.empty(q.shape, dtype=q.dtype)
    for rows, seen, weights in _blocks(q, k):
        torch.bmm(weights, v[:, seen], out=out_NTE[:, rows])
    return out_NTE.view(q_BHTE.shape)


@torch.library.custom_op("groundup::block_attention_backward", mutates_args=())
def _backward(
    grad_BHTE: Tensor, q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values."""
    grad, q, k, v = (x.flatten(0, 1) for x in (grad_BHTE, q_BHTE, k_BHTE, v_BHTE))
    grad_q = torch.empty(q.shape, dtype=q.dtype)
    # A key has a part of its gradient from each block of queries; they are added in float32.
    grad_k, grad_v = (torch.zeros(q.shape, dtype=torch.float32) for _ in range(2))
    for rows, seen, weights in _blocks(q, k):
        grad_weights = grad[:, rows] @ v[:, seen].mT
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        torch.bmm(grad_scores, k[:, seen], out=grad_q[:, rows])
        grad_k[:, seen] += grad_scores.mT @ q[:, rows]
        grad_v[:, seen] += weights.mT @ grad[:, rows]
    scale = q.shape[-1] ** -0.5
    grads = grad_q.mul_(scale), grad_k.mul_(scale).to(q.dtype), grad_v.to(q.dtype)
    return tuple(x.view(q_BHTE.shape) for x in grads)  # type: ignore[return-value]


def _blocks(q_NTE: Tensor, k_NTE: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield each block of queries, the keys that it sees, and the weights that it gives them."""
    length, width = q_NTE.shape[1:]
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu_(1)
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        # The scale is a power of two for the usual widths: it costs no bits.
        scores = (q_NTE[:, start:end] * width**-0.5) @ k_NTE[:, :end].mT
        size = end - start
        scores[:, :, start:].masked_fill_(later[:size, :size], -torch.inf)
        yield slice(start, end), slice(end), torch.softmax(scores, -1)


@block_attention.register_fake
def _(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
    return q_BHTE.new_empty(q_BHTE.shape)


@_backward.register_fake
def _(
    grad_BHTE: Tensor, q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (q_BHTE.new_empty(q_BHTE.shape) for _ in range(3))
    return q, k, v


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(grad_BHTE, *ctx.saved_tensors)


block_attention.register_autograd(_differentiate, setup_context=_save)


def gain_of_blocks(config: ModelConfig, dtype: torch.dtype) -> float:
    """Return how many times as fast as PyTorch's kernel this one is here, forward and backward."""
    heads, length = min(MEASURED_HEADS, config.heads), min(MEASURED_LENGTH, config.context)
    size = (MEASURED_LENGTH // length, length, heads, config.head_width)
    # As they come from a layer: heads are the inner dimension.
    q, k, v = (torch.ones(size, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3))
    seconds = []
    for attend in (partial(F.scaled_dot_product_attention, is_causal=True), block_attention):
        tries = []
        for _ in range(TRIES):
            start = time.perf_counter()
            attend(q, k, v).sum().backward()
            tries.append(time.perf_counter() - start)
        seconds.append(min(tries))
    return seconds[0] / seconds[1]
