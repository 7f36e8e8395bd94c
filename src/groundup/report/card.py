"""Makes the model card of a report. Reads what report.json holds; returns Markdown with the front
matter of the Hugging Face hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from groundup.artifacts.model_card import CONTINUE_CODE, model_card
from groundup.report.figure_html import Marks
from groundup.report.formatting import MISSING, formatted, spaced
from groundup.report.gather import Report
from groundup.report.page import COUNTING, data

# Licenses of the hub by the names that sources give; anything else is "other" there.
_HUB = re.compile(
    r"(mit|apache-2\.0|cc0-1\.0|unlicense|bsd-[23]-clause|[al]?gpl-[23]\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|pddl|odbl)"
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+!|~$&])")


def card(report: Report) -> str:
    """Return README.md; every number in it is a figure of the report."""
    marks = Marks(report["figures"])
    # Markdown, not HTML: what is foreign goes through `plain`.
    environment = Environment(
        loader=PackageLoader("groundup.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "spaced": spaced}

    def fig(name: str, form: str = "") -> str:
        entry = marks.figures.get(name)
        return plain(formatted(entry["value"], form)) if entry else MISSING

    here: dict[str, Any] = data(report, marks, []) or {"sources": [], "told": {}, "licenses": {}}
    shown = {
        "fig": fig,
        "has": marks.has,
        "value": marks.value,
        "here": here,
        "origin": lambda name: report["figures"][name]["from"],
    }
    models = [name for name in COUNTING if marks.has(f"evaluate.{name}.bits_per_byte")]
    body = environment.get_template("card.md").render(
        shown, report=report, models=models, usage=CONTINUE_CODE, rows=rows(marks)
    )
    text = model_card(plain(report["name"]), body, license_of(here, report["base"]))
    return re.sub(r"\n{3,}", "\n\n", text)


def rows(marks: Marks) -> list[tuple[str, str, str]]:
    """Return name, form and words of the figures that a card shows, those that the run has."""
    wanted = [
        ("model.parameters", "count", "parameters"),
        ("model.context", "count", "context, tokens"),
        ("tokens.vocabulary", "count", "vocabulary, entries"),
        ("tokens.kept.tokens", "count", "tokens in the data"),
        ("train.tokens", "count", "tokens trained on"),
        ("train.steps", "count", "steps"),
        ("train.validation_loss.best", "three", "lowest validation loss, nats a token"),
        ("evaluate.model.bits_per_byte", "three", "bits per byte of held-out text"),
        ("evaluate.model.bits_per_byte_error", "three", "its standard error"),
        ("evaluate.model.perplexity", "one", "perplexity a token"),
        ("evaluate.passages.accuracy", "share", "next passage among several, right"),
        ("evaluate.passages.chance", "share", "the same by chance"),
        ("run.seconds", "seconds", "time of all stages"),
    ]
    return [row for row in wanted if marks.has(row[0])]


def license_of(here: dict[str, Any], began: Mapping[str, str]) -> str:
    """Return the one license of all sources, and of the weights that training began with, as the
    hub names it.

    It is "other" for another or several, "" where none is stated.
    """
    stated = [
        here["licenses"].get(source) or [here["told"].get(source, {}).get("license", "")]
        for source in here["sources"]
    ]
    names = {
        name for licenses in [*stated, [began.get("license", "")]] for name in licenses if name
    }
    if not names:
        return ""
    found = next(iter(names)).lower()
    return found if len(names) == 1 and _HUB.fullmatch(found) else "other"


def plain(text: object) -> str:
    """Return foreign text as one line of Markdown that means nothing but itself."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return _MARKUP.sub(r"\\\1", line)
