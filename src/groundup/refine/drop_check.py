"""Distributions by source before and after each step, and the check for lost sources.

quality.json sums the histograms of all shards. It describes itself: it holds the edges of its bins,
the meaning of each statistic, and the error of its quantiles. Only texts with cuts are read again.
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
from groundup.artifacts.kinds import is_training
from groundup.errors import SourceError
from groundup.recipe import Source
from groundup.refine.dedup.duplicates import EXACT
from groundup.refine.out_of_core import DocumentTable, Scratch
from groundup.refine.stats import shard_stats
from groundup.runtime.run import Run, build_step

# As collected; after cleaning; after the filters; without duplicates, repeated lines and
# contaminated documents.
STEPS = ("collected", "cleaned", "filtered", "kept")
# Reasons, and other sources, that the message of the drop check names.
MAX_NAMED = 5


@dataclass
class SourceStats:
    """The sums of one source over its shards."""

    kind: str
    bounds: dict[str, list[float | None]] = field(default_factory=dict)
    steps: dict[str, shard_stats.StepCounts] = field(
        default_factory=lambda: {step: shard_stats.StepCounts() for step in STEPS}
    )
    languages: dict[str, Counter[str]] = field(
        default_factory=lambda: {step: Counter() for step in STEPS[1:]}
    )
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def add_dropped(self, reason: str, documents: int, size: int) -> None:
        """Add what a reason dropped."""
        self.dropped.setdefault(reason, Counter()).update(documents=documents, bytes=size)

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the source."""
        return {
            "collected": self.steps["collected"].size,
            "kept": self.steps["kept"].size,
            "copies": self.dropped.get(EXACT, Counter())["bytes"],
            "dropped": {name: counts["documents"] for name, counts in sorted(self.dropped.items())},
        }

    def table(self) -> dict[str, Any]:
        """Return what quality.json says of the source."""
        # A score may have the name of a statistic, so columns go by their numbers.
        scores = enumerate(self.bounds.items(), len(shard_stats.TEXT_STATS))
        return {
            "kind": self.kind,
            "lost": round(lost_share(self.facts()), 6),
            "steps": {name: step.size for name, step in self.steps.items()},
            "measures": {
                name: self._column(column, None if name in shard_stats.COUNTS else 6)
                for column, name in enumerate(shard_stats.TEXT_STATS)
            },
            "scores": {
                name: self._column(column, 6) | {"bounds": bounds}
                for column, (name, bounds) in scores
            },
            "languages": {
                step: dict(sorted(counts.items())) for step, counts in self.languages.items()
            },
            "dropped": {reason: dict(self.dropped[reason]) for reason in sorted(self.dropped)},
        }

    def _column(self, column: int, digits: int | None) -> dict[str, Any]:
        """Return the histograms of a column by step, with rounded quantiles."""
        histograms = {}
        for name, step in self.steps.items():
            if column < len(step.histograms):
                counts = step.histograms[column]
                rounded = [round(value, digits) for value in shard_stats.quantiles(counts)]
                histograms[name] = shard_stats.pack(counts) | {"quantiles": rounded}
        return histograms


@build_step("refine/quality", version=3)
def sum_distributions(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    kinds: Mapping[str, str],
    split: Path,
    lists: Sequence[Path],
    cuts: Mapping[str, Path],
) -> dict[str, Any]:
    """Write quality.json: the distributions of all shards by source.

    `shards` and `cuts` are those of DocumentTable, `split` is the folder of the split of each
    shard, `lists` are the lists of dropped documents.
    """
    table = DocumentTable(shards, cuts)
    stats = {source: SourceStats(kinds[source]) for source in table.sources}
    with Scratch(folder / ".scratch") as scratch:
        lengths, sizes = scratch.lengths(table), scratch.joined(table, "sizes")
        for (name, path), rows in zip(shards, table.spans, strict=True):
            of_source = stats[name.rpartition(".")[0]]
            kept = np.load(split / f"{name}.npy") != DROPPED
            _add_shard(of_source, DocumentTable([(name, path)], cuts), kept, lengths[rows])
        for path in lists:
            for listed, batch in table.listed(path, ["reason"]):
                shard = np.searchsorted(table.starts, listed, side="right") - 1
                # Sizes are those before any cut.
                columns = {"shard": shard, "reason": batch.column("reason"), "size": sizes[listed]}
                groups = pa.table(columns).group_by(["shard", "reason"])
                for sums in groups.aggregate([("size", "count"), ("size", "sum")]).to_pylist():
                    of_source = stats[shards[sums["shard"]][0].rpartition(".")[0]]
                    of_source.add_dropped(sums["reason"], sums["size_count"], sums["size_sum"])
    quality = {
        "edges": shard_stats.EDGES.tolist(),
        "quantiles": list(shard_stats.QUANTILES),
        "error": round(shard_stats.ERROR, 4),
        "measures": shard_stats.TEXT_STATS,
        "beginning_bytes": shard_stats.BEGINNING_BYTES,
        "sources": {name: of_source.table() for name, of_source in stats.items()},
    }
    shard_stats.write_compact(folder / shard_stats.FILE, quality)
    return {"sources": {name: of_source.facts() for name, of_source in stats.items()}}


def _add_shard(stats: SourceStats, table: DocumentTable, kept: Array, lengths: Array) -> None:
    """Add the documents of the only shard of `table` at every step.

    `kept` is the mask of the rows that every global step kept, `lengths` their bytes after cuts.
    """
    ((_, shard),) = table.shards
    # The texts as collected and as cleaned no longer exist. The shard counted them itself.
    counted = json.loads((shard / shard_stats.FILE).read_text(encoding="utf-8"))
    stats.bounds |= counted["bounds"]
    for step, entry in counted["steps"].items():
        histograms = [shard_stats.unpack(packed) for packed in entry["columns"]]
        stats.steps[step].merge(
            shard_stats.StepCounts(entry["documents"], entry["bytes"], histograms)
        )
    stats.languages["cleaned"].update(counted["languages"])
    for reason, entry in counted["dropped"].items():
        stats.add_dropped(reason, entry["documents"], entry["bytes"])
    bins = np.load(shard / "bins.npy", mmap_mode="r")
    stats.steps["filtered"].add(bins, np.load(shard / "sizes.npy", mmap_mode="r"))
    changed = np.zeros(len(kept), np.bool_)
    for _, _, cuts in table.cut_shards():
        changed[cuts.rows] = kept[cuts.rows]
    if changed.any():
        # Measure kept documents with cuts again; their scores stay.
        bins = np.array(bins)
        for rows, batch in table.batches(["text"], changed):
            codes = shard_stats.bin_codes(
                shard_stats.text_stats(text_buffers(batch.column("text")))
            )
            bins[: len(shard_stats.TEXT_STATS), rows] = codes.T
    stats.steps["kept"].add(bins[:, kept], lengths[kept])
    row = 0
    for batch in read_batches([shard / "documents.parquet"], ["language"]):
        language, here = batch.column("language"), kept[row : row + len(batch)]
        row += len(batch)
        stats.languages["filtered"].update(shard_stats.language_counts(language))
        stats.languages["kept"].update(shard_stats.language_counts(language.filter(pa.array(here))))


def lost_share(facts: Mapping[str, Any]) -> float:
    """Return the share of a source's collected bytes that is neither kept nor an exact copy."""
    collected, left = facts["collected"]["bytes"], facts["kept"]["bytes"] + facts["copies"]
    return max(0.0, 1 - left / collected) if collected else 1.0


# The drop check. A source that lost nearly all of its text is nearly always a mistake that no later
# stage shows: a wrong kind, filters for other text, wrong languages. The share is of bytes, from
# collected to kept text. Exact duplicates do not count as lost, because another document keeps
# every word. Near duplicates do: their differences are lost, and a site whose pages come from one
# template looks just like that.


def check_drops(
    run: Run, sources: Mapping[str, Any], rejected: Mapping[str, Mapping[str, int]]
) -> None:
    """Stop a run in which a source lost nearly all of its text; warn where the recipe allows it.

    No run is stopped while documents are being forgotten: the user wants the text gone, and it
    would keep it.

    Args:
        sources: facts of refine/quality.
        rejected: what the collector rejected, by source and reason.

    Raises:
        SourceError: one line for the first source, and the names of others.
    """
    failed: dict[str, str] = {}
    for source in run.recipe.source:
        if not is_training(source.kind):
            continue
        of_source, default = source.most_dropped, run.recipe.refine.most_dropped
        limit = default if of_source == "auto" else of_source
        facts = sources.get(source.name)
        collected = facts is not None and facts["collected"]["documents"] > 0
        reasons = facts["dropped"] if facts and collected else rejected.get(source.name, {})
        problem = _problem(source, facts if collected else None, reasons, limit, run.root)
        if problem and limit < 1 and not run.allow_discard:
            failed[source.name] = (
                f"{problem}; check its kind, and the languages and filters of [refine], or set"
                " most_dropped = 1 in its [[source]]"
            )
        elif problem and collected:
            # For a source without documents, the collector has warned.
            run.note(f"warning: {problem}")
    if failed:
        first, *others = failed
        named = ", ".join(f'"{name}"' for name in others[:MAX_NAMED])
        more = " and others" if len(others) > MAX_NAMED else ""
        also = f" (the same holds for {named}{more})" if others else ""
        raise SourceError(failed[first] + also)
    if not run.allow_discard and not any(facts["kept"]["documents"] for facts in sources.values()):
        raise SourceError("no source has a document left; there is nothing to train on")


def _problem(
    source: Source,
    facts: Mapping[str, Any] | None,
    reasons: Mapping[str, int],
    limit: float,
    root: Path,
) -> str:
    """Describe the loss of a source that exceeds the limit or is complete; "" for no problem."""
    if facts is None:
        lost = f"no document of kind {source.kind} was collected"
    elif not facts["kept"]["documents"]:
        lost = "no document of it is kept"
    elif (share := lost_share(facts)) > limit:
        # Rounded down, so a loss of nearly everything does not read as 100 %.
        percent = f"{int(share * 1000) / 10:.1f} %"
        lost = f"{percent} of its text is lost, more than most_dropped = {limit:g}"
    else:
        return ""
    present = [(name, count) for name, count in reasons.items() if count]
    ranked = sorted(present, key=lambda pair: (-pair[1], pair[0]))
    named = ", ".join(f"{count:,} {name}" for name, count in ranked[:MAX_NAMED])
    if len(ranked) > MAX_NAMED:
        named += ", …"
    look = f" (`groundup inspect {root} --dropped {ranked[0][0]}`)" if ranked else ""
    return f'source "{source.name}": {lost}; listed are {named or "none"}{look}'
