"""What the filters look at: counts over every text of a batch, one idea a pass. Reads and writes
nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, mask, text_buffers
from groundup.refine.clean.unicode_classes import (
    BREAK,
    CLEANING_CLASSES,
    NEWLINE,
    NUMERALS,
    SENTENCE_ENDS,
    SPACE,
    UNSPACED,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.minhash import hash_words, words
from groundup.refine.filter.repetition import PARAGRAPHS, repeated_lines, repeated_words
from groundup.refine.kernels import Number, kernel

# A document of English sentences holds at least two of them (Rae et al. 2021, appendix A.1.1).
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
# A line of at most so many code points is short (Penedo et al. 2024).
SHORT_LINE = 30
# What each pass counts, in the order of its columns.
_CHARACTERS = ("chars", "alphanumeric", "unspaced", "hashes", "ellipses", "brackets")
_TOKENS = ("words", "word_chars", "letter_words", "sentences")
_LINES = (
    "lines",
    "bullet_lines",
    "ellipsis_lines",
    "longest_line",
    "ended_lines",
    "short_lines",
    "line_breaks",
)
_LINE_REPEATS = ("lines_compared", "duplicate_lines", "duplicate_line_bytes")
_PARAGRAPH_REPEATS = ("paragraphs", "duplicate_paragraphs", "duplicate_paragraph_bytes")
_WORD_REPEATS = (
    *(f"top_{n}gram_bytes" for n in range(2, 5)),
    *(f"duplicate_{n}gram_bytes" for n in range(5, 11)),
)


@dataclass(frozen=True)
class Statistics:
    """Counts over the texts of a batch; each pass runs when a rule first asks for one of its
    counts.
    """

    batch: pa.RecordBatch
    _done: dict[tuple[str, ...], Array] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Array:
        """Return a count by name, one number a text (float64)."""
        names = next(names for names in self._passes if name in names)
        if names not in self._done:
            self._done[names] = self._passes[names]()
        return self._done[names][:, names.index(name)].astype(np.float64)

    def share(self, part: str, whole: str) -> Array:
        """Return one count divided by another; 0 where there is nothing."""
        return self[part] / np.maximum(self[whole], 1)

    def holds(self, pattern: str) -> Array:
        """Return 1 for the texts in which a regular expression (RE2) finds something, else 0."""
        return mask(pc.match_substring_regex(self.batch.column("text"), pattern)).astype(np.float64)

    @cached_property
    def _texts(self) -> Texts:
        return text_buffers(self.batch.column("text"))

    @cached_property
    def _words(self) -> tuple[Array, Array, Array, Array]:
        return words(self._texts)

    @cached_property
    def _passes(self) -> dict[tuple[str, ...], Callable[[], Array]]:
        texts = self._texts
        return {
            ("bytes",): lambda: np.diff(texts[0])[:, None],
            _CHARACTERS: lambda: _characters(*texts, WORD_CLASSES),
            _TOKENS: lambda: _tokens(*texts, WORD_CLASSES, CLEANING_CLASSES, NUMERALS),
            _LINES: lambda: _lines(*texts, SENTENCE_ENDS),
            ("stop_words",): lambda: _distinct(
                self._words[0], self._words[3], hash_words(STOP_WORDS)
            ),
            _LINE_REPEATS: lambda: repeated_lines(*texts, 1),
            _PARAGRAPH_REPEATS: lambda: repeated_lines(*texts, PARAGRAPHS),
            _WORD_REPEATS: lambda: repeated_words(*self._words),
        }


@kernel
def _characters(offsets: Array, data: Array, classes: Array) -> Array:
    """Count code points, letters and digits, letters of unspaced scripts, "#", ellipses ("..." or
    "…"), curly brackets.
    """
    out = np.zeros((len(offsets) - 1, 6), np.int64)
    for text in range(len(offsets) - 1):
        i, dots, row = offsets[text], 0, out[text]
        while i < offsets[text + 1]:
            point, i = code_point(data, i, offsets[text + 1])
            kind = classes[point]
            dots = dots + 1 if point == 0x2E else 0
            row[0] += 1
            row[1] += kind != BREAK
            row[2] += kind == UNSPACED
            row[3] += point == 0x23
            row[4] += dots == 3 or point == 0x2026
            row[5] += point in (0x7B, 0x7D)
    return out


@kernel
def _tokens(offsets: Array, data: Array, classes: Array, spacing: Array, numbers: Array) -> Array:
    """Count words between white space, their code points, those with a letter, and those that end a
    sentence.

    In scripts without spaces every code point is a word of its own.
    """
    out = np.zeros((len(offsets) - 1, 4), np.int64)
    for text in range(len(offsets) - 1):
        i, row, inside, letter, ends = offsets[text], out[text], False, False, False
        while i < offsets[text + 1]:
            point, i = code_point(data, i, offsets[text + 1])
            if spacing[point] in (SPACE, NEWLINE):
                row[2] += inside and letter
                row[3] += inside and ends
                inside = letter = ends = False
                continue
            single = classes[point] == UNSPACED
            row[0] += single or not inside
            row[1] += 1
            row[2] += single
            row[3] += _is_full_width_end(point)
            inside = not single
            letter = not single and (letter or (classes[point] != BREAK and not numbers[point]))
            ends = _is_end(point) or (ends and _is_closer(point))
        row[2] += inside and letter
        row[3] += inside and ends
    return out


@kernel
def _is_end(point: int) -> bool:
    return point in (0x2E, 0x21, 0x3F, 0x2026)  # . ! ? …


@kernel
def _is_full_width_end(point: int) -> bool:
    return point in (0x3002, 0xFF01, 0xFF1F)  # ideographic full stop, full-width ! and ?


@kernel
def _is_closer(point: int) -> bool:
    return point in (0x22, 0x27, 0x29, 0x5D, 0x2019, 0x201D, 0xBB)  # quotes and brackets


@kernel
def _lines(offsets: Array, data: Array, stops: Array) -> Array:
    """Count lines with text, those that begin with a bullet, end in an ellipsis, end a sentence, or
    are short; and line breaks.

    The fourth column is the longest line in code points.
    """
    out = np.zeros((len(offsets) - 1, 7), np.int64)
    for text in range(len(offsets) - 1):
        begin, row = offsets[text], out[text]
        for i in range(offsets[text], offsets[text + 1] + 1):
            if i == offsets[text + 1] or data[i] == 0x0A:
                _count_line(data, begin, i, stops, row)
                row[6] += i < offsets[text + 1]
                begin = i + 1
    return out


@kernel
def _count_line(data: Array, begin: int, end: int, stops: Array, row: Array) -> None:
    chars = 0
    for i in range(begin, end):
        chars += data[i] & 0xC0 != 0x80
    row[3] = max(row[3], chars)
    while begin < end and data[begin] in (0x20, 0x09):
        begin += 1
    while end > begin and data[end - 1] in (0x20, 0x09):
        end -= 1
    if begin == end:
        return
    row[0] += 1
    row[1] += _is_bullet(code_point(data, begin, end)[0])
    dots = (
        end - begin >= 3
        and data[end - 1] == 0x2E
        and data[end - 2] == 0x2E
        and data[end - 3] == 0x2E
    )
    row[2] += dots or (end - begin >= 3 and code_point(data, end - 3, end)[0] == 0x2026)
    row[4] += stops[_last_point(data, begin, end)]
    row[5] += chars <= SHORT_LINE


@kernel
def _last_point(data: Array, begin: int, end: int) -> Number:
    at = end - 1
    while at > begin and data[at] & 0xC0 == 0x80:
        at -= 1
    return code_point(data, at, end)[0]


@kernel
def _is_bullet(point: int) -> bool:
    return point in (
        0x2D,
        0x2A,
        0x2022,
        0x2023,
        0x25AA,
        0x25CF,
        0x25E6,
        0xB7,
        0x2013,
    )  # - * • ‣ ▪ ● ◦ · –


@kernel
def _distinct(hashes: Array, first: Array, wanted: Array) -> Array:
    """Count how many of the wanted words occur in each text."""
    out = np.zeros((len(first) - 1, 1), np.int64)
    for text in range(len(first) - 1):
        seen = np.zeros(len(wanted), np.bool_)
        for k in range(first[text], first[text + 1]):
            for w in range(len(wanted)):
                seen[w] |= hashes[k] == wanted[w]
        out[text, 0] = seen.sum()
    return out
