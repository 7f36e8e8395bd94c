"""What saving a checkpoint costs: the 300M preset with its optimizer state, and its share of the
reference job.

`python -m benchmarks checkpoint`. Wall-clock and processor time of whole saves (copy, write, flush,
hash, rename) into the folder that GROUNDUP_BENCH_DISK names (default: beside this file), beside a
plain write of as many bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import machine
from groundup.model.config import resolve
from groundup.model.transformer import Transformer
from groundup.recipe import Model
from groundup.runtime.files import flush
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.state import Checkpoints, TrainState

REPEATS = 3
# The reference job: 100,000 steps in 72 h, a checkpoint every 1,000 steps; and the 13 h that 40 %
# of four A100s would take.
STEPS, HOURS, FAST_HOURS, EVERY = 100_000, 72, 13, 1_000


def timed(act: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - processor


def plain_write(path: Path, size: int) -> None:
    data = bytes(1 << 24)
    with path.open("wb") as file:
        for _ in range(size >> 24):
            file.write(data)
    flush(path)


def measure() -> dict[str, object]:
    """Return the figures of results/checkpoint.json."""
    config = resolve(Model(preset="300m"), 50_000, 10**10)
    model = Transformer(config)
    optimizer = Optimizer(FlatParameters(model), "muon", 0.1)
    folder = Path(
        tempfile.mkdtemp(dir=os.environ.get("GROUNDUP_BENCH_DISK", Path(__file__).parent))
    )
    try:
        checkpoints = Checkpoints(folder)
        saves, size = [], 0
        for step in range(1, REPEATS + 1):
            state = TrainState(step=step)
            save = partial(
                checkpoints.save, model, optimizer.state_dict(), state, facts={}, seconds=0.0
            )
            saves.append(timed(save))
            size = sum(path.stat().st_size for path in checkpoints.path(step).iterdir())
            shutil.rmtree(checkpoints.path(step))
        write = min(timed(lambda: plain_write(folder / "plain", size))[0] for _ in range(REPEATS))
    finally:
        shutil.rmtree(folder)
    best, processor = min(wall for wall, _ in saves), min(used for _, used in saves)
    figures = {
        "parameters": config.parameter_count(),
        "bytes of a checkpoint": size,
        "save, best of three (s)": best,
        "save, processor time (s)": processor,
        "plain write and flush of as many bytes (s)": write,
        "others' load on this machine (processes)": os.getloadavg()[0],
        "share of the reference job": best / share_of(HOURS),
        "share of the same job at 40 % of four A100s": best / share_of(FAST_HOURS),
    }
    return {
        "what": __doc__.split("\n")[0],
        "figures": figures,
        "machine": f"{machine()}, torch {torch.__version__}",
    }


def share_of(hours: float) -> float:
    """Seconds between two checkpoints of a job of so many hours."""
    return hours * 3600 * EVERY / STEPS
