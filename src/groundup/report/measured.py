"""Figures of what was trained, evaluated, tuned, exported, and of what it cost. Reads training
files, views and the ledger.

Returns values with their origin, as `figures.py` does for the data; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup.model.config import ModelConfig
from groundup.report.figure import Figure, Figures, Part
from groundup.report.run_files import DamagedError, json_file, json_lines, lock_table, number
from groundup.runtime.ledger import Ledger

MEASURES = (
    ("loss", "nats/token"),
    ("perplexity", ""),
    ("bits_per_byte", "bits/byte"),
    ("bits_per_byte_error", "bits/byte"),
)
METRICS = "train/metrics.jsonl"
LEDGER = "ledger.jsonl"
DATA_STAGES = ("collect", "refine", "tokenize")


def model_config(root: Path) -> ModelConfig | None:
    """Return the sizes of the run's model, None before training was begun.

    Raises:
        DamagedError: train.json names none.
    """
    table = json_file(root, "train/train.json")
    if table is None:
        return None
    try:
        return ModelConfig(**table["model"])
    except (KeyError, TypeError, ValueError):
        raise DamagedError("train/train.json names no model") from None


def parameter_parts(config: ModelConfig) -> dict[str, int]:
    """Return the trained parameters of each part of a model; they add up to its
    `parameter_count()`.
    """
    attention = (2 * config.heads + 2 * config.kv_heads) * config.head_width * config.width
    return {
        "embedding": config.vocab_size * config.width,
        "attention": config.layers * attention,
        "feed_forward": config.layers * 3 * config.width * config.feed_forward,
        "norms": config.layers * config.layer_norm_parameters + config.width,
    } | ({} if config.tied else {"head": config.head_parameters})


def built(root: Path) -> Iterator[Figure]:
    """Sizes of the model and its parameters by part."""
    config, origin = model_config(root), "train/train.json"
    if config is None:
        return
    for name in (
        "layers",
        "width",
        "heads",
        "kv_heads",
        "head_width",
        "feed_forward",
        "vocab_size",
        "context",
    ):
        yield Figure(f"model.{name}", getattr(config, name), "", origin)
    yield Figure("model.layout", config.layout, "", origin)
    total = config.parameter_count()
    for part, parameters in parameter_parts(config).items():
        yield Figure(f"model.parameters.{part}", parameters, "parameters", origin)
        yield Figure(f"model.parameters_share.{part}", parameters / total, "share", origin)
    yield Figure("model.parameters", total, "parameters", origin)
    yield Figure(
        "train.steps_planned", json_file(root, "train/train.json")["steps"], "steps", origin
    )


def metric_lines(root: Path) -> list[dict[str, Any]]:
    """Return the lines of training's metrics that name a step, oldest first; torn ones are left
    out.
    """
    return [line for line in json_lines(root, METRICS) if isinstance(line.get("step"), int)]


def trained(root: Path) -> Iterator[Figure]:
    """Steps, tokens, losses and speed of training."""
    lines = metric_lines(root)
    steps = [
        line
        for line in lines
        if number(line.get("loss")) is not None and number(line.get("tokens")) is not None
    ]
    if steps:
        last = steps[-1]
        yield Figure("train.steps", last["step"], "steps", METRICS)
        yield Figure("train.tokens", last["tokens"], "tokens", METRICS)
        yield Figure("train.seconds", last["seconds"], "s", METRICS)
        yield Figure(
            "train.tokens_per_second",
            last["tokens"] / last["seconds"] if last["seconds"] else None,
            "tokens/s",
            METRICS,
        )
        yield Figure("train.loss", last["loss"], "nats/token", METRICS)
    validations = [line for line in lines if number(line.get("validation_loss")) is not None]
    if validations:
        best = min(validations, key=lambda line: float(line["validation_loss"]))
        yield Figure("train.validation_loss.best", best["validation_loss"], "nats/token", METRICS)
        yield Figure("train.validation_loss.best_step", best["step"], "step", METRICS)
        yield Figure(
            "train.validation_loss.last", validations[-1]["validation_loss"], "nats/token", METRICS
        )


def evaluated(root: Path) -> Iterator[Figure]:
    """Loss, perplexity and bits per byte by source, beside the counting models; accuracies; speed."""
    found, origin = json_file(root, "evaluate/evaluation.json"), "evaluate/evaluation.json"
    if found is None:
        return
    yield Figure("model.parameters", found["model"]["parameters"], "parameters", origin)
    yield Figure("model.context", found["model"]["context"], "tokens", origin)
    for name, of_model in found["validation"].items():
        if isinstance(of_model, dict):
            yield from _losses(name, of_model, origin)
    yield from _accuracy("passages", found["passages"], origin)
    for name, figures in found["benchmarks"].items():
        yield from _accuracy(name, figures, origin)
    for name, value in (json_file(root, "evaluate/speed.json") or {}).items():
        if number(value) is not None:
            unit = "tokens/s" if name.endswith("_per_second") else ""
            yield Figure(f"speed.{name}", value, unit, "evaluate/speed.json")


def _losses(name: str, of_model: Mapping[str, Any], origin: str) -> Iterator[Figure]:
    tables = {"": of_model["total"]} | {
        f".{source}": table for source, table in of_model["sources"].items()
    }
    for source, figures in tables.items():
        yield from (
            Figure(f"evaluate.{name}.{measure}{source}", figures.get(measure), unit, origin)
            for measure, unit in MEASURES
        )
        if name == "model" and figures.get("tokens") is not None:
            yield Figure(f"evaluate.tokens{source}", figures["tokens"], "tokens", origin)


def _accuracy(name: str, figures: Mapping[str, Any], origin: str) -> Iterator[Figure]:
    """A score's own figures, and the ends of its interval."""
    yield from (
        Figure(f"evaluate.{name}.{key}", value, "", origin)
        for key, value in figures.items()
        if number(value) is not None
    )
    interval = figures.get("interval")
    if isinstance(interval, list) and len(interval) == 2:
        yield from (
            Figure(f"evaluate.{name}.{end}", v, "share", origin)
            for end, v in zip(("low", "high"), interval, strict=True)
        )


def tuned(root: Path) -> Iterator[Figure]:
    """Every number that tuning wrote, under its path in tuning.json."""
    yield from leaves("tune", json_file(root, "tune/tuning.json"), "tune/tuning.json")


def exported(root: Path) -> Iterator[Figure]:
    """Every number that the parity gate wrote, under its path in parity.json."""
    yield from leaves("export", json_file(root, "export/parity.json"), "export/parity.json")


def leaves(name: str, value: Any, origin: str) -> Iterator[Figure]:
    """Yield a figure for each number in nested tables; lists hold examples, not figures."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(f"{name}.{key}", inner, origin)
    elif number(value) is not None:
        yield Figure(name, value, "", origin)


def staged(root: Path) -> Iterator[Figure]:
    """Seconds, share and peak memory of each stage when it last did any work, and when the run's
    work began and ended.

    The report is left out: one that names its own seconds would never be fresh.
    """
    events = [event for event in Ledger(root / LEDGER).events() if event.get("stage") != "report"]
    last = {event["stage"]: event for event in events if event.get("event") == "finished"}
    total = sum(event["seconds"] for event in last.values())
    for stage, event in last.items():
        yield Figure(f"stage.{stage}.seconds", event["seconds"], "s", LEDGER)
        yield Figure(
            f"stage.{stage}.share", event["seconds"] / total if total else None, "share", LEDGER
        )
        yield Figure(f"stage.{stage}.peak_bytes", event["peak_bytes"], "bytes", LEDGER)
    if last:
        yield Figure("run.seconds", round(total, 3), "s", LEDGER)
        yield Figure(
            "run.peak_bytes", max(event["peak_bytes"] for event in last.values()), "bytes", LEDGER
        )
        yield Figure("run.began", _moment(events[0]["time"]), "UTC", LEDGER)
        yield Figure(
            "run.ended", _moment(max(event["time"] for event in last.values())), "UTC", LEDGER
        )


def _moment(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# What was planned, what it turned out to be, and how many of the plan's units are one of the
# measure's.
PAIRS: dict[str, tuple[str, float]] = {
    "raw_files": ("collect.bytes_in", 1),
    "clean_text": ("refine.bytes_out", 1),
    "vocabulary": ("tokens.vocabulary", 1),
    "tokens": ("tokens.kept.tokens", 1),
    "parameters": ("model.parameters", 1),
    "steps": ("train.steps", 1),
    "tokens_seen": ("train.tokens", 1),
    "data_stages": ("run.data_seconds", 3600),
    "training": ("stage.train.seconds", 3600),
    "hours": ("run.seconds", 3600),
    "training_memory": ("stage.train.peak_bytes", 1),
}


# Name, what is divided, by what, and how many units of the one are one of the other.
QUOTIENTS = (
    ("train.tokens_per_parameter", "train.tokens", "model.parameters", 1.0, "tokens/parameter"),
    ("train.passes", "train.tokens", "tokens.train.tokens", 1.0, "passes"),
    ("train.progress", "train.steps", "train.steps_planned", 1.0, "share"),
)


def compared(figures: Figures) -> Iterator[Figure]:
    """Figures of figures: how far a plan was off, tokens a parameter, passes over the data."""

    values = {
        name: value
        for name, figure in figures.items()
        if (value := number(figure.value)) is not None
    }
    parts = [values.get(f"stage.{stage}.seconds") for stage in DATA_STAGES]
    origins = {name: figure.source for name, figure in figures.items()} | {
        "run.data_seconds": LEDGER
    }
    if None not in parts:
        values["run.data_seconds"] = round(sum(part or 0.0 for part in parts), 3)
        yield Figure("run.data_seconds", values["run.data_seconds"], "s", LEDGER)
    quotients = [
        (f"compare.{name}", measure, f"plan.{name}", units, "measured/planned")
        for name, (measure, units) in PAIRS.items()
    ]
    for name, above, below, units, unit in [*quotients, *QUOTIENTS]:
        if above in values and values.get(below):
            yield Figure(
                name, round(values[above] / (units * values[below]), 6), unit, origins[above]
            )


MEASURED: dict[str, Part] = {
    "model": built,
    "train": trained,
    "evaluate": evaluated,
    "tune": tuned,
    "export": exported,
    "ledger": staged,
}


def environment(root: Path) -> dict[str, Any]:
    """Return the versions under which the run's work was last done, and what was resolved for the
    machine.
    """
    versions: dict[str, str] = {}
    found: dict[str, str] = {}
    for event in Ledger(root / LEDGER).events():
        if event.get("event") == "run" and isinstance(event.get("versions"), dict):
            versions = event["versions"]
        elif event.get("event") == "finished" and event.get("stage") != "report":
            found = versions
    return {
        "groundup": found.get("groundup"),
        "versions": found or versions,
        "machine": lock_table(root).get("machine", {}),
    }
