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
    DENSE,
    LONG_WORDS,
    SENTENCE_ENDS,
    UNSPACED,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.minhash import Words, hash_words, words
from groundup.refine.filter.repeated_ngrams import repeated_words
from groundup.refine.filter.tokens import TOKENS, count_tokens
from groundup.refine.kernels import helper, kernel, kernel_with
from groundup.refine.scan import hash_bytes, next_byte, next_foreign, slot_of, table_size

# A document of English sentences holds at least two of these (Rae et al. 2021, appendix A.1.1).
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# Letters of a short line (Penedo et al. 2024). One of Han, Kana or Hangul counts as two.
SHORT_LINE = 30
# Code points of a word in scripts without spaces: about two in Chinese and Japanese, four in Thai,
# Lao, Burmese and Khmer. Elsewhere there are spaces.
SHORT_WORD, LONG_WORD = 2, 4
# Line breaks that end a paragraph; a line ends at one.
PARAGRAPHS = 2

# More bytes than a text of an Arrow array has.
_WHOLE = 1 << 31

# Columns of each kernel.
_CHARS = ("chars", "alphanumeric", "unspaced", "of_long_words", "hashes", "ellipses", "brackets")
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
        return count_distinct(hashes, first, hash_words(vocabulary))

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
    def languages(self) -> dict[str, Array]:
        """The mask of the texts in each language; "" is none."""
        column = pc.fill_null(self.batch.column("language"), "").dictionary_encode()
        of_text = column.indices.to_numpy()
        return {code: of_text == k for k, code in enumerate(column.dictionary.to_pylist())}

    def kept_words(self, keep: Array) -> Words | None:
        """Return the hashes of the words of the texts of a mask, if they have been found."""
        if "_words" not in self.__dict__:
            return None
        hashes, _, _, first = self._words
        return select_words(hashes, first, keep)

    @cached_property
    def _words(self) -> tuple[Array, Array, Array, Array]:
        return words(text_buffers(self.batch.column("text")))

    @property
    def _kernels(self) -> dict[tuple[str, ...], Callable[[], Array]]:
        # Not cached: these functions refer to the statistics, so a batch and its words would stay
        # in memory until the garbage collector looks for cycles.
        texts = text_buffers(self.batch.column("text"))
        return {
            ("bytes",): lambda: np.diff(texts[0])[:, None],
            _CHARS: lambda: _characters(*texts),
            TOKENS: lambda: count_tokens(*texts),
            _LINES: lambda: _lines(*texts),
            ("stop_words",): lambda: self.distinct(STOP_WORDS)[:, None],
            _LINE_REPEATS: lambda: repeated_lines(*texts, 1, _WHOLE),
            _PARAGRAPH_REPEATS: lambda: repeated_lines(*texts, PARAGRAPHS, _WHOLE),
            _WORD_REPEATS: lambda: repeated_words(*self._words, self._tokens_per_word()),
        }


@kernel_with(WORD_CLASSES, LONG_WORDS)
def _characters(classes: Array, long_words: Array, offsets: Array, data: Array) -> Array:
    """Count the properties in _CHARS: "#", ellipses and curly brackets are the last three."""
    out = np.zeros((len(offsets) - 1, 7), np.int64)
    for text in range(len(offsets) - 1):
        row, view = out[text], data[offsets[text] : offsets[text + 1]]
        chars = alphanumeric = hashes = brackets = 0
        # Without a branch, these loops compile to vector code.
        for byte in view:
            chars += byte & 0xC0 != 0x80
            hashes += byte == 0x23
            brackets += (byte == 0x7B) | (byte == 0x7D)
            alphanumeric += (byte - 0x30 <= 9) & (byte >= 0x30)
            alphanumeric += ((byte | 0x20) >= 0x61) & ((byte | 0x20) <= 0x7A)
        row[0], row[1], row[4], row[6] = chars, alphanumeric, hashes, brackets
        row[5] = _ellipses(view)
        i = next_foreign(view, 0, len(view))
        while i < len(view):
            point, i = code_point(view, i, len(view))
            kind = classes[point]
            row[1] += kind != BREAK
            row[2] += kind == UNSPACED
            row[3] += kind == UNSPACED and long_words[point]
            row[5] += point == 0x2026  # "…"
            if i < len(view) and view[i] < 0x80:
                i = next_foreign(view, i, len(view))
    return out


@helper
def _ellipses(text: Array) -> int:
    """Count the runs of three or more dots."""
    count = 0
    for k in range(len(text) - 2):
        dots = (text[k] == 0x2E) & (text[k + 1] == 0x2E) & (text[k + 2] == 0x2E)
        count += dots & ((k == 0) | (text[k - 1] != 0x2E))
    return count


@kernel_with(SENTENCE_ENDS, DENSE)
def _lines(sentence_ends: Array, dense: Array, offsets: Array, data: Array) -> Array:
    """Count lines with text, the properties in _LINES, and line breaks, per text."""
    out = np.zeros((len(offsets) - 1, 7), np.int64)
    for text in range(len(offsets) - 1):
        begin, row = offsets[text], out[text]
        while begin <= offsets[text + 1]:
            stop = next_byte(data, begin, offsets[text + 1], 0x0A)
            chars, high = 0, np.uint8(0)
            for byte in data[begin:stop]:
                chars += byte & 0xC0 != 0x80
                high |= byte
            row[3] = max(row[3], chars)
            row[6] += stop < offsets[text + 1]
            first, end = _strip(data, begin, stop)
            if first < end:
                row[0] += 1
                # - * • ‣ ▪ ● ◦ · –
                row[1] += code_point(data, first, end)[0] in _BULLETS
                # Three dots, or one character of three bytes.
                if end - first >= 3:
                    dots = data[end - 1] == 0x2E and data[end - 2] == 0x2E and data[end - 3] == 0x2E
                    row[2] += dots or code_point(data, end - 3, end)[0] == 0x2026
                last = end - 1
                while last > first and data[last] & 0xC0 == 0x80:
                    last -= 1
                row[4] += sentence_ends[code_point(data, last, end)[0]]
                # Dense letters begin with 0xE3 or more.
                if chars <= SHORT_LINE and high >= 0x80:
                    for k in range(begin, stop):
                        chars += data[k] >= 0xE3 and dense[code_point(data, k, stop)[0]]
                row[5] += chars <= SHORT_LINE
            begin = stop + 1
    return out


@helper
def _strip(data: Array, begin: int, end: int) -> tuple[int, int]:
    """Return the bounds of data[begin:end] without spaces and tabs at its ends."""
    while begin < end and data[begin] in (0x20, 0x09):
        begin += 1
    while end > begin and data[end - 1] in (0x20, 0x09):
        end -= 1
    return begin, end


@kernel
def repeated_lines(offsets: Array, data: Array, breaks: int, beginning: int) -> Array:
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
        lines = 1
        for byte in data[begin:stop]:
            lines += byte == 0x0A
        keys = np.zeros(table_size(lines), np.uint64)
        i = begin
        while i <= stop:
            end = i = next_byte(data, i, stop, 0x0A)
            while i < stop and i < end + breaks and data[i] == 0x0A:
                i += 1
            if i < min(stop, end + breaks):
                continue
            while begin < end and data[begin] in (0x20, 0x09, 0x0A):
                begin += 1
            if begin < end:
                key = hash_bytes(data, begin, end)
                slot = slot_of(keys, key)
                row[0] += 1
                if keys[slot]:
                    row[1] += 1
                    row[2] += end - begin
                keys[slot] = key
            begin = i = max(i, end + 1)
    return out


@kernel
def select_words(hashes: Array, first: Array, keep: Array) -> Words:
    """Return the words of the texts of a mask, and the indices of their first words."""
    kept = size = 0
    for text in range(len(keep)):
        if keep[text]:
            kept, size = kept + 1, size + first[text + 1] - first[text]
    if kept == len(keep):
        return hashes, first
    out, out_first, pos, k = np.empty(size, np.uint64), np.zeros(kept + 1, np.int64), 0, 0
    for text in range(len(keep)):
        if keep[text]:
            for i in range(first[text], first[text + 1]):
                out[pos] = hashes[i]
                pos += 1
            k += 1
            out_first[k] = pos
    return out, out_first


@kernel
def count_distinct(hashes: Array, first: Array, vocabulary: Array) -> Array:
    """Return how many of the words with the hashes `vocabulary` occur in each text."""
    out = np.zeros(len(first) - 1, np.int64)
    for text in range(len(first) - 1):
        for word in vocabulary:
            found = False
            for k in range(first[text], first[text + 1]):
                found |= hashes[np.uint64(k)] == word
            out[text] += found
    return out
