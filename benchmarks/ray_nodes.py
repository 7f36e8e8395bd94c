"""Raw files to tokens on a Ray cluster of one node with one core, and of two such nodes, on this
machine: the seconds of the data stages, and whether the bytes are the same.

The command, which only hands out work, shares the cores with the nodes; so do Ray's own processes.
Kernels are compiled before. MEGABYTES="400" takes a larger corpus, of the kinds of raw_to_tokens:
what all nodes wait for weighs less in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.ray_nodes import Nodes

from benchmarks.forecast import SINGLE_STEPS
from benchmarks.machine import machine, test_data
from benchmarks.raw_to_tokens import STAGES, write_recipe
from benchmarks.varied import make_corpus
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store

MEGABYTES = float(os.environ.get("MEGABYTES", "100").split()[0])
# Enough for each kernel to be compiled.
SMALL_MEGABYTES = 4.0


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH")) as name:
        folder = Path(name)
        small, _ = make_corpus(data, folder / "small", SMALL_MEGABYTES)
        sources, raw = make_corpus(data, folder, MEGABYTES)
        load = os.getloadavg()[0]
        runs = {count: on_nodes(folder, count, small, sources) for count in (1, 2)}
    figures: dict[str, object] = {"raw (MB)": raw / 1e6}
    for count, of_run in runs.items():
        figures[f"{count} nodes: MB/s, data stages"] = raw / 1e6 / sum(of_run["stages"].values())
        for stage, seconds in of_run["stages"].items():
            figures[f"{count} nodes: {stage}, seconds"] = seconds
        figures[f"{count} nodes: command with start and check of nodes, seconds"] = of_run["all"]
    one, two = (sum(runs[count]["stages"].values()) for count in (1, 2))
    share = runs[1]["alone"]
    figures["share of the seconds in steps that are one task"] = share
    figures["times faster, two nodes, at most with such a share"] = 2 / (1 + share)
    figures["times faster, two nodes"] = one / two
    figures["same documents, lists and tokens"] = runs[1]["contents"] == runs[2]["contents"]
    figures["others' load before it (processes)"] = load
    what = " ".join((__doc__ or "").split())
    return {"what": what, "figures": figures, "machine": machine()}


def on_nodes(
    folder: Path,
    count: int,
    small: Sequence[Mapping[str, str]],
    sources: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return the seconds and the contents of a run on so many nodes, after a small one."""
    nodes = Nodes(count)
    try:
        run(folder / f"small-{count}", small, nodes.address)
        return run(folder / f"nodes-{count}", sources, nodes.address)
    finally:
        nodes.end()


def run(folder: Path, sources: Sequence[Mapping[str, str]], address: str) -> dict[str, Any]:
    """Run a recipe on a cluster to its tokens."""
    folder.mkdir()
    recipe, root = write_recipe(folder, sources), folder / "run"
    command = [sys.executable, "-m", "groundup", "run", str(recipe), "--out", str(root)]
    start = time.perf_counter()
    command += ["--until", "tokenize", "--ray", address]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    ended = {e["stage"]: e["seconds"] for e in Ledger(root / "ledger.jsonl").events("finished")}
    views = {stage: Store(root).view(stage) for stage in STAGES}
    return {
        "all": time.perf_counter() - start,
        "stages": {stage: ended[stage] for stage in STAGES},
        "alone": alone(root),
        "contents": json.dumps({stage: view and view.content for stage, view in views.items()}),
    }


def alone(root: Path) -> float:
    """Return the share of the seconds of all tasks that went into steps of a single task."""
    single = every = 0.0
    for path in root.glob(".store/*/*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        every += manifest["seconds"]
        single += manifest["seconds"] if manifest["step"] in SINGLE_STEPS else 0.0
    return single / every
