"""Ledgers: append-only files of events, one JSON object a line.

`RUN/ledger.jsonl` records when runs and stages began, finished or failed; a training has a ledger
of its own. Nothing in a ledger is hashed.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ledger:
    """Appends events to a file and reads them back."""

    path: Path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time, by a single write: lines of two processes never mix."""
        entry = {"event": event, "time": round(time.time(), 3)} | fields
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            # A crash may have torn the last line. A line break before this one keeps it readable.
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode("utf-8", "surrogateescape"))
        finally:
            os.close(descriptor)

    def write_once(self, event: str, **fields: Any) -> None:
        """Append one event unless an equal one exists, for what a resumed training repeats."""
        for entry in self.events(event):
            if {key: entry[key] for key in entry if key not in ("event", "time")} == fields:
                return
        self.write(event, **fields)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all events, or those of one name, oldest first; torn lines are left out."""
        if not self.path.exists():
            return []
        events = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and event in (None, entry.get("event")):
                events.append(entry)
        return events
