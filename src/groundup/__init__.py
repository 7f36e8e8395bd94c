"""groundup: one recipe and one command from raw text to a language model.

The public Python API, imported when it is first used:

    load_recipe(path)              read and validate a recipe
    make_plan(recipe)              what it will cost
    run_recipe(recipe, directory)  bring a run directory up to date
    open_run(directory)            look into a run: documents, tokens, model, figures
    verify_run(directory)          prove what a run promises
    GroundupError                  everything that a user can mend, in one line
"""

import os
from typing import TYPE_CHECKING, Any

from groundup._version import __version__ as __version__
from groundup.errors import GroundupError

if TYPE_CHECKING:
    from groundup.api import open_run
    from groundup.commands.verify import verify_run
    from groundup.flow import run_flow as run_recipe
    from groundup.plan import make_plan
    from groundup.recipe import load_recipe

__all__ = [
    "GroundupError",
    "load_recipe",
    "make_plan",
    "open_run",
    "run_recipe",
    "verify_run",
]

# OpenMP threads that wait for each other spin for a moment, then sleep. By default they spin on;
# beside another program the spinning thread holds the core that the awaited one needs: steps took
# several times as long. Without any spinning an idle machine loses 15 % (docs/experiments.md).
# OpenMP reads this once, when torch is imported, so it stands here, before every import of torch;
# results do not depend on it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

_PLACES = {
    "open_run": ("groundup.api", "open_run"),
    "run_recipe": ("groundup.flow", "run_flow"),
    "make_plan": ("groundup.plan", "make_plan"),
    "load_recipe": ("groundup.recipe", "load_recipe"),
    "verify_run": ("groundup.commands.verify", "verify_run"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import groundup` takes no time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'groundup' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
