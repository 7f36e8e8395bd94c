"""Statistics of texts that rules look at: one kernel per group of counts, run on first use.

Repetition follows Rae et al. 2021 (Gopher), appendix A.1.1 and table A1. It is counted in UTF-8
bytes, to be divided by the bytes of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, text_buffers
from groundup.refine.clean.unicode_classes import (
    BREAK,
    CLEANING_CLASSES,
    DENSE,
    LONG_WORDS,
    NEWLINE,
    NUMERALS,
    SENTENCE_ENDS,
    SPACE,
    UNSPACED,
    WORD_CLASSES,
    WORD_MARKS,
    code_point,
)
from groundup.refine.dedup.minhash import fnv, hash_words, mix, words
from groundup.refine.kernels import Number, kernel, kernel_with

# A document of English sentences holds at least two of these (Rae et al. 2021, appendix A.1.1).
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# Letters of a short line (Penedo et al. 2024). One of Han, Kana or Hangul counts as two.
SHORT_LINE = 30
# Code points of a word in scripts without spaces: about two in Chinese and Japanese, four in Thai,
# Lao, Burmese and Khmer. Elsewhere there are spaces.
SHORT_WORD, LONG_WORD = 2, 4
# Line breaks that end a paragraph; a line ends at one.
PARAGRAPHS = 2

# Columns of each kernel.
_CHARS = ("chars", "alphanumeric", "unspaced", "of_long_words", "hashes", "ellipses", "brackets")
_TOKENS = ("words", "word_chars", "letter_words", "sentences", "alphanumeric_words")
_LINES = (
    *("lines", "bullet_lines", "ellipsis_lines", "longest_line"),
    *("ended_lines", "short_lines", "line_breaks"),
)
_LINE_REPEATS = ("lines_compared", "duplicate_lines", "duplicate_line_bytes")
_PARAGRAPH_REPEATS = ("paragraphs", "duplicate_paragraphs", "duplicate_paragraph_bytes")
_WORD_REPEATS = (
    *(f"top_{n}gram_bytes" for n in range(2, 5)),
    *(f"duplicate_{n}gram_bytes" for n in range(5, 11)),
)
_BULLETS = (0x2D, 0x2A, 0x2022, 0x2023, 0x25AA, 0x25CF, 0x25E6, 0xB7, 0x2013)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Statistics:
    """Counts over the texts of a batch; a kernel runs on the first use of one of its counts."""

    batch: pa.RecordBatch
    _done: dict[tuple[str, ...], Array] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Array:
        """Return a count by name, one number per text (float64)."""
        names = next(names for names in self._kernels if name in names)
        if names not in self._done:
            self._done[names] = self._kernels[names]()
        return self._done[names][:, names.index(name)].astype(np.float64)

    def share(self, part: str, whole: str) -> Array:
        """Return one count divided by another; 0 for an empty text."""
        return self[part] / np.maximum(self[whole], 1)

    def matches(self, pattern: str) -> Array:
        """Return 1 for the texts in which a regular expression (RE2) matches, else 0."""
        return mask(pc.match_substring_regex(self.batch.column("text"), pattern)).astype(np.float64)

    def distinct(self, vocabulary: Sequence[str]) -> Array:
        """Return how many of the words of `vocabulary` occur in each text."""
        hashes, _, _, first = self._words
        text_of_word = np.repeat(np.arange(len(self.batch)), np.diff(first))
        present = np.zeros((len(self.batch), len(vocabulary)), np.bool_)
        for column, word in enumerate(hash_words(vocabulary)):
            present[text_of_word[hashes == word], column] = True
        return present.sum(axis=1)

    def word_length(self) -> Array:
        """Return the mean length of words; NaN where most letters are of unspaced scripts."""
        spaced = self["words"] - self["unspaced"]
        mean = (self["word_chars"] - self["unspaced"]) / np.maximum(spaced, 1)
        return np.where(spaced > self["unspaced"], mean, np.nan)

    def estimated_words(self) -> Array:
        """Return the number of words, where scripts without spaces have several letters to one."""
        long, spaced = self["of_long_words"], self["words"] - self["unspaced"]
        return spaced + (self["unspaced"] - long) / SHORT_WORD + long / LONG_WORD

    def _tokens_per_word(self) -> Array:
        """Return how many of the tokens in `_words` make a word: several in unspaced scripts."""
        tokens = np.diff(self._words[3])
        surplus = self["words"] - self.estimated_words()
        return np.rint(tokens / np.maximum(tokens - surplus, 1)).astype(np.int64)

    @cached_property
    def _words(self) -> tuple[Array, Array, Array, Array]:
        return words(text_buffers(self.batch.column("text")))

    @cached_property
    def _kernels(self) -> dict[tuple[str, ...], Callable[[], Array]]:
        texts = text_buffers(self.batch.column("text"))
        return {
            ("bytes",): lambda: np.diff(texts[0])[:, None],
            _CHARS: lambda: _characters(*texts),
            _TOKENS: lambda: count_tokens(*texts),
            _LINES: lambda: _lines(*texts),
            ("stop_words",): lambda: self.distinct(STOP_WORDS)[:, None],
            _LINE_REPEATS: lambda: repeated_lines(*texts, 1),
            _PARAGRAPH_REPEATS: lambda: repeated_lines(*texts, PARAGRAPHS),
            _WORD_REPEATS: lambda: repeated_words(*self._words, self._tokens_per_word()),
        }


@kernel_with(WORD_CLASSES, LONG_WORDS)
def _characters(classes: Array, long_words: Array, offsets: Array, data: Array) -> Array:
    """Count the properties in _CHARS: "#", ellipses and curly brackets are the last three."""
    out = np.zeros((len(offsets) - 1, 7), np.int64)
    for text in range(len(offsets) - 1):
        i, dots, row = offsets[text], 0, out[text]
        while i < offsets[text + 1]:
            point, i = code_point(data, i, offsets[text + 1])
            kind = classes[point]
            dots = dots + 1 if point == 0x2E else 0
            row[0] += 1
            row[1] += kind != BREAK
            row[2] += kind == UNSPACED
            row[3] += kind == UNSPACED and long_words[point]
            row[4] += point == 0x23
            row[5] += dots == 3 or point == 0x2026  # "..." or "…"
            row[6] += point in (0x7B, 0x7D)
    return out


@kernel_with(WORD_CLASSES, CLEANING_CLASSES, NUMERALS, WORD_MARKS)
def count_tokens(
    classes: Array, spacing: Array, numerals: Array, marks: Array, offsets: Array, data: Array
) -> Array:
    """Count the properties in _TOKENS: words, their code points, words with a letter, sentence
    ends, and words with a letter or a digit.

    White space and word marks separate words. In scripts without spaces every code point is one.
    """
    out = np.zeros((len(offsets) - 1, 5), np.int64)
    for text in range(len(offsets) - 1):
        i, row, inside, letter, ends, alnum = offsets[text], out[text], False, False, False, False
        while i < offsets[text + 1]:
            point, i = code_point(data, i, offsets[text + 1])
            if spacing[point] in (SPACE, NEWLINE) or marks[point]:
                row[2] += inside and letter
                row[3] += inside and ends
                row[4] += inside and alnum
                inside = letter = ends = alnum = False
                continue
            single = classes[point] == UNSPACED
            row[0] += single or not inside
            row[1] += 1
            row[2] += single
            row[3] += point in (0x3002, 0xFF01, 0xFF1F)  # 。！？
            row[4] += single
            inside = not single
            letter = not single and (letter or (classes[point] != BREAK and not numerals[point]))
            alnum = not single and (alnum or classes[point] != BREAK or numerals[point])
            # A sentence ends in . ! ? … and quotes or brackets that close after it.
            closer = point in (0x22, 0x27, 0x29, 0x5D, 0x2019, 0x201D, 0xBB)
            ends = point in (0x2E, 0x21, 0x3F, 0x2026) or (ends and closer)
        row[2] += inside and letter
        row[3] += inside and ends
        row[4] += inside and alnum
    return out


@kernel_with(SENTENCE_ENDS, DENSE)
def _lines(sentence_ends: Array, dense: Array, offsets: Array, data: Array) -> Array:
    """Count lines with text, the properties in _LINES, and line breaks, per text."""
    out = np.zeros((len(offsets) - 1, 7), np.int64)
    for text in range(len(offsets) - 1):
        begin, row = offsets[text], out[text]
        for stop in range(offsets[text], offsets[text + 1] + 1):
            if stop < offsets[text + 1] and data[stop] != 0x0A:
                continue
            chars = dense_letters = 0
            for k in range(begin, stop):
                chars += data[k] & 0xC0 != 0x80
                # Dense letters begin with 0xE3 or more.
                dense_letters += data[k] >= 0xE3 and dense[code_point(data, k, stop)[0]]
            row[3] = max(row[3], chars)
            end = stop
            while begin < end and data[begin] in (0x20, 0x09):
                begin += 1
            while end > begin and data[end - 1] in (0x20, 0x09):
                end -= 1
            if begin < end:
                row[0] += 1
                # - * • ‣ ▪ ● ◦ · –
                row[1] += code_point(data, begin, end)[0] in _BULLETS
                # Three dots, or one character of three bytes.
                if end - begin >= 3:
                    dots = data[end - 1] == 0x2E and data[end - 2] == 0x2E and data[end - 3] == 0x2E
                    row[2] += dots or code_point(data, end - 3, end)[0] == 0x2026
                last = end - 1
                while last > begin and data[last] & 0xC0 == 0x80:
                    last -= 1
                row[4] += sentence_ends[code_point(data, last, end)[0]]
                row[5] += chars + dense_letters <= SHORT_LINE
            row[6] += stop < offsets[text + 1]
            begin = stop + 1
    return out


@kernel
def _slot(keys: Array, used: Array, key: Number) -> Number:
    """Return the slot of `key` in an open-addressing table whose size is a power of two."""
    last = np.uint64(len(keys) - 1)
    pos = key & last
    while used[pos] and keys[pos] != key:
        pos = (pos + np.uint64(1)) & last
    return np.int64(pos)


@kernel
def _table_size(count: int) -> int:
    size = 4
    while size < 2 * count:
        size *= 2
    return size


@kernel
def repeated_lines(offsets: Array, data: Array, breaks: int, beginning: int = 1 << 31) -> Array:
    """Count lines (or paragraphs, for `breaks` = 2) that occurred before in their text.

    Only the beginning of a text is read: whole characters in at most `beginning` bytes. Returns
    lines with text, repeated ones, bytes of these, and bytes read, shape (n, 4).
    """
    out = np.zeros((len(offsets) - 1, 4), np.int64)
    for text in range(len(offsets) - 1):
        begin, row = offsets[text], out[text]
        stop = min(begin + beginning, offsets[text + 1])
        while begin < stop < offsets[text + 1] and data[stop] & 0xC0 == 0x80:
            stop -= 1
        row[3] = stop - begin
        size = _table_size((data[begin:stop] == 0x0A).sum() + 1)
        keys, used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
        newlines = 0
        for i in range(begin, stop + 1):
            newlines = newlines + 1 if i < stop and data[i] == 0x0A else 0
            if i < stop and newlines < breaks:
                continue
            end = min(i + 1 - newlines, stop)
            while begin < end and data[begin] in (0x20, 0x09, 0x0A):
                begin += 1
            if begin < end:
                key = mix(fnv(np.uint64(0), data, begin, end))
                pos = _slot(keys, used, key)
                row[0] += 1
                if used[pos]:
                    row[1] += 1
                    row[2] += end - begin
                keys[pos], used[pos] = key, True
            begin, newlines = i + 1, 0
    return out


@kernel
def repeated_words(
    hashes: Array, starts: Array, ends: Array, first: Array, tokens_per_word: Array
) -> Array:
    """Return the bytes of repeated n-grams of words in each text, n = 2 … 10, shape (texts, 9).

    Up to n = 4 all copies of the most frequent one, then all that occurred before, no byte twice.
    """
    out = np.zeros((len(first) - 1, 9), np.int64)
    for text in range(len(first) - 1):
        begin, count = first[text], first[text + 1] - first[text]
        size = _table_size(count)
        keys, used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
        copies = np.empty(size, np.int32)
        # Polynomial hashes of all prefixes; the hash of any run of words is a difference of two.
        prefix, unit = np.zeros(count + 1, np.uint64), np.uint64(1)
        for k in range(count):
            prefix[k + 1] = prefix[k] * _BASE + hashes[begin + k]
        for _ in range(tokens_per_word[text]):
            unit *= _BASE
        power = unit
        for n in range(2, 11):
            power *= unit
            tokens = n * tokens_per_word[text]
            used[:] = False
            most, total, i = 1, 0, 0
            while i + tokens <= count:
                key = mix(prefix[i + tokens] - prefix[i] * power)
                pos = _slot(keys, used, key)
                length = ends[begin + i + tokens - 1] - starts[begin + i]
                repeated = used[pos]
                copies[pos] = copies[pos] + 1 if repeated else 1
                keys[pos], used[pos] = key, True
                if n < 5:
                    if copies[pos] > most or (copies[pos] == most > 1 and length * most > total):
                        most, total = copies[pos], length * copies[pos]
                elif repeated:
                    total += length
                i += tokens if n >= 5 and repeated else 1
            out[text, n - 2] = total
    return out
