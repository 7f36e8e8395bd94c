"""Show what documents are like before and after each step of refine, as histograms.

The numbers are those of refine/quality.json, which counts documents in bins on a fixed logarithmic
scale: `edges` are the borders of all bins, and a histogram holds the code of its first filled bin
and the counts from there on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from groundup.report.figures import Figure
from groundup.report.formatting import short, spelled
from groundup.report.run_files import DamagedRunFileError, json_file

FILE = "refine/quality.json"
STEPS = ("collected", "cleaned", "filtered", "kept")
UNITS = {"bytes": "bytes", "words": "words", "repeated_lines": "share"}
# Only the scores of the filters that dropped most are drawn.
MAX_SCORES = 4

Table = dict[str, Any]


def distributions(root: Path) -> Table:
    """Return what report.json holds: histograms of all measures, and of the scores drawn.

    Raises:
        DamagedRunFileError: refine/quality.json is not what refine writes.
    """
    quality = json_file(root, FILE)
    if quality is None:
        return {}
    try:
        sources = {}
        for name, source in quality["sources"].items():
            dropped, scores = source["dropped"], source["scores"]
            ranked = sorted(dropped, key=lambda name: (-dropped[name]["documents"], name))
            drawn = [reason for reason in ranked if reason in scores][:MAX_SCORES]
            sources[name] = source | {
                "scores": {score: scores[score] for score in drawn},
                "dropped": {reason: dropped[reason] for reason in ranked},
            }
        table = {"from": FILE} | quality | {"sources": sources}
        # What cannot be drawn is not shown at all.
        list(distribution_figures(table))
        drawings(table)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise DamagedRunFileError(f"{FILE} is damaged") from None
    return table


def distribution_figures(table: Table) -> Iterator[Figure]:
    """Yield medians, documents and bytes by step, and the shares that were lost, by source."""
    for name, source in table.get("sources", {}).items():
        yield Figure(f"refine.lost.{name}", source["lost"], "share", FILE)
        for step in STEPS:
            for unit in ("documents", "bytes"):
                count = source["steps"][step][unit]
                yield Figure(f"refine.step.{unit}.{step}.{name}", count, unit, FILE)
        for measure, unit in UNITS.items():
            for step in ("collected", "kept"):
                quantiles = source["measures"][measure][step]["quantiles"]
                median = quantiles[1] if quantiles else None
                yield Figure(f"refine.median.{measure}.{step}.{name}", median, unit, FILE)
        size = source["steps"]["collected"]["bytes"]
        for reason, counts in source["dropped"].items():
            share = counts["bytes"] / size if size else None
            yield Figure(f"refine.dropped_share.{name}@{reason}", share, "share", FILE)


def drawings(table: Table) -> dict[str, Any]:
    """Return the histograms of the page: by source, and an overview of lengths on one scale."""
    sources, edges = table.get("sources", {}), table.get("edges", [])
    by_source = {
        name: {
            "measures": {
                measure: histogram(edges, source["measures"][measure], f"{measure} of {name}")
                for measure in UNITS
            },
            "scores": {
                score: histogram(edges, steps, f"{score} of {name}", steps["bounds"])
                for score, steps in source["scores"].items()
            },
        }
        for name, source in sources.items()
    }
    lengths = {name: source["measures"]["bytes"] for name, source in sources.items()}
    axis = Axis.over([steps[step] for steps in lengths.values() for step in STEPS], edges)
    overview = {
        name: svg(_bars(steps, axis), f"lengths of {name}", HEIGHT)
        for name, steps in lengths.items()
    }
    scale = svg(list(_ticks(edges, axis, 0)), "bytes", FOOT)
    return {"sources": by_source, "overview": overview, "scale": scale}


# Units of a drawing are about the pixels that it has on a page, so its words have their size.
WIDTH, HEIGHT, FOOT = 220, 64, 14
# MIN_BARS are three doublings, so that neighboring bins do not look like different worlds.
MAX_BARS, MIN_BARS = 44, 12
# Numbers that can stand below a scale: 1, 2 and 5 times the powers of ten.
TICKS = [0.0] + [sign * d * 10.0**p for sign in (-1, 1) for d in (1, 2, 5) for p in range(-3, 9)]
TICK_DISTANCE = 38


@dataclass(frozen=True)
class Axis:
    """Maps codes of bins to places: `bars` bars of `each` codes, from code `first` on."""

    first: int
    bars: int
    each: int

    @staticmethod
    def over(histograms: Sequence[Table], edges: Sequence[float]) -> Axis:
        """Return the axis that holds every histogram; many bins are joined into fewer bars."""
        filled = [h for h in histograms if h["counts"]]
        first = min((h["first"] for h in filled), default=0)
        last = max((h["first"] + len(h["counts"]) for h in filled), default=1)
        # Widen a short axis on both sides, but not beyond zero, where no measure can lie.
        zero = sum(edge < 0 for edge in edges)
        first -= max(0, min(MIN_BARS - (last - first), 2 * (first - zero))) // 2
        last = max(last, first + MIN_BARS)
        each = math.ceil((last - first) / MAX_BARS)
        return Axis(first, math.ceil((last - first) / each), each)

    def place(self, code: float) -> float:
        """Return the place of a code, from the left."""
        return WIDTH * (code - self.first) / (self.bars * self.each)

    def counts(self, histogram: Table) -> list[int]:
        """Return the count of each bar."""
        bars = [0] * self.bars
        for n, count in enumerate(histogram["counts"]):
            bars[(histogram["first"] + n - self.first) // self.each] += count
        return bars


def histogram(
    edges: Sequence[float],
    steps: Mapping[str, Table],
    title: str,
    bounds: Sequence[float | None] = (),
) -> Markup:
    """Return a small histogram: one outline for each step, dashed lines at a filter's bounds."""
    axis = Axis.over([steps[step] for step in STEPS if step in steps], edges)
    places = [axis.place(_code(edges, bound)) for bound in bounds if bound is not None]
    lines = [f'<path class="b" d="M{x:.1f} 0V{HEIGHT}"/>' for x in places if 0 <= x <= WIDTH]
    return svg([*_bars(steps, axis), *lines, *_ticks(edges, axis, HEIGHT)], title, HEIGHT + FOOT)


def svg(parts: Sequence[str], title: str, height: int) -> Markup:
    """Return a drawing of these parts; screen readers read `title`."""
    head = (
        f'<svg class="hist" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(spelled(title))}">'
    )
    return Markup(head + "".join(parts) + "</svg>")


def _bars(steps: Mapping[str, Table], axis: Axis) -> list[str]:
    """Return a filled outline for each step, in units of a bar; any filled bar can be seen."""
    bars = {step: axis.counts(steps[step]) for step in STEPS if step in steps}
    highest = max((max(counts) for counts in bars.values()), default=0) or 1
    # Two steps that look the same are drawn once.
    for step, other in (("cleaned", "collected"), ("filtered", "kept")):
        if step in bars and bars[step] == bars.get(other):
            del bars[step]
    outlines = []
    for step, counts in bars.items():
        path, level = f"M0 {HEIGHT}", HEIGHT
        for n, count in enumerate(counts):
            top = HEIGHT - max(1, round(HEIGHT * count / highest)) if count else HEIGHT
            if top != level:
                path += f"H{n}V{top}"
                level = top
        outlines.append(f'<path class="{step}" d="{path}H{len(counts)}V{HEIGHT}z"/>')
    return [f'<g transform="scale({WIDTH / axis.bars:.4g} 1)">', *outlines, "</g>"]


def _code(edges: Sequence[float], value: float) -> float:
    """Return where a value lies among the bins, whole numbers at their edges."""
    below = sum(edge < value for edge in edges)
    if below in (0, len(edges)) or edges[below - 1] * edges[below] <= 0 or value == 0:
        return below + 0.5
    return below + math.log(value / edges[below - 1]) / math.log(edges[below] / edges[below - 1])


def _ticks(edges: Sequence[float], axis: Axis, top: int) -> Iterator[str]:
    """Yield ticks and their words while there is room, powers of ten before others."""
    taken: list[float] = []
    for value in sorted(TICKS, key=lambda value: (f"{value:e}".lstrip("-")[0] not in "01", value)):
        x = axis.place(_code(edges, value))
        if not 0 <= x <= WIDTH or any(abs(x - other) <= TICK_DISTANCE for other in taken):
            continue
        taken.append(x)
        anchor = "middle"
        if x < 14 or x > WIDTH - 14:
            anchor = "start" if x < 14 else "end"
        words = re.sub(r"\.0+(?= |$)", "", short(value))
        yield f'<path class="t" d="M{x:.1f} {top}v3"/>'
        yield f'<text x="{x:.1f}" y="{top + FOOT - 1}" text-anchor="{anchor}">{words}</text>'
