"""Hashes of lines, and the line index of a shard.

White space at the ends of a line is ignored, and a run inside it is one space. Only a line of at
least MIN_WORDS plain words has a hash: headings, table cells and lines of code repeat legitimately.

A refined shard of a kind in LINE_KINDS holds for its n (line, document) pairs:

    lines.npy       uint64 [n]   hashes, ascending
    line_rows.npy   uint32 [n]   row of the document; ascending among equal hashes

They are read one range of hashes at a time, so no step holds the lines of a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.artifacts.kinds import KINDS
from groundup.refine.clean.unicode_classes import (
    CODE_POINTS,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.minhash import mix, unique
from groundup.refine.kernels import Number, kernel, kernel_with
from groundup.refine.out_of_core import RowFile, hash_ranges, in_range

# Kinds whose repeated lines are boilerplate. `return None` in code, "Yes, please." in a
# conversation and "CHAPTER I" in a book are not.
LINE_KINDS = frozenset(name for name, kind in KINDS.items() if kind.has_boilerplate_lines)
# A plain word consists of letters, with punctuation around it; a character of a script without
# spaces is half a word. In real pages, most repeated lines below six words are headings and code,
# and most from six on are boilerplate (docs/experiments.md).
MIN_WORDS = 6
# Lines sorted or counted at a time: about 160 MB with the copies that sorting makes.
PART_LINES = 4_000_000

NEWLINE, BLANK, TAB = 0x0A, 0x20, 0x09
# Roles of characters.
_LETTER, _JOIN, _DIGIT, _SIGN, _SPACE, _SYLLABLE = range(6)
# States between two spaces: empty, letters, letters and then a sign, not a plain word.
_EMPTY, _LETTERS, _ENDED, _BROKEN = range(4)
# The next state, by state and role: letter, apostrophe or hyphen, digit, sign, space, syllable.
TRANSITIONS = np.array(
    [
        [_LETTERS, _EMPTY, _BROKEN, _EMPTY, _EMPTY, _EMPTY],
        [_LETTERS, _LETTERS, _BROKEN, _ENDED, _EMPTY, _LETTERS],
        [_BROKEN, _ENDED, _BROKEN, _ENDED, _EMPTY, _ENDED],
        [_BROKEN, _BROKEN, _BROKEN, _BROKEN, _EMPTY, _BROKEN],
    ],
    np.uint8,
)
# The role of every code point.
ROLES = np.full(CODE_POINTS, _SIGN, np.uint8)
ROLES[WORD_CLASSES == WORD] = _LETTER
ROLES[WORD_CLASSES == UNSPACED] = _SYLLABLE
ROLES[ord("0") : ord("9") + 1] = _DIGIT
ROLES[[ord("'"), ord("-"), 0x2019]] = _JOIN
ROLES[[BLANK, TAB]] = _SPACE
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@kernel_with(ROLES, TRANSITIONS)
def line_hashes(texts: Texts, roles: Array, transitions: Array) -> tuple[Array, Array]:
    """Return the line hashes of texts (uint64), ascending and unique in each, and their rows."""
    offsets, data = texts
    size = max_lines(offsets, data)
    hashes, rows = np.empty(size, np.uint64), np.empty(size, np.uint32)
    pos = 0
    for text in range(len(offsets) - 1):
        i, first = offsets[text], pos
        while i < offsets[text + 1]:
            i, hashes[pos] = hash_line(data, i, offsets[text + 1], roles, transitions)
            i, pos = i + 1, pos + (hashes[pos] != 0)
        pos = first + unique(hashes[first:pos])
        rows[first:pos] = text
    return hashes[:pos], rows[:pos]


@kernel
def max_lines(offsets: Array, data: Array) -> int:
    """Return an upper bound of the number of lines of texts."""
    return (data[offsets[0] : offsets[-1]] == NEWLINE).sum() + len(offsets)


@kernel
def hash_line(
    data: Array, i: int, stop: int, roles: Array, transitions: Array
) -> tuple[int, Number]:
    """Return the end of the line at `i`, and its hash (FNV-1a); 0 for too few plain words."""
    hashed, half_words, state, gap = _FNV_BASIS, 0, _EMPTY, False
    while i < stop and data[i] != NEWLINE:
        begin = i
        point, i = code_point(data, i, stop)
        role = roles[point]
        if role == _SPACE:
            gap = hashed != _FNV_BASIS
            half_words += 2 * (state in (_LETTERS, _ENDED))
        else:
            if gap:
                hashed, gap = (hashed ^ np.uint64(BLANK)) * _FNV_PRIME, False
            for k in range(begin, i):
                hashed = (hashed ^ np.uint64(data[k])) * _FNV_PRIME
            half_words += role == _SYLLABLE
        state = transitions[state, role]
    half_words += 2 * (state in (_LETTERS, _ENDED))
    return i, max(mix(hashed), np.uint64(1)) if half_words >= 2 * MIN_WORDS else np.uint64(0)


@dataclass
class LineIndex:
    """Writes the line index of a shard."""

    folder: Path
    hashes: RowFile
    rows: RowFile
    documents: int = 0

    @staticmethod
    @contextmanager
    def open(folder: Path) -> Iterator[LineIndex]:
        """Open the temporary files of an index."""
        with (
            RowFile(folder / ".line_hashes", np.dtype(np.uint64)) as hashes,
            RowFile(folder / ".line_rows", np.dtype(np.uint32)) as rows,
        ):
            yield LineIndex(folder, hashes, rows)

    def append(self, texts: Texts) -> None:
        """Add the lines of the next documents."""
        hashes, rows = line_hashes(texts)
        self.hashes.append(hashes)
        self.rows.append(rows + np.uint32(self.documents))
        self.documents += len(texts[0]) - 1

    def save(self) -> None:
        """Sort the lines, and write lines.npy and line_rows.npy."""
        columns = {"lines": self.hashes.view(), "line_rows": self.rows.view()}
        hashes, outputs = columns["lines"], []
        for name, column in columns.items():
            path = self.folder / f"{name}.npy"
            if len(column) == 0:
                np.save(path, column)
                continue
            out = np.lib.format.open_memmap(path, "w+", column.dtype, column.shape)
            outputs.append((column, out))
        pos = 0
        for low, high in hash_ranges(len(hashes), PART_LINES):
            indices = in_range(hashes, low, high)
            # Rows are ascending, and a stable sort keeps them so among equal hashes.
            indices = indices[np.argsort(hashes[indices], kind="stable")]
            for column, out in outputs:
                out[pos : pos + len(indices)] = column[indices]
            pos += len(indices)


def count_lines(shards: Sequence[Path], kept: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the lines of shards, ascending and unique, and the number of kept documents of each.

    Args:
        shards: folders of refined shards.
        kept: for each of them the mask of the rows that count.
    """
    indexes = [(_open(shard, "lines"), _open(shard, "line_rows")) for shard in shards]
    for low, high in hash_ranges(sum(len(hashes) for hashes, _ in indexes), PART_LINES):
        parts, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for (hashes, rows), mask in zip(indexes, kept, strict=True):
            begin = np.searchsorted(hashes, np.uint64(low))
            end = np.searchsorted(hashes, np.uint64(high), side="right")
            of_shard = hashes[begin:end][mask[rows[begin:end]]]
            first = _first_of_runs(of_shard)
            parts.append(of_shard[first])
            counts.append(np.diff(first, append=len(of_shard)))
        # A stable sort merges sorted runs: one per shard.
        lines = np.concatenate(parts)
        order = np.argsort(lines, kind="stable")
        lines = lines[order]
        first = _first_of_runs(lines)
        totals = counts[0]
        if len(first):
            totals = np.add.reduceat(np.concatenate(counts)[order], first)
        yield lines[first], totals


def _first_of_runs(values: Array) -> Array:
    """Return the index of the first of each run of equal values."""
    return np.flatnonzero(np.diff(values, prepend=~values[:1]))


def rows_with(shard: Path, listed: Array, documents: int) -> Array:
    """Return the mask of the rows of a shard that hold a listed line (ascending, uint64)."""
    hashes, rows = _open(shard, "lines"), _open(shard, "line_rows")
    mask = np.zeros(documents, np.bool_)
    for begin in range(0, len(hashes) if len(listed) else 0, PART_LINES):
        block = hashes[begin : begin + PART_LINES]
        pos = np.minimum(np.searchsorted(listed, block), len(listed) - 1)
        mask[rows[begin : begin + PART_LINES][listed[pos] == block]] = True
    return mask


def _open(shard: Path, name: str) -> Array:
    return np.load(shard / f"{name}.npy", mmap_mode="r").view(np.ndarray)
