"""The figures of the starter run, taken from the report that `make demo` wrote."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.machine import machine

REPORT = Path("runs/starter/report/report.json")
# What the README shows; `make docs` puts it there.
SUMMARY = Path("benchmarks/results/starter.txt")
FIGURES = (
    "collect.documents",
    "collect.bytes_out",
    "tokens.train.tokens",
    "tokens.validation.tokens",
    "tokens.train.bytes_per_token",
    "model.parameters",
    "train.steps",
    "train.tokens",
    "train.tokens_per_second",
    "evaluate.model.loss",
    "evaluate.model.perplexity",
    "evaluate.model.bits_per_byte",
    "evaluate.trigram.bits_per_byte",
    "evaluate.unigram.bits_per_byte",
    "evaluate.passages.accuracy",
    "evaluate.passages.n",
    "speed.prefill_tokens_per_second",
    "speed.decode_tokens_per_second",
    "stage.collect.seconds",
    "stage.refine.seconds",
    "stage.tokenize.seconds",
    "stage.train.seconds",
    "stage.evaluate.seconds",
    "stage.export.seconds",
)


def measure() -> dict[str, object] | None:
    if not REPORT.exists():
        return None
    SUMMARY.write_text(
        REPORT.with_name("summary.txt").read_text(encoding="utf-8"), encoding="utf-8"
    )
    figures = json.loads(REPORT.read_text(encoding="utf-8"))["figures"]
    return {
        "what": (
            "`make demo`: from downloaded packages to an exported model (figures of"
            " runs/starter/report/report.json)."
        ),
        "figures": {name: figures[name]["value"] for name in FIGURES if name in figures},
        "machine": machine(),
    }
