"""The command `tune`: the recipe for a tuning that a person asks for, and what it achieved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from groundup.collect.stage import collect_tuning
from groundup.errors import GroundupError
from groundup.flow import run_stage
from groundup.recipe import Recipe, overridden, recipe_from
from groundup.runtime.files import read_json_object
from groundup.runtime.lock import load_lock
from groundup.runtime.run import Run
from groundup.runtime.store import Store
from groundup.schema import settings

# Paths that are not on this machine.
_REMOTE = ("pypi:", "https://", "http://", "s3://", "hf://", "scrape:")
_TITLES = {
    "loss": "loss of the answers (nats a token)",
    "ended": "answers that end by themselves",
    "accuracy_probability": "right label by probability",
    "accuracy_generation": "right label as written",
}


def tuning_recipe(
    root: Path, data: str | None = None, method: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of a run with the [tune] that a person asks for.

    Other settings are those of the last `groundup tune`, or else those of the recipe; the method is
    SFT if the recipe has none. A relative path starts from the current folder.

    Raises GroundupError if there is no run, or a setting is impossible.
    """
    recipe, view = load_lock(root), Store(root).view("tune")
    by_hand = view is not None and view.facts["by_hand"]
    tune = dict(view.facts["settings"]) if view is not None and by_hand else settings(recipe.tune)
    if method or tune["method"] == "none":
        tune["method"] = method or "sft"
    if data is not None:
        # "" goes back from a file to the conversations of the run.
        if data and not data.startswith(_REMOTE):
            path = Path(data).expanduser()
            if not path.exists() and not set("*?[") & set(data):
                raise GroundupError(f"--data {data}: there is no such file or folder")
            # The recipe's folder may be gone.
            there = recipe.root.is_dir()
            data = os.path.relpath(path, recipe.root) if there else str(path.absolute())
        # The columns were those of another file.
        tune |= {"data": data, "sources": [], "columns": []}
    table = settings(recipe) | {"tune": tune}
    keys = [f"tune.{override.removeprefix('tune.')}" for override in overrides]
    return overridden(recipe_from(table, "groundup tune", recipe.root), keys)


def tune_by_hand(root: Path, recipe: Recipe, redo: bool = False) -> None:
    """Tune the best model of a run as `recipe` says; collect the data first if it names a file.

    Raises GroundupError if there is no such file, no checkpoint, or nothing to learn from.
    """
    with Run.open(recipe, root, ("tune",) if redo else (), workers=1) as run:
        if recipe.tune.data:
            collect_tuning(run)
        run_stage(run, "tune")


def describe_tuning(root: Path) -> str:
    """Return what the last tuning achieved, one figure a line.

    Raises GroundupError if the run has no tuned model.
    """
    figures = read_json_object(root / "tune" / "tuning.json")
    if figures is None:
        command = f"`groundup tune {root} --data FILE`"
        raise GroundupError(f"{root / 'tune'}: there is no tuned model; {command} makes one")
    before, after, rows = figures["before"], figures["after"], figures["rows"]

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    learnt = f"{rows['train']:,} rows, {figures['tokens_learnt']:,} tokens learnt"
    held_out = f"on {rows['held_out']:,} held-out rows"
    lines = [f"tuned {figures['base']} on {figures['data']}: {learnt}"]
    lines.append(f"{held_out:34} before    after")
    for name, title in _TITLES.items():
        if name in after:
            lines.append(f"{title:34} {number(before.get(name)):>6}   {number(after[name]):>6}")
    if figures["baseline"] is not None:
        lines.append(f"{'always the most frequent label':34} {number(figures['baseline']):>6}")
    if rows["left_out"]:
        lines.append(f"left out {rows['left_out']:,}, listed in {root / 'tune' / 'left-out.jsonl'}")
    return "\n".join([*lines, f'next: groundup sample {root} --chat "..."'])
