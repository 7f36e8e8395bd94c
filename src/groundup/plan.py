"""What a recipe will cost, before anything is spent. Reads the sizes of raw files, and of a model
that is gone on from, and probes this machine; writes nothing.

Every figure says what it rests on: counted (exact), measured (here, now) or assumed (a typical
ratio, named below).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import psutil
import torch

from groundup.artifacts.pretrained import Base, find_base
from groundup.artifacts.tokenizer import FILE
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.presets import resolve
from groundup.model.transformer import Transformer
from groundup.recipe import Export, Recipe, Source, all_sources
from groundup.refine.filter.filters import check_filters
from groundup.tokenize.train_bpe import resolve_vocab_size
from groundup.train.setup import automatic_tokens

Basis = Literal["counted", "measured", "assumed"]

# Bytes of clean text out of a byte of raw file: seen on the starter sources and on the shared
# samples of each kind.
CLEAN_SHARE = {
    "books": 0.95,
    "wikipedia": 0.4,
    "web": 0.08,
    "code": 0.7,
    "conversations": 0.5,
    "text": 0.9,
    "evaluation": 0.0,
}
CLEAN_SHARE |= {"tuning": 0.5}
# bz2 and xz hold wikitext at about 1 : 3.6, gzip at about 1 : 3.2, zstd -3 at about 1 : 3.0 (the
# 6.1 MB enwiki cut in gensim's tests).
EXPANSION = {
    ".bz2": 3.6,
    ".xz": 3.8,
    ".gz": 3.2,
    ".zst": 3.0,
    ".tgz": 4.0,
    ".zip": 3.5,
    ".whl": 3.5,
    ".7z": 5.0,
}
# Clean text a second and core, from raw files to tokens: 27.0 MB of the starter in 42 s on two
# cores, kernels compiled on the way (benchmarks/results/starter.json).
DATA_BYTES_A_SECOND = 0.32e6
# Weights, gradients, momentum and second moment in float32. Muon keeps one moment less; this is the
# upper bound.
BYTES_A_PARAMETER = 16
# Weights and two moments in a checkpoint.
CHECKPOINT_BYTES_A_PARAMETER = 12
# In a GGUF file; q8_0 adds a scale of two bytes to each 32.
GGUF_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}
PROBE_LAYERS = 2
GB = 1e9


@dataclass(frozen=True)
class Figure:
    """One figure of a plan."""

    value: float
    unit: str
    basis: Basis


@dataclass(frozen=True)
class Plan:
    """What a recipe will cost."""

    figures: dict[str, Figure]
    problems: tuple[str, ...]

    def value(self, name: str) -> float:
        """Return one figure's value."""
        return self.figures[name].value

    def json(self) -> str:
        """Return all figures as JSON."""
        return json.dumps(
            {name: dataclasses.asdict(figure) for name, figure in self.figures.items()}, indent=1
        )

    def text(self) -> str:
        """Return a table for people."""
        return "\n".join(
            f"{name:22} {_short(figure):>16}  {figure.basis}"
            for name, figure in self.figures.items()
        )

    def refuse(self) -> None:
        """Raise GroundupError when the recipe cannot fit this machine."""
        if self.problems:
            raise GroundupError("; ".join(self.problems))


def make_plan(recipe: Recipe, price: float = 0.0, root: Path | None = None) -> Plan:
    """Estimate tokens, parameters, memory, disk, hours and money (`price` an hour) of a run at
    `root`.

    What cannot fit is found before anything is tried, so a refused plan has no times.

    Raises:
        GroundupError: a source is missing, a filter is unknown, the model's sizes do not fit
            together, or one cannot be gone on from.
    """
    check_filters(recipe.refine.filters, recipe.refine.thresholds)
    root = root or Path.cwd() / "runs" / recipe.name
    base = checked_base(recipe, root)
    figures = _data(recipe, base)
    tokens = int(figures["tokens"].value)
    config = (
        base.config
        if base
        else resolve(
            recipe.model, int(figures["vocabulary"].value), tokens, torch.cuda.is_available()
        )
    )
    figures |= {"parameters": Figure(config.parameter_count(), "", "counted")}
    figures |= _room(recipe, config, figures)
    problems = _problems(figures, root) + _missing(recipe, base)
    if not problems:
        figures |= _training(recipe, config, figures, probe(config))
        figures |= _time(figures, config, price)
    return Plan(figures, tuple(problems))


def checked_base(recipe: Recipe, root: Path) -> Base | None:
    """Return the model that a recipe goes on from in a run at `root`, None where it begins anew.

    Raises:
        GroundupError: in one line, when it cannot be carried exactly.
    """
    base = find_base(recipe)
    if base is not None:
        base.check(root)
    return base


def _data(recipe: Recipe, base: Base | None) -> dict[str, Figure]:
    raw, clean, kept = 0, 0.0, 0.0
    for source in recipe.source:
        size, text = _sizes(source, recipe.root)
        raw += size
        clean += text
        kept += text * source.weight
    vocab = (
        base.foreign.tokenizer.vocab_size
        if base
        else resolve_vocab_size(recipe.tokenize.vocab_size, int(clean))
    )
    known = base is not None or recipe.tokenize.vocab_size != "auto"
    return _tuning(recipe, vocab) | {
        "raw files": Figure(raw, "B", "counted"),
        "clean text": Figure(clean, "B", "assumed"),
        "vocabulary": Figure(vocab, "", "counted" if known else "assumed"),
        "tokens": Figure(clean / bytes_per_token(vocab), "", "assumed"),
        "tokens an epoch": Figure(
            kept / bytes_per_token(vocab) * (1 - recipe.tokenize.validation), "", "assumed"
        ),
    }


def _sizes(source: Source, root: Path) -> tuple[int, float]:
    """Return the bytes of a source's files, and of the clean text that they should hold."""
    from groundup.collect.sizes import sizes

    found = [(PurePosixPath(name).suffix.lower(), size) for name, size in sizes(source, root)]
    text = (
        sum(size * EXPANSION.get(suffix, 1.0) for suffix, size in found) * CLEAN_SHARE[source.kind]
    )
    return sum(size for _, size in found), text


def _tuning(recipe: Recipe, vocab: int) -> dict[str, Figure]:
    """Return the tokens that tuning reads, if it is asked for; a missing file is found here, and
    not after training.

    Raises:
        SourceError: the data of [tune] cannot be found.
    """
    tune = recipe.tune
    if tune.method == "none":
        return {}
    talks = [
        source
        for source in recipe.source
        if source.kind == "conversations" and source.name in (tune.sources or (source.name,))
    ]
    text = sum(
        _sizes(source, recipe.root)[1]
        for source in (all_sources(recipe)[-1:] if tune.data else talks)
    )
    return {"tuning tokens": Figure(tune.epochs * text / bytes_per_token(vocab), "", "assumed")}


def bytes_per_token(vocab: int) -> float:
    """Return what a byte-level BPE typically reaches on English: 3.3 bytes at 4K entries, 4.4 at
    50K.
    """
    steps = [(2_048, 2.9), (4_096, 3.3), (8_192, 3.6), (16_384, 3.9), (32_768, 4.2)]
    return next((value for size, value in steps if vocab <= size), 4.4)


def _training(
    recipe: Recipe, config: ModelConfig, figures: dict[str, Figure], speed: float
) -> dict[str, Figure]:
    """Return steps, tokens seen and operations; `speed` is in operations a second."""
    if recipe.train.steps == "auto":
        a_second = speed / config.flops_per_token()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        seen = automatic_tokens(int(figures["tokens an epoch"].value), config, device, a_second)
        steps = max(1, seen // recipe.train.batch_tokens)
    else:
        steps = recipe.train.steps
    seen = steps * recipe.train.batch_tokens
    return {
        "steps": Figure(steps, "", "assumed" if recipe.train.steps == "auto" else "counted"),
        "tokens seen": Figure(seen, "", "counted"),
        "operations": Figure(seen * config.flops_per_token(), "FLOP", "counted"),
        "speed": Figure(speed, "FLOP/s", "measured"),
    }


def _room(recipe: Recipe, config: ModelConfig, figures: dict[str, Figure]) -> dict[str, Figure]:
    parameters, clean = config.parameter_count(), figures["clean text"].value
    # One sequence's activations: about 34 bytes a position, layer and width at 16 bits (Korthikanti
    # et al. 2022, arXiv 2205.05198, without the attention matrix, which is never held).
    activations = 34 * config.context * config.layers * config.width
    kept = len(recipe.train.checkpoint_steps) + recipe.train.keep + 1
    checkpoints = kept * CHECKPOINT_BYTES_A_PARAMETER * parameters
    token_bytes = figures["tokens"].value * (2 if config.vocab_size <= 65_536 else 4)
    # zstd Parquet of text, collected and refined, at about 0.4 each, and the index: 700 bytes for
    # documents of some 5,000. While the split is made, 8 bytes a word wait beside them; they are
    # gone before there are tokens.
    later = token_bytes + checkpoints + exported_bytes(recipe.export) * parameters
    disk = 0.95 * clean + max(1.5 * clean, later)
    return {
        "training memory": Figure(BYTES_A_PARAMETER * parameters + activations, "B", "assumed"),
        "disk": Figure(disk, "B", "assumed"),
        "checkpoints": Figure(checkpoints, "B", "counted"),
    }


def exported_bytes(export: Export) -> float:
    """Return the bytes that a parameter takes in all exports together."""
    files = [GGUF_BYTES[kind] for kind in export.gguf_types] if "gguf" in export.formats else []
    return sum(files) + (4 if "hf" in export.formats else 0)


def _time(figures: dict[str, Figure], config: ModelConfig, price: float) -> dict[str, Figure]:
    data = (
        figures["clean text"].value / DATA_BYTES_A_SECOND / (psutil.cpu_count(logical=False) or 1)
    )
    training = figures["operations"].value / figures["speed"].value
    read = figures["tuning tokens"].value if "tuning tokens" in figures else 0.0
    tuning = read * config.flops_per_token() / figures["speed"].value
    hours = (data + training + tuning) / 3600
    found = {
        "data stages": Figure(data / 3600, "h", "assumed"),
        "training": Figure(training / 3600, "h", "measured"),
    }
    found |= {"tuning": Figure(tuning / 3600, "h", "assumed")} if read else {}
    found |= {"hours": Figure(hours, "h", "assumed")}
    return found | ({"money": Figure(hours * price, "", "assumed")} if price else {})


def probe(config: ModelConfig) -> float:
    """Return the operations a second of a training step on this machine, measured on two of the
    model's layers.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    small = dataclasses.replace(config, layers=min(PROBE_LAYERS, config.layers), dropout=0.0)
    model = Transformer(small).to(device)
    tokens = torch.randint(
        small.vocab_size, (max(1, 2048 // small.context), small.context + 1), device=device
    )

    def step() -> float:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    step()
    seconds = min(step() for _ in range(3))
    return (tokens.numel() - len(tokens)) * small.flops_per_token() / seconds


def _problems(figures: dict[str, Figure], root: Path) -> list[str]:
    memory = psutil.virtual_memory().total
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
    needed, problems = figures["training memory"].value, []
    if needed > memory:
        problems.append(
            f"training needs about {needed / GB:.1f} GB of memory and this machine has"
            f" {memory / GB:.1f}; choose a smaller [model] preset"
        )
    needed, free = figures["disk"].value - _held(root), shutil.disk_usage(_existing(root)).free
    if needed > free:
        problems.append(
            f"the run needs about {needed / GB:.3g} GB of disk and {free / GB:.3g} are free; choose"
            " another --out"
        )
    return problems


def _missing(recipe: Recipe, base: Base | None = None) -> list[str]:
    """Find what the last stages lack, and not after the training."""
    if "gguf" not in recipe.export.formats:
        return []
    if base is not None and not base.foreign.tokenizer.splitter:
        return [
            "[export] formats name gguf, and llama.cpp has no splitter like that of"
            f" {base.path / FILE}; leave gguf out"
        ]
    if importlib.util.find_spec("gguf") is None:
        return [
            "[export] formats name gguf, which needs the package gguf; `pip install"
            " 'groundup[export]'` brings it"
        ]
    return []


def _held(root: Path) -> int:
    """Return the bytes that a run has on disk already; hard links count once."""
    sizes = {
        (s.st_dev, s.st_ino): s.st_size
        for path in root.rglob("*")
        if (s := path.lstat()) and path.is_file()
    }
    return sum(sizes.values())


def _existing(path: Path) -> Path:
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _short(figure: Figure) -> str:
    value, prefixes = figure.value, ["", "k", "M", "G", "T", "P", "E"]
    if figure.unit == "h":
        return f"{value:.2f} h" if value >= 0.1 else f"{value * 60:.1f} min"
    while abs(value) >= 1000 and len(prefixes) > 1:
        value, prefixes = value / 1000, prefixes[1:]
    return f"{value:.4g} {prefixes[0]}{figure.unit}".strip()
