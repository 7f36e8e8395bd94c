"""Compares runs on one page: settings that differ, figures side by side, losses over one another.

Reads report.json and the metrics of each run; returns HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from groundup.errors import GroundupError
from groundup.report.formatting import formatted
from groundup.report.gather import plain
from groundup.report.measured import metric_lines
from groundup.report.page import templates
from groundup.report.run_files import Row, json_file, number

# What a comparison shows: the form of a figure, and its words. What none of the runs has is left
# out.
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


def compare(roots: Sequence[Path]) -> str:
    """Return a page that compares runs; the first is what the others are measured against.

    Raises:
        GroundupError: a run has no report.
    """
    from groundup.report.charts import overlaid

    reports = [_report(root) for root in roots]
    names = labels(roots)
    curves = {
        name: lines
        for name, root in zip(names, roots, strict=True)
        if (lines := metric_lines(root))
    }
    chart = Markup(overlaid(curves)) if curves else ""
    shown = {
        "names": names,
        "settings": differing(reports),
        "figures": side_by_side(reports),
        "chart": chart,
    }
    return templates().get_template("compare.html").render(shown)


def _report(root: Path) -> Row:
    found = json_file(root, "report/report.json")
    if not isinstance(found, dict) or "figures" not in found:
        raise GroundupError(
            f"{root}: there is no report to compare; `groundup report {root}` makes one"
        )
    return found


def labels(roots: Sequence[Path]) -> list[str]:
    """Return a short name for each run: its folder, and where two are alike, its whole path as it
    was given.
    """
    short = [root.resolve().name for root in roots]
    return [
        str(plain(name if short.count(name) == 1 else str(root)))
        for name, root in zip(short, roots, strict=True)
    ]


def flat(table: Any, path: str = "") -> dict[str, str]:
    """Return the settings in nested tables by dotted path; sources go by their name."""
    if isinstance(table, Mapping):
        parts = [flat(value, f"{path}.{key}" if path else str(key)) for key, value in table.items()]
    elif isinstance(table, list) and table and all(isinstance(row, Mapping) for row in table):
        parts = [flat(row, f"{path}.{row.get('name', n)}") for n, row in enumerate(table)]
    else:
        return {path: "" if table is None else str(table)}
    return {key: value for part in parts for key, value in part.items()}


def differing(reports: Sequence[Row]) -> list[tuple[str, list[str | None]]]:
    """Return the settings that are not the same in all runs, None where a run has no such setting."""
    settings = [flat(report.get("recipe", {})) for report in reports]
    paths = dict.fromkeys(path for one in settings for path in one)
    rows = [(path, [one.get(path) for one in settings]) for path in paths if path != "name"]
    return [(path, values) for path, values in rows if len(set(values)) > 1]


def side_by_side(reports: Sequence[Row]) -> list[Row]:
    """Return a row for each figure: its values, and how far each is from the first."""
    sources = dict.fromkeys(
        name for report in reports for name in report["figures"] if name.startswith(BY_SOURCE)
    )
    rows = []
    by_source = {
        name: ("three", f"bits per byte of {name.removeprefix(BY_SOURCE)}") for name in sources
    }
    for name, (form, words) in (FIGURES | by_source).items():
        values = [number(report["figures"].get(name, {}).get("value")) for report in reports]
        if any(value is not None for value in values):
            first = values[0]
            changes = [
                value / first - 1 if value is not None and first else None for value in values
            ]
            cells = [
                {
                    "text": formatted(value, form),
                    "change": formatted(change, "signed") if n and change else "",
                }
                for n, (value, change) in enumerate(zip(values, changes, strict=True))
            ]
            rows.append({"name": name, "words": words, "cells": cells})
    return rows
