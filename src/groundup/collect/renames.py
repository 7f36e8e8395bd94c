"""Notices a source that was renamed: the same files under another name.

The id of a document is made of the name of its source, and ids decide the split. So a new name
costs as much as new data, though nothing but the name changed:

    source "novels" seems to be "books" renamed (3 of 3 files are the same); ...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from groundup.artifacts.kinds import KINDS
from groundup.runtime.progress import say
from groundup.runtime.run import Job, Run

# Share of the files of a source that must have stood in the one that is gone.
MIN_SHARED = 0.5


def warn_of_renames(run: Run, jobs: Sequence[Job]) -> None:
    """Say which sources seem to be renamed, what that costs, and how to avoid it."""
    shards = run.store.artifacts("collect", "collect/shard")
    before = files_by_source((a.manifest["settings"], a.manifest["inputs"]) for a in shards)
    now = files_by_source((job.step.settings, job.step.inputs) for job in jobs)
    for old, new, shared in find_renames(before, now):
        say(
            f'warning: source "{new}" seems to be "{old}" renamed ({shared:,} of'
            f" {len(now[new]):,} files are the same); ids and the split depend on the name, so its"
            " documents get other ids, move between training and validation, and the model is"
            f' trained again from step 0; name = "{old}" in the recipe avoids that'
        )


def files_by_source(
    shards: Iterable[tuple[Mapping[str, Any], Mapping[str, str]]],
) -> dict[str, set[str]]:
    """Return the SHA-256 of the raw files of each source, given settings and inputs of shards.

    Tuning data are left out: the recipe gives them their name.
    """
    files: dict[str, set[str]] = defaultdict(set)
    for settings, inputs in shards:
        if KINDS[settings["kind"]].role != "tuning":
            files[settings["source"]].update(inputs.values())
    return dict(files)


def find_renames(
    before: Mapping[str, set[str]], now: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, int]]:
    """Yield old name, new name and equal files of each source that seems to be renamed."""
    gone = [name for name in before if name not in now]
    for new in sorted(now.keys() - before.keys()):
        shared = {old: len(before[old] & now[new]) for old in gone}
        old = max(gone, key=lambda name: shared[name], default="")
        if old and shared[old] and shared[old] >= MIN_SHARED * len(now[new]):
            yield old, new, shared[old]
