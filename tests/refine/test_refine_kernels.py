"""The kernels against plain Python: words, shingles, MinHash, Jaccard, statistics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.artifacts.arrays import Texts, text_buffers
from groundup.refine.clean.unicode_classes import BREAK, LOWERCASE, UNSPACED, WORD_CLASSES
from groundup.refine.dedup.lsh_index import sort_keys
from groundup.refine.dedup.minhash import (
    BAND_ROWS,
    BANDS,
    EMPTY,
    PERMUTATIONS,
    band_keys,
    hash_words,
    jaccard,
    shingle_sets,
    signatures,
    sort_hashes,
    words,
)
from groundup.refine.filter.repeated_ngrams import repeated_words
from groundup.refine.filter.statistics import (
    PARAGRAPHS,
    STOP_WORDS,
    Statistics,
    repeated_lines,
    select_words,
)
from groundup.refine.filter.tokens import count_words

Plain = Callable[..., Any]

TEXTS = st.lists(
    st.lists(
        st.sampled_from(
            "a b to The THE and é ñandú 中文 ไทย 7x  . , ... … ! # { \n \n\n - • — "
            "'tis don't".split(" ")
        )
        | st.text(max_size=2),
        max_size=40,
    ),
    min_size=1,
    max_size=4,
).map(lambda texts: [" ".join(parts).encode("utf-8", "ignore").decode() for parts in texts])


def buffers(texts: list[str]) -> Texts:
    return text_buffers(pa.array(texts, pa.string()))


@examples(300)
@given(TEXTS)
def test_words(plain_words: Plain, texts: list[str]) -> None:
    """Words, their positions and their hashes follow the definition."""
    hashes, starts, ends, first = words(buffers(texts))
    data = "".join(texts).encode()
    for text, begin, end in zip(texts, first[:-1], first[1:], strict=True):
        found = [
            data[a:b].decode() for a, b in zip(starts[begin:end], ends[begin:end], strict=True)
        ]
        assert ["".join(chr(LOWERCASE[ord(c)]) for c in word) for word in found] == plain_words(
            text
        )
        assert hashes[begin:end].tolist() == [hash_words([word])[0] for word in plain_words(text)]


def test_words_of_every_length_at_every_place() -> None:
    """A word has one hash wherever it stands: across blocks, before no byte, in a later text."""
    words_of = [("aB3" * 30)[:size] for size in (*range(1, 20), 63, 64, 65)]
    expected = hash_words([word.lower() for word in words_of]).tolist()
    assert len(set(expected)) == len(words_of)
    for gap in range(70):
        texts = [("." * gap) + " ".join(words_of), *words_of, "." * gap]
        hashes, starts, ends, first = words(buffers(texts))
        assert hashes.tolist() == 2 * expected
        assert (ends - starts).tolist() == 2 * [len(word) for word in words_of]
        assert first[1] == len(words_of) == len(hashes) - first[1]


def test_a_word_that_is_ascii_in_lowercase() -> None:
    """A capital I with a dot becomes an ASCII letter, and the word hashes like the small one."""
    texts = ["M\u0130LYON \u0130STANBULLULAR", "milyon istanbullular"]
    upper, lower = (words(buffers([text]))[0].tolist() for text in texts)
    assert upper == lower


def test_lowercase() -> None:
    """LOWERCASE agrees with Unicode except for two letters, and covers these alphabets."""
    differ = np.flatnonzero(np.arange(len(LOWERCASE)) != LOWERCASE).tolist()
    exceptions = {
        0x130: "i",
        0x3C2: "σ",
    }  # İ is two code points in Python; a final sigma is a sigma
    assert [chr(LOWERCASE[c]) for c in differ] == [
        exceptions.get(c, chr(c).lower()) for c in differ
    ]
    for text in (
        "GRÖSSE ÉTÉ ŁÓDŹ ČEŠTINA ȘTIRĂ ĦAĠRA ƠN ƯỚC Ɓ Ŋ Ɛ Ɔ",
        "ΛΟΓΟΣ ΈΡΓΟ ἈΡΧΉ",
        "МОСКВА ЇЖАК ЏЕП ҚАЗАҚ",
        "ՀԱՅԵՐԵՆ ႠႡ ᲡᲐ ᏣᎳ ＡＢ",
    ):
        capitals, small = (
            words(buffers([version]))[0] for version in (text, text.lower().replace("ς", "σ"))
        )
        assert capitals.tolist() == small.tolist(), text
    assert words(buffers(["λόγος"]))[0].tolist() == words(buffers(["ΛΌΓΟΣ"]))[0].tolist()


@examples(200)
@given(TEXTS, st.integers(1, 13))
def test_shingles(plain_shingles: Plain, texts: list[str], width: int) -> None:
    """Shingles follow the definition; equal ones have equal hashes."""
    sets, offsets = shingle_sets(buffers([*texts, *texts]), width)
    found = [sets[a:b].tolist() for a, b in pairwise(offsets.tolist())]
    assert [len(one) for one in found] == 2 * [len(plain_shingles(text, width)) for text in texts]
    assert all(one == sorted(set(one)) for one in found)
    assert found[: len(texts)] == found[len(texts) :]
    assert len(set().union(*found)) == len(
        set().union(*(plain_shingles(text, width) for text in texts))
    )


@examples(200)
@given(st.integers(0, 300), st.sampled_from([1, 2**30, 2**64 - 1]), st.integers(0, 2**32))
def test_sort_hashes(count: int, largest: int, seed: int) -> None:
    """Hashes are sorted, and keys stably with their rows, whether they are uniform or not."""
    values = np.random.default_rng(seed).integers(0, largest, count, np.uint64, endpoint=True)
    values[::3] = values[: len(values[::3])]
    sort_hashes(hashes := values.copy())
    assert hashes.tolist() == sorted(values.tolist())
    keys, rows = sort_keys(values.copy())
    assert keys.tolist() == sorted(values.tolist())
    assert rows.tolist() == np.argsort(values, kind="stable").tolist()


@examples(300)
@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.floats(0, 1))
def test_jaccard(a: set[int], b: set[int], threshold: float) -> None:
    """The ratio is exact; it stops early only below the threshold."""
    exact = len(a & b) / len(a | b) if a and b else 0.0
    arrays = [np.array(sorted(values), np.uint64) for values in (a, b)]
    assert jaccard(*arrays) == exact
    reached = jaccard(*arrays, threshold)
    assert reached == exact if exact >= threshold else reached in (0.0, exact)


def test_signatures_estimate() -> None:
    """The share of equal rows estimates the similarity without bias, over 300 pairs."""
    chance = np.random.default_rng(5)
    errors = []
    for share in np.linspace(0.05, 0.95, 300):
        vocabulary = [f"w{n}" for n in chance.integers(0, 1 << 30, 700)]
        common = int(500 * share)
        a, b = (
            vocabulary[:500],
            vocabulary[:common] + vocabulary[500:] + vocabulary[common + 200 : 500],
        )
        texts = buffers([" ".join(a), " ".join(b)])
        first, second = signatures(texts)
        sets, offsets = shingle_sets(texts)
        true = jaccard(sets[: offsets[1]], sets[offsets[1] :])
        errors.append(
            ((first == second).mean() - true) / max(np.sqrt(true * (1 - true) / PERMUTATIONS), 0.02)
        )
    assert abs(np.mean(errors)) < 0.25
    assert np.std(errors) < 1.2


def test_signatures_independent() -> None:
    """A pair of 0.8 shares a band as often as independent rows would (0.98)."""
    chance = np.random.default_rng(6)
    found = 0
    for _ in range(300):
        a = [f"w{n}" for n in chance.integers(0, 1 << 30, 405)]
        b = a[:360] + [f"v{n}" for n in chance.integers(0, 1 << 30, 45)]
        rows = signatures(buffers([" ".join(a), " ".join(b)])).T.copy()
        keys = [
            band_keys(rows[band * BAND_ROWS : (band + 1) * BAND_ROWS], 0) for band in range(BANDS)
        ]
        found += any(key[0] == key[1] for key in keys)
    assert found / 300 > 0.95


def test_no_words() -> None:
    """A text without words has no shingle and is similar to nothing; an empty column works."""
    rows = signatures(buffers(["!!! ???", ""]))
    assert (rows == EMPTY).all()
    assert len(shingle_sets(buffers(["!?"]))[0]) == 0
    assert jaccard(np.zeros(0, np.uint64), np.zeros(0, np.uint64)) == 0
    assert signatures(buffers([])).shape == (0, PERMUTATIONS)


def test_slices() -> None:
    """A slice of a column gives the same as its texts alone."""
    column = pa.array(["one two three four five six", "a b c", "", "x y z x y z"])
    assert (
        signatures(text_buffers(column.slice(1, 3))) == signatures(buffers(column.to_pylist()))[1:]
    ).all()


def statistics(texts: list[str]) -> Statistics:
    return Statistics(pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.string())}))


@examples(100)
@given(TEXTS, st.randoms())
def test_selected_words(texts: list[str], rng: Random) -> None:
    """The words of some texts are those of these texts alone."""
    keep = [rng.random() < 0.5 for _ in texts]
    hashes, _, _, first = words(buffers(texts))
    alone = words(buffers([text for text, kept in zip(texts, keep, strict=True) if kept]))
    found = select_words(hashes, first, np.array(keep, np.bool_))
    assert [part.tolist() for part in found] == [alone[0].tolist(), alone[3].tolist()]


@examples(200)
@given(TEXTS)
def test_counts(plain_words: Plain, texts: list[str]) -> None:
    """Counts of characters, lines and stop words equal those of Python."""
    found = statistics(texts)
    for row, text in enumerate(texts):
        lines = [line.strip(" \t") for line in text.split("\n")]
        filled = [line for line in lines if line]
        want = {
            "bytes": len(text.encode()),
            "chars": len(text),
            "alphanumeric": sum(WORD_CLASSES[ord(c)] != BREAK for c in text),
            "unspaced": sum(WORD_CLASSES[ord(c)] == UNSPACED for c in text),
            "hashes": text.count("#"),
            "brackets": text.count("{") + text.count("}"),
            "ellipses": len(re.findall(r"\.{3,}", text)) + text.count("…"),
            "lines": len(filled),
            "bullet_lines": sum(line[0] in "-*•‣▪●◦·–" for line in filled),
            "ellipsis_lines": sum(line.endswith(("...", "…")) for line in filled),
            "longest_line": max(len(line) for line in text.split("\n")),
            "stop_words": len(set(STOP_WORDS) & set(plain_words(text))),
        }
        assert {name: found[name][row] for name in want} == want


def test_tokens() -> None:
    """Words between white space, with letters, with letters or digits, and sentence ends."""
    found = statistics(['He said: "Stop!" Then 42 left... — ok', "你好。再见！", "a.b c?) d", ""])
    assert found["words"].tolist() == [8, 6, 3, 0]
    assert found["letter_words"].tolist() == [6, 4, 3, 0]
    assert found["alphanumeric_words"].tolist() == [7, 4, 3, 0]
    assert found["sentences"].tolist() == [2, 2, 1, 0]
    assert found["word_chars"].tolist() == [30, 6, 7, 0]


@examples(200)
@given(
    # Also whole blocks of ASCII.
    st.lists(
        st.sampled_from("\u2026\u00bb\u65e5\u3002\u00e9\u1361")
        | st.text("a7.!?\"') #-\n\t", max_size=70),
        max_size=12,
    )
)
def test_tokens_against_a_plain_count(parts: list[str]) -> None:
    """Words and sentence ends equal those of a loop over characters."""
    want = dict.fromkeys(("words", "word_chars", "letter_words", "sentences"), 0)
    want["alphanumeric_words"], word = 0, ""
    for char in "".join(parts) + " ":
        want["sentences"] += char == "\u3002"
        if char == "\u65e5":
            # The word before it counts, and nothing that is in it.
            want["words"] += 1 + bool(word)
            want["word_chars"] += 1
            want["letter_words"] += 1
            want["alphanumeric_words"] += 1
            word = ""
        elif char in " \n\t\u1361":
            want["words"] += bool(word)
            want["letter_words"] += any(c in "a\u00e9" for c in word)
            want["alphanumeric_words"] += any(c in "a7\u00e9" for c in word)
            want["sentences"] += bool(re.search("[.!?\u2026][\"')\u00bb]*$", word))
            word = ""
        else:
            word += char
            want["word_chars"] += 1
    found = statistics(["".join(parts)])
    assert {name: found[name][0] for name in want} == want
    assert count_words(*buffers(["".join(parts)])).tolist() == [want["words"]]


UNITS = st.lists(st.sampled_from(["one two", "three", " ", "", "four five six"]), max_size=12)


@examples(200)
@given(UNITS, UNITS)
def test_repeated_lines(a: list[str], b: list[str]) -> None:
    """Repeated lines and paragraphs equal those found with a list of earlier ones."""
    texts = ["\n".join(a), "\n\n".join(b)]
    for text, breaks, row in ((texts[0], 1, 0), (texts[1], PARAGRAPHS, 1)):
        # A third line break in a row belongs to the next paragraph, whose leading blanks do not
        # count.
        units = [unit.lstrip(" \t\n") for unit in text.split("\n" * breaks)]
        units = [unit for unit in units if unit]
        repeated = [unit for place, unit in enumerate(units) if unit in units[:place]]
        found = repeated_lines(*buffers(texts), breaks, 1 << 31)[row].tolist()
        counts = [len(units), len(repeated), sum(len(unit) for unit in repeated)]
        assert found == [*counts, len(text.encode())]


@examples(200)
@given(st.lists(st.sampled_from("to be or not bee".split()), max_size=40))
def test_repeated_words(parts: list[str]) -> None:
    """Frequent and repeated n-grams equal a plain count that skips overlaps."""
    text = " ".join(parts)
    found = repeated_words(*words(buffers([text])), np.ones(1, np.int64))[0].tolist()
    for n in range(2, 5):
        grams = [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]
        most = max(Counter(grams).values(), default=0)
        assert found[n - 2] == (
            max(len(g) * c for g, c in Counter(grams).items() if c == most) if most > 1 else 0
        )
    for n in range(5, 11):
        seen, total, i = set(), 0, 0
        while i + n <= len(parts):
            gram = " ".join(parts[i : i + n])
            total, i = (total + len(gram), i + n) if gram in seen else (total, i + 1)
            seen.add(gram)
        assert found[n - 2] == total


@examples(100)
@given(st.lists(st.sampled_from("日本語学校"), max_size=60), st.integers(2, 4))
def test_repeated_words_of_several_tokens(parts: list[str], size: int) -> None:
    """In a script without spaces, an n-gram is n times a word's letters long."""
    text = "".join(parts)
    found = repeated_words(*words(buffers([text])), np.array([size]))[0].tolist()
    for n in range(5, 11):
        seen, total, i = set(), 0, 0
        while i + n * size <= len(text):
            gram = text[i : i + n * size]
            known = gram in seen
            seen.add(gram)
            total, i = (total + 3 * len(gram), i + len(gram)) if known else (total, i + 1)
        assert found[n - 2] == total


def test_words_of_scripts() -> None:
    """Word marks part words, and words of unspaced scripts are estimated from their letters."""
    texts = ["བོད་ཡིག་ནི།", "ሰላም፡ለዓለም፡ሁሉ", "日本語の学校", "ภาษาไทย", "한국어 문장"]
    found = statistics(texts)
    assert found["words"].tolist() == [3, 3, 6, 7, 2]
    assert found.estimated_words().tolist() == [3, 3, 3, 1.75, 2]
    lines = statistics(["十" * 15, "十" * 16, "한" * 16, "a" * 30, "ก" * 30])
    assert lines["short_lines"].tolist() == [1, 0, 0, 1, 1]
