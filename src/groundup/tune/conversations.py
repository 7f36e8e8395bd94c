"""The documents that a model is tuned on: conversations of the run, or those collected from a file.
Reads Parquet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from groundup.artifacts.corpus import VERDICTS, RefinedShard, refined_shards
from groundup.artifacts.document import read_batches
from groundup.errors import GroundupError
from groundup.recipe import TUNING
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact
from groundup.tune.data import LeftOut, Talk

_COLUMNS = ("source", "origin", "record", "group", "turns")


@dataclass(frozen=True)
class Material:
    """Where conversations come from.

    Attributes:
        title: for people, without any folder.
        shards: of the run's own documents; what its split holds out is held out here.
        collected: folders of documents that were collected for tuning.
        inputs: content of each, for the key.
    """

    title: str
    shards: Sequence[RefinedShard] = ()
    collected: Sequence[Path] = ()
    inputs: dict[str, str] = field(default_factory=dict)

    def talks(self) -> Iterator[Talk]:
        """Yield the documents in order."""
        for shard in self.shards:
            for split in VERDICTS:
                for batch in shard.batches(_COLUMNS, split):
                    for row in batch.to_pylist():
                        yield Talk(
                            f"{row['source']}/{row['origin']}",
                            row["record"],
                            row["group"],
                            row["turns"],
                            split == "validation",
                        )
        for batch in read_batches(
            [folder / "documents.parquet" for folder in self.collected], _COLUMNS
        ):
            for row in batch.to_pylist():
                yield Talk(row["origin"], row["record"], row["group"], row["turns"])

    def unread(self) -> Iterator[LeftOut]:
        """Yield what the collector could not read."""
        for folder in self.collected:
            for row in pq.read_table(folder / "dropped.parquet").to_pylist():
                yield LeftOut(row["origin"], row["record"], row["reason"], row["detail"] or "")


def of_file(run: Run) -> tuple[Material, list[Artifact]]:
    """Return the collected data that [tune] names, and their artifacts.

    The view `tune` names the artifacts too: they must outlive a collect that no longer names them.

    Raises:
        GroundupError: the data are not collected.
    """
    view = run.store.view("collect")
    entries = view.manifest["artefacts"] if view is not None else []
    shards = [artifact for entry in entries if (artifact := run.store.artifact(entry)) is not None]
    shards = [shard for shard in shards if shard.facts["kind"] == TUNING]
    if not shards:
        raise GroundupError(
            f"{run.root / 'collect'}: the tuning data are missing; run with --redo collect"
        )
    inputs = {f"data {shard.name}": shard.content for shard in shards}
    folders = [shard.path for shard in shards]
    return Material(Path(run.recipe.tune.data).name, collected=folders, inputs=inputs), shards


def of_run(run: Run) -> Material:
    """Return the run's own conversations.

    Raises:
        GroundupError: it has none, or they are not those that its tokens were made from.
    """
    asked = run.recipe.tune.sources
    wanted = [
        source.name
        for source in run.recipe.source
        if source.kind == "conversations" and (not asked or source.name in asked)
    ]
    if not wanted:
        raise GroundupError(
            f"{run.root}: the run has no conversations; name a file: `groundup tune {run.root}"
            " --data FILE`"
        )
    shards = [shard for shard in refined_shards(run.root) if shard.source in wanted]
    shards.sort(key=lambda shard: (shard.source, shard.name))
    _check_tokens(run, shards)
    inputs = {f"documents {shard.name}": shard.digests["documents"] for shard in shards}
    inputs |= {f"split {shard.name}": shard.digests["split"] for shard in shards}
    return Material(f"conversations of the run: {', '.join(wanted)}", shards, inputs=inputs)


def _check_tokens(run: Run, shards: Sequence[RefinedShard]) -> None:
    """Refuse a split that came after training: what it holds out may have been learned."""
    view = run.store.view("tokenize")
    entries: list[dict[str, Any]] = view.manifest["artefacts"] if view is not None else []
    tokenized = {
        artifact.name: artifact.manifest["inputs"]
        for entry in entries
        if (artifact := run.store.artifact(entry))
    }
    for shard in shards:
        inputs = tokenized.get(shard.name, {})
        if (inputs.get("documents"), inputs.get("split")) != (
            shard.digests["documents"],
            shard.digests["split"],
        ):
            raise GroundupError(
                f"{run.root}: the conversations changed after the model was trained; `groundup run`"
                " brings both together"
            )


def reasons(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """Return how many were left out for which reason."""
    return dict(sorted(Counter(one.reason for one in left_out).items()))
