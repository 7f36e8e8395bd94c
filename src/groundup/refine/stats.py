"""Statistics of texts: of a shard while it is refined, and by source before and after each step.

quality.json   of a shard: histograms of the collected and of the cleaned documents; documents and
               bytes by drop reason; documents by language; bounds of the scores
bins.npy       uint8 [columns, n]: histogram bins of every kept row of a shard. The columns are
               TEXT_STATS, then the scores of the filters.

refine/quality sums the histograms of all shards. Its quality.json describes itself: it holds the
edges of its bins, the meaning of each statistic, and the error of its quantiles. Only texts with
cuts are read again.

A histogram has bins of equal ratio: the edges are ±2^(k/4), so four bins double the value. It holds
integer counts, so sums do not depend on their order. Values within 2^-10 of zero count as zero,
values beyond an end as the last bin. A quantile is the middle of its bin, so its error is at most a
factor of 2^(1/8).
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, Texts, lengths, mask, text_buffers
from groundup.refine.dedup.duplicates import EXACT
from groundup.refine.filter.apply import Bounds
from groundup.refine.filter.statistics import repeated_lines
from groundup.refine.filter.tokens import count_words
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch
from groundup.runtime.run import build_step

# Of a shard, and of all shards together.
FILE = "quality.json"
# As collected; after cleaning; after the filters; without duplicates, repeated lines and
# contaminated documents.
STEPS = ("collected", "cleaned", "filtered", "kept")

# Name and description of each statistic; quality.json holds both.
TEXT_STATS = {
    "bytes": "length in bytes of UTF-8",
    "words": "words between white space; in scripts without spaces every character is one",
    "repeated_lines": "share of the bytes of the beginning of the text that stand in lines which"
    " occurred before",
}
# The first ones are counts.
COUNTS = 2
# The last one looks at the beginning of a text. That bounds its cost, and makes texts of any length
# comparable; most pages and files are shorter.
BEGINNING_BYTES = 8_192


def text_stats(texts: Texts) -> Array:
    """Return the statistics of every text, shape (n, 3), float64; a share of nothing is NaN."""
    sizes = np.diff(texts[0]).astype(np.int64)
    words = count_words(*texts)
    _, _, repeated, read = repeated_lines(*texts, 1, BEGINNING_BYTES).T
    return np.stack([sizes, words, repeated / np.where(read, read, np.nan)], axis=1)


# Histograms

# The largest relative error of a quantile.
ERROR = 2**0.125 - 1
# The code of NaN; all other codes are bins.
UNKNOWN = 255
CODES = 256
QUANTILES = (0.05, 0.5, 0.95)


def _powers(first: int, last: int) -> Array:
    """Return 2^(k/4) for k = first … last, from literals: pow of a C library may differ."""
    parts = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
    return np.array([math.ldexp(parts[k % 4], k // 4) for k in range(first, last + 1)])


# Up to 2^26.75, since a document has at most 2^26 bytes. Only filters of users give scores below
# zero; their bins end at -2^16.25.
EDGES = np.concatenate([-_powers(-40, 65)[::-1], _powers(-40, 107)])
ZERO = int(np.searchsorted(EDGES, 0.0))


def bin_codes(values: Array) -> Array:
    """Return the bin of every value (uint8): the number of edges below it; UNKNOWN for NaN."""
    values = np.asarray(values, np.float64)
    codes = np.searchsorted(EDGES, values)
    return np.where(np.isnan(values), UNKNOWN, codes).astype(np.uint8)


def histogram(codes: Array) -> Array:
    """Return the number of values of each code (int64 [CODES])."""
    return np.bincount(codes, minlength=CODES).astype(np.int64)


def quantiles(counts: Array, shares: Sequence[float] = QUANTILES) -> list[float]:
    """Return the quantiles of a histogram, to four digits; an empty list if it has no values.

    The quantile q of n values is the smallest value that at least q·n of them do not exceed. It is
    named by the geometric middle of the edges of its bin.
    """
    known = np.cumsum(counts[:UNKNOWN])
    if known[-1] == 0:
        return []
    values = []
    for share in shares:
        code = int(np.searchsorted(known, max(1, math.ceil(share * int(known[-1])))))
        sign = np.sign(code - ZERO)
        edge = EDGES[code - 1] if code > ZERO else -EDGES[code]
        values.append(float(f"{edge * 1.0905077326652577:.4g}") * sign if sign else 0.0)
    return values


def pack(counts: Array) -> dict[str, Any]:
    """Return a histogram for JSON: the first code that occurs, and the counts up to the last."""
    present = np.flatnonzero(counts[:UNKNOWN])
    first, last = (int(present[0]), int(present[-1])) if len(present) else (0, -1)
    known = counts[first : last + 1].tolist()
    return {"first": first, "counts": known, "unknown": int(counts[UNKNOWN])}


def unpack(packed: dict[str, Any]) -> Array:
    """Return the histogram that `pack` was given."""
    counts = np.zeros(CODES, np.int64)
    counts[packed["first"] : packed["first"] + len(packed["counts"])] = packed["counts"]
    counts[UNKNOWN] = packed["unknown"]
    return counts


# Shards


@dataclass
class StepCounts:
    """Documents at one step: their number, their bytes, and a histogram of each column."""

    documents: int = 0
    bytes: int = 0
    histograms: list[Array] = field(default_factory=list)

    def add(self, columns: Array, sizes: Array) -> None:
        """Add documents by the bins of the first columns, shape (columns, n), and their bytes."""
        total = int(sizes.sum(dtype=np.int64))
        self.merge(len(sizes), total, [histogram(codes) for codes in columns])

    def merge(self, documents: int, size: int, histograms: Sequence[Array]) -> None:
        """Add the counts of other documents."""
        self.documents += documents
        self.bytes += size
        pairs = zip_longest(self.histograms, histograms, fillvalue=np.zeros(CODES, np.int64))
        self.histograms = [ours + theirs for ours, theirs in pairs]

    @property
    def size(self) -> dict[str, int]:
        """Documents and bytes, as JSON files name them."""
        return {"documents": self.documents, "bytes": self.bytes}


class ShardStats:
    """Follows the rows of each batch through the steps of a shard.

    Call `cleaned`, then `drop` (empty), `filtering`, `score` and `drop` (language), `cut`, `score`
    and `drop` (filters), and `keep`.
    """

    def __init__(self, bounds: Bounds, bins: RowFile) -> None:
        # `bounds` are in the order of the columns after TEXT_STATS; `bins` receives a row of codes
        # (uint8) for each kept document.
        self.bounds, self.bins = bounds, bins
        self.collected, self.before_filters = (
            StepCounts(histograms=[np.zeros(CODES, np.int64)] * columns)
            for columns in (len(TEXT_STATS), bins.width)
        )
        # Documents by language, as the filters begin; documents and bytes by reason.
        self.languages, self.dropped = Counter[str](), defaultdict[str, Counter[str]](Counter)
        # Of the rows of the batch that are not dropped yet.
        self._codes, self._sizes = np.empty((0, bins.width), np.uint8), np.empty(0, np.uint32)

    def cleaned(self, raw: pa.StringArray, texts: pa.StringArray) -> None:
        """Begin a batch: measure it before cleaning, and what cleaning changed again."""
        codes = bin_codes(text_stats(text_buffers(raw)))
        self.collected.add(codes.T, lengths(raw))
        self._codes = np.full((len(texts), self.bins.width), UNKNOWN, np.uint8)
        self._codes[:, : len(TEXT_STATS)] = codes
        self.cut(mask(pc.not_equal(raw, texts)), texts)
        self._sizes = lengths(texts)

    def filtering(self, languages: pa.StringArray) -> None:
        """Count the rows that the filters are about to see, and their languages."""
        self.before_filters.add(self._codes[:, : len(TEXT_STATS)].T, self._sizes)
        self.languages.update(_counts(pc.fill_null(languages, "")))

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
                counts = self.before_filters.histograms
                counts[column] = counts[column] + histogram(self._codes[:, column])

    def drop(self, rows: Array, reasons: Array) -> None:
        """Remove the rows of a mask, each for its reason."""
        for reason in np.unique(reasons.astype(str)).tolist():
            sizes = self._sizes[rows][reasons == reason]
            total = int(sizes.sum(dtype=np.int64))
            self.dropped[reason].update(documents=len(sizes), bytes=total)
        self._codes, self._sizes = self._codes[~rows], self._sizes[~rows]

    def keep(self) -> None:
        """End a batch: the remaining rows are kept."""
        self.bins.append(self._codes)

    def save(self, folder: Path) -> None:
        """Write quality.json and bins.npy."""
        self.bins.save(folder / "bins.npy", transpose=True)
        steps = {"collected": self.collected, "cleaned": self.before_filters}
        table = {
            "steps": {
                name: step.size | {"columns": [pack(counts) for counts in step.histograms]}
                for name, step in steps.items()
            },
            "bounds": {name: list(pair) for name, pair in self.bounds.items()},
            "languages": dict(sorted(self.languages.items())),
            "dropped": {reason: dict(self.dropped[reason]) for reason in sorted(self.dropped)},
        }
        _write(folder, table)


def _write(folder: Path, table: Any) -> None:
    """Write quality.json on one line: a histogram is a long list of small numbers."""
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


# Sources


@dataclass
class SourceStats:
    """The sums of one source over its shards."""

    kind: str
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    steps: dict[str, StepCounts] = field(default_factory=lambda: {s: StepCounts() for s in STEPS})
    languages: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    # Documents and bytes by reason.
    dropped: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the source."""
        return {
            "collected": self.steps["collected"].size,
            "kept": self.steps["kept"].size,
            "copies": self.dropped.get(EXACT, Counter[str]())["bytes"],
            "dropped": {name: counts["documents"] for name, counts in sorted(self.dropped.items())},
        }

    def table(self) -> dict[str, Any]:
        """Return what quality.json says of the source."""
        # A score may have the name of a statistic, so columns go by their numbers.
        scores = enumerate(self.bounds.items(), len(TEXT_STATS))
        return {
            "kind": self.kind,
            "lost": round(lost_share(self.facts()), 6),
            "steps": {name: step.size for name, step in self.steps.items()},
            "measures": {name: self._column(k) for k, name in enumerate(TEXT_STATS)},
            "scores": {name: self._column(k) | {"bounds": pair} for k, (name, pair) in scores},
            "languages": {step: dict(sorted(self.languages[step].items())) for step in STEPS[1:]},
            "dropped": {reason: dict(self.dropped[reason]) for reason in sorted(self.dropped)},
        }

    def _column(self, column: int) -> dict[str, Any]:
        """Return the histograms of a column by step, with rounded quantiles."""
        digits = None if column < COUNTS else 6
        histograms = {}
        for name, step in self.steps.items():
            if column < len(step.histograms):
                counts = step.histograms[column]
                rounded = [round(value, digits) for value in quantiles(counts)]
                histograms[name] = pack(counts) | {"quantiles": rounded}
        return histograms


@build_step("refine/quality", version=3)
def sum_distributions(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    lists: Sequence[Path],
    cuts: Mapping[str, Path],
) -> dict[str, Any]:
    """Write quality.json: the distributions of all shards by source.

    `lists` are those of dropped documents.
    """
    table = DocumentTable(shards, cuts)
    stats = {source: SourceStats(kinds[source]) for source in table.sources}
    with Scratch(folder / ".scratch") as scratch:
        lengths, sizes = scratch.lengths(table), scratch.joined(table, "sizes")
        kept = scratch.kept(table, lists)
        for (name, path), rows in zip(shards, table.spans, strict=True):
            of_source = stats[name.rpartition(".")[0]]
            _add_shard(of_source, DocumentTable([(name, path)], cuts), kept[rows], lengths[rows])
        for path in lists:
            for listed, batch in table.listed(path, ["reason"]):
                shard = np.searchsorted(table.starts, listed, side="right") - 1
                # Sizes are those before any cut.
                columns = {"shard": shard, "reason": batch.column("reason"), "size": sizes[listed]}
                groups = pa.table(columns).group_by(["shard", "reason"])
                for sums in groups.aggregate([("size", "count"), ("size", "sum")]).to_pylist():
                    of_source = stats[shards[sums["shard"]][0].rpartition(".")[0]]
                    counts = of_source.dropped[sums["reason"]]
                    counts.update(documents=sums["size_count"], bytes=sums["size_sum"])
    quality = {
        "edges": EDGES.tolist(),
        "quantiles": list(QUANTILES),
        "error": round(ERROR, 4),
        "measures": TEXT_STATS,
        "beginning_bytes": BEGINNING_BYTES,
        "sources": {name: of_source.table() for name, of_source in stats.items()},
    }
    _write(folder, quality)
    return {"sources": {name: of_source.facts() for name, of_source in stats.items()}}


def _add_shard(stats: SourceStats, table: DocumentTable, kept: Array, lengths: Array) -> None:
    """Add the documents of the only shard of `table` at every step.

    `kept` is the mask of the rows that every global step kept, `lengths` their bytes after cuts.
    """
    ((_, shard),) = table.shards
    # The texts as collected and as cleaned no longer exist. The shard counted them itself.
    counted = json.loads((shard / FILE).read_text(encoding="utf-8"))
    stats.bounds |= counted["bounds"]
    for step, entry in counted["steps"].items():
        histograms = [unpack(packed) for packed in entry["columns"]]
        stats.steps[step].merge(entry["documents"], entry["bytes"], histograms)
    stats.languages["cleaned"].update(counted["languages"])
    for reason, entry in counted["dropped"].items():
        stats.dropped[reason].update(entry)
    bins = np.load(shard / "bins.npy", mmap_mode="r")
    stats.steps["filtered"].add(bins, np.load(shard / "sizes.npy", mmap_mode="r"))
    changed = np.zeros(len(kept), np.bool_)
    for _, _, cuts in table.cut_shards():
        changed[cuts.rows] = kept[cuts.rows]
    if changed.any():
        # Measure kept documents with cuts again; their scores stay.
        bins = np.array(bins)
        for rows, batch in table.batches(["text"], changed):
            codes = bin_codes(text_stats(text_buffers(batch.column("text"))))
            bins[: len(TEXT_STATS), rows] = codes.T
    stats.steps["kept"].add(bins[:, kept], lengths[kept])
    for rows, batch in table.batches(["language"]):
        languages = pc.fill_null(batch.column("language"), "")
        stats.languages["filtered"].update(_counts(languages))
        stats.languages["kept"].update(_counts(languages.filter(pa.array(kept[rows]))))


def _counts(values: pa.StringArray) -> dict[str, int]:
    """Return how often each value occurs."""
    values, counts = pc.value_counts(values).flatten()
    return dict(zip(values.to_pylist(), counts.to_pylist(), strict=True))


def lost_share(facts: Mapping[str, Any]) -> float:
    """Return the share of a source's collected bytes that is neither kept nor an exact copy."""
    collected, left = facts["collected"]["bytes"], facts["kept"]["bytes"] + facts["copies"]
    return max(0.0, 1 - left / collected) if collected else 1.0
