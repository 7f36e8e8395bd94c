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

A range of hashes is a slice of each file, so counting is a task for each range, which holds no more
than that. Cutting is a task for each shard:

    step                 one artifact per   files
    refine/line_counts   source, range      hashes.npy (uint64, ascending) and counts.npy (int64):
                                            the lines that enough documents hold
    refine/cuts          shard              cuts.npy, int64 [n, 3]: row, first byte, byte after the
                                            last; the LSH index of the texts with cuts, and
                                            documents.npy, int64: their rows; lines.parquet, their
                                            lines (schema FOUND); dropped.parquet, documents of
                                            which next to nothing is left (DROPPED schema)
    refine/lines         run                lines.parquet (schema LINES) and dropped.parquet, joined
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.artifacts.corpus import remove_spans
from groundup.artifacts.document import DROPPED, TableWriter, dropped_rows, read_batches
from groundup.artifacts.kinds import KINDS
from groundup.refine.clean.unicode_classes import (
    CODE_POINTS,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.lsh_index import WIDTH, document_keys, write_index
from groundup.refine.dedup.minhash import mix, unique, words
from groundup.refine.kernels import Number, helper, kernel, kernel_with
from groundup.refine.out_of_core import (
    DocumentTable,
    IndexedShard,
    RowFile,
    create_array,
    first_of_runs,
    hash_parts,
    map_array,
)
from groundup.refine.scan import hash_bytes, next_byte
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

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
FOUND = pa.schema([LINES.field(name) for name in ("hash", "text", "example")])


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
    count = len(offsets)
    for byte in data[offsets[0] : offsets[-1]]:
        count += byte == NEWLINE
    return count


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


def min_documents(fewest: int, documents: int) -> int:
    """Return how many of a source's documents have to hold a line: `fewest`, or MIN_SHARE."""
    return max(fewest, math.ceil(MIN_SHARE * documents))


def count_lines(shards: Iterable[tuple[Path, Array]], low: int, high: int) -> tuple[Array, Array]:
    """Return the lines of shards whose hashes are low to high, and the documents with each.

    Lines are ascending and unique. A shard comes with the mask of the rows that count.
    """
    parts, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for shard, mask in shards:
        hashes, rows = map_array(shard, "lines"), map_array(shard, "line_rows")
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
    return lines[first], np.diff(sums[np.append(first, len(lines))])


def rows_with(shard: Path, listed: Array, documents: int) -> Array:
    """Return the mask of the rows of a shard that hold a listed line (ascending, uint64)."""
    hashes, rows = map_array(shard, "lines"), map_array(shard, "line_rows")
    mask = np.zeros(documents, np.bool_)
    for begin in range(0, len(hashes) if len(listed) else 0, PART_LINES):
        block = hashes[begin : begin + PART_LINES]
        pos = np.minimum(np.searchsorted(listed, block), len(listed) - 1)
        mask[rows[begin : begin + PART_LINES][listed[pos] == block]] = True
    return mask


# Cutting


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


# The steps


@build_step("refine/line_counts", version=1)
def find_repeated_lines(
    folder: Path, shards: Sequence[IndexedShard], duplicates: Path, fewest: int, low: int, high: int
) -> Facts:
    """List the lines with hashes of low to high that at least `fewest` documents of `shards` hold.

    Documents in the list `duplicates` (listed.npy) are not counted.
    """
    lines, counts = count_lines(((s.folder, s.unlisted(duplicates)) for s in shards), low, high)
    repeated = counts >= fewest
    np.save(folder / "hashes.npy", lines[repeated])
    np.save(folder / "counts.npy", counts[repeated])
    return {"lines": int(repeated.sum())}


@build_step("refine/cuts", version=1)
def cut_lines(
    folder: Path, shard: IndexedShard, duplicates: Path, repeated: Sequence[Path]
) -> Facts:
    """Find the `repeated` lines in the documents of a shard, and what is left without them.

    `repeated` are artifacts of `find_repeated_lines` by ascending hashes. Documents in the list
    `duplicates` stay as they are.
    """
    with ExitStack() as stack:
        cutter = LineCutter(folder, repeated, stack)
        affected = shard.unlisted(duplicates)
        affected &= rows_with(shard.folder, cutter.hashes, len(affected))
        columns = ["id", "source", "origin", "record", "text"]
        for rows, batch in DocumentTable([(shard.name, shard.folder)]).batches(columns, affected):
            cutter.cut(rows, batch)
        cutter.save(np.flatnonzero(affected))
        return cutter.facts


class LineCutter:
    """Cuts repeated lines out of documents, and writes what that changes to a folder."""

    def __init__(self, folder: Path, repeated: Sequence[Path], stack: ExitStack) -> None:
        self.folder = folder
        # Ascending, as the ranges are.
        self.hashes = np.concatenate([map_array(path, "hashes") for path in repeated])
        # Mask of the lines that `lines` has already.
        self.written = np.zeros(len(self.hashes), np.bool_)
        self.lines = stack.enter_context(TableWriter(folder / "lines.parquet", FOUND))
        self.dropped = stack.enter_context(TableWriter(folder / "dropped.parquet", DROPPED))
        keys = RowFile(folder / ".keys", np.dtype(np.uint64), WIDTH)
        self.keys, self.cuts = stack.enter_context(keys), [np.zeros((0, 3), np.int64)]
        # Bytes cut, documents with a cut, documents dropped.
        self.facts = {"bytes": 0, "documents": 0, "dropped": 0}

    def cut(self, rows: Array, batch: pa.RecordBatch) -> None:
        """Cut the lines of documents, all of which hold some."""
        texts = text_buffers(batch.column("text"))
        hits = find_lines(texts, self.hashes)
        self._write_lines(batch, hits)
        cuts = line_cuts(texts, hits)
        self.cuts.append(np.column_stack([rows[cuts[:, 0]], cuts[:, 1:]]))
        rest = text_buffers(remove_spans(batch.column("text"), cuts[:, 0], cuts[:, 1:]))
        hashes, _, _, first_words = words(rest)
        # The split compares what is left: its keys are those of these texts.
        self.keys.append(document_keys(rest, (hashes, first_words))[0])
        left = np.diff(first_words)
        empty = left < MIN_WORDS_LEFT
        removed = np.bincount(cuts[:, 0], cuts[:, 2] - cuts[:, 1], len(batch))
        self.facts["bytes"] += int(removed.sum())
        self.facts["documents"] += len(rows)
        self.facts["dropped"] += int(empty.sum())
        shares = pa.array((removed / np.maximum(np.diff(texts[0]), 1))[empty])
        note = "words are left without the lines that its source repeats"
        details = pa.array([f"{count} {note}" for count in left[empty].tolist()], pa.string())
        reasons, out = pa.repeat(BOILERPLATE, len(details)), batch.filter(pa.array(empty))
        self.dropped.write(dropped_rows(out, reasons, shares, details))

    def _write_lines(self, batch: pa.RecordBatch, hits: Array) -> None:
        """Write the lines that occur for the first time, with their text and an example."""
        indices, first = np.unique(hits[:, 1], return_index=True)
        for row, k, begin, end in hits[np.sort(first[~self.written[indices]])].tolist():
            line = batch.column("text")[row].as_buffer()[begin:end].to_pybytes()
            text = " ".join(line.decode("utf-8", "replace").split())
            short = text[:TEXT_CHARACTERS] + (" …" if len(text) > TEXT_CHARACTERS else "")
            entry = (int(self.hashes[k]), short, batch.column("id")[row].as_py())
            self.lines.add(dict(zip(FOUND.names, entry, strict=True)), 64 + len(short))
        self.written[indices] = True

    def save(self, rows: Array) -> None:
        """Write the cuts, and the index of the rows with cuts."""
        np.save(self.folder / "cuts.npy", np.concatenate(self.cuts))
        np.save(self.folder / "documents.npy", rows)
        write_index(self.folder, self.keys)


@build_step("refine/lines", version=2)
def list_lines(
    folder: Path,
    repeated: Mapping[str, Sequence[Path]],
    cuts: Mapping[str, Sequence[tuple[Path, Facts]]],
) -> Facts:
    """Join the repeated lines and the dropped documents of all sources.

    `repeated` and `cuts` have the artifacts of `find_repeated_lines` and `cut_lines` by source, the
    latter with their facts. An example of a line is in the first shard that holds it.
    """
    sources = {}
    with (
        TableWriter(folder / "lines.parquet", LINES) as lines,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        for source, ranges in repeated.items():
            hashes, counts = (
                np.concatenate([map_array(path, name) for path in ranges])
                for name in ("hashes", "counts")
            )
            sums, written = Counter[str](), np.zeros(len(hashes), np.bool_)
            for path, facts in cuts.get(source, ()):
                sums.update(facts)
                for batch in read_batches([path / "dropped.parquet"]):
                    dropped.write(batch)
                for batch in read_batches([path / "lines.parquet"]):
                    indices = np.searchsorted(hashes, batch.column("hash").to_numpy())
                    new = ~written[indices]
                    written[indices] = True
                    first = batch.filter(pa.array(new)).to_pylist()
                    for line, count in zip(first, counts[indices[new]].tolist(), strict=True):
                        entry = {"source": source, **line, "documents": count}
                        lines.add(entry, 64 + len(line["text"]))
            names = ("bytes", "documents", "dropped")
            sources[source] = {"lines": len(hashes)} | {name: sums[name] for name in names}
    return {"sources": sources}
