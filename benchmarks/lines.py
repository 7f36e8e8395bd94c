"""Lines that real sources repeat: how many, how much text they are, and what looking for them
costs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from groundup.artifacts.arrays import text_buffers
from groundup.artifacts.document import read_batches
from groundup.refine.lines import count_lines, line_hashes
from groundup.refine.stage import run as refine
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact

SOURCES = [
    {"name": "warc", "kind": "web", "path": "web/warc"},
    {"name": "html", "kind": "web", "path": "web/html"},
    {"name": "jsonl", "kind": "web", "path": "web/jsonl"},
    {"name": "enwiki", "kind": "wikipedia", "path": "wikipedia/enwiki-*.bz2"},
    {"name": "ltgwiki", "kind": "wikipedia", "path": "wikipedia/ltgwiki-*.xml"},
    {"name": "feeds", "kind": "text", "path": "web/encodings"},
    {
        "name": "sqlalchemy-docs",
        "kind": "web",
        "path": "pypi:SQLAlchemy==2.0.36",
        "include": ["doc/**/*.html"],
    },
]
# Documents that hold a line; the second is the default.
FEWEST = (5, 10, 20)


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        run = collected(data, Path(folder), SOURCES, {"filters": []})
        refine(run)
        view = run.store.view("refine")
        assert view is not None
        shards = [
            found
            for entry in view.manifest["artefacts"]
            if entry["step"] == "refine/shard" and (found := run.store.artifact(entry))
        ]
        figures = {
            name: value
            for source in view.facts["sources"]
            for name, value in by_source(run, source, shards, view).items()
        }
        table = pq.read_table(view.path / "lines.parquet", columns=["source", "documents", "text"])
        figures |= cost(shards)
    what = (
        "Lines of six plain words or more that real sources repeat; `lines` is what the default"
        " takes out."
    )
    order = [("documents", "descending"), ("text", "ascending")]
    return {
        "what": what,
        "figures": figures,
        "machine": machine(),
        "lines": table.sort_by(order).to_pylist(),
    }


def by_source(run: Run, source: str, shards: list[Artifact], view: Artifact) -> dict[str, object]:
    """Count lines at several thresholds, and the bytes that are cut at the default."""
    own = [shard for shard in shards if shard.name.rpartition(".")[0] == source]
    kept = [np.load(run.root / "refine" / "split" / f"{shard.name}.npy") > 0 for shard in own]
    paths = [shard.path for shard in own]
    _, documents = count_lines(zip(paths, kept, strict=True), 0, (1 << 64) - 1)
    facts = view.facts["sources"][source]
    cut = facts["lines"]["bytes"]
    return {
        f"{source}: documents": facts["documents"],
        **{
            f"{source}: lines in at least {fewest}": int((documents >= fewest).sum())
            for fewest in FEWEST
        },
        f"{source}: share of bytes cut": cut / (facts["bytes"] + cut),
    }


def cost(shards: list[Artifact]) -> dict[str, object]:
    """Measure the sketches: bytes on disk beside the text, and the speed of hashing."""
    texts = [
        text_buffers(batch.column("text"))
        for batch in read_batches([shard.path / "documents.parquet" for shard in shards], ["text"])
    ]
    size = sum(int(offsets[-1] - offsets[0]) for offsets, _ in texts)
    sketches = sum(
        (shard.path / f"{name}.npy").stat().st_size
        for shard in shards
        for name in ("lines", "line_rows")
    )
    start = time.process_time()
    for one in texts:
        line_hashes(one)
    seconds = time.process_time() - start
    return {
        "bytes of sketch a byte of text": sketches / size,
        "MB/s, hashing of lines": size / 1e6 / seconds,
    }
