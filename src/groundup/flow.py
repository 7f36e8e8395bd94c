"""The table of contents: the stages from raw text to a language model, and the loop over them.

    groundup run recipe.toml                       # run_flow: all stages
    groundup run recipe.toml --until tokenize      # run_flow: the first three
    groundup evaluate runs/mine                    # run_one: a single stage

A stage is a function of an opened run. It reads the views of earlier stages and publishes its own
folder in the run directory. It builds only what is not there yet, so every run starts at the
first stage and is quickly through those that are fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from groundup.artifacts.forgotten import finish_forget
from groundup.collect.stage import run as collect
from groundup.errors import GroundupError
from groundup.evaluate.stage import run as evaluate
from groundup.export.stage import run as export
from groundup.plan import check_plan
from groundup.recipe import Recipe
from groundup.refine.stage import run as refine
from groundup.report.live import live_page
from groundup.report.stage import run as report
from groundup.runtime.lock import check_directory, load_lock, recipe_lock
from groundup.runtime.progress import say
from groundup.runtime.run import Run
from groundup.tokenize.stage import run as tokenize
from groundup.train.stage import run as train
from groundup.tune.stage import run as tune

STAGES: Mapping[str, Callable[[Run], None]] = {
    # raw files → documents by source, and a list of what could not be read
    "collect": collect,
    # collected documents → cleaned documents, verdicts of the split, lists of what is dropped
    "refine": refine,
    # kept documents → tokenizer, token shards, index
    "tokenize": tokenize,
    # token shards → checkpoints, metrics
    "train": train,
    # best checkpoint → losses by source, benchmarks, samples, speed
    "evaluate": evaluate,
    # best checkpoint → a model that answers, if the recipe asks for one
    "tune": tune,
    # the run's model → folders and files that other programs load
    "export": export,
    # all of the above → every figure in one file, a page and a model card
    "report": report,
}

# What the workers of the data stages import, once for all of them.
WORKER_MODULES: Mapping[str, str] = {
    "collect": "groundup.collect.shard",
    "refine": "groundup.refine.shard",
    "tokenize": "groundup.tokenize.shards",
}


def run_flow(
    recipe: Recipe,
    root: Path,
    until: str = "report",
    redo: Sequence[str] = (),
    workers: int | None = None,
    ray: str = "",
) -> Run:
    """Bring the run at `root` to stage `until` for `recipe`, doing only what is not fresh.

    Stages in `redo` are built again even if they are fresh. Data stages run in `workers` processes
    (by default one for each core), or on the Ray cluster at the address `ray` (`auto` or
    `host:port`). Raises GroundupError when something the user can mend is in the way.
    """
    from groundup.collect.sources import shared_paths

    names = stages_until(until, redo)
    check_directory(root)
    shared = shared_paths(recipe) if ray else {}
    modules = [module for name, module in WORKER_MODULES.items() if name in names]
    with Run.open(recipe, root, redo, workers, ray, shared, modules) as run:
        check_plan(run, trains="train" in names)
        say(f"run       {run.root.absolute()}")
        finish_forget(run, STAGES)
        with recipe_lock(run.root, recipe), live_page(run.root) as page:
            for name in names:
                page.begin(name)
                run_stage(run, name)
                page.tell()
        if until == "refine" or ("refine" in names and (run.root / "look").exists()):
            show_data(run)
        if until == "report":
            run.store.discard(run.store.unreferenced(STAGES))
    return run


def show_data(run: Run) -> None:
    """Write the page RUN/look, for whoever stops before training to read texts."""
    from groundup.report.look import write_look

    page = write_look(run.root, run.recipe.name, run.recipe.seed)
    say(f"look      {page.absolute()}")


def run_one(root: Path, name: str, recipe: Recipe | None = None, redo: Sequence[str] = ()) -> Run:
    """Run a single stage of an existing run, by `recipe` instead of its own if there is one."""
    with Run.open(recipe or load_lock(root), root, redo, workers=1) as run:
        run_stage(run, name)
    return run


def run_stage(run: Run, name: str) -> None:
    """Run a stage of an opened run; a second time if --redo names it and it was fresh."""
    with run.stage(name):
        if name in run.redo:
            run.perform_again(name, STAGES[name])
        else:
            STAGES[name](run)


def stages_until(until: str, redo: Sequence[str] = ()) -> list[str]:
    """Return the stages up to one; GroundupError for a later one that is to be built again."""
    check_stages(until, *redo)
    names = list(STAGES)[: list(STAGES).index(until) + 1]
    if late := [name for name in redo if name not in names]:
        raise GroundupError(f"--redo {late[0]} comes after --until {until}, so it would not run")
    return names


def check_stages(*names: str) -> None:
    """Raise GroundupError for a name that is not a stage."""
    for name in names:
        if name not in STAGES:
            raise GroundupError(f'"{name}" is not a stage; they are {", ".join(STAGES)}')
