"""The output head in chunks of rows: cross-entropy and log-probabilities that never hold the logits
of a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Logits held at once. A larger chunk adds up the head's gradient less often; on a GPU it also fills
# the machine.
CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
# Targets below zero do not count.
IGNORED = -1


def chunks(rows: int, vocab_size: int, device: str) -> Iterator[slice]:
    """Yield slices over `rows`, each of about `CHUNK_ELEMENTS` logits."""
    size = max(256, CHUNK_ELEMENTS.get(device, 1 << 22) // vocab_size)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def working_type(x: Tensor) -> torch.dtype:
    """Return the type in which autocast would multiply `x` here."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _CrossEntropySum(torch.autograd.Function):
    """Sum over rows of -log softmax(x W^T)[target], with its gradients computed while the logits
    are at hand.

    Softmax minus one-hot is the gradient of the sum with respect to the logits, so each chunk of
    logits is made once, used for loss and gradients, and forgotten; a backward pass that made it
    again would cost a third product.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        kind = working_type(x_ND)
        x, weight = x_ND.to(kind), weight_VD.to(kind)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight_VD)
        total = torch.zeros((), dtype=torch.float32, device=x.device)
        with torch.autocast(x.device.type, enabled=False):
            for part in chunks(len(x), len(weight), x.device.type):
                loss, slope = _loss_and_slope(x[part] @ weight.T, targets_N[part])
                total += loss
                slope = slope.to(kind)
                grad_x[part] = slope @ weight
                _add_product(grad_weight, slope.T, x[part])
        ctx.save_for_backward(grad_x.to(x_ND.dtype), grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad.to(grad_x.dtype), grad_weight * grad, None


def _loss_and_slope(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed loss of a chunk and d loss / d logits."""
    slope = torch.log_softmax(logits_NV, dim=1, dtype=torch.float32)
    counted = targets_N >= 0
    index = targets_N.clamp(min=0)[:, None]
    losses = -slope.gather(1, index).squeeze(1)
    slope.exp_()
    slope.scatter_add_(1, index, torch.full_like(index, -1, dtype=slope.dtype))
    slope.mul_(counted[:, None])
    return torch.where(counted, losses, 0).sum(), slope


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def cross_entropy_sum(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the sum (nats, float32) of the cross-entropy of `targets_N` under logits x W^T;
    negative targets count not.
    """
    if torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad):
        loss: Tensor = _CrossEntropySum.apply(x_ND, weight_VD, targets_N)
        return loss
    counted = targets_N >= 0
    return -torch.where(
        counted, log_probabilities(x_ND, weight_VD, targets_N.clamp(min=0)), 0
    ).sum()


@torch.no_grad()
def log_probabilities(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return log softmax(x W^T)[target] of every row, float32."""
    kind = working_type(x_ND)
    x, weight = x_ND.to(kind), weight_VD.to(kind)
    found = torch.empty(len(x), dtype=torch.float32, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for part in chunks(len(x), len(weight), x.device.type):
            scores = torch.log_softmax(x[part] @ weight.T, dim=1, dtype=torch.float32)
            found[part] = scores.gather(1, targets_N[part, None]).squeeze(1)
    return found
