"""Which samples a step takes: a small ledger that is part of a checkpoint. Reads and writes
nothing.

A span (step, first, sequences) says: step `step` takes samples `first` to `first + sequences - 1`,
the next step those that follow, until another span begins. A new batch size begins a span where the
samples stand; going back past a bad stretch begins one behind it. So any step is reached at once,
and sample i stays f(seed, i).

An example: [(0, 0, 64), (100, 6400, 128), (150, 14080, 128)]. The batch was doubled at step 100. At
step 150 the next sample would have been 6400 + 50 x 128 = 12800; 1,280 samples were skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundup.train.permutation import Indices

Span = tuple[int, int, int]


def place(spans: Sequence[Span], step: int) -> tuple[int, int]:
    """Return the first sample of a step and the number of its samples."""
    begin, first, sequences = next(span for span in reversed(spans) if span[0] <= step)
    return first + (step - begin) * sequences, sequences


def steps_of(spans: Sequence[Span], end: int, samples: Indices) -> Indices:
    """Return the step below `end` that took each sample, -1 for one that was passed over or not
    reached: `place` backwards.
    """
    if not spans:
        return np.full(len(samples), -1, np.int64)
    begins, firsts, sequences = np.array(spans, np.int64).T
    number = np.searchsorted(firsts, samples, side="right") - 1
    steps = begins[number] + (samples - firsts[number]) // sequences[number]
    return np.where((number >= 0) & (steps < np.append(begins[1:], end)[number]), steps, -1)


def resized(spans: Sequence[Span], step: int, sequences: int) -> list[Span]:
    """Return the spans with another batch from `step` on."""
    if not spans:
        return [(step, 0, sequences)]
    first, before = place(spans, step)
    return list(spans) if before == sequences else [*_until(spans, step), (step, first, sequences)]


def skipped(spans: Sequence[Span], step: int, first: int) -> list[Span]:
    """Return the spans with step `step` going on at sample `first`."""
    return [*_until(spans, step), (step, first, place(spans, step)[1])]


def _until(spans: Sequence[Span], step: int) -> list[Span]:
    return [span for span in spans if span[0] < step]
