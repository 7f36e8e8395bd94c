"""The stage `report`. Reads everything a run left on disk; writes report.json, index.html,
README.md and summary.txt.
"""

from __future__ import annotations

from pathlib import Path

from groundup.report.card import card
from groundup.report.gather import Report, deep, digests, joined, shallow
from groundup.report.measured import metric_lines
from groundup.report.page import page
from groundup.report.run_files import Row
from groundup.report.summary import summary
from groundup.runtime.files import write_json
from groundup.runtime.job import Job
from groundup.runtime.run import Run
from groundup.runtime.store import Facts, Step

# Raise by hand when report.json, the page, the card or the summary change.
VERSION = 4
FILES = ("report.json", "index.html", "README.md", "summary.txt")


def run(run: Run) -> None:
    """Compute the report and publish it; fresh when nothing that it shows has changed."""
    found = shallow(run.root, run.recipe.name)
    step = Step(
        "report/report",
        "report",
        VERSION,
        {"name": run.recipe.name, "seed": run.recipe.seed},
        digests(run.root, found),
    )
    arguments = {"root": run.root, "found": found, "seed": run.recipe.seed}
    artifact = run.build("report", [Job(step, write_report, arguments)], "reporting", "report")[0]
    run.publish("report", [artifact], {name: artifact.path / name for name in FILES})


def write_report(folder: Path, *, root: Path, found: Report, seed: int) -> Facts:
    """Write the four files of a report; return how many figures it has."""
    report = joined(found, deep(root, seed))
    write_files(folder, report, metric_lines(root))
    return {"figures": len(report["figures"])}


def write_files(folder: Path, report: Report, lines: list[Row], live: Row | None = None) -> None:
    """Write report.json, and what is made of it for people."""
    write_json(folder / "report.json", report)
    texts = {
        "index.html": page(report, lines, live),
        "README.md": card(report),
        "summary.txt": summary(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
