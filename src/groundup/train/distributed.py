"""What a training process shares with others: its rank, sums over all ranks, and signals to stop.

Data parallel: every rank holds the whole model, takes its share of the sequences of a step, and
adds its gradients to those of the others. torchrun starts the processes (launch.py).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from groundup.train.hardware import Hardware

# An all-reduce over the whole gradient at once would hold a second copy of it inside the library.
BUCKET_ELEMENTS = 16 << 20
# SIGUSR1 is what cluster schedulers send some time before they end a job.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
RELOAD_SIGNAL = signal.SIGHUP


@dataclass(frozen=True)
class DistributedContext:
    """This process among the `world` processes that train one model together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files and messages."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all ranks, and return it.

        In pieces of fixed size, and not by DistributedDataParallel: that rearranges its buckets
        after the first step, so a resumed run would add in another order and its weights would
        differ in the last bit.
        """
        if self.world > 1:
            for piece in tensor.view(-1).split(BUCKET_ELEMENTS):
                dist.all_reduce(piece)
        return tensor

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def init_distributed(hardware: Hardware) -> Iterator[DistributedContext]:
    """Set up this process for training, and join those that torchrun started, if it did."""
    hardware.apply()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank_device, backend = torch.device(hardware.device), "gloo"
    if world == 1:
        yield DistributedContext(device=rank_device)
        return
    if hardware.device == "cuda":
        rank_device, backend = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "nccl"
        torch.cuda.set_device(rank_device)
    # Half an hour: while rank 0 writes a large checkpoint or a sample, the others wait.
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size(), rank_device)
    finally:
        dist.destroy_process_group()


@dataclass
class Signals:
    """Which signals have come: to stop after this step, or to reload the recipe."""

    stop: bool = False
    reload: bool = False


@contextmanager
def catch_signals(patient: bool = False) -> Iterator[Signals]:
    """Turn signals into flags within the block; only the main thread can catch them.

    A second signal to stop acts at once, unless `patient`: a rank is told to stop more than once.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (*STOP_SIGNALS, RELOAD_SIGNAL)

    def note(number: int, frame: FrameType | None) -> None:
        if number == RELOAD_SIGNAL:
            signals.reload = True
            return
        signals.stop = True
        if not patient:
            restore.close()

    with ExitStack() as restore:
        for number in numbers:
            restore.callback(signal.signal, number, signal.signal(number, note))
        yield signals
