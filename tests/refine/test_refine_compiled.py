"""The cache of compiled kernels depends on all sources that are compiled into a kernel."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numba
import pytest
from tests.helpers.raw import write_books, write_web

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


# Prints the kernels that refining a project compiles, or loads, after the rehearsal.
REHEARSED = """
import sys
from tests.refine.test_refine_compiled import kernels, modules
from groundup.cli import cli
from groundup.refine.rehearsal import PARTS, rehearse

def signatures():
    found = {}
    for one in (one for module in modules() for one in kernels(module)):
        compiled = getattr(one, "compiled", one)
        found[f"{one.py_func.__module__}.{one.py_func.__name__}"] = set(compiled.signatures)
    return found

for part in PARTS:
    rehearse(part)
before = signatures()
cli(sys.argv[1:], standalone_mode=False)
print(*sorted(name for name, found in signatures().items() if found - before[name]))
"""


def test_kernels_are_rehearsed_with_the_types_of_real_shards(tmp_path: Path) -> None:
    # Protects: what the rehearsal leaves out, every worker compiles again on a fresh machine.
    write_books(tmp_path / "books", 3)
    write_web(tmp_path / "web")
    (tmp_path / "recipe.toml").write_text(
        "".join(f'[[source]]\nkind = "{kind}"\npath = "{kind}"\n' for kind in ("books", "web"))
    )
    options = ["--until", "refine", "--workers", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", REHEARSED, "run", str(tmp_path / "recipe.toml"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Lines are cut out of few documents, so these wait.
    late = {f"groundup.refine.lines.{name}" for name in ("find_lines", "line_cuts", "_is_white")}
    assert set(done.stdout.splitlines()[-1].split()) <= late
