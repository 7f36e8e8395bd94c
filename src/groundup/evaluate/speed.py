"""Prefill and decode speed on this machine, written to speed.json.

Measured through `generate`, as a user gets it: one sequence, key-value cache, sampling included.
One warm-up run, then the median of `REPEATS`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.artifacts.metrics import rounded
from groundup.model.generate import generate
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json
from groundup.runtime.resources import choose_device
from groundup.runtime.run import BuildStep
from groundup.runtime.store import Facts

REPEATS = 3
# Enough for a stable figure, few enough for a large model on a CPU.
DECODE_TOKENS = 64


def measure_speed(folder: Path, checkpoint: Path, seed: int) -> Facts:
    """Write speed.json of a checkpoint."""
    figures: Facts = rounded(speed_figures(load_model(checkpoint, choose_device()), seed))
    write_json(folder / "speed.json", figures)
    return figures


MEASURE_SPEED = BuildStep("evaluate/speed", 1, measure_speed)


def speed_figures(model: Transformer, seed: int) -> dict[str, Any]:
    """Return prefill and decode speed, and the settings that they were measured with."""
    half = max(1, model.config.context // 2)
    prompt = np.random.default_rng(seed).integers(0, model.config.vocab_size, half).tolist()
    tokens = max(2, min(half, DECODE_TOKENS))
    _time(model, prompt, tokens)
    times = [_time(model, prompt, tokens) for _ in range(REPEATS)]
    device = f"{model.device.type} ({platform.machine()}, {os.cpu_count()} cores)"
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    return {
        "prefill_tokens_per_second": statistics.median(len(prompt) / first for first, _ in times),
        "decode_tokens_per_second": statistics.median((tokens - 1) / rest for _, rest in times),
        "prompt_tokens": len(prompt),
        "decoded_tokens": tokens,
        "batch": 1,
        "repeats": REPEATS,
        "device": device,
        "dtype": str(model.head_weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _time(model: Transformer, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Return the seconds to the first token and for the rest.

    Every token reaches the CPU, so a GPU has finished by then.
    """
    start = time.perf_counter()
    stream = generate(model, prompt, tokens)
    next(stream)
    first = time.perf_counter()
    for _ in stream:
        pass
    return first - start, time.perf_counter() - first
