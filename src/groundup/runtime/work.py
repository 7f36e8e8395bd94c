"""What a stage did: the bytes that it read, its speed, and what kept it from being faster."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from groundup.runtime.store import Artifact, Store, load_artifact

# Share of the time of all workers that was spent on a processor, from which on more or faster cores
# are what would help.
BUSY = 0.75
# Share of a stage's time that one artifact took, from which on it is what the others waited for.
LONG = 0.5
# Share of the time of the jobs on a processor, below which they waited for files.
WAITING = 0.6
ONE_JOB = "one long job"
# Artifacts whose manifest is read for the speed of a stage that runs: it is shown again and again.
SAMPLE = 500


@dataclass
class Work:
    """Sums over the artifacts that a stage built."""

    bytes_in: int = 0  # read by the steps that say so in their facts
    seconds: float = 0.0  # by the clock, while artifacts were built
    worker_seconds: float = 0.0  # of all artifacts
    processor_seconds: float = 0.0
    longest: str = ""  # step and name of the artifact that took the longest
    longest_seconds: float = 0.0
    # Seconds that cores of this machine had nothing to do, meanwhile.
    idle_seconds: float = math.inf

    def add(self, built: Sequence[Artifact], seconds: float) -> None:
        """Count artifacts that were built side by side in `seconds`."""
        self.seconds += seconds
        for artifact in built:
            self.bytes_in += int(artifact.facts.get("bytes_in", 0))
            self.worker_seconds += artifact.seconds
            self.processor_seconds += artifact.processor_seconds
            if artifact.seconds > self.longest_seconds:
                self.longest = f"{artifact.step} {artifact.name}"
                self.longest_seconds = artifact.seconds

    def limit(self, workers: int) -> str:
        """Return what limited the speed with so many workers, "" if that is not known."""
        if not workers or not self.worker_seconds:
            return ""
        if self.processor_seconds >= BUSY * workers * self.seconds:
            return "processors"
        if self.processor_seconds < WAITING * self.worker_seconds:
            others = self.idle_seconds < (1 - BUSY) * workers * self.seconds
            return "other processes on this machine" if others else "disk or network"
        if workers > 1 and self.longest_seconds >= LONG * self.seconds:
            return ONE_JOB
        return "one process"

    def counts(self, workers: int) -> dict[str, Any]:
        """Return what the ledger keeps of it."""
        return {
            "bytes_in": self.bytes_in,
            "processor_seconds": round(self.processor_seconds, 3),
            "limit": self.limit(workers),
            "longest": self.longest,
        }


def idle_seconds() -> float:
    """Return the seconds so far that cores of this machine had nothing to do."""
    times = psutil.cpu_times()
    # Waiting for a disk is nothing to do.
    return float(times.idle + getattr(times, "iowait", 0.0))


@dataclass(frozen=True)
class Unfinished:
    """How far a stage is that has not ended."""

    there: int  # artifacts that are there, of those that it set out to build
    planned: int
    bytes_in: int  # that those read which were built since it began; of many an estimate
    seconds: float  # since it began


def unfinished(store: Store, stage: str, began: float) -> Unfinished:
    """Return how far a stage is that began at this time (seconds since the epoch)."""
    planned, there, read = 0, 0, 0.0
    for step, keys in store.plan(stage).items():
        paths = {store.artifact_path(step, name, key).name for name, key in keys.items()}
        folder = store.root / ".store" / step
        found = [entry for entry in _entries(folder) if entry.name in paths]
        new = [Path(entry) for entry in found if entry.stat().st_mtime >= began]
        planned, there = planned + len(keys), there + len(found)
        read += _bytes_in(new)
    return Unfinished(there, planned, round(read), max(time.time() - began, 1e-3))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _bytes_in(folders: Sequence[Path]) -> float:
    """Return the bytes that artifacts read; of many, as many times those of an even sample."""
    sample = folders[:: len(folders) // SAMPLE + 1]
    found = [artifact for path in sample if (artifact := load_artifact(path)) is not None]
    read = sum(int(artifact.facts.get("bytes_in", 0)) for artifact in found)
    return read * len(folders) / max(len(sample), 1)
