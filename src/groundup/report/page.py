"""Makes the page of a report. Reads what report.json holds and the lines of training's metrics;
returns HTML.

One file without scripts, fonts or pictures from elsewhere. A section whose figures are missing is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from groundup.model.config import Layout, ModelConfig
from groundup.report.charts import loss_chart, small_chart
from groundup.report.diagram import diagram
from groundup.report.distributions import drawings
from groundup.report.figure_html import Marks
from groundup.report.formatting import formatted, size, spaced, spelled, visible
from groundup.report.gather import Report
from groundup.report.measured import PAIRS
from groundup.report.run_files import Problems, Row, number
from groundup.report.summary import STAGES

# The counting models, from the weakest.
COUNTING = ("unigram", "bigram", "trigram")
# Metric, caption, and whether its scale is logarithmic.
SMALL_CHARTS = (
    ("learning_rate", "learning rate", False),
    ("gradient_norm", "gradient norm", True),
    ("tokens_per_second", "tokens a second", False),
)
OWN_HEAD = {"embedding": "embedding", "head": "output head"}
PARTS = {
    "embedding": "embedding, shared with the output head",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "norms": "norms",
}


def templates() -> Environment:
    """Return the templates, with everything that is put into them escaped."""
    found = Environment(
        loader=PackageLoader("groundup.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "visible": visible,
        "spelled": spelled,
        "spaced": spaced,
        "size": size,
        "in_form": formatted,
    }
    return found


def page(report: Report, lines: Sequence[Row], live: Row | None = None) -> str:
    """Return the page of a report; `live` says how far a run is that is still on, or where it
    stopped.
    """
    marks, problems = Marks(report["figures"]), Problems(Path())
    sections = {
        name: section
        for name, make in SECTIONS.items()
        if (section := problems.guarded(name, partial(make, report, marks, lines), None))
        is not None
    }
    shown = {
        "marks": marks,
        "fig": marks.fig,
        "origin": marks.origin,
        "has": marks.has,
        "value": marks.value,
    }
    told = [*report["problems"], *problems.lines]
    return (
        templates()
        .get_template("page.html")
        .render(shown, report=report, sections=sections, problems=told, live=live, width=width)
    )


def width(value: float, largest: float) -> str:
    """Return a length of a bar, in per cent."""
    return f"{100 * value / largest:.2f}%" if largest > 0 else "0%"


def data(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Sources, what was dropped, languages and licenses, examples."""
    names = marks.ends("collect.documents.")
    if not names:
        return None
    told = {source["name"]: source for source in report["sources"]}
    order = [name for name in told if name in names] + [name for name in names if name not in told]
    languages = sorted(
        marks.ends("documents.language."),
        key=lambda code: (-marks.value(f"documents.language.{code}"), code),
    )
    licenses: dict[str, list[str]] = {}
    for entry in marks.ends("documents.license."):
        license, _, source = entry.rpartition("@")
        licenses.setdefault(source, []).append(license)
    most = max((marks.value(f"tokens.kept.share.{name}") for name in order), default=0.0)
    return {
        "sources": order,
        "told": told,
        "most": most,
        "reasons": reasons(marks),
        "languages": languages,
        "licenses": licenses,
    }


def drawn_data(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """The same, with distributions and examples by source."""
    found = data(report, marks, lines)
    if found is None:
        return None
    by_source = {
        name: {kind: _of(report["examples"][kind], name) for kind in ("kept", "left_out")}
        for name in found["sources"]
    }
    return found | {"drawn": drawings(report["distributions"]), "examples": by_source}


def _of(rows: Sequence[Row], source: str) -> list[Row]:
    return [row for row in rows if row["source"] == source]


def reasons(marks: Marks) -> list[Row]:
    """Return each reason with its stage, figure and sources, the most frequent first."""
    found: list[Row] = []
    for stage in ("collect", "refine"):
        for reason in marks.ends(f"{stage}.dropped."):
            name = f"{stage}.dropped.{reason}"
            by = [
                entry.rpartition("@")[0]
                for entry in marks.ends(f"{stage}.dropped_by.")
                if entry.partition("@")[2] == reason
            ]
            by.sort(
                key=lambda source: (-marks.value(f"{stage}.dropped_by.{source}@{reason}"), source)
            )
            found.append({"stage": stage, "reason": reason, "name": name, "sources": by})
    return sorted(
        (row for row in found if marks.value(row["name"])),
        key=lambda row: (-marks.value(row["name"]), row["reason"]),
    )


def tokenizer(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Bytes a token by source, and what the tokenizer's tokens look like."""
    if not marks.has("tokens.vocabulary"):
        return None
    names = [
        name
        for name in marks.ends("tokens.kept.bytes_per_token.")
        if marks.has(f"tokens.kept.bytes_per_token.{name}")
    ]
    names.sort(key=lambda name: -marks.value(f"tokens.kept.bytes_per_token.{name}"))
    most = max((marks.value(f"tokens.kept.bytes_per_token.{name}") for name in names), default=0.0)
    return (
        {"sources": names, "most": most, **report["vocabulary"]}
        if report["vocabulary"]
        else {"sources": names, "most": most}
    )


def architecture(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """The drawing, and parameters by part."""
    if not marks.has("model.parameters.embedding"):
        return None
    names = (
        "vocab_size",
        "layers",
        "width",
        "heads",
        "kv_heads",
        "head_width",
        "feed_forward",
        "context",
    )
    sizes = {name: int(marks.value(f"model.{name}")) for name in names}
    layout: Layout = "llama" if marks.figures["model.layout"]["value"] == "llama" else "qwen3"
    config = ModelConfig(**sizes, layout=layout, tied=not marks.has("model.parameters.head"))
    return {
        "diagram": Markup(diagram(config)),
        "parts": PARTS if config.tied else PARTS | OWN_HEAD,
        "config": config,
    }


def training(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Curves and events."""
    if not marks.has("train.steps"):
        return None
    told = report["training"]
    best = told["best"] if isinstance(told["best"], int) else None
    present = {
        line_name for line in lines for line_name in line if number(line[line_name]) is not None
    }
    small = [
        (title, Markup(small_chart(lines, name, title, log)))
        for name, title, log in SMALL_CHARTS
        if name in present
    ]
    return {
        "loss": Markup(loss_chart(lines, told["checkpoints"], best)),
        "small": small,
        "events": told["events"],
        "best": best,
    }


def evaluation(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Bits per byte by source beside the counting models, tasks, samples and speed."""
    if not marks.has("evaluate.model.bits_per_byte"):
        return None
    models = [name for name in COUNTING if marks.has(f"evaluate.{name}.bits_per_byte")]
    names = marks.ends("evaluate.model.bits_per_byte.")
    dots = ["", *(f".{name}" for name in names)]
    values = [
        marks.value(f"evaluate.{model}.bits_per_byte{dot}")
        for model in ("model", *models)
        for dot in dots
    ]
    low, high = int(4 * min(values)) / 4, (int(4 * max(values)) + 1) / 4
    names.sort(key=lambda name: marks.value(f"evaluate.model.bits_per_byte.{name}"))
    tasks = [
        name.removesuffix(".accuracy")
        for name in marks.ends("evaluate.")
        if name.endswith(".accuracy") and ".raw." not in name
    ]
    return {
        "models": models,
        "sources": names,
        "low": low,
        "high": high,
        "tasks": [task for task in tasks if marks.value(f"evaluate.{task}.n")],
        "samples": report["samples"],
        "definitions": report["definitions"],
    }


def tuning(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """What tuning wrote: pairs of before and after, other numbers, words, and example answers."""
    if not report["tuning"]:
        return None
    names = marks.ends("tune.")
    shown = report["tuning"].get("examples")
    before = [
        name for name in names if name.split(".")[0] == "before" and f"after{name[6:]}" in names
    ]
    paired = {*before, *(f"after{name[6:]}" for name in before)}
    return {
        "pairs": [(name.removeprefix("before."), tuning_form(name)) for name in before],
        "others": [(name, tuning_form(name)) for name in names if name not in paired],
        "examples": [dict(dialogue(row)) for row in shown if isinstance(row, dict)]
        if isinstance(shown, list)
        else [],
        "words": {key: value for key, value in report["tuning"].items() if isinstance(value, str)},
        "definitions": [
            pair for pair in flat_words("", report["tuning"].get("definitions", {})) if pair[1]
        ],
    }


def tuning_form(name: str) -> str:
    """Return the form of a figure of tuning: shares, losses, and counts as they are."""
    last = name.rpartition(".")[2]
    return (
        "share"
        if last == "ended" or last.startswith(("accuracy", "baseline"))
        else "three"
        if last == "loss"
        else ""
    )


def dialogue(row: Row) -> Iterator[tuple[str, str]]:
    """Yield the parts of an example of tuning: the turns of its prompt, and each answer to it."""
    for name, part in row.items():
        if isinstance(part, list):
            turns = [turn for turn in part if isinstance(turn, dict)]
            yield (
                name,
                "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns),
            )
        elif isinstance(part, dict):
            yield (
                name if part.get("ended", True) else f"{name}, not ended by itself",
                str(part.get("text", "")),
            )
        elif isinstance(part, str):
            yield name, part


def exports(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """What the parity gate compared: figures and words, by format where there are several."""
    if not report["exports"]:
        return None
    groups: dict[str, dict[str, Any]] = {}
    for path in marks.ends("export."):
        group, _, name = path.rpartition(".")
        groups.setdefault(group, {"figures": [], "words": []})["figures"].append((name, path))
    for path, words in flat_words("", report["exports"]):
        group, _, name = path.rpartition(".")
        groups.setdefault(group, {"figures": [], "words": []})["words"].append((name, words))
    return {"groups": groups}


def flat_words(name: str, value: Any) -> list[tuple[str, str]]:
    """Return the texts in nested tables with their paths."""
    if isinstance(value, dict):
        return [
            pair
            for key, inner in value.items()
            for pair in flat_words(f"{name}.{key}" if name else key, inner)
        ]
    return [(name, value)] if isinstance(value, str) and value else []


def cost(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Stages with where each begins in the whole, and what was planned beside what was measured."""
    rows, before = [], 0.0
    stages = [
        name.removesuffix(".seconds") for name in marks.ends("stage.") if name.endswith(".seconds")
    ]
    for stage in sorted(
        stages, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES)
    ):
        share = marks.value(f"stage.{stage}.share")
        rows.append({"name": stage, "left": width(before, 1), "width": width(share, 1)})
        before += share
    planned = [
        (name, measured)
        for name, (measured, _) in PAIRS.items()
        if marks.has(f"plan.{name}") and marks.has(f"compare.{name}")
    ]
    return {"stages": rows, "planned": planned} if rows else None


def origins(report: Report, marks: Marks, lines: Sequence[Row]) -> dict[str, Any] | None:
    """Environment, hashes, the recipe, and every figure by its artifact."""
    return {
        "by": marks.by_origin(),
        "recipe": tomli_w.dumps(report["recipe"]) if report["recipe"] else "",
    }


SECTIONS = {
    "data": drawn_data,
    "tokenizer": tokenizer,
    "architecture": architecture,
    "training": training,
    "evaluation": evaluation,
    "tuning": tuning,
    "exports": exports,
    "cost": cost,
    "origins": origins,
}
