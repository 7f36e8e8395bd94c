"""Draws the architecture from its sizes: what a token passes through, with shapes and parameters.
Returns inline SVG.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from groundup.model.config import ModelConfig

# Units of the drawing: a phone's width, so that its text stays readable there.
WIDTH, MIDDLE = 380, 158
BOX, GAP = 200, 30
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6"'
    ' orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)


@dataclass
class Drawing:
    """Grows downwards: a box, an arrow with a shape on it, a box."""

    parts: list[str] = field(default_factory=list)
    y: float = 4

    def box(self, title: str, note: str, parameters: str, kind: str = "") -> None:
        """Add a box; its parameters stand to the right."""
        height = 40 if note else 26
        self.parts.append(
            f'<rect class="box {kind}" x="{MIDDLE - BOX / 2}" y="{self.y}" width="{BOX}"'
            f' height="{height}" rx="5"/>'
        )
        self.text(MIDDLE, self.y + 17, title, "name")
        if note:
            self.text(MIDDLE, self.y + 32, note, "note")
        if parameters:
            self.text(WIDTH - 4, self.y + height / 2 + 4, parameters, "count")
        self.y += height

    def arrow(self, shape: str = "", length: float = GAP) -> None:
        """Add an arrow; the shape of what flows stands beside it."""
        end = self.y + length
        self.parts.append(
            f'<path class="flow" d="M{MIDDLE} {self.y}V{end - 1}" marker-end="url(#tip)"/>'
        )
        if shape:
            self.text(MIDDLE + 8, self.y + length / 2 + 3, shape, "shape")
        self.y = end

    def sum(self, entry: float) -> None:
        """Add where a branch joins the residual stream that left at height `entry`."""
        x, left = MIDDLE, MIDDLE - BOX / 2 - 14
        self.y += 9
        self.parts.append(
            f'<path class="flow" d="M{x} {entry}H{left}V{self.y}H{x - 10}" marker-end="url(#tip)"/>'
        )
        self.parts.append(f'<circle class="sum" cx="{x}" cy="{self.y}" r="9"/>')
        self.parts.append(f'<path class="flow" d="M{x - 5} {self.y}h10M{x} {self.y - 5}v10"/>')
        self.y += 9

    def text(self, x: float, y: float, words: str, kind: str) -> None:
        """Add words."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{words}</text>')


def diagram(config: ModelConfig) -> str:
    """Return the drawing of a model; B is the batch, T the positions."""
    width, stream = config.width, f"[B, T, {config.width:,}]"
    drawing = Drawing()
    drawing.text(MIDDLE, drawing.y + 10, "token ids", "name")
    drawing.y += 14
    drawing.arrow(f"[B, T ≤ {config.context:,}]")
    table = f"{config.vocab_size * width:,}"
    drawing.box("embedding", f"{config.vocab_size:,} × {width:,}", table, "tied")
    drawing.arrow(stream)
    top = drawing.y - 6
    _layer(drawing, config)
    frame = (
        f'<rect class="frame" x="26" y="{top:g}" width="{WIDTH - 27}"'
        f' height="{drawing.y - top + 8:g}" rx="9"/>'
    )
    drawing.parts.insert(0, frame)
    drawing.text(WIDTH - 8, top + 17, f"× {config.layers:,}", "times")
    drawing.y += 8
    drawing.arrow(stream)
    drawing.box("RMSNorm", "", f"{width:,}", "norm")
    drawing.arrow(stream)
    head = (
        ("the embedding again, transposed", "shared")
        if config.tied
        else (f"{width:,} × {config.vocab_size:,}", table)
    )
    drawing.box("output head", *head, "tied")
    drawing.arrow(f"[B, T, {config.vocab_size:,}]")
    drawing.text(MIDDLE, drawing.y + 12, "logits of the next token", "name")
    label = (
        f"Architecture: {config.layers} layers of width {width}, {config.parameter_count():,}"
        " parameters"
    )
    opening = (
        f'<svg class="diagram" viewBox="0 0 {WIDTH} {drawing.y + 20:g}" role="img"'
        f' aria-label="{label}">'
    )
    return opening + TIP + "".join(drawing.parts) + "</svg>"


def _layer(drawing: Drawing, config: ModelConfig) -> None:
    """One layer: both branches, each normalized before and added to the stream."""
    width, heads = config.width, config.head_width
    attention = (2 * config.heads + 2 * config.kv_heads) * heads * width
    groups = "" if config.heads == config.kv_heads else f", {config.kv_heads} for keys and values"
    norms = f" + {2 * heads}" if config.query_key_norm else ""
    inner = config.feed_forward
    branches = (
        (
            "attention",
            f"{config.heads} heads of {heads}{groups}",
            f"{attention:,}{norms}",
            f"q: [B, {config.heads}, T, {heads}]",
        ),
        (
            "SwiGLU",
            f"{width:,} → 2 × {inner:,} → {width:,}",
            f"{3 * width * inner:,}",
            f"[B, T, {inner:,}]",
        ),
    )
    for title, note, parameters, shape in branches:
        drawing.arrow(length=14)
        entry = drawing.y - 10
        drawing.box("RMSNorm", "", f"{width:,}", "norm")
        drawing.arrow(f"[B, T, {width:,}]", 24)
        drawing.box(title, note, parameters, "main")
        drawing.text(MIDDLE + 8, drawing.y + 15, f"inside: {shape}", "shape")
        drawing.parts.append(f'<path class="flow" d="M{MIDDLE} {drawing.y}V{drawing.y + 22}"/>')
        drawing.y += 22
        drawing.sum(entry)
