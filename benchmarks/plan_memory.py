"""Memory of training on the CPU: what `groundup plan` counts beside the measured peak, at four
sizes and three contexts.

`python -m benchmarks plan_memory`, under five minutes. Each case is a process of its own that takes
a step of one micro-batch and one of two, and copies a checkpoint after each; its anonymous memory
is sampled every two milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from benchmarks.machine import machine
from groundup.model.config import PRESETS, ModelConfig
from groundup.model.transformer import Transformer
from groundup.train.checkpoint_writer import Buffers
from groundup.train.hardware import Hardware, Precision
from groundup.train.memory import step_memory
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.step_cost import count_step

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SIZES = ("starter", "small", "30m", "125m")
CONTEXTS = (256, 512, 1024)
VOCABULARY = 8192
# Tokens of a micro-batch: what training takes on a CPU.
TOKENS = 4096


def case(name: str, context: int) -> tuple[ModelConfig, int]:
    """Return the sizes of a case and its micro-batch."""
    config = dataclasses.replace(PRESETS[name], context=context, vocab_size=VOCABULARY, dropout=0.1)
    # The largest size runs with fewer tokens, to end in time.
    return config, max(1, TOKENS // context // (4 if name == "125m" else 1))


def measure() -> dict[str, object]:
    """Return the figures of results/plan_memory.json."""
    figures: dict[str, object] = {}
    worst = 0.0
    for number, name in enumerate(SIZES):
        # The types take turns, so that both are measured at each size.
        for turn, context in enumerate(CONTEXTS):
            precision = PRECISIONS[(number + turn) % 2]
            peak = peak_of(name, context, precision)
            config, size = case(name, context)
            cost = count_step(config, size, precision=precision, device="cpu")
            plan = step_memory(cost, "cpu").peak
            worst = max(worst, abs(plan / peak - 1))
            key = f"{name}, context {context}, {size} sequences, {precision}"
            figures[f"{key}: plan (GB)"] = round(plan / 1e9, 3)
            figures[f"{key}: measured (GB)"] = round(peak / 1e9, 3)
            figures[f"{key}: plan / measured"] = round(plan / peak, 3)
            print(f"{key}: {plan / 1e9:.3f} / {peak / 1e9:.3f} = {plan / peak:.3f}", flush=True)
    figures["largest difference"] = round(worst, 3)
    return {
        "what": "Memory of training on the CPU that a plan counts, beside the measured peak.",
        "figures": figures,
        "machine": f"{machine()}, torch {torch.__version__}",
    }


def peak_of(name: str, context: int, precision: Precision) -> float:
    """Train in a process of its own; return the peak of its anonymous memory in bytes."""
    command = [sys.executable, "-m", "benchmarks.plan_memory", name, str(context), precision]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(out.splitlines()[-1]))


def anonymous() -> int:
    """Return the bytes of this process that are no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main(name: str, context: int, precision: Precision) -> None:
    """Train two steps, of one and of two micro-batches, and print the peak."""
    config, size = case(name, context)
    peak, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    model = Transformer(config).train()
    hardware = Hardware(precision=precision, residual=precision)
    hardware.set_up(model)
    parameters = FlatParameters(model)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer = Optimizer(parameters, "muon", 0.1, dtype)
    buffers = Buffers(parameters, optimizer)
    rows_NT = torch.randint(config.vocab_size, (size, context + 1))
    for micro_batches in (1, 2):
        parameters.zero_grad()
        for _ in range(micro_batches):
            loss = model.loss(rows_NT[:, :-1], rows_NT[:, 1:], "sum")
            (loss / rows_NT.numel()).backward()
            del loss
        optimizer.step(1e-3, 1e-3)
        buffers.take()
    time.sleep(0.01)
    stop.set()
    thread.join()
    print(json.dumps(max(peak[0], anonymous())))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])  # type: ignore[arg-type]
