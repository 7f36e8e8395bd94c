"""Compute every figure of a report from the files of a run.

No figure is typed. Each is a name, a value, a unit, and the file that it was computed from:

    Figure("train.steps", 100000, "steps", "train/metrics.jsonl")
    Figure("collect.bytes_in.books", 15000000000, "bytes", "collect/manifest.json")

Each function marked `@part` yields the figures of one stage. A stage that has not run yields none:
a file that does not exist gives None or nothing. A file that exists and cannot be read raises
DamagedRunFileError, and costs one part of the report (`Problems`).
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from groundup.model.config import ModelConfig
from groundup.recipe import TUNING
from groundup.runtime.lock import LOCK
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import MANIFEST, Artifact, Store

Row = dict[str, Any]
Value = TypeVar("Value")
METRICS = "train/metrics.jsonl"
LEDGER = "ledger.jsonl"
LOSS_UNITS = {
    "loss": "nats/token",
    "perplexity": "",
    "bits_per_byte": "bits/byte",
    "bits_per_byte_error": "bits/byte",
}
MODEL_SIZES = tuple(
    "vocab_size layers width heads kv_heads head_width feed_forward context".split()
)


class DamagedRunFileError(Exception):
    """A file of the run exists and cannot be read; the message names it."""


@dataclass
class Problems:
    """One line for each part of the report of the run at `root` that could not be made."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def guarded(self, part: str, function: Callable[[], Any], otherwise: Any) -> Any:
        """Return `function()`; if it fails, add a line that says why and return `otherwise`."""
        try:
            return function()
        except Exception as error:
            reason = " ".join(str(error).replace(f"{self.root}/", "").split())[:200]
            if not isinstance(error, DamagedRunFileError):
                reason = f"{type(error).__name__} {reason}".rstrip()
            self.lines.append(f"{part}: left out, because it could not be read ({reason})")
            return otherwise

    def collected(self, part: str, items: Iterable[Value]) -> list[Value]:
        """Return the items up to the first that fails."""
        collected: list[Value] = []
        self.guarded(part, lambda: collected.extend(items), None)
        return collected


def json_file(root: Path, name: str) -> Any:
    """Return a JSON file of the run, None if there is none; DamagedRunFileError if no JSON."""
    try:
        return json.loads((root / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        raise DamagedRunFileError(f"{name} is damaged") from None


def json_lines(root: Path, name: str) -> Iterator[Row]:
    """Yield the objects of a JSONL file; torn lines and lines that are no objects are skipped."""
    path = root / name
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def lock_table(root: Path) -> dict[str, Any]:
    """Return the resolved recipe without its folder; DamagedRunFileError if it is no TOML."""
    path = root / LOCK
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        raise DamagedRunFileError(f"{LOCK} is damaged") from None
    table.pop("root", None)
    return table


def view(root: Path, stage: str) -> Artifact | None:
    """Return the view of a stage, None if it has not run; DamagedRunFileError if not whole."""
    published = Store(root).view(stage)
    if published is None and (root / stage / MANIFEST).exists():
        raise DamagedRunFileError(f"{stage}/ is not whole")
    return published


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Figure:
    """A value with its dotted name, its unit, and the file of the run that it was computed from."""

    name: str
    value: float | int | str | None
    unit: str
    source: str


Part = Callable[[Path], Iterator[Figure]]
# By stage. A later part replaces figures of the same name: evaluation knows the model best.
PARTS: dict[str, Part] = {}


def part(stage: str) -> Callable[[Part], Part]:
    """Register a function that yields the figures of one stage."""

    def register(function: Part) -> Part:
        PARTS[stage] = function
        return function

    return register


def run_figures(root: Path, problems: Problems) -> dict[str, Figure]:
    """Return every figure of a run by name; a part that cannot be read is added to `problems`."""
    figures = {
        figure.name: figure
        for name, part in PARTS.items()
        for figure in problems.collected(name, part(root))
    }
    derived = problems.collected("planned beside measured", compared(figures))
    return figures | {figure.name: figure for figure in derived}


@part("plan")
def planned(root: Path) -> Iterator[Figure]:
    """Yield what `plan` estimated before the run."""
    for name, figure in (json_file(root, "plan.json") or {}).get("figures", {}).items():
        yield Figure(f"plan.{name.replace(' ', '_')}", figure["value"], figure["unit"], "plan.json")


@part("sources")
def source_weights(root: Path) -> Iterator[Figure]:
    """Yield the weight of each source in the recipe."""
    for source in lock_table(root).get("source", []):
        if source["kind"] != "evaluation":
            name = f"source.weight.{source['name']}"
            yield Figure(name, source["weight"], "", "recipe.lock.toml")


@dataclass
class StageCounts:
    """What a data stage counted, by source, and what it dropped, by reason and source."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, shard: Artifact, *names: str) -> None:
        """Count these facts of a shard, and what it dropped."""
        source = shard.name.rpartition(".")[0]
        counter = self.counts.setdefault(source, Counter())
        counter.update({name: shard.facts[name] for name in names})
        for reason, count in shard.facts["dropped"].items():
            self.drop(reason, {source: count})

    def drop(self, reason: str, by_source: Mapping[str, int]) -> None:
        """Count what was dropped for one reason."""
        if by_source:
            self.dropped.setdefault(reason, Counter()).update(by_source)

    def figures(self, stage: str, dropped_unit: str) -> Iterator[Figure]:
        """Yield all counts by source and in total."""
        origin = f"{stage}/manifest.json"
        by_source = {f".{source}": table for source, table in self.counts.items()}
        total: Counter[str] = Counter()
        for table in self.counts.values():
            total.update(table)
        for suffix, table in (by_source | {"": total}).items():
            for name, value in table.items():
                unit = "bytes" if name.startswith("bytes") else name.replace("_", " ")
                yield Figure(f"{stage}.{name}{suffix}", value, unit, origin)
        for reason, counter in self.dropped.items():
            yield Figure(f"{stage}.dropped.{reason}", counter.total(), dropped_unit, origin)
            for source, count in counter.items():
                # No source has an @ in its name.
                name = f"{stage}.dropped_by.{source}@{reason}"
                yield Figure(name, count, dropped_unit, origin)


@part("collect")
def collected(root: Path) -> Iterator[Figure]:
    """Yield documents and bytes of raw text, in total and by source, and what could not be read."""
    counts = StageCounts()
    view(root, "collect")
    for shard in Store(root).artifacts("collect", "collect/shard"):
        if shard.facts["kind"] != TUNING:
            counts.add(shard, "documents", "bytes_in", "bytes_out", "files")
    yield from counts.figures("collect", "records")


@part("refine")
def refined(root: Path) -> Iterator[Figure]:
    """Yield documents and bytes after refine, lines cut, and what each reason dropped."""
    counts, store = StageCounts(), Store(root)
    view(root, "refine")
    for shard in store.artifacts("refine", "refine/shard"):
        counts.add(shard, "documents", "bytes_in", "bytes_out")
    for duplicates in store.artifacts("refine", "refine/duplicates"):
        for reason in ("exact_duplicate", "near_duplicate"):
            counts.drop(reason, duplicates.facts[reason]["by_source"])
    for contaminated in store.artifacts("refine", "refine/contaminated"):
        counts.drop("contaminated", contaminated.facts["by_source"])
        for source, items in contaminated.facts.get("items_by_source", {}).items():
            yield Figure(
                f"refine.contaminated_items.{source}", items, "items", "refine/manifest.json"
            )
    for lines in store.artifacts("refine", "refine/lines"):
        for source, facts in lines.facts["sources"].items():
            cut = {"repeated_lines": facts["lines"], "bytes_cut": facts["bytes"]}
            counts.counts[source].update(cut)
            if facts["dropped"]:
                counts.drop("boilerplate", {source: facts["dropped"]})
    yield from counts.figures("refine", "documents")


@part("tokenize")
def tokenized(root: Path) -> Iterator[Figure]:
    """Yield tokens, documents, bytes and bytes per token, by source and split."""
    published, origin = view(root, "tokenize"), "tokenize/manifest.json"
    if published is None:
        return
    facts = published.facts
    yield Figure("tokens.vocabulary", facts["vocab_size"], "entries", origin)
    all_tokens = sum(counts["tokens"] for counts in facts["total"].values())
    tables = {f".{source}": splits for source, splits in facts["sources"].items()}
    for suffix, splits in ({"": facts["total"]} | tables).items():
        kept = dict.fromkeys(("documents", "tokens", "bytes"), 0)
        for counts in splits.values():
            kept = {name: count + counts[name] for name, count in kept.items()}
        for split, counts in (splits | {"kept": kept}).items():
            for name, value in counts.items():
                yield Figure(f"tokens.{split}.{name}{suffix}", value, name, origin)
        share = kept["tokens"] / all_tokens if all_tokens else None
        yield Figure(f"tokens.kept.share{suffix}", share, "share", origin)
        per_token = round(kept["bytes"] / kept["tokens"], 4) if kept["tokens"] else None
        yield Figure(f"tokens.kept.bytes_per_token{suffix}", per_token, "bytes/token", origin)


@part("model")
def model_sizes(root: Path) -> Iterator[Figure]:
    """Yield the sizes of the model and its parameters by part."""
    origin = "train/train.json"
    settings = json_file(root, origin)
    if settings is None:
        return
    try:
        config = ModelConfig(**settings["model"])
    except (KeyError, TypeError, ValueError):
        raise DamagedRunFileError(f"{origin} names no model") from None
    for name in (*MODEL_SIZES, "layout"):
        yield Figure(f"model.{name}", getattr(config, name), "", origin)
    total = config.parameter_count()
    for part, parameters in parameter_parts(config).items():
        yield Figure(f"model.parameters.{part}", parameters, "parameters", origin)
        yield Figure(f"model.parameters_share.{part}", parameters / total, "share", origin)
    yield Figure("model.parameters", total, "parameters", origin)
    yield Figure("train.steps_planned", settings["steps"], "steps", origin)


def parameter_parts(config: ModelConfig) -> dict[str, int]:
    """Return the trained parameters of each part; they add up to `config.parameter_count()`."""
    attention = (2 * config.heads + 2 * config.kv_heads) * config.head_width * config.width
    parts = {
        "embedding": config.vocab_size * config.width,
        "attention": config.layers * attention,
        "feed_forward": config.layers * 3 * config.width * config.feed_forward,
        "norms": config.layers * config.layer_norm_parameters + config.width,
    }
    return parts if config.tied else parts | {"head": config.head_parameters}


def metric_lines(root: Path) -> list[Row]:
    """Return the lines of training's metrics that have a step, oldest first."""
    return [line for line in json_lines(root, METRICS) if isinstance(line.get("step"), int)]


@part("train")
def trained(root: Path) -> Iterator[Figure]:
    """Yield steps, tokens, losses and speed of training."""

    def having(*names: str) -> list[Row]:
        return [line for line in lines if all(number(line.get(n)) is not None for n in names)]

    lines = metric_lines(root)
    if steps := having("loss", "tokens"):
        last = steps[-1]
        yield Figure("train.steps", last["step"], "steps", METRICS)
        yield Figure("train.tokens", last["tokens"], "tokens", METRICS)
        yield Figure("train.seconds", last["seconds"], "s", METRICS)
        speed = last["tokens"] / last["seconds"] if last["seconds"] else None
        yield Figure("train.tokens_per_second", speed, "tokens/s", METRICS)
        yield Figure("train.loss", last["loss"], "nats/token", METRICS)
    if validations := having("validation_loss"):
        best = min(validations, key=lambda line: float(line["validation_loss"]))
        last, loss = validations[-1], "train.validation_loss"
        yield Figure(f"{loss}.best", best["validation_loss"], "nats/token", METRICS)
        yield Figure(f"{loss}.best_step", best["step"], "step", METRICS)
        yield Figure(f"{loss}.last", last["validation_loss"], "nats/token", METRICS)


@part("evaluate")
def evaluated(root: Path) -> Iterator[Figure]:
    """Yield losses by source for the model and the n-gram models, task accuracies, and speed."""
    origin = "evaluate/evaluation.json"
    evaluation = json_file(root, origin)
    if evaluation is None:
        return
    yield Figure("model.parameters", evaluation["model"]["parameters"], "parameters", origin)
    yield Figure("model.context", evaluation["model"]["context"], "tokens", origin)
    for model, losses in evaluation["validation"].items():
        if not isinstance(losses, dict):
            continue
        by_source = {f".{source}": table for source, table in losses["sources"].items()}
        # Where nothing is held out, nothing was measured.
        total = {"": losses["total"]} if losses["total"].get("tokens") else {}
        for suffix, table in (total | by_source).items():
            for measure, unit in LOSS_UNITS.items():
                value = table.get(measure)
                yield Figure(f"evaluate.{model}.{measure}{suffix}", value, unit, origin)
            if model == "model":
                yield Figure(f"evaluate.tokens{suffix}", table["tokens"], "tokens", origin)
    for task, scores in [("passages", evaluation["passages"]), *evaluation["benchmarks"].items()]:
        for key, value in scores.items():
            if number(value) is not None:
                yield Figure(f"evaluate.{task}.{key}", value, "", origin)
        interval = scores.get("interval")
        if isinstance(interval, list) and len(interval) == 2 and scores.get("n"):
            yield Figure(f"evaluate.{task}.low", interval[0], "share", origin)
            yield Figure(f"evaluate.{task}.high", interval[1], "share", origin)
    for name, value in (json_file(root, "evaluate/speed.json") or {}).items():
        if number(value) is not None:
            unit = "tokens/s" if name.endswith("_per_second") else ""
            yield Figure(f"speed.{name}", value, unit, "evaluate/speed.json")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what nested tables hold, with its dotted path; a list is one value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def json_numbers(root: Path, file: str, prefix: str) -> Iterator[Figure]:
    """Yield every number in the tables of a JSON file, named by its path; lists hold examples."""
    for name, value in leaves(json_file(root, file), prefix):
        if number(value) is not None:
            yield Figure(name, value, "", file)


part("tune")(partial(json_numbers, file="tune/tuning.json", prefix="tune"))
part("export")(partial(json_numbers, file="export/parity.json", prefix="export"))


@part("ledger")
def stage_costs(root: Path) -> Iterator[Figure]:
    """Yield time, speed and peak memory of each stage, and when the run began and ended.

    A stage counts as it was when it last did any work. The report is left out: a report that named
    its own seconds would never be fresh.
    """
    events = [event for event in Ledger(root / LEDGER).events() if event.get("stage") != "report"]
    last = {event["stage"]: event for event in events if event.get("event") == "finished"}
    if not last:
        return
    total, peak = sum(event["seconds"] for event in last.values()), 0
    for stage, event in last.items():
        yield Figure(f"stage.{stage}.seconds", event["seconds"], "s", LEDGER)
        share = event["seconds"] / total if total else None
        yield Figure(f"stage.{stage}.share", share, "share", LEDGER)
        yield Figure(f"stage.{stage}.peak_bytes", event["peak_bytes"], "bytes", LEDGER)
        if event.get("bytes_in") and event["seconds"]:
            speed = round(event["bytes_in"] / event["seconds"])
            yield Figure(f"stage.{stage}.speed", speed, "bytes/s", LEDGER)
        if event.get("limit"):
            yield Figure(f"stage.{stage}.limit", event["limit"], "", LEDGER)
        peak = max(peak, event["peak_bytes"])
    yield Figure("run.seconds", round(total, 3), "s", LEDGER)
    yield Figure("run.peak_bytes", peak, "bytes", LEDGER)
    ended = max(event["time"] for event in last.values())
    for name, time in (("run.began", events[0]["time"]), ("run.ended", ended)):
        moment = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Figure(name, moment, "UTC", LEDGER)


# Figure of the plan → measured figure, and the measured units in one planned unit (hours, seconds).
PLANNED: dict[str, tuple[str, float]] = {
    "raw_files": ("collect.bytes_in", 1),
    "clean_text": ("refine.bytes_out", 1),
    "vocabulary": ("tokens.vocabulary", 1),
    "tokens": ("tokens.kept.tokens", 1),
    "parameters": ("model.parameters", 1),
    "steps": ("train.steps", 1),
    "tokens_seen": ("train.tokens", 1),
    "collect": ("stage.collect.seconds", 3600),
    "refine": ("stage.refine.seconds", 3600),
    "tokenize": ("stage.tokenize.seconds", 3600),
    "training": ("stage.train.seconds", 3600),
    "hours": ("run.seconds", 3600),
    "training_memory": ("stage.train.peak_bytes", 1),
}
# Name, dividend, divisor, unit.
QUOTIENTS = (
    ("train.tokens_per_parameter", "train.tokens", "model.parameters", "tokens/parameter"),
    ("train.passes", "train.tokens", "tokens.train.tokens", "passes"),
    ("train.progress", "train.steps", "train.steps_planned", "share"),
)


def compared(figures: Mapping[str, Figure]) -> Iterator[Figure]:
    """Yield figures of figures: measured against planned, tokens per parameter, passes."""
    values = {name: v for name, f in figures.items() if (v := number(f.value)) is not None}
    origins = {name: figure.source for name, figure in figures.items()}
    quotients = [
        (f"compare.{name}", measured, f"plan.{name}", scale, "measured/planned")
        for name, (measured, scale) in PLANNED.items()
    ]
    quotients += [(name, above, below, 1, unit) for name, above, below, unit in QUOTIENTS]
    for name, above, below, scale, unit in quotients:
        if above in values and values.get(below):
            quotient = round(values[above] / (scale * values[below]), 6)
            yield Figure(name, quotient, unit, origins[above])
