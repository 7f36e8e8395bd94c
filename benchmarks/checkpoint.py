"""What saving a checkpoint costs: how long training waits for it, and how long until it is on disk,
beside torch.distributed.checkpoint.

`python -m benchmarks checkpoint`, under three minutes. 354M parameters with the state of each
optimizer, in one process. Both copy first, and write and flush in the background, into the folder
that GROUNDUP_BENCH_DISK names (default: beside this file). The first save of each is not counted. A
plain write of as many bytes stands beside them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter

from benchmarks.machine import machine
from groundup.model.config import ModelConfig, resolve
from groundup.model.transformer import Transformer
from groundup.recipe import Model
from groundup.runtime.files import flush
from groundup.train.checkpoint_writer import CheckpointWriter
from groundup.train.distributed import DistributedContext
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.state import Checkpoints, TrainState

CONFIG = resolve(Model(preset="300m", layers=24), 54_272, 10**10)
OPTIMIZERS = ("muon", "adamw")
REPEATS = 3
# The reference job: 100,000 steps in 72 h, a checkpoint every 1,000 steps; and the 13 h that 40 %
# of four A100s would take.
STEPS, HOURS, FAST_HOURS, EVERY = 100_000, 72, 13, 1_000
# Seconds that training waits, until all is on disk, and of processor time.
Times = tuple[float, float, float]


def best_of_saves(save: Callable[[int], Callable[[], object]]) -> Times:
    """Return the least of each figure; `save(number)` begins, and returns how to wait."""
    times: list[Times] = []
    for number in range(REPEATS + 1):
        wall, processor = time.perf_counter(), time.process_time()
        wait = save(number)
        stall = time.perf_counter() - wall
        wait()
        times.append((stall, time.perf_counter() - wall, time.process_time() - processor))
    stalls, walls, processors = zip(*times[1:], strict=True)
    return min(stalls), min(walls), min(processors)


def ours(
    folder: Path, model: Transformer, parameters: FlatParameters, optimizer: Optimizer
) -> tuple[Times, int]:
    """Return the times of our saves, and the bytes of one."""
    checkpoints = Checkpoints(folder)
    writer = CheckpointWriter(checkpoints, model, parameters, optimizer, DistributedContext())

    def save(number: int) -> Callable[[], None]:
        writer.start(TrainState(step=number), {}, 0.0, lambda state: None)
        return writer.wait

    times = best_of_saves(save)
    return times, sum(path.stat().st_size for path in checkpoints.path(REPEATS).iterdir())


def peer(folder: Path, model: Transformer, optimizer: Optimizer) -> Times:
    """Return the times of the asynchronous saves of torch.distributed.checkpoint."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    # Its memory that stands ready is pinned, which needs a GPU; without one it copies into new.
    cache = torch.cuda.is_available()
    writer = FileSystemWriter(folder, cache_staged_state_dict=cache)
    return best_of_saves(lambda _: dcp.async_save(state, storage_writer=writer).result)


def plain_write(path: Path, size: int) -> float:
    """Return the seconds of writing and flushing as many bytes."""
    start, data = time.perf_counter(), bytes(1 << 24)
    with path.open("wb") as file:
        for _ in range(size >> 24):
            file.write(data)
    flush(path)
    return time.perf_counter() - start


def measure(config: ModelConfig = CONFIG) -> dict[str, object]:
    """Return the figures of results/checkpoint.json."""
    figures: dict[str, object] = {"parameters": config.parameter_count()}
    for name in OPTIMIZERS:
        model = Transformer(config)
        parameters = FlatParameters(model)
        optimizer = Optimizer(parameters, name, 0.1)
        disk = os.environ.get("GROUNDUP_BENCH_DISK", Path(__file__).parent)
        folder = Path(tempfile.mkdtemp(dir=disk))
        try:
            times, size = ours(folder / "ours", model, parameters, optimizer)
            shutil.rmtree(folder / "ours")
            both = {"ours": times, "torch's": peer(folder / "peer", model, optimizer)}
            shutil.rmtree(folder / "peer")
            figures[f"{name}: bytes of a checkpoint"] = size
            for side, (stall, wall, processor) in both.items():
                figures[f"{name}, {side}: training waits (s)"] = round(stall, 3)
                figures[f"{name}, {side}: until it is on disk (s)"] = round(wall, 3)
                figures[f"{name}, {side}: processor time (s)"] = round(processor, 3)
            writes = [plain_write(folder / "plain", size) for _ in range(REPEATS)]
            figures[f"{name}: plain write of as many bytes (s)"] = round(min(writes), 3)
            figures[f"{name}: share of the reference job"] = times[0] / share_of(HOURS)
            figures[f"{name}: share at 40 % of four A100s"] = times[0] / share_of(FAST_HOURS)
        finally:
            shutil.rmtree(folder)
    figures["others' load on this machine (processes)"] = os.getloadavg()[0]
    return {
        "what": "How long training waits for a checkpoint, beside torch.distributed.checkpoint.",
        "figures": figures,
        "machine": f"{machine()}, torch {torch.__version__}",
    }


def share_of(hours: float) -> float:
    """Seconds between two checkpoints of a job of so many hours."""
    return hours * 3600 * EVERY / STEPS
