"""Compare the reports of several runs on one page: curves, figures, and settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from groundup.errors import GroundupError
from groundup.report.charts import overlaid_losses
from groundup.report.figures import Row, json_file, leaves, metric_lines, number
from groundup.report.formatting import formatted
from groundup.report.gather import plain
from groundup.report.page import page_template

# Figure → its form and words. A figure that no run has is left out.
FIGURES = {
    "evaluate.model.bits_per_byte": ("three", "bits per byte of held-out text"),
    "evaluate.model.perplexity": ("one", "perplexity"),
    "evaluate.model.loss": ("three", "loss, nats a token"),
    "train.validation_loss.best": ("three", "lowest validation loss in training"),
    "evaluate.passages.accuracy": ("share", "next passage, right"),
    "model.parameters": ("count", "parameters"),
    "tokens.vocabulary": ("count", "vocabulary"),
    "tokens.kept.bytes_per_token": ("two", "bytes a token"),
    "tokens.kept.tokens": ("count", "tokens kept"),
    "collect.documents": ("count", "documents collected"),
    "tokens.kept.documents": ("count", "documents kept"),
    "train.steps": ("count", "steps"),
    "train.tokens": ("count", "tokens trained on"),
    "train.tokens_per_second": ("count", "tokens a second, training"),
    "run.seconds": ("seconds", "time of all stages"),
    "run.peak_bytes": ("size", "peak memory"),
    "speed.prefill_tokens_per_second": ("count", "tokens a second, reading"),
    "speed.decode_tokens_per_second": ("count", "tokens a second, writing"),
}
BY_SOURCE = "evaluate.model.bits_per_byte."


def compare_reports(roots: Sequence[Path]) -> str:
    """Return a page that compares runs with the first; GroundupError if a run has no report."""
    reports = []
    for root in roots:
        report = json_file(root, "report/report.json")
        if not isinstance(report, dict) or "figures" not in report:
            command = f"`groundup report {root}`"
            raise GroundupError(f"{root}: there is no report to compare; {command} makes one")
        reports.append(report)
    names = labels(roots)
    metrics = {name: metric_lines(root) for name, root in zip(names, roots, strict=True)}
    curves = {name: lines for name, lines in metrics.items() if lines}
    return page_template("compare.html").render(
        names=names,
        settings=differing_settings(reports),
        figures=figure_rows(reports),
        chart=Markup(overlaid_losses(curves)) if curves else "",
    )


def labels(roots: Sequence[Path]) -> list[str]:
    """Return a short name for each run: its folder, or the whole path if two are the same."""
    names = [root.resolve().name for root in roots]
    pairs = zip(names, roots, strict=True)
    return [str(plain(name if names.count(name) == 1 else str(root))) for name, root in pairs]


def flat_settings(recipe: Row) -> dict[str, str]:
    """Return the settings of a recipe by dotted path; sources go by their name."""
    sources = {
        source.get("name", str(n)): source for n, source in enumerate(recipe.get("source", []))
    }
    table = dict(leaves(recipe | {"source": sources}))
    return {path: "" if value is None else str(value) for path, value in table.items()}


def differing_settings(reports: Sequence[Row]) -> list[tuple[str, list[str | None]]]:
    """Return the settings that differ between runs; None where a run has no such setting."""
    tables = [flat_settings(report.get("recipe", {})) for report in reports]
    paths = dict.fromkeys(path for table in tables for path in table)
    rows = [(path, [table.get(path) for table in tables]) for path in paths if path != "name"]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def figure_rows(reports: Sequence[Row]) -> list[Row]:
    """Return a row for each figure: its values, and how far each is from that of the first run."""
    names = [name for report in reports for name in report["figures"]]
    forms = FIGURES | {
        name: ("three", f"bits per byte of {name.removeprefix(BY_SOURCE)}")
        for name in names
        if name.startswith(BY_SOURCE)
    }
    rows = []
    for name, (form, words) in forms.items():
        values = [number(report["figures"].get(name, {}).get("value")) for report in reports]
        if all(value is None for value in values):
            continue
        cells, first = [], values[0]
        for value in values:
            # That of the first run itself is 0, which is not shown.
            change = value / first - 1 if value is not None and first else 0
            signed = formatted(change, "signed") if change else ""
            cells.append({"text": formatted(value, form), "change": signed})
        rows.append({"name": name, "words": words, "cells": cells})
    return rows
