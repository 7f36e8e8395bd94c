"""The recipes that ship: each can be read, and says what its name promises."""

from pathlib import Path

import pytest

from groundup.model.config import resolve
from groundup.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(("name", "parameters"), [("base-300m", 300e6), ("base-500m", 500e6)])
def test_sizes_are_within_two_percent_of_their_names(name: str, parameters: float) -> None:
    recipe = load_recipe(RECIPES / f"{name}.toml")
    assert isinstance(recipe.tokenize.vocab_size, int)
    count = resolve(recipe.model, recipe.tokenize.vocab_size, 10**10).parameter_count()
    assert abs(count / parameters - 1) < 0.02


def test_what_the_starter_downloads_is_pinned() -> None:
    for source in load_recipe(RECIPES / "starter.toml").source:
        assert source.sha256
        assert "==" in source.path
