"""Ranks: which of the processes this one is, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

# One all-reduce over everything would hold a second copy of it inside the library.
BUCKET_ELEMENTS = 16 << 20


@dataclass(frozen=True)
class Ranks:
    """This process among `world` processes that train one model together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, and return it.

        Whole buffers in fixed pieces, and not DistributedDataParallel: that arranges its buckets
        anew after the first step, so a resumed run would add in another order and its weights would
        differ in the last bit.
        """
        if self.world > 1:
            for part in tensor.view(-1).split(BUCKET_ELEMENTS):
                dist.all_reduce(part)
        return tensor

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=torch.device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device(device, local) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(own)
    # Half an hour: a rank that writes a large checkpoint or a sample keeps the others waiting.
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), own)
    finally:
        dist.destroy_process_group()
