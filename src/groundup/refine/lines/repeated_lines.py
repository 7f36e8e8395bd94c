"""Find the lines that a source repeats in many documents, and cut them out of all documents.

A line is counted once per document, over documents that are not duplicates, so a page with a
thousand copies does not turn its own text into boilerplate. Llama 3 removed lines that occur more
than 6 times in 30 million documents (Grattafiori et al. 2024, arXiv 2407.21783, section 3.1.1).

    lines.parquet    the repeated lines (schema LINES)
    cuts/SHARD.npy   int64 [n, 3]: row, first byte, byte after the last
    dropped.parquet  documents of which next to nothing is left (DROPPED schema)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, Texts, lengths, text_buffers
from groundup.artifacts.corpus import remove_spans
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.refine.dedup.minhash import words
from groundup.refine.kernels import kernel, kernel_with
from groundup.refine.lines.line_index import (
    BLANK,
    LINE_KINDS,
    NEWLINE,
    ROLES,
    TAB,
    TRANSITIONS,
    count_lines,
    hash_line,
    max_lines,
    rows_with,
)
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch
from groundup.refine.shard import dropped_rows
from groundup.runtime.run import BuildStep

BOILERPLATE = "boilerplate"
# The minimum share of documents beyond a million: in a larger source, more phrases repeat by
# chance.
MIN_SHARE = 1e-5
# A document with fewer words left is dropped.
MIN_WORDS_LEFT = 6
TEXT_CHARACTERS = 400

LINES = pa.schema(
    [
        ("source", pa.string()),
        ("hash", pa.uint64()),
        # The number of kept documents with this line, and the id of one of them.
        ("documents", pa.int64()),
        ("text", pa.string()),
        ("example", pa.string()),
    ]
)


@kernel_with(ROLES, TRANSITIONS)
def find_lines(texts: Texts, listed: Array, roles: Array, transitions: Array) -> Array:
    """Return the listed lines in texts, int64 [n, 4]: row, index in `listed`, first byte, end.

    Args:
        texts: offsets and bytes; returned bytes count from the beginning of a text.
        listed: hashes, ascending and unique (uint64).
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

    Args:
        texts: as for `find_lines`.
        lines: what that returned.
    """
    offsets, data = texts
    out, count = np.empty((len(lines), 3), np.int64), 0
    for k in range(len(lines)):
        row, start = lines[k, 0], offsets[lines[k, 0]]
        last = count - 1
        if count and out[last, 0] == row:
            pos, begin = start + out[last, 2], start + lines[k, 2]
            while pos < begin and _is_white(data[pos]):
                pos += 1
            if pos == begin:
                out[last, 2] = lines[k, 3]
                continue
        out[count, 0], out[count, 1], out[count, 2] = row, lines[k, 2], lines[k, 3]
        count += 1
    for k in range(count):
        start, stop = offsets[out[k, 0]], offsets[out[k, 0] + 1]
        begin, end = _extend(data, start, stop, start + out[k, 1], start + out[k, 2])
        out[k, 1], out[k, 2] = begin - start, end - start
    return out[:count].copy()


@kernel
def _is_white(byte: int) -> bool:
    return byte in (NEWLINE, BLANK, TAB)


@kernel
def _extend(data: Array, start: int, stop: int, begin: int, end: int) -> tuple[int, int]:
    """Extend a cut over white space; the indentation of the line after it stays."""
    before, behind = begin, end
    while before > start and _is_white(data[before - 1]):
        before -= 1
    while behind < stop and _is_white(data[behind]):
        behind += 1
    if behind == stop or before == start:
        return before, behind
    while data[behind - 1] != NEWLINE:
        behind -= 1
    return (begin, behind) if begin - before >= behind - end else (before, end)


@dataclass
class RepeatedLines:
    """The repeated lines of one source, and counts of what they affect.

    Attributes:
        hashes: ascending.
        documents: kept documents with each line.
        written: mask of the lines that are in lines.parquet already.
        bytes: cut.
        touched: documents with a cut.
        dropped: documents of which next to nothing is left.
    """

    source: str
    hashes: Array
    documents: Array
    written: Array = field(init=False)
    bytes: int = 0
    touched: int = 0
    dropped: int = 0

    def __post_init__(self) -> None:
        self.written = np.zeros(len(self.hashes), np.bool_)


def find_repeated_lines(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    duplicates: Path,
    fewest: int,
) -> dict[str, Any]:
    """List the lines that many documents of a source hold, and cut them out of all of them.

    Args:
        folder: receives the files; a shard without cuts has none.
        shards: refined shards by name and folder, in order.
        kinds: kind of each source.
        duplicates: list of the duplicates.
        fewest: minimum number of documents with a repeated line.
    """
    table, sources = DocumentTable(shards), dict[str, dict[str, int]]()
    (folder / "cuts").mkdir()
    with (
        Scratch(folder / ".scratch") as scratch,
        TableWriter(folder / "lines.parquet", LINES) as lines,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        kept = scratch.kept(table, [duplicates])
        for index, source in enumerate(table.sources):
            if kinds[source] not in LINE_KINDS:
                continue
            members = [k for k, owner in enumerate(table.source_of_shard) if owner == index]
            masks = [kept[table.spans[k]] for k in members]
            sources[source] = _cut_source(
                folder, source, [shards[k] for k in members], masks, fewest, lines, dropped
            )
    return {"sources": sources}


LINES_STEP = BuildStep("refine/lines", 1, find_repeated_lines)


def _cut_source(
    folder: Path,
    source: str,
    shards: Sequence[tuple[str, Path]],
    kept: Sequence[Array],
    fewest: int,
    lines: TableWriter,
    dropped: TableWriter,
) -> dict[str, int]:
    least = max(fewest, int(np.ceil(MIN_SHARE * sum(int(mask.sum()) for mask in kept))))
    with (
        RowFile(folder / ".lines", np.dtype(np.uint64)) as hashes,
        RowFile(folder / ".counts", np.dtype(np.int64)) as counts,
    ):
        for block, documents in count_lines([path for _, path in shards], kept):
            hashes.append(block[documents >= least])
            counts.append(documents[documents >= least])
        repeated = RepeatedLines(source, hashes.view(), counts.view())
        for shard, mask in zip(shards, kept, strict=True):
            cuts = _cut_shard(shard, mask, repeated, lines, dropped)
            if len(cuts):
                np.save(folder / "cuts" / f"{shard[0]}.npy", cuts)
        return {
            "lines": len(repeated.hashes),
            "bytes": repeated.bytes,
            "documents": repeated.touched,
            "dropped": repeated.dropped,
        }


def _cut_shard(
    shard: tuple[str, Path],
    kept: Array,
    repeated: RepeatedLines,
    lines: TableWriter,
    dropped: TableWriter,
) -> Array:
    """Return the cuts of a shard; write lines not yet written, and documents left empty."""
    parts, columns = [np.zeros((0, 3), np.int64)], ["id", "source", "origin", "record", "text"]
    affected = kept & rows_with(shard[1], repeated.hashes, len(kept))
    for rows, batch in DocumentTable([shard]).batches(columns, affected):
        texts = text_buffers(batch.column("text"))
        hits = find_lines(texts, repeated.hashes)
        _write_lines(batch, hits, repeated, lines)
        cuts = line_cuts(texts, hits)
        repeated.bytes += int((cuts[:, 2] - cuts[:, 1]).sum())
        repeated.touched += len(rows)
        _drop_empty(batch, cuts, repeated, dropped)
        parts.append(np.column_stack([rows[cuts[:, 0]], cuts[:, 1:]]))
    return np.concatenate(parts)


def _write_lines(
    batch: pa.RecordBatch, hits: Array, repeated: RepeatedLines, lines: TableWriter
) -> None:
    """Write the lines that occur for the first time, with their text and an example."""
    indices, first = np.unique(hits[:, 1], return_index=True)
    for row, k, begin, end in hits[np.sort(first[~repeated.written[indices]])].tolist():
        line = batch.column("text")[row].as_buffer()[begin:end].to_pybytes()
        text = " ".join(line.decode("utf-8", "replace").split())
        short = text[:TEXT_CHARACTERS] + (" …" if len(text) > TEXT_CHARACTERS else "")
        entry = {
            "source": repeated.source,
            "hash": int(repeated.hashes[k]),
            "documents": int(repeated.documents[k]),
            "text": short,
            "example": batch.column("id")[row].as_py(),
        }
        lines.add(entry, 64 + len(short))
    repeated.written[indices] = True


def _drop_empty(
    batch: pa.RecordBatch, cuts: Array, repeated: RepeatedLines, dropped: TableWriter
) -> None:
    """List the documents of which next to nothing is left."""
    texts = batch.column("text")
    left = np.diff(words(text_buffers(remove_spans(texts, cuts[:, 0], cuts[:, 1:])))[3])
    empty = left < MIN_WORDS_LEFT
    repeated.dropped += int(empty.sum())
    if not empty.any():
        return
    removed = np.bincount(cuts[:, 0], cuts[:, 2] - cuts[:, 1], len(batch))
    share = removed / np.maximum(lengths(texts), 1)
    details = [
        f"{count} words are left without the lines that its source repeats"
        for count in left[empty].tolist()
    ]
    out, reasons = batch.filter(pa.array(empty)), pa.array([BOILERPLATE] * len(details))
    dropped.write(dropped_rows(out, reasons, pa.array(share[empty]), pa.array(details)))
