"""The one way to the terminal: text of others is written without what a terminal would execute.

File names, documents and what a model says may hold escape sequences. Nothing else in the package
writes to stdout or stderr; tests/test_house.py checks it.
"""

from __future__ import annotations

import re
import sys

# C0 (except newline and tab), DEL, C1, marks of direction, and bytes of a name that is not UTF-8.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


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
