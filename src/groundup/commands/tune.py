"""Tuning by hand: `groundup tune`. Reads the lock and the view `tune` of a run; writes nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.collect.stage import collect_tuning
from groundup.errors import GroundupError
from groundup.flow import opened, run_stage
from groundup.recipe import Recipe, overridden, recipe_from
from groundup.runtime.files import read_json
from groundup.runtime.progress import printable
from groundup.runtime.run import load_lock
from groundup.runtime.store import Store
from groundup.schema import settings

# As the collector knows them: these are no paths on this machine.
_ELSEWHERE = ("pypi:", "https://", "http://", "s3://", "hf://", "scrape:")


def recipe_by_hand(
    root: Path, data: str | None = None, method: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the recipe of a run with [tune] as a person asks for it.

    What is not asked for is as it was when the model was last tuned, or else as the recipe has it;
    SFT if that names no method. A relative path starts from the current folder.

    Raises:
        GroundupError: there is no run, or a setting is impossible.
    """
    recipe = load_lock(root)
    table = settings(recipe) | {"tune": _before(root, recipe)}
    table["tune"] |= {"method": method} if method else {}
    if table["tune"]["method"] == "none":
        table["tune"]["method"] = "sft"
    if data is not None:
        # The columns were those of another file.
        table["tune"] |= {"data": _from_recipe(data, recipe), "sources": [], "columns": []}
    return overridden(
        recipe_from(table, "groundup tune", recipe.root),
        [f"tune.{one.removeprefix('tune.')}" for one in overrides],
    )


def tune_by_hand(root: Path, recipe: Recipe, redo: bool = False) -> None:
    """Tune the best model of a run as `recipe` says; collect the data first if it names a file.

    Raises:
        GroundupError: there is no such file, no checkpoint, or nothing to learn from.
    """
    with opened(recipe, root, ("tune",) if redo else (), 1) as run:
        if recipe.tune.data:
            collect_tuning(run)
        run_stage(run, "tune")


def _before(root: Path, recipe: Recipe) -> dict[str, Any]:
    view = Store(root).view("tune")
    return (
        dict(view.facts["settings"])
        if view is not None and view.facts["by_hand"]
        else settings(recipe.tune)
    )


def _from_recipe(data: str, recipe: Recipe) -> str:
    """Return a path as the recipe would write it: relative to its folder, if that is still there."""
    path = Path(data).expanduser()
    # "" goes back from a file to the run's own conversations.
    if not data or data.startswith(_ELSEWHERE):
        return data
    if not path.exists() and not set("*?[") & set(data):
        raise GroundupError(f"--data {data}: there is no such file or folder")
    return os.path.relpath(path, recipe.root) if recipe.root.is_dir() else str(path.absolute())


def describe(root: Path) -> str:
    """Return what tuning did, a line a figure, for a terminal.

    Raises:
        GroundupError: the run has no tuned model.
    """
    figures = read_json(root / "tune" / "tuning.json")
    if not isinstance(figures, dict):
        raise GroundupError(f"{root / 'tune'}: there is no tuned model")
    before, after, rows = figures["before"], figures["after"], figures["rows"]
    lines = [
        f"tuned {figures['base']} on {figures['data']}: {rows['train']:,} rows,"
        f" {figures['tokens_learnt']:,} tokens learned"
    ]
    lines.append(f"{'on ' + format(rows['held_out'], ',') + ' held-out rows':34} before    after")
    lines += [
        f"{title:34} {_number(before.get(name)):>6}   {_number(after.get(name)):>6}"
        for name, title in _TITLES
        if name in after
    ]
    if figures["baseline"] is not None:
        lines.append(f"{'always the most frequent label':34} {_number(figures['baseline']):>6}")
    if rows["left_out"]:
        lines.append(f"left out {rows['left_out']:,}, listed in {root / 'tune' / 'left-out.jsonl'}")
    return printable("\n".join([*lines, f'next: groundup sample {root} --chat "..."']))


_TITLES = (
    ("loss", "loss of the answers (nats a token)"),
    ("ended", "answers that end by themselves"),
    ("accuracy_probability", "right label by probability"),
    ("accuracy_generation", "right label as written"),
)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"
