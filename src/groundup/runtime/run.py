"""A run: one run directory with its recipe, its store of artifacts and its workers.

A stage declares its steps once, each with what enters its key. Every argument of the function
enters under its own name unless it is marked, so an argument cannot be forgotten in the key:

    @build_step("refine/shard", version=8)
    def refine_shard(folder, collected, filters, personal): ...

    job = refine_shard.job(
        "books.1f2e",
        inputs={"collect": collected.content},
        filters=["gopher"],                            # argument, and in the key
        personal=Keyed(personal, personal.actions()),  # argument; the key has another form of it
        collected=Unkeyed(collected.path),             # argument that does not decide the bytes
    )

Stages get a `Run`: they read the view of an earlier stage, build artifacts, and publish a view.

    with Run.open(recipe, root) as run:                   # locked; workers started
        collected = run.store.view("collect")
        shards = run.build("refine", jobs, "refining")    # builds only what the store lacks
        run.publish("refine", shards, links)              # RUN/refine, hard links into the store

                     in the store: reused
    jobs → build ─┬───────────────────────────────────────────┬→ artifacts → publish → RUN/refine
                  └ missing → guard → workers → new artifacts ┘

If a changed setting would replace artifacts that took more than ten minutes, `guard` stops the run
and asks for `--redo STAGE`; the old view then moves to `RUN/aside`.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import ExpensiveError, GroundupError, InterruptionError, SourceError
from groundup.recipe import Recipe
from groundup.runtime.lock import locked
from groundup.runtime.progress import progress, say
from groundup.runtime.resources import DATA_LIBRARIES, peak_memory, versions
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Artifact, Facts, Step, Store
from groundup.runtime.user_code import forget_modules
from groundup.runtime.work import Work, idle_seconds
from groundup.runtime.workers.map import Workers, default_workers

# A stage that cost more than this is never overwritten without --redo.
EXPENSIVE_SECONDS = 600.0

# As the key of an argument: it is left out of the key.
ABSENT = object()


@dataclass(frozen=True)
class Keyed:
    """An argument that enters the key in another form, or not at all (ABSENT) for this value.

    ABSENT serves settings added later: leaving out their default keeps the keys of older runs.
    """

    argument: Any
    key: Any


@dataclass(frozen=True)
class Unkeyed(Keyed):
    """An argument that does not decide the bytes: a device, a memory cap, the path of an input."""

    key: Any = ABSENT


@dataclass(frozen=True)
class Job:
    """A step, and `function(folder, **arguments)`, which builds it and returns its facts."""

    step: Step
    function: Callable[..., Facts]
    arguments: Mapping[str, Any]
    # What progress counts, such as bytes.
    size: float = 1.0


def taken(jobs: list[Job]) -> Iterator[Job]:
    """Take the jobs out of a list one by one: nothing holds a hundred thousand after their work."""
    jobs.reverse()
    while jobs:
        yield jobs.pop()


@dataclass(frozen=True)
class BuildStep:
    """A step of a stage."""

    name: str  # stage and step, such as `refine/shard`
    version: int  # raised by hand when equal arguments and inputs begin to give other bytes
    # Writes the artifact into its first argument, a folder, and returns its facts.
    function: Callable[..., Facts]

    def __call__(self, *args: Any, **kwargs: Any) -> Facts:
        """Call the function."""
        return self.function(*args, **kwargs)

    def job(
        self,
        artifact: str,
        inputs: Mapping[str, str],
        size: float = 1.0,
        key_only: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Job:
        """Return the job that builds the artifact of this name from `inputs` (name → content).

        `key_only` are settings that are no argument, such as the version of a library. Raises
        TypeError if `arguments` are not those of the function.
        """
        values, settings = {}, dict[str, Any]()
        for name, argument in arguments.items():
            keyed = argument if isinstance(argument, Keyed) else Keyed(argument, argument)
            values[name] = keyed.argument
            if keyed.key is not ABSENT:
                settings[name] = keyed.key
        # Found here, in the main process, and not by a worker.
        inspect.signature(self.function).bind(None, **values)
        settings |= key_only or {}
        step = Step(self.name, artifact, self.version, settings, dict(inputs))
        return Job(step, self.function, values, size)


def build_step(name: str, version: int) -> Callable[[Callable[..., Facts]], BuildStep]:
    """Declare a function to be a step, which takes its name."""

    def declare(function: Callable[..., Facts]) -> BuildStep:
        # Where workers import the function from.
        function.__qualname__ += ".function"
        return BuildStep(name, version, function)

    return declare


@dataclass
class _Changes:
    """What a stage is about to build, beside what it last set out to build."""

    before: Mapping[str, Mapping[str, str]]  # step → name → key
    now: dict[str, dict[str, str]] = field(default_factory=dict)
    # Those that had another key, by step and name. Few: a step holds the digests of its inputs.
    steps: dict[tuple[str, str], Step] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Count a step among those that are to be built now."""
        self.now.setdefault(step.step, {})[step.name] = step.key
        if self.before.get(step.step, {}).get(step.name, step.key) != step.key:
            self.steps[step.step, step.name] = step

    def gone(self) -> Iterator[tuple[str, str, str]]:
        """Yield step, name and key of what was to be built and is not now."""
        for kind, names in self.now.items():
            for name, key in self.before.get(kind, {}).items():
                if names.get(name) != key:
                    yield kind, name, key


def _supersedes(step: Step, old: Artifact) -> bool:
    """Whether a step differs from the one of an artifact in more inputs only, if at all."""
    if step.key == old.key:
        return True
    same = (old.manifest["settings"], old.manifest["version"]) == (step.settings, step.version)
    return same and bool(old.manifest["inputs"].items() <= step.inputs.items())


@dataclass
class Run:
    """One run directory, opened for work."""

    root: Path
    recipe: Recipe
    workers: Workers = field(default_factory=Workers)
    redo: frozenset[str] = frozenset()  # stages to build again even if they are fresh
    # Expensive artifacts may be replaced without --redo; set while forgotten documents are taken
    # out, because the user asked for what that replaces.
    allow_discard: bool = False
    # Artifacts of the current stage, and what building them took.
    built: int = 0
    reused: int = 0
    work: Work = field(default_factory=Work)
    # Notes of a stage that may be run again; None says them at once.
    _notes: list[str] | None = field(default=None, repr=False)

    @classmethod
    @contextmanager
    def open(
        cls,
        recipe: Recipe,
        root: Path,
        redo: Sequence[str] = (),
        workers: int | None = None,
        ray: str = "",
        shared: Mapping[str, Path] | None = None,
        modules: Sequence[str] = (),
    ) -> Iterator[Run]:
        """Open a run directory for writing: lock it, empty its staging area, start its workers.

        Data stages use local `workers`, by default one a core, which share `modules`; or those of
        the Ray cluster at the address `ray`, whose nodes must see the run directory and what is
        `shared`, by title.
        """
        # Workers on other machines do not start in this folder.
        root = root.resolve() if ray else root
        # Workers find modules where this process does.
        forget_modules(recipe.root)
        with locked(root):
            run = cls(root, recipe, redo=frozenset(redo))
            run.workers = run._hire(workers, ray, shared or {}, modules)
            # What a killed run left behind.
            run.store.clean()
            run.ledger.write("run", command=sys.argv[1:], versions=versions())
            try:
                run.workers.start()
                yield run
            finally:
                run.workers.close()

    def _hire(
        self, count: int | None, ray: str, shared: Mapping[str, Path], modules: Sequence[str]
    ) -> Workers:
        """Return local workers, or those of a Ray cluster; they are not started."""
        if not ray:
            return Workers(count or default_workers(), modules=modules)
        if count is not None:
            here = "workers are counted on this machine, or are those of a Ray cluster"
            raise GroundupError(f"{here}: give one of the two")
        from groundup.runtime.workers.ray import RayPool

        libraries = ("python", "groundup", *DATA_LIBRARIES)
        return Workers(pool=RayPool(ray, self.store.staging, shared, libraries))

    @property
    def store(self) -> Store:
        """Artifacts and views."""
        return Store(self.root)

    @property
    def ledger(self) -> Ledger:
        """When runs and stages began, finished or failed."""
        return Ledger(self.root / "ledger.jsonl")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record a stage in the ledger: what it built, its time and memory, or why it failed."""
        self.built = self.reused = 0
        self.work = Work()
        start, idle = time.perf_counter(), idle_seconds()
        self.ledger.write("began", stage=name)
        try:
            with peak_memory() as peak:
                yield
        # Ctrl-C and SIGTERM are recorded too, and are no failure.
        except BaseException as error:
            seconds, message = time.perf_counter() - start, f"{type(error).__name__}: {error}"
            stopped = isinstance(error, KeyboardInterrupt | InterruptionError)
            event = "interrupted" if stopped else "failed"
            self.ledger.write(event, stage=name, seconds=round(seconds, 3), error=message[:500])
            raise
        seconds = round(time.perf_counter() - start, 3)
        counts = {"peak_bytes": peak[0], "built": self.built, "reused": self.reused}
        if self.workers.remote is None:
            self.work.idle_seconds = idle_seconds() - idle
        counts |= self.work.counts(self.workers.cores)
        event = "finished" if self.built else "fresh"
        self.ledger.write(event, stage=name, seconds=seconds, **counts)
        # What people see, one line a stage.
        outcome = "fresh" if self.reused else "nothing to do"
        if self.built:
            outcome = f"done in {seconds:.0f} s"
            if self.reused:
                outcome += f" ({self.reused} of {self.built + self.reused} reused)"
        say(f"{name:9} {outcome}")

    def perform_again(self, name: str, stage: Callable[[Run], None]) -> None:
        """Run a stage that --redo names; a second time, without its artifacts, if it was fresh.

        Only running a stage shows whether it is fresh. What it notes then, and a SourceError, are
        about the old artifacts, and are left out.
        """
        notes = self._notes = []
        fresh = False
        try:
            stage(self)
            # A stage that was stale has been built again already.
            fresh = not self.built
        except SourceError:
            # Without artifacts, a source cannot be found, and a second time would not help.
            fresh = bool(self.reused) and not self.built
            if not fresh:
                raise
        finally:
            self._notes = None
            if not fresh:
                for line in notes:
                    say(line)
        if fresh:
            self.archive(name)
            self.discard_planned(name)
            self.reused = 0
            stage(self)

    def note(self, line: str) -> None:
        """Say what a stage found in its artifacts, unless --redo is about to replace them."""
        if self._notes is None:
            say(line)
        else:
            self._notes.append(line)

    def build(
        self, stage: str, jobs: Iterable[Job], title: str, unit: str = "B", here: bool = False
    ) -> list[Artifact]:
        """Return the artifacts of `jobs` in order, building those that the store does not hold.

        A job is let go of when it is done: `taken` of a long list saves memory. `here` builds them
        in this process, whatever workers there are. Raises ExpensiveError if that would replace
        artifacts that took more than ten minutes.
        """
        found, missing = list[Artifact | None](), deque[Job]()
        changes = _Changes(self.store.plan(stage))
        for job in jobs:
            changes.add(job.step)
            found.append(artifact := self.store.find(job.step))
            if artifact is None:
                missing.append(job)
        del jobs
        self._guard(stage, changes, building=bool(missing))
        del changes
        self.built += len(missing)
        self.reused += len(found) - len(missing)
        gaps = [index for index, artifact in enumerate(found) if artifact is None]
        new = self._build(missing, title, unit, here)
        for index, artifact in zip(gaps, new, strict=True):
            found[index] = artifact
        return [artifact for artifact in found if artifact is not None]

    def _build(self, missing: deque[Job], title: str, unit: str, here: bool) -> Iterator[Artifact]:
        """Build the artifacts of jobs that the store lacks, and yield them in order."""
        if not missing:
            return
        names = [f"{job.step.step} {job.step.name}" for job in missing]
        sizes = [job.size for job in missing]
        workers = Workers() if here else self.workers
        last = time.perf_counter()
        with progress(title, sum(sizes), unit) as shown:
            results = workers.map(Store.build, self._calls(missing), names, sizes)
            for size, artifact in zip(sizes, results, strict=True):
                # A worker on another machine may have committed it.
                built = self.store.wait_until_visible(artifact)
                now = time.perf_counter()
                self.work.add([built], now - last)
                last = now
                shown.add(size)
                yield built

    def _calls(self, jobs: deque[Job]) -> Iterator[tuple[Any, ...]]:
        """Yield the arguments of Store.build, and let go of each job."""
        while jobs:
            job = jobs.popleft()
            yield self.store, job.step, job.function, dict(job.arguments)

    def guard(self, stage: str, steps: Iterable[Step], building: bool = True) -> None:
        """Stop before more than ten minutes of work of a stage is discarded; else plan the steps.

        A global list whose inputs only grew is superseded, not discarded. If nothing has to be
        built, as after a setting was set back, nothing is lost.
        """
        changes = _Changes(self.store.plan(stage))
        for step in steps:
            changes.add(step)
        self._guard(stage, changes, building)

    def _guard(self, stage: str, changes: _Changes, building: bool) -> None:
        for kind, name, key in changes.gone() if building else ():
            old, step = self.store.lookup(kind, name, key), changes.steps.get((kind, name))
            if old is not None and not (step and _supersedes(step, old)):
                self.charge_discarded(stage, old.seconds, difference(old, step))
        # Steps of the stage that are not built now keep their place in the plan.
        plan = {**changes.before, **changes.now}
        if changes.before != plan:
            self.store.write_plan(stage, plan)

    def charge_discarded(self, stage: str, seconds: float, reason: str) -> None:
        """Count work of `stage` that will be lost; raise ExpensiveError beyond ten minutes."""
        if self.allow_discard:
            return
        # Summed over processes: ten runs that each lose nine minutes lose much, too.
        total = self.store.discarded_seconds(stage) + seconds
        self.store.set_discarded_seconds(stage, total)
        if total > EXPENSIVE_SECONDS and stage not in self.redo:
            cost = f"the old result took {total / 60:.0f} minutes"
            advice = f"run with --redo {stage} (the old one moves to {self.root / 'aside'})"
            where = self.root / stage
            raise ExpensiveError(f"{where}: {reason}, and {cost}; set it back, or {advice}")

    def publish(
        self,
        stage: str,
        artifacts: Sequence[Artifact],
        links: Mapping[str, Path],
        facts: Facts | None = None,
    ) -> Artifact:
        """Make `links` the new view of `stage`; an old view that was expensive is archived."""
        # --redo named the stage, or the guard would have stopped the run.
        if self.store.discarded_seconds(stage) > EXPENSIVE_SECONDS:
            self.archive(stage)
        view = self.store.publish(stage, links, artifacts, facts)
        self.store.set_discarded_seconds(stage, 0)
        return view

    def archive(self, stage: str) -> Path | None:
        """Move a stage folder to `RUN/aside`, note it in the ledger, and return where it is now."""
        archived = self.store.archive(stage)
        if archived is not None:
            self.ledger.write("aside", stage=stage, to=archived.name)
        return archived

    def discard_planned(self, stage: str, step: str | None = None) -> None:
        """Delete the artifacts of a stage, or of one of its steps; they are built again."""
        store = self.store
        for kind, names in store.plan(stage).items():
            if step in (None, kind):
                store.discard(store.artifact_path(kind, *entry) for entry in names.items())

    def discard_step(self, stage: str, step: str) -> None:
        """Delete the artifacts of a step that other steps have read, as if it was never planned."""
        plan = self.store.plan(stage)
        if step in plan:
            self.discard_planned(stage, step)
            del plan[step]
            self.store.write_plan(stage, plan)


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return which settings differ and how, in words; "" if none does."""
    pairs = {name: (before.get(name), after.get(name)) for name in sorted({*before, *after})}
    changes = [(name, *map(json.dumps, pair)) for name, pair in pairs.items() if pair[0] != pair[1]]
    return "; ".join(f"{name} was {old}, is {new}" for name, old, new in changes)


def difference(old: Artifact | None, new: Step | None) -> str:
    """Return in words what differs between an artifact and the step that would replace it."""
    if old is None or new is None:
        return "one of its inputs is gone"
    before, same = old.manifest["settings"], old.manifest["version"] == new.version
    # A setting that another version added is no change of the user.
    after = {name: new.settings[name] for name in new.settings if same or name in before}
    if changed := changed_settings(before, after):
        return changed
    return "its inputs changed" if same else "this version of groundup builds it differently"
