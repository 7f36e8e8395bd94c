"""What larger corpora would take, computed from measured runs: the work that more cores share, the
steps that one task does, the main process, and the memory that grows with shards and documents.

    hours = fixed + GB * (processor seconds a GB / cores + seconds of single tasks a GB
                          + shards a GB * main process's seconds a shard)

Two sizes that were measured give a line each; one gives a line through zero. The costs of a shard
are those of the benchmark scale, the memory of the lists is that of the benchmark memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from groundup.runtime.sealed import Ledger

RESULTS = Path(__file__).parent / "results"
# What is asked for: raw GB, cores, and where.
SIZES = ((45, 2, "here"), (1_000, 64, "on 64 cores"), (10_000, 640, "on Ray, 10 nodes of 64 cores"))
MOST_MEMORY = 4.0
# Steps that one task does, whatever the corpus. What lists read is shared: lines always,
# buckets and shingles where a list is long (refine/dedup/parts.py). So the slope between
# smaller sizes is too high for larger ones.
SINGLE_STEPS = frozenset(
    [f"refine/{name}" for name in "duplicates lines evaluation contaminated split quality".split()]
    + ["tokenize/tokenizer", "tokenize/index"]
)
SHARD_STAGES = 3


@dataclass(frozen=True)
class Costs:
    """What a run took."""

    gigabytes: float  # raw, unpacked
    shared: float  # processor seconds of the steps that have a task for each shard
    single: float  # seconds of the steps that are one task
    shards: float
    documents: float


def costs(root: Path, raw: int) -> Costs:
    """Return what the run at `root` took for so many raw bytes."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for path in root.glob(".store/*/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        steps.setdefault(manifest["step"], []).append(manifest)
    single = [built[0] for step, built in steps.items() if step in SINGLE_STEPS]
    events = Ledger(root / "ledger.jsonl").events("finished")
    shards = steps["collect/shard"]
    return Costs(
        raw / 1e9,
        # Some artifacts are gone: the counts of words.
        sum(event["processor_seconds"] for event in events)
        - sum(manifest["processor_seconds"] for manifest in single),
        sum(manifest["seconds"] for manifest in single),
        len(shards),
        sum(manifest["facts"]["documents"] for manifest in shards),
    )


def forecast(runs: Sequence[Costs]) -> dict[str, object]:
    """Return hours and memory for the SIZES, and what breaks first."""
    lines = {name: line(runs, name) for name in ("shared", "single", "shards", "documents")}
    shard_ms, shard_kilobytes, base = costs_of_a_shard()
    figures: dict[str, object] = {
        "forecast: processor seconds a raw GB, shared by all cores": lines["shared"][1],
        "forecast: seconds a raw GB, steps of one task": lines["single"][1],
        "forecast: shards a raw GB": lines["shards"][1],
        "forecast: documents a raw GB": lines["documents"][1],
    }
    for gigabytes, cores, where in SIZES:
        of = {name: fixed + slope * gigabytes for name, (fixed, slope) in lines.items()}
        parts = {
            "work that all cores share": of["shared"] / cores,
            "steps of one task": of["single"],
            "main process": of["shards"] * shard_ms / 1000,
        }
        name = f"{gigabytes:,} GB {where}"
        figures[f"{name}: hours"] = sum(parts.values()) / 3600
        for part, seconds in parts.items():
            figures[f"{name}: hours, {part}"] = seconds / 3600
        figures[f"{name}: GB of memory, main process"] = base + of["shards"] * shard_kilobytes / 1e6
        figures[f"{name}: GB of memory, lists"] = list_memory(of["documents"])
        figures[f"{name}: most of the time"] = max(parts, key=lambda part: parts[part])
    return figures | limits(lines, shard_kilobytes, base)


def limits(
    lines: dict[str, tuple[float, float]], shard_kilobytes: float, base: float
) -> dict[str, object]:
    """Return at how many TB each part reaches its limit, and the first of them."""
    shards = lines["shards"][1]
    found: dict[str, object] = {}
    broken: dict[str, float] = {}
    if shard_kilobytes and shards:
        at = (MOST_MEMORY - base) * 1e6 / shard_kilobytes / shards / 1e3
        broken[f"the main process holds {MOST_MEMORY:.0f} GB"] = at
    if lines["single"][1] > 0:
        broken["the steps of one task take a day"] = 86_400 / lines["single"][1] / 1e3
    for name, terabytes in broken.items():
        found[f"TB of raw files at which {name}"] = terabytes
    if lines["single"][1] > 0:
        cores = lines["shared"][1] / lines["single"][1]
        found["cores at which steps of one task take half of the time"] = cores
    if broken:
        found["breaks first"] = min(broken, key=lambda name: broken[name])
    return found


def line(runs: Sequence[Costs], name: str) -> tuple[float, float]:
    """Return what is fixed and what a raw GB takes, from the smallest and the largest run."""
    first, last = (getattr(run, name) for run in (runs[0], runs[-1]))
    if len(runs) == 1:
        return 0.0, last / runs[-1].gigabytes
    slope = max(0.0, (last - first) / (runs[-1].gigabytes - runs[0].gigabytes))
    return first - slope * runs[0].gigabytes, slope


def costs_of_a_shard() -> tuple[float, float, float]:
    """Return milliseconds, kilobytes a shard, and GB without any, by the benchmark scale."""
    figures, ending = measured("scale"), " shards: peak memory (GB)"
    points = {size_of(name): value for name, value in figures.items() if name.endswith(ending)}
    if len(points) < 2:
        return 0.0, 0.0, 0.0
    fewer, more = sorted(points)[-2:]
    held = (points[more] - points[fewer]) / (more - fewer)
    steps = ("find again (ms a shard)", "publish (ms a shard)", "read the view (ms a shard)")
    # Every stage finds, publishes and reads its artifacts; committing them is the workers' part.
    spent = SHARD_STAGES * sum(figures[f"{more:,} shards: {step}"] for step in steps)
    return spent, held * 1e6, points[more] - held * more


def size_of(name: str) -> int:
    """Return the shards that the name of a figure begins with."""
    return int(name.partition(" ")[0].replace(",", ""))


def list_memory(documents: float) -> float:
    """Return the GB that the lists over so many documents hold, by the benchmark memory."""
    figures = measured("memory")
    ending = " million documents: peak anonymous memory (GB)"
    points = sorted((int(n.partition(" ")[0]), v) for n, v in figures.items() if n.endswith(ending))
    if len(points) < 2:
        return 0.0
    # A task holds a part of the index, so memory stops growing at the size of a part.
    return float(np.interp(documents / 1e6, *zip(*points, strict=True)))


def measured(name: str) -> dict[str, Any]:
    """Return the figures of another benchmark, empty if it was not run."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["figures"]) if path.exists() else {}
