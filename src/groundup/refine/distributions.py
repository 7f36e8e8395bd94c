"""Distributions by source before and after each step. Reads refine/shard (bins.npy, quality.json), refine/split and the lists of
what is dropped and cut; writes quality.json. Of texts only those are read again that something was cut out of.

The file explains itself: it holds the edges of its bins, what each measure is, and the error of its quantiles.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.document import read_batches
from groundup.refine.arrays import Array, text_buffers
from groundup.refine.bins import CODES, EDGES, ERROR, QUANTILES, coded, counted, packed, quantiles, unpacked
from groundup.refine.corpus import Corpus
from groundup.refine.dedup import EXACT
from groundup.refine.measures import BEGINNING_BYTES, MEASURES, WHOLE, measured
from groundup.refine.quality import FILE, language_counts, write_table
from groundup.refined import DROPPED

# As collected; after cleaning, when the filters begin; after the filters; without duplicates, repeated lines and what evaluation
# items stand in.
STEPS = ("collected", "cleaned", "filtered", "kept")


@dataclass
class Sums:
    """What one source adds up to, over its shards."""

    kind: str
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    sizes: dict[str, Counter[str]] = field(default_factory=lambda: {step: Counter(documents=0, bytes=0) for step in STEPS})
    # By step and column: the measures, then the scores; a score may be called as a measure is.
    histograms: dict[tuple[str, int], Array] = field(default_factory=dict)
    languages: dict[str, Counter[str]] = field(default_factory=lambda: {step: Counter() for step in STEPS[1:]})
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, step: str, column: int, counts: Array) -> None:
        """Add a histogram of a column at a step."""
        self.histograms[step, column] = self.histograms.get((step, column), np.zeros(CODES, np.int64)) + counts

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
    sums: dict[str, Sums] = {}
    reasons = Reasons.of(lists)
    for name, shard in shards:
        source = name.rpartition(".")[0]
        of_source = sums.setdefault(source, Sums(kinds[source]))
        _add_early(of_source, shard)
        _add_late(of_source, Corpus([(name, shard)], cuts), np.load(split / f"{name}.npy"), reasons)
    head = {"edges": EDGES.tolist(), "quantiles": list(QUANTILES), "error": round(ERROR, 4)}
    told = {"measures": MEASURES, "beginning_bytes": BEGINNING_BYTES, "sources": {name: _table(one) for name, one in sums.items()}}
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


def _add_late(sums: Sums, corpus: Corpus, verdict: Array, reasons: Reasons) -> None:
    """Add the rows of one shard that passed the filters, and those of them that are kept."""
    ((_, shard),) = corpus.shards
    bins, sizes = np.load(shard / "bins.npy", mmap_mode="r"), np.load(shard / "sizes.npy")
    kept = verdict != DROPPED
    _add_rows(sums, "filtered", bins, sizes)
    _add_rows(sums, "kept", _after_cuts(corpus, kept, bins)[:, kept], corpus.sizes[kept])
    row = 0
    for batch in read_batches([shard / "documents.parquet"], ["id", "language"]):
        here = slice(row, row := row + len(batch))
        language, gone = batch.column("language"), pa.array(~kept[here])
        sums.languages["filtered"].update(language_counts(language))
        sums.languages["kept"].update(language_counts(language.filter(pc.invert(gone))))
        for reason, documents, size in reasons.count(batch.column("id").filter(gone), sizes[here][~kept[here]]):
            sums.drop(reason, documents, size)


def _add_rows(sums: Sums, step: str, bins: Array, sizes: Array) -> None:
    sums.sizes[step].update(documents=len(sizes), bytes=int(sizes.sum(dtype=np.int64)))
    for column, codes in enumerate(bins):
        sums.count(step, column, counted(codes))


def _after_cuts(corpus: Corpus, kept: Array, bins: Array) -> Array:
    """Return the bins of a shard's rows, measured again where something was cut out of a kept one; scores stay as they were given."""
    wanted = np.zeros(len(kept), np.bool_)
    wanted[corpus.cut_rows()] = True
    if not (wanted & kept).any():
        return bins
    found = np.array(bins)
    for rows, batch in corpus.batches(["text"], wanted & kept):
        found[: len(MEASURES), rows] = coded(measured(text_buffers(batch.column("text")))).T
    return found


@dataclass(frozen=True)
class Reasons:
    """Why listed documents are dropped: the first half of their ids, sorted, and the number of the reason of each."""

    names: list[str]
    keys: Array
    numbers: Array

    @staticmethod
    def of(lists: Sequence[Path]) -> Reasons:
        """Read the lists; 9 bytes stay of each of their documents."""
        names: dict[str, int] = {}
        keys, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
        for batch in read_batches(lists, ["id", "reason"]):
            reason = batch.column("reason").dictionary_encode()
            known = np.array([names.setdefault(name, len(names)) for name in reason.dictionary.to_pylist()], np.uint8)
            keys.append(_keys(batch.column("id")))
            numbers.append(known[reason.indices.to_numpy()])
        order = np.argsort(every := np.concatenate(keys), kind="stable")
        return Reasons(list(names), every[order], np.concatenate(numbers)[order])

    def count(self, ids: pa.StringArray, sizes: Array) -> Iterator[tuple[str, int, int]]:
        """Yield reason, documents and bytes of listed documents."""
        numbers = self.numbers[np.searchsorted(self.keys, _keys(ids))]
        for number, name in enumerate(self.names):
            rows = numbers == number
            if rows.any():
                yield name, int(rows.sum()), int(sizes[rows].sum(dtype=np.int64))


def _keys(ids: pa.StringArray) -> Array:
    """Return the first 64 bits of ids; two of a hundred million listed documents would share them once in 3,700 runs."""
    offsets, data = text_buffers(ids)
    return np.frombuffer(bytes.fromhex(data[offsets[0] : offsets[-1]].tobytes().decode()), ">u8")[::2].astype(np.uint64)


def _table(sums: Sums) -> dict[str, Any]:
    def of(column: int, digits: int | None) -> dict[str, Any]:
        found = {step: sums.histograms[step, column] for step in STEPS if (step, column) in sums.histograms}
        return {step: packed(counts) | {"quantiles": [round(q, digits) for q in quantiles(counts)]} for step, counts in found.items()}

    return {
        "kind": sums.kind,
        "lost": round(lost_share(_facts(sums)), 6),
        "steps": {step: dict(counts) for step, counts in sums.sizes.items()},
        "measures": {name: of(column, None if name in WHOLE else 6) for column, name in enumerate(MEASURES)},
        "scores": {name: of(column, 6) | {"bounds": sums.bounds[name]} for column, name in enumerate(sums.bounds, len(MEASURES))},
        "languages": {step: dict(sorted(counts.items())) for step, counts in sums.languages.items()},
        "dropped": {reason: dict(sums.dropped[reason]) for reason in sorted(sums.dropped)},
    }


def _facts(sums: Sums) -> dict[str, Any]:
    dropped = {reason: counts["documents"] for reason, counts in sorted(sums.dropped.items())}
    copies = sums.dropped.get(EXACT, Counter())["bytes"]
    return {"collected": dict(sums.sizes["collected"]), "kept": dict(sums.sizes["kept"]), "copies": copies, "dropped": dropped}


def lost_share(of: Mapping[str, Any]) -> float:
    """Return the share of a source's collected bytes that is neither kept nor, word for word, in what is kept."""
    collected = of["collected"]["bytes"]
    return max(0.0, 1 - (of["kept"]["bytes"] + of["copies"]) / collected) if collected else 1.0
