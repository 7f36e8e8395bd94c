"""Every check that wants a GPU, in one call: `python -m benchmarks.gpu`. Writes results/gpu.json
with the device's name.

Runs from a source tree with PyTorch 2.11 or newer and nothing installed. Without a GPU it goes
through the same code with a tiny model on the CPU, which proves that it runs, and writes no result.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from groundup.model.config import ModelConfig, resolve
from groundup.model.transformer import Transformer
from groundup.recipe import Model
from groundup.train.hardware import Hardware, Precision
from groundup.train.optimizer import FlatParameters, Optimizer

RESULT = Path(__file__).parent / "results" / "gpu.json"
STEPS = 10
# Dense bf16 peak of an H100 SXM (NVIDIA's data sheet): utilization is stated against it.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def main() -> None:
    gpu = torch.cuda.is_available()
    config = resolve(Model(preset="300m" if gpu else "tiny"), 50_000 if gpu else 512, 10**10)
    device = "cuda" if gpu else "cpu"
    figures = {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "torch": torch.__version__,
        "checks": checks(config, device),
    }
    print(json.dumps(figures, indent=1))
    if gpu:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def checks(config: ModelConfig, device: str) -> dict[str, object]:
    """Return speed and memory of a training step for each precision, compiled and not, and whether
    equal runs are equal.
    """
    sizes = (16, 32) if device == "cuda" else (2,)
    found: dict[str, object] = {}
    for precision in ("bf16", "fp32"):
        for compiled in (False, True) if device == "cuda" else (False,):
            for size in sizes:
                name = f"{precision}, micro-batch {size}{', compiled' if compiled else ''}"
                found[name] = step_speed(config, device, precision, size, compiled)
    found["two equal runs give equal weights"] = equal_runs(replace(config, layers=2), device)
    found["a CPU and this device agree (fp32 logits, largest difference)"] = agreement(
        replace(config, layers=2), device
    )
    return found


def tokens(config: ModelConfig, size: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocab_size, (size, config.context + 1), generator=generator).to(
        device
    )


def step_speed(
    config: ModelConfig, device: str, precision: Precision, size: int, compiled: bool
) -> dict[str, float] | str:
    """Return tokens a second, share of peak and peak memory of whole training steps; or why it did
    not fit.
    """
    try:
        model = Transformer(config).to(device).train()
        parameters = FlatParameters(model)
        optimizer = Optimizer(parameters, "muon", 0.1, torch.bfloat16)
        if compiled:
            for layer in model.model.layers:
                layer.compile()
        rows = tokens(config, size, device)
        seconds = [
            train_step(model, parameters, optimizer, rows, Hardware(device, precision=precision))
            for _ in range(STEPS)
        ]
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"
    best = min(seconds)
    speed = size * config.context / best
    peak = next(
        (
            value
            for name, value in PEAK_FLOPS.items()
            if device == "cuda" and name in torch.cuda.get_device_name()
        ),
        0.0,
    )
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return {
        "tokens_per_second": speed,
        "utilisation": speed * config.flops_per_token() / peak if peak else 0.0,
        "peak_memory_bytes": float(memory),
    }


def train_step(
    model: Transformer,
    parameters: FlatParameters,
    optimizer: Optimizer,
    rows: torch.Tensor,
    machine: Hardware,
) -> float:
    start = time.perf_counter()
    parameters.zero_grad()
    with machine.autocast():
        loss = model.loss(rows[:, :-1], rows[:, 1:])
    loss.backward()
    optimizer.step(1e-3, 1e-3)
    loss.item()
    return time.perf_counter() - start


def equal_runs(config: ModelConfig, device: str) -> bool:
    """Train twice with the settings of exact resume, and compare every bit of the weights."""
    Hardware(device, threads=1).apply()
    weights = []
    for _ in range(2):
        model = Transformer(config, 1).to(device).train()
        parameters = FlatParameters(model)
        optimizer = Optimizer(parameters, "muon", 0.1, torch.bfloat16)
        rows = tokens(config, 2, device)
        for _ in range(3):
            train_step(model, parameters, optimizer, rows, Hardware(device, precision="bf16"))
        weights.append([weight.detach().cpu() for weight in model.parameters()])
    return all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def agreement(config: ModelConfig, device: str) -> float:
    """Return the largest difference of logits between the CPU and this device."""
    model, rows = Transformer(config, 1).eval(), tokens(config, 1, "cpu")[:, :-1]
    with torch.no_grad():
        ours = model(rows)
        theirs = model.to(device)(rows.to(device)).cpu()
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    main()
