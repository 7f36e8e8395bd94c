"""The tuning loop. Reads a model and rows; changes the model in place and returns what happened at
each step.

AdamW over all weights or over an adapter. A step's gradient is that of the loss summed over its
batch, divided by the tokens that are learned in it, so it does not depend on how many sequences go
through at a time (axolotl #2262).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from groundup.errors import GroundupError
from groundup.model.transformer import Transformer
from groundup.runtime.progress import progress
from groundup.train.data import derive_seed
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer, lr_scale
from groundup.tune.data import Row
from groundup.tune.lora import Adapter
from groundup.tune.packing import Pack, collate, loss_sum, size_of, steps

CLIP = 1.0
# Of the steps; then a cosine to this share of the peak.
WARMUP_SHARE, FINAL_RATE = 0.1, 0.1


@dataclass(frozen=True)
class Lesson:
    """How a model is tuned; every value resolved."""

    method: Literal["sft", "lora"]
    epochs: int
    learning_rate: float
    batch_tokens: int
    rank: int
    alpha: float
    seed: int


class Learner:
    """A model that learns from rows."""

    def __init__(
        self, model: Transformer, lesson: Lesson, machine: Hardware, chat_ids: tuple[int, ...]
    ) -> None:
        self.model, self.lesson, self.machine = model.train(), lesson, machine
        seed = derive_seed(lesson.seed, "adapter")
        self.adapter = (
            Adapter(model, lesson.rank, lesson.alpha, chat_ids, seed)
            if lesson.method == "lora"
            else None
        )
        self.parameters = FlatParameters(self.adapter or model)
        self.optimizer = Optimizer(self.parameters, "adamw", weight_decay=0.0)

    @property
    def learning_parameters(self) -> int:
        """Weights that learn."""
        return self.parameters.weights.numel()

    def learn(
        self, rows: Sequence[Row], after_epoch: Callable[[], float | None]
    ) -> list[dict[str, Any]]:
        """Take all steps; return loss, rate and gradient norm of each, and what `after_epoch` gives
        after the last of an epoch.

        Raises:
            GroundupError: a gradient is not finite.
        """
        width = self.model.config.context
        plan = list(
            steps(
                [size_of(row) for row in rows],
                width,
                self.lesson.batch_tokens,
                self.lesson.epochs,
                self.lesson.seed,
            )
        )
        metrics: list[dict[str, Any]] = []
        with progress("tune", len(plan), "step") as shown:
            for number, (epoch, packs) in enumerate(plan):
                metrics.append(
                    {"step": number + 1, "epoch": epoch + 1}
                    | self._step(number, len(plan), rows, packs)
                )
                if number + 1 == len(plan) or plan[number + 1][0] != epoch:
                    metrics[-1]["held_out_loss"] = after_epoch()
                shown.add(1, f"loss {metrics[-1]['loss']:.3f}")
        return metrics

    def _step(
        self, number: int, total: int, rows: Sequence[Row], packs: Sequence[Pack]
    ) -> dict[str, Any]:
        loss, count = self.backward(number, rows, packs)
        norm = float(self.parameters.grad_norm())
        if not math.isfinite(norm):
            raise GroundupError(
                f"tuning: the gradient of step {number + 1} is not finite; lower [tune]"
                " learning_rate"
            )
        if norm > CLIP:
            self.parameters.gradients.mul_(CLIP / norm)
        share = lr_scale(number, total, math.ceil(WARMUP_SHARE * total), FINAL_RATE)
        self.optimizer.step(self.lesson.learning_rate * share)
        if self.adapter is not None:
            self.adapter.spread()
        return {
            "loss": loss,
            "learning_rate": self.lesson.learning_rate * share,
            "gradient_norm": norm,
            "learnt_tokens": count,
        }

    def backward(
        self, number: int, rows: Sequence[Row], packs: Sequence[Pack]
    ) -> tuple[float, int]:
        """Fill the gradients with those of the mean loss over the learned tokens of a step; return
        that loss and their number.
        """
        count = sum(int(rows[row].learned.sum()) for pack in packs for row in pack)
        total = 0.0
        self.parameters.zero_grad()
        for start in range(0, len(packs), self.machine.micro_batch):
            batch = collate(rows, packs[start : start + self.machine.micro_batch]).to(
                self.model.device
            )
            if self.model.config.dropout:
                torch.manual_seed(derive_seed(self.lesson.seed, "tune dropout", number, start))
            with self.machine.autocast():
                loss = loss_sum(self.model, batch)
            (loss / count).backward()
            total += float(loss.detach())
        if self.adapter is not None:
            self.adapter.gather()
        return total / count, count

    def finish(self) -> None:
        """Leave a plain model behind, the adapter merged into it."""
        if self.adapter is not None:
            self.adapter.merge()
        self.model.eval()
