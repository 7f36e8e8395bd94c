"""How far a run is. Reads the ledger, the views and the training metrics; writes nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from groundup.errors import StoreError
from groundup.runtime.files import read_json
from groundup.runtime.ledger import Ledger
from groundup.runtime.lock import LOCK

# A tail of this many bytes holds the last lines of metrics.jsonl, however long the run is.
TAIL = 65_536


def show_status(root: Path, watch: bool, as_json: bool) -> None:
    """Print the state of every stage; with `watch`, again every two seconds until Ctrl-C."""
    while True:
        state = run_status(root)
        sys.stdout.write((json.dumps(state, indent=1) if as_json else status_text(state)) + "\n")
        sys.stdout.flush()
        if not watch:
            return
        time.sleep(2)


def run_status(root: Path) -> dict[str, Any]:
    """Return the state of each stage, its last seconds and peak memory, what the last run built,
    and the newest training figures.

    Raises:
        StoreError: there is no run in `root`.
    """
    from groundup.flow import STAGES

    if not (root / LOCK).exists():
        raise StoreError(
            f"{root}: there is no run here; `groundup run RECIPE --out {root}` makes one"
        )
    events = Ledger(root / "ledger.jsonl").events()
    began = max(
        (number for number, event in enumerate(events) if event.get("event") == "run"), default=0
    )
    stages = {}
    for stage in STAGES:
        own = [
            (number, event) for number, event in enumerate(events) if event.get("stage") == stage
        ]
        stages[stage] = _stage_state([event for _, event in own]) | _last_run(
            [event for number, event in own if number > began]
        )
    return {"run": str(root), "stages": stages, "training": _training(root)}


def _last_run(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many artifacts a stage built and took over in the last run; None where it did not
    come to that.
    """
    done = [event for event in events if event["event"] in ("finished", "fresh")]
    return {
        name: sum(event.get(name, 0) for event in done) if done else None
        for name in ("built", "reused")
    }


def _stage_state(events: list[dict[str, Any]]) -> dict[str, Any]:
    done = [event for event in events if event["event"] in ("finished", "fresh")]
    last = events[-1]["event"] if events else "not begun"
    state = {"began": "running or cut off", "finished": "done", "fresh": "done"}.get(last, last)
    built: dict[str, Any] = next(
        (event for event in reversed(done) if event["event"] == "finished"), {}
    )
    found = {"state": state, "seconds": built.get("seconds"), "peak_bytes": built.get("peak_bytes")}
    return found | ({"error": events[-1]["error"]} if last == "failed" else {})


def _training(root: Path) -> dict[str, Any]:
    settings = read_json(root / "train" / "train.json")
    path = root / "train" / "metrics.jsonl"
    if not isinstance(settings, dict) or not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().split(b"\n")
    newest: dict[str, Any] = {}
    for line in lines:
        try:
            newest |= json.loads(line)
        except ValueError:
            continue
    return newest


def status_text(state: dict[str, Any]) -> str:
    """Return the state as a table for people."""
    lines = [
        state["run"],
        (
            f"{'stage':10} {'state':20} {'seconds':>9} {'peak memory':>12} {'last run: built':>16}"
            f" {'reused':>7}"
        ),
    ]
    for stage, found in state["stages"].items():
        seconds = "" if found["seconds"] is None else f"{found['seconds']:,.1f}"
        peak = "" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 1e6:,.0f} MB"
        built, reused = (
            "" if found[name] is None else f"{found[name]:,}" for name in ("built", "reused")
        )
        columns = f"{stage:10} {found['state']:20} {seconds:>9} {peak:>12} {built:>16} {reused:>7}"
        lines.append(f"{columns}  {found.get('error', '')}".rstrip())
    if state["training"]:
        figures = {
            name: value
            for name, value in state["training"].items()
            if isinstance(value, (int, float))
        }
        lines.append(
            "training   " + ", ".join(f"{name} {value:,.5g}" for name, value in figures.items())
        )
        if "guard" in state["training"]:
            lines.append(f"guard      {state['training']['guard']}")
    return "\n".join(lines)
