"""Training on a GPU: speed, memory and exactness, beside what a plan predicts, and transformers.

`python -m benchmarks.gpu [FILE]` ends within ten minutes and writes FILE (results/gpu.json), anew
after each part, so that a run that is cut off keeps what it has. It runs from a source tree with
PyTorch 2.11 or newer, NumPy, PyArrow and psutil; the peer needs transformers. Without a GPU it
goes through the same code with a tiny model on the CPU, which proves that it runs, and writes
nothing.

Each part is a forked process, so that none has the memory or the settings of another. This one
never touches CUDA, which does not survive a fork.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.machine import machine
from benchmarks.peers import peer
from groundup.model.config import ModelConfig, resolve
from groundup.model.hf_io import to_hf
from groundup.model.transformer import Transformer
from groundup.recipe import Train, load_recipe
from groundup.runtime.devices import reported_device
from groundup.runtime.files import write_whole
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import Hardware
from groundup.train.hardware_probe import GPU_MICRO_TOKENS, gpu_attention
from groundup.train.memory import fit_step
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.performance import predict_step
from groundup.train.sharding import Sharding
from groundup.train.step import TrainStep

HERE = Path(__file__).parent
RESULT, RECIPE = HERE / "results" / "gpu.json", HERE.parent / "recipes" / "base-300m.toml"
# Seconds of all parts, and what one needs at least.
BUDGET, LEAST = 540.0, 20.0
# Steps before the clock starts, which compile and allocate, and those that it measures.
WARM_UP, STEPS = 3, 10
# Where there is no GPU, plans are computed for this one.
ASSUMED_DEVICE = "NVIDIA H200"
GPU_VOCABULARY, CPU_VOCABULARY = 50_000, 512

Figures = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    name: str
    config: ModelConfig
    sequences: int  # of a step
    device: str
    compiled: bool

    @property
    def way(self) -> str:
        """How its kernels run."""
        return "compiled" if self.compiled else "eager"

    def tokens(self) -> torch.Tensor:
        """Return random tokens [sequences, context + 1], always the same."""
        shape = (self.sequences, self.config.context + 1)
        return torch.randint(
            self.config.vocab_size, shape, generator=torch.Generator().manual_seed(0)
        )


def main(path: Path = RESULT) -> None:
    """Run all parts for which there is time; write their figures if there is a GPU."""
    end = time.perf_counter() + BUDGET
    here = run_apart(device_here, BUDGET)
    on_gpu = here["device"] != "cpu"
    figures: Figures = {}
    result = {
        "what": " ".join(str(__doc__).split("\n\n")[0].split()),
        "figures": figures,
        "machine": f"{here['device']}, torch {torch.__version__}, {machine()}",
    }
    for name, part in parts("cuda" if on_gpu else "cpu"):
        left = end - time.perf_counter()
        found = run_apart(part, left) if left > LEAST else {"skipped": "the time was over"}
        print(json.dumps({name: found}), flush=True)
        figures |= {f"{name}: {key}": value for key, value in found.items()}
        if on_gpu:
            write_whole(path, json.dumps(result, indent=1).encode() + b"\n")


def device_here() -> Figures:
    """Return the name of the GPU, or "cpu"."""
    return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}


def parts(device: str) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Yield what is measured by name, the most important first."""
    gpu = device == "cuda"
    cases = [
        read_case(name, preset, device, compiled)
        for name, preset in ({"base-300m": "300m", "1b": "1b"} if gpu else {"tiny": "tiny"}).items()
        for compiled in ((False, True) if gpu else (False,))
    ]
    yield "exactness", functools.partial(exactness, cases[0])
    for case in cases:
        yield f"{case.name}, {case.way}", functools.partial(fitting, our_speed, case)
    for case in cases:
        name = f"{case.name}, transformers' Qwen3 with AdamW and no dropout, {case.way}"
        yield name, functools.partial(fitting, peer_speed, case)


def read_case(name: str, preset: str, device: str, compiled: bool) -> Case:
    """Return the training of the reference recipe with a preset."""
    recipe, gpu = load_recipe(RECIPE), device == "cuda"
    model = dataclasses.replace(recipe.model, preset=preset)
    config = resolve(model, GPU_VOCABULARY if gpu else CPU_VOCABULARY, 10**10, gpu)
    sequences = recipe.train.batch_tokens // config.context if gpu else 4
    return Case(name, config, sequences, device, compiled)


def run_apart(part: Callable[[], Figures], seconds: float) -> Figures:
    """Return what `part` finds in a process of its own, or why it found nothing in time."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_found, args=(part, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(seconds):
            found: Figures = receiver.recv()
            # CUDA has something to clean up.
            process.join(5)
            return found
        return {"skipped": f"it did not end in the {seconds:.0f} s that were left"}
    except EOFError:
        process.join()
        return {"failed": f"its process ended with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def send_found(part: Callable[[], Figures], sender: Connection) -> None:
    """Send what a part finds. One that fails must not cost the others."""
    try:
        found = part()
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"[:500]}
    sender.send(found)


def fitting(measure: Callable[[Case, int], Figures], case: Case) -> Figures:
    """Measure with the micro-batch that training takes, halved until it fits."""
    size = min(case.sequences, max(1, GPU_MICRO_TOKENS[0] // case.config.context))
    while size:
        try:
            return {"micro-batch (sequences)": size} | measure(case, size)
        except torch.OutOfMemoryError:
            size //= 2
        # Out of the handler, which holds the tensors of what failed.
        gc.collect()
        torch.cuda.empty_cache()
    return {"failed": "one sequence does not fit into memory"}


def our_speed(case: Case, size: int) -> Figures:
    """Measure our training, and plan it."""
    hardware = bf16_hardware(case, micro_batch=size, compile=case.compiled)
    training, rows_NT = new_training(case.config, hardware), case.tokens()

    def step(number: int) -> None:
        train(training, rows_NT, number)

    return speed_and_memory(case, step) | plan(case, size)


def bf16_hardware(case: Case, micro_batch: int, compile: bool = False) -> Hardware:
    """Return the settings of an exact training in bf16."""
    attention = gpu_attention(case.config, "bf16") if case.device == "cuda" else "sdpa"
    return Hardware(
        case.device,
        precision="bf16",
        compile=compile,
        micro_batch=micro_batch,
        residual="bf16",
        attention=attention,
    )


def new_training(config: ModelConfig, hardware: Hardware) -> TrainStep:
    """Return a training of one process before its first step, set up as Trainer does it."""
    hardware.apply()
    ranks = DistributedContext(device=torch.device(hardware.device))
    model = Transformer(config).to(ranks.device).train()
    hardware.set_up(model)
    parameters = FlatParameters(model)
    sharding = Sharding(model, parameters, ranks)
    defaults = Train()
    optimizer = Optimizer(parameters, defaults.optimizer, defaults.weight_decay, torch.bfloat16)
    if hardware.compile:
        for block in model.model.layers:
            block.forward = torch.compile(block.forward)
    return TrainStep(model, parameters, optimizer, hardware, 0, sharding)


def train(training: TrainStep, rows_NT: torch.Tensor, number: int) -> None:
    """Take one step."""
    stats = training.forward_backward(rows_NT, number, len(rows_NT))
    training.update(stats, 1e-3, 1e-3, clip=1.0)


def peer_speed(case: Case, size: int) -> Figures:
    """Measure the model of transformers of the same shape in a plain loop."""
    transformers = peer("transformers")
    if transformers is None:
        return {"skipped": "transformers is not installed"}
    with torch.device(case.device):
        model = transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config.from_dict(to_hf(case.config))
        ).train()
    forward = torch.compile(model) if case.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    rows_NT = case.tokens()[:, :-1].to(case.device)

    def step(_: int) -> None:
        optimizer.zero_grad()
        for rows_BT in torch.split(rows_NT, size):
            with torch.autocast(case.device, torch.bfloat16):
                loss = forward(input_ids=rows_BT, labels=rows_BT, use_cache=False).loss
            (loss * (len(rows_BT) / len(rows_NT))).backward()
        optimizer.step()

    return speed_and_memory(case, step)


def speed_and_memory(case: Case, step: Callable[[int], None]) -> Figures:
    """Time whole steps; return their speed, its share of the data sheet's, and peak memory."""
    on_gpu = case.device == "cuda"
    if on_gpu:
        # Of an attempt that did not fit.
        torch.cuda.reset_peak_memory_stats()
    start = 0.0
    for number in range(WARM_UP + STEPS):
        if number == WARM_UP:
            if on_gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
        step(number)
    if on_gpu:
        torch.cuda.synchronize()
    speed = STEPS * case.sequences * case.config.context / (time.perf_counter() - start)
    figures: Figures = {"tokens/s": round(speed)}
    if not on_gpu:
        return figures
    if spec := reported_device(torch.cuda.get_device_name()):
        figures["MFU"] = round(speed * case.config.flops_per_token() / spec.flops("bf16"), 4)
    free, total = torch.cuda.mem_get_info()
    return figures | {
        "peak memory of tensors (GB)": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        # Nothing was given back, so the memory in use now is the highest that was.
        "peak memory of the process (GB)": round((total - free) / 1e9, 2),
    }


def plan(case: Case, size: int) -> Figures:
    """Return what `groundup plan` would say of this step."""
    step = fit_step(
        case.config,
        Train(recompute="off"),
        [size],
        float("inf"),
        device=case.device,
        precision="bf16",
    )
    figures: Figures = {"planned peak memory (GB)": round(step.memory.peak / 1e9, 2)}
    name = torch.cuda.get_device_name() if case.device == "cuda" else ASSUMED_DEVICE
    spec = reported_device(name)
    if spec is None:
        return figures | {"planned tokens/s": f"devices.toml does not know {name}"}
    predicted = predict_step(
        case.config,
        step.cost,
        spec,
        processes=1,
        sequences=case.sequences,
        passes=case.sequences / size,
        precision="bf16",
        compiled=case.compiled,
    )
    terms = {f"planned ms, {term}": round(1e3 * took, 1) for term, took in predicted.terms.items()}
    return figures | {"planned tokens/s": round(predicted.tokens_per_second)} | terms


def exactness(case: Case) -> Figures:
    """Compare two equal trainings, and the logits of this device and the CPU, on two layers."""
    config = dataclasses.replace(case.config, layers=2)
    short = dataclasses.replace(case, config=config, sequences=2)
    return {
        "two equal trainings give equal weights": equal_runs(short),
        "largest difference of logits to the CPU's, float32": agreement(short),
    }


def equal_runs(case: Case) -> bool:
    """Train twice with the settings of exact resume, and compare every bit of the weights."""
    weights = []
    for _ in range(2):
        training = new_training(case.config, bf16_hardware(case, micro_batch=1))
        for number in range(3):
            train(training, case.tokens(), number)
        weights.append(training.parameters.weights.cpu())
    return torch.equal(*weights)


def agreement(case: Case) -> float:
    """Return the largest difference of logits between the CPU and this device."""
    model, rows_NT = Transformer(case.config, 1).eval(), case.tokens()[:1, :-1]
    with torch.no_grad():
        there = model(rows_NT)
        here = model.to(case.device)(rows_NT.to(case.device)).cpu()
    return float((there - here).abs().max())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
