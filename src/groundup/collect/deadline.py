"""A last limit on the time that one record may take, for parsers that others wrote. Reads and
writes nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A hundred times what the slowest real page took; sizes are bounded first, so that results do not
# hang on the machine.
RECORD_SECONDS = 60.0


class TooLongError(Exception):
    """A record that took longer than its limit."""


def _expire(number: int, frame: FrameType | None) -> None:
    raise TooLongError(f"it took longer than {RECORD_SECONDS:.0f} s")


@contextmanager
def deadline(seconds: float = RECORD_SECONDS) -> Iterator[None]:
    """Raise TooLongError when the block takes longer; in the main thread only, where Python
    delivers signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
