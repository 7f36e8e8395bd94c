"""Estimates what a recipe will cost, before anything is spent.

    groundup plan recipe.toml                        on this machine
    groundup plan recipe.toml --device 4xa100-80gb   on devices that are not here

    clean text                     27.4 MB  assumed
    parameters                       1.38M  counted
    training                      4.6 min   measured
    …

Every estimate says what it rests on: counted (exact), measured (on this machine, now), assumed (a
typical ratio, named in this module) or modeled (counts over the rates of a data sheet,
train/performance.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import psutil

from groundup.artifacts.kinds import KINDS
from groundup.errors import GroundupError, SourceError
from groundup.export.formats import check_formats, find_format
from groundup.model.config import ModelConfig, resolve
from groundup.recipe import Export, Recipe, Source, Train, all_sources
from groundup.runtime.devices import DeviceGroup, find_devices
from groundup.runtime.resources import choose_device
from groundup.runtime.run import Run
from groundup.runtime.sealed import read_sealed, write_sealed
from groundup.runtime.user_code import load_function
from groundup.schema import settings

if TYPE_CHECKING:
    from groundup.artifacts.pretrained import PretrainedModel
    from groundup.train.forecast import Placement

Basis = Literal["counted", "measured", "assumed", "modeled"]

# Plain bytes out of a compressed one. bz2 and xz hold wikitext at about 1 : 3.6, gzip at about
# 1 : 3.2, zstd -3 at about 1 : 3.0 (the 6.1 MB enwiki cut in gensim's tests).
EXPANSION = {".bz2": 3.6, ".xz": 3.8, ".gz": 3.2, ".zst": 3.0}
EXPANSION |= {".tgz": 4.0, ".zip": 3.5, ".whl": 3.5, ".7z": 5.0}
# Bytes of text a token by size of the vocabulary, typical of byte-level BPE on English.
BYTES_PER_TOKEN = ((2_048, 2.9), (4_096, 3.3), (8_192, 3.6), (16_384, 3.9), (32_768, 4.2))
MOST_BYTES_PER_TOKEN = 4.4
# Bytes per second and core: unpacked raw files, collected text, and kept text, where the tokenizer
# is trained, too. From benchmarks/results/raw_to_tokens.json, 1,000 MB.
BYTES_PER_SECOND = {"collect": 21.2e6, "refine": 20.5e6, "tokenize": 24.1e6}
# Imports and the start of workers, with kernels compiled (benchmarks/results/startup.json).
SECONDS_TO_START = {"collect": 0.8, "refine": 0.9, "tokenize": 0.5}
# Weights and two moments in a checkpoint.
CHECKPOINT_BYTES_PER_PARAMETER = 12
# The text may have this many times the tokens that are assumed of it.
TOKENS_MARGIN = 2.0
GB = 1e9


@dataclass(frozen=True)
class Estimate:
    """One estimate of a plan."""

    value: float
    unit: str
    basis: Basis

    def __str__(self) -> str:
        value, prefixes = self.value, ["", "k", "M", "G", "T", "P", "E"]
        if self.unit == "h":
            return f"{value:.2f} h" if value >= 0.1 else f"{value * 60:.1f} min"
        while abs(value) >= 1000 and len(prefixes) > 1:
            value, prefixes = value / 1000, prefixes[1:]
        return f"{value:.4g} {prefixes[0]}{self.unit}".strip()


Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class Plan:
    """What a recipe will cost."""

    figures: Estimates
    problems: tuple[str, ...]  # why the recipe cannot run there; empty if it can
    # Why it cannot train, though it can build its data; empty if it can.
    too_little: tuple[str, ...] = ()
    # Memory of one device by part, and the seconds of a step by term.
    memory: Estimates = field(default_factory=dict)
    terms: Estimates = field(default_factory=dict)
    # What holds the plan back from being exact; it refuses nothing.
    notes: tuple[str, ...] = ()

    def value(self, name: str) -> float:
        """Return the value of one estimate."""
        return self.figures[name].value

    def json(self) -> str:
        """Return all estimates as JSON."""
        table = self.figures | {f"memory: {name}": part for name, part in self.memory.items()}
        table |= {f"step: {name}": term for name, term in self.terms.items()}
        rows = {name: dataclasses.asdict(estimate) for name, estimate in table.items()}
        return json.dumps(rows, indent=1)

    def text(self) -> str:
        """Return tables for people."""
        timed = [name for name, value in self.figures.items() if value.unit == "h"]
        # The sum of one figure is that figure: `hours` and what it sums.
        alone = len(timed) == 2 and "hours" in timed
        rows = [row for row in self.figures.items() if not (alone and row[0] == "hours")]
        blocks = ["\n".join(f"{name:22} {value!s:>16}  {value.basis}" for name, value in rows)]
        if self.memory:
            parts = "\n".join(f"  {name:22} {part!s:>14}" for name, part in self.memory.items())
            blocks.append(f"training memory by part, of one device\n{parts}")
        if self.terms:
            milliseconds = "\n".join(
                f"  {name:22} {term.value * 1000:14,.1f}" for name, term in self.terms.items()
            )
            blocks.append(f"a step (ms)\n{milliseconds}")
        if self.notes:
            blocks.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(blocks)

    def refuse(self, trains: bool = True) -> None:
        """Raise GroundupError when the recipe cannot fit, or cannot train if it is to.

        What has too little text cannot train.
        """
        problems = [*self.problems, *(self.too_little if trains else ())]
        if problems:
            raise GroundupError("; ".join(problems))


def make_plan(
    recipe: Recipe,
    price: float = 0.0,
    root: Path | None = None,
    trains: bool = True,
    device: str = "",
) -> Plan:
    """Estimate tokens, parameters, memory, disk, hours and money (`price` an hour) of a run.

    What cannot fit is found before anything is probed, so a refused plan has no times. If the run
    only makes data (`trains` is False), so does the plan, and it does not wait for PyTorch. With
    `device` ("4xa100-80gb") it trains there: disk and sources of this machine are notes then.

    `root` is the run directory. Raises GroundupError if a source is missing, a filter, an export
    format, the optimizer or the device is unknown, the model's sizes do not fit together, or the
    base model cannot be used.
    """
    group = find_devices(device) if device else None
    check_names(recipe)
    root = root or Path.cwd() / "runs" / recipe.name
    base = checked_base(recipe, root)
    target = "cuda" if group is not None else choose_device() if trains else "cpu"
    figures, notes = _data_or_note(recipe, base, elsewhere=group is not None)
    tokens = figures["tokens"].value if "tokens" in figures else math.inf
    if base is not None:
        config = base.config
    else:
        vocabulary, text = int(figures["vocabulary"].value), int(min(tokens, sys.maxsize))
        config = resolve(recipe.model, vocabulary, text, target == "cuda")
    figures |= _space(recipe, config, figures, trains)
    # Found after the training, these would cost it.
    formats = map(find_format, dict.fromkeys(recipe.export.formats if trains else ()))
    problems = [problem for form in formats if (problem := form.obstacle(base))]
    (notes if group is not None else problems).extend(_too_large(figures, root))
    plan = Plan(figures, tuple(problems), _too_little(config, tokens), notes=tuple(notes))
    if trains and not plan.too_little:
        return _with_training(plan, recipe, config, group, target, price)
    return plan if trains else dataclasses.replace(plan, figures=figures | _data_hours(figures))


def _data_or_note(
    recipe: Recipe, base: PretrainedModel | None, elsewhere: bool
) -> tuple[Estimates, list[str]]:
    """Return the estimates of `_data`; for devices elsewhere, a note if the text is not here.

    Raises SourceError without the text if the training depends on it, or is to be here.
    """
    try:
        return _data(recipe, base), []
    except SourceError as error:
        if not elsewhere or not _states_its_training(recipe):
            raise
        missing = str(error).partition(":")[0]
        note = f"{missing} is not here, so this plan has no text, no disk and no data stages"
        return {"vocabulary": Estimate(_stated_vocabulary(recipe, base), "", "counted")}, [note]


def _too_little(config: ModelConfig, tokens: float) -> tuple[str, ...]:
    """Return why so few tokens cannot train a model; empty if they can."""
    if config.context < TOKENS_MARGIN * tokens:
        return ()
    needs = f"a context of {config.context:,} tokens needs more text than about {tokens:,.0f}"
    return (f"{needs} tokens; add text, or set a smaller [model] context",)


def check_names(recipe: Recipe) -> None:
    """Refuse a filter, reader, export format or optimizer that does not exist (GroundupError)."""
    from groundup.refine.filter.apply import check_filters

    check_filters(recipe.refine.filters, recipe.refine.thresholds)
    for source in recipe.source:
        if source.reader:
            load_function(source.reader, recipe.root, "reader")
    check_formats(recipe.export.formats)
    if recipe.train.optimizer != Train().optimizer:
        # Late: it imports PyTorch, for which a run that only makes data need not wait.
        from groundup.train.optimizer import check_optimizer

        check_optimizer(recipe.train.optimizer)


def check_plan(run: Run, trains: bool) -> None:
    """Refuse a recipe that cannot run, and write `plan.json`, which the report shows.

    `trains` says whether the run is to come as far as training. Raises GroundupError if the recipe
    cannot fit this machine, or the base model cannot be used.
    """
    # The base model may have changed since the plan was written.
    checked_base(run.recipe, run.root)
    path, recipe = run.root / "plan.json", settings(run.recipe)
    earlier = read_sealed(path) or {}
    # A run that only made data has not planned its training.
    if earlier.get("recipe") == recipe and (not trains or earlier.get("trains", True)):
        return
    plan = make_plan(run.recipe, root=run.root, trains=trains)
    plan.refuse(trains)
    figures = {name: dataclasses.asdict(estimate) for name, estimate in plan.figures.items()}
    planned = {"recipe": recipe, "trains": trains, "figures": figures}
    write_sealed(path, planned)


def checked_base(recipe: Recipe, root: Path) -> PretrainedModel | None:
    """Return the pretrained model that a recipe starts from, None for a random start.

    Raises GroundupError if it cannot be used by a run at `root`.
    """
    if not recipe.model.base:
        return None
    from groundup.artifacts.pretrained import find_pretrained

    base = find_pretrained(recipe)
    if base is not None:
        base.check(root)
    return base


def _data(recipe: Recipe, base: PretrainedModel | None) -> Estimates:
    """Estimate text and tokens from the sizes of the raw files.

    Raises SourceError if a source, or the data of [tune], cannot be found.
    """
    from groundup.tokenize.train_bpe import resolve_vocab_size

    sizes = {source.name: _sizes(source, recipe.root) for source in recipe.source}
    raw, unpacked, clean = (sum(column) for column in zip(*sizes.values(), strict=True))
    weighted = sum(sizes[source.name][2] * source.weight for source in recipe.source)
    vocab_basis: Basis = "counted"
    if base is not None:
        vocabulary = base.tokenizer.vocab_size
    else:
        vocabulary = resolve_vocab_size(recipe.tokenize.vocab_size, int(clean))
        vocab_basis = "assumed" if recipe.tokenize.vocab_size == "auto" else "counted"
    fitting = (value for size, value in BYTES_PER_TOKEN if vocabulary <= size)
    per_token = next(fitting, MOST_BYTES_PER_TOKEN)
    epoch = weighted / per_token * (1 - recipe.tokenize.validation)
    figures = {}
    if recipe.tune.method != "none":
        if recipe.tune.data:
            # The last of all sources. A missing file is found here, before training.
            text = _sizes(all_sources(recipe)[-1], recipe.root)[2]
        else:
            talks = [source.name for source in recipe.source if KINDS[source.kind].has_turns]
            names = [name for name in talks if name in (recipe.tune.sources or talks)]
            text = sum(sizes[name][2] for name in names)
        figures["tuning tokens"] = Estimate(recipe.tune.epochs * text / per_token, "", "assumed")
    return figures | {
        "raw files": Estimate(raw, "B", "counted"),
        "unpacked": Estimate(unpacked, "B", "assumed"),
        "clean text": Estimate(clean, "B", "assumed"),
        "vocabulary": Estimate(vocabulary, "", vocab_basis),
        "tokens": Estimate(clean / per_token, "", "assumed"),
        "tokens an epoch": Estimate(epoch, "", "assumed"),
    }


def _sizes(source: Source, root: Path) -> tuple[int, float, float]:
    """Return the bytes of a source's files, unpacked, and of the text that they should hold."""
    from groundup.collect.sources import source_sizes

    total, plain = 0, 0.0
    for name, size in source_sizes(source, root):
        total += size
        plain += size * EXPANSION.get(PurePosixPath(name).suffix.lower(), 1.0)
    return total, plain, plain * KINDS[source.kind].clean_share


def _states_its_training(recipe: Recipe) -> bool:
    """Whether a recipe leaves nothing of its training to the amount of text."""
    stated = bool(recipe.model.base) or (
        recipe.tokenize.vocab_size != "auto" and recipe.model.preset != "auto"
    )
    return stated and recipe.train.steps != "auto"


def _stated_vocabulary(recipe: Recipe, base: PretrainedModel | None) -> int:
    """Return the size of the vocabulary of a recipe that states its training."""
    if base is not None:
        return base.tokenizer.vocab_size
    assert recipe.tokenize.vocab_size != "auto"
    return recipe.tokenize.vocab_size


def _space(recipe: Recipe, config: ModelConfig, figures: Estimates, trains: bool) -> Estimates:
    """Count the parameters, and estimate the disk; without it if the text is not known."""
    parameters = config.parameter_count()
    count = len(recipe.train.checkpoint_steps) + recipe.train.keep + 1
    checkpoints = count * CHECKPOINT_BYTES_PER_PARAMETER * parameters
    space = {"parameters": Estimate(parameters, "", "counted")}
    if "clean text" in figures:
        clean = figures["clean text"].value
        # Parquet of text, collected (zstd) at about 0.4 and refined (LZ4) at 0.6, and the index:
        # 700 bytes for documents of some 5,000. While the split is made it needs 8 bytes per word;
        # those are deleted before there are tokens.
        later = figures["tokens"].value * (2 if config.vocab_size <= 65_536 else 4)
        if trains:
            later += checkpoints + exported_bytes(recipe.export) * parameters
        disk = 1.15 * clean + max(1.5 * clean, later)
        space["disk"] = Estimate(disk, "B", "assumed")
    if trains:
        space["checkpoints"] = Estimate(checkpoints, "B", "counted")
    return space


def exported_bytes(export: Export) -> float:
    """Return the bytes per parameter of all exports together."""
    formats = [find_format(name) for name in dict.fromkeys(export.formats)]
    return sum(each.bytes_per_parameter(type) for each in formats for type in each.types(export))


def _with_training(
    plan: Plan,
    recipe: Recipe,
    config: ModelConfig,
    group: DeviceGroup | None,
    target: str,
    price: float,
) -> Plan:
    """Add memory, steps, hours and money of training to a plan that has the rest."""
    from groundup.train.forecast import place_here, place_on, why_not

    train = recipe.train
    placement = place_on(config, train, group) if group else place_here(config, train, target)
    memory = placement.step.memory
    figures = plan.figures | {"training memory": Estimate(memory.peak, "B", "counted")}
    figures["micro-batch"] = Estimate(placement.step.micro_batch, "", "counted")
    parts = {name: Estimate(size, "B", "counted") for name, size in memory.parts().items()}
    problems = list(plan.problems)
    if not placement.step.fits:
        problems.append(why_not(placement, group))
    plan = dataclasses.replace(plan, figures=figures, memory=parts, problems=tuple(problems))
    if problems:
        return plan
    if group is None:
        return _measured_costs(plan, recipe, config, target, placement, price)
    return _modeled_costs(plan, recipe, config, group, placement, price)


def _steps(
    recipe: Recipe, config: ModelConfig, figures: Estimates, device: str, tokens_per_second: float
) -> Estimate:
    """Return the steps of a training."""
    from groundup.train.setup import automatic_tokens

    if recipe.train.steps != "auto":
        return Estimate(recipe.train.steps, "", "counted")
    epoch, step_tokens = int(figures["tokens an epoch"].value), recipe.train.batch_tokens
    tokens = automatic_tokens(epoch, config, device, tokens_per_second, step_tokens)
    return Estimate(max(1, tokens // step_tokens), "", "assumed")


def _measured_costs(
    plan: Plan,
    recipe: Recipe,
    config: ModelConfig,
    device: str,
    placement: Placement,
    price: float,
) -> Plan:
    """Add what training costs on this machine, by a probe of some seconds."""
    from groundup.train.forecast import measure

    seconds = measure(config, recipe.train, device, placement)
    step_tokens, flops = placement.sequences * config.context, config.flops_per_token()
    speed = step_tokens * flops / seconds
    steps = _steps(recipe, config, plan.figures, device, step_tokens / seconds)
    costs = _costs(plan.figures, steps, recipe, flops, speed, "measured", price)
    return dataclasses.replace(plan, figures=plan.figures | costs)


def _modeled_costs(
    plan: Plan,
    recipe: Recipe,
    config: ModelConfig,
    group: DeviceGroup,
    placement: Placement,
    price: float,
) -> Plan:
    """Add what training costs on devices of the table."""
    from groundup.train.forecast import assumptions, predict
    from groundup.train.hardware import COMPILE_PAYS_SECONDS

    train, compiled = recipe.train, recipe.train.compile != "off"
    step = predict(config, group, placement, compiled)
    steps = _steps(recipe, config, plan.figures, "cuda", step.tokens_per_second)
    if train.compile == "auto" and steps.value * step.seconds < COMPILE_PAYS_SECONDS:
        compiled = False
        step = predict(config, group, placement, compiled)
    speed = step.tokens_per_second * step.flops_per_token
    costs = _costs(plan.figures, steps, recipe, step.flops_per_token, speed, "modeled", price)
    costs["tokens a second"] = Estimate(step.tokens_per_second, "", "modeled")
    costs["MFU"] = Estimate(100 * step.utilization, "%", "modeled")
    terms = {name: Estimate(seconds, "s", "modeled") for name, seconds in step.terms.items()}
    terms["step"] = Estimate(step.seconds, "s", "modeled")
    notes = [*plan.notes, *assumptions(group, placement, step, compiled)]
    return dataclasses.replace(plan, figures=plan.figures | costs, terms=terms, notes=tuple(notes))


def _costs(
    figures: Estimates,
    steps: Estimate,
    recipe: Recipe,
    flops: float,
    speed: float,
    basis: Basis,
    price: float,
) -> Estimates:
    """Return operations, hours and money at a speed in FLOP/s; `flops` are those of a token."""
    seen = steps.value * recipe.train.batch_tokens
    costs = {
        "steps": steps,
        "tokens seen": Estimate(seen, "", "counted"),
        "operations": Estimate(seen * flops, "FLOP", "counted"),
        "speed": Estimate(speed, "FLOP/s", basis),
        **(_data_hours(figures) if "clean text" in figures else {}),
        "training": Estimate(seen * flops / speed / 3600, "h", basis),
    }
    if "tuning tokens" in figures and figures["tuning tokens"].value:
        tuning = figures["tuning tokens"].value * flops / speed / 3600
        costs["tuning"] = Estimate(tuning, "h", "assumed")
    hours = sum(cost.value for cost in costs.values() if cost.unit == "h")
    costs["hours"] = Estimate(hours, "h", "assumed")
    if price:
        costs["money"] = Estimate(hours * price, "", "assumed")
    return costs


def _data_hours(figures: Estimates) -> Estimates:
    """Estimate the hours of each data stage."""
    cores = psutil.cpu_count(logical=False) or 1
    read = {"collect": "unpacked", "refine": "clean text", "tokenize": "clean text"}
    hours = {}
    for stage, name in read.items():
        seconds = figures[name].value / BYTES_PER_SECOND[stage] / cores + SECONDS_TO_START[stage]
        hours[stage] = Estimate(seconds / 3600, "h", "assumed")
    return hours


def _too_large(figures: Estimates, root: Path) -> list[str]:
    """Return what does not fit onto the disk of this machine."""
    if "disk" not in figures:
        return []
    # A run that goes on has part of its files already; hard links count once.
    statuses = [path.lstat() for path in root.rglob("*") if path.is_file()]
    used = sum({(s.st_dev, s.st_ino): s.st_size for s in statuses}.values())
    parents = (root.resolve(), *root.resolve().parents)
    existing = next(folder for folder in parents if folder.exists())
    needed, free = figures["disk"].value - used, shutil.disk_usage(existing).free
    if needed <= free:
        return []
    needs = f"the run needs about {needed / GB:.3g} GB of disk"
    return [f"{needs} and {free / GB:.3g} are free; choose another --out"]
