"""Reads what a run left on disk as far as it can be read; what cannot is told in one line. Writes
nothing.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from groundup.runtime.lock import LOCK
from groundup.runtime.store import MANIFEST, Artifact, Store

Row = dict[str, Any]
Value = TypeVar("Value")


class DamagedError(Exception):
    """A file of the run is there and cannot be read; the message says which."""


@dataclass
class Problems:
    """One line for each part of a report of the run at `root` that could not be made."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def tell(self, part: str, error: Exception) -> None:
        """Remember why a part is missing, without paths and in one line."""
        words = " ".join(str(error).replace(f"{self.root}/", "").split())[:200]
        reason = (
            words if isinstance(error, DamagedError) else f"{type(error).__name__} {words}".rstrip()
        )
        self.lines.append(f"{part}: left out, because it could not be read ({reason})")

    def guarded(self, part: str, function: Callable[[], Any], otherwise: Any) -> Any:
        """Return `function()`; where it fails, tell why and return `otherwise`: damage costs its
        part only.
        """
        try:
            return function()
        except Exception as error:
            self.tell(part, error)
            return otherwise

    def collected(self, part: str, items: Iterable[Value]) -> list[Value]:
        """Return the items up to the first that cannot be made."""
        found: list[Value] = []
        self.guarded(part, lambda: found.extend(items), None)
        return found


def json_file(root: Path, name: str) -> Any:
    """Return the value of a JSON file below the run, None where there is none.

    Raises:
        DamagedError: it is there and is no JSON.
    """
    try:
        return json.loads((root / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        raise DamagedError(f"{name} is damaged") from None


def view(root: Path, stage: str) -> Artifact | None:
    """Return a stage's published view, None where the stage has not run.

    Raises:
        DamagedError: it stands there and is not whole.
    """
    found = Store(root).view(stage)
    if found is None and (root / stage / MANIFEST).exists():
        raise DamagedError(f"{stage}/ is not whole")
    return found


def artifacts(root: Path, stage: str, step: str) -> list[Artifact]:
    """Return the artifacts of a step that a stage's view names."""
    found = view(root, stage)
    entries = found.manifest["artefacts"] if found else []
    return [
        a
        for entry in entries
        if entry["step"] == step and (a := Store(root).artifact(entry)) is not None
    ]


def json_lines(root: Path, name: str) -> Iterator[Row]:
    """Yield the objects of a JSONL file; lines that are none are left out, torn ones and bad bytes
    among them.
    """
    path = root / name
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def lock_table(root: Path) -> dict[str, Any]:
    """Return the resolved recipe as a table, without the folder that it was resolved in.

    Raises:
        DamagedError: it is there and is no TOML.
    """
    path = root / LOCK
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        raise DamagedError(f"{LOCK} is damaged") from None
    table.pop("root", None)
    return table


def number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None
