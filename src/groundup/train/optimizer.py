"""Optimizers over stacks of same-shaped weights: Muon, AdamW, and the learning-rate schedule.

`FlatParameters` moves all weights of a model into one buffer, and all gradients into another:

    weights   │ embedding │ norm norm norm norm │ q_proj q_proj │ k_proj k_proj v_proj v_proj │ …
    gradients │     …     │          …          │       …       │              …              │ …
                  Stack            Stack              Stack                  Stack

So the gradient norm, clipping and the sum over ranks are one operation each. Parameters of equal
kind and shape lie side by side as a stack [n, *shape], and an optimizer updates a stack at once:
a model of 20 layers has hundreds of parameters, and about eight stacks.

An example: a gradient G [2, 192, 512] of two matrices. Muon averages it over the last steps
(momentum), then replaces each matrix U S V^T by U V^T: all directions of the update have the same
length, also those whose gradients are small. AdamW divides each number by the root of its average
square instead. Embeddings, the output head and norms always use AdamW.

Papers: Muon, Jordan et al. 2024 (kellerjordan.github.io/posts/muon); AdamW, Loshchilov and Hutter
2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from groundup.errors import GroundupError, RecipeError

Kind = Literal["embedding", "matrix", "norm"]

ADAM_BETAS = (0.9, 0.95)
ADAM_EPSILON = 1e-8
MUON_MOMENTUM = 0.95
# Coefficients of a quintic that pushes singular values towards 1. Five iterations bring all of them
# to between about 0.7 and 1.2, which is orthogonal enough and needs no decomposition.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class Stack:
    """Parameters of one kind and shape; `weights` and `gradients` [n, *shape] are views."""

    kind: Kind
    names: tuple[str, ...]
    weights: Tensor
    gradients: Tensor

    @property
    def label(self) -> str:
        """Name in the optimizer's state on disk, such as `matrix-192x512`."""
        return f"{self.kind}-{'x'.join(str(size) for size in self.weights.shape[1:])}"


class FlatParameters:
    """All parameters of a model in one buffer; the model keeps using them as views."""

    def __init__(self, model: nn.Module) -> None:
        # Kind and shape → the parameters that share it, in the order of the model.
        groups: dict[tuple[Kind, torch.Size], list[tuple[str, nn.Parameter]]] = {}
        for name, weight in model.named_parameters():
            kind: Kind = "matrix"
            if weight.ndim < 2:
                kind = "norm"
            elif "embed" in name or "lm_head" in name:
                # The head has a row per token too; it is no matrix inside a block.
                kind = "embedding"
            groups.setdefault((kind, weight.shape), []).append((name, weight))
        first = next(model.parameters())
        total = sum(weight.numel() for weight in model.parameters())
        # One allocation each, and every parameter and gradient is a view into it.
        self.weights = torch.empty(total, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.weights)
        self.stacks: list[Stack] = []
        start = 0
        for (kind, shape), members in groups.items():
            end = start + len(members) * shape.numel()
            weights = self.weights[start:end].view(len(members), *shape)
            gradients = self.gradients[start:end].view(len(members), *shape)
            for index, (_, weight) in enumerate(members):
                weights[index].copy_(weight.detach())
                weight.data = weights[index]
                # backward() adds to a gradient that exists, so it stays in the buffer.
                weight.grad = gradients[index]
            self.stacks.append(Stack(kind, tuple(name for name, _ in members), weights, gradients))
            start = end

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.gradients.zero_()

    def grad_norm(self) -> Tensor:
        """Return the norm of the whole gradient, without waiting for the device."""
        return torch.linalg.vector_norm(self.gradients)

    def are_finite(self) -> bool:
        """Whether every weight is finite."""
        return bool(torch.isfinite(self.weights).all())

    def norms(self) -> dict[str, dict[str, float]]:
        """Return the norms `gradient` and `weights` of each parameter, by name."""
        norms: dict[str, dict[str, float]] = {}
        for stack in self.stacks:
            gradients, weights = (
                torch.linalg.vector_norm(tensor.flatten(1), dim=1).tolist()
                for tensor in (stack.gradients, stack.weights)
            )
            for name, gradient, weight in zip(stack.names, gradients, weights, strict=True):
                norms[name] = {"gradient": gradient, "weights": weight}
        return norms


class UpdateRule(Protocol):
    """How one stack is updated."""

    RATE: ClassVar[str]  # the recipe's [train] key of the learning rate that the rule uses
    state: dict[str, Tensor]  # tensors that a checkpoint keeps, by name

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None: ...

    def update(self, learning_rate: float, weight_decay: float, step: int) -> None:
        """Update the weights from the gradients; `step` counts from 1."""
        ...


class AdamW:
    """Gradient over the root of its mean square, with weight decay outside of the gradient."""

    RATE: ClassVar[str] = "learning_rate"

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        self.stack = stack
        self.mean, self.square = torch.zeros_like(stack.weights), torch.zeros_like(stack.weights)
        self.state = {f"mean.{stack.label}": self.mean, f"square.{stack.label}": self.square}

    def update(self, learning_rate: float, weight_decay: float, step: int) -> None:
        """Update the weights from the gradients."""
        weights, gradients = self.stack.weights, self.stack.gradients
        beta1, beta2 = ADAM_BETAS
        # Exponential averages of the gradient and of its square.
        self.mean.lerp_(gradients, 1 - beta1)
        self.square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        # Both averages began at zero; dividing by 1 - beta^step corrects that.
        scale = (self.square / (1 - beta2**step)).sqrt_().add_(ADAM_EPSILON)
        # Decoupled: the decay is not divided by the gradient's scale.
        weights.mul_(1 - learning_rate * weight_decay)
        weights.addcdiv_(self.mean, scale, value=-learning_rate / (1 - beta1**step))


class Muon:
    """Momentum, made orthogonal: every direction of the update has the same length."""

    RATE: ClassVar[str] = "muon_learning_rate"

    def __init__(self, stack: Stack, dtype: torch.dtype) -> None:
        self.stack, self.dtype = stack, dtype
        self.momentum = torch.zeros_like(stack.weights)
        self.state = {f"momentum.{stack.label}": self.momentum}

    def update(self, learning_rate: float, weight_decay: float, step: int) -> None:
        """Update the weights from the gradients."""
        weights, gradients = self.stack.weights, self.stack.gradients
        self.momentum.lerp_(gradients, 1 - MUON_MOMENTUM)
        # Nesterov: the momentum after one more step with the same gradient.
        ahead = torch.lerp(gradients, self.momentum, MUON_MOMENTUM)
        rows, columns = ahead.shape[-2:]
        weights.mul_(1 - learning_rate * weight_decay)
        # A tall matrix has only `columns` directions; the factor gives its rows unit length again.
        scale = max(1.0, rows / columns) ** 0.5
        update = orthogonalize(ahead, self.dtype).to(weights.dtype)
        weights.add_(update, alpha=-learning_rate * scale)


def orthogonalize(matrices_NRC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a nearly orthogonal matrix with the row and column space of each matrix [N, R, C].

    Newton-Schulz iteration: X ← a X + (b X X^T + c (X X^T)²) X.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices_NRC.to(dtype)
    # The smaller of X X^T and X^T X.
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    # The iteration needs a spectral norm of at most 1; the Frobenius norm is never smaller.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        # X X^T, [N, R, R] with R the smaller side.
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


# [train] optimizer → update rule of the matrices inside the blocks.
OPTIMIZERS: dict[str, type[UpdateRule]] = {"muon": Muon, "adamw": AdamW}


def check_optimizer(name: str) -> None:
    """Raise RecipeError unless a recipe's [train] optimizer is one of `OPTIMIZERS`."""
    if name not in OPTIMIZERS:
        raise RecipeError(f'[train] optimizer: "{name}" is not one of {", ".join(OPTIMIZERS)}')


class Optimizer:
    """One update rule per stack (`name` is for the matrices inside the blocks), with weight decay
    on all but norms.

    A step that is not taken leaves no trace: nothing counts steps but `step`. Muon orthogonalizes
    in `dtype`: bfloat16 is precise enough, and faster if the hardware multiplies it faster.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        name: str,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.weight_decay, self.steps = weight_decay, 0
        self._rules: list[tuple[Stack, UpdateRule]] = []
        self._state: dict[str, Tensor] = {}
        for stack in parameters.stacks:
            rule = (OPTIMIZERS[name] if stack.kind == "matrix" else AdamW)(stack, dtype)
            self._rules.append((stack, rule))
            self._state |= rule.state

    @torch.no_grad()
    def step(self, learning_rate: float, muon_learning_rate: float = 0.0) -> None:
        """Update the weights from the gradients."""
        rates = {"learning_rate": learning_rate, "muon_learning_rate": muon_learning_rate}
        self.steps += 1
        for stack, rule in self._rules:
            # Norms scale a whole feature; decay would pull them from 1 to 0.
            decay = 0.0 if stack.kind == "norm" else self.weight_decay
            rule.update(rates[rule.RATE], decay, self.steps)

    def reset(self) -> None:
        """Return to the state before the first step."""
        self.steps = 0
        for tensor in self._state.values():
            tensor.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as plain tensors, for safetensors."""
        state = {name: tensor.cpu() for name, tensor in self._state.items()}
        return state | {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state that `state_dict` returned."""
        # Names hold kind and shape, so this finds another model as well as another optimizer.
        shapes = {name: tensor.shape for name, tensor in self._state.items()}
        if shapes != {name: tensor.shape for name, tensor in state.items() if name != "steps"}:
            raise GroundupError("optimizer.safetensors: belongs to another model or optimizer")
        for name, tensor in self._state.items():
            tensor.copy_(state[name])
        self.steps = int(state["steps"])


def lr_scale(step: int, steps: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at `step` (0 is the first).

    Linear over `warmup` steps, then a cosine to `final` at the last step. A warm-up longer than
    half the run is cut to half, or the peak would come when nothing is left to learn.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    # From 0 at the peak to 1 at the last step; beyond it, if a run is prolonged, the rate stays.
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
