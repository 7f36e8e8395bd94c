"""The stages in order and how they hang together. This is the table of contents: each stage is
`groundup.STAGE.stage.run`.

Reads a recipe; writes a run directory, stage by stage, and leaves alone what is fresh.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import psutil

from groundup import __version__
from groundup.artifacts.forgotten import Forgotten
from groundup.errors import ExpensiveError, GroundupError
from groundup.recipe import Recipe
from groundup.runtime.erase import erase
from groundup.runtime.files import read_json, write_json, write_whole
from groundup.runtime.progress import say
from groundup.runtime.run import LOCK, Run, check_directory, load_lock, locked, write_lock
from groundup.runtime.store import Store
from groundup.runtime.workers.map import Workers, default_workers
from groundup.schema import settings

# collect   raw files            → collect/documents, what could not be read → collect/dropped
# refine    collected documents  → refine/documents, refine/dropped, refine/cuts, refine/split
# tokenize  kept documents       → tokenizer.json, token shards, index
# train     token shards         → checkpoints, metrics
# evaluate  best checkpoint      → evaluation.json, samples.json, speed.json
# tune      best checkpoint      → a model that answers, where the recipe asks for one
# export    the run's model      → a folder that other programs load
# report    all of the above     → every figure in one file
STAGES = ("collect", "refine", "tokenize", "train", "evaluate", "tune", "export", "report")

# What holds text, and can be made again from what is before it.
DATA = STAGES[:3]

# What `--redo` deletes before the stage begins, because its key does not know the data that it was
# made from.
FROZEN = {"tokenize": "tokenize/tokenizer"}

# Whose versions explain a difference between two machines. All but the first decide documents and
# tokens.
LIBRARIES = (
    *(
        "torch",
        "numpy",
        "pyarrow",
        "numba",
        "tokenizers",
        "trafilatura",
        "lxml",
        "ftfy",
        "py3langid",
    ),
    *("chardet", "fastwarc", "resiliparse"),
)


def run_flow(
    recipe: Recipe,
    root: Path,
    until: str = STAGES[-1],
    redo: Sequence[str] = (),
    workers: int | None = None,
    ray: str = "",
) -> Run:
    """Bring the run at `root` to stage `until` for `recipe`, doing only what is not fresh.

    Args:
        workers: processes for data stages; by default the number of cores.
        ray: address of a Ray cluster whose nodes do the data stages instead: `auto` or `host:port`.

    Raises:
        GroundupError: in one line, when something the user can mend is in the way.
    """
    wanted = STAGES[: STAGES.index(check_stage(until)) + 1]
    for stage in redo:
        if check_stage(stage) not in wanted:
            raise GroundupError(
                f"--redo {stage} comes after --until {until}; nothing of it would be done"
            )
    check_directory(root)
    with opened(recipe, root, redo, workers, ray) as run:
        plan_once(run)
        finish_forget(run)
        with lock_of(run):
            for stage in set(redo) & set(FROZEN):
                run.forget(stage, FROZEN[stage])
            run_stages(run, wanted)
        if until == STAGES[-1]:
            run.store.discard(run.store.unreferenced(STAGES))
    return run


def run_stages(run: Run, stages: Sequence[str]) -> None:
    """Run stages one after the other, with a page beside them that says how far the run is."""
    from groundup.report.live import QUIT, live_page

    with live_page(run.root) as live:
        for stage in stages:
            if stage == "report":
                live.end(QUIT)
            if stage == "train":
                # They would hold memory for as long as it takes, and a cluster that goes away would
                # take training with it.
                run.workers.close()
            run_stage(run, stage)
            live.tell()


def finish_forget(run: Run) -> list[str]:
    """Finish what `groundup forget` began: bring the data up to date, then delete what still holds
    the text; say what was deleted.

    Nobody is asked about the expensive data that this replaces: a person wanted it. That is not so
    where a recipe was changed in between.
    """
    forgotten = Forgotten.load(run.root)
    if not forgotten.pending:
        return []
    say(f"forget: {len(forgotten.pending):,} to take out")
    run.allow_discard = _same_recipe(run)
    for stage in begun(run):
        run_stage(run, stage)
    run.allow_discard = False
    return erase(run, forgotten)


def _same_recipe(run: Run) -> bool:
    try:
        return settings(load_lock(run.root)) == settings(run.recipe)
    except GroundupError:
        return False


def begun(run: Run) -> Sequence[str]:
    """Return the stages that make data, up to the last one that a run has begun."""
    there = [
        number
        for number, stage in enumerate(DATA)
        if run.store.plan(stage) or (run.root / stage).exists()
    ]
    return DATA[: max(there, default=-1) + 1]


@contextmanager
def lock_of(run: Run) -> Iterator[None]:
    """Write `recipe.lock.toml`; when the guard stops the run, the recipe that it stands for is put
    back.
    """
    path = run.root / LOCK
    before = path.read_bytes() if path.exists() else None
    write_lock(run)
    try:
        yield
    except ExpensiveError:
        if before is not None:
            write_whole(path, before)
        raise


def plan_once(run: Run) -> None:
    """Refuse what cannot fit, and write `plan.json`, which the report shows beside what was
    measured.

    Raises:
        GroundupError: the recipe cannot fit this machine.
    """
    from groundup.plan import checked_base, make_plan

    # The model that is gone on from may be another one by now, under the same name.
    checked_base(run.recipe, run.root)
    path, recipe = run.root / "plan.json", settings(run.recipe)
    old = read_json(path)
    if isinstance(old, dict) and old.get("recipe") == recipe:
        return
    plan = make_plan(run.recipe, root=run.root)
    plan.refuse()
    write_json(path, {"recipe": recipe, "figures": json.loads(plan.json())})


def run_one(root: Path, stage: str, recipe: Recipe | None = None, redo: Sequence[str] = ()) -> Run:
    """Run a single stage of an existing run again, as `groundup evaluate`, `export` and `report`
    do.

    Args:
        recipe: in place of the one that the run was made by, as `groundup export` has it.
    """
    with opened(recipe or load_lock(root), root, redo, 1) as run:
        run_stage(run, stage)
    return run


@contextmanager
def opened(
    recipe: Recipe, root: Path, redo: Sequence[str] = (), workers: int | None = None, ray: str = ""
) -> Iterator[Run]:
    """Open a run directory for writing: locked, its staging area cleaned, its workers stopped at
    the end.
    """
    # Workers on other machines do not start in this folder.
    root = root.resolve() if ray else root
    with locked(root):
        run = Run(root, recipe, make_workers(recipe, root, workers, ray), frozenset(redo))
        run.store.clean()
        run.ledger.write("run", command=sys.argv[1:], versions=versions())
        try:
            run.workers.start()
            yield run
        finally:
            run.workers.close()


def make_workers(recipe: Recipe, root: Path, count: int | None, ray: str) -> Workers:
    """Return who does the data stages: local processes, or the nodes of a Ray cluster."""
    if not ray:
        return Workers(count or default_workers())
    if count is not None:
        raise GroundupError(
            "workers are counted on this machine, or are those of a Ray cluster: give one of"
            " the two"
        )
    from groundup.runtime.workers.ray import RayPool, shared_places

    return Workers(
        pool=RayPool(
            ray, Store(root).staging, shared_places(recipe), ("python", "groundup", *LIBRARIES[1:])
        )
    )


def versions() -> dict[str, str]:
    """Return the versions of groundup, Python and the libraries that decide the output."""
    found = {"groundup": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_stage(run: Run, stage: str) -> None:
    """Run one stage and write to the ledger what it built, what it cost and whether it failed."""
    stage_run = importlib.import_module(f"groundup.{stage}.stage").run
    run.built = run.reused = 0
    start = time.perf_counter()
    run.ledger.write("began", stage=stage)
    try:
        with peak_memory() as peak:
            stage_run(run)
            if stage in run.redo and run.built == 0:
                run.set_aside(stage)
                run.forget(stage)
                run.reused = 0
                stage_run(run)
    except BaseException as error:
        run.ledger.write(
            "failed",
            stage=stage,
            seconds=_since(start),
            error=f"{type(error).__name__}: {error}"[:500],
        )
        raise
    fresh = run.built == 0
    run.ledger.write(
        "fresh" if fresh else "finished",
        stage=stage,
        seconds=_since(start),
        peak_bytes=peak[0],
        built=run.built,
        reused=run.reused,
    )
    say(
        f"{stage:9} {'fresh' if fresh else f'done in {_since(start):.0f} s'}"
        + (
            f" ({run.reused} of {run.built + run.reused} reused)"
            if run.reused and not fresh
            else ""
        )
    )


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


@contextmanager
def peak_memory(every_seconds: float = 0.25) -> Iterator[list[int]]:
    """Measure the largest resident memory, in bytes, of this process and its children during a with
    block.
    """
    peak, stop = [0], threading.Event()

    def sample() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], _resident())
            stop.wait(every_seconds)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _resident() -> int:
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def check_stage(name: str) -> str:
    """Return `name` if it is a stage.

    Raises:
        GroundupError: naming the stages.
    """
    if name not in STAGES:
        raise GroundupError(f'"{name}" is not a stage; they are {", ".join(STAGES)}')
    return name
