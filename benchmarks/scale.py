"""What a run of a hundred thousand shards costs besides its work: artifacts, views and plans.

Artifacts of a few bytes are built in a store, as many as the shards of 6 TB of raw files: what is
measured is what a run does with names and manifests, on one core. The memory of lists over 50
million documents is in the benchmark memory. SHARDS="1000 10000" leaves out the last size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from unittest import mock

import psutil

from benchmarks.machine import machine
from groundup.collect.sources import HashedFile, RawFile
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
            # In a process of its own: memory that Python keeps from a smaller one hides growth.
            command = [sys.executable, "-m", "benchmarks.scale", folder, str(shards)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, value in json.loads(out).items():
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

    start_memory = psutil.Process().memory_info().rss
    listing = [raw_files(number) for number in range(shards)]

    def jobs() -> Iterator[Job]:
        return map(job, range(shards), listing)

    listed_memory = psutil.Process().memory_info().rss
    with peak_memory() as peak, Run.open(recipe, folder / "run", workers=1) as run:
        write_lock(run.root, recipe)
        with run.stage("collect"):
            flushed = list(islice(jobs(), FLUSHED))
            start = time.perf_counter()
            run.build("collect", flushed, "building")
            figures["commit, flushed to disk (ms)"] = (
                1000 * (time.perf_counter() - start) / len(flushed)
            )
            with mock.patch("os.fsync", lambda _: None):
                run.build("collect", jobs(), "building")
            timed("find again", lambda: run.build("collect", jobs(), "finding"))
            artifacts = run.build("collect", jobs(), "finding")
            links = {f"documents/{each.name}": each.path / "text" for each in artifacts}
            timed("publish", lambda: run.publish("collect", artifacts, links))
            timed("publish again", lambda: run.publish("collect", artifacts, links))
        timed("read the view", lambda: run.store.artifacts("collect", "collect/shard"))
        timed("status", lambda: run_status(run.root))
        timed("look for what no view names", lambda: run.store.unreferenced(["collect"]))
    figures["peak memory (GB)"] = peak[0] / 1e9
    figures["KB of memory a shard"] = (peak[0] - listed_memory) / 1e3 / shards
    figures["KB of memory a shard, list of its raw files"] = (
        (listed_memory - start_memory) / 1e3 / shards
    )
    return figures


def raw_files(number: int) -> list[HashedFile]:
    """Return what collect lists of the raw files of a shard, before it makes jobs of them."""
    names = [f"folder/file{number * FILES + n:09}.txt" for n in range(FILES)]
    size = int(SHARD_BYTES / FILES)
    files = [RawFile(name, Path("/data") / name, size) for name in names]
    return [HashedFile(file, f"{n:064x}", (size, n, n, n), True) for n, file in enumerate(files)]


def job(number: int, files: list[HashedFile]) -> Job:
    """Return the job of a shard: its key has a digest for each of its raw files."""
    digests = {hashed.file.origin: hashed.sha256 for hashed in files}
    return Job(Step("collect/shard", f"source.{number:016x}", 1, {}, digests), write, {})


def write(folder: Path) -> Facts:
    """Write an artifact as small as can be."""
    (folder / "text").write_text("text")
    return {"bytes_in": int(SHARD_BYTES), "documents": 10_000}


if __name__ == "__main__":
    print(json.dumps(costs(Path(sys.argv[1]), int(sys.argv[2]))))
