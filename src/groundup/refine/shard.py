"""One collected shard → one refined shard. Reads collect's documents.parquet; writes
documents.parquet, dropped.parquet, quality.json, for every kept row ids.npy, hashes.npy, sizes.npy
and bins.npy, the index of its keys (refine/dedup/lsh_index.py) and a sketch of its lines.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, lengths, mask, replace_rows, text_buffers
from groundup.artifacts.document import DOCUMENT, DROPPED, TableWriter, read_batches
from groundup.recipe import Personal
from groundup.refine.clean.clean import USUAL, clean_texts, clean_turns
from groundup.refine.clean.whitespace import fold
from groundup.refine.dedup.lsh_index import WIDTH, keys_of, write_index
from groundup.refine.dedup.minhash import signatures
from groundup.refine.filter import language
from groundup.refine.filter.c4_lines import prose_lines
from groundup.refine.filter.filters import NONE, Bounds, Thresholds, judge, score_bounds
from groundup.refine.filter.rules import CUTTING
from groundup.refine.lines.line_index import Sketch
from groundup.refine.lines.lines import KINDS as LINE_KINDS
from groundup.refine.out_of_core.corpus import id_numbers
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.stats.shard_stats import Quality, column_count


@dataclass
class _Output:
    """What a shard writes, row by row; whole when `save` is called."""

    folder: Path
    documents: TableWriter
    dropped: TableWriter
    keys: Spool
    ids: Spool
    hashes: Spool
    sizes: Spool
    quality: Quality
    # None for kinds in which a repeated line is no boilerplate.
    lines: Sketch | None = None
    changed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    @staticmethod
    @contextmanager
    def open(folder: Path, kind: str, bounds: Bounds) -> Iterator[_Output]:
        """Open the tables and the temporary files of a shard; `bounds` of the scores that its
        filters give.
        """

        def spool(name: str, dtype: type[np.generic], width: int = 1) -> Spool:
            return stack.enter_context(Spool(folder / f".{name}", np.dtype(dtype), width))

        with ExitStack() as stack:
            yield _Output(
                folder,
                stack.enter_context(TableWriter(folder / "documents.parquet", DOCUMENT)),
                stack.enter_context(TableWriter(folder / "dropped.parquet", DROPPED)),
                keys=spool("keys", np.uint64, WIDTH),
                ids=spool("ids", np.uint64, 2),
                hashes=spool("hashes", np.uint8, 16),
                sizes=spool("sizes", np.uint32),
                quality=Quality(bounds, spool("bins", np.uint8, column_count(bounds))),
                lines=stack.enter_context(Sketch(folder)) if kind in LINE_KINDS else None,
            )

    def save(self) -> None:
        """Write what is not a table."""
        write_index(self.folder, self.keys)
        for name, spool in (("ids", self.ids), ("hashes", self.hashes), ("sizes", self.sizes)):
            spool.save(self.folder / f"{name}.npy")
        self.quality.save(self.folder)
        if self.lines is not None:
            self.lines.save()

    def keep(self, batch: pa.RecordBatch) -> None:
        """Write kept documents, and what later steps compare them by."""
        texts = text_buffers(batch.column("text"))
        self.documents.write(batch)
        self.quality.keep()
        hashes = exact_hashes(texts)
        self.keys.append(keys_of(signatures(texts), hashes))
        self.ids.append(id_numbers(batch.column("id")))
        self.hashes.append(hashes)
        sizes = lengths(batch.column("text"))
        self.sizes.append(sizes)
        if self.lines is not None:
            self.lines.append(texts)
        self.bytes_out += int(sizes.sum(dtype=np.int64))

    def drop(
        self, batch: pa.RecordBatch, rows: Array, reason: Any, score: Any, detail: Any
    ) -> pa.RecordBatch:
        """List the documents of the mask `rows` as dropped, and return the others."""
        if not rows.any():
            return batch
        out = batch.filter(pa.array(rows))
        columns = [np.broadcast_to(value, len(rows))[rows] for value in (reason, score, detail)]
        self.quality.drop(rows, columns[0])
        reasons, scores, details = (pa.array(column.tolist()) for column in columns)
        self.reasons.update(reasons.to_pylist())
        self.dropped.write(dropped_rows(out, reasons, scores, details))
        return batch.filter(pa.array(~rows))


def refine_shard(
    folder: Path,
    collected: Path,
    kind: str,
    languages: Sequence[str],
    filters: Sequence[str],
    root: Path,
    thresholds: Thresholds = NONE,
    personal: Personal = USUAL,
) -> dict[str, Any]:
    """Clean and filter one collected shard.

    Args:
        folder: where the artifact is written.
        collected: folder of the collect artifact.
        kind: of every document in it.
        languages: ISO 639 codes to keep; empty keeps all.
        filters: rule sets and functions that apply to this kind.
        root: folder of the recipe, where the user's own modules are found.
        thresholds: in place of published ones.
        personal: what becomes of addresses and numbers of people.
    """
    bounds: Bounds = ({"language": (language.SURE, None)} if languages else {}) | dict(
        score_bounds(filters, kind, thresholds)
    )
    with _Output.open(folder, kind, bounds) as output:
        for batch in read_batches([collected / "documents.parquet"]):
            named = _named(_clean(batch, kind, personal, output), kind, languages, output)
            output.keep(
                _filter(_cut_lines(named, filters, output), kind, filters, root, thresholds, output)
            )
        output.save()
    return _facts(output, kind)


def _clean(batch: pa.RecordBatch, kind: str, personal: Personal, output: _Output) -> pa.RecordBatch:
    texts = pc.fill_null(batch.column("text"), "")
    output.bytes_in += int(lengths(texts).sum(dtype=np.int64))
    cleaned = clean_texts(texts, np.full(len(batch), kind == "code"), personal)
    output.changed += cleaned.changed
    output.quality.cleaned(texts, cleaned.texts)
    batch = _with(batch, text=cleaned.texts, turns=clean_turns(batch.column("turns"), personal))
    return output.drop(
        batch, lengths(cleaned.texts) == 0, "empty", 0.0, "nothing is left after cleaning"
    )


def _named(
    batch: pa.RecordBatch, kind: str, languages: Sequence[str], output: _Output
) -> pa.RecordBatch:
    if len(batch) and kind != "code":
        return _spoken(batch, languages, output)
    if len(batch):
        output.quality.filtering(batch.column("language"))
    return batch


def _cut_lines(batch: pa.RecordBatch, filters: Sequence[str], output: _Output) -> pa.RecordBatch:
    """Take lines that are no prose out of English texts, where the recipe names that rule set."""
    english = (
        mask(pc.equal(batch.column("language"), "en"))
        if CUTTING in filters
        else np.zeros(len(batch), np.bool_)
    )
    if not english.any():
        return batch
    texts = replace_rows(
        batch.column("text"), english, prose_lines(batch.column("text").filter(pa.array(english)))
    )
    cut = mask(pc.not_equal(texts, batch.column("text")))
    output.changed[CUTTING] += int(cut.sum())
    output.quality.cut(cut, texts)
    return _with(batch, text=texts)


def _filter(
    batch: pa.RecordBatch,
    kind: str,
    filters: Sequence[str],
    root: Path,
    thresholds: Thresholds,
    output: _Output,
) -> pa.RecordBatch:
    if len(batch) == 0:
        return batch
    verdict = judge(batch, kind, filters, root, thresholds)
    output.quality.score(verdict.scores)
    return output.drop(batch, ~verdict.keep, verdict.reason, verdict.score, verdict.detail)


def _spoken(batch: pa.RecordBatch, languages: Sequence[str], output: _Output) -> pa.RecordBatch:
    found = language.detect(batch.column("text"), languages)
    # What the reader was told counts where the text itself does not tell.
    unsure = pc.equal(found.code, "")
    batch = _with(
        batch, language=pc.if_else(unsure, pc.fill_null(batch.column("language"), ""), found.code)
    )
    output.quality.filtering(batch.column("language"))
    if not languages:
        return batch
    output.quality.score({"language": found.wanted})
    return output.drop(
        batch, found.wanted < language.SURE, "language", found.wanted, _not_wanted(batch, languages)
    )


def _not_wanted(batch: pa.RecordBatch, languages: Sequence[str]) -> Array:
    wanted = ", ".join(languages)
    return np.array(
        [f"{code or 'not sure'}, not {wanted}" for code in batch.column("language").to_pylist()],
        object,
    )


def _with(batch: pa.RecordBatch, **columns: pa.Array) -> pa.RecordBatch:
    for name, column in columns.items():
        index = batch.schema.get_field_index(name)
        batch = batch.set_column(
            index, DOCUMENT.field(name), column.cast(DOCUMENT.field(name).type)
        )
    return batch


def _facts(output: _Output, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "documents": output.documents.rows,
        "dropped": dict(sorted(output.reasons.items())),
        "bytes_in": output.bytes_in,
        "bytes_out": output.bytes_out,
        "changed": dict(sorted((+output.changed).items())),
    }


def dropped_rows(
    batch: pa.RecordBatch,
    reasons: pa.Array,
    scores: pa.Array,
    details: pa.Array,
    duplicate_of: pa.Array | None = None,
) -> pa.RecordBatch:
    """Return rows of the DROPPED schema for the documents of a batch."""
    kept = duplicate_of if duplicate_of is not None else pa.nulls(len(batch), pa.string())
    own = [batch.column(name) for name in ("id", "source", "origin", "record")]
    columns = [*own, reasons, scores, kept, details]
    return pa.RecordBatch.from_arrays(
        [c.cast(f.type) for c, f in zip(columns, DROPPED, strict=True)], schema=DROPPED
    )


def exact_hashes(texts: tuple[Array, Array]) -> Array:
    """Return the MD5 of every cleaned text with its white space folded, shape (n, 16), uint8."""
    offsets, data = fold(*texts)
    whole = data.data
    digests = b"".join(
        hashlib.md5(whole[begin:end], usedforsecurity=False).digest()
        for begin, end in pairwise(offsets.tolist())
    )
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def read_column(folder: Path, column: str) -> Iterator[pa.Array]:
    """Yield one column of a refined shard's documents, row group by row group."""
    for batch in read_batches([folder / "documents.parquet"], [column]):
        yield batch.column(column)
