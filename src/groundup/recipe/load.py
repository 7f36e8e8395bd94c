"""Reads and validates a recipe file, with the overrides of the command line."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import RecipeError
from groundup.recipe.source import Source, default_name
from groundup.recipe.tables import Recipe
from groundup.schema import decode, override, settings


def all_sources(recipe: Recipe) -> tuple[Source, ...]:
    """Return the sources of a recipe, and the benchmarks that are files: training text is held
    against those too.
    """
    found = list(recipe.source)
    for path in recipe.evaluate.benchmarks:
        names = {source.name for source in found}
        if path not in names:
            name = default_name(path)
            free = next(
                name + end
                for end in ("", *(f"-{n}" for n in range(2, len(names) + 3)))
                if name + end not in names
            )
            found.append(Source(path, "evaluation", free))
    return tuple(found)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides and validate it.

    Raises:
        RecipeError: the file is missing or not TOML, a key is unknown, a value is of the wrong type
            or impossible.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: there is no such recipe; `groundup init DIR` writes one"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML: {error}") from None
    for text in overrides:
        override(table, text)
    table.setdefault("name", re.sub(r"[^\w.+-]+", "-", path.stem))
    recipe = recipe_from(table, str(path), path.resolve().parent)
    return dataclasses.replace(recipe, file=str(path.resolve()), overrides=tuple(overrides))


def overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with `key.path=value` overrides applied.

    Raises:
        RecipeError: a key is unknown, or a value impossible.
    """
    table = settings(recipe)
    for text in overrides:
        override(table, text)
    return recipe_from(table, "--set", recipe.root)


def recipe_from(table: Mapping[str, Any], where: str, root: Path) -> Recipe:
    """Validate a parsed recipe; `where` names it in errors."""
    recipe = decode(Recipe, table, where)
    return dataclasses.replace(recipe, root=root)
