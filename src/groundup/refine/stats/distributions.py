"""Distributions by source before and after each step. Reads refine/shard (bins.npy, quality.json),
refine/split and the lists of what is dropped and cut; writes quality.json. Of texts only those are
read again that something was cut out of.

The file explains itself: it holds the edges of its bins, what each measure is, and the error of its
quantiles.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.corpus import DROPPED
from groundup.artifacts.document import read_batches
from groundup.refine.dedup.duplicates import EXACT
from groundup.refine.out_of_core.corpus import Corpus
from groundup.refine.out_of_core.scratch import Scratch
from groundup.refine.stats.histogram import (
    CODES,
    EDGES,
    ERROR,
    QUANTILES,
    coded,
    counted,
    packed,
    quantiles,
    unpacked,
)
from groundup.refine.stats.shard_stats import FILE, language_counts, write_table
from groundup.refine.stats.text_stats import BEGINNING_BYTES, MEASURES, WHOLE, measured

# As collected; after cleaning, when the filters begin; after the filters; without duplicates,
# repeated lines and what evaluation items stand in.
STEPS = ("collected", "cleaned", "filtered", "kept")


@dataclass
class Sums:
    """What one source adds up to, over its shards."""

    kind: str
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    sizes: dict[str, Counter[str]] = field(
        default_factory=lambda: {step: Counter(documents=0, bytes=0) for step in STEPS}
    )
    # By step and column: the measures, then the scores; a score may be called as a measure is.
    histograms: dict[tuple[str, int], Array] = field(default_factory=dict)
    languages: dict[str, Counter[str]] = field(
        default_factory=lambda: {step: Counter() for step in STEPS[1:]}
    )
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, step: str, column: int, counts: Array) -> None:
        """Add a histogram of a column at a step."""
        self.histograms[step, column] = (
            self.histograms.get((step, column), np.zeros(CODES, np.int64)) + counts
        )

    def drop(self, reason: str, documents: int, size: int) -> None:
        """Add what a reason dropped."""
        self.dropped.setdefault(reason, Counter()).update(documents=documents, bytes=size)


def sum_quality(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    split: Path,
    lists: Sequence[Path],
    cuts: Mapping[str, Path],
) -> dict[str, Any]:
    """Add up the distributions of all shards by source.

    Args:
        folder: where quality.json is written.
        shards: refined shards by name and folder, in order.
        kinds: kind of each source.
        split: folder of the verdicts, NAME.npy.
        lists: lists of documents that are not kept: duplicates.parquet, contaminated.parquet.
        cuts: files of what is cut out of the texts, by shard.
    """
    corpus = Corpus(shards, cuts)
    sums = {source: Sums(kinds[source]) for source in corpus.names}
    with Scratch(folder / ".scratch") as scratch:
        reason, reasons = _reasons(corpus, lists, scratch)
        lengths = scratch.lengths(corpus)
        for shard, rows in zip(shards, corpus.spans, strict=True):
            of_source = sums[shard[0].rpartition(".")[0]]
            _add_early(of_source, shard[1])
            kept = np.load(split / f"{shard[0]}.npy") != DROPPED
            _add_late(of_source, Corpus([shard], cuts), kept, lengths[rows])
            _add_dropped(of_source, shard[1], reason[rows], reasons)
    head = {"edges": EDGES.tolist(), "quantiles": list(QUANTILES), "error": round(ERROR, 4)}
    told = {
        "measures": MEASURES,
        "beginning_bytes": BEGINNING_BYTES,
        "sources": {name: _table(one) for name, one in sums.items()},
    }
    write_table(folder / FILE, head | told)
    return {"sources": {name: _facts(one) for name, one in sums.items()}}


def _add_early(sums: Sums, shard: Path) -> None:
    """Add what the shard itself counted: the steps whose texts nobody has any more."""
    found = json.loads((shard / FILE).read_text(encoding="utf-8"))
    sums.bounds |= found["bounds"]
    for step, entry in found["steps"].items():
        sums.sizes[step].update(documents=entry["documents"], bytes=entry["bytes"])
        for column, histogram in enumerate(entry["columns"]):
            sums.count(step, column, unpacked(histogram))
    sums.languages["cleaned"].update(found["languages"])
    for reason, entry in found["dropped"].items():
        sums.drop(reason, entry["documents"], entry["bytes"])


def _add_late(sums: Sums, corpus: Corpus, kept: Array, lengths: Array) -> None:
    """Add the rows of one shard that passed the filters, and those of them that are kept."""
    ((_, shard),) = corpus.shards
    bins = np.load(shard / "bins.npy", mmap_mode="r")
    _add_rows(sums, "filtered", bins, np.load(shard / "sizes.npy", mmap_mode="r"))
    _add_rows(sums, "kept", _after_cuts(corpus, kept, bins)[:, kept], lengths[kept])
    row = 0
    for batch in read_batches([shard / "documents.parquet"], ["language"]):
        language, here = batch.column("language"), kept[row : row + len(batch)]
        row += len(batch)
        sums.languages["filtered"].update(language_counts(language))
        sums.languages["kept"].update(language_counts(language.filter(pa.array(here))))


def _reasons(corpus: Corpus, lists: Sequence[Path], scratch: Scratch) -> tuple[Array, list[str]]:
    """Return for every row the number of the reason why it is dropped (uint8; 0 for one on no
    list), and what they are called.
    """
    found, names = scratch.full("reasons", corpus.rows, np.uint8), {"": 0}
    for path in lists:
        for rows, batch in corpus.listed(path, ["reason"]):
            reason = batch.column("reason").dictionary_encode()
            known = np.array(
                [names.setdefault(name, len(names)) for name in reason.dictionary.to_pylist()],
                np.uint8,
            )
            found[rows] = known[reason.indices.to_numpy()]
    return found, list(names)


def _add_dropped(sums: Sums, shard: Path, reason: Array, names: Sequence[str]) -> None:
    """Add what each reason dropped of a shard, as large as it was before anything was cut."""
    documents = np.bincount(reason, minlength=len(names))
    sizes = np.bincount(reason, np.load(shard / "sizes.npy", mmap_mode="r"), minlength=len(names))
    for number in np.flatnonzero(documents[1:]).tolist():
        sums.drop(names[number + 1], int(documents[number + 1]), int(sizes[number + 1]))


def _add_rows(sums: Sums, step: str, bins: Array, sizes: Array) -> None:
    sums.sizes[step].update(documents=len(sizes), bytes=int(sizes.sum(dtype=np.int64)))
    for column, codes in enumerate(bins):
        sums.count(step, column, counted(codes))


def _after_cuts(corpus: Corpus, kept: Array, bins: Array) -> Array:
    """Return the bins of a shard's rows, measured again where something was cut out of a kept one;
    scores stay as they were given.
    """
    wanted = np.zeros(len(kept), np.bool_)
    for _, _, cuts in corpus.cut_shards():
        wanted[cuts.rows] = kept[cuts.rows]
    if not wanted.any():
        return bins
    found = np.array(bins)
    for rows, batch in corpus.batches(["text"], wanted):
        found[: len(MEASURES), rows] = coded(measured(text_buffers(batch.column("text")))).T
    return found


def _table(sums: Sums) -> dict[str, Any]:
    def of(column: int, digits: int | None) -> dict[str, Any]:
        found = {
            step: sums.histograms[step, column]
            for step in STEPS
            if (step, column) in sums.histograms
        }
        return {
            step: packed(counts) | {"quantiles": [round(q, digits) for q in quantiles(counts)]}
            for step, counts in found.items()
        }

    return {
        "kind": sums.kind,
        "lost": round(lost_share(_facts(sums)), 6),
        "steps": {step: dict(counts) for step, counts in sums.sizes.items()},
        "measures": {
            name: of(column, None if name in WHOLE else 6) for column, name in enumerate(MEASURES)
        },
        "scores": {
            name: of(column, 6) | {"bounds": sums.bounds[name]}
            for column, name in enumerate(sums.bounds, len(MEASURES))
        },
        "languages": {
            step: dict(sorted(counts.items())) for step, counts in sums.languages.items()
        },
        "dropped": {reason: dict(sums.dropped[reason]) for reason in sorted(sums.dropped)},
    }


def _facts(sums: Sums) -> dict[str, Any]:
    dropped = {reason: counts["documents"] for reason, counts in sorted(sums.dropped.items())}
    copies = sums.dropped.get(EXACT, Counter())["bytes"]
    return {
        "collected": dict(sums.sizes["collected"]),
        "kept": dict(sums.sizes["kept"]),
        "copies": copies,
        "dropped": dropped,
    }


def lost_share(of: Mapping[str, Any]) -> float:
    """Return the share of a source's collected bytes that is neither kept nor, word for word, in
    what is kept.
    """
    collected = of["collected"]["bytes"]
    return max(0.0, 1 - (of["kept"]["bytes"] + of["copies"]) / collected) if collected else 1.0
