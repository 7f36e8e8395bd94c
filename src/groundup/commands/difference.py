"""Which documents differ between two runs. Reads their views `collect` and `refine`; writes nothing
but a temporary folder.

Every document becomes a record of 28 bytes: id, hash of its text, source and fate. Records go to
files by the first digits of
their id, and two such files are merged at a time: memory follows a part of the documents, not their
number. A shard that is the same in both runs is not read.
"""

from __future__ import annotations

from collections import Counter
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

from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.corpus import RefinedShard, read_rows
from groundup.artifacts.document import read_batches
from groundup.refine.dedup.minhash import hash_texts
from groundup.runtime.store import Artifact, Store

RECORD = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("text", "<u8"), ("source", "<u2"), ("fate", "<u2")]
)
Records = npt.NDArray[Any]
# Of each part, 28 bytes each, twice.
RECORDS_AT_ONCE = 1 << 20
EXAMPLES = 3

# Fates of documents that were not dropped; the reasons follow.
KEPT = ("train", "validation", "collected")


@dataclass
class Names:
    """Numbers of names in the order in which they were met."""

    known: list[str] = field(default_factory=list)

    def numbers(self, column: pa.Array) -> npt.NDArray[np.uint16]:
        """Return the number of every name of a column."""
        coded = pc.fill_null(column, "").dictionary_encode()
        table = [self._number(name) for name in coded.dictionary.to_pylist()]
        return np.array(table, np.uint16)[coded.indices.to_numpy(zero_copy_only=False)]

    def _number(self, name: str) -> int:
        if name not in self.known:
            self.known.append(name)
        return self.known.index(name)


@dataclass
class Difference:
    """What differs, by category and then by source and fate; and the first documents of each
    category by id.

    Categories: `kept_dropped` and `dropped_kept` (first run, second run), `text` (kept in both, and
    another text), `split` (kept in both, on another side), `reason` (dropped in both, for other
    reasons), `only_first`, `only_second`.
    """

    counts: dict[str, Counter[tuple[str, str, str]]] = field(default_factory=dict)
    examples: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=dict)


def differences(one: Path, other: Path, stage: str, ignored: Sequence[str] = ()) -> Difference:
    """Compare the documents of two runs.

    Args:
        one, other: run directories.
        stage: that both have: with `refine`, what was kept and dropped; with `collect`, what was
            read.
        ignored: sources that no text is learned from.
    """
    views = [
        [view for name in ("collect", stage) if (view := Store(root).view(name)) is not None]
        for root in (one, other)
    ]
    same = _same_files(views[0], views[1])
    parts = 1 + max(sum(_documents(view) for view in side) for side in views) // RECORDS_AT_ONCE
    fates, sources = Names(list(KEPT)), Names()
    found = Difference()
    with TemporaryDirectory() as folder:
        for number, root in enumerate((one, other)):
            _spread(Path(folder), number, parts, _records(root, stage, same, fates, sources))
        unread = {sources.known.index(name) for name in ignored if name in sources.known}
        for part in range(parts):
            first, second = (_read(Path(folder) / f"{number}-{part}", unread) for number in (0, 1))
            _merge(found, first, second, fates.known, sources.known)
    return found


def _documents(view: Artifact) -> int:
    entries = view.manifest["artefacts"]
    root = view.path.parent
    shards = (Store(root).artifact(entry) for entry in entries if entry["step"].endswith("/shard"))
    return sum(
        int(shard.facts["documents"]) + sum(shard.facts["dropped"].values())
        for shard in shards
        if shard is not None
    )


def _same_files(one: Sequence[Artifact], other: Sequence[Artifact]) -> set[str]:
    """Return the tables, as STAGE/NAME, whose bytes (verdicts and cuts too) are the same in both
    runs.
    """
    first, second = (
        {
            f"{view.path.name}/{name}": e["sha256"]
            for view in side
            for name, e in view.manifest["files"].items()
        }
        for side in (one, other)
    )
    parts = {name: [name, *_beside(name)] for name in first}
    return {
        name
        for name, of in parts.items()
        if name in second and all(first.get(part) == second.get(part) for part in of)
    }


def _beside(name: str) -> Sequence[str]:
    """Return the files that say what becomes of a table's rows; a shard without cuts has none of
    these.
    """
    if not name.startswith("refine/documents/"):
        return ()
    return [f"refine/{folder}/{Path(name).stem}.npy" for folder in ("split", "cuts")]


def _records(
    root: Path, stage: str, same: set[str], fates: Names, sources: Names
) -> Iterator[Records]:
    """Yield the records of the documents in tables that are not the same in both runs."""
    for path in _tables(root, f"{stage}/documents", same):
        columns, shard = ["id", "text", "source"], RefinedShard(root / stage, path.stem)
        verdicts = shard.verdicts().astype(np.uint16) if stage == "refine" else None
        # What is on a list stands there with its reason.
        kept = None if verdicts is None else verdicts > 0
        for rows, batch in read_rows(path, shard.cuts, columns, kept):
            fate = np.full(len(rows), 2, np.uint16) if verdicts is None else verdicts[rows] - 1
            yield _pack(batch, sources, hash_texts(text_buffers(batch.column("text"))), fate)
    for folder in sorted({"collect/dropped", f"{stage}/dropped"}):
        for batch in read_batches(_tables(root, folder, same), ["id", "source", "reason"]):
            yield _pack(batch, sources, 0, fates.numbers(batch.column("reason")))


def _tables(root: Path, folder: str, same: set[str]) -> list[Path]:
    return [
        path
        for path in sorted((root / folder).glob("*.parquet"))
        if f"{folder}/{path.name}" not in same
    ]


def _pack(batch: pa.RecordBatch, sources: Names, texts: Any, fates: Any) -> Records:
    records = np.zeros(len(batch), RECORD)
    offsets, data = text_buffers(batch.column("id"))
    # 32 hexadecimal digits each.
    numbers = np.frombuffer(
        bytes.fromhex(data[offsets[0] : offsets[-1]].tobytes().decode()), ">u8"
    ).reshape(-1, 2)
    records["high"], records["low"] = numbers[:, 0], numbers[:, 1]
    records["text"], records["fate"], records["source"] = (
        texts,
        fates,
        sources.numbers(batch.column("source")),
    )
    return records


def _spread(folder: Path, number: int, parts: int, batches: Iterator[Records]) -> None:
    """Write records into files by the first digits of their id; the files are in the order of ids."""
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / f"{number}-{part}").open("wb")) for part in range(parts)
        ]
        for records in batches:
            part_of = (records["high"] >> np.uint64(32)).astype(np.uint64) * np.uint64(
                parts
            ) >> np.uint64(32)
            for part in np.unique(part_of).tolist():
                files[part].write(records[part_of == part].tobytes())


def _read(path: Path, ignored: set[int]) -> Records:
    records = np.fromfile(path, RECORD)
    records = records[~np.isin(records["source"], list(ignored))]
    order, new = _by_id(records)
    # A record may be listed twice, such as damage in a member and in its archive.
    return records[order[new]]


def _by_id(records: Records) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the order of ids, and which of them, in that order, is not the one before it."""
    order = np.lexsort((records["low"], records["high"]))
    high, low = records["high"][order], records["low"][order]
    new = np.ones(len(records), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return order, new


def _merge(
    found: Difference, one: Records, other: Records, fates: Sequence[str], sources: Sequence[str]
) -> None:
    """Join two sorted parts by id, and note what differs."""
    order, new = _by_id(np.concatenate([one, other]))
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    at = np.full((2, int(number.max(initial=-1)) + 1), -1, np.int64)
    at[0, number[: len(one)]], at[1, number[len(one) :]] = (
        np.arange(len(one)),
        np.arange(len(other)),
    )
    both = (at >= 0).all(axis=0)
    _only(found, "only_first", one[at[0, at[1] < 0]], fates, sources, 0)
    _only(found, "only_second", other[at[1, at[0] < 0]], fates, sources, 1)
    _pairs(found, one[at[0, both]], other[at[1, both]], fates, sources)


def _only(
    found: Difference,
    category: str,
    records: Records,
    fates: Sequence[str],
    sources: Sequence[str],
    side: int,
) -> None:
    empty = np.full(len(records), len(fates))
    first, second = (empty, records["fate"]) if side else (records["fate"], empty)
    _note(found, category, records, first, second, [*fates, ""], sources)


def _pairs(
    found: Difference, one: Records, other: Records, fates: Sequence[str], sources: Sequence[str]
) -> None:
    kept = [records["fate"] < len(KEPT) for records in (one, other)]
    changed = one["fate"] != other["fate"]
    categories: Mapping[str, Any] = {
        "kept_dropped": kept[0] & ~kept[1],
        "dropped_kept": ~kept[0] & kept[1],
        "text": kept[0] & kept[1] & (one["text"] != other["text"]),
        "split": kept[0] & kept[1] & changed,
        "reason": ~kept[0] & ~kept[1] & changed,
    }
    for category, rows in categories.items():
        _note(found, category, one[rows], one["fate"][rows], other["fate"][rows], fates, sources)


def _note(
    found: Difference,
    category: str,
    records: Records,
    one: Any,
    other: Any,
    fates: Sequence[str],
    sources: Sequence[str],
) -> None:
    """Count records by source and both fates, and keep the first few."""
    triples, counts = np.unique(
        np.stack([records["source"], one, other], axis=1).astype(np.int64),
        axis=0,
        return_counts=True,
    )
    named = {
        (sources[s], fates[a], fates[b]): int(count)
        for (s, a, b), count in zip(triples.tolist(), counts.tolist(), strict=True)
    }
    found.counts.setdefault(category, Counter()).update(named)
    examples = found.examples.setdefault(category, [])
    for row in range(min(len(records), EXAMPLES - len(examples))):
        record = records[row]
        name = f"{int(record['high']):016x}{int(record['low']):016x}"
        examples.append(
            (name, sources[int(record["source"])], fates[int(one[row])], fates[int(other[row])])
        )
