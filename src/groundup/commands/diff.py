"""Compare two runs: settings, counts by source, and what became of each document.

Each document becomes a record of 28 bytes: id, hash of its text, source and fate. The records are
partitioned by the first digits of their id, and the same part of both runs is merged at a time. So
memory follows the size of a part, not the number of documents. A shard that is the same in both
runs is not read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.corpus import RefinedShard, find_documents, read_rows, tables
from groundup.artifacts.document import read_batches
from groundup.artifacts.kinds import is_training
from groundup.commands.inspect import word_diff
from groundup.errors import GroundupError
from groundup.refine.dedup.minhash import hash_texts
from groundup.refine.out_of_core import parse_ids
from groundup.report.figures import leaves
from groundup.runtime.lock import load_lock, machine_settings
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store
from groundup.schema import settings

STAGES = ("collect", "refine", "tokenize")
TITLES = {
    "kept_dropped": "kept in A, dropped in B",
    "dropped_kept": "dropped in A, kept in B",
    "text": "kept in both, with another text",
    "split": "kept in both, on another side of the split",
    "reason": "dropped in both, for other reasons",
    "only_first": "only in A",
    "only_second": "only in B",
}
# Fates of kept documents; the code of a dropped one is that of its reason, after these.
KEPT = ("train", "validation", "collected")
# Documents of the larger run in one part: 28 bytes each, in both runs.
PART_RECORDS = 1 << 20
# Of each category.
EXAMPLES = 3
RECORD = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("text", "<u8"), ("source", "<u2"), ("fate", "<u2")]
)

Table = dict[str, Any]
Records = npt.NDArray[Any]
Roots = tuple[Path, Path]


def compare_runs(first: Path, second: Path) -> Table:
    """Return what differs between two runs, as plain tables; pairs are (first run, second run).

    They are runs, unfinished (stages that a run does not have), compared (the last stage whose
    documents both have), settings, counts (by source and figure), documents (by category, source
    and fate) and examples (by category).

    Raises GroundupError if one of them is no run, or has collected nothing.
    """
    roots = (first, second)
    missing = [[stage for stage in STAGES if Store(root).view(stage) is None] for root in roots]
    for root, stages in zip(roots, missing, strict=True):
        load_lock(root)
        if "collect" in stages:
            raise GroundupError(
                f"{root}: it has collected nothing yet; `groundup run RECIPE --out {root} --until"
                " collect` does"
            )
    stage = "collect" if any("refine" in stages for stages in missing) else "refine"
    difference = compare_documents(roots, stage)
    first_counts, second_counts = map(source_counts, roots)
    by_source = {
        source: differing(first_counts.get(source, {}), second_counts.get(source, {}))
        for source in sorted({*first_counts, *second_counts})
    }
    return {
        "runs": [str(root) for root in roots],
        "unfinished": missing,
        "compared": stage,
        "settings": differing(*map(resolved_settings, roots)),
        "counts": {source: pairs for source, pairs in by_source.items() if pairs},
        "documents": difference.rows(),
        "examples": difference.examples,
    }


def resolved_settings(root: Path) -> Table:
    """Return every setting of a run by its dotted path, with its machine and its versions."""
    table = settings(load_lock(root))
    table["source"] = {source["name"]: source for source in table["source"]}
    events = Ledger(root / "ledger.jsonl").events("run")
    table["machine"] = machine_settings(root)
    table["version"] = events[-1].get("versions", {}) if events else {}
    return dict(leaves(table))


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the pairs of values that differ, by name; None stands for a missing value."""
    names = sorted({*first, *second})
    pairs = {name: [first.get(name), second.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def source_counts(root: Path) -> dict[str, Counter[str]]:
    """Return what each stage counted, by source."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    collected = Store(root).artifacts("collect", "collect/shard")
    refined, tokenized = Store(root).view("refine"), Store(root).view("tokenize")
    stages = [(shard.facts["source"], "collected", shard.facts) for shard in collected]
    for source, facts in refined.facts.get("sources", {}).items() if refined else ():
        stages.append((source, "kept", facts))
    for source, name, facts in stages:
        dropped = {f"dropped {reason}": n for reason, n in facts["dropped"].items()}
        counts[source].update({name: facts["documents"]} | dropped)
    for source, splits in tokenized.facts.get("sources", {}).items() if tokenized else ():
        for split, facts in splits.items():
            sizes = {f"{split} {name}": facts[name] for name in ("documents", "tokens")}
            counts[source].update(sizes)
    return counts


@dataclass
class Names:
    """Codes of names, in the order in which the names came."""

    known: list[str] = field(default_factory=list)

    def codes(self, column: pa.Array) -> npt.NDArray[np.uint16]:
        """Return the code of every name in a column."""
        encoded = pc.fill_null(column, "").dictionary_encode()
        names = encoded.dictionary.to_pylist()
        self.known += [name for name in names if name not in self.known]
        codes = np.array([self.known.index(name) for name in names], np.uint16)
        return codes[encoded.indices.to_numpy(zero_copy_only=False)]


@dataclass
class Difference:
    """What differs, by the categories of TITLES."""

    fates: Names = field(default_factory=lambda: Names(list(KEPT)))
    sources: Names = field(default_factory=Names)
    # Documents of each (source, first fate, second fate).
    counts: dict[str, Counter[tuple[str, str, str]]] = field(default_factory=dict)
    # The first documents by id.
    examples: dict[str, list[Table]] = field(default_factory=dict)

    def add(self, first: Records, second: Records) -> None:
        """Join the same part of both runs by id, and add what differs."""
        order, new = _sort_by_id(np.concatenate([first, second]))
        ids = np.empty(len(order), np.int64)
        ids[order] = np.cumsum(new) - 1
        # [run, id]: the record of each id in each run, and whether the run has it.
        shape = (2, int(ids.max(initial=-1)) + 1)
        records, present = np.zeros(shape, RECORD), np.zeros(shape, np.bool_)
        columns = np.split(ids, [len(first)])
        for run, part in enumerate((first, second)):
            records[run, columns[run]], present[run, columns[run]] = part, True
        fates = np.where(present, records["fate"].astype(np.int64), -1)
        kept, dropped = present & (fates < len(KEPT)), fates >= len(KEPT)
        changed = fates[0] != fates[1]
        categories = {
            "only_first": ~present[1],
            "only_second": ~present[0],
            "kept_dropped": kept[0] & dropped[1],
            "dropped_kept": dropped[0] & kept[1],
            "text": kept.all(axis=0) & (records["text"][0] != records["text"][1]),
            "split": kept.all(axis=0) & changed,
            "reason": dropped.all(axis=0) & changed,
        }
        known = np.where(present[0], records[0], records[1])
        for category, chosen in categories.items():
            self._count(category, known[chosen], fates[:, chosen])

    def rows(self) -> dict[str, list[Table]]:
        """Return the counts of each category as a table."""
        return {
            category: [
                {"source": source, "first": first, "second": second, "documents": n}
                for (source, first, second), n in sorted(counts.items())
            ]
            for category, counts in self.counts.items()
        }

    def _count(self, category: str, records: Records, fates: npt.NDArray[np.int64]) -> None:
        """Count documents by source and both fates, and keep the first few as examples."""
        sources = records["source"].astype(np.int64)
        triples, counts = np.unique(np.stack([sources, *fates], 1), axis=0, return_counts=True)
        # The fate of an absent document, -1, is the last name.
        names = [*self.fates.known, ""]
        counter = self.counts.setdefault(category, Counter())
        for (source, first, second), count in zip(triples.tolist(), counts.tolist(), strict=True):
            counter[self.sources.known[source], names[first], names[second]] += count
        examples = self.examples.setdefault(category, [])
        for row in range(min(len(records), EXAMPLES - len(examples))):
            document = f"{int(records['high'][row]):016x}{int(records['low'][row]):016x}"
            example = {"id": document, "origin": None, "record": None}
            example["source"] = self.sources.known[sources[row]]
            example["first"], example["second"] = (names[fate] for fate in fates[:, row])
            examples.append(example)

    def locate(self, roots: Roots) -> None:
        """Give each example its origin and record, from a run that has them."""
        examples = [example for rows in self.examples.values() for example in rows]
        for root in roots:
            paths = [*tables(root, "collect/documents"), *tables(root, "collect/dropped")]
            ids = {example["id"] for example in examples if example["origin"] is None}
            located = find_documents(paths, ids, ("id", "origin", "record"))
            for example in examples:
                example.update(located.get(example["id"], {}))


def compare_documents(roots: Roots, stage: str) -> Difference:
    """Compare the documents of two runs after a stage that both have.

    `refine` compares what was kept and dropped, `collect` what was read. Sources that no model is
    trained on are ignored.
    """
    changed, difference = _changed_tables(roots, stage), Difference()
    sizes = [sum(pq.read_metadata(path).num_rows for path in paths) for paths in changed]
    parts = 1 + max(sizes) // PART_RECORDS
    with TemporaryDirectory() as name:
        files = [[Path(name, f"{side}-{part}") for part in range(parts)] for side in range(2)]
        for side in range(2):
            with ExitStack() as stack:
                opened = [stack.enter_context(path.open("wb")) for path in files[side]]
                for records in _read_records(changed[side], stage, difference):
                    # The first 32 bits of the id, scaled to the number of parts.
                    part_of = (records["high"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
                    for part in np.unique(part_of).tolist():
                        opened[part].write(records[part_of == part].tobytes())
        collected = [Store(root).artifacts("collect", "collect/shard") for root in roots]
        facts = [shard.facts for shards in collected for shard in shards]
        untrained = {shard["source"] for shard in facts if not is_training(shard["kind"])}
        known = difference.sources.known
        skipped = [code for code, name in enumerate(known) if name in untrained]
        for paths in zip(*files, strict=True):
            pair = []
            for path in paths:
                records = np.fromfile(path, RECORD)
                records = records[~np.isin(records["source"], skipped)]
                # A record may be listed twice, such as damage in a member and in its archive.
                order, new = _sort_by_id(records)
                pair.append(records[order[new]])
            difference.add(*pair)
    difference.locate(roots)
    return difference


def _sort_by_id(records: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the order of ids, and which of them, in that order, differ from the one before."""
    order = np.lexsort((records["low"], records["high"]))
    high, low = records["high"][order], records["low"][order]
    new = np.ones(len(records), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return order, new


def _changed_tables(roots: Roots, stage: str) -> list[list[Path]]:
    """Return the tables of each run that differ from those of the other, or whose verdicts do."""
    digests: list[set[tuple[str, str]]] = []
    for root in roots:
        views = filter(None, map(Store(root).view, ("collect", stage)))
        files = [(view.path.name, view.manifest["files"]) for view in views]
        digests.append({(f"{v}/{n}", f["sha256"]) for v, table in files for n, f in table.items()})
    changed = {name for name, _ in digests[0] ^ digests[1]}
    for name in list(changed):
        if name.startswith(("refine/split/", "refine/cuts/")):
            changed.add(f"refine/documents/{Path(name).stem}.parquet")
    folders = (f"{stage}/documents", *sorted({"collect/dropped", f"{stage}/dropped"}))
    listed = [[path for folder in folders for path in tables(root, folder)] for root in roots]
    return [[path for path in paths if "/".join(path.parts[-3:]) in changed] for paths in listed]


def _read_records(paths: Sequence[Path], stage: str, names: Difference) -> Iterator[Records]:
    """Yield the records of the documents in tables, and of what lists name as dropped."""
    for path in paths:
        if path.parent.name == "dropped":
            for batch in read_batches([path], ["id", "source", "reason"]):
                yield _pack(batch, names, 0, names.fates.codes(batch.column("reason")))
            continue
        shard, columns = RefinedShard(path.parents[1], path.stem), ["id", "text", "source"]
        # Verdicts 1 and 2 are the fates 0 and 1. Dropped documents are on a list, with a reason.
        fates = shard.verdicts().astype(np.int64) - 1 if stage == "refine" else None
        kept = None if fates is None else fates >= 0
        for rows, batch in read_rows(path, shard.cuts, columns, kept):
            texts = hash_texts(text_buffers(batch.column("text")))
            collected = KEPT.index("collected")
            yield _pack(batch, names, texts, collected if fates is None else fates[rows])


def _pack(batch: pa.RecordBatch, names: Difference, texts: Any, fates: Any) -> Records:
    """Return the records of a batch, from the hashes of its texts and its fates."""
    records = np.zeros(len(batch), RECORD)
    records["high"], records["low"] = parse_ids(batch.column("id")).T
    records["text"], records["fate"] = texts, fates
    records["source"] = names.sources.codes(batch.column("source"))
    return records


def format_comparison(table: Table, width: int = 80) -> str:
    """Return the tables of `compare_runs` as text."""
    lines = [f"{letter} = {root}" for letter, root in zip("AB", table["runs"], strict=True)]
    for letter, missing in zip("AB", table["unfinished"], strict=True):
        if missing:
            lines.append(f"{letter} is not finished: it has no {' and no '.join(missing)}")
    lines += ["", "settings" if table["settings"] else "no setting differs"]
    for name, pair in table["settings"].items():
        lines.append(f"  {name}: {_setting(pair[0])} → {_setting(pair[1])}")
    heads = f"{'':44} {'A':>14} {'B':>14}"
    lines += ["", heads if table["counts"] else "no count of documents or tokens differs"]
    for source, pairs in table["counts"].items():
        lines.append(source)
        for name, (first, second) in pairs.items():
            lines.append(f"  {name:42} {first or 0:>14,} {second or 0:>14,}")
    for category, title in TITLES.items():
        lines += _category_lines(table, category, title, width)
    if not any(table["documents"].values()):
        lines += ["", f"no document differs after {table['compared']}"]
    return "\n".join(lines)


def _setting(value: Any) -> str:
    if value is None:
        return "not there"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if whole else str(value)


def _category_lines(table: Table, category: str, title: str, width: int) -> list[str]:
    """Return the counts and examples of one category, with the words that differ in a text."""
    rows = table["documents"].get(category, [])
    if not rows:
        return []

    def fates(row: Table) -> str:
        return " → ".join(filter(None, (row["first"], row["second"])))

    lines = ["", f"{title}: {sum(row['documents'] for row in rows):,}"]
    lines += [f"  {row['documents']:>10,}  {row['source']}  {fates(row)}" for row in rows]
    for row in table["examples"].get(category, []):
        name = f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}"
        lines.append(f"  {name}  {fates(row)}")
        if category != "text":
            continue
        texts = []
        for root in table["runs"]:
            paths = tables(Path(root), f"{table['compared']}/documents", row["source"])
            documents = find_documents(paths, [row["id"]], ("id", "text"))
            texts.append(documents.get(row["id"], {}).get("text", ""))
        lines += [f"    {line}" for line in word_diff(texts[0], texts[1], width - 4, ("A", "B"))]
    return lines
