"""The report as plain text: what went in, what came out, how good it is, what it wrote. Reads what
report.json holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = Mapping[str, Mapping[str, Any]]
STAGES = ("collect", "refine", "tokenize", "train", "evaluate", "tune", "export")
# Reasons shown; the rest is in report.json.
REASONS = 12


def summary(report: Mapping[str, Any]) -> str:
    """Return the summary of a run as text of at most 100 columns or so."""
    figures = report["figures"]
    order = [source["name"] for source in report["sources"]]
    parts = [
        sources(figures, order),
        reasons(figures),
        model(figures),
        stages(figures),
        texts(report["samples"]),
    ]
    return "\n\n".join("\n".join(lines) for part in parts if (lines := list(part))) + "\n"


def sources(figures: Figures, order: Sequence[str]) -> Iterator[str]:
    """A row for each source: documents and megabytes in and out, tokens."""
    yield f"{'source':20}{'collected':>10}{'MB':>8}{'refined':>10}{'train':>10}{'validation':>11}{'tokens':>12}"
    names = [
        name.removeprefix("collect.documents.")
        for name in figures
        if name.startswith("collect.documents.")
    ]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    for source in [*names, ""]:
        dot = f".{source}" if source else ""
        size = _value(figures, f"collect.bytes_out{dot}") / 1e6
        tokens = sum(
            _value(figures, f"tokens.{split}.tokens{dot}") for split in ("train", "validation")
        )
        kept = "".join(
            f"{_value(figures, f'tokens.{split}.documents{dot}'):>{width},.0f}"
            for split, width in (("train", 10), ("validation", 11))
        )
        documents = [_value(figures, f"{stage}.documents{dot}") for stage in ("collect", "refine")]
        yield (
            f"{source or 'all':20}{documents[0]:>10,.0f}{size:>8.1f}{documents[1]:>10,.0f}{kept}{tokens:>12,.0f}"
        )


def reasons(figures: Figures) -> Iterator[str]:
    """What was dropped, by reason, the most frequent first."""
    counts = {
        name: int(figure["value"] or 0) for name, figure in figures.items() if ".dropped." in name
    }
    found = [(name.partition(".dropped.")[2], count) for name, count in counts.items() if count]
    ranked = sorted(found, key=lambda pair: (-pair[1], pair[0]))
    if ranked:
        yield "dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in ranked[:REASONS])
        if len(ranked) > REASONS:
            yield (
                f"         and {sum(count for _, count in ranked[REASONS:]):,} for"
                f" {len(ranked) - REASONS} other reasons"
            )


def model(figures: Figures) -> Iterator[str]:
    """Sizes, losses, and bits per byte beside the counting models."""
    if "evaluate.model.loss" not in figures:
        return

    def value(name: str) -> float:
        return _value(figures, name)

    parameters, steps, tokens = (
        value(name) for name in ("model.parameters", "train.steps", "train.tokens")
    )
    yield f"model:   {parameters:,.0f} parameters, {steps:,.0f} steps, {tokens:,.0f} tokens seen"
    yield (
        f"loss:    {value('evaluate.model.loss'):.3f} nats a token on held-out text (perplexity"
        f" {value('evaluate.model.perplexity'):.1f})"
    )
    yield (
        f"bits per byte: {value('evaluate.model.bits_per_byte'):.3f} ±"
        f" {value('evaluate.model.bits_per_byte_error'):.3f}; trigram model"
        f" {value('evaluate.trigram.bits_per_byte'):.3f}, unigram model"
        f" {value('evaluate.unigram.bits_per_byte'):.3f}"
    )
    names = [
        name.removeprefix("evaluate.model.bits_per_byte.")
        for name in figures
        if name.startswith("evaluate.model.bits_per_byte.")
    ]
    by_source = ", ".join(
        f"{name} {value(f'evaluate.model.bits_per_byte.{name}'):.2f}" for name in names
    )
    yield f"         by source: {by_source}"
    right, asked = value("evaluate.passages.accuracy"), value("evaluate.passages.n")
    if asked:
        yield f"         next passage of four: {right:.0%} of {asked:.0f} right (chance 25 %)"
    if "tune.after.loss" in figures:
        yield (
            f"tuned:   loss of held-out answers {value('tune.before.loss'):.3f} →"
            f" {value('tune.after.loss'):.3f} nats a token"
        )
        yield (
            f"         answers that end by themselves {value('tune.before.ended'):.0%} →"
            f" {value('tune.after.ended'):.0%}"
        )
    prefill, decode = (
        value("speed.prefill_tokens_per_second"),
        value("speed.decode_tokens_per_second"),
    )
    yield (
        f"speed:   training {value('train.tokens_per_second'):,.0f} tokens/s, prefill"
        f" {prefill:,.0f}, decode {decode:,.0f}"
    )


def stages(figures: Figures) -> Iterator[str]:
    """Seconds by stage, as they were when the stage last did any work."""
    names = [stage for stage in STAGES if f"stage.{stage}.seconds" in figures]
    if names:
        yield "seconds: " + ", ".join(
            f"{name} {_value(figures, f'stage.{name}.seconds'):.0f}" for name in names
        )


def texts(samples: list[dict[str, Any]]) -> Iterator[str]:
    """One sample for each kind of text, with what it shares with the training text."""
    for sample in samples:
        shared = (sample.get("overlap") or {}).get("tokens", "?")
        yield (
            f"--- {sample.get('kind', 'text')} (longest run of tokens also in the training text:"
            f" {shared} of {sample.get('tokens', '?')})"
        )
        yield f"{sample['prompt']}⟶{sample['text']}"


def following(root: Path) -> str:
    """Return the lines that say what to do next; a run may be moved, so they are no part of its
    report.
    """
    return (
        f"open:  {root / 'report' / 'index.html'}     every figure with its origin:"
        f" {root / 'report' / 'report.json'}\n"
        f"chat:  groundup serve {root}\n"
        f'next:  groundup sample {root} "Once upon a time"     groundup inspect {root}     groundup'
        f" verify {root}"
    )


def _value(figures: Figures, name: str) -> float:
    """Return a figure as a number; what was not measured is not a number, and prints as nan."""
    value = figures.get(name, {}).get("value")
    if not isinstance(value, (int, float)):
        return 0.0 if name.startswith(("tokens.", "refine.", "collect.")) else float("nan")
    return float(value)
