"""The stage `report`. Reads everything a run left on disk; writes report.json and summary.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.ledger import Ledger
from groundup.report.figures import Figure, all_figures
from groundup.report.summary import summary
from groundup.run import Job, Run, machine_settings
from groundup.store import Facts, Step, canonical, read_json, write_json

# Raise by hand when report.json or the summary change.
VERSION = 1


def run(run: Run) -> None:
    """Compute the report and publish it; fresh when no figure changed."""
    figures = all_figures(run.root)
    table = {name: figure.entry() for name, figure in sorted(figures.items())}
    samples = read_json(run.root / "evaluate" / "samples.json") or []
    # Not its own seconds: a report that names them would never be fresh.
    inputs = {"figures": canonical({name: entry for name, entry in table.items() if not name.startswith("stage.report.")})}
    step = Step("report/report", "report", VERSION, {"name": run.recipe.name}, inputs | {"samples": canonical(samples)})
    arguments = {"root": run.root, "name": run.recipe.name, "table": table, "samples": samples, "figures": figures}
    artefact = run.build("report", [Job(step, write_report, arguments)], "reporting", "report")[0]
    run.publish("report", [artefact], {name: artefact.path / name for name in ("report.json", "summary.txt")})


def write_report(
    folder: Path, *, root: Path, name: str, table: dict[str, Any], samples: list[dict[str, Any]], figures: dict[str, Figure]
) -> Facts:
    """Write report.json and summary.txt."""
    runs = Ledger(root / "ledger.jsonl").events("run")
    environment = {"groundup": __version__, "versions": runs[-1]["versions"] if runs else {}, "machine": machine_settings(root)}
    write_json(folder / "report.json", {"name": name, "figures": table, "environment": environment, "samples": samples})
    (folder / "summary.txt").write_text(summary(root, figures, samples), encoding="utf-8", errors="replace")
    return {"figures": len(table)}
