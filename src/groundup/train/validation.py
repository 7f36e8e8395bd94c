"""The validation loss, measured by window over the same windows at every step.

Two models are compared on the same windows, so what counts is the noise of the difference, which is
much smaller than that of either loss. A model is better if its mean is lower by more than one
standard error of the paired differences (Miller 2024, arXiv 2411.00640). Otherwise the best of many
almost equal checkpoints would be the luckiest one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.model.transformer import Transformer, evaluating, token_log_probabilities
from groundup.train.data import Loader
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import Hardware, uncompiled


class Validation:
    """The first windows of the validation split, shared by the ranks."""

    def __init__(self, loader: Loader, tokens: int, ranks: DistributedContext) -> None:
        self.loader, self.tokens, self.ranks = loader, tokens, ranks
        self.count = min(loader.epoch_size, max(1, tokens // loader.context))
        self._first, self._last = (self.count * (ranks.rank + n) // ranks.world for n in (0, 1))

    @cached_property
    def _rows(self) -> Tensor:
        return torch.from_numpy(self.loader.samples(self._first, self._last - self._first))

    def losses(self, model: Transformer, hardware: Hardware) -> list[float]:
        """Return the mean loss (nats per token) of each window, the same list on every rank."""
        losses = torch.zeros(self.count, dtype=torch.float64, device=self.ranks.device)
        if self._last > self._first:
            with evaluating(model), uncompiled(), hardware.autocast():
                batches = self._rows.split(hardware.micro_batch)
                parts = [token_log_probabilities(model, rows_BT).mean(1) for rows_BT in batches]
            losses[self._first : self._last] = -torch.cat(parts)
        values: list[float] = self.ranks.sum(losses).tolist() if self.count else []
        return values

    def by_source(self, losses: Sequence[float]) -> dict[str, float]:
        """Return the mean loss of each source's windows."""
        by_source: dict[str, list[float]] = {}
        for loss, (source, _, _) in zip(losses, self.loader.places(0, self.count), strict=True):
            by_source.setdefault(source, []).append(loss)
        return {source: mean(by_source[source]) for source in sorted(by_source)}


def mean(losses: Sequence[float]) -> float:
    """Return the mean loss; all windows have the same length."""
    return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan


def standard_error(values: NDArray[np.float64] | Sequence[float]) -> float:
    """Return the standard error of a mean; 0 if there is only one value."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def is_better(losses: Sequence[float], best: Sequence[float]) -> bool:
    """Whether the mean of `losses` is below that of `best` by more than the noise."""
    if not best or len(best) != len(losses):
        return math.isfinite(mean(losses))
    gain = np.subtract(best, losses)
    return bool(gain.mean() > standard_error(gain))
