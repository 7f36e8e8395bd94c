"""Curves of training as inline SVG that takes its colors and its font from the page. Reads metric
lines; returns markup.

Colors are sentinels that stand for CSS variables, so one drawing serves light and dark; no id, date
or address of the drawing library is left in it, so equal lines give equal bytes and two charts can
stand on one page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from groundup.report.formatting import short
from groundup.report.run_files import Row, number

# Nobody's colors: each is replaced by what the page has under that name.
SENTINELS = {
    "#010203": "currentColor",
    "#010204": "var(--muted)",
    "#010205": "var(--accent)",
    "#010206": "var(--rule)",
    "#010207": "var(--second)",
    "#010208": "var(--third)",
    "#010209": "var(--fourth)",
}
INK, MUTED, ACCENT, RULE, SECOND, THIRD, FOURTH = SENTINELS
SERIES = ((ACCENT, "-"), (SECOND, "--"), (THIRD, "-."), (FOURTH, ":"))
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "groundup",
    "svg.fonttype": "none",
    "font.size": 8,
    # A run called $x$ is called that.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
}
# Beyond it a curve is averaged in buckets: more points than pixels make a page heavy and no
# clearer.
MOST_POINTS = 500
WIDE, NARROW, SMALL = (7.4, 3.1), (3.5, 2.6), (2.55, 1.75)

Points = tuple[list[float], list[float]]


def series(lines: Sequence[Row], name: str) -> Points:
    """Return the steps and values of a metric, averaged in buckets where there are many."""
    found = [
        (float(line["step"]), float(line[name]))
        for line in lines
        if number(line.get(name)) is not None
    ]
    size = math.ceil(len(found) / MOST_POINTS)
    buckets = (
        [found[n : n + size] for n in range(0, len(found), size)]
        if size > 1
        else [[pair] for pair in found]
    )
    return [bucket[-1][0] for bucket in buckets], [
        sum(value for _, value in bucket) / len(bucket) for bucket in buckets
    ]


def drawn(name: str, size: tuple[float, float], title: str, draw: Callable[[Axes], None]) -> str:
    """Return what `draw` puts on one pair of axes as inline SVG; `title` is for those who cannot
    see it.
    """
    with mpl.rc_context(SETTINGS):
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas.add_subplot())
        buffer = io.StringIO()
        canvas.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return inlined(buffer.getvalue(), name, title)


def inlined(svg: str, name: str, title: str) -> str:
    """Make a drawing fit into a page: own ids, the page's colors and font, nothing that points
    elsewhere.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->| xmlns(:\w+)?=\"[^\"]*\"",
        "",
        svg,
        flags=re.DOTALL,
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The page's font; the shorthand wants a family, so it becomes a size alone.
    svg = re.sub(r"font: (?:\w+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(
        r'(?<=[ "])(?:d|x|y|transform)="[^"]*"',
        lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]),
        svg,
    )
    for sentinel, color in SENTINELS.items():
        svg = svg.replace(sentinel, color)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    head = f'<svg class="chart {name.rpartition("-")[2]}" role="img" aria-label="{title}" '
    return re.sub(r"\n\s*\n+", "\n", svg.replace("<svg ", head, 1))


def loss_chart(
    lines: Sequence[Row], checkpoints: Sequence[int], best: int | None, name: str = "loss"
) -> str:
    """Return the curve of both losses over steps and tokens, wide and narrow, checkpoints marked
    and the best named.
    """
    title = "Training and validation loss over steps and tokens"

    def draw(axes: Axes) -> None:
        axes.plot(*series(lines, "loss"), color=MUTED, linewidth=1, label="training")
        axes.plot(
            *series(lines, "validation_loss"),
            color=ACCENT,
            marker="o",
            markersize=3.2,
            label="validation",
        )
        axes.set_ylabel("nats a token")
        axes.legend(loc="upper right", labelcolor=MUTED)
        _mark_checkpoints(axes, checkpoints)
        _mark_best(axes, lines, best)
        _steps(axes)
        _tokens_on_top(axes, lines)

    return drawn(f"{name}-wide", WIDE, title, draw) + drawn(f"{name}-narrow", NARROW, title, draw)


def _steps(axes: Axes, label: str = "step") -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(label)
    axes.margins(x=0.015)


def _tokens_on_top(axes: Axes, lines: Sequence[Row]) -> None:
    """A second scale: tokens seen, which every step has added alike."""
    last = next(
        (line for line in reversed(lines) if number(line.get("tokens")) and line["step"]), None
    )
    if last is None:
        return
    each = last["tokens"] / last["step"]
    above = axes.secondary_xaxis(
        "top", functions=(lambda step: step * each, lambda tokens: tokens / each)
    )
    above.xaxis.set_major_locator(MaxNLocator(5))
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    above.set_xlabel("tokens seen")
    above.tick_params(length=2)
    above.grid(visible=False)


def _mark_checkpoints(axes: Axes, checkpoints: Sequence[int]) -> None:
    if checkpoints:
        low = axes.get_ylim()[0]
        marks: Any = {
            "color": INK,
            "markersize": 4.5,
            "clip_on": False,
            "zorder": 5,
            "label": "checkpoint",
        }
        axes.plot(checkpoints, [low] * len(checkpoints), "^", **marks)
        axes.set_ylim(bottom=low)
        axes.legend(loc="upper right", labelcolor=MUTED)


def _mark_best(axes: Axes, lines: Sequence[Row], best: int | None) -> None:
    losses = (number(line.get("validation_loss")) for line in lines if line["step"] == best)
    loss = next((value for value in losses if value is not None), None)
    if best is None or loss is None:
        return
    axes.plot(
        [best],
        [loss],
        "o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=ACCENT,
        markeredgewidth=1.2,
    )
    early = best < (axes.get_xlim()[0] + axes.get_xlim()[1]) / 2
    axes.annotate(
        f"best: {loss:.3f} at step {best:,}",
        (best, loss),
        (8 if early else -8, 14),
        textcoords="offset points",
        ha="left" if early else "right",
        color=ACCENT,
        fontweight="bold",
    )


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
        _steps(axes)

    return drawn(f"{metric.replace('_', '')}-small", SMALL, title, draw)


def overlaid(runs: Mapping[str, Sequence[Row]]) -> str:
    """Return the validation loss (or where there is none, the training loss) of several runs over
    tokens, wide and narrow.
    """
    title = "Loss of each run over the tokens that it had seen"

    def draw(axes: Axes) -> None:
        for number_of_run, (name, lines) in enumerate(runs.items()):
            color, style = SERIES[number_of_run % len(SERIES)]
            metric = (
                "validation_loss" if any("validation_loss" in line for line in lines) else "loss"
            )
            steps, values = series(lines, metric)
            last: Any = next(
                (line for line in reversed(lines) if number(line.get("tokens")) and line["step"]),
                None,
            )
            each = last["tokens"] / last["step"] if last else 1
            axes.plot(
                [step * each for step in steps],
                values,
                style,
                color=color,
                marker="o",
                markersize=2.5,
                label=name,
            )
        axes.set_ylabel("nats a token")
        axes.legend(loc="upper right", labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel("tokens seen")

    return drawn("runs-wide", WIDE, title, draw) + drawn("runs-narrow", NARROW, title, draw)
