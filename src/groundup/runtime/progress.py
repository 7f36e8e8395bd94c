"""The one way to the terminal: lines of text, and progress with the time left.

File names, documents and what a model says may hold escape sequences, which a terminal would
execute. Nothing else in the package writes to stdout or stderr; tests/test_house.py checks it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_EVERY_SECONDS = 15.0
# C0 (except newline and tab), DEL, C1, marks of direction, and bytes of a name that is not UTF-8.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Progress:
    """Shows how many of `total` units of work are done; `total` may be set later."""

    def __init__(self, title: str, total: float, unit: str) -> None:
        # Late: `groundup --help` needs none.
        from tqdm import tqdm

        self.title, self.total, self.unit, self.done = title, total, unit, 0.0
        self._start = self._last = time.monotonic()
        self.bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=title, unit=unit, unit_scale=True, leave=False)

    def add(self, amount: float = 1, note: str = "") -> None:
        """Count `amount` more units as done, and show a note beside them."""
        from tqdm import tqdm

        self.done += amount
        if self.bar is not None:
            self.bar.total = self.total
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif time.monotonic() - self._last > LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            counts = (self.done, self.total, self._last - self._start, 0, self.title)
            say(tqdm.format_meter(*counts, unit=self.unit, unit_scale=True, postfix=note or None))


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
    from tqdm import tqdm

    tqdm.write(printable(line), file=sys.stderr)
    sys.stderr.flush()


def printable(text: str) -> str:
    """Return text with a replacement character for each control character but newline and tab."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def echo(text: object = "", end: str = "\n", error: bool = False) -> None:
    """Write text to stdout (or stderr) at once; what its character set lacks becomes "?"."""
    stream = sys.stderr if error else sys.stdout
    plain = printable(f"{text}{end}")
    encoding = stream.encoding or "utf-8"
    stream.write(plain.encode(encoding, "replace").decode(encoding))
    stream.flush()
