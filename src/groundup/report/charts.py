"""Draw training curves and histograms of a report as inline SVG.

Matplotlib draws with placeholder colors, which stand for CSS variables of the page: one drawing
serves light and dark. No id, date or address of matplotlib is left in a drawing, so equal metrics
give equal bytes and two charts can be on one page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from groundup.report.figures import Row, number
from groundup.report.formatting import short, spelled

# Placeholder colors that nobody uses; each is replaced by a variable of the page.
PLACEHOLDERS = {
    "#010203": "currentColor",
    "#010204": "var(--muted)",
    "#010205": "var(--accent)",
    "#010206": "var(--rule)",
    "#010207": "var(--second)",
    "#010208": "var(--third)",
    "#010209": "var(--fourth)",
}
INK, MUTED, ACCENT, RULE, SECOND, THIRD, FOURTH = PLACEHOLDERS
SERIES = ((ACCENT, "-"), (SECOND, "--"), (THIRD, "-."), (FOURTH, ":"))
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "groundup",
    "svg.fonttype": "none",
    "font.size": 8,
    # A run may be called $x$.
    "text.parse_math": False,
    "text.color": INK,
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), RULE),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), MUTED),
    **{f"axes.spines.{side}": False for side in ("top", "right", "left")},
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
}
# A longer curve is averaged in buckets: more points than pixels make a page heavy and no clearer.
MAX_POINTS = 500
# A shorter curve marks its points: one point is no line.
FEW_POINTS = 10
Bounds = Sequence[float | None]
# Inches.
WIDE, NARROW, SMALL = (7.4, 3.1), (3.5, 2.6), (2.55, 1.75)


def series(lines: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of a metric, averaged in buckets if there are many."""
    measured = [line for line in lines if number(line.get(metric)) is not None]
    points = [(float(line["step"]), float(line[metric])) for line in measured]
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    buckets = [points[n : n + size] for n in range(0, len(points), size)]
    steps = [bucket[-1][0] for bucket in buckets]
    return steps, [sum(value for _, value in bucket) / len(bucket) for bucket in buckets]


def has_curve(lines: Sequence[Row], metric: str) -> bool:
    """Whether a metric was logged twice; one point makes no curve."""
    return len(series(lines, metric)[0]) > 1


def chart(name: str, size: tuple[float, float], title: str, draw: Callable[[Axes], None]) -> str:
    """Return what `draw` puts on one pair of axes as inline SVG; screen readers read `title`."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.add_subplot())
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    foreign = r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->| xmlns(:\w+)?=\"[^\"]*\""
    svg = re.sub(foreign, "", svg, flags=re.DOTALL)
    # Ids of this chart only.
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The page's font; the shorthand needs a family, so it becomes a size alone.
    svg = re.sub(r"font: (?:\w+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    # Coordinates with two digits behind the point.
    coordinates = r'(?<=[ "])(?:d|x|y|transform)="[^"]*"'
    svg = re.sub(coordinates, lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), svg)
    for placeholder, color in PLACEHOLDERS.items():
        svg = svg.replace(placeholder, color)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    head = f'<svg class="chart {name.rpartition("-")[2]}" role="img" aria-label="{title}" '
    return re.sub(r"\n\s*\n+", "\n", svg.replace("<svg ", head, 1))


def wide_and_narrow(name: str, title: str, draw: Callable[[Axes], None]) -> str:
    """Return a chart for screens and one for phones; the style sheet shows one of them."""
    wide = chart(f"{name}-wide", WIDE, title, draw)
    return wide + chart(f"{name}-narrow", NARROW, title, draw)


def loss_chart(lines: Sequence[Row], checkpoints: Sequence[int], best: int | None) -> str:
    """Return the curves of both losses, with checkpoints marked and the best one named."""

    def draw(axes: Axes) -> None:
        steps, losses = series(lines, "loss")
        marker = "." if len(steps) < FEW_POINTS else ""
        axes.plot(steps, losses, marker=marker, color=MUTED, linewidth=1, label="training")
        steps, losses = series(lines, "validation_loss")
        axes.plot(steps, losses, color=ACCENT, marker="o", markersize=3.2, label="validation")
        axes.set_ylabel("nats a token")
        if checkpoints:
            low = axes.get_ylim()[0]
            style: Any = {"color": INK, "markersize": 4.5, "clip_on": False, "zorder": 5}
            axes.plot(checkpoints, [low] * len(checkpoints), "^", label="checkpoint", **style)
            axes.set_ylim(bottom=low)
        axes.legend(loc="upper right", labelcolor=MUTED)
        _mark_best(axes, lines, best)
        _x_axis(axes, "step")
        if rate := _tokens_per_step(lines):
            functions = (lambda step: step * rate, lambda tokens: tokens / rate)
            above = axes.secondary_xaxis("top", functions=functions)
            _x_axis(above, "tokens seen")
            above.tick_params(length=2)
            above.grid(visible=False)

    return wide_and_narrow("loss", "Training and validation loss over steps and tokens", draw)


def small_chart(lines: Sequence[Row], metric: str, title: str, log: bool = False) -> str:
    """Return a small curve of one metric over steps."""

    def draw(axes: Axes) -> None:
        steps, values = series(lines, metric)
        axes.plot(steps, values, color=ACCENT)
        if log and values and min(values) > 0:
            axes.set_yscale("log")
            axes.minorticks_off()
        else:
            axes.set_ylim(0, 1.06 * max(values, default=1.0) or 1.0)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        _x_axis(axes, "step")

    return chart(f"{metric.replace('_', '')}-small", SMALL, title, draw)


def overlaid_losses(runs: Mapping[str, Sequence[Row]]) -> str:
    """Return the losses of several runs over tokens: validation loss if there is any."""

    def draw(axes: Axes) -> None:
        for n, (name, lines) in enumerate(runs.items()):
            color, style = SERIES[n % len(SERIES)]
            validated = any("validation_loss" in line for line in lines)
            steps, losses = series(lines, "validation_loss" if validated else "loss")
            rate = _tokens_per_step(lines) or 1
            tokens = [step * rate for step in steps]
            axes.plot(tokens, losses, style, color=color, marker="o", markersize=2.5, label=name)
        axes.set_ylabel("nats a token")
        axes.legend(loc="upper right", labelcolor=INK)
        _x_axis(axes, "tokens seen")

    return wide_and_narrow("runs", "Loss of each run over the tokens that it had seen", draw)


def _x_axis(axes: Any, label: str) -> None:
    """Give steps whole numbers, and tokens short ones."""
    steps = label == "step"
    form: Callable[[float], str] = "{:,.0f}".format if steps else short
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.set_xlabel(label)
    if steps:
        axes.margins(x=0.015)


def _tokens_per_step(lines: Sequence[Row]) -> float | None:
    """Return the mean tokens of a step, None if no line tells."""
    told = [line for line in lines if number(line.get("tokens")) and line["step"]]
    return float(told[-1]["tokens"] / told[-1]["step"]) if told else None


def _mark_best(axes: Axes, lines: Sequence[Row], best: int | None) -> None:
    """Put a ring around the lowest validation loss, with its value and step."""
    losses = (number(line.get("validation_loss")) for line in lines if line["step"] == best)
    loss = next((value for value in losses if value is not None), None)
    if best is None or loss is None:
        return
    ring: Any = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.2}
    axes.plot([best], [loss], "o", markeredgecolor=ACCENT, **ring)
    early = best < sum(axes.get_xlim()) / 2
    words, offset = f"best: {loss:.3f} at step {best:,}", (8 if early else -8, 14)
    style: Any = {"ha": "left" if early else "right", "color": ACCENT, "fontweight": "bold"}
    axes.annotate(words, (best, loss), offset, textcoords="offset points", **style)


# Histograms of documents: refine/quality.json counts them in bins on a fixed logarithmic scale.
# `edges` are the borders of all bins, and a histogram holds the code of its first filled bin and
# the counts from there on.
STEPS = ("collected", "cleaned", "filtered", "kept")
# Measure → its unit.
MEASURES = {"bytes": "bytes", "words": "words", "repeated_lines": "share"}
# Of a histogram; units are about the pixels that it has on a page, so its words have their size.
WIDTH, HEIGHT, FOOT = 220, 64, 14
# MIN_BARS are three doublings, so that neighboring bins do not look like different worlds.
MAX_BARS, MIN_BARS = 44, 12
# Numbers that can stand below a scale: 1, 2 and 5 times the powers of ten.
TICKS = [0.0] + [sign * d * 10.0**p for sign in (-1, 1) for d in (1, 2, 5) for p in range(-3, 9)]
TICK_DISTANCE = 38


def drawings(table: Row) -> dict[str, Any]:
    """Return the histograms of the page: by source, and an overview of lengths on one scale."""
    sources, edges = table.get("sources", {}), table.get("edges", [])
    by_source: dict[str, dict[str, dict[str, Markup]]] = {}
    for name, source in sources.items():
        drawn = by_source[name] = {"measures": {}, "scores": {}}
        for measure in MEASURES:
            steps, title = source["measures"][measure], f"{measure} of {name}"
            drawn["measures"][measure] = histogram(edges, steps, title)
        for score, steps in source["scores"].items():
            title, bounds = f"{score} of {name}", steps["bounds"]
            drawn["scores"][score] = histogram(edges, steps, title, bounds)
    lengths = {name: source["measures"]["bytes"] for name, source in sources.items()}
    axis = Axis.over([steps[step] for steps in lengths.values() for step in STEPS], edges)
    titles = [(name, f"lengths of {name}") for name in lengths]
    overview = {name: svg(_bars(lengths[name], axis), title, HEIGHT) for name, title in titles}
    scale = svg(list(_ticks(edges, axis, 0)), "bytes", FOOT)
    return {"sources": by_source, "overview": overview, "scale": scale}


@dataclass(frozen=True)
class Axis:
    """Maps codes of bins to places: `bars` bars of `each` codes, from code `first` on."""

    first: int
    bars: int
    each: int

    @staticmethod
    def over(histograms: Sequence[Row], edges: Sequence[float]) -> Axis:
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

    def counts(self, histogram: Row) -> list[int]:
        """Return the count of each bar."""
        bars = [0] * self.bars
        for n, count in enumerate(histogram["counts"]):
            bars[(histogram["first"] + n - self.first) // self.each] += count
        return bars


def histogram(
    edges: Sequence[float], steps: Mapping[str, Row], title: str, bounds: Bounds = ()
) -> Markup:
    """Return a small histogram: one outline for each step, dashed lines at a filter's bounds."""
    axis = Axis.over([steps[step] for step in STEPS if step in steps], edges)
    places = [axis.place(_code(edges, bound)) for bound in bounds if bound is not None]
    lines = [f'<path class="b" d="M{x:.1f} 0V{HEIGHT}"/>' for x in places if 0 <= x <= WIDTH]
    return svg([*_bars(steps, axis), *lines, *_ticks(edges, axis, HEIGHT)], title, HEIGHT + FOOT)


def svg(parts: Sequence[str], title: str, height: int) -> Markup:
    """Return a drawing of these parts; screen readers read `title`."""
    box, label = f"0 0 {WIDTH} {height}", escape(spelled(title))
    head = f'<svg class="hist" viewBox="{box}" role="img" aria-label="{label}">'
    return Markup(head + "".join(parts) + "</svg>")


def _bars(steps: Mapping[str, Row], axis: Axis) -> list[str]:
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
        anchor = "start" if x < 14 else "middle"
        anchor = "end" if x > WIDTH - 14 else anchor
        words = re.sub(r"\.0+(?= |$)", "", short(value))
        yield f'<path class="t" d="M{x:.1f} {top}v3"/>'
        yield f'<text x="{x:.1f}" y="{top + FOOT - 1}" text-anchor="{anchor}">{words}</text>'
