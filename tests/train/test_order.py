"""Which samples and steps hold a token: computed backwards, and the same as when every sample is
looked at.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.train.data import (
    SampleOrder,
    Span,
    permute,
    resize,
    samples_of_step,
    skip_to,
    steps_of_samples,
)

LENGTHS = {"books.aa": 63, "books.bb": 5, "books.cc": 0, "web.1.dd": 41, "notes.ee": 30}
CONTEXT = 4


@examples(60)
@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_there_and_back(size: int, key: int) -> None:
    positions = np.arange(size, dtype=np.int64)
    assert np.array_equal(
        permute(permute(positions, size, key), size, key, inverse=True), positions
    )


@examples(100)
@given(
    shard=st.sampled_from(sorted(LENGTHS)),
    begin=st.integers(0, 62),
    length=st.integers(1, 30),
    weight=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    limit=st.integers(0, 150),
    seed=st.integers(0, 9),
)
def test_samples_of_tokens_are_those_that_hold_one(
    shard: str, begin: int, length: int, weight: float, limit: int, seed: int
) -> None:
    """Weights below and above one, several epochs, limits inside one: against a look at every
    sample.
    """
    order = SampleOrder(
        LENGTHS, context=CONTEXT, seed=seed, weights={"books": weight, "notes": 2.0}
    )
    end = min(begin + length, LENGTHS[shard])
    samples = np.arange(limit, dtype=np.int64)
    windows = [
        order.sources[source].place(int(window), CONTEXT)
        for source, window in zip(*order.locate(samples), strict=True)
    ]
    expected = [
        n
        for n, (name, start) in enumerate(windows)
        if name == shard and start < end and begin <= start + CONTEXT and begin < end
    ]
    assert order.samples_of(shard, begin, end, limit).tolist() == expected


@st.composite
def courses(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Spans as a training leaves them: other batches, and stretches that are passed over, at steps
    of their own.
    """
    spans, step = [(0, 0, draw(st.integers(1, 4)))], 0
    for _ in range(draw(st.integers(0, 4))):
        step += draw(st.integers(1, 5))
        if draw(st.booleans()):
            spans = resize(spans, step, draw(st.integers(1, 6)))
        else:
            spans = skip_to(spans, step, samples_of_step(spans, step)[0] + draw(st.integers(1, 9)))
    return spans, step + draw(st.integers(0, 5))


@examples(150)
@given(course=courses())
def test_the_step_of_a_sample_is_the_one_that_took_it(course: tuple[list[Span], int]) -> None:
    spans, end = course
    taken: dict[int, int] = {}
    for step in range(end):
        first, sequences = samples_of_step(spans, step)
        taken |= dict.fromkeys(range(first, first + sequences), step)
    samples = np.arange(samples_of_step(spans, end)[0] + 10, dtype=np.int64)
    assert steps_of_samples(spans, end, samples).tolist() == [
        taken.get(n, -1) for n in samples.tolist()
    ]


def test_two_epochs_a_batch_change_and_a_skipped_window_together() -> None:
    """One course by hand: each window of weight 1 is read once an epoch, but for what was passed
    over.
    """
    order = SampleOrder({"a.x": 41}, context=CONTEXT, seed=5)
    assert order.epoch_size == 10
    # Steps 0 to 3 take two samples, 4 to 6 three; sample 8, which follows, is passed over.
    spans = skip_to([(0, 0, 2)], 4, 9)
    spans = resize(spans, 4, 3)
    found = {
        n: [
            int(step)
            for step in steps_of_samples(
                spans, 7, order.samples_of("a.x", 4 * n + 1, 4 * n + 2, 18)
            )
        ]
        for n in range(10)
    }
    assert sorted(step for steps in found.values() for step in steps) == sorted(
        [0, 0, 1, 1, 2, 2, 3, 3, -1, 4, 4, 4, 5, 5, 5, 6, 6, 6]
    )
    assert all(len(steps) in (1, 2) for steps in found.values())


@pytest.mark.parametrize(
    ("shard", "begin", "end"),
    [("none.x", 0, 5), ("books.cc", 0, 1), ("books.aa", 5, 5), ("books.aa", 62, 63)],
)
def test_what_no_window_holds_has_no_sample(shard: str, begin: int, end: int) -> None:
    """An unknown shard, an empty one, no token, and the rest of a shard that is shorter than a
    window.
    """
    order = SampleOrder(LENGTHS, context=CONTEXT, seed=1)
    assert order.samples_of(shard, begin, end, 1000).tolist() == []
    assert SampleOrder({}, context=CONTEXT, seed=1).samples_of("a.x", 0, 1, 10).tolist() == []
