"""Show how far a run is: its stages, and the newest figures of training."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.flow import STAGES
from groundup.report.live import close_page
from groundup.runtime.lock import is_locked, require_run
from groundup.runtime.progress import echo
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store
from groundup.runtime.work import ONE_JOB, unfinished

# The end of metrics.jsonl that is read; it holds the newest lines of the longest run.
TAIL_BYTES = 65_536
# What the ledger says of a stage that did work.
MEASURED = ("seconds", "bytes_in", "limit", "longest", "peak_bytes")


def show_status(root: Path, watch: bool, as_json: bool) -> None:
    """Print the state of every stage; with `watch`, again every two seconds until Ctrl-C."""
    while True:
        state = run_status(root)
        echo(json.dumps(state, indent=1) if as_json else status_text(state))
        if not watch:
            return
        time.sleep(2)


def run_status(root: Path) -> dict[str, Any]:
    """Return run, stages and training: the state of each stage, and the newest training figures.

    Of a stage: state, seconds, bytes_in, what limited its speed, its longest job, peak_bytes, and
    the artifacts that the last run built and reused, None if it did not come to that stage. A stage
    that began and did not end is "running" if a process works in the run, with how many of its
    planned parts are there; else "killed". Raises StoreError if there is no run in `root`.
    """
    require_run(root)
    events = Ledger(root / "ledger.jsonl").events()
    last_run = max((n for n, event in enumerate(events) if event.get("event") == "run"), default=0)
    running = is_locked(root)
    if not running:
        close_page(root)
    words = {"began": "killed", "finished": "done", "fresh": "done"}
    newest = [event["stage"] for event in events if "stage" in event][-1:]
    stages = {}
    for stage in STAGES:
        of_stage = [(n, event) for n, event in enumerate(events) if event.get("stage") == stage]
        last = of_stage[-1][1] if of_stage else {"event": "not begun"}
        state = {"state": words.get(last["event"], last["event"])}
        state |= dict.fromkeys((*MEASURED, "built", "reused"))
        for n, event in of_stage:
            if event["event"] == "finished":
                state |= {name: event.get(name) for name in MEASURED}
            if n > last_run and event["event"] in ("finished", "fresh"):
                for name in ("built", "reused"):
                    state[name] = (state[name] or 0) + event.get(name, 0)
        if last["event"] == "began" and running and [stage] == newest:
            work = unfinished(Store(root), stage, float(last["time"]))
            state |= {"state": "running", "seconds": work.seconds, "bytes_in": work.bytes_in}
            state |= {"parts": work.there, "planned_parts": work.planned}
        if last["event"] == "failed":
            state["error"] = last["error"]
        stages[stage] = state
    return {"run": str(root), "stages": stages, "training": newest_metrics(root)}


def newest_metrics(root: Path) -> dict[str, Any]:
    """Return the newest value of each metric of training."""
    path = root / "train" / "metrics.jsonl"
    if not (root / "train" / "train.json").exists() or not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    newest: dict[str, Any] = {}
    for line in lines:
        # The first line may be cut off by the seek, the last by a kill.
        with suppress(ValueError):
            newest |= json.loads(line)
    newest.pop("chain", None)
    return newest


def status_text(status: dict[str, Any]) -> str:
    """Return the status of a run as a table."""
    row = "{:10} {:20} {:>9} {:>8} {:>12} {:>16} {:>7}"
    heads = ("stage", "state", "seconds", "MB/s", "peak memory", "last run: built", "reused")
    lines = [status["run"], row.format(*heads)]
    for stage, state in status["stages"].items():
        seconds = "" if state["seconds"] is None else f"{state['seconds']:,.1f}"
        peak = "" if state["peak_bytes"] is None else f"{state['peak_bytes'] / 1e6:,.0f} MB"
        built, reused = ("" if state[n] is None else f"{state[n]:,}" for n in ("built", "reused"))
        speed = ""
        if state["bytes_in"] and state["seconds"]:
            speed = f"{state['bytes_in'] / state['seconds'] / 1e6:,.1f}"
        words = state["state"]
        if state.get("planned_parts"):
            words += f", {state['parts']:,} of {state['planned_parts']:,}"
        columns = row.format(stage, words, seconds, speed, peak, built, reused)
        limit = f"limited by {state['limit']}" if state["limit"] else ""
        if state["limit"] == ONE_JOB:
            limit += f" ({state['longest']})"
        lines.append(f"{columns}  {state.get('error', limit)}".rstrip())
    metrics = status["training"]
    if metrics:
        values = [f"{n} {v:,.5g}" for n, v in metrics.items() if isinstance(v, (int, float))]
        lines.append(f"training   {', '.join(values)}")
    if "guard" in metrics:
        lines.append(f"guard      {metrics['guard']}")
    return "\n".join(lines)
