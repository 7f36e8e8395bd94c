"""Finds the lines that a source repeats, and where they stand. Reads refine/shard artifacts and the
list of duplicates; writes lines.parquet (the lines), cuts/SHARD.npy (row, first byte, byte after
the last) and dropped.parquet (what is left empty).

A line is counted over documents that are no duplicates, once in each, so that a page that stands
there a thousand times does not make its own text boilerplate. Llama 3 took out lines of more than 6
in 30 million documents (Grattafiori et al. 2024, arXiv
2407.21783, 3.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, lengths, text_buffers
from groundup.artifacts.corpus import remove_spans
from groundup.artifacts.document import DROPPED, TableWriter
from groundup.refine.dedup.minhash import words
from groundup.refine.lines.line_index import counted, rows_with
from groundup.refine.lines.lines import KINDS, cuts_of, find_lines
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.out_of_core.scratch import Scratch
from groundup.refine.shard import dropped_rows

BOILERPLATE = "boilerplate"
# Beyond a million documents this share of them: the larger a source, the more often a saying comes
# back by chance.
SHARE = 1e-5
# A document of which fewer words are left was nothing but boilerplate.
FEWEST_WORDS = 6
TEXT_CHARACTERS = 400

LINES = pa.schema(
    [
        ("source", pa.string()),
        ("hash", pa.uint64()),
        # That hold it and are no duplicates, and one of them.
        ("documents", pa.int64()),
        ("text", pa.string()),
        ("example", pa.string()),
    ]
)


@dataclass
class _Lists:
    """The repeated lines of one source, and what is counted while they are looked for.

    Attributes:
        lines: their hashes, ascending.
        documents: how many kept documents hold each.
        seen: mask of those that are written down.
    """

    source: str
    lines: Array
    documents: Array
    seen: Array = field(init=False)
    bytes: int = 0
    touched: int = 0
    dropped: int = 0

    def __post_init__(self) -> None:
        self.seen = np.zeros(len(self.lines), np.bool_)


def find_boilerplate(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    duplicates: Path,
    fewest: int,
) -> dict[str, Any]:
    """List the lines that stand in many documents of their source, and cut them out of all of them.

    Args:
        folder: where the lists and the cuts are written; a shard without cuts has no file.
        shards: refined shards by name and folder, in order.
        kinds: kind of each source.
        duplicates: list of the documents that are gone already.
        fewest: documents of a source that hold a repeated line, at least.
    """
    corpus, sources = Corpus(shards), dict[str, dict[str, int]]()
    (folder / "cuts").mkdir()
    with (
        Scratch(folder / ".scratch") as scratch,
        TableWriter(folder / "lines.parquet", LINES) as lines,
        TableWriter(folder / "dropped.parquet", DROPPED) as dropped,
    ):
        kept = scratch.kept(corpus, [duplicates])
        for number, source in enumerate(corpus.names):
            if kinds[source] in KINDS:
                own = [place for place, its in enumerate(corpus.source_of_shard) if its == number]
                masks = [kept[corpus.spans[place]] for place in own]
                sources[source] = _source(
                    folder, source, [shards[place] for place in own], masks, fewest, lines, dropped
                )
    return {"sources": sources}


def _source(
    folder: Path,
    source: str,
    shards: Sequence[tuple[str, Path]],
    kept: Sequence[Array],
    fewest: int,
    lines: TableWriter,
    dropped: TableWriter,
) -> dict[str, int]:
    least = max(fewest, int(np.ceil(SHARE * sum(int(mask.sum()) for mask in kept))))
    with (
        Spool(folder / ".lines", np.dtype(np.uint64)) as hashes,
        Spool(folder / ".counts", np.dtype(np.int64)) as counts,
    ):
        for found, documents in counted([path for _, path in shards], kept):
            hashes.append(found[documents >= least])
            counts.append(documents[documents >= least])
        lists = _Lists(source, hashes.view(), counts.view())
        for (name, path), mask in zip(shards, kept, strict=True):
            cuts = _cut_shard(name, path, mask, lists, lines, dropped)
            if len(cuts):
                np.save(folder / "cuts" / f"{name}.npy", cuts)
    return {
        "lines": len(lists.lines),
        "bytes": lists.bytes,
        "documents": lists.touched,
        "dropped": lists.dropped,
    }


def _cut_shard(
    name: str, path: Path, kept: Array, lists: _Lists, lines: TableWriter, dropped: TableWriter
) -> Array:
    """Return the cuts of a shard; write down lines that were not seen before, and documents that
    are left empty.
    """
    parts = [np.zeros((0, 3), np.int64)]
    wanted = kept & rows_with(path, lists.lines, len(kept))
    for rows, batch in Corpus([(name, path)]).batches(
        ["id", "source", "origin", "record", "text"], wanted
    ):
        texts = text_buffers(batch.column("text"))
        found = find_lines(texts, lists.lines)
        _write_lines(batch, found, lists, lines)
        cuts = cuts_of(texts, found)
        lists.bytes += int((cuts[:, 2] - cuts[:, 1]).sum())
        lists.touched += len(rows)
        _drop(batch, cuts, lists, dropped)
        parts.append(np.column_stack([rows[cuts[:, 0]], cuts[:, 1:]]))
    return np.concatenate(parts)


def _write_lines(batch: pa.RecordBatch, found: Array, lists: _Lists, lines: TableWriter) -> None:
    numbers, first = np.unique(found[:, 1], return_index=True)
    for row, number, begin, end in found[np.sort(first[~lists.seen[numbers]])].tolist():
        text = " ".join(
            batch.column("text")[row]
            .as_buffer()[begin:end]
            .to_pybytes()
            .decode("utf-8", "replace")
            .split()
        )
        short = text[:TEXT_CHARACTERS] + (" …" if len(text) > TEXT_CHARACTERS else "")
        counts = {"hash": int(lists.lines[number]), "documents": int(lists.documents[number])}
        lines.add(
            {
                "source": lists.source,
                **counts,
                "text": short,
                "example": batch.column("id")[row].as_py(),
            },
            64 + len(short),
        )
    lists.seen[numbers] = True


def _drop(batch: pa.RecordBatch, cuts: Array, lists: _Lists, dropped: TableWriter) -> None:
    """List the documents of which next to nothing is left."""
    left = np.diff(
        words(text_buffers(remove_spans(batch.column("text"), cuts[:, 0], cuts[:, 1:])))[3]
    )
    empty = left < FEWEST_WORDS
    lists.dropped += int(empty.sum())
    if empty.any():
        gone = np.bincount(cuts[:, 0], cuts[:, 2] - cuts[:, 1], len(batch))
        share = gone / np.maximum(lengths(batch.column("text")), 1)
        details = [
            f"{count} words are left without the lines that its source repeats"
            for count in left[empty].tolist()
        ]
        out = batch.filter(pa.array(empty))
        dropped.write(
            dropped_rows(
                out, pa.array([BOILERPLATE] * len(out)), pa.array(share[empty]), pa.array(details)
            )
        )
