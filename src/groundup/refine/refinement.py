"""What the refine stage has built so far: shards, lists, and what the lists read of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.runtime.files import content_digest
from groundup.runtime.run import Job, Run
from groundup.runtime.store import Artifact

if TYPE_CHECKING:
    from groundup.refine.out_of_core import IndexedShard

# Files of a refined shard that only refine/quality reads.
DESCRIPTIONS = ("bins.npy", "quality.json")


@dataclass
class Refinement:
    """What the stage has built so far."""

    run: Run
    shards: list[Artifact] = field(default_factory=list)  # the refined shards, in order
    # Artifacts that list dropped documents, by name: duplicates, lines, contaminated.
    lists: dict[str, Artifact] = field(default_factory=dict)
    # What was cut out of each shard of a source that repeats lines.
    cut: list[Artifact] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)  # all, as they were built

    @property
    def folders(self) -> list[tuple[str, Path]]:
        """Name and folder of each shard."""
        return [(shard.name, shard.path) for shard in self.shards]

    @property
    def indexed(self) -> list[IndexedShard]:
        """The shards, with the rows of each in the table of all."""
        from groundup.refine.out_of_core import IndexedShard

        counts = [shard.facts["documents"] for shard in self.shards]
        firsts = accumulate(counts, initial=0)
        shards = zip(self.folders, firsts, counts, strict=False)
        return [IndexedShard(*folder, first, count) for folder, first, count in shards]

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each source."""
        return {source_of(shard): str(shard.facts["kind"]) for shard in self.shards}

    @property
    def dropped(self) -> dict[str, Path]:
        """File of each list of dropped documents."""
        files = {name: list_.path / f"{name}.parquet" for name, list_ in self.lists.items()}
        if "lines" in files:
            # lines.parquet lists lines.
            files["lines"] = files["lines"].with_name("dropped.parquet")
        return files

    @property
    def cuts(self) -> dict[str, Path]:
        """File of the cuts of each shard that has any."""
        return {a.name: a.path / "cuts.npy" for a in self.cut if a.facts["documents"]}

    @property
    def inputs(self) -> dict[str, str]:
        """What a global step depends on: the rows of all shards, the lists so far, and the cuts."""
        lists = {name: list_.content for name, list_ in self.lists.items()}
        cuts = {f"cuts {name}": digest for name, digest in self.cut_digests.items()}
        return contents(self.shards) | lists | cuts

    @property
    def cut_digests(self) -> dict[str, str]:
        """Digest of the cuts of each shard that has any."""
        files = {a.name: a.manifest["files"] for a in self.cut if a.facts["documents"]}
        return {name: listed["cuts.npy"]["sha256"] for name, listed in files.items()}

    @property
    def memory(self) -> int:
        """Bytes of the index that a task may hold: the rest of it needs about as much again.

        A task takes a quarter of what the recipe allows, since others run beside it.
        """
        return self.run.recipe.refine.memory_megabytes * 125_000

    def build(self, jobs: Iterable[Job], title: str, unit: str = "B") -> list[Artifact]:
        """Build artifacts, which the stage publishes at its end."""
        artifacts = self.run.build("refine", jobs, title, unit)
        self.artifacts += artifacts
        return artifacts

    def build_lists(self, jobs: Sequence[Job], title: str) -> list[Artifact]:
        """Build lists that do not need each other: side by side, or each on a node of a cluster."""
        rounds = [jobs] if self.run.workers.remote is None else [[job] for job in jobs]
        return [artifact for jobs in rounds for artifact in self.build(jobs, title, "list")]


def source_of(shard: Artifact) -> str:
    """Return the source of a shard named `SOURCE.SHARD`."""
    return shard.name.rpartition(".")[0]


def contents(shards: Sequence[Artifact]) -> dict[str, str]:
    """Return the content of each shard without DESCRIPTIONS.

    So another filter that drops the same documents changes no list.
    """
    digests = {}
    for shard in shards:
        files = shard.manifest["files"]
        digests[shard.name] = content_digest({n: files[n] for n in files if n not in DESCRIPTIONS})
    return digests
