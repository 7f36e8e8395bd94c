"""What a stage did: the bytes that it read, its speed, and what kept it from being faster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup.runtime.store import MANIFEST, Artifact, Store

# Share of the time of all workers that was spent on a processor, from which on more or faster cores
# are what would help.
BUSY = 0.75
# Share of a stage's time that one artifact took, from which on it is what the others waited for.
LONG = 0.5
# Share of the time of the jobs on a processor, below which they waited for files.
WAITING = 0.6
ONE_JOB = "one long job"


@dataclass
class Work:
    """Sums over the artifacts that a stage built."""

    bytes_in: int = 0  # read by the steps that say so in their facts
    seconds: float = 0.0  # by the clock, while artifacts were built
    worker_seconds: float = 0.0  # of all artifacts
    processor_seconds: float = 0.0
    longest: str = ""  # step and name of the artifact that took the longest
    longest_seconds: float = 0.0

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
            return "disk or network"
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


@dataclass(frozen=True)
class Unfinished:
    """How far a stage is that has not ended."""

    there: int  # artifacts that are there, of those that it set out to build
    planned: int
    bytes_in: int  # that those read which were built since it began
    seconds: float  # since it began


def unfinished(store: Store, stage: str, began: float) -> Unfinished:
    """Return how far a stage is that began at this time (seconds since the epoch)."""
    plan = [(step, *entry) for step, keys in store.plan(stage).items() for entry in keys.items()]
    found = [artifact for entry in plan if (artifact := store.lookup(*entry)) is not None]
    new = [each for each in found if (each.path / MANIFEST).stat().st_mtime >= began]
    read = sum(int(artifact.facts.get("bytes_in", 0)) for artifact in new)
    return Unfinished(len(found), len(plan), read, max(time.time() - began, 1e-3))
