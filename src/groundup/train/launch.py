"""Starts the processes of a training with torchrun, one per rank.

torchrun would end its ranks at a signal, and kill them after 30 s; a large checkpoint takes longer.
So torchrun ignores signals (`python -m groundup.train.launch` starts it that way), and the process
that started it passes them on to the ranks.
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
from contextlib import suppress
from pathlib import Path

import psutil

from groundup.errors import GroundupError
from groundup.train.distributed import RELOAD_SIGNAL, STOP_SIGNALS, catch_signals
from groundup.train.hardware import Hardware

ERROR = ".error"
# Tells a rank that the process that started torchrun has prepared the training.
PREPARED = "GROUNDUP_PLANNED"
# Tells a process who started it. Otherwise it could not see that it was orphaned while importing.
PARENT = "GROUNDUP_PARENT"
RANK = "groundup.train"
# torchrun's first restart after a killed process sometimes fails, and the second works.
MAX_RESTARTS = 5
# Of <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


def launch(root: Path, hardware: Hardware) -> bool:
    """Train in processes of torchrun; return False if they died too often.

    If one is lost, all restart from a checkpoint. Raises GroundupError if they were stopped or
    failed.
    """
    return start_ranks(RANK, root, root / "train" / ERROR, hardware)


def start_ranks(module: str, argument: Path, error: Path, hardware: Hardware) -> bool:
    """Run a module in processes of torchrun, and return False if they died too often.

    If one is lost, all restart. Raises GroundupError with what one of them wrote to `error`.
    """
    error.unlink(missing_ok=True)
    options = ["--standalone", "--signals-to-handle=SIGQUIT", f"--max-restarts={MAX_RESTARTS}"]
    options += [f"--nproc-per-node={hardware.processes}", "-m", module, str(argument)]
    command = [sys.executable, "-m", "groundup.train.launch", *options]
    own = {PREPARED: "1", PARENT: str(os.getpid()), "OMP_NUM_THREADS": str(hardware.threads)}
    exit_code = wait(command, os.environ | own, module)
    if error.exists():
        message = error.read_text(encoding="utf-8")
        error.unlink()
        raise GroundupError(message)
    return exit_code == 0


def wait(command: list[str], environment: Mapping[str, str], module: str = RANK) -> int:
    """Run a command to its end, and pass signals on to the ranks of a module below it."""
    with catch_signals() as signals, subprocess.Popen(command, env=environment) as process:
        while process.poll() is None:
            # Repeated each time: a signal that comes before a rank listens is lost.
            numbers = [signal.SIGTERM] * signals.stop + [RELOAD_SIGNAL] * signals.reload
            signals.reload = False
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if module in child.cmdline():
                        for number in numbers:
                            child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
        return process.returncode


def exit_with_parent() -> None:
    """End this process with its parent: orphaned ranks would train without the run's lock."""
    if sys.platform == "linux":
        # The kernel does it even while a library waits with the interpreter's lock held, as gloo
        # does when it connects.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    # The kernel reports only deaths from now on.
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    # Ranks inherit this until they catch signals themselves.
    for number in (*STOP_SIGNALS, RELOAD_SIGNAL):
        signal.signal(number, signal.SIG_IGN)
    exit_with_parent()
    os.environ[PARENT] = str(os.getpid())
    # Otherwise all restarts share one store, and new ranks connect to the addresses of lost ones
    # (torch 2.13, gloo).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed.run import main

    main(sys.argv[1:])
