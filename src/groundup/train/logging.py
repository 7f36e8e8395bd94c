"""Figures of a training as it goes: `RUN/train/metrics.jsonl`, and TensorBoard or Weights & Biases
where asked for.

metrics.jsonl is cut back when a run goes back to a checkpoint; the other two show what happened,
both times.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError
from groundup.train.setup import Plan


class Interval:
    """Figures of the steps since the last line of metrics.

    `busy` seconds went into steps, `waited` of them into waiting for data; validation and
    checkpoints count in neither.
    """

    def __init__(self) -> None:
        self.last, self.busy, self.waited = float("nan"), 0.0, 0.0
        self._losses: list[float] = []
        self._tokens = self._refused = 0
        self._norm = self._rate = 0.0

    def add(self, loss: float, norm: float, learning_rate: float, tokens: int) -> None:
        """Take in one step that was applied."""
        self.last, self._norm, self._rate = loss, norm, learning_rate
        self._losses.append(loss)
        self._tokens += tokens

    def refuse(self, tokens: int) -> None:
        """Take in one step that was computed and not applied."""
        self._refused += 1
        self._tokens += tokens

    def take(self) -> dict[str, float]:
        """Return the figures and begin anew; nothing when no step was applied."""
        if not self._losses:
            return {}
        loss = sum(self._losses) / len(self._losses)
        figures = {
            "loss": loss,
            "perplexity": perplexity(loss),
            "learning_rate": self._rate,
            "gradient_norm": self._norm,
            "tokens_per_second": round(self._tokens / self.busy, 1),
            "data_wait": round(self.waited, 4),
        }
        figures |= {"refused": self._refused} if self._refused else {}
        self._losses, self._tokens, self._refused, self.busy, self.waited = [], 0, 0, 0.0, 0.0
        return figures


def perplexity(loss: float) -> float:
    """Return e^loss, infinite where that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf


def utilization(tokens_per_second: float, plan: Plan) -> float:
    """Return the share of the machine's rate of multiplication that training uses.

    tokens/s x operations a token / (peak x processes). Operations a token are
    `ModelConfig.flops_per_token`: 3 x (2 x parameters of all matrices, the head among them, + 4 x
    heads x head width x (context + 1) / 2 a layer for causal attention). Layers that are computed
    twice count once. The peak is that of a large product of matrices in the training's precision,
    measured on this machine before step 0 (machine.json), not a data sheet's.
    """
    peak = plan.machine.peak_flops * plan.machine.processes
    return tokens_per_second * plan.config.flops_per_token() / peak if peak else 0.0


def memory_bytes(device: torch.device) -> int:
    """Return the largest memory in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts kilobytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


class Sink(Protocol):
    """A place beside metrics.jsonl that figures go to."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Show figures of a step."""
        ...


class TensorBoard:
    """Event files in `RUN/train/tensorboard`."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise GroundupError(
                "[train] tensorboard = true, and it is not installed; `pip install"
                " 'groundup[tensorboard]'`"
            ) from None
        self._writer = SummaryWriter(folder / "tensorboard")

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in figures.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.flush()


class WeightsAndBiases:
    """A run of Weights & Biases, named like the run directory; a resumed one goes on in it."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise GroundupError(
                "[train] wandb = true, and it is not installed; `pip install wandb`"
            ) from None
        self._run = wandb.init(
            project="groundup",
            name=name,
            id=f"groundup-{name}",
            resume="allow",
            dir=folder,
            config=dict(settings),
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Log scalars."""
        # Its own step must not go back, ours may: so ours is a figure like the others.
        self._run.log(
            {f"train/{name}": value for name, value in figures.items()} | {"train/step": step}
        )


class Logbook:
    """Writes a line to all places at once."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.metrics = Metrics(folder / "metrics.jsonl")
        self.sinks: list[Sink] = [TensorBoard(folder)] if plan.train.tensorboard else []
        if plan.train.wandb:
            self.sinks.append(WeightsAndBiases(folder, folder.parent.name, plan.key_parts.settings))

    def write(self, step: int, **figures: float | str) -> None:
        """Write figures of a step; text goes into metrics.jsonl only."""
        self.metrics.write(step=step, **figures)
        numbers = {name: value for name, value in figures.items() if not isinstance(value, str)}
        for sink in self.sinks:
            sink.write(step, numbers)
