"""What training holds in memory, by part, and the largest micro-batch that fits.

Weights, gradients and the optimizer's state stay. The rest comes and goes within a step: its
highest point is that of one of four phases (step_cost.py), which never hold theirs at once.

    weights │ gradients │ state │ saved activations ─ head ─ backward    │ process
                                │ the update's temporaries (Muon's)      │
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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

    @property
    def peak(self) -> float:
        """The highest point of a step."""
        return self.weights + self.gradients + self.state + self.process + self.transient

    @property
    def transient(self) -> float:
        """What comes and goes within a step, at its highest point."""
        return max(self.activations + max(self.head, self.backward), self.update)

    def parts(self) -> dict[str, float]:
        """Return the parts by the name that a plan gives them."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer state": self.state,
            "saved activations": self.activations,
            "head chunk": self.head,
            "backward pass": self.backward,
            "optimizer temporaries": self.update,
            "process": self.process,
        }


def step_memory(cost: StepCost, device: str, processes: int = 1) -> StepMemory:
    """Return what one of `processes` devices ("cpu" or "cuda") holds in a step of this cost.

    Each updates its own weights, and has the optimizer's state of those (ZeRO-1).
    """
    factor, saved = ALLOCATOR[device], cost.saved_bytes
    return StepMemory(
        weights=BYTES_PER_WEIGHT * cost.parameters,
        gradients=BYTES_PER_WEIGHT * cost.parameters,
        state=cost.state_bytes / processes,
        activations=factor * saved,
        head=factor * max(0.0, cost.peaks["head"] - saved),
        backward=factor * max(0.0, cost.peaks["backward"] - saved),
        update=factor * cost.peaks["optimizer"] / processes,
        process=PROCESS_BYTES[device],
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
    for recompute in RECOMPUTE[train.recompute]:

        def count(size: int, recompute: bool = recompute) -> FittingStep:
            cost = count_step(
                config,
                size,
                precision=precision,
                recompute=recompute,
                optimizer=train.optimizer,
                device=device,
            )
            memory = step_memory(cost, device, processes)
            needed = memory.transient if beyond_weights else memory.peak
            return FittingStep(size, recompute, cost, memory, needed, needed <= available)

        smallest, largest = min(sizes), max(sizes)
        step = last = count(largest)
        if not last.fits and smallest < largest:
            # Activations are a straight line over the size, so two sizes tell about the others.
            step = first = count(smallest)
            slope = (last.memory.activations - first.memory.activations) / (largest - smallest)
            room = available - first.needed
            for size in sorted(set(sizes) - {smallest, largest}, reverse=True):
                if slope * (size - smallest) <= room and (larger := count(size)).fits:
                    step = larger
                    break
        if step.fits:
            return step
    return step
