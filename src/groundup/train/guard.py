"""The guard: judges a step by its loss and gradient norm before it is applied. Reads and writes
nothing; what it remembers is part of a checkpoint, so that a run which was killed judges as one
that was not.

A step is refused when its loss or norm is not finite, or lies further from the median of recent
accepted steps than `limit` robust deviations (1.4826 times the median absolute deviation, which is
the standard deviation of a normal
distribution, and does not move when a few values are wild: Huber 1981). Norms are compared as
logarithms, since they change by factors. A refused step is not applied at all: zero times NaN is
NaN, and momentum would move anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Accepted steps that make the recent range, and how many there must be before anything is outside
# of it.
WINDOW, ENOUGH = 128, 64
# The deviation counts as at least this much: nats of loss, and powers of e of the norm. Large
# batches differ by less from each other than is worth a refused step.
LOSS_FLOOR, NORM_FLOOR = 0.02, 0.1
# So many refused steps in a row, or among the last RECENT, are no accident of one batch.
STREAK = 5
MANY, RECENT = 20, 100
# A run goes back so often, each time with the learning rate times SLOWER.
ROLLBACKS = 3
SLOWER = 0.5


@dataclass
class Guard:
    """What the guard remembers.

    Attributes:
        losses, norms: of the last accepted steps, nats a token and log of the gradient norm.
        streak: refused steps in a row, up to now.
        refused: steps that were refused, as far back as `RECENT`.
        rollbacks: how often the run went back; `rate` is what that left of the learning rate.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    streak: int = 0
    refused: list[int] = field(default_factory=list)
    rollbacks: int = 0
    rate: float = 1.0

    def judge(self, loss: float, norm: float, limit: float) -> str:
        """Say in words why a step must not be applied, or return ""; `limit` 0 refuses only what is
        not finite.
        """
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        if not limit or len(self.losses) < ENOUGH:
            return ""
        far = deviation(loss, self.losses, LOSS_FLOOR)
        if abs(far) > limit:
            return (
                f"the loss {loss:.4g} lies {abs(far):.0f} deviations {_side(far)} the recent"
                f" {middle(self.losses):.4g}"
            )
        far = deviation(_log(norm), self.norms, NORM_FLOOR)
        if far > limit:
            return (
                f"the gradient norm {norm:.4g} lies {far:.0f} deviations above the recent"
                f" {math.exp(middle(self.norms)):.4g}"
            )
        return ""

    def accept(self, loss: float, norm: float) -> None:
        """Remember a step that was applied."""
        self.streak = 0
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, _log(norm)][-WINDOW:]

    def refuse(self, step: int) -> bool:
        """Remember a step that was not applied; return whether it is time to go back."""
        self.streak += 1
        self.refused = [one for one in self.refused if one > step - RECENT] + [step]
        return self.streak >= STREAK or len(self.refused) >= MANY

    def forget_range(self) -> None:
        """Learn the range anew, after a change that moves it by right."""
        self.losses, self.norms = [], []


def deviation(value: float, recent: Sequence[float], floor: float) -> float:
    """Return how many robust deviations `value` lies above the median of `recent`."""
    center = middle(recent)
    spread = 1.4826 * middle([abs(one - center) for one in recent])
    return (value - center) / max(spread, floor)


def middle(values: Sequence[float]) -> float:
    """Return the median (the upper one of two)."""
    return sorted(values)[len(values) // 2]


def _log(norm: float) -> float:
    # A gradient of nothing but zeros is small, not an error.
    return math.log(max(norm, 1e-30))


def _side(far: float) -> str:
    return "above" if far > 0 else "below"
