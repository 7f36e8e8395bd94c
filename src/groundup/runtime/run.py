"""A run: its directory, recipe, store and workers; builds artifacts through the store and guards
what was expensive.

Reads the views of earlier runs; writes artifacts, views and the ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from groundup.errors import ExpensiveError, StoreError
from groundup.recipe import Recipe, recipe_from
from groundup.runtime.files import write_whole
from groundup.runtime.job import Job
from groundup.runtime.ledger import Ledger
from groundup.runtime.progress import progress
from groundup.runtime.store import Artifact, Facts, Step, Store
from groundup.runtime.workers.map import Workers
from groundup.schema import settings

# design: a stale stage that cost more than ten minutes is not overwritten.
EXPENSIVE_SECONDS = 600.0
LOCK = "recipe.lock.toml"


@dataclass
class Run:
    """One run directory, opened for work. Use `open_run` to get one under its lock."""

    root: Path
    recipe: Recipe
    workers: Workers = field(default_factory=Workers)
    redo: frozenset[str] = frozenset()
    # While a forgotten document is taken out: a person asked for what that replaces, and for what
    # it empties.
    allow_discard: bool = False
    built: int = 0
    reused: int = 0

    @property
    def store(self) -> Store:
        """The artifacts of this run."""
        return Store(self.root)

    @property
    def ledger(self) -> Ledger:
        """What happened in this run."""
        return Ledger(self.root / "ledger.jsonl")

    def build(self, stage: str, jobs: Sequence[Job], title: str, unit: str = "B") -> list[Artifact]:
        """Return the artifacts of `jobs` in order, building those that the store does not hold.

        Raises:
            ExpensiveError: artifacts of this stage that cost more than ten minutes would be thrown
                away.
        """
        found = [self.store.find(job.step) for job in jobs]
        missing = [job for job, artifact in zip(jobs, found, strict=True) if artifact is None]
        self.guard(stage, [job.step for job in jobs], building=bool(missing))
        built = iter(self._build(missing, title, unit))
        self.built += len(missing)
        self.reused += len(jobs) - len(missing)
        return [artifact if artifact is not None else next(built) for artifact in found]

    def _build(self, jobs: Sequence[Job], title: str, unit: str) -> list[Artifact]:
        if not jobs:
            return []
        items = [(self.store, job.step, job.function, dict(job.arguments)) for job in jobs]
        names = [f"{job.step.step} {job.step.name}" for job in jobs]
        artifacts = []
        with progress(title, sum(job.size for job in jobs), unit) as shown:
            for job, artifact in zip(
                jobs, self.workers.map(Store.build, items, names), strict=True
            ):
                artifacts.append(self.store.seen(artifact))
                shown.add(job.size)
        return artifacts

    def guard(self, stage: str, wanted: Sequence[Step], building: bool = True) -> None:
        """Stop before more than ten minutes of work of this stage loses its place; else remember
        what is wanted.

        A global list whose inputs only grew is superseded, not thrown away. Where nothing has to be
        built, as after a setting was set back, nothing is lost.
        """
        plan = self.store.plan(stage)
        by_step: dict[str, dict[str, Step]] = {}
        for step in wanted:
            by_step.setdefault(step.step, {})[step.name] = step
        for kind, steps in by_step.items() if building else ():
            for name, key in plan.get(kind, {}).items():
                new, old = steps.get(name), self.store.lookup(kind, name, key)
                if old is not None and (new is None or (new.key != key and not _grew(old, new))):
                    self.charge_discarded(stage, old.seconds, difference(old, new))
        wanted_plan = {
            kind: {name: step.key for name, step in steps.items()}
            for kind, steps in by_step.items()
        }
        if plan != plan | wanted_plan:
            self.store.write_plan(stage, plan | wanted_plan)

    def charge_discarded(self, stage: str, seconds: float, why: str) -> None:
        """Count work of `stage` that is about to be lost; raise ExpensiveError beyond ten minutes."""
        if self.allow_discard:
            return
        total = self.store.discarded_seconds(stage) + seconds
        self.store.set_discarded_seconds(stage, total)
        if total > EXPENSIVE_SECONDS and stage not in self.redo:
            raise ExpensiveError(
                f"{self.root / stage}: {why}, and what stands there took {total / 60:.0f} minutes;"
                f" set it back, or run with --redo {stage} (the old one moves to"
                f" {self.root / 'aside'})"
            )

    def publish(
        self,
        stage: str,
        artifacts: Sequence[Artifact],
        links: Mapping[str, Path],
        facts: Facts | None = None,
    ) -> Artifact:
        """Make `links` the new view of `stage`; an old view that was expensive moves aside."""
        if self.store.discarded_seconds(stage) > EXPENSIVE_SECONDS:
            self.set_aside(stage)
        view = self.store.publish(stage, links, artifacts, facts)
        self.store.set_discarded_seconds(stage, 0)
        return view

    def set_aside(self, stage: str) -> None:
        """Move a stage folder to `RUN/aside`, and note it in the ledger."""
        moved = self.store.set_aside(stage)
        if moved is not None:
            self.ledger.write("aside", stage=stage, to=moved.name)

    def forget(self, stage: str, step: str | None = None) -> None:
        """Drop the artifacts of a stage (or of one of its steps), so that they are built again."""
        for kind, names in self.store.plan(stage).items():
            if step in (None, kind):
                self.store.discard(
                    self.root / ".store" / kind / f"{name}-{key[:16]}"
                    for name, key in names.items()
                )


def _grew(old: Artifact, new: Step) -> bool:
    same_settings = (
        old.manifest["settings"] == new.settings and old.manifest["version"] == new.version
    )
    return same_settings and all(
        new.inputs.get(name) == value for name, value in old.manifest["inputs"].items()
    )


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say which settings differ and how, or return ""."""
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return "; ".join(
        f"{name} was {json.dumps(before.get(name))}, is {json.dumps(after.get(name))}"
        for name in names
    )


def difference(old: Artifact | None, new: Step | None) -> str:
    """Say in words what differs between an artifact and the step that would replace it."""
    if old is None or new is None:
        return "one of its inputs is gone"
    changed = changed_settings(old.manifest["settings"], new.settings)
    if changed:
        return changed
    return (
        "its inputs changed"
        if old.manifest["version"] == new.version
        else "this version of groundup builds it differently"
    )


def write_lock(
    run: Run,
    weights: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    **machine: Any,
) -> None:
    """Write `recipe.lock.toml`: every setting as resolved; `machine` adds what was resolved for
    this machine.

    What an earlier call resolved stays, so that a run that goes on never chooses again.

    Args:
        weights: where the first weights come from, empty where they are drawn; None leaves what
            stands there.
        places: of paths that name a place with many states, the one that was collected; None leaves
            what stands there.
    """
    path = run.root / LOCK
    before = _read_lock(path) or {}
    table = settings(run.recipe) | {
        "root": os.path.relpath(run.recipe.root, run.root),
        "machine": before.get("machine", {}) | machine,
    }
    origin = before.get("weights") if weights is None else dict(weights)
    table |= {"weights": origin} if origin else {}
    seen = before.get("places") if places is None else dict(places)
    table |= {"places": seen} if seen else {}
    data = tomli_w.dumps(table).encode("utf-8", "surrogateescape")
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)


def load_lock(root: Path) -> Recipe:
    """Return the recipe that a run directory was made by.

    Raises:
        StoreError: there is no run in `root`.
    """
    table = _read_lock(root / LOCK)
    if table is None:
        raise StoreError(
            f"{root}: there is no run here ({LOCK} is missing or damaged); `groundup run RECIPE"
            f" --out {root}` makes one"
        )
    for resolved in ("machine", "weights", "places"):
        table.pop(resolved, None)
    base = (root / str(table.pop("root", "."))).resolve()
    return recipe_from(table, str(root / LOCK), base)


def machine_settings(root: Path) -> dict[str, Any]:
    """Return what was resolved for this machine: threads, precision, compile mode, micro-batch,
    processes.
    """
    return dict((_read_lock(root / LOCK) or {}).get("machine", {}))


def pinned_places(root: Path) -> dict[str, str]:
    """Return which state of a far place each path was collected from, such as the commit of a data
    set.
    """
    return dict((_read_lock(root / LOCK) or {}).get("places", {}))


def _read_lock(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return None


def check_directory(root: Path) -> None:
    """Refuse a folder that holds something else than a run: its sub-folders could be replaced.

    Raises:
        StoreError: it is not empty, and no run was begun in it.
    """
    names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    if names - {".lock", ".staging"} and not names & {LOCK, ".store", "ledger.jsonl"}:
        raise StoreError(f"{root}: the folder is not empty and holds no run; choose another --out")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of a run directory.

    Raises:
        StoreError: another process works there, or the directory cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{root}: cannot be used as a run directory: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = (
                os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            )
            raise StoreError(
                f"{root}: {holder} is working in this run; wait for it, or choose another --out"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
