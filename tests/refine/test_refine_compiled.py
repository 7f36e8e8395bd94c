"""The cache of compiled kernels depends on all sources that are compiled into a kernel."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numba
import pytest

import groundup.refine
from groundup.refine import kernels as compiling
from groundup.refine.kernels import SHARED, compiled_folder, is_cache_cold, kernel

REFINE = Path(next(iter(groundup.refine.__path__)))


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(groundup.refine.__path__, "groundup.refine."):
        yield importlib.import_module(found.name)


def kernels(module: ModuleType) -> list[Any]:
    return [
        value
        for value in vars(module).values()
        if getattr(getattr(value, "py_func", None), "__module__", "") == module.__name__
    ]


def test_kernels_use_other_modules_only_if_shared() -> None:
    taken = set()
    for module in modules():
        imports = [
            node
            for node in ast.walk(ast.parse(inspect.getsource(module)))
            if isinstance(node, ast.ImportFrom)
        ]
        origins = {
            name.asname or name.name: str(node.module) for node in imports for name in node.names
        }
        used = {name for one in kernels(module) for name in one.py_func.__code__.co_names}
        taken |= {
            origins[name] for name in used & origins.keys() if origins[name].startswith("groundup")
        }
    assert taken == {
        "groundup.refine." + name.removesuffix(".py").replace("/", ".") for name in SHARED
    }


def test_changed_shared_module_changes_the_folder(tmp_path: Path) -> None:
    for name in SHARED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REFINE / name, tmp_path / name)
    before = compiled_folder(tmp_path, tmp_path)
    assert before.name == compiled_folder(REFINE, tmp_path).name
    (tmp_path / SHARED[0]).write_text((tmp_path / SHARED[0]).read_text() + "\n")
    assert compiled_folder(tmp_path, tmp_path) != before


def test_only_our_kernels_are_cached_in_the_folder_and_a_cold_cache_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = cast(Any, numba.config)
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "_COMPILED", str(tmp_path / "own"))
    monkeypatch.setattr(compiling, "_CACHES", set())
    one = kernel(lambda: 1)
    assert one.stats.cache_path.startswith(str(tmp_path / "own"))
    assert is_cache_cold()
    one()
    assert not is_cache_cold()
    assert str(tmp_path) == config.CACHE_DIR
    named = compiled_folder(REFINE, tmp_path).name
    assert all(
        f"/{named}/" in one.stats.cache_path for module in modules() for one in kernels(module)
    )
