"""Ledgers: append-only files of events, one JSON object a line.

`RUN/ledger.jsonl` records when runs and stages began, finished or failed; a training has a ledger
of its own. Each line carries the hash of all before it (runtime/sealed.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.runtime.sealed import append_chained, read_chained


@dataclass(frozen=True)
class Ledger:
    """Appends events to a file and reads them back."""

    path: Path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time; lines of two processes never mix."""
        append_chained(self.path, {"event": event, "time": round(time.time(), 3)} | fields)

    def write_once(self, event: str, **fields: Any) -> None:
        """Append one event unless an equal one exists, for what a resumed training repeats."""
        for entry in self.events(event):
            if {key: entry[key] for key in entry if key not in ("event", "time")} == fields:
                return
        self.write(event, **fields)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all events, or those of one name, oldest first; torn lines are left out."""
        entries = read_chained(self.path)
        return [entry for entry in entries if event in (None, entry.get("event"))]
