"""What documents are like before and after each step, for the page and report.json. Reads
refine/quality.json; returns tables, figures and inline SVG.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from groundup.report.figure import Figure
from groundup.report.formatting import short, spelled
from groundup.report.run_files import DamagedError, json_file

FILE = "refine/quality.json"
STEPS = ("collected", "cleaned", "filtered", "kept")
UNITS = {
    "bytes": "bytes",
    "words": "words",
    "compression": "ratio",
    "repeated_lines": "share",
    "repeated_runs": "share",
}
# Scores that are drawn for a source: of the filters that dropped most of it.
MOST_SCORES = 4

Table = dict[str, Any]


def distributions(root: Path) -> Table:
    """Return what report.json holds of the distributions: histograms of the measures, and of the
    scores that dropped most.

    Raises:
        DamagedError: the file is there and is none.
    """
    found = json_file(root, FILE)
    if found is None:
        return {}
    try:
        sources = {
            name: source | {"scores": dict(_scores(source)), "dropped": _ranked(source["dropped"])}
            for name, source in found["sources"].items()
        }
        told = {"from": FILE} | found | {"sources": sources}
        # What cannot be drawn is not shown at all.
        list(distribution_figures(told))
        drawings(told)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise DamagedError(f"{FILE} is damaged") from None
    return told


def _scores(source: Table) -> Iterator[tuple[str, Table]]:
    dropped = {
        name: source["dropped"][name]["documents"]
        for name in source["scores"]
        if name in source["dropped"]
    }
    for name in sorted(dropped, key=lambda name: (-dropped[name], name))[:MOST_SCORES]:
        yield name, source["scores"][name]


def _ranked(counts: Table) -> Table:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1]["documents"], entry[0])))


def distribution_figures(found: Table) -> Iterator[Figure]:
    """Yield medians, documents by step, and the shares that were lost, by source."""
    for name, source in found.get("sources", {}).items():
        yield Figure(f"refine.lost.{name}", source["lost"], "share", FILE)
        for step in STEPS:
            yield Figure(
                f"refine.step.documents.{step}.{name}",
                source["steps"][step]["documents"],
                "documents",
                FILE,
            )
            yield Figure(
                f"refine.step.bytes.{step}.{name}", source["steps"][step]["bytes"], "bytes", FILE
            )
        for measure, unit in UNITS.items():
            for step in ("collected", "kept"):
                middle = source["measures"][measure][step]["quantiles"]
                yield Figure(
                    f"refine.median.{measure}.{step}.{name}",
                    middle[1] if middle else None,
                    unit,
                    FILE,
                )
        size = source["steps"]["collected"]["bytes"]
        for reason, counts in source["dropped"].items():
            yield Figure(
                f"refine.dropped_share.{name}@{reason}",
                counts["bytes"] / size if size else None,
                "share",
                FILE,
            )


def drawings(found: Table) -> dict[str, Any]:
    """Return the drawings of the page: by source those of its `measures` and `scores`, and for all
    an `overview` of lengths.

    Those of the overview share one `scale`, so that sources can be compared.
    """
    sources, edges = found.get("sources", {}), found.get("edges", [])
    lengths = {name: source["measures"]["bytes"] for name, source in sources.items()}
    axis = Axis.over([steps[step] for steps in lengths.values() for step in STEPS], edges)
    by_source = {}
    for name, source in sources.items():
        measures = {
            measure: histogram(edges, source["measures"][measure], f"{measure} of {name}")
            for measure in UNITS
        }
        scores = {
            score: histogram(edges, of, f"{score} of {name}", of["bounds"])
            for score, of in source["scores"].items()
        }
        by_source[name] = {"measures": measures, "scores": scores}
    overview = {
        name: svg(_bars(steps, axis), f"lengths of {name}", HEIGHT)
        for name, steps in lengths.items()
    }
    return {
        "sources": by_source,
        "overview": overview,
        "scale": svg(list(_ticks(edges, axis, 0)), "bytes", FOOT),
    }


# Units of a drawing: about the pixels that it has on a page, so that its words have their size.
WIDTH, HEIGHT, FOOT = 220, 64, 14
# Three doublings at least, so that neighboring bins do not look like different worlds.
MOST_BARS, FEWEST = 44, 12
# What can stand below a scale.
MARKS = sorted(
    [
        0.0,
        *(
            sign * digit * 10.0**power
            for sign in (-1, 1)
            for digit in (1, 2, 5)
            for power in range(-3, 9)
        ),
    ]
)


@dataclass(frozen=True)
class Axis:
    """From codes of bins to places: `bars` of `each` codes, from code `first` on."""

    first: int
    bars: int
    each: int

    @staticmethod
    def over(histograms: Sequence[Table], edges: Sequence[float]) -> Axis:
        """Return the axis that holds every histogram; bins are joined where there are many."""
        filled = [h for h in histograms if h["counts"]]
        first = min((h["first"] for h in filled), default=0)
        last = max((h["first"] + len(h["counts"]) for h in filled), default=1)
        # Not beyond zero, where no measure can lie.
        first -= (
            max(0, min(FEWEST - (last - first), 2 * (first - sum(edge < 0 for edge in edges)))) // 2
        )
        last = max(last, first + FEWEST)
        each = math.ceil((last - first) / MOST_BARS)
        return Axis(first, math.ceil((last - first) / each), each)

    def place(self, code: float) -> float:
        """Return where a code lies, from the left."""
        return WIDTH * (code - self.first) / (self.bars * self.each)

    def counts(self, histogram: Table) -> list[int]:
        """Return the counts of each bar."""
        found = [0] * self.bars
        for n, count in enumerate(histogram["counts"]):
            found[(histogram["first"] + n - self.first) // self.each] += count
        return found


def histogram(
    edges: Sequence[float],
    steps: Mapping[str, Table],
    title: str,
    bounds: Sequence[float | None] = (),
) -> Markup:
    """Return a small drawing: documents over a logarithmic scale, one outline a step, dashed lines
    at the bounds of a filter.
    """
    axis = Axis.over([steps[step] for step in STEPS if step in steps], edges)
    places = [axis.place(_code(edges, bound)) for bound in bounds if bound is not None]
    lines = [f'<path class="b" d="M{x:.1f} 0V{HEIGHT}"/>' for x in places if 0 <= x <= WIDTH]
    return svg([*_bars(steps, axis), *lines, *_ticks(edges, axis, HEIGHT)], title, HEIGHT + FOOT)


def svg(parts: Sequence[str], title: str, height: int) -> Markup:
    """Return a drawing of these parts; `title` is for those who cannot see it."""
    head = (
        f'<svg class="hist" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(spelled(title))}">'
    )
    return Markup(head + "".join(parts) + "</svg>")


def _bars(steps: Mapping[str, Table], axis: Axis) -> list[str]:
    """Return an outline for each step, in units of a bar; one that is the same as its neighbor's is
    drawn once.
    """
    bars = {step: axis.counts(steps[step]) for step in STEPS if step in steps}
    highest = max((max(found) for found in bars.values()), default=0) or 1
    twins = [
        one
        for one, other in (("cleaned", "collected"), ("filtered", "kept"))
        if bars.get(one) == bars.get(other)
    ]
    paths = [_outline(step, found, highest) for step, found in bars.items() if step not in twins]
    return [f'<g transform="scale({WIDTH / axis.bars:.4g} 1)">', *paths, "</g>"]


def _outline(step: str, bars: Sequence[int], highest: int) -> str:
    """Return the filled outline of a step; a bar that holds anything can be seen."""
    path, level = f"M0 {HEIGHT}", HEIGHT
    for n, count in enumerate(bars):
        top = HEIGHT - max(1, round(HEIGHT * count / highest)) if count else HEIGHT
        if top != level:
            path += f"H{n}V{top}"
            level = top
    return f'<path class="{step}" d="{path}H{len(bars)}V{HEIGHT}z"/>'


def _code(edges: Sequence[float], value: float) -> float:
    """Return where a value lies among the bins: whole numbers at their edges."""
    below = sum(edge < value for edge in edges)
    if below in (0, len(edges)) or edges[below - 1] * edges[below] <= 0 or value == 0:
        return below + 0.5
    return below + math.log(value / edges[below - 1]) / math.log(edges[below] / edges[below - 1])


def _ticks(edges: Sequence[float], axis: Axis, top: int) -> Iterator[str]:
    """Yield the words below the scale: as many of the marks as have room, powers of ten before
    others.
    """
    places = {value: axis.place(_code(edges, value)) for value in MARKS}
    taken: list[float] = []
    for value in sorted(
        MARKS, key=lambda value: (not f"{abs(value):e}".startswith(("0", "1")), value)
    ):
        x = places[value]
        if 0 <= x <= WIDTH and all(abs(x - other) > 38 for other in taken):
            taken.append(x)
            anchor = "start" if x < 14 else "end" if x > WIDTH - 14 else "middle"
            words = (
                f'<text x="{x:.1f}" y="{top + FOOT - 1}"'
                f' text-anchor="{anchor}">{_words(value)}</text>'
            )
            yield f'<path class="t" d="M{x:.1f} {top}v3"/>{words}'


def _words(value: float) -> str:
    """`100`, `1 k`, `0.01`: round numbers without zeros behind the point."""
    return re.sub(r"\.0+(?= |$)", "", short(value))
