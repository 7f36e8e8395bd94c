"""Optimizers over stacks of same-shaped weights: Muon, AdamW, and the learning-rate schedule.

`FlatParameters` moves all weights of a model into one buffer, and all gradients into another:

    weights   │ embedding │ norm norm norm norm │ q_proj q_proj │ k_proj k_proj v_proj v_proj │ …
    gradients │     …     │          …          │       …       │              …              │ …
                  Stack            Stack              Stack                  Stack

So the gradient norm and clipping are one operation each. Parameters of equal kind and shape lie
side by side as a stack [n, *shape], and an optimizer updates a stack at once: a model of 20 layers
has hundreds of parameters, and about eight stacks.

Several ranks divide the work (ZeRO-1, Rajbhandari et al. 2020, arXiv 1910.02054). All hold all
weights and gradients, but each updates its own part of every stack, and holds the optimizer's state
of that part only. A stack is cut into groups, one piece per rank in each. A piece of a stack of
matrices is a matrix, since Muon needs whole ones; of other stacks it is a range of numbers:

    7 matrices, 3 ranks   │ 0 │ 1 │ 2 │  │ 0 │ 1 │ 2 │  │ 0 │ padding │    pieces by their rank
                            group 0         group 1         group 2

One collective sums the gradients of a group, and another gathers its new weights (sharding.py).

An example: a gradient G [2, 192, 512] of two matrices. Muon averages it over the last steps
(momentum), then replaces each matrix U S V^T by U V^T: all directions of the update have the same
length, also those whose gradients are small. AdamW divides each number by the root of its average
square instead. Embeddings, the output head and norms always use AdamW.

Papers: Muon, Jordan et al. 2024 (kellerjordan.github.io/posts/muon); AdamW, Loshchilov and Hutter
2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
# Most numbers of a group of embeddings. More would be summed later, and copied at once.
GROUP_NUMBERS = 4 << 20


@dataclass(frozen=True)
class Stack:
    """Parameters of one kind and shape, cut into pieces of which each rank updates some."""

    kind: Kind
    names: tuple[str, ...]
    shape: torch.Size  # of one parameter
    # All pieces [groups, ranks, piece], views of the flat buffers; the last ones may be padding.
    all_weights: Tensor
    all_gradients: Tensor
    rank: int

    @property
    def weights(self) -> Tensor:
        """View of the weights that this rank updates: [n, *shape] if it trains alone, otherwise
        [groups, *shape] of matrices and [groups, piece] of other kinds.
        """
        return self._own(self.all_weights)

    @property
    def gradients(self) -> Tensor:
        """View of their gradients, of the same shape."""
        return self._own(self.all_gradients)

    @property
    def has_whole_parameters(self) -> bool:
        """Whether a piece is a parameter, and not a range of numbers."""
        return self.all_weights.shape[2] == self.shape.numel()

    @property
    def label(self) -> str:
        """Name in the optimizer's state on disk, such as `matrix-192x512`."""
        return f"{self.kind}-{'x'.join(str(size) for size in self.shape)}"

    def stacked(self, pieces: Tensor) -> Tensor:
        """Return weights or gradients [groups, ranks, piece] as [n, *shape], a view."""
        size = self.shape.numel() * len(self.names)
        return pieces.flatten()[:size].view(-1, *self.shape)

    def read_own(self, own: Tensor, saved: Sequence[Tensor]) -> None:
        """Set this rank's pieces `own` from tensors of one size, the whole stack in order.

        Range by range, so that of mapped files only these bytes are read.
        """
        ranks, size = self.all_weights.shape[1], saved[0].numel()
        for group, piece in enumerate(own.view(len(own), -1)):
            begin = (group * ranks + self.rank) * len(piece)
            # The rest is padding.
            piece.zero_()
            for number in range(begin // size, min(len(saved), -(-(begin + len(piece)) // size))):
                start, end = max(begin, number * size), min(begin + len(piece), (number + 1) * size)
                part = saved[number].flatten()[start - number * size : end - number * size]
                piece[start - begin : end - begin] = part

    def _own(self, pieces: Tensor) -> Tensor:
        own = pieces[:, self.rank]
        return own.view(-1, *self.shape) if self.has_whole_parameters else own


class FlatParameters:
    """All parameters of a model in one buffer; the model keeps using them as views.

    `rank` of `world` ranks updates its own pieces.
    """

    def __init__(self, model: nn.Module, rank: int = 0, world: int = 1) -> None:
        alike = group_alike(model)
        layouts = [
            _pieces(kind, len(members), shape.numel(), world)
            for (kind, shape), members in alike.items()
        ]
        first, total = next(model.parameters()), sum(map(math.prod, layouts))
        # One allocation each, and every parameter and gradient is a view into it.
        self.weights = torch.zeros(total, dtype=first.dtype, device=first.device)
        self.gradients = torch.zeros_like(self.weights)
        self.stacks: list[Stack] = []
        start = 0
        for ((kind, shape), members), layout in zip(alike.items(), layouts, strict=True):
            end = start + math.prod(layout)
            all_weights = self.weights[start:end].view(layout)
            all_gradients = self.gradients[start:end].view(layout)
            names = tuple(name for name, _ in members)
            stack = Stack(kind, names, shape, all_weights, all_gradients, rank)
            weights, gradients = map(stack.stacked, (all_weights, all_gradients))
            for index, (_, weight) in enumerate(members):
                weights[index].copy_(weight.detach())
                weight.data = weights[index]
                # backward() adds to a gradient that exists, so it stays in the buffer.
                weight.grad = gradients[index]
            self.stacks.append(stack)
            start = end

    def load_own(self, saved: Mapping[str, Tensor]) -> None:
        """Set the weights that this rank updates from those of the whole model, by name.

        Raises GroundupError if they are those of another model.
        """
        shapes = {name: stack.shape for stack in self.stacks for name in stack.names}
        if shapes != {name: tensor.shape for name, tensor in saved.items()}:
            raise GroundupError("model.safetensors: belongs to another model")
        for stack in self.stacks:
            stack.read_own(stack.weights, [saved[name] for name in stack.names])

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.gradients.zero_()

    def grad_norm(self) -> Tensor:
        """Return the norm of the whole gradient, without waiting for the device."""
        return torch.linalg.vector_norm(self.gradients)

    def own_grad_norm(self) -> Tensor:
        """Return the norm of the gradients of this rank's pieces; alone, that of all."""
        if all(stack.all_gradients.shape[1] == 1 for stack in self.stacks):
            return self.grad_norm()
        norms = [torch.linalg.vector_norm(stack.gradients) for stack in self.stacks]
        return torch.linalg.vector_norm(torch.stack(norms))

    def scale_grad(self, factor: float) -> None:
        """Multiply the gradients of this rank's pieces."""
        for stack in self.stacks:
            stack.gradients.mul_(factor)

    def are_finite(self) -> bool:
        """Whether every weight is finite."""
        # One pass without temporaries; both are NaN if any number is.
        return bool(torch.isfinite(torch.stack(torch.aminmax(self.weights))).all())


def group_alike(
    model: nn.Module,
) -> dict[tuple[Kind, torch.Size], list[tuple[str, nn.Parameter]]]:
    """Return the parameters by kind and shape, in the order of the model."""
    alike: dict[tuple[Kind, torch.Size], list[tuple[str, nn.Parameter]]] = {}
    for name, weight in model.named_parameters():
        kind: Kind = "matrix"
        if weight.ndim < 2:
            kind = "norm"
        elif "embed" in name or "lm_head" in name:
            # The head has a row per token too; it is no matrix inside a block.
            kind = "embedding"
        alike.setdefault((kind, weight.shape), []).append((name, weight))
    return alike


def _pieces(kind: Kind, count: int, numbers: int, world: int) -> tuple[int, int, int]:
    """Return groups, ranks and numbers of a piece of a stack of `count` parameters."""
    if kind == "matrix" or world == 1:
        return -(-count // world), world, numbers
    groups = -(-count * numbers // GROUP_NUMBERS)
    return groups, world, -(-count * numbers // (groups * world))


class UpdateRule(Protocol):
    """How one stack is updated."""

    RATE: ClassVar[str]  # the recipe's [train] key of the learning rate that the rule uses
    # Tensors that a checkpoint keeps, by name. Their first dimension is that of `stack.weights`.
    state: dict[str, Tensor]

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
        # By name, a stack and this rank's pieces of its state: [groups, ...].
        self.state: dict[str, tuple[Stack, Tensor]] = {}
        for stack in parameters.stacks:
            rule = (OPTIMIZERS[name] if stack.kind == "matrix" else AdamW)(stack, dtype)
            self._rules.append((stack, rule))
            self.state |= {key: (stack, tensor) for key, tensor in rule.state.items()}

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
        for _, own in self.state.values():
            own.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return this rank's pieces of the state as plain tensors, for safetensors."""
        state = {name: own.cpu() for name, (_, own) in self.state.items()}
        return state | {"steps": torch.tensor(self.steps)}

    def load_state_dict(self, *saved: Mapping[str, Tensor]) -> None:
        """Take over this rank's pieces of a state, from what each rank that saved it had.

        Raises GroundupError if it belongs to another model or optimizer.
        """
        # Names hold kind and shape, so this finds another model as well as another optimizer.
        fits = all(part.keys() == {*self.state, "steps"} for part in saved)
        for name, (stack, own) in self.state.items() if fits else ():
            # Group by group, as in `Stack.all_weights`; some of the last one may be padding.
            groups = zip(*(part[name] for part in saved), strict=True)
            pieces = [piece for group in groups for piece in group]
            numbers, size = stack.shape.numel() * len(stack.names), pieces[0].numel()
            fits = fits and 0 <= len(pieces) * size - numbers < len(saved) * size
            if fits:
                stack.read_own(own, pieces)
        if not fits:
            raise GroundupError("optimizer.safetensors: belongs to another model or optimizer")
        self.steps = int(saved[0]["steps"])


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
