"""What happened in a run, and when: `RUN/ledger.jsonl`, append-only, one JSON object a line.
Nothing of it is hashed.
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
        """Append one event with the time; a single write, so that events of two processes never
        mix.
        """
        line = json.dumps(
            {"event": event, "time": round(time.time(), 3)} | fields, ensure_ascii=False
        )
        # The line break comes first, so that a line torn by a crash spoils itself and not its
        # successor.
        data = (("\n" if self._torn() else "") + line + "\n").encode("utf-8", "surrogateescape")
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def write_once(self, event: str, **fields: Any) -> None:
        """Append one event unless an equal one is there, whenever it was: what is replayed happens
        once.
        """
        known = (
            {name: value for name, value in one.items() if name not in ("event", "time")}
            for one in self.events(event)
        )
        if fields not in known:
            self.write(event, **fields)

    def _torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:
            return False

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all events, or those of one kind, oldest first; torn lines are left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and event in (None, entry.get("event")):
                found.append(entry)
        return found
