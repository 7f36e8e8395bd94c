"""The documents that a run was told to forget. Reads and writes `RUN/forgotten.json`, which holds
no text.

The collector leaves such a record out and lists it as `forgotten`. A record is known by its source,
origin and number, as
its id is: another name of the raw file, or another place in it, is another document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.artifacts.checkpoints import list_checkpoints
from groundup.errors import StoreError
from groundup.runtime.files import read_json, write_json

FILE, REASON = "forgotten.json", "forgotten"
# Of the steps that read a document, so many are written down.
MOST_STEPS = 20


@dataclass(frozen=True)
class Entry:
    """One document.

    Attributes:
        shard: that held it, `SOURCE.SHARD`.
        raw: SHA-256 of its raw file as it was then; another one may hold another text at this
            number.
        seen: what the training of that day did with it: its key, how often it read it (None: not
            known), first steps.
        pending: something of its text may still be on disk.
    """

    id: str
    source: str
    origin: str
    record: int
    shard: str = ""
    raw: str = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    pending: bool = True

    @property
    def files(self) -> list[str]:
        """Origins that its raw file may have: the whole, and for a member of archives each of them."""
        parts = self.origin.split("!/")
        return ["!/".join(parts[:end]) for end in range(1, len(parts) + 1)]

    def words(self, root: Path) -> str:
        """Say what the training that stands in a run did with it before it was forgotten."""
        key = training_key(root)
        if not key:
            return "forgotten; no training stands here"
        if not self.seen or self.seen["training"] != key:
            return "forgotten; the model that stands here was trained without it"
        if self.seen["times"] is None:
            return "forgotten; which steps had read it is not known"
        if not self.seen["times"]:
            return "forgotten; training had not read it"
        more = " …" if len(self.seen["steps"]) == MOST_STEPS else ""
        past = ", ".join(self.checkpoints(root)) or "no checkpoint that is there"
        steps = ", ".join(str(step) for step in self.seen["steps"])
        return (
            f"forgotten; training had read it {self.seen['times']:,} times, in steps {steps}{more};"
            f" in the past of {past}"
        )

    def checkpoints(self, root: Path) -> list[str]:
        """Return the checkpoints of a run that have it in their past, or may have."""
        if not self.seen or self.seen["training"] != training_key(root) or self.seen["times"] == 0:
            return []
        first = self.seen["steps"][0] if self.seen["steps"] else 0
        return [path.name for step, path in list_checkpoints(root).items() if step > first]


def training_key(root: Path) -> str:
    """Return the key of the training that stands in a run, "" where there is none."""
    plan = read_json(root / "train" / "train.json")
    return str(plan.get("key", "")) if isinstance(plan, dict) else ""


@dataclass(frozen=True)
class Forgotten:
    """The list."""

    documents: tuple[Entry, ...] = ()

    @classmethod
    def load(cls, root: Path) -> Forgotten:
        """Read the list of a run.

        Raises:
            StoreError: it is damaged; without it, what was forgotten would come back.
        """
        path = root / FILE
        if not path.exists():
            return cls()
        table = read_json(path)
        try:
            return cls(tuple(Entry(**entry) for entry in table["documents"]))
        except (TypeError, KeyError):
            raise StoreError(
                f"{path}: damaged; put it back, or delete it if what was forgotten may come back"
            ) from None

    def save(self, root: Path) -> None:
        """Write the list, whole."""
        write_json(root / FILE, dataclasses.asdict(self))

    @property
    def pending(self) -> tuple[Entry, ...]:
        """Those of which something may still be on disk."""
        return tuple(entry for entry in self.documents if entry.pending)

    def joined(self, entries: Iterable[Entry]) -> Forgotten:
        """Return the list with more documents; what stands on it stays as it is."""
        return Forgotten(
            (*self.documents, *(entry for entry in entries if entry.id not in self.ids))
        )

    def carried_out(self) -> Forgotten:
        """Return the list with nothing pending."""
        return Forgotten(
            tuple(dataclasses.replace(entry, pending=False) for entry in self.documents)
        )

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of the documents."""
        return frozenset(entry.id for entry in self.documents)

    @cached_property
    def _by_file(self) -> dict[tuple[str, str], list[Entry]]:
        found: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.documents:
            for file in entry.files:
                found.setdefault((entry.source, file), []).append(entry)
        return found

    def inside(self, source: str, origins: Iterable[str]) -> list[Entry]:
        """Return what is forgotten of some raw files of a source, in order of origin and record."""
        found = {
            entry.id: entry
            for origin in origins
            for entry in self._by_file.get((source, origin), ())
        }
        return sorted(found.values(), key=lambda entry: (entry.origin, entry.record))
