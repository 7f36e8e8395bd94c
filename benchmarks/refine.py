"""Megabytes a second through refinement on one core: cleaning, language, filters, hashes and
signatures.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from groundup.refine.stage import run as refine


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        # The first run compiles the kernels, and is not counted.
        for _ in range(2):
            run = collected(data, Path(folder))
            run.forget("refine")
            start = time.perf_counter()
            refine(run)
            seconds = time.perf_counter() - start
        view = run.store.view("refine")
    assert view is not None
    figures: dict[str, object] = {
        "MB in": view.facts["bytes_in"] / 1e6,
        "MB/s, whole stage, one core": view.facts["bytes_in"] / 1e6 / seconds,
    }
    for entry in view.manifest["artefacts"]:
        artifact_bytes = (
            view.facts["sources"].get(str(entry["name"]).rpartition(".")[0], {}).get("bytes_in")
        )
        if entry["step"] == "refine/shard" and artifact_bytes:
            figures[f"MB/s, {entry['name'].rpartition('.')[0]}"] = (
                artifact_bytes / 1e6 / entry["seconds"]
            )
    return {
        "what": "Refinement of real text, one process, kernels compiled before.",
        "figures": figures,
        "machine": machine(),
    }
