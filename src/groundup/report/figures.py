"""Computes every figure of a report. Reads views, training files and the ledger of a run; returns values with their origin.

No figure is typed: a name, a value, a unit, and the file that it was computed from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.ledger import Ledger
from groundup.metrics import Metrics
from groundup.store import Artefact, Store, read_json


@dataclass(frozen=True)
class Figure:
    """A figure: dotted name, value, unit, and the file below the run directory that it was computed from."""

    name: str
    value: float | int | str | None
    unit: str
    source: str

    def entry(self) -> dict[str, Any]:
        """Return what report.json holds of it, under its name."""
        table = asdict(self)
        return {"value": table["value"], "unit": table["unit"], "from": table["source"]}


def all_figures(root: Path) -> dict[str, Figure]:
    """Return every figure of a run that its finished stages allow, by name."""
    return {figure.name: figure for part in PARTS for figure in part(root)}


def artefacts(root: Path, stage: str, step: str) -> list[Artefact]:
    """Return the artefacts of a step that a stage's view names."""
    view = Store(root).view(stage)
    entries = view.manifest["artefacts"] if view else []
    return [a for entry in entries if entry["step"] == step and (a := Store(root).artefact(entry)) is not None]


def collected(root: Path) -> Iterator[Figure]:
    """Documents and bytes of raw text, in all and by source, and what could not be read."""
    origin, reasons = "collect/manifest.json", Counter[str]()
    sums: dict[str, Counter[str]] = {}
    for artefact in artefacts(root, "collect", "collect/shard"):
        facts = artefact.facts
        source = sums.setdefault(facts["source"], Counter())
        source.update({name: facts[name] for name in ("documents", "bytes_in", "bytes_out", "files")})
        reasons.update(facts["dropped"])
    yield from _sums("collect", sums, origin)
    yield from (Figure(f"collect.dropped.{reason}", count, "records", origin) for reason, count in sorted(reasons.items()))


def refined(root: Path) -> Iterator[Figure]:
    """Documents and bytes after cleaning and filters, what each reason dropped, and duplicates."""
    origin, reasons = "refine/manifest.json", Counter[str]()
    sums: dict[str, Counter[str]] = {}
    for artefact in artefacts(root, "refine", "refine/shard"):
        facts = artefact.facts
        source = sums.setdefault(artefact.name.rpartition(".")[0], Counter())
        source.update({name: facts[name] for name in ("documents", "bytes_in", "bytes_out")})
        reasons.update(facts["dropped"])
    for artefact in artefacts(root, "refine", "refine/duplicates"):
        reasons.update({reason: artefact.facts[reason]["documents"] for reason in ("exact_duplicate", "near_duplicate")})
    yield from _sums("refine", sums, origin)
    yield from (Figure(f"refine.dropped.{reason}", count, "documents", origin) for reason, count in sorted(reasons.items()))


def _sums(stage: str, sums: Mapping[str, Counter[str]], origin: str) -> Iterator[Figure]:
    total: Counter[str] = Counter()
    for source, counts in sums.items():
        total.update(counts)
        yield from (Figure(f"{stage}.{name}.{source}", value, _unit(name), origin) for name, value in counts.items())
    yield from (Figure(f"{stage}.{name}", value, _unit(name), origin) for name, value in total.items())


def _unit(name: str) -> str:
    return "bytes" if name.startswith("bytes") else name


def tokenized(root: Path) -> Iterator[Figure]:
    """Tokens, documents, bytes and bytes per token by source and split."""
    view, origin = Store(root).view("tokenize"), "tokenize/manifest.json"
    if view is None:
        return
    yield Figure("tokens.vocabulary", view.facts["vocab_size"], "entries", origin)
    for split, counts in view.facts["total"].items():
        yield from (Figure(f"tokens.{split}.{name}", value, name, origin) for name, value in counts.items())
    for source, splits in view.facts["sources"].items():
        for split, counts in splits.items():
            yield from (Figure(f"tokens.{split}.{name}.{source}", value, name, origin) for name, value in counts.items())


def trained(root: Path) -> Iterator[Figure]:
    """Parameters, steps, tokens, losses and speed of training."""
    lines = Metrics(root / "train" / "metrics.jsonl").read()
    steps = [line for line in lines if "loss" in line]
    validations = [line for line in lines if line.get("validation_loss") is not None]
    if not steps:
        return
    last, origin = steps[-1], "train/metrics.jsonl"
    yield Figure("train.steps", last["step"], "steps", origin)
    yield Figure("train.tokens", last["tokens"], "tokens", origin)
    yield Figure("train.seconds", last["seconds"], "s", origin)
    yield Figure("train.tokens_per_second", last["tokens"] / last["seconds"] if last["seconds"] else None, "tokens/s", origin)
    yield Figure("train.loss", last["loss"], "nats/token", origin)
    if validations:
        best = min(validations, key=lambda line: float(line["validation_loss"]))
        yield Figure("train.validation_loss.best", best["validation_loss"], "nats/token", origin)
        yield Figure("train.validation_loss.best_step", best["step"], "step", origin)
        yield Figure("train.validation_loss.last", validations[-1]["validation_loss"], "nats/token", origin)


def evaluated(root: Path) -> Iterator[Figure]:
    """Loss, perplexity and bits per byte by source, beside the counting models; accuracies; speed."""
    found, origin = read_json(root / "evaluate" / "evaluation.json"), "evaluate/evaluation.json"
    if found is None:
        return
    yield Figure("model.parameters", found["model"]["parameters"], "parameters", origin)
    yield Figure("model.context", found["model"]["context"], "tokens", origin)
    for name in ("model", "unigram", "trigram"):
        tables = {"": found["validation"][name]["total"]} | {f".{k}": v for k, v in found["validation"][name]["sources"].items()}
        for source, figures in tables.items():
            for measure, unit in (
                ("loss", "nats/token"),
                ("perplexity", ""),
                ("bits_per_byte", "bits/byte"),
                ("bits_per_byte_error", "bits/byte"),
            ):
                yield Figure(f"evaluate.{name}.{measure}{source}", figures[measure], unit, origin)
    yield Figure("evaluate.passages.accuracy", found["passages"]["accuracy"], "share", origin)
    yield Figure("evaluate.passages.n", found["passages"]["n"], "questions", origin)
    for name, figures in found["benchmarks"].items():
        yield from (Figure(f"evaluate.{name}.{k}", v, "", origin) for k, v in figures.items() if isinstance(v, (int, float)))
    speeds = read_json(root / "evaluate" / "speed.json") or {}
    for name in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        if name in speeds:
            yield Figure(f"speed.{name}", speeds[name], "tokens/s", "evaluate/speed.json")


def staged(root: Path) -> Iterator[Figure]:
    """Seconds and peak memory of each stage when it last did any work."""
    last = {event["stage"]: event for event in Ledger(root / "ledger.jsonl").events("finished")}
    for stage, event in last.items():
        yield Figure(f"stage.{stage}.seconds", event["seconds"], "s", "ledger.jsonl")
        yield Figure(f"stage.{stage}.peak_bytes", event["peak_bytes"], "bytes", "ledger.jsonl")


def planned(root: Path) -> Iterator[Figure]:
    """What `plan` had estimated before the run, to stand beside what was measured."""
    for name, figure in (read_json(root / "plan.json") or {}).get("figures", {}).items():
        yield Figure(f"plan.{name.replace(' ', '_')}", figure["value"], figure["unit"], "plan.json")


PARTS: tuple[Callable[[Path], Iterator[Figure]], ...] = (planned, collected, refined, tokenized, trained, evaluated, staged)
