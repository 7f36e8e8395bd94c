"""Compile the numeric kernels of refine with numba, and cache them on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numba

from groundup.artifacts import jit

# A scalar inside a kernel: a 64-bit hash (np.uint64) or a code point (np.int64).
Number: TypeAlias = Any

# Modules whose kernels or constants are compiled into the kernels of other modules.
SHARED = (
    *("clean/spans.py", "clean/unicode_classes.py", "dedup/lsh_index.py", "dedup/minhash.py"),
    *("filter/language_model.py", "scan.py"),
)


def compiled_folder(modules: Path, parent: Path) -> Path:
    """Return the cache folder of compiled kernels, named after the content of the SHARED files.

    numba recompiles a kernel when the file of the kernel changes, but not when it calls code from
    another file that changed. With one cache folder for all versions, a machine with an old cache
    would run old code after an update, and write other documents than a fresh machine. `modules` is
    the folder of the package `groundup.refine`.
    """
    shared = b"".join((modules / name).read_bytes() for name in SHARED)
    return parent / f"kernels-{hashlib.sha256(shared).hexdigest()[:12]}"


_HERE, _NUMBA = Path(__file__).parent, cast(Any, numba.config)
_COMPILED = str(compiled_folder(_HERE, Path(_NUMBA.CACHE_DIR or _HERE / "__pycache__")))


def cache_folder() -> Path:
    """Return the folder for what is computed once: that of all versions of compiled kernels."""
    return Path(_COMPILED).parent


# Where numba keeps the kernels of each folder that was imported: here, or in a folder of the user.
_CACHES: set[str] = set()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with numba, and cache it on disk."""
    return _cached(jit.kernel, function)


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function that only kernels call, and cache it on disk."""
    return _cached(jit.helper, function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into the kernels that call it, and cache it on disk."""
    return _cached(jit.inlined, function)


def _cached(decorate: Callable[..., Any], function: Callable[..., Any]) -> Any:
    # CACHE_DIR is global to the process, so it is restored. Where the folder is not writable, numba
    # falls back to a folder of the user.
    before, _NUMBA.CACHE_DIR = _NUMBA.CACHE_DIR, _COMPILED
    try:
        compiled = decorate(function)
    finally:
        _NUMBA.CACHE_DIR = before
    _CACHES.add(str(compiled.stats.cache_path))
    return compiled


def is_cache_cold() -> bool:
    """Whether kernels that were imported have yet to be compiled, which takes a minute or more."""
    return any(not any(Path(folder).glob("*.nbi")) for folder in _CACHES)


class TableKernel:
    """A kernel whose first arguments are constant tables.

    numba compiles a global array into the code as a constant. A table of all Unicode code points
    takes megabytes, so it is passed as an argument.
    """

    def __init__(self, function: Callable[..., Any], tables: Sequence[Any]) -> None:
        self.compiled, self.tables = kernel(function), tables
        self.py_func, self.stats = function, self.compiled.stats

    def __call__(self, *arguments: Any) -> Any:
        """Run the kernel."""
        return self.compiled(*self.tables, *arguments)


def kernel_with(*tables: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as `kernel` does, and pass these tables as its first arguments."""
    return lambda function: TableKernel(function, tables)
