"""One of the processes that torchrun starts: `torchrun ... -m groundup.train RUN`, on one machine
or several.

Reads the run directory, whose stages before train are done. The first rank makes the plan, unless
`groundup run` did.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

from groundup.errors import GroundupError
from groundup.runtime.lock import load_lock
from groundup.runtime.run import Run
from groundup.train.hardware import count_processes
from groundup.train.launch import ERROR, PLANNED, leave_with_parent, train
from groundup.train.setup import Plan
from groundup.train.stage import begin, finished, prepare

# How long the other ranks wait for the first one's probe of the machine.
PLAN_SECONDS = 600.0


def main(root: Path) -> None:
    """Train; an error that the user can mend is one line, and for the process that started this one
    a file.
    """
    planned, report = bool(os.environ.get(PLANNED)), root / "train" / ERROR
    if planned and report.exists():
        # One rank has said why it cannot go on, and torchrun starts all again because the others
        # lost it.
        return
    try:
        follow(root) if planned or os.environ.get("RANK", "0") != "0" else lead(root)
    except GroundupError as error:
        # Not a failure for torchrun, which would start everything again.
        report.write_text(str(error), encoding="utf-8")
        if not planned:
            sys.stderr.write(f"groundup: {error}\n")


def lead(root: Path) -> None:
    """Make the plan for all ranks, under the run's lock, and train."""
    ready = root / "train" / _ready()
    (root / "train" / ERROR).unlink(missing_ok=True)
    with Run.open(load_lock(root), root, workers=1) as run:
        try:
            plan = _plan(run)
            begin(run, plan)
        finally:
            (root / "train").mkdir(exist_ok=True)
            ready.write_text("", encoding="utf-8")
        try:
            if not finished(root, plan):
                train(root, plan)
        finally:
            ready.unlink()


def _plan(run: Run) -> Plan:
    """Return the plan that was begun, with as many processes as there are now, or a new one."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    plan = Plan.read(run.root / "train")
    if plan is None:
        return prepare(run, processes)
    count_processes(
        dataclasses.replace(plan.train, processes=processes), plan.sequences, plan.machine.device
    )
    return dataclasses.replace(plan, machine=dataclasses.replace(plan.machine, processes=processes))


def follow(root: Path) -> None:
    """Train as the first rank, or the process that started all, has planned."""
    if not os.environ.get(PLANNED):
        end = time.monotonic() + PLAN_SECONDS
        while not (root / "train" / _ready()).exists() and time.monotonic() < end:
            time.sleep(0.2)
    plan = Plan.read(root / "train")
    if plan is None:
        raise GroundupError(f"{root / 'train'}: no training was begun there; use `groundup run`")
    if not finished(root, plan):
        train(root, plan)


def _ready() -> str:
    """Name of the file that says the plan of this start of all ranks is made."""
    return f".ready-{os.environ.get('TORCHELASTIC_RUN_ID', '0')}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


if __name__ == "__main__":
    leave_with_parent()
    main(Path(sys.argv[1]))
