"""What a recipe says: TOML tables as frozen, validated settings.

    recipe = load_recipe(Path("mine.toml"), ["train.steps=100"])
    recipe.train.steps                                # 100, an override of the command line
    [source.name for source in all_sources(recipe)]   # its sources, benchmarks and tuning data

The tables are in `tables`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import RecipeError
from groundup.recipe.benchmarks import BenchmarkEntry, Evaluate, parse_benchmark
from groundup.recipe.languages import LANGUAGES, MEMBERS
from groundup.recipe.tables import (
    KINDS,
    RECORD_COLUMNS,
    TUNING,
    Export,
    Model,
    Personal,
    Recipe,
    Refine,
    Source,
    Tokenize,
    Train,
    Tune,
    clean_name,
    default_name,
)
from groundup.schema import decode, override, parse_toml, settings

__all__ = [
    "KINDS",
    "LANGUAGES",
    "MEMBERS",
    "RECORD_COLUMNS",
    "TUNING",
    "BenchmarkEntry",
    "Evaluate",
    "Export",
    "Model",
    "Personal",
    "Recipe",
    "Refine",
    "Source",
    "Tokenize",
    "Train",
    "Tune",
    "all_sources",
    "clean_name",
    "default_name",
    "load_recipe",
    "overridden",
    "parse_benchmark",
    "recipe_from",
]


def all_sources(recipe: Recipe) -> tuple[Source, ...]:
    """Return what is collected: the sources of a recipe, its benchmark files, and the tuning data.

    Training text is compared with the benchmarks; the tuning data are the last source, if any.
    """
    sources = list(recipe.source)
    for text in recipe.evaluate.benchmarks:
        if text not in {source.name for source in sources}:
            entry = parse_benchmark(text)
            name = _free_name(entry.task or default_name(entry.path), sources)
            sources.append(Source(entry.path, "evaluation", name))
    tune = recipe.tune
    if tune.data and tune.method != "none":
        name = _free_name(TUNING, sources)
        sources.append(Source(tune.data, TUNING, name, columns=tune.columns))
    return tuple(sources)


def _free_name(name: str, sources: Sequence[Source]) -> str:
    """Return `name`, or `name-2`, `name-3`, ... if a source is called so."""
    names = (name, *(f"{name}-{n}" for n in range(2, len(sources) + 3)))
    return next(free for free in names if free not in {source.name for source in sources})


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides and validate it.

    Raises RecipeError, which names the file, the key and what is wrong with it.
    """
    try:
        table = parse_toml(path.read_bytes(), str(path))
    except FileNotFoundError:
        what = "there is no such recipe; `groundup init DIR` writes one"
        raise RecipeError(f"{path}: {what}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    for text in overrides:
        override(table, text)
    table.setdefault("name", clean_name(path.stem))
    recipe = recipe_from(table, str(path), path.resolve().parent)
    return dataclasses.replace(recipe, file=str(path.resolve()), overrides=tuple(overrides))


def overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with `key.path=value` overrides applied; RecipeError if one is impossible."""
    table = settings(recipe)
    for text in overrides:
        override(table, text)
    return recipe_from(table, "--set", recipe.root)


def recipe_from(table: Mapping[str, Any], where: str, root: Path) -> Recipe:
    """Validate a parsed recipe; `where` names it in errors."""
    recipe = decode(Recipe, table, where)
    return dataclasses.replace(recipe, root=root)
