"""What describing documents costs in refine/shard."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from groundup.recipe import Refine
from groundup.refine import stats as quality
from groundup.refine.filter.apply import applicable_filters
from groundup.refine.shard import refine_shard
from groundup.refine.stats import TEXT_STATS
from groundup.runtime.store import Artifact, load_artifact

# Of so many runs the fastest counts; the first compiles the kernels and does not.
REPEATS = 5


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        run = collected(data, Path(folder))
        shards = [
            a
            for path in sorted((run.root / ".store" / "collect" / "shard").iterdir())
            if (a := load_artifact(path))
        ]
        figures: dict[str, object] = {}
        seconds = {a.facts["source"]: _seconds(a) for a in shards}
        for name, (with_measures, without) in [
            *seconds.items(),
            ("all", np.sum(list(seconds.values()), axis=0)),
        ]:
            figures[f"more processor time of refine/shard, {name}"] = float(
                with_measures / without - 1
            )
    return {
        "what": "Describing documents while they are refined.",
        "figures": figures,
        "machine": machine(),
    }


def _seconds(shard: Artifact) -> tuple[float, float]:
    """Return the fastest processor time of a shard, with the measures and with nothing in their
    place.
    """
    nothing = mock.patch.object(
        quality, "text_stats", lambda texts: np.zeros((len(texts[0]) - 1, len(TEXT_STATS)))
    )
    times: list[list[float]] = [[], []]
    for _ in range(REPEATS + 1):
        times[0].append(_refine(shard))
        with nothing:
            times[1].append(_refine(shard))
    return min(times[0][1:]), min(times[1][1:])


def _refine(shard: Artifact) -> float:
    kind = str(shard.facts["kind"])
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        refine_shard(
            Path(folder),
            shard.path,
            kind,
            [],
            applicable_filters(Refine().filters, kind),
            Path(folder),
        )
        return time.process_time() - start
