"""The learning rate as a pure function of the step: linear warm-up, then a cosine to a share of the
peak.
"""

from __future__ import annotations

import math


def rate(step: int, steps: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at `step` (0 is the first): up over `warmup`
    steps, `final` at the last.

    A warm-up longer than half the run is cut to half, or the peak would come when there is nothing
    left to learn.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    way = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return final + (1 - final) * (1 + math.cos(math.pi * way)) / 2
