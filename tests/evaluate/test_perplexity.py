"""Held-out loss: every token once, with the context it is promised; samples of windows estimate the
whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.trained import tiny_model

from groundup.evaluate.perplexity import (
    Floats,
    Stratum,
    Window,
    figures,
    figures_by_source,
    model_scores,
    ratio,
    sample_windows,
    score_windows,
    sliding_windows,
)
from groundup.evaluate.validation_data import Stream

END = 0


def stream(count: int, vocab_size: int = 50, seed: int = 1) -> Stream:
    return Stream(
        "s.1", np.random.default_rng(seed).integers(0, vocab_size, count).astype(np.uint16), END
    )


@given(st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9))
def test_windows_hold_every_token_once(sizes: list[int], stride: int) -> None:
    """No token is left out or counted twice, whatever the lengths."""
    streams = [
        Stream(str(n), np.arange(size, dtype=np.uint16), END) for n, size in enumerate(sizes)
    ]
    found = [
        (w.stream.name, i) for w in sliding_windows(streams, stride) for i in range(w.low, w.high)
    ]
    assert found == [(str(n), i) for n, size in enumerate(sizes) for i in range(1, size + 1)]


@given(st.integers(-5, 12), st.integers(0, 8))
def test_slices_begin_with_the_end_of_text(start: int, count: int) -> None:
    """Before the first token stands the end-of-text id, and nothing else."""
    whole = Stream("s", np.arange(100, 110, dtype=np.uint16), END)
    plain = {i: 99 + i for i in range(1, 11)}
    expected = [plain.get(i, END) for i in range(start, start + count) if i <= 10]
    assert whole.slice(start, start + count).tolist() == expected


@pytest.mark.parametrize("count", [1, 15, 16, 31, 33, 100])
def test_scores_equal_those_of_one_token_at_a_time(count: int) -> None:
    """A plain reference: for every token, read the context that its window promises, and look up
    its probability.
    """
    model = tiny_model(50)
    context, stride = model.config.context, model.config.context // 2
    tokens = stream(count)
    windows = sliding_windows([tokens], stride)
    scored = np.concatenate(list(model_scores(model, windows)))
    for window in windows:
        for position in range(window.low, window.high):
            read = tokens.slice(max(0, window.high - context - 1), position)
            assert len(read) >= min(position, context - stride)
            with torch.no_grad():
                logits = model(torch.from_numpy(read)[None])[0, -1].double()
            expected = torch.log_softmax(logits, 0)[int(tokens.slice(position, position + 1)[0])]
            assert scored[position - 1] == pytest.approx(float(expected), abs=1e-4)


def test_figures_of_known_probabilities() -> None:
    """Loss, perplexity and bits follow their definitions; end-of-text tokens cost bits and stand
    for no byte.
    """

    def half(windows: Sequence[Window]) -> Iterator[Floats]:
        for window in windows:
            yield np.full(window.high - window.low, math.log(0.5))

    tokens = Stream("s", np.array([3, 3, END, 4, 4, END], np.uint16), END)
    sizes = np.array([0, 0, 0, 2, 4])
    windows = sliding_windows([tokens], 2)
    found = figures([score_windows(half, windows, len(windows), sizes)])
    assert found["loss"] == pytest.approx(math.log(2))
    assert found["perplexity"] == pytest.approx(2)
    assert found["bits_per_byte"] == pytest.approx(6 / 12)
    assert found["bits_per_byte_text"] == pytest.approx(4 / 12)
    assert (found["tokens"], found["bytes"], found["windows"]) == (6, 12, 3)


def test_a_sample_of_windows_estimates_the_whole() -> None:
    """The whole lies within a few standard errors of what a quarter of the windows say, for most
    seeds.
    """
    random = np.random.default_rng(1)
    sizes = random.integers(40, 60, 400).astype(float)
    nats = sizes * random.normal(3, 0.5, 400)
    hits = 0
    for seed in range(100):
        part = np.random.default_rng(seed).choice(400, 100, replace=False)
        value, error = ratio([(400, nats[part], sizes[part])])
        hits += abs(value - nats.sum() / sizes.sum()) < 2 * error
    assert hits >= 90


def test_sources_count_by_their_size_not_by_their_sample() -> None:
    """A large source of which few windows were scored still weighs what it weighs."""
    large, small = (
        Stratum(n, np.full(5, c), np.full(5, c), np.full(5, 1.0), np.full(5, 1.0))
        for n, c in ((900, 2.0), (100, 4.0))
    )
    found = figures_by_source(
        {"large": large, "small": small, "none": Stratum(0, *(np.empty(0),) * 4)}
    )
    assert found["total"]["loss"] == pytest.approx(2.2)  # type: ignore[index]
    assert list(found["sources"]) == ["large", "small"]  # type: ignore[call-overload]


def test_choice_of_windows_is_seeded_and_limited() -> None:
    """The same seed scores the same windows; all of them when they fit."""
    windows = sliding_windows([stream(1000)], 10)
    assert sample_windows(windows, 1000, 1) == windows
    part = sample_windows(windows, 200, 1)
    assert len(part) == 20 and part == sample_windows(windows, 200, 1) != sample_windows(
        windows, 200, 2
    )
