"""One optimizer step: gradients over micro-batches and ranks, one read by the host, and the update.
Writes nothing.

Forward and backward of all micro-batches, the sums over ranks and the norm are queued without
waiting for them. Then the host reads five numbers at once, the same on every rank, and decides on
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model.transformer import Transformer
from groundup.train.distributed import Ranks
from groundup.train.flat_params import FlatParameters
from groundup.train.hardware import Machine
from groundup.train.optimizer import Optimizer
from groundup.train.permutation import key_from


@dataclass(frozen=True)
class Reading:
    """What is known of a step before it is applied; equal on all ranks.

    Attributes:
        loss: nats, the mean over the targets that count, of all ranks.
        norm: of the gradient of that mean.
        tokens: targets that count.
        factor: what the stored gradients must be multiplied by to be those of the mean.
        stop, reload: whether any rank was asked to.
    """

    loss: float
    norm: float
    tokens: int
    factor: float
    stop: bool = False
    reload: bool = False


@dataclass
class Stepper:
    """Computes gradients and applies them."""

    model: Transformer
    parameters: FlatParameters
    optimizer: Optimizer
    machine: Machine
    seed: int
    ranks: Ranks

    def gradients(
        self,
        rows_NT: Tensor,
        step: int,
        loss_scale: float = 1.0,
        stop: bool = False,
        reload: bool = False,
    ) -> Reading:
        """Fill the gradients from this rank's rows (on the CPU) and return what all ranks know
        then.
        """
        counted = int((rows_NT[:, 1:] >= 0).sum())
        # All targets of all ranks; how many of them count is known after the sum only.
        nominal = rows_NT[:, 1:].numel() * self.ranks.world
        total = self._backward(
            rows_NT.to(self.ranks.device, non_blocking=True), step, loss_scale / nominal
        )
        self.ranks.sum(self.parameters.gradients)
        norm = self.parameters.length()
        sums = torch.tensor(
            [0, counted, 0, stop, reload], dtype=torch.float64, device=self.ranks.device
        )
        sums[0] = total
        if self.ranks.first:
            # One rank's: a last bit that differed would make ranks decide differently.
            sums[2] = norm
        loss, tokens, length, stops, reloads = self.ranks.sum(sums).tolist()
        factor = nominal / loss_scale / tokens if tokens else math.nan
        return Reading(
            loss / tokens if tokens else math.nan,
            length * factor,
            int(tokens),
            factor,
            stops > 0,
            reloads > 0,
        )

    def _backward(self, rows_NT: Tensor, step: int, scale: float) -> Tensor:
        """Return the summed loss of this rank; the gradients are those of `scale` times it."""
        total = torch.zeros((), device=self.ranks.device)
        self.parameters.zero()
        for number, part in enumerate(rows_NT.split(self.machine.micro_batch)):
            if self.model.config.dropout:
                torch.manual_seed(key_from(self.seed, "dropout", step, number, self.ranks.rank))
            with self.machine.autocast():
                loss = self.model.loss(part[:, :-1], part[:, 1:], "sum")
            (loss * scale).backward()
            total += loss.detach()
        return total

    def apply(
        self, reading: Reading, learning_rate: float, muon_learning_rate: float, clip: float
    ) -> None:
        """Update the weights; gradients longer than `clip` are shortened to it."""
        factor = reading.factor * min(1.0, clip / reading.norm if reading.norm else 1.0)
        if factor != 1:
            self.parameters.gradients.mul_(factor)
        self.optimizer.step(learning_rate, muon_learning_rate)
