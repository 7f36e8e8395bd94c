"""Draw the training curves and the architecture of a report as inline SVG.

Matplotlib draws with placeholder colors, which stand for CSS variables of the page: one drawing
serves light and dark. No id, date or address of matplotlib is left in a drawing, so equal metrics
give equal bytes and two charts can be on one page.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from groundup.model.config import ModelConfig
from groundup.report.formatting import short
from groundup.report.run_files import Row, number

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
# A longer curve is averaged in buckets: more points than pixels make a page heavy and no clearer.
MAX_POINTS = 500
# Inches.
WIDE, NARROW, SMALL = (7.4, 3.1), (3.5, 2.6), (2.55, 1.75)


def series(lines: Sequence[Row], metric: str) -> tuple[list[float], list[float]]:
    """Return the steps and values of a metric, averaged in buckets if there are many."""
    points = [
        (float(line["step"]), float(line[metric]))
        for line in lines
        if number(line.get(metric)) is not None
    ]
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    buckets = [points[n : n + size] for n in range(0, len(points), size)]
    steps = [bucket[-1][0] for bucket in buckets]
    return steps, [sum(value for _, value in bucket) / len(bucket) for bucket in buckets]


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
    svg = re.sub(
        r'(?<=[ "])(?:d|x|y|transform)="[^"]*"',
        lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]),
        svg,
    )
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
        axes.plot(*series(lines, "loss"), color=MUTED, linewidth=1, label="training")
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
        _step_axis(axes)
        if rate := _tokens_per_step(lines):
            functions = (lambda step: step * rate, lambda tokens: tokens / rate)
            above = axes.secondary_xaxis("top", functions=functions)
            _token_axis(above)
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
        _step_axis(axes)

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
        _token_axis(axes)

    return wide_and_narrow("runs", "Loss of each run over the tokens that it had seen", draw)


def _step_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("step")
    axes.margins(x=0.015)


def _token_axis(axes: Any) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("tokens seen")


def _tokens_per_step(lines: Sequence[Row]) -> float | None:
    """Return the mean tokens of a step, None if no line tells."""
    for line in reversed(lines):
        if number(line.get("tokens")) and line["step"]:
            return float(line["tokens"] / line["step"])
    return None


def _mark_best(axes: Axes, lines: Sequence[Row], best: int | None) -> None:
    """Put a ring around the lowest validation loss, with its value and step."""
    losses = (number(line.get("validation_loss")) for line in lines if line["step"] == best)
    loss = next((value for value in losses if value is not None), None)
    if best is None or loss is None:
        return
    ring: Any = {"markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.2}
    axes.plot([best], [loss], "o", markeredgecolor=ACCENT, **ring)
    early = best < sum(axes.get_xlim()) / 2
    axes.annotate(
        f"best: {loss:.3f} at step {best:,}",
        (best, loss),
        (8 if early else -8, 14),
        textcoords="offset points",
        ha="left" if early else "right",
        color=ACCENT,
        fontweight="bold",
    )


# The architecture. Units of the diagram are the pixels of a phone, so its text is readable there.
DIAGRAM_WIDTH, MIDDLE, BOX_WIDTH = 380, 158, 200
ARROW_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"'
    ' orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)


@dataclass
class Diagram:
    """A diagram that grows downwards: a box, an arrow with the shape of its tensor, a box."""

    parts: list[str] = field(default_factory=list)
    y: float = 4

    def text(self, x: float, y: float, words: str, kind: str) -> None:
        """Add words; `kind` is a class of the style sheet."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{words}</text>')

    def line(self, path: str, tip: bool = True) -> None:
        """Add a line."""
        end = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(f'<path class="flow" d="{path}"{end}/>')

    def box(self, title: str, note: str, parameters: str, kind: str = "") -> None:
        """Add a box, with its parameters to the right."""
        height = 40 if note else 26
        self.parts.append(
            f'<rect class="box {kind}" x="{MIDDLE - BOX_WIDTH / 2}" y="{self.y}"'
            f' width="{BOX_WIDTH}" height="{height}" rx="5"/>'
        )
        self.text(MIDDLE, self.y + 17, title, "name")
        if note:
            self.text(MIDDLE, self.y + 32, note, "note")
        if parameters:
            self.text(DIAGRAM_WIDTH - 4, self.y + height / 2 + 4, parameters, "count")
        self.y += height

    def arrow(self, shape: str = "", length: float = 30) -> None:
        """Add an arrow, with the shape of what flows next to it."""
        end = self.y + length
        self.line(f"M{MIDDLE} {self.y}V{end - 1}")
        if shape:
            self.text(MIDDLE + 8, self.y + length / 2 + 3, shape, "shape")
        self.y = end

    def sum(self, entry: float) -> None:
        """Add the sum of a branch and the residual stream, which leaves at height `entry`."""
        x, left = MIDDLE, MIDDLE - BOX_WIDTH / 2 - 14
        self.y += 9
        self.line(f"M{x} {entry}H{left}V{self.y}H{x - 10}")
        self.parts.append(f'<circle class="sum" cx="{x}" cy="{self.y}" r="9"/>')
        self.line(f"M{x - 5} {self.y}h10M{x} {self.y - 5}v10", tip=False)
        self.y += 9

    def branch(self, width: int, title: str, note: str, parameters: str, inside: str) -> None:
        """Add a branch of a layer: normalized, transformed, and added to the residual stream."""
        self.arrow(length=14)
        entry = self.y - 10
        self.box("RMSNorm", "", f"{width:,}", "norm")
        self.arrow(f"[B, T, {width:,}]", 24)
        self.box(title, note, parameters, "main")
        self.text(MIDDLE + 8, self.y + 15, f"inside: {inside}", "shape")
        self.line(f"M{MIDDLE} {self.y}V{self.y + 22}", tip=False)
        self.y += 22
        self.sum(entry)


def architecture_diagram(config: ModelConfig) -> str:
    """Return what a token passes through, with shapes; B is the batch, T the positions."""
    width, vocab = config.width, config.vocab_size
    table, stream = f"{vocab * width:,}", f"[B, T, {width:,}]"
    diagram = Diagram()
    diagram.text(MIDDLE, diagram.y + 10, "token ids", "name")
    diagram.y += 14
    diagram.arrow(f"[B, T ≤ {config.context:,}]")
    diagram.box("embedding", f"{vocab:,} × {width:,}", table, "tied")
    diagram.arrow(stream)
    top = diagram.y - 6
    _add_layer(diagram, config)
    diagram.parts.insert(
        0,
        f'<rect class="frame" x="26" y="{top:g}" width="{DIAGRAM_WIDTH - 27}"'
        f' height="{diagram.y - top + 8:g}" rx="9"/>',
    )
    diagram.text(DIAGRAM_WIDTH - 8, top + 17, f"× {config.layers:,}", "times")
    diagram.y += 8
    diagram.arrow(stream)
    diagram.box("RMSNorm", "", f"{width:,}", "norm")
    diagram.arrow(stream)
    if config.tied:
        diagram.box("output head", "the embedding again, transposed", "shared", "tied")
    else:
        diagram.box("output head", f"{width:,} × {vocab:,}", table, "tied")
    diagram.arrow(f"[B, T, {vocab:,}]")
    diagram.text(MIDDLE, diagram.y + 12, "logits of the next token", "name")
    return (
        f'<svg class="diagram" viewBox="0 0 {DIAGRAM_WIDTH} {diagram.y + 20:g}" role="img"'
        f' aria-label="Architecture: {config.layers} layers of width {width},'
        f' {config.parameter_count():,} parameters">'
        f"{ARROW_TIP}{''.join(diagram.parts)}</svg>"
    )


def _add_layer(diagram: Diagram, config: ModelConfig) -> None:
    width, heads, inner = config.width, config.head_width, config.feed_forward
    attention = (2 * config.heads + 2 * config.kv_heads) * heads * width
    norms = f" + {2 * heads}" if config.query_key_norm else ""
    groups = "" if config.heads == config.kv_heads else f", {config.kv_heads} for keys and values"
    diagram.branch(
        width,
        "attention",
        f"{config.heads} heads of {heads}{groups}",
        f"{attention:,}{norms}",
        f"q: [B, {config.heads}, T, {heads}]",
    )
    diagram.branch(
        width,
        "SwiGLU",
        f"{width:,} → 2 × {inner:,} → {width:,}",
        f"{3 * width * inner:,}",
        f"[B, T, {inner:,}]",
    )
