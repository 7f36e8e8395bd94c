"""Statistics of the documents of a shard, collected while they pass through its steps.

quality.json   histograms of the collected and of the cleaned documents; documents and bytes by
               drop reason; documents by language; bounds of the scores
bins.npy       uint8 [columns, n]: histogram bins of every kept row. The columns are TEXT_STATS,
               then the scores of the filters.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, lengths, mask, text_buffers
from groundup.refine.filter.apply import Bounds
from groundup.refine.out_of_core import RowFile
from groundup.refine.stats.text_stats import (
    CODES,
    TEXT_STATS,
    UNKNOWN,
    bin_codes,
    histogram,
    pack,
    text_stats,
)

# Of a shard, and of all shards together.
FILE = "quality.json"


@dataclass
class StepCounts:
    """Documents and bytes at one step, and a histogram of each column, shape (columns, CODES)."""

    counts: Array
    documents: int = 0
    bytes: int = 0

    def add(self, codes: Array, sizes: Array) -> None:
        """Add documents by their bins, shape (n, the first columns), and their bytes."""
        for column in range(codes.shape[1]):
            self.counts[column] += histogram(codes[:, column])
        self.documents += len(sizes)
        self.bytes += int(sizes.sum(dtype=np.int64))


@dataclass
class ShardStats:
    """Follows the rows of each batch through the steps of a shard.

    Call `cleaned`, then `drop` (empty), `filtering`, `score` and `drop` (language), `cut`, `score`
    and `drop` (filters), and `keep`.

    Attributes:
        bounds: of every score that the filters give, in the order of the columns after TEXT_STATS.
        bins: receives a row of codes (uint8) for each kept document.
        collected, before_filters: counts as collected, and as the filters begin.
        languages: documents by language, as the filters begin.
        dropped: documents and bytes of cleaned text, by reason.
    """

    bounds: Bounds
    bins: RowFile
    collected: StepCounts = field(init=False)
    before_filters: StepCounts = field(init=False)
    languages: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    # Of the rows of the batch that are not dropped yet.
    _codes: Array = field(init=False, repr=False)
    _sizes: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.collected, self.before_filters = (
            StepCounts(np.zeros((columns, CODES), np.int64))
            for columns in (len(TEXT_STATS), self.bins.width)
        )

    def cleaned(self, raw: pa.StringArray, texts: pa.StringArray) -> None:
        """Begin a batch: measure it before cleaning, and what cleaning changed again."""
        codes = bin_codes(text_stats(text_buffers(raw)))
        self.collected.add(codes, lengths(raw))
        self._codes = np.full((len(texts), self.bins.width), UNKNOWN, np.uint8)
        self._codes[:, : len(TEXT_STATS)] = codes
        self.cut(mask(pc.not_equal(raw, texts)), texts)
        self._sizes = lengths(texts)

    def filtering(self, languages: pa.StringArray) -> None:
        """Count the rows that the filters are about to see, and their languages."""
        self.before_filters.add(self._codes[:, : len(TEXT_STATS)], self._sizes)
        self.languages.update(language_counts(languages))

    def cut(self, rows: Array, texts: pa.StringArray) -> None:
        """Measure the rows of a mask again whose text changed; their sizes stay as cleaned."""
        if rows.any():
            changed = texts.filter(pa.array(rows))
            self._codes[rows, : len(TEXT_STATS)] = bin_codes(text_stats(text_buffers(changed)))

    def score(self, scores: Mapping[str, Array]) -> None:
        """Record scores of all rows, before rows outside the bounds are dropped."""
        for column, name in enumerate(self.bounds, len(TEXT_STATS)):
            if name in scores:
                self._codes[:, column] = bin_codes(scores[name])
                self.before_filters.counts[column] += histogram(self._codes[:, column])

    def drop(self, rows: Array, reasons: Array) -> None:
        """Remove the rows of a mask, each for its reason."""
        for reason in np.unique(reasons.astype(str)).tolist():
            sizes = self._sizes[rows][reasons == reason]
            entry = self.dropped.setdefault(reason, Counter())
            entry.update(documents=len(sizes), bytes=int(sizes.sum(dtype=np.int64)))
        self._codes, self._sizes = self._codes[~rows], self._sizes[~rows]

    def keep(self) -> None:
        """End a batch: the remaining rows are kept."""
        self.bins.append(self._codes)

    def save(self, folder: Path) -> None:
        """Write quality.json and bins.npy."""
        self.bins.save(folder / "bins.npy", transpose=True)
        steps = {
            name: {
                "documents": step.documents,
                "bytes": step.bytes,
                "columns": [pack(counts) for counts in step.counts],
            }
            for name, step in (("collected", self.collected), ("cleaned", self.before_filters))
        }
        table = {
            "steps": steps,
            "bounds": {name: list(pair) for name, pair in self.bounds.items()},
            "languages": dict(sorted(self.languages.items())),
            "dropped": {reason: dict(self.dropped[reason]) for reason in sorted(self.dropped)},
        }
        write_compact(folder / FILE, table)


def write_compact(path: Path, table: Any) -> None:
    """Write JSON on one line: a histogram is a long list of small numbers."""
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def language_counts(languages: pa.StringArray) -> Counter[str]:
    """Return the number of documents of each code; "" if unknown."""
    entries = pc.value_counts(pc.fill_null(languages, "")).to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in entries})


def column_count(bounds: Bounds) -> int:
    """Return the number of bins of a document."""
    return len(TEXT_STATS) + len(bounds)
