"""The validation loss over the same windows at every step, by window. Reads the validation split;
writes nothing.

The noise of an estimate is that of the windows it happened to take. Two models are compared on the
same windows, so what
counts is the noise of the difference, which is much smaller than that of either loss: a model is
better when its mean is lower by more than one standard error of the paired differences (Miller
2024, arXiv 2411.00640). Without that, the best of many near-equal checkpoints is the luckiest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.model.score import evaluating, token_log_probabilities
from groundup.model.transformer import Transformer
from groundup.train.data import Loader
from groundup.train.distributed import Ranks
from groundup.train.hardware import Machine, uncompiled


class Validation:
    """The first windows of the validation split, shared out over the ranks."""

    def __init__(self, loader: Loader, tokens: int, ranks: Ranks) -> None:
        self.loader, self.tokens, self.ranks = loader, tokens, ranks
        self.count = min(loader.epoch, max(1, tokens // loader.context))
        self._first, self._last = (self.count * (ranks.rank + n) // ranks.world for n in (0, 1))

    @cached_property
    def _rows(self) -> Tensor:
        return torch.from_numpy(self.loader.samples(self._first, self._last - self._first))

    @cached_property
    def sources(self) -> list[str]:
        """Source of each window."""
        return [name for name, _, _ in self.loader.places(0, self.count)] if self.count else []

    def losses(self, model: Transformer, machine: Machine) -> list[float]:
        """Return the mean loss (nats a token) of each window, the same list on every rank; empty
        where there are none.
        """
        found = torch.zeros(self.count, dtype=torch.float64, device=self.ranks.device)
        if self._last > self._first:
            with evaluating(model), uncompiled(), machine.autocast():
                parts = [
                    token_log_probabilities(model, part).mean(1)
                    for part in self._rows.split(machine.micro_batch)
                ]
            found[self._first : self._last] = -torch.cat(parts)
        losses: list[float] = self.ranks.sum(found).tolist() if self.count else []
        return losses


def mean(losses: Sequence[float]) -> float:
    """Return the mean loss; windows are all of one length."""
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan


def standard_error(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Return the standard error of a mean; 0 where one value says nothing about it."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def is_better(losses: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean of `losses` is lower than that of `best` by more than the noise of their
    difference.
    """
    if not best or len(best) != len(losses):
        return math.isfinite(mean(losses))
    gain = np.subtract(best, losses)
    return bool(gain.mean() > standard_error(gain))


def by_source(losses: Sequence[float], sources: Sequence[str]) -> dict[str, float]:
    """Return the mean loss of each source's windows."""
    return {
        name: mean([loss for loss, of in zip(losses, sources, strict=True) if of == name])
        for name in sorted(set(sources))
    }
