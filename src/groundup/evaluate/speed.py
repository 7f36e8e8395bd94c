"""How fast the model reads and writes on this machine. Reads a model; returns tokens a second.

Measured through `generate`, as a user meets it: one sequence, key-value cache, sampling included.
One run before the clock starts; then the median of `REPEATS`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from typing import Any

import numpy as np
import torch

from groundup.model.generate import generate
from groundup.model.transformer import Transformer

REPEATS = 3
# Enough for a stable figure, short enough for a large model on a CPU.
DECODE_TOKENS = 64


def measure(model: Transformer, seed: int) -> dict[str, Any]:
    """Return prefill and decode speed with the settings that they were measured under."""
    half = max(1, model.config.context // 2)
    prompt = np.random.default_rng(seed).integers(0, model.config.vocab_size, half).tolist()
    count = max(2, min(half, DECODE_TOKENS))
    _time(model, prompt, count)
    runs = [_time(model, prompt, count) for _ in range(REPEATS)]
    return {
        "prefill_tokens_per_second": statistics.median(len(prompt) / first for first, _ in runs),
        "decode_tokens_per_second": statistics.median((count - 1) / rest for _, rest in runs),
        "prompt_tokens": len(prompt),
        "decoded_tokens": count,
        "batch": 1,
        "repeats": REPEATS,
        "device": _device(model.device),
        "dtype": str(model.head_weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def _time(model: Transformer, prompt: list[int], count: int) -> tuple[float, float]:
    """Return the seconds to the first token, and for the rest; every token reaches the CPU, so a
    GPU is done by then.
    """
    start = time.perf_counter()
    stream = generate(model, prompt, count)
    next(stream)
    first = time.perf_counter()
    for _ in stream:
        pass
    return first - start, time.perf_counter() - first


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {os.cpu_count()} cores)"
