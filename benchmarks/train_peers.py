"""Tokens a second of training on this CPU with all cores, beside other programs' models in their
own loops.

`python -m benchmarks train_peers` (14M parameters, context 512) and `train_peers_124m` (context
1,024), 8,192 tokens a step in two micro-batches. PEERS names a folder with sources of nanoGPT,
nanochat and litgpt (`git clone` there); transformers' Trainer comes from the environment. What is
missing is named. Each system takes steps in a process of its own, eager and compiled, in bf16, and
in fp32 where this machine multiplies it faster; the first step does not count, which compiles.

`python -m benchmarks.train_peers SIZE SYSTEM PRECISION WAY` measures one system.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.peers import peer
from groundup.model.config import ModelConfig, resolve
from groundup.model.hf_io import to_hf
from groundup.recipe import Model
from groundup.train.hardware import Hardware, Precision
from groundup.train.hardware_probe import cpu_attention, peak_flops

Step = Callable[[], object]
MICRO_BATCHES, STEPS = 2, 3
# Seconds that one measurement may take, compiling included.
PATIENCE = 600.0
SIZES = {
    "tiny": (Model(preset="tiny"), 512, 512),
    "14m": (Model(preset="30m", layers=6), 8192, 8192),
    "124m": (Model(preset="125m"), 50_304, 8192),
}


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    config: ModelConfig
    tokens: int  # of a step
    precision: Precision
    compiled: bool

    def batches(self) -> tuple[Tensor, ...]:
        """Return the micro-batches of a step, token ids [B, context + 1], always the same."""
        shape = (self.tokens // self.config.context, self.config.context + 1)
        generator = torch.Generator().manual_seed(0)
        rows_NT = torch.randint(self.config.vocab_size, shape, generator=generator)
        return rows_NT.split(max(1, len(rows_NT) // MICRO_BATCHES))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of mixed precision."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def prepare(self, model: Any) -> Any:
        """Return the model, compiled if the case says so."""
        return torch.compile(model) if self.compiled else model


def groundup(case: Case) -> Step:
    """Return a step of our training, with the kernels that its probe takes."""
    from benchmarks.gpu import new_training, train

    rows_NT = torch.cat(case.batches())
    hardware = Hardware(
        threads=torch.get_num_threads(),
        precision=case.precision,
        compile=case.compiled,
        micro_batch=len(rows_NT) // MICRO_BATCHES,
        residual=case.precision,
        attention=cpu_attention(case.config, case.precision),
    )
    training = new_training(case.config, hardware)
    return lambda: train(training, rows_NT, 0)


def plain_loop(case: Case, model: Any, optimizer: Any, loss_of: Callable[..., Tensor]) -> Step:
    """Return a step as nanoGPT and litgpt take it: accumulate, clip to 1, AdamW."""

    def step() -> None:
        for rows_BT in case.batches():
            with case.autocast():
                loss = loss_of(rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous())
            (loss / MICRO_BATCHES).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def nanogpt(case: Case) -> Step:
    """Return a step of nanoGPT: its model, and the loop of its train.py."""
    source, config = importlib.import_module("model"), case.config
    model = source.GPT(
        source.GPTConfig(
            block_size=config.context,
            vocab_size=config.vocab_size,
            n_layer=config.layers,
            n_head=config.heads,
            n_embd=config.width,
            dropout=0.0,
            bias=False,
        )
    )
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
    forward = case.prepare(model)
    return plain_loop(case, model, optimizer, lambda x, y: forward(x, y)[1])


def litgpt(case: Case) -> Step:
    """Return a step of litgpt: a Llama of this shape, and the loop of its pretrain.py."""
    # Without the package's own __init__, which needs Lightning.
    package = types.ModuleType("litgpt")
    package.__path__ = [str(Path(os.environ["PEERS"], "litgpt", "litgpt"))]
    converter = types.ModuleType("litgpt.scripts.convert_hf_checkpoint")
    converter.qkv_reassemble = None  # type: ignore[attr-defined]
    sys.modules |= {"litgpt": package, "litgpt.scripts.convert_hf_checkpoint": converter}
    source, config = importlib.import_module("litgpt.model"), case.config
    model = source.GPT(
        source.Config(
            block_size=config.context,
            padded_vocab_size=config.vocab_size,
            vocab_size=config.vocab_size,
            n_layer=config.layers,
            n_head=config.heads,
            n_embd=config.width,
            intermediate_size=config.feed_forward,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), 6e-4, (0.9, 0.95), weight_decay=0.1)
    forward = case.prepare(model)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        # In chunks of 128 rows, as its chunked_cross_entropy takes the loss.
        chunks = zip(forward(x).flatten(0, 1).split(128), y.flatten().split(128), strict=True)
        return torch.cat([F.cross_entropy(a, b, reduction="none") for a, b in chunks]).mean()

    return plain_loop(case, model, optimizer, loss_of)


def nanochat(case: Case) -> Step:
    """Return a step of nanochat: its model with full attention, its Muon and AdamW."""
    source, config = importlib.import_module("nanochat.gpt"), case.config
    with torch.device("meta"):
        model = source.GPT(
            source.GPTConfig(
                sequence_len=config.context,
                vocab_size=config.vocab_size,
                n_layer=config.layers,
                n_head=config.heads,
                n_kv_head=config.kv_heads,
                n_embd=config.width,
                window_pattern="L",
            )
        )
    model.to_empty(device="cpu")
    model.init_weights()
    optimizer = model.setup_optimizer()
    forward = torch.compile(model, dynamic=False) if case.compiled else model

    def step() -> None:
        for rows_BT in case.batches():
            loss = forward(rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous())
            (loss / MICRO_BATCHES).backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return step


def trainer_seconds(case: Case) -> list[float]:
    """Return the seconds of steps of transformers' Trainer with a Qwen3 of this shape."""
    import transformers

    config = transformers.Qwen3Config.from_dict(to_hf(case.config))
    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_begin(self, *_: object, **__: object) -> None:
            times.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            times[-1] = time.perf_counter() - times[-1]

    rows = [{"input_ids": row, "labels": row} for row in torch.cat(case.batches())[:, :-1]]
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=1 + STEPS,
        per_device_train_batch_size=len(rows) // MICRO_BATCHES,
        gradient_accumulation_steps=MICRO_BATCHES,
        bf16=case.precision == "bf16",
        use_cpu=True,
        torch_compile=case.compiled,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    transformers.Trainer(
        model=transformers.Qwen3ForCausalLM(config),
        args=arguments,
        train_dataset=rows * (1 + STEPS),
        callbacks=[Clock()],
    ).train()
    return times


OURS, TRAINER = "groundup", "transformers' Trainer"
# By name: where its source has to be in PEERS.
SOURCES = {
    "nanoGPT": ("nanoGPT", "model.py"),
    "nanochat": ("nanochat", "nanochat/gpt.py"),
    "litgpt": ("litgpt", "litgpt/model.py"),
}
STEPS_OF: dict[str, Callable[[Case], Step]] = {
    OURS: groundup,
    "nanoGPT": nanogpt,
    "nanochat": nanochat,
    "litgpt": litgpt,
}


def measure_one(size: str, system: str, precision: Precision, way: str) -> float:
    """Return the tokens a second of the fastest step of one system."""
    torch.set_num_threads(os.cpu_count() or 1)
    case = make_case(size, precision, way)
    if system in SOURCES:
        sys.path.insert(0, str(Path(os.environ["PEERS"], SOURCES[system][0])))
    if system == TRAINER:
        times = trainer_seconds(case)
    else:
        step, times = STEPS_OF[system](case), []
        for _ in range(1 + STEPS):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return case.tokens / min(times[1:])


def make_case(size: str, precision: Precision, way: str) -> Case:
    """Return what is measured; `way` is eager or compiled."""
    model, vocabulary, tokens = SIZES[size]
    config = replace(resolve(model, vocabulary, 10**10), dropout=0.0)
    return Case(config, tokens, precision, way == "compiled")


def measure(size: str = "14m") -> dict[str, object]:
    """Return the figures of results/train_peers.json."""
    torch.set_num_threads(os.cpu_count() or 1)
    rates: dict[Precision, float] = {p: peak_flops("cpu", p) for p in ("bf16", "fp32")}
    precisions: list[Precision] = ["bf16"] if rates["bf16"] > rates["fp32"] else ["bf16", "fp32"]
    figures: dict[str, object] = {f"matrix rate, {p} (GFLOP/s)": r / 1e9 for p, r in rates.items()}
    best: dict[tuple[str, str], float] = {}
    for system in (OURS, *SOURCES, TRAINER):
        if why := missing(system):
            figures[system] = why
            continue
        for precision, way in ((p, w) for p in precisions for w in ("eager", "compiled")):
            found = in_a_process(size, system, precision, way)
            figures[f"{system}, {precision}, {way} (tokens/s)"] = found
            if isinstance(found, float):
                best[system, precision] = max(found, best.get((system, precision), 0.0))
    return {
        "what": " ".join(str(__doc__).split("\n\n")[0].split()),
        "figures": figures | dict(ratios(best, rates, make_case(size, "bf16", "eager").config)),
        "machine": f"{machine()}, torch {torch.__version__}",
    }


def missing(system: str) -> str:
    """Return why a system cannot be measured here, or ""."""
    if system == TRAINER:
        return "" if peer("transformers") and peer("accelerate") else "not installed"
    if system == OURS or Path(os.environ.get("PEERS", ""), *SOURCES[system]).is_file():
        return ""
    return f"{'/'.join(SOURCES[system])} is not in the folder that PEERS names"


def in_a_process(size: str, system: str, precision: str, way: str) -> float | str:
    """Return tokens a second, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.train_peers", size, system, precision, way]
    dtype = {"NANOCHAT_DTYPE": "bfloat16" if precision == "bf16" else "float32"}
    environment = {key: v for key, v in os.environ.items() if key != "OMP_NUM_THREADS"} | dtype
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"took more than {PATIENCE:.0f} s"
    if child.returncode:
        return f"failed: {child.stderr.strip().splitlines()[-1][:200]}"
    return round(float(json.loads(child.stdout.splitlines()[-1])), 1)


def ratios(
    best: dict[tuple[str, str], float], rates: dict[Precision, float], config: ModelConfig
) -> Iterator[tuple[str, object]]:
    """Yield ours over the best peer, both in bf16 and each in its faster type; and our share of
    the matrix rate.
    """
    fastest: dict[str, float] = {}
    for (system, _), speed in best.items():
        fastest[system] = max(speed, fastest.get(system, 0.0))
    in_bf16 = {system: speed for (system, precision), speed in best.items() if precision == "bf16"}
    for what, speeds in (("both in bf16", in_bf16), ("each in its faster type", fastest)):
        peers = [speed for system, speed in speeds.items() if system != OURS]
        if OURS in speeds and peers:
            yield f"groundup over the best peer, {what}", round(speeds[OURS] / max(peers), 3)
    for precision, rate in rates.items():
        if speed := best.get((OURS, precision)):
            share = speed * config.flops_per_token() / rate
            yield f"groundup, share of the matrix rate, {precision}", round(share, 3)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measure(sys.argv[1]), indent=1))
    else:
        size, system, precision, way = sys.argv[1:]
        print(json.dumps(measure_one(size, system, precision, way)))  # type: ignore[arg-type]
