"""`RUN/train/metrics.jsonl`: the figures of training, one JSON object a line.

Lines are appended while training runs. A resumed training truncates the file to what its checkpoint
had written.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.runtime.files import flush
from groundup.runtime.sealed import append_chained, read_chained


@dataclass(frozen=True)
class Metrics:
    """A file of figures by step."""

    path: Path

    def write(self, **figures: float | str) -> None:
        """Append one line; NaN and infinity become null, which JSON has."""
        infinite = {
            k for k, v in figures.items() if not isinstance(v, str) and not math.isfinite(v)
        }
        append_chained(self.path, figures | dict.fromkeys(infinite))

    def size(self) -> int:
        """Force the file to disk and return its bytes."""
        if not self.path.exists():
            return 0
        flush(self.path)
        return self.path.stat().st_size

    def read(self) -> list[dict[str, Any]]:
        """Return all lines; a torn last one is left out."""
        return read_chained(self.path)


def rounded(value: Any) -> Any:
    """Return figures as JSON values with six significant digits; what is not finite is None."""
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


def cut_back(path: Path, size: int) -> None:
    """Truncate a file to `size` bytes if it is longer."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
