"""The stage `report`: report.json, index.html, README.md (the model card) and summary.txt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.report.figures import METRICS, Row, metric_lines
from groundup.report.gather import Report, gather_content, gather_facts, merge
from groundup.runtime.files import canonical, file_digest, write_json
from groundup.runtime.run import Run, Unkeyed, build_step
from groundup.runtime.store import Facts

if TYPE_CHECKING:
    from groundup.report.page import LiveStatus

FILES = ("report.json", "index.html", "README.md", "summary.txt")


def run(run: Run) -> None:
    """Compute the report and publish it; it is fresh if nothing that it shows has changed."""
    facts, metrics = gather_facts(run.root, run.recipe.name), run.root / METRICS
    job = build_report.job(
        "report",
        inputs={
            "found": hashlib.sha256(canonical(facts).encode()).hexdigest(),
            "metrics": file_digest(metrics) if metrics.is_file() else "",
        },
        key_only={"name": run.recipe.name},
        root=Unkeyed(run.root),
        # Its digest is an input.
        facts=Unkeyed(facts),
        seed=run.recipe.seed,
    )
    (artifact,) = run.build("report", [job], "reporting", "report")
    run.publish("report", [artifact], {name: artifact.path / name for name in FILES})


@build_step("report/report", version=9)
def build_report(folder: Path, *, root: Path, facts: Report, seed: int) -> Facts:
    """Write the four files of a report; return how many figures it has."""
    report = merge(facts, gather_content(root, seed))
    write_files(folder, report, metric_lines(root))
    return {"figures": len(report["figures"])}


# The version is raised by hand when report.json, the page, the card or the summary change.


def write_files(
    folder: Path, report: Report, lines: Sequence[Row], live: LiveStatus | None = None
) -> None:
    """Write report.json, and the page, card and summary that are made of it."""
    from groundup.report.card import card, summary
    from groundup.report.page import render_page

    write_json(folder / "report.json", report)
    texts = {
        "index.html": render_page(report, lines, live),
        "README.md": card(report),
        "summary.txt": summary(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")


def next_commands(root: Path) -> str:
    """Return what to do next. A run may be moved, so this is not part of its report."""
    report = root / "report"
    return (
        f"open:  {report / 'index.html'}     every figure with its origin:"
        f" {report / 'report.json'}\n"
        f"chat:  groundup serve {root}\n"
        f'next:  groundup sample {root} "Once upon a time"     groundup inspect {root}     groundup'
        f" verify {root}"
    )
