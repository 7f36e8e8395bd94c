"""What depends on the machine, resolved once by a short probe and kept: `RUN/train/machine.json`.

Nothing here is chosen again when training resumes, since another choice would give other last bits.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil
import torch

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.recipe import Train
from groundup.runtime.workers.map import default_workers
from groundup.train.flat_params import FlatParameters
from groundup.train.optimizer import Optimizer

Precision = Literal["fp32", "bf16", "fp16"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Compiling costs 25 to 85 s on two cores and gives up to 1.5 times the speed: it pays in longer
# runs.
COMPILE_PAYS_SECONDS = 1200.0
# A probe stops looking for something better after this long.
PROBE_SECONDS = 20.0
# Tokens of the micro-batches that are tried on a CPU: larger ones fall out of its caches.
CPU_MICRO_TOKENS = (4096, 2048, 8192)
GPU_MICRO_TOKENS = 65_536
# Of the memory that is free; the rest is for what else a process needs, and for fragments.
GPU_MEMORY_SHARE, CPU_MEMORY_SHARE = 0.85, 0.8
# Bytes a position that one layer keeps, over width and feed-forward together, in float32.
LAYER_BYTES = 24
# Rows of the square matrices whose product measures the peak; fractions of a second each.
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Machine:
    """Settings that follow from the machine.

    Attributes:
        threads: of each process, for operations on the CPU.
        micro_batch: sequences in one forward pass of one process.
        processes: that train together, one a GPU.
        recompute: whether the inside of a layer is computed again in the backward pass.
        peak_flops: operations a second of one process in a large product of matrices, measured; for
            the record.
    """

    device: str = "cpu"
    threads: int = 1
    precision: Precision = "fp32"
    compile: bool = False
    micro_batch: int = 1
    processes: int = 1
    recompute: bool = False
    peak_flops: float = field(default=0.0, compare=False)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, TYPES[self.precision])

    def apply(self) -> None:
        """Set this process up, so that equal runs give equal bits.

        Raises:
            GroundupError: training began on a GPU, and there is none.
        """
        torch.set_num_threads(self.threads)
        if self.device != "cuda":
            return
        if not torch.cuda.is_available():
            raise GroundupError(
                "this training began on a GPU and there is none here; remove train/machine.json to"
                " go on without"
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else every torch.empty is filled first.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve(config: ModelConfig, train: Train, sequences: int) -> tuple[Machine, float]:
    """Return the machine's settings (compile still off unless asked for) and the tokens a second of
    the probe, all processes.

    Raises:
        GroundupError: the batch cannot be shared by the processes, or nothing fits into memory.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processes = count_processes(train, sequences, device)
    share = sequences // processes
    threads = train.threads if train.threads != "auto" else max(1, default_workers() // processes)
    torch.set_num_threads(threads)
    trials = Trials(config, train, device, share, processes)
    precision, micro_batch = trials.gpu() if device == "cuda" else trials.cpu()
    speed, recompute = trials.best_speed * processes, trials.recompute
    if device == "cuda":
        # Processes of their own will train on this GPU.
        del trials
        torch.cuda.empty_cache()
    peak = peak_flops(device, precision)
    machine = Machine(
        device, threads, precision, train.compile == "on", micro_batch, processes, recompute, peak
    )
    if train.compile == "on" and not compiler_works():
        raise GroundupError(
            '[train] compile = "on", and torch.compile finds no working compiler here; install one'
            ' or set "auto"'
        )
    return machine, speed


def count_processes(train: Train, sequences: int, device: str) -> int:
    """Return the processes that train together: one a GPU, so many that each takes as many
    sequences.

    Raises:
        GroundupError: the recipe names a number that cannot share the sequences of a step evenly.
    """
    if train.processes != "auto":
        if sequences % train.processes:
            raise GroundupError(
                f"[train] batch_tokens is {sequences} sequences, which {train.processes} processes"
                " cannot share evenly; change batch_tokens or processes"
            )
        return train.processes
    available = torch.cuda.device_count() if device == "cuda" else 1
    return max(count for count in range(1, available + 1) if sequences % count == 0)


def divisor(share: int, limit: int) -> int:
    """Return the largest divisor of `share` that is at most `limit`, so that all micro-batches are
    of one size.
    """
    return max(size for size in range(1, max(1, min(share, limit)) + 1) if share % size == 0)


class Trials:
    """Tries training steps on made-up tokens: does one fit into memory, and how fast is it?"""

    def __init__(
        self, config: ModelConfig, train: Train, device: str, share: int, processes: int = 1
    ) -> None:
        self.config, self.train, self.device, self.share, self.processes = (
            config,
            train,
            device,
            share,
            processes,
        )
        self.best_speed = 0.0
        self._end = time.perf_counter() + PROBE_SECONDS
        self._model = Transformer(config).to(device).train()
        self._model.recompute = train.recompute == "on"
        self._parameters = FlatParameters(self._model)
        # A whole step is tried, so its state is needed too.
        self._optimizer = Optimizer(self._parameters, train.optimizer, train.weight_decay)

    @property
    def recompute(self) -> bool:
        """Whether layers must be computed twice to fit."""
        return self._model.recompute

    def cpu(self) -> tuple[Precision, int]:
        """Return the fastest precision and micro-batch among a few that fit.

        Raises:
            GroundupError: not one sequence fits into memory.
        """
        context, wanted = self.config.context, self.train.micro_batch
        precisions: list[Precision] = (
            ["bf16", "fp32"] if self.train.precision == "auto" else [self.train.precision]
        )
        sizes = list(
            dict.fromkeys(
                divisor(self.share, max(1, tokens // context)) for tokens in CPU_MICRO_TOKENS
            )
        )
        if wanted != "auto":
            sizes = [divisor(self.share, wanted)]
        # What float32 needs is the most.
        largest = self.largest("fp32", max(sizes))
        sizes = list(dict.fromkeys(min(size, largest) for size in sizes))
        speeds: dict[tuple[Precision, int], float] = {
            (p, sizes[0]): self.speed(p, sizes[0]) for p in precisions
        }
        fastest = max(speeds, key=lambda choice: speeds[choice])[0]
        for size in sizes[1:]:
            if time.perf_counter() < self._end:
                speeds[fastest, size] = self.speed(fastest, size)
        self.best_speed = max(speeds.values())
        return max(speeds, key=lambda choice: speeds[choice])

    def gpu(self) -> tuple[Precision, int]:
        """Return bf16 where the GPU has it, and the largest micro-batch that leaves some memory
        free.

        Raises:
            GroundupError: not one sequence fits into memory.
        """
        fallback: Precision = (
            "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        )
        precision: Precision = fallback if self.train.precision == "auto" else self.train.precision
        wanted = self.train.micro_batch
        first = divisor(
            self.share,
            wanted if wanted != "auto" else max(1, GPU_MICRO_TOKENS // self.config.context),
        )
        size = self.largest(precision, first)
        self.best_speed = self.speed(precision, size)
        return precision, size

    def largest(self, precision: Precision, size: int) -> int:
        """Return the largest micro-batch up to `size` that fits; layers are computed twice only
        where one would not.

        Raises:
            GroundupError: not even one sequence fits, or not the micro-batch that the recipe asks
                for.
        """
        while not self.fits(precision, size):
            if size > 1 and self.train.micro_batch == "auto":
                size = divisor(self.share, size // 2)
            elif not self._model.recompute and self.train.recompute == "auto":
                self._model.recompute = True
            else:
                raise GroundupError(
                    f"a micro-batch of {size} x {self.config.context} tokens does not fit into"
                    f" memory beside {self.config.parameter_count() / 1e6:.0f}M parameters and"
                    " their optimizer; choose a smaller [model], context or micro_batch"
                )
        return size

    def fits(self, precision: Precision, size: int) -> bool:
        """Whether a whole step over `size` sequences fits: tried on a GPU, added up on a CPU, whose
        kernel would kill us.
        """
        if self.device != "cuda":
            return (
                self.step_bytes(precision, size)
                < CPU_MEMORY_SHARE * psutil.virtual_memory().available / self.processes
            )
        try:
            torch.cuda.reset_peak_memory_stats()
            self.speed(precision, size, repeats=1)
            self._optimizer.step(0.0, 0.0)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        total = torch.cuda.get_device_properties(0).total_memory
        return torch.cuda.max_memory_allocated() < GPU_MEMORY_SHARE * total

    def step_bytes(self, precision: Precision, size: int) -> int:
        """Return the bytes that a step takes beside weights, gradients and optimizer state: what
        one sequence keeps for the backward pass, counted in a forward pass, times `size`; and what
        the optimizer copies of its largest stack.
        """
        kept: dict[int, int] = {}
        own = {weight.untyped_storage().data_ptr() for weight in self._model.parameters()}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        tokens_BT = self._tokens(1)
        with (
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
            Machine(self.device, precision=precision).autocast(),
        ):
            loss = self._model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
        held = size * sum(kept.values())
        if self._model.recompute:
            # The one layer that is being computed again, as if all of a plain pass were spread
            # evenly.
            held += (
                size
                * LAYER_BYTES
                * self.config.context
                * (self.config.width + self.config.feed_forward)
            )
        del loss
        return held + 4 * max(stack.weights.nbytes for stack in self._parameters.stacks)

    def speed(self, precision: Precision, size: int, repeats: int = 2) -> float:
        """Return tokens a second of forward and backward over `size` sequences; the best of a few,
        since others use the machine.
        """
        tokens_BT = self._tokens(size)
        best = float("inf")
        for _ in range(repeats + 1):
            start = time.perf_counter()
            with Machine(self.device, precision=precision).autocast():
                loss = self._model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
            loss.backward()
            loss.item()
            best = min(best, time.perf_counter() - start)
            if time.perf_counter() > self._end:
                break
        return size * self.config.context / best

    def _tokens(self, size: int) -> torch.Tensor:
        return (
            torch.arange(size * (self.config.context + 1), device=self.device).view(size, -1)
            % self.config.vocab_size
        )


def peak_flops(device: str, precision: Precision) -> float:
    """Return the operations a second of a large product of matrices here, the best of five."""
    size = PEAK_SIZE[device]
    a, b = (torch.ones(size, size, device=device, dtype=TYPES[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        # Reading one number waits for the product.
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of a GPU or of this machine."""
    return isinstance(
        error, (torch.OutOfMemoryError, MemoryError)
    ) or "can't allocate memory" in str(error)


def uncompiled() -> AbstractContextManager[None]:
    """Have nothing compiled anew in a with block; torch's compiler is not imported for it (1.6 s),
    so nothing is compiled without it.
    """
    return (
        torch.compiler.set_stance("force_eager")
        if "torch._dynamo" in sys.modules
        else nullcontext()
    )


def compiler_works() -> bool:
    """Say whether torch.compile can build and run something here."""
    try:
        compiled = torch.compile(lambda x: torch.sin(x) * 2)
        compiled(torch.ones(8))
    except Exception:
        # Whatever is missing (a C++ compiler, its headers, Triton): the answer is the same.
        return False
    return True
