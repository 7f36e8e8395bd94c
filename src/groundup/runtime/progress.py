"""Progress on stderr with the time left: a bar on a terminal, a line now and then without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from groundup.runtime.terminal import printable

LINE_EVERY_SECONDS = 15.0


class Progress:
    """Shows how many of `total` units of work are done."""

    def __init__(self, title: str, total: float, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self._start = self._last = time.monotonic()
        self.bar = (
            tqdm(total=total, desc=title, unit=unit, unit_scale=True, leave=False)
            if sys.stderr.isatty()
            else None
        )

    def add(self, amount: float = 1, note: str = "") -> None:
        """Count `amount` more units as done, and show a note beside them."""
        self.done += amount
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            meter = tqdm.format_meter(
                self.done,
                self.total,
                self._last - self._start,
                ncols=0,
                unit=self.unit,
                unit_scale=True,
                postfix=note or None,
            )
            say(f"{self.title}: {meter}")

    def expect(self, total: float) -> None:
        """Set the total, if it was not known before."""
        self.total = total
        if self.bar is not None:
            self.bar.total = total


@contextmanager
def progress(title: str, total: float, unit: str) -> Iterator[Progress]:
    """Show progress during a with block."""
    shown = Progress(title, total, unit)
    try:
        yield shown
    finally:
        if shown.bar is not None:
            shown.bar.close()


def say(line: str = "") -> None:
    """Print a line to stderr, above a progress bar, without control characters."""
    tqdm.write(printable(line), file=sys.stderr)
    sys.stderr.flush()
