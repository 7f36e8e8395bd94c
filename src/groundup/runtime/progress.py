"""Progress with an ETA: a bar on a terminal, a line now and then without one. Writes to stderr
only.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

LINE_EVERY_SECONDS = 15.0
# C0 (but newline and tab), DEL and C1: what a terminal would execute.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return `text` without the control sequences that a terminal would carry out."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class Progress:
    """Counts `total` units of work and shows how far it is."""

    def __init__(self, title: str, total: float, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0.0
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(total=total, desc=title, unit=unit, unit_scale=True, leave=False)
            if _terminal()
            else None
        )

    def add(self, amount: float = 1, note: str = "") -> None:
        """Count `amount` more units as done; `note` is shown beside them."""
        self.done += amount
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._line(note)

    def expect(self, total: float) -> None:
        """Say how much there is to do, where that was not known before."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total

    def _line(self, note: str) -> None:
        self._last = time.monotonic()
        elapsed = self._last - self._start
        meter = tqdm.format_meter(
            self.done,
            self.total,
            elapsed,
            ncols=0,
            unit=self.unit,
            unit_scale=True,
            postfix=note or None,
        )
        say(f"{self.title}: {meter}")

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(title: str, total: float, unit: str) -> Iterator[Progress]:
    """Show progress for the length of a with block."""
    shown = Progress(title, total, unit)
    try:
        yield shown
    finally:
        shown.close()


def say(line: str = "") -> None:
    """Print a line to stderr without breaking a progress bar, control sequences taken out."""
    tqdm.write("\n".join(printable(part) for part in line.split("\n")), file=sys.stderr)
    sys.stderr.flush()


def _terminal() -> bool:
    return sys.stderr.isatty()
