"""Functions of the user, which a recipe names as "module:function": a filter, a reader."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from groundup.errors import RecipeError

# Folders of recipes that were added to `sys.path`, and the modules that recipes name: the SHA-256
# of their files when they were imported.
_folders: set[str] = set()
_imported: dict[str, str] = {}


def forget_modules(root: Path) -> None:
    """Have modules that changed imported again, and none from folders of other recipes than `root`.

    One Python process may run several recipes, and one recipe before and after an edit.
    """
    others = _folders - {str(root)}
    for name, digest in list(_imported.items()):
        module = sys.modules.get(name)
        folders = {str(folder) for folder in _module_file(module).parents}
        if _digest(module) != digest or not others.isdisjoint(folders):
            sys.modules.pop(name, None)
            del _imported[name]
    sys.path[:] = [folder for folder in sys.path if folder not in others]
    _folders.difference_update(others)
    importlib.invalidate_caches()


def _module_file(module: ModuleType | None) -> Path:
    return Path(getattr(module, "__file__", None) or "")


def _digest(module: ModuleType | None) -> str:
    try:
        return hashlib.sha256(_module_file(module).read_bytes()).hexdigest()
    except OSError:
        return ""


def load_function(name: str, root: Path, what: str) -> Callable[..., Any]:
    """Import a function of a module that is installed, or in the folder of the recipe (`root`).

    `name` is "package.module:function"; `what` says what the recipe uses it as, such as "filter",
    for the RecipeError if it fails.
    """
    module_name, _, attribute = name.partition(":")
    forget_modules(root)
    if str(root) not in sys.path:
        sys.path.append(str(root))
        _folders.add(str(root))
    try:
        module = importlib.import_module(module_name)
        _imported.setdefault(module_name, _digest(module))
        function = getattr(module, attribute)
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
