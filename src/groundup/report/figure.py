"""What a figure of a report is: a value that knows the file it was computed from. Reads and writes
nothing on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure: dotted name, value, unit, and the file below the run directory that it was computed
    from.
    """

    name: str
    value: float | int | str | None
    unit: str
    source: str

    def entry(self) -> dict[str, Any]:
        """Return what report.json holds of it, under its name."""
        return {"value": self.value, "unit": self.unit, "from": self.source}


Figures = Mapping[str, Figure]
Part = Callable[[Path], Iterator[Figure]]
