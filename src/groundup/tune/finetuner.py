"""The tuning loop: AdamW over all weights (SFT) or over a LoRA adapter.

The gradient of a step is that of the loss summed over its batch, divided by the number of learned
tokens in the batch. So it does not depend on the micro-batch (axolotl #2262).
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
from groundup.tune.packing import Pack, collate, loss_sum, packed_size, packed_steps

CLIP = 1.0
# Share of the steps; then a cosine to this share of the peak.
WARMUP_SHARE, FINAL_RATE = 0.1, 0.1


@dataclass(frozen=True)
class TuningArguments:
    """How a model is tuned; every value is resolved."""

    method: Literal["sft", "lora"]
    epochs: int
    learning_rate: float
    batch_tokens: int
    rank: int
    alpha: float
    seed: int


class Finetuner:
    """Tunes a model on rows."""

    def __init__(
        self,
        model: Transformer,
        arguments: TuningArguments,
        hardware: Hardware,
        chat_ids: tuple[int, ...],
    ) -> None:
        self.model, self.arguments, self.hardware = model.train(), arguments, hardware
        self.adapter = None
        if arguments.method == "lora":
            seed = derive_seed(arguments.seed, "adapter")
            self.adapter = Adapter(model, arguments.rank, arguments.alpha, chat_ids, seed)
        self.parameters = FlatParameters(self.adapter or model)
        self.optimizer = Optimizer(self.parameters, "adamw", weight_decay=0.0)

    def train(
        self, rows: Sequence[Row], after_epoch: Callable[[], float | None]
    ) -> list[dict[str, Any]]:
        """Run all steps; return loss, learning rate and gradient norm of each.

        The last step of an epoch also gets what `after_epoch` returns.

        Raises:
            GroundupError: a gradient is not finite.
        """
        arguments = self.arguments
        sizes, width = [packed_size(row) for row in rows], self.model.config.context
        steps = list(
            packed_steps(sizes, width, arguments.batch_tokens, arguments.epochs, arguments.seed)
        )
        metrics: list[dict[str, Any]] = []
        with progress("tune", len(steps), "step") as bar:
            for n, (epoch, packs) in enumerate(steps):
                figures = self._step(n, len(steps), rows, packs)
                metrics.append({"step": n + 1, "epoch": epoch + 1} | figures)
                if n + 1 == len(steps) or steps[n + 1][0] != epoch:
                    metrics[-1]["held_out_loss"] = after_epoch()
                bar.add(1, f"loss {figures['loss']:.3f}")
        return metrics

    def _step(
        self, step: int, steps: int, rows: Sequence[Row], packs: Sequence[Pack]
    ) -> dict[str, Any]:
        loss, tokens = self.backward(step, rows, packs)
        norm = float(self.parameters.grad_norm())
        if not math.isfinite(norm):
            raise GroundupError(
                f"tuning: the gradient of step {step + 1} is not finite; lower [tune] learning_rate"
            )
        if norm > CLIP:
            self.parameters.gradients.mul_(CLIP / norm)
        share = lr_scale(step, steps, math.ceil(WARMUP_SHARE * steps), FINAL_RATE)
        learning_rate = self.arguments.learning_rate * share
        self.optimizer.step(learning_rate)
        if self.adapter is not None:
            self.adapter.write_token_rows()
        return {
            "loss": loss,
            "learning_rate": learning_rate,
            "gradient_norm": norm,
            "learnt_tokens": tokens,
        }

    def backward(self, step: int, rows: Sequence[Row], packs: Sequence[Pack]) -> tuple[float, int]:
        """Set the gradients of one step; return its mean loss and the number of learned tokens."""
        tokens = sum(int(rows[n].loss_mask.sum()) for pack in packs for n in pack)
        total = 0.0
        self.parameters.zero_grad()
        for start in range(0, len(packs), self.hardware.micro_batch):
            batch = collate(rows, packs[start : start + self.hardware.micro_batch])
            if self.model.config.dropout:
                torch.manual_seed(derive_seed(self.arguments.seed, "tune dropout", step, start))
            with self.hardware.autocast():
                loss = loss_sum(self.model, batch.to(self.model.device))
            (loss / tokens).backward()
            total += float(loss.detach())
        if self.adapter is not None:
            self.adapter.read_token_gradients()
        return total / tokens, tokens

    def finish(self) -> None:
        """Merge the adapter into the model, and turn dropout off."""
        if self.adapter is not None:
            self.adapter.merge()
        self.model.eval()
