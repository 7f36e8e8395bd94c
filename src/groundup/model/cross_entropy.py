"""Cross-entropy and log-probabilities in chunks of rows, so the logits of a batch never exist at
once.

A batch of 16,384 positions with a vocabulary of 50,000 has 3.3 GB of float32 logits. Here the head
multiplies a few rows at a time, and each chunk of logits is dropped before the next one is made.

Shape suffixes: N rows (positions of all sequences), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Logits in one chunk. A larger chunk accumulates the head's gradient less often, and keeps a GPU
# busy.
CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
# Target of a position that has no loss. Any negative target is ignored.
IGNORED = -1


def chunks(rows: int, vocab_size: int, device: str) -> Iterator[slice]:
    """Yield slices over `rows`, each of about `CHUNK_ELEMENTS` logits."""
    size = max(256, CHUNK_ELEMENTS.get(device, 1 << 22) // vocab_size)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which autocast would multiply `x` here."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _CrossEntropySum(torch.autograd.Function):
    """Sum over rows of -log softmax(x W^T)[target], with its gradients computed in forward.

    The gradient of the sum with respect to the logits is softmax minus one-hot. So each chunk of
    logits is computed once and gives both loss and gradients. A backward pass that computed the
    logits again would cost a third matrix product.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        dtype = _autocast_dtype(x_ND)
        x, weight = x_ND.to(dtype), weight_VD.to(dtype)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight_VD)
        total = torch.zeros((), dtype=torch.float32, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            for chunk in chunks(len(x), len(weight), x.device.type):
                counted, index = targets_N[chunk] >= 0, targets_N[chunk].clamp(min=0)[:, None]
                grad = torch.log_softmax(x[chunk] @ weight.T, dim=1, dtype=torch.float32)
                total += torch.where(counted, -grad.gather(1, index).squeeze(1), 0).sum()
                # In place, from log softmax to softmax minus one-hot: the largest tensor of a step.
                grad.exp_()
                grad.scatter_add_(1, index, torch.full_like(index, -1, dtype=grad.dtype))
                grad.mul_(counted[:, None])
                grad_logits = grad.to(dtype)
                grad_x[chunk] = grad_logits @ weight
                # The weight's gradient accumulates in the weight's own type, in place if possible.
                if grad_weight.dtype == dtype:
                    grad_weight.addmm_(grad_logits.T, x[chunk])
                else:
                    grad_weight += grad_logits.T @ x[chunk]
        ctx.save_for_backward(grad_x.to(x_ND.dtype), grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad.to(grad_x.dtype), grad_weight * grad, None


def cross_entropy_sum(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the summed cross-entropy (nats, float32) of `targets_N` under logits x W^T.

    Negative targets are ignored (ignore_index).
    """
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _CrossEntropySum.apply(x_ND, weight_VD, targets_N)
        return loss
    scores_N = log_probabilities(x_ND, weight_VD, targets_N.clamp(min=0))
    return -torch.where(targets_N >= 0, scores_N, 0).sum()


@torch.no_grad()
def log_probabilities(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return log softmax(x W^T)[target] of every row [N], float32."""
    dtype = _autocast_dtype(x_ND)
    x, weight = x_ND.to(dtype), weight_VD.to(dtype)
    scores_N = torch.empty(len(x), dtype=torch.float32, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for chunk in chunks(len(x), len(weight), x.device.type):
            scores = torch.log_softmax(x[chunk] @ weight.T, dim=1, dtype=torch.float32)
            scores_N[chunk] = scores.gather(1, targets_N[chunk, None]).squeeze(1)
    return scores_N
