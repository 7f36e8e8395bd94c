"""One optimizer step: gradients over micro-batches and ranks, one read by the host, the update.

    rows_NT  this rank's sequences of the step, split into micro-batches
       │
       ├─ micro-batch 0 ─ Transformer.loss ─ backward ─┐
       ├─ micro-batch 1 ─ Transformer.loss ─ backward ─┤ gradients add up in FlatParameters
       └─ …                                            │
                                                       ▼
                        sum over ranks of the gradients (sharding.py), the loss, the token count
                                                       │
                        StepStats: five numbers, the same on every rank   ◄─ the only wait for the
                                                       │                     device in a step
                        Trainer: does the guard accept the step?
                                                       │ yes
                        clip ─ Optimizer.step ─ gather the weights of all ranks

Everything above the read is queued on the device without waiting for it.

An example: a step of 64 sequences of 2,048 tokens on 4 ranks. Each rank has rows_NT [16, 2049]. In
micro-batches of 8 that is two passes over [8, 2048] inputs and targets. Each pass divides its
summed loss by all 64 · 2048 targets, so the gradients of both passes and all ranks simply add up
to that of the mean loss. So they do on 6 ranks, of which two have 10 rows and four have 11.

Papers: loss scaling in fp16, Micikevicius et al. 2018 (arXiv 1710.03740); clipping by the norm of
the whole gradient, Pascanu et al. 2013 (arXiv 1211.5063).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.model.transformer import Transformer
from groundup.train.data import derive_seed
from groundup.train.distributed import Signals
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.sharding import Sharding


@dataclass(frozen=True)
class StepStats:
    """What is known of a step before it is applied, equal on all ranks."""

    loss: float  # nats per token, the mean over all ranks
    norm: float  # of the gradient of that mean
    tokens: int  # targets that were not ignored
    grad_factor: float  # turns the stored gradients into those of the mean loss
    stop: bool = False  # whether any rank was asked to stop
    reload: bool = False  # whether any rank was asked to reload the recipe


@dataclass
class TrainStep:
    """Computes the gradients of a step, and applies them."""

    model: Transformer
    parameters: FlatParameters
    optimizer: Optimizer
    hardware: Hardware
    seed: int
    sharding: Sharding

    def forward_backward(
        self,
        rows_NT: Tensor,
        step: int,
        sequences: int,
        loss_scale: float = 1.0,
        signals: Signals | None = None,
    ) -> StepStats:
        """Compute the gradients of a step from this rank's token ids [N, context + 1].

        `sequences` are those of all ranks, which also hear of each other's signals.
        """
        ranks = self.sharding.ranks
        tokens = int((rows_NT[:, 1:] >= 0).sum())
        # Targets of all ranks. `grad_factor` corrects the mean for those that are ignored (< 0).
        targets = sequences * (rows_NT.shape[1] - 1)
        total_loss = torch.zeros((), device=ranks.device)
        self.parameters.zero_grad()
        micro_batches = rows_NT.to(ranks.device, non_blocking=True).split(self.hardware.micro_batch)
        for number, rows_BT in enumerate(micro_batches):
            if self.model.config.dropout:
                # A function of the step, so a resumed run drops the same activations.
                torch.manual_seed(derive_seed(self.seed, "dropout", step, number, ranks.rank))
            if number == len(micro_batches) - 1:
                self.sharding.expect_gradients()
            with self.hardware.autocast():
                loss = self.model.loss(rows_BT[:, :-1], rows_BT[:, 1:], "sum")
            # Scaled before backward: small gradients of fp16 would become zero.
            (loss * (loss_scale / targets)).backward()
            total_loss += loss.detach()
        self.sharding.finish_gradients()
        return self.reduce(total_loss, tokens, targets / loss_scale, signals)

    def reduce(
        self, total_loss: Tensor, tokens: int, divisor: float, signals: Signals | None = None
    ) -> StepStats:
        """Return the stats of a step, from each rank's summed loss and number of targets.

        The gradients were summed over ranks, and are those of the summed loss over `divisor`.
        """
        ranks, signals = self.sharding.ranks, signals or Signals()
        # One tensor for all numbers, so the device is waited for once.
        counts = [0, tokens, 0, signals.stop, signals.reload]
        sums = torch.tensor(counts, dtype=torch.float64, device=ranks.device)
        sums[0], sums[2] = total_loss, self.parameters.own_grad_norm().double() ** 2
        loss_sum, tokens_sum, squares, stops, reloads = ranks.sum(sums).tolist()
        mean = loss_sum / tokens_sum if tokens_sum else math.nan
        factor = divisor / tokens_sum if tokens_sum else math.nan
        norm = math.sqrt(squares) * factor
        return StepStats(mean, norm, int(tokens_sum), factor, stops > 0, reloads > 0)

    def update(
        self, stats: StepStats, learning_rate: float, muon_learning_rate: float, clip: float
    ) -> None:
        """Update the weights. A gradient longer than `clip` is shortened to it."""
        factor = stats.grad_factor * min(1.0, clip / stats.norm if stats.norm else 1.0)
        # A factor of 1 is usual, and then the pass over all gradients is saved.
        if factor != 1:
            self.parameters.scale_grad(factor)
        self.optimizer.step(learning_rate, muon_learning_rate)
        self.sharding.gather_weights()
