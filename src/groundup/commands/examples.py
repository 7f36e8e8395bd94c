"""Recipes that come with groundup, for `groundup init --example NAME`."""

from __future__ import annotations

from pathlib import Path

from groundup.errors import RecipeError
from groundup.runtime.files import write_whole

# An installed package holds them; in a checkout they are at its top.
_PACKAGE = Path(__file__).parents[1]
FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")


def examples() -> dict[str, Path]:
    """Return name and path of each recipe, sorted by name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.toml"))}


def write_example(name: str, recipe: Path, force: bool = False) -> str:
    """Copy a recipe to `recipe`; return the next command, for a person.

    Raises:
        RecipeError: no recipe has this name, or `recipe` exists or cannot be written.
    """
    known = examples()
    if name not in known:
        raise RecipeError(f'there is no example "{name}"; there are {", ".join(known)}')
    if recipe.exists() and not force:
        raise RecipeError(
            f"{recipe}: exists already; --force replaces it, --recipe FILE writes another"
        )
    try:
        write_whole(recipe, known[name].read_bytes())
    except OSError as error:
        raise RecipeError(f"{recipe}: cannot be written: {error.strerror}") from None
    return f"wrote {recipe}; next: groundup run {recipe}"
