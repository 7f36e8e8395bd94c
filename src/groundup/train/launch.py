"""Runs the loop: in this process, or in processes of its own that torchrun starts, one a rank.
Reads `RUN/train/train.json`.

torchrun would end its ranks at a signal, and kill them after 30 s; a large checkpoint takes longer.
So it is started deaf to signals, by `python -m groundup.train.launch`, and signals go to the ranks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from groundup.errors import GroundupError
from groundup.train.distributed import joined
from groundup.train.setup import Plan
from groundup.train.signals import RELOAD, STOP, stop_flag
from groundup.train.trainer import Trainer

ERROR = ".error"
# Tells a rank that its plan was made by the process that started it.
PLANNED = "GROUNDUP_PLANNED"
# Tells a process who started it: one that was orphaned while it still imported cannot see that
# otherwise.
PARENT = "GROUNDUP_PARENT"
RANK = "groundup.train"
# torchrun's first restart after a killed process was seen to fail where the second worked.
RESTARTS = 5
# Of <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


def train(root: Path, plan: Plan) -> None:
    """Run the loop in this process, which may be one of several that torchrun started."""
    plan.machine.apply()
    with joined(plan.machine.device) as ranks:
        Trainer(root, plan, ranks).run()


def launch(root: Path, plan: Plan) -> None:
    """Run the loop in processes of its own, one a rank; one that is lost is replaced, and all go on
    from a checkpoint.

    Raises:
        GroundupError: they were stopped, failed, or died more often than they are started again.
    """
    error = root / "train" / ERROR
    error.unlink(missing_ok=True)
    options = [
        "--standalone",
        f"--nproc-per-node={plan.machine.processes}",
        f"--max-restarts={RESTARTS}",
        "--signals-to-handle=SIGQUIT",
    ]
    environment = dict(os.environ) | {
        "OMP_NUM_THREADS": str(plan.machine.threads),
        PLANNED: "1",
        PARENT: str(os.getpid()),
    }
    code = wait(
        [sys.executable, "-m", "groundup.train.launch", *options, "-m", RANK, str(root)],
        environment,
    )
    if error.exists():
        message = error.read_text(encoding="utf-8")
        error.unlink()
        raise GroundupError(message)
    if code:
        raise GroundupError(
            "the training processes died; what they had saved is kept, run again to go on"
        )


def wait(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end; signals are passed on to the ranks below it."""
    with stop_flag() as asked, subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                # Again and again: one that comes before a rank listens is lost.
                for number in ([signal.SIGTERM] if asked.set else []) + (
                    [RELOAD] if asked.reload else []
                ):
                    _tell_ranks(process.pid, number)
                asked.reload = False


def _tell_ranks(launcher: int, number: signal.Signals) -> None:
    for process in psutil.Process(launcher).children(recursive=True):
        try:
            if RANK in process.cmdline():
                process.send_signal(number)
        except psutil.Error:
            continue


def leave_with_parent() -> None:
    """End this process when the one that started it is gone: ranks without a master would go on
    outside the run's lock.
    """
    if sys.platform == "linux":
        # The kernel sees to it even while a library waits with the interpreter's lock held, as gloo
        # does when it connects.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = int(os.environ.get(PARENT, os.getppid()))
    # The kernel tells of deaths from now on only.
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    # What is ignored stays ignored in the ranks until they ask for it.
    for one in (*STOP, RELOAD):
        signal.signal(one, signal.SIG_IGN)
    leave_with_parent()
    os.environ[PARENT] = str(os.getpid())
    # Else all starts share one store, and new ranks connect to the addresses of lost ones (torch
    # 2.13, gloo).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed.run import main

    main(sys.argv[1:])
