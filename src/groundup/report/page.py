"""Render the page of a report: one HTML file without scripts, fonts or pictures from elsewhere.

Each section has a function that returns what its template needs, or None if its figures are
missing: then the page leaves the section out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from groundup.model.config import Layout, ModelConfig
from groundup.report.charts import drawings, has_curve, loss_chart, small_chart
from groundup.report.figures import MODEL_SIZES, PLANNED, Problems, Row, leaves
from groundup.report.formatting import (
    FigureHtml,
    formatted,
    in_words,
    more,
    plain_markdown,
    size,
    spaced,
    spelled,
    visible,
)
from groundup.report.gather import Report

# In the order of the run.
STAGES = ("collect", "refine", "tokenize", "train", "evaluate", "tune", "export")
# The baselines, from the weakest.
NGRAM_MODELS = ("unigram", "bigram", "trigram")
# Metric, caption, and whether its scale is logarithmic.
SMALL_CHARTS = (
    ("learning_rate", "learning rate", False),
    ("gradient_norm", "gradient norm", True),
    ("tokens_per_second", "tokens a second", False),
)
PARTS = {
    "embedding": "embedding, shared with the output head",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "norms": "norms",
}
# Sources shown before a click shows the others; sources that gave nothing named at the top.
MAX_SOURCES, MAX_EMPTY = 10, 5
NOTHING_HELD_OUT = (
    "nothing is held out; the split is by document, book, project or thread, and needs two of them"
)
UNTIED_PARTS = PARTS | {"embedding": "embedding", "head": "output head"}


@dataclass(frozen=True)
class LiveStatus:
    """What the top of a live page says about a run that is still on, or that stopped."""

    title: str
    words: str
    heartbeat: str  # when the page process of the run last wrote its figures
    ended: str = ""  # how and when the run ended, "" if it did not or left no event
    refresh: int = 0  # seconds after which the browser loads the page again, 0 for never
    # The step of training and the last one; 0 outside training.
    step: int = 0
    of: int = 0


@dataclass(frozen=True)
class PageInput:
    """What a section is made of: the report, its figures as HTML, and the metrics of training."""

    report: Report
    figures: FigureHtml
    lines: Sequence[Row]


Section = dict[str, Any]
SectionMaker = Callable[[PageInput], Section | None]
# In the order of the page.
SECTIONS: dict[str, SectionMaker] = {}


def section(function: SectionMaker) -> SectionMaker:
    """Register a section under the name of its function, which its template has, too."""
    SECTIONS[function.__name__] = function
    return function


def render_page(report: Report, lines: Sequence[Row], live: LiveStatus | None = None) -> str:
    """Return the page of a report as HTML; `lines` are the metrics of training."""
    figures, problems = FigureHtml(report["figures"]), Problems(Path())
    page, sections = PageInput(report, figures, lines), {}
    for name, make in SECTIONS.items():
        made = problems.guarded(name, partial(make, page), None)
        if made is not None:
            sections[name] = made
    shares = {s["name"]: figures.value(f"tokens.kept.share.{s['name']}") for s in report["sources"]}
    return page_template("page.html").render(
        report=report,
        sections=sections,
        problems=[*report["problems"], *problems.lines],
        largest=sorted(filter(shares.get, shares), key=lambda name: -shares[name]),
        drops=drop_reasons(figures),
        troubles=troubles(report, figures),
        nothing_held_out=NOTHING_HELD_OUT if unmeasured(figures) else "",
        live=live,
        width=bar_width,
        fig=figures.fig,
        origin=figures.origin,
        has=figures.has,
        value=figures.value,
    )


def page_template(name: str) -> Template:
    """Return a template; of HTML, everything that is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("groundup.report"),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    of_text = {"visible": visible, "spelled": spelled, "spaced": spaced, "plain": plain_markdown}
    of_values: Row = {"size": size, "in_form": formatted, "in_words": in_words, "more": more}
    environment.filters |= of_text | of_values
    return environment.get_template(name)


def largest_first(figures: FigureHtml, names: list[str]) -> list[str]:
    """Return sources by what is kept of them if a page does not show all; else in their order."""
    if len(names) <= MAX_SOURCES:
        return names
    sizes = ("tokens.kept.tokens", "collect.bytes_out")
    return sorted(names, key=lambda name: [-figures.value(f"{size}.{name}") for size in sizes])


def empty_sources(figures: FigureHtml) -> dict[str, str]:
    """Return the sources of which nothing was read, or nothing kept, each with the reasons."""
    notes, drops = {}, drop_reasons(figures)
    for name in figures.names_after("collect.documents."):
        documents = figures.value(f"collect.documents.{name}")
        kept = f"tokens.kept.documents.{name}"
        if documents and (figures.value(kept) or not figures.has(kept)):
            continue
        stage, what, unit, count = "refine", "nothing kept", "document", documents
        if not documents:
            stage, what, unit = "collect", "nothing read", "file"
            count = figures.value(f"collect.files.{name}")
        reasons = {
            row["reason"]: figures.value(f"{stage}.dropped_by.{name}@{row['reason']}")
            for row in drops
            if row["stage"] == stage and name in row["sources"]
        }
        words = [f"{n:,.0f} {reason}" for reason, n in reasons.items()]
        if len(words) == 1:
            words = [f"all {reason}" for reason in reasons]
        total = f"{what}: {count:,.0f} {unit}{'s' if count != 1 else ''}"
        notes[name] = ", ".join([total, *words])
    return notes


def unmeasured(figures: FigureHtml) -> bool:
    """Whether an evaluation had no held-out text to measure."""
    bits = "evaluate.model.bits_per_byte"
    return bool(figures.names_after("evaluate.")) and not figures.has(bits)


def troubles(report: Report, figures: FigureHtml) -> list[str]:
    """Return what a reader should know before trusting the figures, one line each."""
    empty = [f"Source {name}: {words}." for name, words in empty_sources(figures).items()]
    lines = empty[:MAX_EMPTY]
    if len(empty) > MAX_EMPTY:
        lines.append(more(len(empty) - MAX_EMPTY, "source") + " gave nothing; see their table.")
    steps, planned = figures.value("train.steps"), figures.value("train.steps_planned")
    if 0 < steps < planned:
        lines.append(f"Training is at step {steps:,.0f} of {planned:,.0f}.")
    rollbacks = sum(event["kind"] == "rollback" for event in report["training"]["events"])
    if rollbacks:
        lines.append(f"Training went back to an earlier checkpoint, {rollbacks:,} in all.")
    if unmeasured(figures):
        lines.append(f"The model was not measured: {NOTHING_HELD_OUT}.")
    return lines


def bar_width(value: float, largest: float) -> str:
    """Return the length of a bar in percent."""
    return f"{100 * value / largest:.2f}%" if largest > 0 else "0%"


def source_table(report: Report, figures: FigureHtml) -> Section | None:
    """Return the sources in the order of the recipe, with their licenses; the card has them too."""
    names = figures.names_after("collect.documents.")
    if not names:
        return None
    entries = {source["name"]: source for source in report["sources"]}
    licenses: dict[str, list[str]] = {}
    for entry in figures.names_after("documents.license."):
        license, _, source = entry.rpartition("@")
        licenses.setdefault(source, []).append(license)
    order = [name for name in dict.fromkeys([*entries, *names]) if name in names]
    return {"sources": order, "entries": entries, "licenses": licenses}


@section
def data(page: PageInput) -> Section | None:
    """Return sources, what was dropped, languages, distributions and examples."""
    report, figures = page.report, page.figures
    table = source_table(report, figures)
    if table is None:
        return None
    names = largest_first(figures, table["sources"])
    prefix = "documents.language."
    languages = sorted(figures.names_after(prefix))
    languages.sort(key=lambda code: -figures.value(prefix + code))
    examples: Section = {name: {"kept": [], "left_out": []} for name in names}
    for kind in ("kept", "left_out"):
        for row in report["examples"][kind]:
            if row["source"] in examples:
                examples[row["source"]][kind].append(row)
    return table | {
        "sources": names,
        "empty": empty_sources(figures),
        "most": max((figures.value(f"tokens.kept.share.{name}") for name in names), default=0.0),
        "languages": languages,
        "drawn": drawings(report["distributions"]),
        "examples": examples,
    }


def drop_reasons(figures: FigureHtml) -> list[Row]:
    """Return each reason with its stage, figure and sources, the most frequent first."""
    rows: list[Row] = []
    for stage in ("collect", "refine"):
        by_source = f"{stage}.dropped_by."
        pairs = [entry.rpartition("@") for entry in figures.names_after(by_source)]
        for reason in figures.names_after(f"{stage}.dropped."):
            counts = {
                source: figures.value(f"{by_source}{source}@{reason}")
                for source, _, other in pairs
                if other == reason
            }
            sources = sorted(counts, key=lambda source: (-counts[source], source))
            name = f"{stage}.dropped.{reason}"
            rows.append({"stage": stage, "reason": reason, "name": name, "sources": sources})
    rows = [row for row in rows if figures.value(row["name"])]
    return sorted(rows, key=lambda row: (-figures.value(row["name"]), row["reason"]))


@section
def tokenizer(page: PageInput) -> Section | None:
    """Return bytes per token by source, and what the tokens look like."""
    figures = page.figures
    if not figures.has("tokens.vocabulary"):
        return None
    prefix = "tokens.kept.bytes_per_token."
    names = [name for name in figures.names_after(prefix) if figures.has(prefix + name)]
    names.sort(key=lambda name: -figures.value(prefix + name))
    most = max((figures.value(prefix + name) for name in names), default=0.0)
    names = largest_first(figures, names)
    return {"sources": names, "most": most} | page.report["vocabulary"]


@section
def architecture(page: PageInput) -> Section | None:
    """Return the configuration of the model, and its parameters by part."""
    figures = page.figures
    if not figures.has("model.parameters.embedding"):
        return None
    sizes = {name: int(figures.value(f"model.{name}")) for name in MODEL_SIZES}
    layout: Layout = "llama" if figures.figures["model.layout"]["value"] == "llama" else "qwen3"
    config = ModelConfig(**sizes, layout=layout, tied=not figures.has("model.parameters.head"))
    return {"parts": PARTS if config.tied else UNTIED_PARTS, "config": config}


@section
def training(page: PageInput) -> Section | None:
    """Return the curves and events of training."""
    if not page.figures.has("train.steps"):
        return None
    record, lines = page.report["training"], page.lines
    best = record["best"] if isinstance(record["best"], int) else None
    charts = [chart for chart in SMALL_CHARTS if has_curve(lines, chart[0])]
    small = [(title, Markup(small_chart(lines, name, title, log))) for name, title, log in charts]
    drawn = has_curve(lines, "loss") or has_curve(lines, "validation_loss")
    loss = Markup(loss_chart(lines, record["checkpoints"], best)) if drawn else ""
    return {"loss": loss, "small": small, "events": record["events"], "best": best}


@section
def evaluation(page: PageInput) -> Section | None:
    """Return bits per byte by source next to the n-gram models, tasks and samples."""
    figures = page.figures
    if not figures.names_after("evaluate."):
        return None
    models = [name for name in NGRAM_MODELS if figures.has(f"evaluate.{name}.bits_per_byte")]
    prefix = "evaluate.model.bits_per_byte."
    names = figures.names_after(prefix)
    names.sort(key=lambda name: figures.value(prefix + name))
    values = [
        figures.value(f"evaluate.{model}.bits_per_byte{suffix}")
        for model in ("model", *models)
        for suffix in ("", *(f".{name}" for name in names))
    ]
    return {
        "models": models,
        "sources": largest_first(figures, names),
        "low": int(4 * min(values)) / 4,
        "high": (int(4 * max(values)) + 1) / 4,
        "tasks": figures.tasks(),
        "samples": page.report["samples"],
        "definitions": page.report["definitions"],
    }


@section
def tuning(page: PageInput) -> Section | None:
    """Return what tuning wrote: figures before and after, other figures, texts, and examples."""
    table = page.report["tuning"]
    if not table:
        return None
    names = page.figures.names_after("tune.")
    pairs = [name.removeprefix("before.") for name in names if name.startswith("before.")]
    pairs = [name for name in pairs if f"after.{name}" in names]
    paired = {f"{side}.{name}" for name in pairs for side in ("before", "after")}
    examples = table.get("examples")
    rows = [row for row in examples if isinstance(row, dict)] if isinstance(examples, list) else []
    return {
        "pairs": [(name, tuning_form(name)) for name in pairs],
        "others": [(name, tuning_form(name)) for name in names if name not in paired],
        "examples": [dict(dialogue(row)) for row in rows],
        "words": {key: value for key, value in table.items() if isinstance(value, str)},
        "definitions": texts_by_path(table.get("definitions", {})),
    }


def tuning_form(name: str) -> str:
    """Return the form of a figure of tuning: shares, losses, and counts as they are."""
    last = name.rpartition(".")[2]
    if last == "ended" or last.startswith(("accuracy", "baseline")):
        return "share"
    return "three" if last == "loss" else ""


def dialogue(example: Row) -> Iterator[tuple[str, str]]:
    """Yield the parts of an example of tuning: the turns of its prompt, and each answer."""
    for name, part in example.items():
        if isinstance(part, list):
            turns = [(t.get("role", ""), t.get("content", "")) for t in part if isinstance(t, dict)]
            yield name, "\n".join(f"{role}: {content}" for role, content in turns)
        elif isinstance(part, dict):
            title = name if part.get("ended", True) else f"{name}, not ended by itself"
            yield title, str(part.get("text", ""))
        elif isinstance(part, str):
            yield name, part


@section
def exports(page: PageInput) -> Section | None:
    """Return what the parity check compared, figures and texts, by format if there are several."""
    figures = page.figures
    if not page.report["exports"]:
        return None
    groups: dict[str, Section] = {}
    figure_rows = [(path, "figures", path) for path in figures.names_after("export.")]
    text_rows = [(path, "words", text) for path, text in texts_by_path(page.report["exports"])]
    for path, column, entry in figure_rows + text_rows:
        group, _, name = path.rpartition(".")
        groups.setdefault(group, {"figures": [], "words": []})[column].append((name, entry))
    return {"groups": groups}


def texts_by_path(value: Any) -> list[tuple[str, str]]:
    """Return the texts in nested tables with their dotted paths."""
    return [(path, text) for path, text in leaves(value) if isinstance(text, str) and text]


@section
def cost(page: PageInput) -> Section | None:
    """Return the stages with where each begins in the whole, and planned figures with measured."""
    figures = page.figures
    names = figures.names_after("stage.")
    stages = [name.removesuffix(".seconds") for name in names if name.endswith(".seconds")]
    if not stages:
        return None
    rows, before = [], 0.0
    for stage in sorted(stages, key=lambda s: STAGES.index(s) if s in STAGES else len(STAGES)):
        share = figures.value(f"stage.{stage}.share")
        rows.append({"name": stage, "left": bar_width(before, 1), "width": bar_width(share, 1)})
        before += share
    both = [n for n in PLANNED if figures.has(f"plan.{n}") and figures.has(f"compare.{n}")]
    return {"stages": rows, "planned": [(name, PLANNED[name][0]) for name in both]}


@section
def origins(page: PageInput) -> Section | None:
    """Return the recipe, and the names of all figures by the file that they were computed from."""
    by_file: dict[str, list[str]] = {file: [] for file in page.figures.origins}
    for name, entry in page.report["figures"].items():
        by_file[entry["from"]].append(name)
    return {"by": by_file, "recipe": tomli_w.dumps(page.report["recipe"])}
