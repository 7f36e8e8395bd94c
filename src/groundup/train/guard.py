"""The guard judges a step by its loss and gradient norm before the step is applied.

A step is refused if its loss or norm is not finite, or is further from the median of recent
accepted steps than `limit` robust deviations. A robust deviation is 1.4826 times the median
absolute deviation: the standard deviation of a normal distribution, and a few outliers do not move
it (Huber 1981). Norms are compared as logarithms, since they change by factors. A refused step is
not applied at all, not even scaled by zero: zero times NaN is NaN, and momentum would move anyway.

The guard's memory is part of a checkpoint, so a resumed run judges like one that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_high

# Number of accepted steps that make the recent range, and how many it needs before it judges.
WINDOW, ENOUGH = 128, 64
# A deviation is at least this: nats of loss, and powers of e of the norm. Large batches differ by
# less than is worth a refused step.
LOSS_FLOOR, NORM_FLOOR = 0.02, 0.1
# This many refused steps in a row, or among the last RECENT, are no accident of one batch.
STREAK = 5
MANY, RECENT = 20, 100
# A run may roll back this often. Each time the learning rate is multiplied by SLOWER.
MAX_ROLLBACKS = 3
SLOWER = 0.5


@dataclass
class Guard:
    """What the guard remembers."""

    losses: list[float] = field(default_factory=list)  # of the last accepted steps, nats per token
    # Of the last accepted steps, log of the gradient norm.
    norms: list[float] = field(default_factory=list)
    streak: int = 0  # refused steps in a row, up to now
    # Steps that were refused, of the last `RECENT`.
    refused: list[int] = field(default_factory=list)
    rollbacks: int = 0  # how often the run has rolled back
    rate: float = 1.0  # factor of the learning rate that the rollbacks left

    def judge(self, loss: float, norm: float, limit: float) -> str:
        """Return why a step must not be applied, or ""; `limit` 0 refuses only non-finite ones."""
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        if not limit or len(self.losses) < ENOUGH:
            return ""
        distance = deviations(loss, self.losses, LOSS_FLOOR)
        if abs(distance) > limit:
            side, recent = "above" if distance > 0 else "below", median_high(self.losses)
            far = f"lies {abs(distance):.0f} deviations {side} the recent {recent:.4g}"
            return f"the loss {loss:.4g} {far}"
        distance = deviations(_log(norm), self.norms, NORM_FLOOR)
        if distance > limit:
            recent = math.exp(median_high(self.norms))
            far = f"lies {distance:.0f} deviations above the recent {recent:.4g}"
            return f"the gradient norm {norm:.4g} {far}"
        return ""

    def accept(self, loss: float, norm: float) -> None:
        """Remember a step that was applied."""
        self.streak = 0
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, _log(norm)][-WINDOW:]

    def refuse(self, step: int) -> bool:
        """Remember a step that was not applied. Return whether it is time to roll back."""
        self.streak += 1
        self.refused = [*(earlier for earlier in self.refused if earlier > step - RECENT), step]
        return self.streak >= STREAK or len(self.refused) >= MANY


def deviations(value: float, recent: Sequence[float], floor: float) -> float:
    """Return by how many robust deviations `value` exceeds the median of `recent`."""
    center = median_high(recent)
    spread = 1.4826 * median_high(abs(other - center) for other in recent)
    return (value - center) / max(spread, floor)


def _log(norm: float) -> float:
    # A gradient of only zeros is small, not an error.
    return math.log(max(norm, 1e-30))
