"""Ctrl-C and SIGTERM as a flag that the loop asks for between two steps; a second signal acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopFlag:
    """Whether a signal has come."""

    set: bool = False


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Catch the first SIGINT or SIGTERM within the block; outside the main thread none can be caught."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        flag.set = True
        restore()

    for number in before:
        signal.signal(number, catch)
    try:
        yield flag
    finally:
        restore()
