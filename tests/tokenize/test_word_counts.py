"""Counts of words: exact, the same however the text is spread, and bounded in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.hostile import HOSTILE
from tests.helpers.refined import refined_run
from tokenizers import Regex, pre_tokenizers

from groundup.artifacts.corpus import refined_shards
from groundup.artifacts.tokenizer import QWEN2_PATTERN
from groundup.tokenize import word_counts as module
from groundup.tokenize.train_bpe import ALL_IDS
from groundup.tokenize.word_counts import (
    LONGEST,
    PARTITIONS,
    WORDS,
    Words,
    WordTable,
    count_words,
    merge_counts,
    thinned,
)

SPLIT = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")


def expected(texts: Sequence[str]) -> Counter[bytes]:
    """Count the words as `tokenizers` splits them."""
    words = Counter(word.encode() for text in texts for word, _ in SPLIT.pre_tokenize_str(text))
    return Counter({word: n for word, n in words.items() if len(word.decode()) <= LONGEST})


def counted(words: Words) -> Counter[bytes]:
    begins = [0, *words.ends[:-1]]
    spans = zip(begins, words.ends, words.counts, strict=True) if len(words.ends) else ()
    return Counter({words.data[a:b].tobytes(): int(n) for a, b, n in spans})


def table_of(texts: Sequence[str]) -> WordTable:
    table = WordTable()
    table.add_texts(pa.array(texts, pa.string()))
    return table


@given(st.lists(st.text(max_size=60), max_size=20))
def test_words_are_those_of_the_library(texts: list[str]) -> None:
    """Each word with its number, whatever the text."""
    assert counted(table_of(texts).words) == expected(texts)


def test_hostile_texts_and_many_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table grows; blocks of one text, and slices of an array, change nothing."""
    texts = [*HOSTILE, *(f"{n:x} {chr(n)}word 中文{chr(40_000 - n)}" for n in range(20_000))]
    want = expected(texts)
    assert counted(table_of(texts).words) == want
    monkeypatch.setattr(module, "_BLOCK_BYTES", 100)
    table = WordTable()
    array = pa.array(["before", *texts, "after"])
    table.add_texts(array.slice(1, 10))
    table.add_texts(array.slice(11, len(texts) - 10))
    assert counted(table.words) == want


def test_endless_words_are_left_out() -> None:
    """A base64 line is no word, and is counted as such; 900 characters of Chinese are."""
    table = table_of(["one " + "x" * 2000 + " two", "中" * 900, "-" * LONGEST, "-" * (LONGEST + 1)])
    assert table.long_words == 2
    want = {"one": 1, " two": 1, "中" * 900: 1, "-" * LONGEST: 1}
    assert counted(table.words) == {word.encode(): n for word, n in want.items()}


@pytest.mark.parametrize("spill", [1 << 30, 200])
def test_shards_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spill: int) -> None:
    """Counts of shards, written in one part or many, merge to those of the whole text."""
    monkeypatch.setattr(module, "_SPILL_BYTES", spill)
    texts = [f"the {n % 7} cat{n % 90} sat on mat {n} " * 3 for n in range(300)]
    documents = [(text, 1) for text in texts] + [("validation", 2), ("dropped", 0)]
    parts = {f"a.{k}": documents[k::3] for k in range(3)} | {"b.1": [("", 2)]}
    shards, facts, paths = refined_shards(refined_run(tmp_path / "run", parts).root), [], []
    for shard in shards:
        folder = tmp_path / shard.name
        folder.mkdir()
        facts.append(count_words(folder, shard, ALL_IDS))
        paths.append(folder / WORDS)
    assert sum(fact["bytes"] for fact in facts) == sum(map(len, texts))
    distinct = sum(fact["word_bytes"] for fact in facts)
    for size in (distinct, 5 << 30):
        merged = sum((counted(part) for part in merge_counts(paths, size)), Counter[bytes]())
        assert merged == expected(texts)


def test_rare_words_are_sampled_beyond_the_limit() -> None:
    """What is kept fits; frequent words keep their counts, rare ones stand for the others; the
    order in which words came does not matter.
    """
    letters = str.maketrans("0123456789", "abcdefghij")
    texts = [str(n).translate(letters) for n in range(50_000)] + ["often"] * 5_000
    words = table_of(texts).words
    assert counted(thinned(words, len(words.data))) == counted(words)
    most = len(words.data) // PARTITIONS // 4
    few = thinned(words, most)
    kept = {word: n for word, n in counted(few).items() if n}
    assert sum(map(len, kept)) <= PARTITIONS * most
    assert kept[b"often"] == 5_000
    assert 0.95 < sum(kept.values()) / words.counts.sum() < 1.05
    again = thinned(table_of(texts[::-1]).words, most)
    assert {word: n for word, n in counted(again).items() if n} == kept


def test_counts_beyond_32_bits(tmp_path: Path) -> None:
    """Sums are 64-bit from the file to the merges."""
    column = pa.array([b"a", b"bc"])
    batch = pa.record_batch([column, pa.array([2**40, 3])], schema=module.SCHEMA)
    table = WordTable()
    for _ in range(3):
        table.add_counts(batch)
    assert counted(table.words) == {b"a": 3 * 2**40, b"bc": 9}
    assert table.words.counts.dtype == np.int64
