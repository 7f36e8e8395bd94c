"""What a recipe says: TOML tables as frozen, validated settings."""

from groundup.recipe.languages import LANGUAGES, MEMBERS
from groundup.recipe.load import all_sources, load_recipe, overridden, recipe_from
from groundup.recipe.source import KINDS, TUNING, Source, default_name
from groundup.recipe.tables import (
    Evaluate,
    Export,
    Model,
    Personal,
    Recipe,
    Refine,
    Tokenize,
    Train,
    Tune,
)

__all__ = [
    "KINDS",
    "LANGUAGES",
    "MEMBERS",
    "TUNING",
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
    "default_name",
    "load_recipe",
    "overridden",
    "recipe_from",
]
