"""What a run of a hundred thousand shards costs besides its work: artifacts, views and plans.

Artifacts of a few bytes are built in a store, as many as the shards of 6 TB of raw files: what is
measured is what a run does with names and manifests, on one core. The memory of lists over 50
million documents is in the benchmark memory. SHARDS="1000 10000" leaves out the last size.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from benchmarks.machine import machine
from groundup.commands.status import run_status
from groundup.recipe import recipe_from
from groundup.runtime.lock import write_lock
from groundup.runtime.resources import peak_memory
from groundup.runtime.run import Job, Run
from groundup.runtime.store import Facts, Step

SHARDS = tuple(map(int, os.environ.get("SHARDS", "1000 10000 100000").split()))
# Files of raw text a shard, whose digests are in its key, and bytes of raw text a shard.
FILES, SHARD_BYTES = 20, 64e6
# Artifacts that are flushed to disk when they are committed, as all of a run are; the others only
# have to be there.
FLUSHED = 500


def measure() -> dict[str, object] | None:
    figures: dict[str, object] = {}
    for shards in SHARDS:
        with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as folder:
            for name, value in costs(Path(folder), shards).items():
                figures[f"{shards:,} shards: {name}"] = value
    figures["others' load on this machine (processes)"] = os.getloadavg()[0]
    return {"what": " ".join((__doc__ or "").split()), "figures": figures, "machine": machine()}


def costs(folder: Path, shards: int) -> dict[str, object]:
    """Return the milliseconds a shard of each thing that a run does with its artifacts."""
    recipe = recipe_from({"source": [{"path": "x"}]}, "scale", folder)
    figures: dict[str, object] = {"raw files that they stand for (TB)": shards * SHARD_BYTES / 1e12}

    def timed(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        figures[f"{name} (ms a shard)"] = 1000 * (time.perf_counter() - start) / shards

    with peak_memory() as peak, Run.open(recipe, folder / "run", workers=1) as run:
        write_lock(run.root, recipe)
        jobs = [job(number) for number in range(shards)]
        with run.stage("collect"):
            flushed = jobs[:FLUSHED]
            start = time.perf_counter()
            run.build("collect", flushed, "building")
            figures["commit, flushed to disk (ms)"] = (
                1000 * (time.perf_counter() - start) / len(flushed)
            )
            with mock.patch("os.fsync", lambda _: None):
                run.build("collect", jobs, "building")
            timed("find again", lambda: run.build("collect", jobs, "finding"))
            artifacts = run.build("collect", jobs, "finding")
            links = {f"documents/{each.name}": each.path / "text" for each in artifacts}
            timed("publish", lambda: run.publish("collect", artifacts, links))
            timed("publish again", lambda: run.publish("collect", artifacts, links))
        timed("read the view", lambda: run.store.artifacts("collect", "collect/shard"))
        timed("status", lambda: run_status(run.root))
        timed("look for what no view names", lambda: run.store.unreferenced(["collect"]))
    return figures | {"peak memory (GB)": peak[0] / 1e9}


def job(number: int) -> Job:
    """Return the job of a shard: its key has a digest for each of its raw files."""
    digests = {f"folder/file{number * FILES + n:09}.txt": f"{n:064x}" for n in range(FILES)}
    return Job(Step("collect/shard", f"source.{number:016x}", 1, {}, digests), write, {})


def write(folder: Path) -> Facts:
    """Write an artifact as small as can be."""
    (folder / "text").write_text("text")
    return {"bytes_in": int(SHARD_BYTES), "documents": 10_000}
