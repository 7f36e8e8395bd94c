"""Settings that depend on the hardware: resolved once by a short probe, then recorded.

The record is [machine] in `recipe.lock.toml`. A resumed training reads it and chooses nothing
again, since another choice (threads, precision, micro-batch) would give other last bits.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from groundup.errors import GroundupError
from groundup.model.packed_attention import PackedKernel
from groundup.model.transformer import Attention, Transformer
from groundup.recipe import Train
from groundup.runtime.files import read_json
from groundup.runtime.lock import LOCK, machine_settings
from groundup.runtime.resources import choose_device
from groundup.schema import decode

Precision = Literal["fp32", "bf16", "fp16"]
# block_attention.py, flash attention on a GPU, or whatever PyTorch takes.
AttentionKernel = Literal["sdpa", "blocks", "flash"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Compiling costs 25 to 85 s on two cores and gives up to 1.5 times the speed: it pays in longer
# runs.
COMPILE_PAYS_SECONDS = 1200.0


@dataclass(frozen=True)
class Hardware:
    """Settings that depend on the hardware."""

    device: str = "cpu"
    threads: int = 1  # of each process, for operations on the CPU
    precision: Precision = "fp32"
    compile: bool = False
    micro_batch: int = 1  # sequences in one forward pass of one process
    processes: int = 1  # that train together, one per GPU
    recompute: bool = False  # whether blocks are computed again in the backward pass
    # Type of the residual stream. If it is not `precision`, autocast chooses the type of each
    # operation, as in trainings of older versions, and of fp16, whose numbers end at 65,504.
    residual: Precision = "fp32"
    attention: AttentionKernel = "sdpa"
    exact: bool = True  # whether a GPU adds in a fixed order, so that equal runs give equal bits
    # How tuning attends within the documents of a sequence; "" before the first tuning.
    packed_attention: PackedKernel | Literal[""] = ""
    # Operations per second of one process in a large matrix product, as measured and as the data
    # sheet of the device has it (0 if unknown); for the record.
    peak_flops: float = field(default=0.0, compare=False)
    sheet_flops: float = field(default=0.0, compare=False)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        if self.precision == self.residual:
            return nullcontext()
        return torch.autocast(self.device, DTYPES[self.precision])

    def set_up(self, model: Transformer) -> None:
        """Let the model train by these settings."""
        model.recompute, model.residual = self.recompute, DTYPES[self.residual]
        for module in model.modules():
            if isinstance(module, Attention):
                module.in_blocks = self.attention == "blocks"

    def apply(self) -> None:
        """Set up this process so that equal runs give equal bits.

        Raises GroundupError if training began on a GPU, and there is none.
        """
        torch.set_num_threads(self.threads)
        if self.device != "cuda":
            return
        if choose_device() == "cpu":
            missing = "this training began on a GPU and there is none here"
            raise GroundupError(f"{missing}; remove [machine] from {LOCK} to go on without")
        # Strict: an operation that has no deterministic form is an error, and flash attention takes
        # its deterministic form only then.
        torch.use_deterministic_algorithms(self.exact)
        # Otherwise every torch.empty is filled first.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # PyTorch may prefer the attention of cuDNN, whose backward pass adds in any order.
        torch.backends.cuda.enable_cudnn_sdp(not self.exact and self.attention != "flash")

    def with_recipe(self, train: Train, sequences: int) -> Hardware:
        """Return these settings with those that the recipe names explicitly."""
        if train.processes == "auto":
            train = dataclasses.replace(train, processes=self.processes)
        processes = count_processes(train, sequences, self.device)
        changes: dict[str, Any] = {"processes": processes, "exact": train.exact}
        for name in ("threads", "precision", "compile", "recompute"):
            if (value := getattr(train, name)) != "auto":
                changes[name] = {"on": True, "off": False}.get(value, value)
        if changes.get("precision", self.precision) != self.precision:
            changes["residual"] = residual_type(changes["precision"])
            # Kernels differ by type, and this one runs everywhere.
            changes["attention"] = "sdpa"
        if train.micro_batch != "auto":
            share = divisible_share(sequences, processes)
            changes["micro_batch"] = largest_divisor(share, train.micro_batch)
        return dataclasses.replace(self, **changes)


def recorded_hardware(root: Path) -> Hardware | None:
    """Return the settings that a run has recorded: [machine] of its lock, or the train/machine.json
    that older versions wrote.
    """
    table = machine_settings(root) or read_json(root / "train" / "machine.json")
    return decode(Hardware, table, f"{root / LOCK}: [machine]") if table else None


def count_processes(train: Train, sequences: int, device: str) -> int:
    """Return how many processes train together: one per GPU, if there is a sequence for each."""
    if train.processes != "auto":
        if sequences < train.processes:
            few = f"{sequences} sequences, fewer than the {train.processes} processes"
            raise GroundupError(f"[train] batch_tokens is {few}; change batch_tokens or processes")
        return train.processes
    available = torch.cuda.device_count() if device == "cuda" else 1
    return min(available, sequences)


def divisible_share(sequences: int, processes: int) -> int:
    """Return the sequences of a process that micro-batches have to divide.

    No size divides shares that differ by one, such as 73 and 74. Then it is a power of two, of
    which large sizes are divisors, and the last micro-batch of a step is smaller.
    """
    share, rest = divmod(sequences, processes)
    return 1 << share.bit_length() if rest else share


def micro_batch_sizes(
    train: Train, share: int, context: int, tokens: Sequence[int]
) -> tuple[int, ...]:
    """Return the micro-batches to choose from: those of `tokens`, or the recipe's."""
    limits = [max(1, count // context) for count in tokens]
    if train.micro_batch != "auto":
        limits = [train.micro_batch]
    return tuple(largest_divisor(share, limit) for limit in limits)


def smaller_sizes(train: Train, share: int, size: int) -> list[int]:
    """Return `size` and the smaller ones that are tried if it does not fit."""
    sizes = [size]
    while sizes[-1] > 1 and train.micro_batch == "auto":
        sizes.append(largest_divisor(share, sizes[-1] // 2))
    return sizes


def largest_divisor(share: int, limit: int) -> int:
    """Return the largest divisor of `share` up to `limit`, so that micro-batches are equal."""
    return max(size for size in range(1, max(1, min(share, limit)) + 1) if share % size == 0)


def residual_type(precision: Precision) -> Precision:
    """Return the type of the residual stream of a new training."""
    return "fp32" if precision == "fp16" else precision


def uncompiled() -> AbstractContextManager[None]:
    """Return a context in which nothing is compiled."""
    # Not imported for it (1.6 s): without torch's compiler nothing is compiled anyway.
    is_imported = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if is_imported else nullcontext()


def compiler_works() -> bool:
    """Whether torch.compile can build and run something here."""
    try:
        compiled = torch.compile(lambda x: torch.sin(x) * 2)
        compiled(torch.ones(8))
    except Exception:
        # Whatever is missing (a C++ compiler, its headers, Triton): the answer is the same.
        return False
    return True
