"""What the documents of a shard are like, before and after each step. Reads batches as they pass
through refine/shard; writes quality.json (histograms over what was collected and what was cleaned,
and what was dropped) and bins.npy, the bins of every kept row.
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
from groundup.refine.filter.filters import Bounds
from groundup.refine.out_of_core.row_file import Spool
from groundup.refine.stats.histogram import CODES, UNKNOWN, coded, counted, packed
from groundup.refine.stats.text_stats import MEASURES, measured

# Of a shard, and of the sum over all of them.
FILE = "quality.json"


@dataclass
class Count:
    """Documents and bytes at one step, and a histogram for each column, shape (columns, CODES)."""

    counts: Array
    documents: int = 0
    bytes: int = 0

    def add(self, codes: Array, sizes: Array) -> None:
        """Add documents by their bins, shape (n, any first columns), and their bytes."""
        for column in range(codes.shape[1]):
            self.counts[column] += counted(codes[:, column])
        self.documents += len(sizes)
        self.bytes += int(sizes.sum(dtype=np.int64))


@dataclass
class Quality:
    """Follows the rows of each batch through the shard: `cleaned`, `drop`, `filtering`, `cut`,
    `score`, `drop`, `keep`.

    Attributes:
        bounds: of every score that the filters give, in the order of the columns after MEASURES.
        bins: takes a row of codes (uint8) for each kept document.
        languages: documents by language, when the filters begin.
        dropped: documents and bytes of cleaned text by reason.
    """

    bounds: Bounds
    bins: Spool
    collected: Count = field(init=False)
    before_filters: Count = field(init=False)
    languages: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    # Of the rows of the batch that are still there.
    _codes: Array = field(init=False, repr=False)
    _sizes: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.collected, self.before_filters = (
            Count(np.zeros((n, CODES), np.int64)) for n in (len(MEASURES), self.bins.width)
        )

    def cleaned(self, raw: pa.StringArray, texts: pa.StringArray) -> None:
        """Begin a batch: measure it before and after cleaning. Only what cleaning changed is
        measured twice.
        """
        codes = coded(measured(text_buffers(raw)))
        self.collected.add(codes, lengths(raw))
        changed = mask(pc.not_equal(raw, texts))
        if changed.any():
            codes[changed] = coded(measured(text_buffers(texts.filter(pa.array(changed)))))
        self._codes = np.full((len(texts), self.bins.width), UNKNOWN, np.uint8)
        self._codes[:, : len(MEASURES)] = codes
        self._sizes = lengths(texts)

    def filtering(self, languages: pa.StringArray) -> None:
        """Count the rows that the filters are about to look at, and their languages."""
        self.before_filters.add(self._codes[:, : len(MEASURES)], self._sizes)
        self.languages.update(language_counts(languages))

    def cut(self, rows: Array, texts: pa.StringArray) -> None:
        """Measure those rows of a mask again that a filter took lines out of; what is dropped still
        counts as it was cleaned.
        """
        if rows.any():
            self._codes[rows, : len(MEASURES)] = coded(
                measured(text_buffers(texts.filter(pa.array(rows))))
            )

    def score(self, scores: Mapping[str, Array]) -> None:
        """Note scores of all rows, before those are dropped that miss the bounds."""
        for column, name in enumerate(self.bounds, len(MEASURES)):
            if name in scores:
                self._codes[:, column] = coded(scores[name])
                self.before_filters.counts[column] += counted(self._codes[:, column])

    def drop(self, rows: Array, reasons: Array) -> None:
        """Take the rows of a mask out, each for its reason."""
        for reason in np.unique(reasons.astype(str)).tolist():
            sizes = self._sizes[rows][reasons == reason]
            entry = self.dropped.setdefault(reason, Counter())
            entry.update(documents=len(sizes), bytes=int(sizes.sum(dtype=np.int64)))
        self._codes, self._sizes = self._codes[~rows], self._sizes[~rows]

    def keep(self) -> None:
        """End a batch: the rows that are left are kept."""
        self.bins.append(self._codes)

    def save(self, folder: Path) -> None:
        """Write both files."""
        self.bins.save(folder / "bins.npy", transpose=True)
        steps = {
            name: {
                "documents": step.documents,
                "bytes": step.bytes,
                "columns": [packed(counts) for counts in step.counts],
            }
            for name, step in (("collected", self.collected), ("cleaned", self.before_filters))
        }
        dropped = {reason: dict(self.dropped[reason]) for reason in sorted(self.dropped)}
        languages = dict(sorted(self.languages.items()))
        bounds = {name: list(pair) for name, pair in self.bounds.items()}
        write_table(
            folder / FILE,
            {"steps": steps, "bounds": bounds, "languages": languages, "dropped": dropped},
        )


def write_table(path: Path, table: Any) -> None:
    """Write JSON without line breaks: a histogram is a long list of short numbers."""
    path.write_text(
        json.dumps(table, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8"
    )


def language_counts(languages: pa.StringArray) -> Counter[str]:
    """Return how many documents have each code; "" where none is known."""
    found = pc.value_counts(pc.fill_null(languages, "")).to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in found})


def column_count(bounds: Bounds) -> int:
    """Return how many bins a document has: its measures and its scores."""
    return len(MEASURES) + len(bounds)
