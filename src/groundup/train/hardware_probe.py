"""The probe that chooses the hardware settings of a training by timing some of its steps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch

from groundup.errors import GroundupError
from groundup.model.block_attention import gain_of_blocks
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.recipe import Train
from groundup.runtime.devices import sheet_flops
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.workers.map import default_workers
from groundup.train.hardware import (
    DTYPES,
    AttentionKernel,
    Hardware,
    Precision,
    compiler_works,
    count_processes,
    divisible_share,
    micro_batch_sizes,
    residual_type,
    smaller_sizes,
)
from groundup.train.memory import RECOMPUTE, fit_step
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.step_cost import count_step

# What is tried: a precision and a micro-batch.
Choice = tuple[Precision, int]
# The probe stops trying alternatives after this long.
PROBE_SECONDS = 20.0
# Tries of each alternative, of which the best counts.
ROUNDS = 3
# How much faster than the first alternative another one must be.
CLEARLY_FASTER = 1.15
# The machine is busy if other programs use this share of its cores for BUSY_SECONDS before the
# probe, or if the median try takes this many times the fastest one.
BUSY_SHARE, BUSY_SECONDS, BUSY_SPREAD = 0.2, 0.3, 1.5
# Tokens of the micro-batches that are tried on a CPU. Larger ones do not fit into its caches.
CPU_MICRO_TOKENS: tuple[int, ...] = (4096, 2048, 8192)
GPU_MICRO_TOKENS = (65_536,)
# Shares of the free memory. The rest is for everything else in the process, and for fragments.
GPU_MEMORY_SHARE, CPU_MEMORY_SHARE = 0.85, 0.8
# The quick probe of a plan: on this many of the layers, with passes that should take this long, and
# no more tries after some seconds.
QUICK_LAYERS, QUICK_PASS_SECONDS, QUICK_SECONDS = 2, 0.7, 6.0
QUICK_TOKENS, QUICK_CONTEXT = 2048, 1024
# A pass that takes a CPU longer than this is not tried.
LONG_PASS_SECONDS = 1.0
# A step reaches about this share of the rate of a large product on a CPU; it sizes quick passes.
USUAL_SHARE = 0.5
# Rows of the square matrices whose product measures the peak; a fraction of a second each.
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}


def resolve_hardware(config: ModelConfig, train: Train, sequences: int) -> tuple[Hardware, float]:
    """Return the settings, and the tokens per second of all processes that the probe measured.

    Other programs slow single tries down, so the best of several counts, and a choice that is not
    clearly faster than the default is not taken: two trainings of one recipe choose alike.
    Compilation stays off unless the recipe asks for it: whether it pays depends on the steps.
    """
    device = choose_device()
    busy = share_of_others(BUSY_SECONDS)
    processes = count_processes(train, sequences, device)
    threads = train.threads if train.threads != "auto" else max(1, default_workers() // processes)
    Hardware(device, threads, exact=train.exact).apply()
    share = divisible_share(sequences, processes)
    if device == "cpu" and takes_long(config, train, share):
        return _resolve_quickly(config, train, (share, processes), threads)
    probe = HardwareProbe(config, train, device, share, processes)
    # A GPU tries what it will use. On a CPU it is counted for float32, which needs the most.
    precision = probe.precisions[0] if device == "cuda" else "fp32"
    largest = probe.largest_fitting(precision, max(probe.sizes))
    sizes = list(dict.fromkeys(min(size, largest) for size in probe.sizes))
    # The precision first, then the size in it.
    speeds = probe.speeds([(precision, sizes[0]) for precision in probe.precisions])
    chosen = clearly_fastest(speeds)
    speeds = {chosen: speeds[chosen]}
    if time.perf_counter() < probe.deadline:
        speeds |= probe.speeds([(chosen[0], size) for size in sizes[1:]])
    precision, micro_batch = clearly_fastest(speeds)
    speed, recompute = max(speeds.values()) * processes, probe.model.recompute
    attention = probe.attention[precision]
    if "auto" in (train.steps, train.precision, train.micro_batch):
        warn_if_busy(busy, probe.spread)
    if device == "cuda":
        # Processes of their own will train on this GPU.
        del probe
        torch.cuda.empty_cache()
    compiled, peak = _compiles(train), peak_flops(device, precision)
    settings = (device, threads, precision, compiled, micro_batch, processes, recompute)
    kernels = (residual_type(precision), attention, train.exact)
    sheet = device_flops(device, precision)
    return Hardware(*settings, *kernels, peak_flops=peak, sheet_flops=sheet), speed


def takes_long(config: ModelConfig, train: Train, share: int) -> bool:
    """Whether a pass over a micro-batch takes a CPU so long that it cannot be tried.

    No backward pass hears Ctrl-C before its end.
    """
    size = micro_batch_sizes(train, share, config.context, CPU_MICRO_TOKENS)[0]
    operations = size * config.context * config.flops_per_token()
    return operations > LONG_PASS_SECONDS * USUAL_SHARE * peak_flops("cpu", "fp32")


def _resolve_quickly(
    config: ModelConfig, train: Train, shape: tuple[int, int], threads: int
) -> tuple[Hardware, float]:
    """Return settings and tokens per second by the probe of a plan; the micro-batch is the default
    one, or what fits into memory. `shape` is the share of a process, and the processes.
    """
    share, processes = shape
    quick = probe_quickly(config, train, "cpu")
    size = micro_batch_sizes(train, share, config.context, CPU_MICRO_TOKENS)[0]
    sizes = smaller_sizes(train, share, size)
    available = CPU_MEMORY_SHARE * psutil.virtual_memory().available / processes
    # It is counted for float32, which needs the most.
    step = fit_step(config, train, sizes, available, device="cpu", precision="fp32")
    if not step.fits:
        raise GroundupError(_no_room(config, sizes[-1]))
    hardware = Hardware(
        threads=threads,
        precision=quick.precision,
        compile=_compiles(train),
        micro_batch=step.micro_batch,
        processes=processes,
        recompute=step.recompute,
        residual=residual_type(quick.precision),
        attention=cpu_attention(config, quick.precision),
        exact=train.exact,
        peak_flops=peak_flops("cpu", quick.precision),
    )
    return hardware, quick.flops / config.flops_per_token() * processes


def _compiles(train: Train) -> bool:
    """Whether the recipe asks for compilation; GroundupError if that does not work here."""
    if train.compile == "on" and not compiler_works():
        missing = '[train] compile = "on", and torch.compile finds no working compiler here'
        raise GroundupError(f'{missing}; install one or set "auto"')
    return train.compile == "on"


def _no_room(config: ModelConfig, size: int) -> str:
    beside = f"{config.parameter_count() / 1e6:.0f}M parameters and their optimizer"
    wrong = f"a micro-batch of {size} x {config.context} tokens does not fit into memory"
    return f"{wrong} beside {beside}; choose a smaller [model], context or micro_batch"


@dataclass(frozen=True)
class QuickProbe:
    """What a probe of seconds tells of a training."""

    precision: Precision
    flops: float  # operations per second of forward and backward passes
    update_seconds: float  # of one update of all weights


# A run plans and then trains: it measures once.
@functools.cache
def probe_quickly(config: ModelConfig, train: Train, device: str) -> QuickProbe:
    """Measure training steps on two of the layers; never longer than some seconds.

    Passes are sized by the measured rate of products, so that Ctrl-C is heard between them.
    """
    peak = peak_flops(device, "bf16" if device == "cuda" else "fp32")
    small = dataclasses.replace(config, layers=min(QUICK_LAYERS, config.layers), dropout=0.0)
    fitting = QUICK_PASS_SECONDS * USUAL_SHARE * peak / small.flops_per_token()
    tokens = int(min(QUICK_TOKENS, max(32.0, fitting)))
    small = dataclasses.replace(small, context=min(config.context, QUICK_CONTEXT, tokens))
    size = max(1, tokens // small.context)
    probe = HardwareProbe(small, dataclasses.replace(train, micro_batch=size), device, size)
    probe.deadline = time.perf_counter() + QUICK_SECONDS
    speeds = probe.speeds([(precision, size) for precision in probe.precisions])
    precision, _ = chosen = clearly_fastest(speeds)
    cost = count_step(config, 1, precision=precision, device=device)
    update = cost.parts["optimizer"].matrix_flops / peak
    if update * small.layers / config.layers < QUICK_PASS_SECONDS:
        # Nearly all of an update is that of the layers' matrices.
        update = probe.update_seconds() * config.layers / small.layers
    return QuickProbe(precision, speeds[chosen] * small.flops_per_token(), update)


class HardwareProbe:
    """Tries training steps on dummy tokens: does a step fit into memory, and how fast is it?

    `share` is the number of sequences of one step in one process.
    """

    def __init__(
        self, config: ModelConfig, train: Train, device: str, share: int, processes: int = 1
    ) -> None:
        self.config, self.train, self.device = config, train, device
        self.share, self.processes = share, processes
        # To choose from, the default first; likewise the sizes of the micro-batch.
        self.precisions: list[Precision] = ["fp32", "bf16"]
        micro_tokens = CPU_MICRO_TOKENS
        if device == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            self.precisions, micro_tokens = ["bf16" if bf16 else "fp16"], GPU_MICRO_TOKENS
        if train.precision != "auto":
            self.precisions = [train.precision]
        self.sizes = micro_batch_sizes(train, share, config.context, micro_tokens)
        self.deadline = time.perf_counter() + PROBE_SECONDS
        self.spread = 1.0  # the largest ratio so far of the median try of a choice to its fastest
        kernel = cpu_attention if device == "cpu" else gpu_attention
        self.attention = {precision: kernel(config, precision) for precision in self.precisions}
        self.model = Transformer(config).to(device).train()
        self.model.recompute = train.recompute == "on"
        self._parameters = FlatParameters(self.model)
        # Its state takes memory too.
        self._optimizer = Optimizer(self._parameters, train.optimizer, train.weight_decay)

    def largest_fitting(self, precision: Precision, size: int) -> int:
        """Return the largest micro-batch up to `size` that fits; recompute only if needed.

        A GPU tries a step. On a CPU trying might get the process killed, so its bytes are counted.
        """
        sizes = smaller_sizes(self.train, self.share, size)
        if self.device == "cuda":
            for recompute in RECOMPUTE[self.train.recompute]:
                self.model.recompute = recompute
                for each in sizes:
                    if self._fits_gpu(precision, each):
                        return each
        else:
            available = CPU_MEMORY_SHARE * psutil.virtual_memory().available / self.processes
            # The probe's own model and optimizer are among what is taken already.
            step = fit_step(
                self.config,
                self.train,
                sizes,
                available,
                device="cpu",
                precision=precision,
                beyond_weights=True,
            )
            self.model.recompute = step.recompute
            if step.fits:
                return step.micro_batch
        raise GroundupError(_no_room(self.config, sizes[-1]))

    def _fits_gpu(self, precision: Precision, size: int) -> bool:
        """Whether a step of `size` sequences leaves enough of the GPU's memory free."""
        try:
            torch.cuda.reset_peak_memory_stats()
            for _ in range(2):
                self.pass_seconds(precision, size)
            self.update_seconds()
            used = torch.cuda.max_memory_allocated()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return False
        return used < GPU_MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory

    def speeds(self, choices: Sequence[Choice]) -> dict[Choice, float]:
        """Return the tokens per second of each choice: the best of ROUNDS tries.

        The choices take turns, so that another program does not slow down only one of them. Each is
        tried at least once, and no more after the deadline.
        """
        seconds: dict[Choice, list[float]] = {choice: [] for choice in choices}
        for number in range(ROUNDS + 1):
            for choice, tried in seconds.items():
                if not tried or time.perf_counter() < self.deadline:
                    tried.append(self.pass_seconds(*choice))
                # The first pass allocates memory; it counts only if there is no other.
                if number == 1 and len(tried) == 2:
                    del tried[0]
        spreads = (statistics.median(tried) / min(tried) for tried in seconds.values())
        self.spread = max([self.spread, *spreads])
        length = self.config.context
        return {choice: choice[1] * length / min(tried) for choice, tried in seconds.items()}

    def pass_seconds(self, precision: Precision, size: int) -> float:
        """Return the seconds of one forward and backward pass over `size` sequences."""
        tokens_BT = self.dummy_tokens(size)
        hardware = Hardware(
            self.device,
            precision=precision,
            recompute=self.model.recompute,
            residual=residual_type(precision),
            attention=self.attention[precision],
        )
        hardware.set_up(self.model)
        start = time.perf_counter()
        with hardware.autocast():
            loss = self.model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
        loss.backward()
        loss.item()
        return time.perf_counter() - start

    def update_seconds(self) -> float:
        """Return the seconds of one update that changes nothing."""
        start = time.perf_counter()
        self._optimizer.step(0.0, 0.0)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def dummy_tokens(self, size: int) -> torch.Tensor:
        """Return tokens [size, context + 1]."""
        count = size * (self.config.context + 1)
        return torch.arange(count, device=self.device).view(size, -1) % self.config.vocab_size


def cpu_attention(config: ModelConfig, precision: Precision) -> AttentionKernel:
    """Return which attention is clearly faster on this CPU; PyTorch's own for fp32, always."""
    fast = precision != "fp32" and gain_of_blocks(config, DTYPES[precision]) >= CLEARLY_FASTER
    return "blocks" if fast else "sdpa"


def gpu_attention(config: ModelConfig, precision: Precision) -> AttentionKernel:
    """Return "flash" where this GPU has it: from Ampere on, in half precision."""
    is_able = torch.cuda.get_device_capability() >= (8, 0) and config.head_width <= 256
    return "flash" if is_able and precision != "fp32" else "sdpa"


def clearly_fastest(speeds: Mapping[Choice, float]) -> Choice:
    """Return the first choice, or the fastest one if it is CLEARLY_FASTER than the first."""
    first, fastest = next(iter(speeds)), max(speeds, key=lambda choice: speeds[choice])
    return fastest if speeds[fastest] >= CLEARLY_FASTER * speeds[first] else first


def share_of_others(seconds: float) -> float:
    """Return the share of the cores that other programs than this run use, over some seconds."""
    own = psutil.Process()
    # The live page draws while the probe begins.
    family = [own, *own.children(recursive=True)]

    def used() -> float:
        total = 0.0
        for process in family:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    before = used()
    share = psutil.cpu_percent(seconds) / 100
    return max(0.0, share - (used() - before) / (seconds * (psutil.cpu_count() or 1)))


def warn_if_busy(share: float, spread: float) -> None:
    """Say that the probe cannot be trusted, given the use of the cores by others and its spread."""
    if share >= BUSY_SHARE:
        why = f"other programs use {share:.0%} of its cores"
    elif spread >= BUSY_SPREAD:
        why = f"its speed varies by {spread:.1f} times"
    else:
        return
    say(
        f"train: this machine is busy ({why}), so the measured speed may be too low for a good"
        ' choice of steps, precision and micro_batch = "auto"; stop the other programs and use'
        " --redo train, or set them under [train]"
    )


def peak_flops(device: str, precision: Precision) -> float:
    """Return the operations per second of a large matrix product here, the best of five.

    Of random numbers: processors multiply zeros and ones with less power, some of them faster.
    """
    size, generator = PEAK_SIZE[device], torch.Generator(device).manual_seed(0)
    a, b = (
        torch.randn(size, size, device=device, generator=generator).to(DTYPES[precision])
        for _ in range(2)
    )
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        # Reading one number waits for the product.
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def device_flops(device: str, precision: Precision) -> float:
    """Return the data-sheet rate of this machine's GPU; 0 if it is unknown, as that of a CPU is."""
    return sheet_flops(torch.cuda.get_device_name(), precision) if device == "cuda" else 0.0
