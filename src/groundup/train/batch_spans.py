"""Which samples a step takes: a short list of spans, part of every checkpoint.

A span (step, first, sequences) says: step `step` takes samples `first` to `first + sequences - 1`,
and each later step the samples that follow, until the next span begins. A change of the batch size
begins a span at the next sample; a rollback begins one behind the samples that it skips. So the
samples of any step follow from the list alone, and sample i stays f(seed, i).

An example: [(0, 0, 64), (100, 6400, 128), (150, 14080, 128)]. The batch was doubled at step 100. At
step 150 the next sample would have been 6400 + 50 · 128 = 12800, so 1,280 samples were skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int, int]


def samples_of_step(spans: Sequence[Span], step: int) -> tuple[int, int]:
    """Return the first sample of a step, and how many samples it takes."""
    begin, first, sequences = next(span for span in reversed(spans) if span[0] <= step)
    return first + (step - begin) * sequences, sequences


def steps_of_samples(
    spans: Sequence[Span], end: int, samples: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the step below `end` that took each sample: the inverse of `samples_of_step`.

    -1 is for a sample that was skipped or not reached.
    """
    if not spans:
        return np.full(len(samples), -1, np.int64)
    begins, firsts, sequences = np.array(spans, np.int64).T
    index = np.searchsorted(firsts, samples, side="right") - 1
    steps = begins[index] + (samples - firsts[index]) // sequences[index]
    ends = np.append(begins[1:], end)
    return np.where((index >= 0) & (steps < ends[index]), steps, -1)


def resize(spans: Sequence[Span], step: int, sequences: int) -> list[Span]:
    """Return the spans with a batch of `sequences` from `step` on."""
    if not spans:
        return [(step, 0, sequences)]
    first, before = samples_of_step(spans, step)
    if before == sequences:
        return list(spans)
    return [*(span for span in spans if span[0] < step), (step, first, sequences)]


def skip_to(spans: Sequence[Span], step: int, first: int) -> list[Span]:
    """Return the spans with `step` continuing at sample `first`."""
    sequences = samples_of_step(spans, step)[1]
    return [*(span for span in spans if span[0] < step), (step, first, sequences)]
