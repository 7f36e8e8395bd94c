"""Functions of the user, which a recipe names as "module:function": a filter, a reader."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.errors import RecipeError


def load_function(name: str, root: Path, what: str) -> Callable[..., Any]:
    """Import a function of a module that is installed, or in the folder of the recipe (`root`).

    `name` is "package.module:function"; `what` says what the recipe uses it as, such as "filter",
    for the RecipeError if it fails.
    """
    module, _, attribute = name.partition(":")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise RecipeError(f'{what} "{name}" cannot be imported: {why}') from None
    if not callable(function):
        raise RecipeError(f'{what} "{name}" is not a function')
    return function


def code_digest(name: str, root: Path, what: str) -> str:
    """Return the SHA-256 of the source file of a function, for keys; RecipeError without one."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(load_function(name, root, what)))
    except TypeError:
        path = None
    if path is None:
        raise RecipeError(f'{what} "{name}": its source file cannot be found')
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
