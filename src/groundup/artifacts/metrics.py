"""`RUN/train/metrics.jsonl`: one JSON object a line, appended while training runs and cut back when
it resumes.
"""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.runtime.files import flush


@dataclass(frozen=True)
class Metrics:
    """A file of figures by step."""

    path: Path

    def write(self, **figures: float | str) -> None:
        """Append one line."""
        # JSON has no NaN: what is not a number is null.
        plain = {
            name: value if isinstance(value, str) or math.isfinite(value) else None
            for name, value in figures.items()
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")

    def size(self) -> int:
        """Return the bytes written so far, after forcing them to disk."""
        if self.path.exists():
            flush(self.path)
        return size_of(self.path)

    def read(self) -> list[dict[str, Any]]:
        """Return all lines; a torn last one is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def rounded(value: Any) -> Any:
    """Return figures as JSON values with six significant digits: the rest is rounding error.

    What is not finite becomes None.
    """
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    return value


def size_of(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def cut_back(path: Path, size: int) -> None:
    """Forget what was appended after the file had `size` bytes."""
    if size_of(path) > size:
        os.truncate(path, size)
