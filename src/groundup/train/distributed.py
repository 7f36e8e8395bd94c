"""What a training process shares with others: its rank, collectives, and signals to stop.

Data parallel: every rank holds the whole model, takes its share of the sequences of a step, and
adds its gradients to those of the others (sharding.py). torchrun starts the processes (launch.py).

All sums have a fixed order, so a resumed run adds as one that never stopped, to the last bit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from groundup.train.hardware import Hardware

# SIGUSR1 is what cluster schedulers send some time before they end a job.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
RELOAD_SIGNAL = signal.SIGHUP
T = TypeVar("T")
R = TypeVar("R")


class Pending(Protocol):
    """A collective that was started."""

    def wait(self) -> object:
        """Let what follows see its result; a GPU waits, not this process."""
        ...


@dataclass(frozen=True)
class PendingSum:
    """An exchange of pieces, to be added in the order of ranks."""

    exchange: Pending
    received: Tensor  # [ranks, piece]
    target: Tensor  # [piece]

    def wait(self) -> None:
        """Wait for the pieces of all ranks, and set `target` to their sum."""
        self.exchange.wait()
        self.target.copy_(self.received[0])
        for piece in self.received[1:]:
            self.target.add_(piece)


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
        """Return the sum of a small tensor over all ranks, the same bits on each."""
        if self.world == 1:
            return tensor
        parts = tensor.new_empty(self.world, tensor.numel())
        parts[self.rank] = tensor.flatten()
        self.start_all_gather(parts).wait()
        return sum(parts[1:], start=parts[0]).view_as(tensor)

    def start_reduce_scatter(self, pieces: Tensor) -> Pending:
        """Start to replace row `rank` of `pieces` [world, N] by its sum over all ranks.

        The other rows must not change before it is waited for.
        """
        own = pieces[self.rank]
        if self.device.type == "cuda":
            # In place, as NCCL allows for exactly this row.
            return _single("reduce_scatter", "tensor")(own, pieces.flatten())
        # The reduce-scatter of gloo moves as many bytes as its all-reduce, twice these.
        received = torch.empty_like(pieces)
        exchange = dist.all_to_all_single(received.flatten(), pieces.flatten(), async_op=True)
        return PendingSum(exchange, received, own)

    def start_all_gather(self, pieces: Tensor) -> Pending:
        """Start to fill the rows of `pieces` [world, N] with those of each rank, from its own."""
        return _single("all_gather", "into_tensor")(pieces.flatten(), pieces[self.rank])

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Return function(item) of each item, in order, on every rank; each computes its share.

        So the results do not depend on the number of ranks. They must be small: they are pickled.
        """
        own = {n: function(items[n]) for n in range(self.rank, len(items), self.world)}
        if self.world == 1:
            return list(own.values())
        shares: list[dict[int, R]] = [{} for _ in range(self.world)]
        dist.all_gather_object(shares, own)
        return [shares[n % self.world][n] for n in range(len(items))]

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        if self.world > 1:
            dist.barrier()


def _single(collective: str, old_ending: str) -> Callable[[Tensor, Tensor], Pending]:
    """Return a collective over one tensor per rank, by its name in this version of PyTorch."""
    # `all_gather_into_tensor` is `all_gather_single` from 2.13 on, and likewise the other.
    name = f"{collective}_single"
    function: Any = getattr(dist, name if hasattr(dist, name) else f"{collective}_{old_ending}")
    return partial(function, async_op=True)


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
