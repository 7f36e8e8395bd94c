"""What two ranks on one machine gain and share: 14M parameters, one thread each, over gloo.

`python -m benchmarks ranks`. The same process takes each step alone, sharded (ZeRO-1, as training
does), and replicated (one all-reduce after the backward pass, the whole optimizer on each rank), in
turns. A rank has 4,096 tokens each time, so alone is half of the batch. Efficiency is the time of a
step alone over that of a step together.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.machine import machine
from groundup.model.config import resolve
from groundup.model.transformer import Transformer
from groundup.recipe import Model
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.sharding import Sharding
from groundup.train.step import TrainStep

CONFIG = resolve(Model(preset="30m", layers=6), 8192, 10**10)
WORLD, SEQUENCES, ROUNDS = 2, 8, 5
RATES = (0.01, 0.02, 1.0)


def make_step(ranks: DistributedContext) -> TrainStep:
    """Return a step of a fresh model, which is the same on all ranks."""
    model = Transformer(CONFIG, 1).train()
    parameters = FlatParameters(model, ranks.rank, ranks.world)
    optimizer = Optimizer(parameters, "muon", 0.1)
    sharding = Sharding(model, parameters, ranks)
    return TrainStep(model, parameters, optimizer, Hardware(micro_batch=4), 1, sharding)


def take(step: TrainStep, rows: torch.Tensor, sequences: int, all_reduce: bool = False) -> float:
    """Take a step, and return its loss."""
    stats = step.forward_backward(rows, 0, sequences)
    if all_reduce:
        dist.all_reduce(step.parameters.gradients)
    step.update(stats, *RATES)
    # Gathers belong to the next forward pass; here they must not run into another way's step.
    step.sharding.wait_for_weights()
    return stats.loss


def measure_rank(rank: int, folder: str) -> None:
    """Take steps in each way, and write what this rank saw."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORLD)
    sharded = make_step(DistributedContext(rank, WORLD))
    alone, replicated = make_step(DistributedContext()), make_step(DistributedContext())
    generator = torch.Generator().manual_seed(rank)
    size = (SEQUENCES, CONFIG.context + 1)
    rows = torch.randint(CONFIG.vocab_size, size, generator=generator)
    both = SEQUENCES * WORLD
    ways: dict[str, Callable[[], float]] = {
        "alone": lambda: take(alone, rows, SEQUENCES) if rank == 0 else 0.0,
        "sharded": lambda: take(sharded, rows, both),
        "replicated": lambda: take(replicated, rows, both, all_reduce=True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    used: dict[str, list[float]] = {way: [] for way in ways}
    sent: list[int] = []
    for _ in range(ROUNDS + 1):
        for way, act in ways.items():
            dist.barrier()
            before, start, processor = loopback_bytes(), time.perf_counter(), time.process_time()
            act()
            seconds[way].append(time.perf_counter() - start)
            used[way].append(time.process_time() - processor)
            dist.barrier()
            if way == "sharded":
                sent.append(loopback_bytes() - before)
    held = {
        way: sum(own.nbytes for _, own in step.optimizer.state.values())
        for way, step in (("alone", alone), ("sharded", sharded), ("replicated", replicated))
    }
    # The first round allocates memory.
    figures = {
        "seconds": {way: statistics.median(tries[1:]) for way, tries in seconds.items()},
        "processor": {way: statistics.median(tries[1:]) for way, tries in used.items()},
        "held": held,
        "payload": sharded.sharding.payload_bytes / (ROUNDS + 1),
        "sent": statistics.median(sent[1:]),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(figures), encoding="utf-8")
    dist.destroy_process_group()


def loopback_bytes() -> int:
    """Return the bytes that went over the loopback device so far, of all programs."""
    counters = psutil.net_io_counters(pernic=True)
    return sum(counters[name].bytes_sent for name in ("lo", "lo0") if name in counters)


def measure() -> dict[str, object]:
    """Return the figures of results/ranks.json."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(measure_rank, (folder,), WORLD)  # type: ignore[attr-defined, no-untyped-call]
        first = json.loads(Path(folder, "0.json").read_text(encoding="utf-8"))
    parameters = CONFIG.parameter_count()
    figures: dict[str, object] = {
        "parameters": parameters,
        "tokens of a step on two ranks": WORLD * SEQUENCES * CONFIG.context,
        "payload a step, bytes": first["payload"],
        "payload a step, 2 x parameters x 4 bytes": 2 * parameters * 4,
        "bytes sent a step by both ranks, with headers": first["sent"],
    }
    for way, seconds in first["seconds"].items():
        figures[f"{way}: a step (s)"] = round(seconds, 3)
        figures[f"{way}: processor time of rank 0 (s)"] = round(first["processor"][way], 3)
        figures[f"{way}: optimizer's state of a rank (bytes)"] = first["held"][way]
        figures[f"{way}: efficiency"] = round(first["seconds"]["alone"] / seconds, 3)
    return {
        "what": __doc__.split("\n")[0],
        "figures": figures,
        "machine": f"{machine()}, torch {torch.__version__}",
    }
