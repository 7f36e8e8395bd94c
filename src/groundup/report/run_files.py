"""Read the files of a run for its report; a damaged file costs one part of the report.

A file that does not exist gives None or nothing, since its stage may not have run. A file that
exists and cannot be read raises DamagedRunFileError, which names it.
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


class DamagedRunFileError(Exception):
    """A file of the run exists and cannot be read; the message names it."""


@dataclass
class Problems:
    """One line for each part of the report of the run at `root` that could not be made."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def guarded(self, part: str, function: Callable[[], Any], otherwise: Any) -> Any:
        """Return `function()`; if it fails, add a line that says why and return `otherwise`."""
        try:
            return function()
        except Exception as error:
            reason = " ".join(str(error).replace(f"{self.root}/", "").split())[:200]
            if not isinstance(error, DamagedRunFileError):
                reason = f"{type(error).__name__} {reason}".rstrip()
            self.lines.append(f"{part}: left out, because it could not be read ({reason})")
            return otherwise

    def collected(self, part: str, items: Iterable[Value]) -> list[Value]:
        """Return the items up to the first that fails."""
        collected: list[Value] = []
        self.guarded(part, lambda: collected.extend(items), None)
        return collected


def json_file(root: Path, name: str) -> Any:
    """Return the value of a JSON file of the run, or None if there is no such file.

    Raises:
        DamagedRunFileError: it is not JSON.
    """
    try:
        return json.loads((root / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        raise DamagedRunFileError(f"{name} is damaged") from None


def json_lines(root: Path, name: str) -> Iterator[Row]:
    """Yield the objects of a JSONL file; torn lines and lines that are no objects are skipped."""
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
        DamagedRunFileError: it is not TOML.
    """
    path = root / LOCK
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        raise DamagedRunFileError(f"{LOCK} is damaged") from None
    table.pop("root", None)
    return table


def view(root: Path, stage: str) -> Artifact | None:
    """Return the published view of a stage, or None if the stage has not run.

    Raises:
        DamagedRunFileError: the view exists and is incomplete.
    """
    published = Store(root).view(stage)
    if published is None and (root / stage / MANIFEST).exists():
        raise DamagedRunFileError(f"{stage}/ is not whole")
    return published


def artifacts(root: Path, stage: str, step: str) -> list[Artifact]:
    """Return the artifacts of one step that the view of a stage lists."""
    published = view(root, stage)
    entries = published.manifest["artefacts"] if published else []
    listed = (Store(root).artifact(entry) for entry in entries if entry["step"] == step)
    return [artifact for artifact in listed if artifact is not None]


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None
