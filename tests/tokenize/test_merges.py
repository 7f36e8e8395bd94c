"""Merges of BPE: those of `tokenizers`, for any words and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from groundup.artifacts.tokenizer import BYTE_NAMES
from groundup.tokenize.merges import learn_merges, pack_words

NAMES = sorted(BYTE_NAMES)
IDS = np.array([NAMES.index(name) for name in BYTE_NAMES], np.int32)


def merges(counts: Mapping[bytes, int], most: int = 1_000, least: int = 2) -> list[tuple[str, str]]:
    """Return what is learned from these words, by name."""
    data = np.frombuffer(b"".join(counts), np.uint8)
    ends = np.cumsum([len(word) for word in counts], dtype=np.int64)
    words = pack_words(data, ends, np.array([*counts.values()], np.int64), IDS)
    names, pairs = list(NAMES), []
    for left, right in learn_merges(words, len(NAMES), len(NAMES) + most, least):
        pairs.append((names[left], names[right]))
        names.append(names[left] + names[right])
    return pairs


def library(
    counts: Mapping[bytes, int], most: int = 1_000, least: int = 2
) -> list[tuple[str, str]]:
    """Return what `tokenizers` learns from them."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=len(NAMES) + most,
        min_frequency=least,
        initial_alphabet=NAMES,
        show_progress=False,
    )
    spelled = ["".join(BYTE_NAMES[byte] for byte in word) for word in counts]
    texts = (" ".join([word] * n) for word, n in zip(spelled, counts.values(), strict=True))
    engine.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]]


def test_the_example() -> None:
    """The words at the head of the module."""
    counts = {b"hug": 10, b"pug": 5, b"hugs": 5}
    assert merges(counts)[:2] == [("u", "g"), ("h", "ug")]
    assert merges(counts) == library(counts)


@examples(300)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=14).map(str.encode), st.integers(1, 9)),
    st.sampled_from((1, 2, 3)),
)
def test_merges_are_those_of_the_library(counts: dict[bytes, int], least: int) -> None:
    """Few letters: runs of one letter, overlaps and ties everywhere."""
    assert merges(counts, 40, least) == library(counts, 40, least)


def test_many_pairs() -> None:
    """The table of pairs grows and forgets those that became rare."""
    random = np.random.default_rng(0)
    words = [random.integers(0, 256, 8, np.uint8).tobytes() for _ in range(30_000)]
    counts = {word: 1 + n % 5 for n, word in enumerate(words)}
    found = merges(counts, 2_000)
    assert found == library(counts, 2_000)
    assert found == merges(dict(sorted(counts.items())), 2_000)


def test_counts_beyond_32_bits() -> None:
    """10 TB of text; the library counts in 32 bits."""
    counts = {b"hug": 10, b"pug": 5, b"hugs": 5, b"bun": 12, b"pun": 6}
    assert merges({word: n << 40 for word, n in counts.items()}) == merges(counts)
    assert merges({b"ab": 2**32 + 1, b"bc": 5, b"cd": 2**33}) == [
        ("c", "d"),
        ("a", "b"),
        ("b", "c"),
    ]


@pytest.mark.parametrize("counts", [{}, {b"a": 9}, {b"ab": 1}, {b"ab": 0}])
def test_nothing_to_merge(counts: dict[bytes, int]) -> None:
    """No word, no pair, none often enough, and a word that was left out."""
    assert merges(counts) == []
    assert merges({b"abcd": 9}, most=0) == []


def test_a_gigantic_word() -> None:
    """One million bytes in one word are merged in pairs of pairs."""
    found = merges({b"ab" * 500_000: 1})
    assert found[:3] == [("a", "b"), ("ab", "ab"), ("abab", "abab")]
    assert len(found) < 40
