"""What training holds in memory, by part, and the largest micro-batch that fits.

Weights, gradients and the optimizer's state stay. The rest comes and goes within a step: its
highest point is that of one of four phases (step_cost.py), which never hold theirs at once.

    weights │ gradients │ state │ saved activations ─ head ─ backward    │ copies │ process
                                │ the update's temporaries (Muon's)      │

The copies are the buffers from which a checkpoint is written while training goes on
(checkpoint_writer.py). Those of a GPU are in the memory of its machine, and not counted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.recipe import Train
from groundup.train.step_cost import StepCost, count_step

# Bytes of a process before it has tensors: Python, PyTorch and its buffers; on a GPU the context.
PROCESS_BYTES = {"cpu": 215e6, "cuda": 600e6}
# What the allocator holds beyond the tensors that are alive. Measured on the CPU
# (benchmarks/plan_memory.py), where glibc does not give back what lies between other blocks;
# assumed on a GPU.
ALLOCATOR = {"cpu": 1.27, "cuda": 1.06}
BYTES_PER_WEIGHT = 4
# A recipe's [train] recompute → what is tried, in order.
RECOMPUTE = {"on": (True,), "off": (False,), "auto": (False, True)}


@contextmanager
def out_of_memory_explained(explain: Callable[[], str]) -> Iterator[None]:
    """Turn a lack of memory within the block into a GroundupError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not is_memory and "can't allocate memory" not in str(error):
            raise
        raise GroundupError(explain()) from None


@dataclass(frozen=True)
class StepMemory:
    """Bytes that training holds on one device, by part."""

    weights: float
    gradients: float
    state: float  # of the optimizer
    activations: float  # that the layers keep for the backward pass
    head: float  # beyond those: a chunk of logits and its gradients
    backward: float  # beyond those: gradients on their way through the layers
    update: float  # temporaries of the optimizer
    process: float
    checkpoint: float  # copies that are being written

    @property
    def peak(self) -> float:
        """The highest point of a step."""
        return self.weights + self.gradients + self.state + self.process + self.beyond_weights

    @property
    def beyond_weights(self) -> float:
        """What a training takes that has its weights, gradients and optimizer already."""
        return self.transient + self.checkpoint

    @property
    def transient(self) -> float:
        """What comes and goes within a step, at its highest point."""
        return max(self.activations + max(self.head, self.backward), self.update)

    def parts(self) -> dict[str, float]:
        """Return the parts by the name that a plan gives them."""
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer state": self.state,
            "saved activations": self.activations,
            "head chunk": self.head,
            "backward pass": self.backward,
            "optimizer temporaries": self.update,
            "process": self.process,
        }
        return parts | ({"checkpoint buffers": self.checkpoint} if self.checkpoint else {})


def step_memory(cost: StepCost, device: str, processes: int = 1) -> StepMemory:
    """Return what one of `processes` devices ("cpu" or "cuda") holds in a step of this cost.

    Each updates its own weights, and has the optimizer's state of those (ZeRO-1).
    """
    factor, saved = ALLOCATOR[device], cost.saved_bytes
    weights, state = BYTES_PER_WEIGHT * cost.parameters, cost.state_bytes / processes
    return StepMemory(
        weights=weights,
        gradients=weights,
        state=state,
        activations=factor * saved,
        head=factor * max(0.0, cost.peaks["head"] - saved),
        backward=factor * max(0.0, cost.peaks["backward"] - saved),
        update=factor * cost.peaks["optimizer"] / processes,
        process=PROCESS_BYTES[device],
        checkpoint=weights + state if device == "cpu" else 0.0,
    )


@dataclass(frozen=True)
class FittingStep:
    """A step of the largest micro-batch that fits, or of the smallest if none does."""

    micro_batch: int
    recompute: bool
    cost: StepCost
    memory: StepMemory
    needed: float  # bytes
    fits: bool


def fit_step(
    config: ModelConfig,
    train: Train,
    sizes: list[int],
    available: float,
    *,
    device: str,
    precision: str,
    processes: int = 1,
    beyond_weights: bool = False,
) -> FittingStep:
    """Return the largest micro-batch of `sizes` that fits into `available` bytes.

    Layers are computed twice only if nothing fits without; a recipe that says so decides.
    `beyond_weights` says that weights, gradients and the optimizer have their memory already.
    """

    def count(recompute: bool, size: int) -> FittingStep:
        cost = count_step(
            config,
            size,
            precision=precision,
            recompute=recompute,
            optimizer=train.optimizer,
            device=device,
        )
        memory = step_memory(cost, device, processes)
        needed = memory.beyond_weights if beyond_weights else memory.peak
        return FittingStep(size, recompute, cost, memory, needed, needed <= available)

    for recompute in RECOMPUTE[train.recompute]:
        step = _largest_fitting(sizes, available, partial(count, recompute))
        if step.fits:
            break
    return step


def _largest_fitting(
    sizes: list[int], available: float, count: Callable[[int], FittingStep]
) -> FittingStep:
    """Return the step of the largest size that fits, or of the smallest if none does."""
    smallest, largest = min(sizes), max(sizes)
    last = count(largest)
    if last.fits or smallest == largest:
        return last
    # Activations are a straight line over the size, so two sizes tell about the others.
    first = count(smallest)
    slope = (last.memory.activations - first.memory.activations) / (largest - smallest)
    room = available - first.needed
    for size in sorted(set(sizes) - {smallest, largest}, reverse=True):
        if slope * (size - smallest) <= room and (step := count(size)).fits:
            return step
    return first
