"""Muon for the matrices inside the layers, AdamW for everything else (or for all), over stacks of
same-shaped weights.

A step that is not taken leaves no trace: nothing is counted unless `step` is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.train.flat_params import FlatParameters, Stack

ADAM_BETAS = (0.9, 0.95)
ADAM_EPSILON = 1e-8
MUON_MOMENTUM = 0.95
# Coefficients of the quintic iteration, five times: singular values land between about 0.7 and 1.2
# (Jordan et al. 2024, kellerjordan.github.io/posts/muon), which is near enough to orthogonal and
# needs no decomposition.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Optimizer:
    """AdamW and Muon in one, with decoupled weight decay on all but norms.

    Args:
        family: "muon" or "adamw" for the matrices inside the layers.
        dtype: in which Muon orthogonalises; bfloat16 is enough and faster where the machine
            multiplies it faster.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        family: Literal["muon", "adamw"],
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.stacks = parameters.stacks
        self.weight_decay, self.dtype = weight_decay, dtype
        self.steps = 0
        self._muon = [stack for stack in self.stacks if family == "muon" and stack.kind == "matrix"]
        self._adam = [stack for stack in self.stacks if stack not in self._muon]
        self._state = {f"momentum.{s.label}": torch.zeros_like(s.weights) for s in self._muon}
        for stack in self._adam:
            self._state |= {
                f"{name}.{stack.label}": torch.zeros_like(stack.weights)
                for name in ("mean", "square")
            }

    @torch.no_grad()
    def step(self, learning_rate: float, muon_learning_rate: float) -> None:
        """Update the weights from the gradients: AdamW at the one rate, Muon at the other."""
        self.steps += 1
        for stack in self._adam:
            self._adamw(stack, learning_rate)
        for stack in self._muon:
            self._muon_step(stack, muon_learning_rate)

    def _adamw(self, stack: Stack, rate: float) -> None:
        """Loshchilov and Hutter 2019, arXiv 1711.05101."""
        mean, square = self._state[f"mean.{stack.label}"], self._state[f"square.{stack.label}"]
        first, second = ADAM_BETAS
        mean.lerp_(stack.gradients, 1 - first)
        square.mul_(second).addcmul_(stack.gradients, stack.gradients, value=1 - second)
        scale = (square / (1 - second**self.steps)).sqrt_().add_(ADAM_EPSILON)
        self._decay(stack, rate)
        stack.weights.addcdiv_(mean, scale, value=-rate / (1 - first**self.steps))

    def _muon_step(self, stack: Stack, rate: float) -> None:
        """Momentum, looked ahead (Nesterov), made orthogonal; wide matrices take steps of the same
        length per row.
        """
        momentum = self._state[f"momentum.{stack.label}"]
        momentum.lerp_(stack.gradients, 1 - MUON_MOMENTUM)
        ahead = torch.lerp(stack.gradients, momentum, MUON_MOMENTUM)
        rows, columns = ahead.shape[-2:]
        self._decay(stack, rate)
        update = orthogonalize(ahead, self.dtype)
        stack.weights.add_(
            update.to(stack.weights.dtype), alpha=-rate * max(1.0, rows / columns) ** 0.5
        )

    def _decay(self, stack: Stack, rate: float) -> None:
        if stack.kind != "norm":
            stack.weights.mul_(1 - rate * self.weight_decay)

    def reset(self) -> None:
        """Forget everything, as before the first step."""
        self.steps = 0
        for tensor in self._state.values():
            tensor.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as plain tensors, ready for safetensors."""
        return {name: tensor.cpu() for name, tensor in self._state.items()} | {
            "steps": torch.tensor(self.steps)
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state_dict` gave.

        Raises:
            GroundupError: it belongs to another model or optimizer.
        """
        shapes = {name: tensor.shape for name, tensor in self._state.items()}
        if shapes != {name: tensor.shape for name, tensor in state.items() if name != "steps"}:
            raise GroundupError("optimizer.safetensors: belongs to another model or optimizer")
        for name, tensor in self._state.items():
            tensor.copy_(state[name])
        self.steps = int(state["steps"])


def orthogonalize(matrices_NRC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a near-orthogonal matrix of the same row and column space for each of a stack
    (Newton-Schulz iteration).
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices_NRC.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    # At most 1 in the spectral norm, as the iteration wants.
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
