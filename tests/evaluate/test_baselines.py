"""Counting models: equal to a plain reference with dictionaries, and true distributions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.evaluate.ngram import NGram, ngram_keys
from groundup.evaluate.perplexity import sliding_windows
from groundup.evaluate.validation_data import Stream

VOCAB = 6


def streams(lists: list[list[int]]) -> list[Stream]:
    return [Stream(str(n), np.array(tokens, np.uint16), 0) for n, tokens in enumerate(lists)]


def reference(lists: list[list[int]], order: int):  # type: ignore[no-untyped-def]
    """Interpolated Kneser-Ney with dictionaries, straight from the formulas."""
    counts: Counter[tuple[int, ...]] = Counter()
    for tokens in lists:
        padded = [0] * order + tokens
        counts.update(tuple(padded[i - order + 1 : i + 1]) for i in range(order, len(padded)))
    tables = [counts]
    for _ in range(order - 1):
        tables.insert(0, Counter(gram[1:] for gram in tables[0]))

    def probability(gram: tuple[int, ...]) -> float:
        lower = 1 / VOCAB
        for length, table in enumerate(tables, 1):
            part, context = gram[len(gram) - length :], gram[len(gram) - length : -1]
            once, twice = (sum(c == n for c in table.values()) for n in (1, 2))
            discount = once / (once + 2 * twice) if once else 0.5
            followers = defaultdict(int, {g: c for g, c in table.items() if g[:-1] == context})
            total = sum(followers.values())
            if total:
                lower = (
                    max(followers[part] - discount, 0)
                    + discount * sum(c > 0 for c in followers.values()) * lower
                ) / total
        return lower

    return probability


tokens = st.lists(st.integers(0, VOCAB - 1), max_size=40)


@examples(60)
@given(st.lists(tokens, min_size=1, max_size=3), tokens, st.sampled_from([1, 2, 3]))
def test_equal_to_the_reference(train: list[list[int]], held_out: list[int], order: int) -> None:
    """Same probabilities, seen contexts or not, at the beginning of a shard or inside it."""
    model, plain = NGram.fit(streams(train), VOCAB, order), reference(train, order)
    windows = sliding_windows(streams([held_out]), 7)
    found = np.concatenate([*model.scores(windows), np.empty(0)])
    padded = [0] * order + held_out
    expected = [
        math.log(plain(tuple(padded[i - order + 1 : i + 1]))) for i in range(order, len(padded))
    ]
    assert found == pytest.approx(expected, rel=1e-9)


@examples(30)
@given(st.lists(tokens, min_size=1, max_size=2), st.sampled_from([1, 3]))
def test_probabilities_sum_to_one(train: list[list[int]], order: int) -> None:
    """After every context, seen or not, and every token has some probability."""
    model = NGram.fit(streams(train), VOCAB, order)
    every = np.arange(VOCAB**order, dtype=np.int64)
    probabilities = model.probabilities(every).reshape(-1, VOCAB)
    assert probabilities.sum(1) == pytest.approx(1)
    assert (probabilities > 0).all()


def test_the_cap_bounds_what_is_counted() -> None:
    """Each shard gives its share; what was counted is told."""
    lists = [list(np.random.default_rng(n).integers(0, VOCAB, 300)) for n in range(3)]
    model = NGram.fit(streams(lists), VOCAB, 3, cap=100)
    assert 90 <= model.tokens <= 100 == 3 * 33 + 1
    assert int(model.levels[-1].counts.sum()) == model.tokens


def test_too_large_a_vocabulary_is_refused() -> None:
    """Three ids must fit into one 63-bit key; a recipe's largest vocabulary does."""
    with pytest.raises(ValueError, match="63 bits"):
        NGram.fit([], 3_000_000, 3)
    NGram.fit([], 1_000_000, 3)


def test_keys_spell_the_tokens() -> None:
    """A key is the n-gram written in the base of the vocabulary."""
    (stream,) = streams([[1, 2, 3]])
    assert ngram_keys(stream, 1, 4, 3, 10).tolist() == [1, 12, 123]
