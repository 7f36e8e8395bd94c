"""What may change while a run is on: the [train] table, by step. Reads `RUN/train/ledger.jsonl`
and, when asked to, the recipe; writes events into the ledger.

A "settings" event says what holds from its step on. A later line overrules earlier ones from its
step on, so that a run which goes back to a checkpoint replays every change at its own step, and one
whose recipe was edited in between does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.recipe import Train, load_recipe
from groundup.runtime.files import flush
from groundup.runtime.ledger import Ledger
from groundup.runtime.run import changed_settings
from groundup.schema import decode, settings
from groundup.train.setup import Plan

LEDGER = "ledger.jsonl"
EVENT = "settings"
# Of the key, or settled before step 0 for the life of a process.
FIXED = ("optimizer", "precision", "compile", "threads", "processes", "micro_batch", "recompute")


@dataclass(frozen=True)
class Change:
    """Settings that hold from `step` on; `steps` is the end step, resolved."""

    step: int
    train: Train
    steps: int


def timeline(events: Iterable[Mapping[str, Any]], where: str = LEDGER) -> list[Change]:
    """Return what holds when, in order of steps."""
    found: list[Change] = []
    for event in events:
        table = dict(event["settings"])
        change = Change(event["step"], decode(Train, table, where), table["steps"])
        found = [one for one in found if one.step < change.step] + [change]
    return found


class Changes:
    """The settings of a training, by step."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan, self.ledger = plan, Ledger(folder / LEDGER)
        self.read()

    def read(self) -> None:
        """Read the ledger again; without one, the plan's own settings hold throughout."""
        own = [Change(0, self.plan.train, self.plan.steps)]
        self.changes = timeline(self.ledger.events(EVENT)) or own

    def at(self, step: int) -> Plan:
        """Return the plan as it holds for the step that follows `step` taken ones."""
        change = next((one for one in reversed(self.changes) if one.step <= step), self.changes[0])
        return dataclasses.replace(self.plan, train=change.train, steps=change.steps)

    def note(self, step: int, train: Train, steps: int) -> bool:
        """Write into the ledger what holds from `step` on, unless it holds already; return whether
        it was written.
        """
        newest = timeline(self.ledger.events(EVENT))
        if newest and (newest[-1].train, newest[-1].steps) == (train, steps):
            return False
        if not newest and step:
            # What held until now must be known for going back to before `step`.
            self.ledger.write(
                EVENT, step=0, changed="", settings=_table(self.plan.train, self.plan.steps)
            )
        before = _table(self.changes[-1].train, self.changes[-1].steps)
        now = _table(train, steps)
        self.ledger.write(EVENT, step=step, changed=changed_settings(before, now), settings=now)
        flush(self.ledger.path)
        self.read()
        return True

    def reload(self, step: int, world: int) -> str:
        """Read the recipe again, let its [train] table hold from `step` on, and say what changed.

        Raises:
            GroundupError: it cannot be used, or changes what a running process cannot.
        """
        if not self.plan.recipe:
            raise GroundupError(
                "this training was not begun from a recipe file; stop it, and run again to"
                " change it"
            )
        train = load_recipe(Path(self.plan.recipe), self.plan.overrides).train
        now = self.changes[-1]
        stuck = [name for name in FIXED if getattr(train, name) != getattr(now.train, name)]
        if stuck:
            raise GroundupError(
                f"{self.plan.recipe}: [train] {stuck[0]} cannot change while a run is on; stop it"
                " and run again"
            )
        steps = now.steps if train.steps == "auto" else train.steps
        sequences = dataclasses.replace(self.plan, train=train).sequences
        if sequences % world:
            raise GroundupError(
                f"{self.plan.recipe}: batch_tokens is {sequences} sequences, which {world}"
                " processes cannot share evenly"
            )
        changed = changed_settings(_table(now.train, now.steps), _table(train, steps))
        if changed and self.note(step, train, steps):
            dataclasses.replace(self.plan, train=train, steps=steps).write(self.ledger.path.parent)
        return changed or "nothing changed"


def _table(train: Train, steps: int) -> dict[str, Any]:
    return settings(train) | {"steps": steps}
