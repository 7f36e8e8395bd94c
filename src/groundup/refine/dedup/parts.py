"""The work of a list over many documents in tasks, which workers and nodes share.

    refine/buckets    bands, range of keys    the buckets of these bands, members in total order
    refine/near_rows, refine/cluster_rows     which documents are to be compared (one task)
    refine/shingles   shard                   the shingle sets of these documents
    the list                                  compares and decides (one task)

A task of the first kind has about as many entries as fit in memory: so their number follows the
index, never the workers, and the bytes of the list are those that one task makes. The artifacts are
deleted when the stage ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.dedup.lsh_index import ENTRY_BYTES, LshIndex, key_ranges, sort_buckets
from groundup.refine.out_of_core import DocumentTable, IndexedShard, RowFile, Scratch, map_array
from groundup.runtime.run import Job, Keyed, Run, Unkeyed, build_step
from groundup.runtime.store import Artifact, Facts


@dataclass(frozen=True)
class IndexPart:
    """Some bands of the index, and a range of their keys."""

    bands: Sequence[int]
    low: int
    high: int


def index_parts(documents: int, bands: Sequence[int], memory: int) -> list[IndexPart]:
    """Return parts of the index that take about `memory` bytes each: several bands, or a range."""
    entries = max(1, memory // ENTRY_BYTES)
    together = max(1, entries // max(1, documents))
    groups = [bands[first : first + together] for first in range(0, len(bands), together)]
    ranges = list(key_ranges(documents, memory))
    return [IndexPart(list(group), low, high) for group in groups for low, high in ranges]


@build_step("refine/buckets", version=1)
def write_buckets(
    folder: Path,
    shards: Sequence[tuple[str, Path]],
    part: IndexPart,
    priorities: Mapping[str, int],
    updates: Mapping[str, Path],
    memory: int,
) -> Facts:
    """Write the buckets of a part of the index with at least two members, in total order.

    BAND.rows.npy and BAND.starts.npy (int64): bucket b is rows[starts[b] : starts[b + 1]].
    `priorities` are those of sources; `updates` and `memory` are those of `LshIndex`.
    """
    table, none = DocumentTable(shards), np.zeros(0, np.uint64)
    with Scratch(folder / ".scratch") as scratch:
        index = LshIndex(table, none, none, memory, scratch.folder, updates)
        for band in part.bands:
            starts, rows, count = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)], 0
            for bounds, members in index.unsorted(band, part.low, part.high):
                starts.append(bounds[1:] + count)
                rows.append(_in_order(table, priorities, bounds, members))
                count += len(members)
            np.save(folder / f"{band:02}.starts.npy", np.concatenate(starts))
            np.save(folder / f"{band:02}.rows.npy", np.concatenate(rows))
    return {}


def _in_order(
    table: DocumentTable, priorities: Mapping[str, int], starts: Array, rows: Array
) -> Array:
    """Return the rows of buckets in total order: only what decides theirs is read."""
    members, places = np.unique(rows, return_inverse=True)
    precedence, ids = np.empty(len(members), np.int64), np.empty((len(members), 2), np.uint64)
    bounds = np.searchsorted(members, table.starts)
    for k in np.flatnonzero(np.diff(bounds)).tolist():
        (name, folder), here = table.shards[k], slice(bounds[k], bounds[k + 1])
        local = members[here] - table.starts[k]
        priority = priorities.get(name.rpartition(".")[0], 0)
        precedence[here] = map_array(folder, "sizes")[local].astype(np.int64) + (priority << 32)
        ids[here] = map_array(folder, "ids")[local]
    places = places.astype(np.int64)
    sort_buckets(places, starts, precedence, ids)
    return members[places]


@build_step("refine/shingles", version=1)
def write_shingles(folder: Path, shard: IndexedShard, chosen: Path, cuts: Path | None) -> Facts:
    """Write the shingle sets of the rows of a shard in a mask of all rows, `chosen`/compared.npy.

    sets.npy (uint64) has them one after the other, offsets.npy (int64) where each begins.
    """
    mask = map_array(chosen, "compared")[shard.first : shard.first + shard.documents]
    table = DocumentTable([(shard.name, shard.folder)], {} if cuts is None else {shard.name: cuts})
    offsets = np.zeros(shard.documents + 1, np.int64)
    with RowFile(folder / ".sets", np.dtype(np.uint64)) as file:
        table.shingles(mask, file, offsets)
        file.save(folder / "sets.npy")
    np.save(folder / "offsets.npy", offsets)
    return {"bytes": int(offsets[-1]) * 8}


@dataclass(frozen=True)
class Prepared:
    """What other tasks have done of a list."""

    buckets: Sequence[Path]  # artifacts of `write_buckets`
    rows: Path  # the artifact that says which documents are compared
    shingles: Sequence[Path]  # artifacts of `write_shingles`, one for each shard


@dataclass(frozen=True)
class LongList:
    """A list over all shards that compares some bands of the index."""

    run: Run
    shards: Sequence[IndexedShard]
    bands: Sequence[int]
    memory: int  # bytes that a part of the index may take
    priorities: Mapping[str, int] = field(default_factory=dict)  # of sources
    cuts: Mapping[str, Path] = field(default_factory=dict)  # of the texts, by shard

    def is_long(self, shards: Sequence[IndexedShard]) -> bool:
        """Whether the index of these shards takes more than one part."""
        return len(self._parts(shards)) > 1

    def _parts(self, shards: Sequence[IndexedShard]) -> list[IndexPart]:
        return index_parts(sum(shard.documents for shard in shards), self.bands, self.memory)

    def prepare(self, job: Job, choose: Callable[[Sequence[Path]], Job]) -> Job:
        """Return the job of the list; if it is a long one, other jobs do first what can be shared.

        `choose` makes the job that says which documents are compared, from the buckets.
        """
        if not self.is_long(self.shards) or self.run.store.find(job.step) is not None:
            return job
        # Before the work: it stops where an old list was expensive.
        self.run.guard("refine", [job.step])
        title = job.step.name
        buckets = self._build(self._bucket_jobs(job), f"{title}: index", "part")
        folders = [artifact.path for artifact in buckets]
        (rows,) = self._build([choose(folders)], f"{title}: rows", "list")
        shingles = self._build(self._shingle_jobs(job, rows), f"{title}: shingles", "shard")
        prepared = Prepared(folders, rows.path, [artifact.path for artifact in shingles])
        return replace(job, arguments={**job.arguments, "prepared": prepared})

    def _build(self, jobs: Iterable[Job], title: str, unit: str) -> list[Artifact]:
        return self.run.build("refine", jobs, title, unit)

    def _bucket_jobs(self, job: Job) -> Iterator[Job]:
        updates = {name: path.parent for name, path in self.cuts.items()}
        for k, part in enumerate(self._parts(self.shards)):
            yield write_buckets.job(
                f"{job.step.name}.{k:05}",
                # It stands for what the list reads; many parts would repeat many digests.
                inputs={"list": job.step.key},
                part=Keyed(part, asdict(part)),
                priorities=self.priorities,
                shards=Unkeyed([(shard.name, shard.folder) for shard in self.shards]),
                updates=Unkeyed(updates),
                memory=Unkeyed(self.memory),
            )

    def _shingle_jobs(self, job: Job, rows: Artifact) -> Iterator[Job]:
        for shard in self.shards:
            yield write_shingles.job(
                f"{job.step.name}.{shard.name}",
                inputs={"list": job.step.key, "rows": rows.content},
                shard=Unkeyed(shard),
                chosen=Unkeyed(rows.path),
                cuts=Unkeyed(self.cuts.get(shard.name)),
            )


def discard_parts(run: Run) -> None:
    """Delete what prepared a list: only that list reads it."""
    for step in ("buckets", "near_rows", "cluster_rows", "shingles"):
        run.discard_step("refine", f"refine/{step}")
