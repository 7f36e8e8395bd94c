"""What a training shows while it runs: metrics, TensorBoard, Weights & Biases, text samples.

A rollback cuts metrics.jsonl back to the checkpoint; the other two show what happened both times.
"""

from __future__ import annotations

import importlib
import math
import resource
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tokenizers import Tokenizer

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError
from groundup.model.generate import generate
from groundup.model.transformer import Transformer
from groundup.recipe import Train
from groundup.runtime.progress import say
from groundup.train.hardware import uncompiled
from groundup.train.setup import TrainSetup

SAMPLE_TOKENS = 40
TEMPERATURE, TOP_P = 0.7, 0.95


class Interval:
    """Metrics of the steps since the last line."""

    def __init__(self) -> None:
        self.last_loss = math.nan  # of the last applied step
        self.busy = self.waited = 0.0  # seconds in steps, and of them those that waited for data
        self._losses: list[float] = []
        self._tokens = self._refused = 0
        self._norm = self._rate = 0.0

    def add(self, loss: float, norm: float, learning_rate: float, tokens: int) -> None:
        """Add a step that was applied."""
        self.last_loss, self._norm, self._rate = loss, norm, learning_rate
        self._losses.append(loss)
        self._tokens += tokens

    def refuse(self, tokens: int) -> None:
        """Add a step that was computed and not applied."""
        self._refused += 1
        self._tokens += tokens

    def take(self, setup: TrainSetup, device: torch.device) -> dict[str, float]:
        """Return the metrics and start a new interval; nothing if no step was applied."""
        if not self._losses:
            return {}
        loss = sum(self._losses) / len(self._losses)
        metrics = {
            "loss": loss,
            "perplexity": perplexity(loss),
            "learning_rate": self._rate,
            "gradient_norm": self._norm,
            "tokens_per_second": round(self._tokens / self.busy, 1),
            "data_wait": round(self.waited, 4),
        }
        if self._refused:
            metrics["refused"] = self._refused
        # Model FLOPs utilization: the share of the peak of a large matrix product in the training's
        # precision, measured here before step 0. Blocks that are computed twice count once.
        # Beside it the share of the data sheet's rate, which others state as MFU.
        flops = metrics["tokens_per_second"] * setup.config.flops_per_token()
        rates = {"utilisation": setup.hardware.peak_flops, "mfu": setup.hardware.sheet_flops}
        for name, rate in rates.items():
            if rate:
                metrics[name] = round(flops / (rate * setup.hardware.processes), 4)
        # The largest so far, of the GPU or of this process. Linux counts kilobytes, macOS bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        metrics["memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if device.type == "cuda":
            metrics["memory_bytes"] = torch.cuda.max_memory_allocated(device)
        self._losses, self._tokens, self._refused, self.busy, self.waited = [], 0, 0, 0.0, 0.0
        return metrics


def perplexity(loss: float) -> float:
    """Return e^loss, infinite if that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf


class Logbook:
    """Writes metrics to metrics.jsonl, and to TensorBoard and Weights & Biases if they are on.

    Raises GroundupError if one of the two is on and not installed.
    """

    def __init__(self, root: Path, setup: TrainSetup) -> None:
        folder, name = root / "train", root.name
        self.metrics = Metrics(folder / "metrics.jsonl")
        self._tensorboard: Any = None
        self._wandb: Any = None
        if setup.train.tensorboard:
            library = _import("torch.utils.tensorboard", "tensorboard", "'groundup[tensorboard]'")
            self._tensorboard = library.SummaryWriter(folder / "tensorboard")
        if setup.train.wandb:
            # Named like the run directory; a resumed training continues it.
            ids = {"project": "groundup", "name": name, "id": f"groundup-{name}", "resume": "allow"}
            config, library = dict(setup.key_parts.settings), _import("wandb", "wandb", "wandb")
            self._wandb = library.init(**ids, dir=folder, config=config)

    def write(self, step: int, **metrics: float | str) -> None:
        """Write the metrics of a step; text goes into metrics.jsonl only."""
        self.metrics.write(step=step, **metrics)
        numbers = {name: value for name, value in metrics.items() if not isinstance(value, str)}
        scalars = {f"train/{name}": value for name, value in numbers.items()}
        if self._tensorboard is not None:
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, value, step)
            self._tensorboard.flush()
        if self._wandb is not None:
            # The step of wandb must not decrease, ours may. So ours is one of the scalars.
            self._wandb.log(scalars | {"train/step": step})


def _import(module: str, setting: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        missing = f"[train] {setting} = true, and it is not installed"
        raise GroundupError(f"{missing}; `pip install {package}`") from None


class SampleCallback:
    """Continues one prompt now and then, so that one can watch the model learn to write.

    It goes by the clock and changes nothing in what is learned: the model is only read, and random
    numbers come from a generator of its own.
    """

    def __init__(self, root: Path, train: Train) -> None:
        path = root / "tokenize" / "tokenizer.json"
        self._tokenizer = Tokenizer.from_file(str(path)) if path.exists() else None
        self._train, self._last_time = train, time.monotonic()

    def __call__(self, model: Transformer, step: int, loss: float, force: bool = False) -> None:
        """Print a continuation of the prompt if it is time, or `force`."""
        due = force or time.monotonic() - self._last_time >= self._train.sample_seconds
        if self._tokenizer is None or not due:
            return
        text = self._train.sample_prompt
        prompt = self._tokenizer.encode(text, add_special_tokens=False).ids or [0]
        with uncompiled():
            tokens = [*prompt, *generate(model, prompt, SAMPLE_TOKENS, TEMPERATURE, top_p=TOP_P)]
        text = " ".join(self._tokenizer.decode(tokens).split())
        say(f"  step {step:>6}  loss {loss:.3f}  {text}")
        self._last_time = time.monotonic()
