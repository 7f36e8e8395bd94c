"""Forecasts a training: memory, micro-batch and speed, on this machine or on devices of the table.

groundup plan recipe.toml                          this machine: counted memory, a short probe
groundup plan recipe.toml --device 4xa100-80gb     data sheets: counted memory, predicted time
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from groundup.model.config import ModelConfig
from groundup.recipe import Train
from groundup.runtime.devices import DeviceGroup
from groundup.runtime.resources import device_memory
from groundup.train.hardware import (
    count_processes,
    divisible_share,
    micro_batch_sizes,
    smaller_sizes,
)
from groundup.train.hardware_probe import (
    CPU_MICRO_TOKENS,
    GPU_MEMORY_SHARE,
    GPU_MICRO_TOKENS,
    probe_quickly,
)
from groundup.train.memory import FittingStep, fit_step
from groundup.train.performance import StepTime, predict_step

# Without a GPU, memory is the processor's, and what other programs need of it is not known.
CPU_TOTAL_SHARE = 1.0
# An Apple GPU may take this share of the memory that it shares with the processor.
UNIFIED_MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class Placement:
    """How a step is laid out on devices, and whether it fits."""

    sequences: int  # of a step
    processes: int  # that share them
    precision: str
    available: float  # bytes of one device that training may take
    step: FittingStep

    @property
    def passes(self) -> float:
        """Micro-batches in a step of the process with most sequences."""
        return math.ceil(self.sequences / self.processes) / self.step.micro_batch


def step_sequences(config: ModelConfig, train: Train) -> int:
    """Return the sequences of a step."""
    return max(1, round(train.batch_tokens / config.context))


def place_here(config: ModelConfig, train: Train, device: str) -> Placement:
    """Lay a step out on this machine. On a CPU it is counted for float32, which needs the most."""
    sequences = step_sequences(config, train)
    processes = count_processes(train, sequences, device)
    precision = "bf16" if device == "cuda" else "fp32"
    share = GPU_MEMORY_SHARE if device == "cuda" else CPU_TOTAL_SHARE / processes
    tokens = GPU_MICRO_TOKENS if device == "cuda" else CPU_MICRO_TOKENS
    return _place(
        config,
        train,
        (sequences, processes),
        precision if train.precision == "auto" else train.precision,
        share * device_memory(device),
        device,
        tokens,
    )


def place_on(config: ModelConfig, train: Train, group: DeviceGroup) -> Placement:
    """Lay a step out on devices of the table, one process on each."""
    sequences, spec = step_sequences(config, train), group.spec
    processes = min(group.count, sequences)
    if train.processes != "auto":
        processes = min(train.processes, processes)
    share = UNIFIED_MEMORY_SHARE if spec.unified else GPU_MEMORY_SHARE
    return _place(
        config,
        train,
        (sequences, processes),
        spec.half if train.precision == "auto" else train.precision,
        share * spec.memory * 1e9,
        "cuda",
        GPU_MICRO_TOKENS,
    )


def _place(
    config: ModelConfig,
    train: Train,
    shape: tuple[int, int],
    precision: str,
    available: float,
    device: str,
    tokens: tuple[int, ...],
) -> Placement:
    sequences, processes = shape
    share = divisible_share(sequences, processes)
    size = micro_batch_sizes(train, share, config.context, tokens)[0]
    step = fit_step(
        config,
        train,
        smaller_sizes(train, share, size),
        available,
        device=device,
        precision=precision,
        processes=processes,
    )
    return Placement(sequences, processes, precision, available, step)


def predict(
    config: ModelConfig, group: DeviceGroup, placement: Placement, compiled: bool
) -> StepTime:
    """Predict a step on devices of the table."""
    return predict_step(
        config,
        placement.step.cost,
        group.spec,
        processes=placement.processes,
        sequences=placement.sequences,
        passes=placement.passes,
        precision=placement.precision,
        compiled=compiled and not group.spec.unified,
    )


def measure(config: ModelConfig, train: Train, device: str, placement: Placement) -> float:
    """Return the seconds of a step here, by a probe of some seconds."""
    quick = probe_quickly(config, train, device)
    tokens = placement.sequences * config.context
    passes = tokens * config.flops_per_token() / quick.flops / placement.processes
    return passes + quick.update_seconds


def why_not(placement: Placement, group: DeviceGroup | None) -> str:
    """Say why a step does not fit into memory, and what to do."""
    memory, room = placement.step.memory, placement.available / 1e9
    needs = f"training needs about {memory.peak / 1e9:.1f} GB of memory"
    smaller = "choose a smaller [model] preset"
    if group is None:
        return f"{needs} and this machine has {room:.1f}; {smaller}"
    whole = (memory.weights + memory.gradients) / 1e9
    each = f"each {group.spec.title} leaves {room:.1f} of {group.spec.memory:g} to it"
    copies = f"every device holds all weights and gradients ({whole:.1f} GB), which are not sharded"
    return f"{needs} and {each}; {copies}; {smaller}, or devices with more memory"


def assumptions(
    group: DeviceGroup, placement: Placement, step: StepTime, compiled: bool
) -> list[str]:
    """Say what a modeled plan rests on."""
    spec, tokens = group.spec, f"{step.tokens:,} tokens a step"
    device = f"{group.count} x {spec.title}"
    rate = spec.flops(placement.precision) / 1e12
    memory = f"{spec.memory:g} GB at {spec.bandwidth:,g} GB/s"
    link = f", link {spec.link:g} GB/s" if group.count > 1 else ""
    micro = f"{placement.passes:.3g} x {placement.step.micro_batch} sequences a device"
    layers = "compiled" if compiled and not spec.unified else "not compiled"
    twice = ", computed twice" if placement.step.recompute else ""
    notes = [
        f"{device}: {rate:g} TFLOP/s in {placement.precision}, {memory}{link} ({spec.source})",
        f"assumes {tokens}, {micro}, layers {layers}{twice}; large products reach {spec.share:.0%}"
        " of the data sheet",
    ]
    if placement.processes < group.count:
        few = f"a step has {placement.sequences} sequences"
        notes.append(f"{few}: {placement.processes} of {group.count} devices work")
    if spec.unified:
        notes.append("this version trains on the processor of such a machine, not on its GPU")
    return notes
