"""What describing documents costs in refine/shard, and how near the cheap measures come to what
they stand for.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from groundup.artifacts.arrays import text_buffers
from groundup.recipe import Refine
from groundup.refine.filter.apply import applicable_filters
from groundup.refine.filter.statistics import Statistics
from groundup.refine.shard import refine_shard
from groundup.refine.stats import shard_stats as quality
from groundup.refine.stats.shard_stats import BEGINNING_BYTES, TEXT_STATS, text_stats
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
        for shard in shards:
            if shard.facts["documents"] >= 100:
                figures |= {
                    f"{what}, {shard.facts['source']}": value
                    for what, value in _nearness(shard).items()
                }
    return {
        "what": (
            "Describing documents while they are refined; the first bytes of a text for the whole."
        ),
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


def _nearness(shard: Artifact) -> dict[str, float]:
    """Return how the measures of texts of 200 bytes and more go with zlib's ratio and with Gopher's
    repeated 5-grams.
    """
    texts = (
        pq.read_table(shard.path / "documents.parquet", columns=["text"])
        .column("text")
        .combine_chunks()
    )
    texts = texts.filter(pa.array(np.diff(text_buffers(texts)[0]) >= 200))
    found = dict(zip(TEXT_STATS, text_stats(text_buffers(texts)).T, strict=True))
    data = [text.encode() for text in texts.to_pylist()]
    same = np.array(
        [len(b) / len(zlib.compress(b)) for b in (text[:BEGINNING_BYTES] for text in data)]
    )
    whole = np.array([len(text) / len(zlib.compress(text)) for text in data])
    five = Statistics(pa.record_batch({"text": texts})).share("duplicate_5gram_bytes", "bytes")
    return {
        "compression divided by zlib's of the same bytes, median": float(
            np.median(found["compression"] / same)
        ),
        "rank correlation of compression with zlib's of the same bytes": _ranks(
            found["compression"], same
        ),
        "rank correlation of compression with zlib's of the whole text": _ranks(
            found["compression"], whole
        ),
        "correlation of repeated runs with repeated 5-grams of the whole text": float(
            np.corrcoef(found["repeated_runs"], five)[0, 1]
        ),
    }


def _ranks(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(*(np.argsort(np.argsort(values)) for values in (one, other)))[0, 1])
