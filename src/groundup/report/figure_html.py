"""Puts figures on a page, each with its origin. Reads the figures of a report; returns safe markup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from groundup.report.formatting import MISSING, formatted, spelled, visible
from groundup.report.run_files import number

_FIGURE = Markup(
    '<span class="f" data-figure="{name}" data-form="{form}" title="{name}, from'
    ' {origin}">{text}</span>'
)
_ORIGIN = Markup('<sup><a class="o" href="#o{number}" title="from {origin}">{number}</a></sup>')


class Marks:
    """The figures of a report, and the numbers by which their artifacts are cited."""

    def __init__(self, figures: Mapping[str, Mapping[str, Any]]) -> None:
        self.figures = figures
        self.origins = {
            origin: n
            for n, origin in enumerate(sorted({str(f["from"]) for f in figures.values()}), 1)
        }

    def fig(self, name: str, form: str = "", note: bool = False) -> Markup:
        """Return a figure in words, its origin as a tooltip; with `note`, also as a number that
        leads to the artifact.

        A figure that was not computed is a dash.
        """
        entry = self.figures.get(name)
        if entry is None or entry["value"] is None:
            return Markup('<span class="none">{}</span>').format(MISSING)
        text = visible(formatted(entry["value"], form))
        shown = _FIGURE.format(
            name=spelled(name), form=form, origin=spelled(entry["from"]), text=text
        )
        return shown + self.origin(entry["from"]) if note else shown

    def origin(self, path: str) -> Markup:
        """Return the number of an artifact, which leads to its place in the appendix."""
        found = self.origins.get(path)
        return _ORIGIN.format(number=found, origin=spelled(path)) if found else Markup("")

    def has(self, name: str) -> bool:
        """Whether a figure was computed."""
        return name in self.figures and self.figures[name]["value"] is not None

    def value(self, name: str, otherwise: float = 0.0) -> float:
        """Return a figure as a number."""
        found = number(self.figures[name]["value"]) if name in self.figures else None
        return otherwise if found is None else found

    def ends(self, prefix: str) -> list[str]:
        """Return what follows a prefix in the names of figures, in the order of report.json."""
        return [name.removeprefix(prefix) for name in self.figures if name.startswith(prefix)]

    def by_origin(self) -> dict[str, list[str]]:
        """Return the names of all figures, by the artifact that they were computed from."""
        found: dict[str, list[str]] = {origin: [] for origin in self.origins}
        for name, entry in self.figures.items():
            found[entry["from"]].append(name)
        return found
