"""Compare every byte of a run directory with the hash that was written beside it.

    what                                        its hash
    files of artifacts, views and checkpoints   in the manifest.json of their folder
    manifests, plans, locks, lists, best.json   in the file itself (runtime/sealed.py)
    ledger.jsonl, metrics.jsonl                 a chain through their lines
    train/index.parquet                         in the ledger of the training

Only `.lock` and the staging area have none. Files are walked, not listed, so a file of somebody
else in the directory is seen, and said to be unchecked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.runtime.files import file_digest, read_json
from groundup.runtime.ledger import Ledger
from groundup.runtime.lock import LOCK
from groundup.runtime.sealed import is_intact
from groundup.runtime.store import MANIFEST

CHANGED = "its bytes are not those that were written"
# What every run has, and what every training with a checkpoint has.
RUN_FILES = (LOCK, "ledger.jsonl")
TRAIN_FILES = ("train.json", "ledger.jsonl", "metrics.jsonl", "index.parquet")


@dataclass
class Integrity:
    """Outcome of a comparison.

    Attributes:
        damaged: a line for each file that is missing or changed.
        unchecked: files that carry no hash: of other programs, or of earlier versions.
    """

    damaged: list[str] = field(default_factory=list)
    unchecked: list[Path] = field(default_factory=list)


def check_integrity(root: Path) -> Integrity:
    """Hash every file of a run directory, each inode once."""
    result, covered = Integrity(), set[Path]()
    digests: dict[tuple[int, int], str] = {}
    files = list(_walk(root))
    for path in files:
        if path.name == MANIFEST:
            for name, entry in _listed(path).items():
                file = path.parent / name
                covered.add(file)
                if not file.is_file():
                    result.damaged.append(f"{file}: missing")
                    continue
                inode = (file.stat().st_dev, file.stat().st_ino)
                if inode not in digests:
                    digests[inode] = file_digest(file)
                if digests[inode] != entry["sha256"]:
                    result.damaged.append(f"{file}: {CHANGED}")
    for path in files:
        if path not in covered:
            intact = _is_recorded(path) if path.name == "index.parquet" else _is_sealed(path)
            if intact is None:
                result.unchecked.append(path)
            elif not intact:
                result.damaged.append(f"{path}: {CHANGED}")
    trainings = [folder.parent for folder in files if folder.name == "train.json"]
    expected = [root / name for name in RUN_FILES]
    expected += [folder / name for folder in trainings for name in TRAIN_FILES]
    if (root / "train").exists():
        expected += [root / "train" / name for name in TRAIN_FILES]
    missing = dict.fromkeys(path for path in expected if not path.exists())
    result.damaged += [f"{path}: missing" for path in missing]
    return result


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file of a run that hashes cover, in order."""
    for folder, folders, names in os.walk(root):
        top = Path(folder)
        if top == root:
            folders[:] = [n for n in folders if n != ".staging" and not n.startswith(".trash-")]
        folders.sort()
        yield from (top / name for name in sorted(names) if (top / name) != root / ".lock")


def _listed(manifest: Path) -> dict[str, dict[str, Any]]:
    """Return the files of an intact manifest; a damaged one is reported as a file of its own."""
    table = read_json(manifest) if is_intact(manifest) is not False else None
    files = table.get("files") if isinstance(table, dict) else None
    return files if isinstance(files, dict) else {}


def _is_sealed(path: Path) -> bool | None:
    return is_intact(path) if path.suffix in (".json", ".jsonl", ".toml") else None


def _is_recorded(path: Path) -> bool | None:
    """Whether the ledger next to a file has its hash; None if it records none."""
    recorded = [event["sha256"] for event in Ledger(path.parent / "ledger.jsonl").events("index")]
    return file_digest(path) in recorded if recorded else None
