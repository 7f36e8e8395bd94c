"""Find the lines that a source repeats in many documents, and cut them out of all documents.

    Home | About us | Shop | Terms & Privacy                  in 4,000 pages of the source: cut
    This site uses cookies to make your visit better.         in 3,900 pages: cut
    The story is told like this, and nowhere else.            in 1 page: stays

A line is counted once per document that is not a duplicate, so a page with a thousand copies does
not turn its own text into boilerplate. Llama 3 removed lines that occur more than 6 times in 30
million documents (Grattafiori et al. 2024, arXiv 2407.21783, section 3.1.1).

White space at the ends of a line is ignored, and a run inside it is one space. Only a line of at
least MIN_WORDS plain words has a hash: headings, table cells and lines of code repeat legitimately.

A refined shard of a kind in LINE_KINDS holds for its n (line, document) pairs:

    lines.npy        uint64 [n]: hashes, ascending
    line_rows.npy    uint32 [n]: row of the document; ascending among equal hashes

They are read one range of hashes at a time, so no step holds the lines of a corpus. The step
refine/lines writes

    lines.parquet    the repeated lines (schema LINES)
    cuts/SHARD.npy   int64 [n, 3]: row, first byte, byte after the last
    dropped.parquet  documents of which next to nothing is left (DROPPED schema)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.artifacts.corpus import remove_spans
from groundup.artifacts.document import DROPPED, TableWriter, dropped_rows
from groundup.artifacts.kinds import KINDS
from groundup.refine.clean.unicode_classes import (
    CODE_POINTS,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.minhash import mix, unique, words
from groundup.refine.kernels import Number, helper, kernel, kernel_with
from groundup.refine.out_of_core import (
    DocumentTable,
    RowFile,
    Scratch,
    create_array,
    first_of_runs,
    hash_parts,
    hash_ranges,
    map_array,
)
from groundup.refine.scan import hash_bytes, next_byte
from groundup.runtime.run import build_step

BOILERPLATE = "boilerplate"
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
# The minimum share of documents beyond a million: in a larger source, more phrases repeat by
# chance.
MIN_SHARE = 1e-5
# A document with fewer words left is dropped.
MIN_WORDS_LEFT = 6
TEXT_CHARACTERS = 400

# `documents` counts the kept documents with the line; `example` is the id of one of them.
LINES = pa.schema(
    {"source": pa.string(), "hash": pa.uint64(), "documents": pa.int64()}
    | dict.fromkeys(("text", "example"), pa.string())
)


# The line index


@kernel_with(ROLES, TRANSITIONS)
def line_hashes(roles: Array, transitions: Array, texts: Texts) -> tuple[Array, Array]:
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


@helper
def max_lines(offsets: Array, data: Array) -> int:
    """Return an upper bound of the number of lines of texts."""
    return (data[offsets[0] : offsets[-1]] == NEWLINE).sum() + len(offsets)


@helper
def hash_line(
    data: Array, i: int, stop: int, roles: Array, transitions: Array
) -> tuple[int, Number]:
    """Return the end of the line at `i`, and its hash; 0 for too few plain words."""
    line_end = end = next_byte(data, i, stop, NEWLINE)
    if not _has_words(data, i, end, roles, transitions):
        return line_end, np.uint64(0)
    while _is_white(data[i]):
        i += 1
    while _is_white(data[end - 1]):
        end -= 1
    wide = False
    for k in range(i, end - 1):
        byte, following = data[np.uint64(k)], data[np.uint64(k) + np.uint64(1)]
        wide |= (byte == TAB) | ((byte == BLANK) & (following == BLANK))
    if wide:
        data = _folded(data[i:end])
        i, end = 0, len(data)
    return line_end, max(mix(hash_bytes(data, i, end)), np.uint64(1))


@helper
def _has_words(data: Array, i: int, stop: int, roles: Array, transitions: Array) -> bool:
    """Whether data[i:stop] holds MIN_WORDS plain words."""
    half_words, state = 0, _EMPTY
    while i < stop and half_words < 2 * MIN_WORDS:
        point, i = code_point(data, i, stop)
        role = roles[point]
        if role == _SPACE:
            half_words += 2 * (state in (_LETTERS, _ENDED))
        half_words += role == _SYLLABLE
        state = transitions[state, role]
    return half_words + 2 * (state in (_LETTERS, _ENDED)) >= 2 * MIN_WORDS


@helper
def _folded(line: Array) -> Array:
    """Return a line with each run of white space as one blank."""
    out, count = np.empty_like(line), 0
    for k in range(len(line)):
        is_white = _is_white(line[k])
        if not (is_white and k and _is_white(line[k - 1])):
            out[count] = BLANK if is_white else line[k]
            count += 1
    return out[:count]


@dataclass
class LineIndex:
    """Writes the line index of a shard to `folder`; `hashes` and `rows` are temporary files."""

    folder: Path
    hashes: RowFile
    rows: RowFile
    documents: int = 0

    def append(self, texts: Texts) -> None:
        """Add the lines of the next documents."""
        hashes, rows = line_hashes(texts)
        self.hashes.append(hashes)
        self.rows.append(rows + np.uint32(self.documents))
        self.documents += len(texts[0]) - 1

    def save(self) -> None:
        """Sort the lines, and write lines.npy and line_rows.npy."""
        hashes, rows, pos = self.hashes.view(), self.rows.view(), 0
        sorted_hashes = create_array(self.folder / "lines.npy", hashes.dtype, hashes.shape)
        sorted_rows = create_array(self.folder / "line_rows.npy", rows.dtype, rows.shape)
        for part in hash_parts(hashes, PART_LINES):
            # Rows are ascending, and a stable sort keeps them so among equal hashes.
            indices, end = part[np.argsort(hashes[part], kind="stable")], pos + len(part)
            sorted_hashes[pos:end], sorted_rows[pos:end] = hashes[indices], rows[indices]
            pos = end


def count_lines(shards: Sequence[Path], kept: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the lines of shards, ascending and unique, and the number of documents with each.

    `kept` has for each shard the mask of the rows that count.
    """
    indexes = [(map_array(shard, "lines"), map_array(shard, "line_rows")) for shard in shards]
    for low, high in hash_ranges(sum(len(hashes) for hashes, _ in indexes), PART_LINES):
        parts, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for (hashes, rows), mask in zip(indexes, kept, strict=True):
            begin = np.searchsorted(hashes, np.uint64(low))
            end = np.searchsorted(hashes, np.uint64(high), side="right")
            of_shard = hashes[begin:end][mask[rows[begin:end]]]
            first = first_of_runs(of_shard)
            parts.append(of_shard[first])
            counts.append(np.diff(first, append=len(of_shard)))
        # A stable sort merges sorted runs: one per shard.
        lines = np.concatenate(parts)
        order = np.argsort(lines, kind="stable")
        lines = lines[order]
        first = first_of_runs(lines)
        sums = np.concatenate([[0], np.cumsum(np.concatenate(counts)[order])])
        yield lines[first], np.diff(sums[np.append(first, len(lines))])


def rows_with(shard: Path, listed: Array, documents: int) -> Array:
    """Return the mask of the rows of a shard that hold a listed line (ascending, uint64)."""
    hashes, rows = map_array(shard, "lines"), map_array(shard, "line_rows")
    mask = np.zeros(documents, np.bool_)
    for begin in range(0, len(hashes) if len(listed) else 0, PART_LINES):
        block = hashes[begin : begin + PART_LINES]
        pos = np.minimum(np.searchsorted(listed, block), len(listed) - 1)
        mask[rows[begin : begin + PART_LINES][listed[pos] == block]] = True
    return mask


# The step refine/lines


@kernel_with(ROLES, TRANSITIONS)
def find_lines(roles: Array, transitions: Array, texts: Texts, listed: Array) -> Array:
    """Return the listed lines in texts, int64 [n, 4]: row, index in `listed`, first byte, end.

    `listed` has hashes, ascending and unique. Bytes count from the beginning of a text.
    """
    offsets, data = texts
    out, pos = np.empty((max_lines(offsets, data), 4), np.int64), 0
    for text in range(len(offsets) - 1):
        i = start = offsets[text]
        while i < offsets[text + 1]:
            end, hashed = hash_line(data, i, offsets[text + 1], roles, transitions)
            k = np.searchsorted(listed, hashed)
            if hashed and k < len(listed) and listed[k] == hashed:
                out[pos, 0], out[pos, 1], out[pos, 2], out[pos, 3] = text, k, i - start, end - start
                pos += 1
            i = end + 1
    return out[:pos].copy()


@kernel
def line_cuts(texts: Texts, lines: Array) -> Array:
    """Return what to cut, int64 [n, 3]: row, first byte and end, ascending and disjoint.

    Lines separated only by white space are one cut. Of the white space before and after it, the
    longer one stays, and none at the ends of the text, so normalized white space stays normalized.
    The indentation of the line after it stays. Arguments are those and the result of `find_lines`.
    """
    offsets, data = texts
    out, count, k = np.empty((len(lines), 3), np.int64), 0, 0
    while k < len(lines):
        row, start, stop = lines[k, 0], offsets[lines[k, 0]], offsets[lines[k, 0] + 1]
        before = begin = start + lines[k, 2]
        behind = begin
        while k < len(lines) and lines[k, 0] == row and start + lines[k, 2] <= behind:
            behind = end = start + lines[k, 3]
            while behind < stop and _is_white(data[behind]):
                behind += 1
            k += 1
        while before > start and _is_white(data[before - 1]):
            before -= 1
        if before > start and behind < stop:
            while data[behind - 1] != NEWLINE:
                behind -= 1
            if begin - before >= behind - end:
                before = begin
            else:
                behind = end
        out[count, 0], out[count, 1], out[count, 2] = row, before - start, behind - start
        count += 1
    return out[:count].copy()


@helper
def _is_white(byte: int) -> bool:
    return byte in (NEWLINE, BLANK, TAB)


class RepeatedLines:
    """The repeated lines of one source, and what cutting them affects."""

    def __init__(
        self, source: str, hashes: Array, counts: Array, lines: TableWriter, dropped: TableWriter
    ) -> None:
        # `hashes` are ascending; `counts` are the kept documents with each line.
        self.source, self.hashes, self.counts = source, hashes, counts
        self.lines, self.dropped = lines, dropped
        # Mask of the lines that `lines` has already.
        self.written = np.zeros(len(hashes), np.bool_)
        # Lines, bytes cut, documents with a cut, documents dropped.
        self.facts = {"lines": len(hashes), "bytes": 0, "documents": 0, "dropped": 0}

    def cut(self, shard: tuple[str, Path], kept: Array) -> Array:
        """Return the cuts of a shard; list its lines, and the documents left without words."""
        parts, columns = [np.zeros((0, 3), np.int64)], ["id", "source", "origin", "record", "text"]
        affected = kept & rows_with(shard[1], self.hashes, len(kept))
        for rows, batch in DocumentTable([shard]).batches(columns, affected):
            texts = text_buffers(batch.column("text"))
            hits = find_lines(texts, self.hashes)
            self._write_lines(batch, hits)
            cuts = line_cuts(texts, hits)
            parts.append(np.column_stack([rows[cuts[:, 0]], cuts[:, 1:]]))
            self.facts["bytes"] += int((cuts[:, 2] - cuts[:, 1]).sum())
            self.facts["documents"] += len(rows)
            rest = remove_spans(batch.column("text"), cuts[:, 0], cuts[:, 1:])
            left = np.diff(words(text_buffers(rest))[3])
            empty = left < MIN_WORDS_LEFT
            if empty.any():
                self.facts["dropped"] += int(empty.sum())
                removed = np.bincount(cuts[:, 0], cuts[:, 2] - cuts[:, 1], len(batch))
                shares = pa.array((removed / np.maximum(np.diff(texts[0]), 1))[empty])
                note = "words are left without the lines that its source repeats"
                details = pa.array([f"{count} {note}" for count in left[empty].tolist()])
                reasons, out = pa.repeat(BOILERPLATE, len(details)), batch.filter(pa.array(empty))
                self.dropped.write(dropped_rows(out, reasons, shares, details))
        return np.concatenate(parts)

    def _write_lines(self, batch: pa.RecordBatch, hits: Array) -> None:
        """Write the lines that occur for the first time, with their text and an example."""
        indices, first = np.unique(hits[:, 1], return_index=True)
        for row, k, begin, end in hits[np.sort(first[~self.written[indices]])].tolist():
            line = batch.column("text")[row].as_buffer()[begin:end].to_pybytes()
            text = " ".join(line.decode("utf-8", "replace").split())
            short = text[:TEXT_CHARACTERS] + (" …" if len(text) > TEXT_CHARACTERS else "")
            example, hashed = batch.column("id")[row].as_py(), int(self.hashes[k])
            entry = (self.source, hashed, int(self.counts[k]), short, example)
            self.lines.add(dict(zip(LINES.names, entry, strict=True)), 64 + len(short))
        self.written[indices] = True


@build_step("refine/lines", version=1)
def find_repeated_lines(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    duplicates: Path,
    fewest: int,
) -> dict[str, Any]:
    """List the lines that at least `fewest` documents of a source hold, and cut them out of all.

    Documents in the list `duplicates` are not counted; `kinds` has the kind of each source.
    """
    table, facts = DocumentTable(shards), dict[str, dict[str, int]]()
    (folder / "cuts").mkdir()
    with (
        Scratch(folder / ".scratch") as scratch,
        TableWriter(folder / "lines.parquet", LINES) as lines,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        kept = scratch.kept(table, [duplicates])
        for source in (name for name in table.sources if kinds[name] in LINE_KINDS):
            spans = zip(shards, table.spans, strict=True)
            members = [(s, kept[span]) for s, span in spans if s[0].rpartition(".")[0] == source]
            masks = [mask for _, mask in members]
            least = max(fewest, int(np.ceil(MIN_SHARE * sum(int(mask.sum()) for mask in masks))))
            with scratch.rows("lines", np.uint64) as hashes, scratch.rows("n", np.int64) as counts:
                for block, documents in count_lines([path for (_, path), _ in members], masks):
                    hashes.append(block[documents >= least])
                    counts.append(documents[documents >= least])
                repeated = RepeatedLines(source, hashes.view(), counts.view(), lines, dropped)
                for shard, mask in members:
                    if len(cuts := repeated.cut(shard, mask)):
                        np.save(folder / "cuts" / f"{shard[0]}.npy", cuts)
                facts[source] = repeated.facts
    return {"sources": facts}
