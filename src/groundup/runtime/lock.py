"""The lock of a run directory, and `recipe.lock.toml`: every setting as resolved.

`recipe.lock.toml` is the recipe with all defaults filled in, and four keys of its own:

    root       folder of the recipe, relative to the run directory
    machine    what was resolved for this machine: threads, precision, compile mode, micro-batch
    weights    where the first weights come from, if not from a random start
    places     path → the state of it that was collected, such as the commit of a data set

What an earlier run resolved stays, so that a resumed run never chooses again.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import ExpensiveError, StoreError
from groundup.recipe import Recipe, recipe_from
from groundup.runtime.files import make_folder, write_whole
from groundup.runtime.sealed import sealed_toml
from groundup.schema import settings

LOCK = "recipe.lock.toml"


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of a run directory; the kernel releases it when the process dies.

    Raises StoreError if another process works there.
    """
    try:
        make_folder(root)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{root}: cannot be used as a run directory: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            who = f"{holder or 'another process'} is working in this run"
            raise StoreError(f"{root}: {who}; wait for it, or choose another --out") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(root: Path) -> bool:
    """Whether a process works in a run directory; a killed one does not."""
    try:
        descriptor = os.open(root / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that two who ask at the same moment do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_directory(root: Path) -> None:
    """Refuse a folder that is not empty and that no run was started in, by a StoreError.

    Its sub-folders could be replaced.
    """
    names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    if names - {".lock", ".staging"} and not names & {LOCK, ".store", "ledger.jsonl"}:
        raise StoreError(f"{root}: the folder is not empty and holds no run; choose another --out")


def require_run(root: Path) -> None:
    """Raise StoreError unless a run was started in a directory."""
    if not (root / LOCK).exists():
        makes = f"`groundup run RECIPE --out {root}` makes one"
        raise StoreError(f"{root}: there is no run here; {makes}")


def write_lock(
    root: Path,
    recipe: Recipe,
    *,
    machine: Mapping[str, Any] | None = None,
    weights: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
) -> None:
    """Write `recipe.lock.toml`; `machine` is added to what it has, None keeps the old."""
    # Late: what only reads [machine] runs without the package.
    import tomli_w

    path = root / LOCK
    before = _read_lock(path) or {}
    table = settings(recipe) | {
        "root": os.path.relpath(recipe.root, root),
        "machine": before.get("machine", {}) | dict(machine or {}),
    }
    for name, new in (("weights", weights), ("places", places)):
        kept = before.get(name) if new is None else dict(new)
        if kept:
            table[name] = kept
    data = sealed_toml(tomli_w.dumps(table).encode("utf-8", "surrogateescape"))
    if not path.exists() or path.read_bytes() != data:
        write_whole(path, data)


@contextmanager
def recipe_lock(root: Path, recipe: Recipe) -> Iterator[None]:
    """Write `recipe.lock.toml` for a with block.

    If the guard of expensive work stops the run, the lock of the work that stays is put back.
    """
    path = root / LOCK
    before = path.read_bytes() if path.exists() else None
    write_lock(root, recipe)
    try:
        yield
    except ExpensiveError:
        if before is not None:
            machine = machine_settings(root)
            write_whole(path, before)
            # A training may have begun, with other settings, before a later stage was stopped.
            if machine_settings(root) not in ({}, machine):
                write_lock(root, load_lock(root), machine=machine)
        raise


def load_lock(root: Path) -> Recipe:
    """Return the recipe that a run directory was made by; StoreError if `root` is none."""
    table = _read_lock(root / LOCK)
    if table is None:
        why = f"there is no run here ({LOCK} is missing or damaged)"
        raise StoreError(f"{root}: {why}; `groundup run RECIPE --out {root}` makes one")
    for resolved in ("machine", "weights", "places"):
        table.pop(resolved, None)
    folder = (root / str(table.pop("root", "."))).resolve()
    return recipe_from(table, str(root / LOCK), folder)


def machine_settings(root: Path) -> dict[str, Any]:
    """Return what was resolved for this machine: threads, precision, compile mode, micro-batch."""
    return dict((_read_lock(root / LOCK) or {}).get("machine", {}))


def pinned_places(root: Path) -> dict[str, str]:
    """Return the state of each remote path that was collected, such as the commit of a data set."""
    return dict((_read_lock(root / LOCK) or {}).get("places", {}))


def _read_lock(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return None
