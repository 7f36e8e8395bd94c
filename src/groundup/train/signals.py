"""Signals as flags that the loop asks for between two steps: stop after this step, or read the
recipe again.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# SIGUSR1 is what cluster schedulers send some time before they end a job.
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
RELOAD = signal.SIGHUP


@dataclass
class StopFlag:
    """Whether a signal to stop has come, or (`reload`) one to read the recipe again."""

    set: bool = False
    reload: bool = False


@contextmanager
def stop_flag(patient: bool = False) -> Iterator[StopFlag]:
    """Catch signals within the block; outside the main thread none can be caught.

    A second signal to stop acts at once, unless `patient`: a rank hears of a stop from several
    sides.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (*STOP, RELOAD)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        flag.set = True
        if not patient:
            restore()

    def reload(number: int, frame: FrameType | None) -> None:
        flag.reload = True

    for number in STOP:
        signal.signal(number, stop)
    signal.signal(RELOAD, reload)
    try:
        yield flag
    finally:
        restore()
