"""All weights in one buffer and all gradients in another, same-shaped parameters side by side as
one stack.

So the gradient norm, clipping and the sum over ranks are one operation each, and an optimizer works
on a handful of stacks [n, *shape] instead of a parameter at a time, without copying.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["embedding", "matrix", "norm"]


@dataclass(frozen=True)
class Stack:
    """Parameters of one kind and shape: `weights` and `gradients` are [n, *shape], views of the
    buffers.
    """

    kind: Kind
    names: tuple[str, ...]
    weights: Tensor
    gradients: Tensor

    @property
    def label(self) -> str:
        """Name for the optimizer's state on disk, such as `matrix-192x512`."""
        return f"{self.kind}-{'x'.join(str(size) for size in self.weights.shape[1:])}"


class FlatParameters:
    """Moves a model's parameters into the buffers; the model goes on using them as views."""

    def __init__(self, model: nn.Module) -> None:
        groups = _groups(model)
        first = next(model.parameters())
        total = sum(weight.numel() for members in groups.values() for _, weight in members)
        self.weights = torch.empty(total, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.weights)
        self.stacks: list[Stack] = []
        start = 0
        for (kind, shape), members in groups.items():
            size = len(members) * shape.numel()
            weights = self.weights[start : start + size].view(len(members), *shape)
            gradients = self.gradients[start : start + size].view(len(members), *shape)
            _adopt([weight for _, weight in members], weights, gradients)
            self.stacks.append(Stack(kind, tuple(name for name, _ in members), weights, gradients))
            start += size

    def zero(self) -> None:
        """Forget the gradients."""
        self.gradients.zero_()

    def length(self) -> Tensor:
        """Return the length of the whole gradient, without waiting for it."""
        return torch.linalg.vector_norm(self.gradients)

    def norm(self) -> float:
        """Return the length of the whole gradient."""
        return float(self.length())

    def finite(self) -> bool:
        """Whether every weight is a number."""
        return bool(torch.isfinite(self.weights).all())

    def lengths(self) -> dict[str, tuple[float, float]]:
        """Return the length of the gradient and of the weights of each parameter, by name."""
        found: dict[str, tuple[float, float]] = {}
        for stack in self.stacks:
            pairs = [
                torch.linalg.vector_norm(one.flatten(1), dim=1).tolist()
                for one in (stack.gradients, stack.weights)
            ]
            found |= dict(zip(stack.names, zip(*pairs, strict=True), strict=True))
        return found


def _adopt(members: list[nn.Parameter], weights: Tensor, gradients: Tensor) -> None:
    for number, weight in enumerate(members):
        weights[number].copy_(weight.detach())
        weight.data = weights[number]
        # backward() adds into a gradient that is already there.
        weight.grad = gradients[number]


def _groups(model: nn.Module) -> dict[tuple[Kind, torch.Size], list[tuple[str, nn.Parameter]]]:
    groups: dict[tuple[Kind, torch.Size], list[tuple[str, nn.Parameter]]] = {}
    for name, weight in model.named_parameters():
        # A head of its own is a second table of all tokens, and no matrix inside the layers.
        kind: Kind = (
            "norm"
            if weight.ndim < 2
            else "embedding"
            if "embed" in name or "lm_head" in name
            else "matrix"
        )
        groups.setdefault((kind, weight.shape), []).append((name, weight))
    return groups
