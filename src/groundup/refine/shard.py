"""Refine one collected shard: clean, detect the language, cut lines, filter, and index.

A refined shard holds, with n kept documents:

    documents.parquet     the kept documents (DOCUMENT schema)
    dropped.parquet       the dropped documents, with reason, score and detail (DROPPED schema)
    ids.npy               uint64 [n, 2]: ids as numbers
    hashes.npy            uint8 [n, 16]: hash of the text with its white space folded
    sizes.npy             uint32 [n]: bytes of the text
    keys.npy, rows.npy    the LSH index: dedup/lsh_index.py
    lines.npy, …          the line index: lines.py
    quality.json, …       statistics: stats.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, lengths, mask, replace_rows, text_buffers
from groundup.artifacts.document import DOCUMENT, DROPPED, TableWriter, dropped_rows, read_batches
from groundup.artifacts.kinds import KINDS
from groundup.recipe import Personal
from groundup.refine.clean.pipeline import DEFAULT_PERSONAL, clean_texts, clean_turns
from groundup.refine.dedup.lsh_index import WIDTH, document_keys, write_index
from groundup.refine.dedup.minhash import Words
from groundup.refine.filter import language
from groundup.refine.filter.apply import (
    NO_THRESHOLDS,
    Bounds,
    Thresholds,
    apply_filters,
    score_bounds,
)
from groundup.refine.filter.rules import RULE_SETS
from groundup.refine.kernels import Number, is_cache_cold
from groundup.refine.lines import LINE_KINDS, LineIndex
from groundup.refine.out_of_core import RowFile, parse_ids
from groundup.refine.stats import TEXT_STATS, ShardStats, text_stats
from groundup.runtime.run import build_step


class ShardWriter:
    """Writes a refined shard; the shard is complete after `save`."""

    def __init__(self, folder: Path, kind: str, bounds: Bounds, stack: ExitStack) -> None:
        """Open the files, which `stack` closes; `bounds` are those of the scores of its filters."""

        def row_file(name: str, dtype: type[np.generic], width: int = 1) -> RowFile:
            return stack.enter_context(RowFile(folder / f".{name}", np.dtype(dtype), width))

        self.folder, self.kind = folder, kind
        # Later steps read the texts several times: LZ4 takes half of the time to read.
        table = TableWriter(folder / "documents.parquet", DOCUMENT, codec="lz4")
        self.documents = stack.enter_context(table)
        self.dropped = stack.enter_context(TableWriter(folder / "dropped.parquet", DROPPED))
        self.keys, self.ids = row_file("keys", np.uint64, WIDTH), row_file("ids", np.uint64, 2)
        self.hashes, self.sizes = row_file("hashes", np.uint8, 16), row_file("sizes", np.uint32)
        self.stats = ShardStats(bounds, row_file("bins", np.uint8, len(TEXT_STATS) + len(bounds)))
        # For kinds whose repeated lines are boilerplate.
        self.lines: LineIndex | None = None
        if kind in LINE_KINDS:
            line_rows = row_file("line_rows", np.uint32)
            self.lines = LineIndex(folder, row_file("line_hashes", np.uint64), line_rows)
        # Documents that each cleaning step changed, and those dropped, by reason.
        self.changed, self.reasons = Counter[str](), Counter[str]()
        self.bytes_in = self.bytes_out = 0

    def keep(self, batch: pa.RecordBatch, words: Words | None) -> None:
        """Write kept documents, and what later steps compare them by."""
        texts, sizes = text_buffers(batch.column("text")), lengths(batch.column("text"))
        keys, hashes = document_keys(texts, words)
        self.documents.write(batch)
        self.stats.keep()
        self.keys.append(keys)
        self.ids.append(parse_ids(batch.column("id")))
        self.hashes.append(hashes)
        self.sizes.append(sizes)
        if self.lines is not None:
            self.lines.append(texts)
        self.bytes_out += int(sizes.sum(dtype=np.int64))

    def drop(
        self,
        batch: pa.RecordBatch,
        rows: Array,
        reason: Array | str,
        score: Array | Number,
        detail: Array | str,
    ) -> pa.RecordBatch:
        """List the documents of the mask `rows` as dropped, and return the others."""
        if not rows.any():
            return batch
        columns = [np.broadcast_to(value, len(rows))[rows] for value in (reason, score, detail)]
        self.stats.drop(rows, columns[0])
        self.reasons.update(columns[0].tolist())
        out, lists = batch.filter(pa.array(rows)), (column.tolist() for column in columns)
        self.dropped.write(dropped_rows(out, *map(pa.array, lists)))
        return batch.filter(pa.array(~rows))

    def save(self) -> dict[str, Any]:
        """Write everything but the two tables, which are complete; return the facts."""
        write_index(self.folder, self.keys)
        for name, file in (("ids", self.ids), ("hashes", self.hashes), ("sizes", self.sizes)):
            file.save(self.folder / f"{name}.npy")
        self.stats.save(self.folder)
        if self.lines is not None:
            self.lines.save()
        return {
            "kind": self.kind,
            "documents": self.documents.rows,
            "dropped": dict(sorted(self.reasons.items())),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "changed": dict(sorted((+self.changed).items())),
        }


@build_step("refine/shard", version=14)
def refine_shard(
    folder: Path,
    collected: Path,
    kind: str,
    languages: Sequence[str],
    filters: Sequence[str],
    root: Path,
    thresholds: Thresholds = NO_THRESHOLDS,
    personal: Personal = DEFAULT_PERSONAL,
) -> dict[str, Any]:
    """Refine the collected shard in the folder `collected`, whose documents are of one kind.

    `languages` are the ISO 639 codes to keep, or empty to keep all; `filters` are rule sets, and
    functions in modules beside the recipe in `root`.
    """
    of_languages: Bounds = {"language": (language.MIN_SHARE, None)} if languages else {}
    bounds = {**of_languages, **score_bounds(filters, kind, thresholds)}
    with ExitStack() as stack:
        out = ShardWriter(folder, kind, bounds, stack)
        for raw in read_batches([collected / "documents.parquet"]):
            texts = pc.fill_null(raw.column("text"), "")
            out.bytes_in += int(lengths(texts).sum(dtype=np.int64))
            cleaned = clean_texts(texts, np.full(len(raw), KINDS[kind].is_code), personal)
            out.changed += cleaned.changed
            out.stats.cleaned(texts, cleaned.texts)
            turns, empty = clean_turns(raw.column("turns"), personal), lengths(cleaned.texts) == 0
            words = None
            batch = _replace(raw, text=cleaned.texts, turns=turns)
            batch = out.drop(batch, empty, "empty", 0.0, "nothing is left after cleaning")
            if len(batch):
                batch = _detect_language(batch, languages, out)
            if len(batch):
                batch = _cut_lines(batch, filters, out)
                result = apply_filters(batch, kind, filters, root, thresholds)
                out.stats.score(result.scores)
                batch = out.drop(batch, ~result.keep, result.reason, result.score, result.detail)
                words = result.words
            out.keep(batch, words)
        return out.save()


def _detect_language(
    batch: pa.RecordBatch, languages: Sequence[str], out: ShardWriter
) -> pa.RecordBatch:
    """Name the language of prose, and drop documents in other languages than the wanted ones.

    A document of which no language is named is kept, unless next to nothing speaks for the wanted
    ones, as in a language that the model does not know.
    """
    if KINDS[out.kind].is_code:
        out.stats.filtering(batch.column("language"))
        return batch
    detected = language.detect(batch.column("text"), languages)
    # Where detection is unsure, the language that the reader was told counts.
    told = pc.fill_null(batch.column("language"), "")
    codes = pc.if_else(pc.equal(detected.code, ""), told, detected.code)
    batch = _replace(batch, language=codes)
    out.stats.filtering(batch.column("language"))
    if not languages:
        return batch
    out.stats.score({"language": detected.share})
    names = ", ".join(languages)
    details = [f"{code or 'not sure'}, not {names}" for code in codes.to_pylist()]
    unsure = mask(pc.equal(detected.code, ""))
    unwanted = detected.share < np.where(unsure, language.MIN_UNSURE_SHARE, language.MIN_SHARE)
    return out.drop(batch, unwanted, "language", detected.share, np.array(details, object))


def _cut_lines(batch: pa.RecordBatch, filters: Sequence[str], out: ShardWriter) -> pa.RecordBatch:
    """Take out of English texts the lines that a rule set cuts."""
    english = mask(pc.equal(batch.column("language"), "en"))
    for name in filters if english.any() else ():
        if name in RULE_SETS and (cut_lines := RULE_SETS[name].cut_lines):
            before = batch.column("text")
            after = replace_rows(before, english, cut_lines(before.filter(pa.array(english))))
            changed = mask(pc.not_equal(after, before))
            out.changed[name] += int(changed.sum())
            out.stats.cut(changed, after)
            batch = _replace(batch, text=after)
    return batch


def _replace(batch: pa.RecordBatch, **columns: pa.Array) -> pa.RecordBatch:
    for name, column in columns.items():
        index, column_field = batch.schema.get_field_index(name), DOCUMENT.field(name)
        batch = batch.set_column(index, column_field, column.cast(column_field.type))
    return batch


def preload() -> None:
    """Load the language model and the compiled kernels, for workers that are forked later."""
    if is_cache_cold():
        # Compiling takes too long to wait for: workers do it.
        return
    texts = pa.array(["The cat sat on the mat.\nIt slept: 1 + 1 = 2 e-mails to cat@example.org."])
    cleaned = clean_texts(texts, np.zeros(1, np.bool_), DEFAULT_PERSONAL).texts
    language.detect(cleaned)
    document_keys(text_buffers(cleaned))
    text_stats(text_buffers(cleaned))
