"""Arrow string arrays as the two NumPy arrays that kernels work on, and back. Writes compiled
kernels beside their modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = npt.NDArray[Any]
# Offsets (n + 1) into the UTF-8 bytes of n texts.
Texts: TypeAlias = tuple[Array, Array]

# A 64-bit hash inside a kernel (np.uint64), or a code point (np.int64).
Number: TypeAlias = Any


# Modules whose kernels and constants are compiled into kernels of others.
SHARED = (
    "clean/unicode_classes.py",
    "dedup/buckets.py",
    "dedup/minhash.py",
    "split/cluster_sizes.py",
)


def compiled_folder(modules: Path, parent: Path) -> Path:
    """Return where compiled kernels are remembered: another folder for other bytes of the SHARED
    files of `modules`.

    numba compiles again when a kernel's own file has changed. What the kernel calls from another
    file it does not look at, so after an update of those a machine that had run before would go on
    with the old code, and write other documents than a fresh one.
    """
    shared = b"".join((modules / name).read_bytes() for name in SHARED)
    return parent / f"kernels-{hashlib.sha256(shared).hexdigest()[:12]}"


_HERE, _NUMBA = Path(__file__).parents[1] / "refine", cast(Any, numba.config)
_COMPILED = str(compiled_folder(_HERE, Path(_NUMBA.CACHE_DIR or _HERE / "__pycache__")))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function once, remember it on disk, and run it without the interpreter's lock."""
    # Where the folder cannot be written, numba takes one of the user's. The setting is everybody's:
    # it is put back.
    before, _NUMBA.CACHE_DIR = _NUMBA.CACHE_DIR, _COMPILED
    try:
        return numba.njit(nogil=True, cache=True)(function)
    finally:
        _NUMBA.CACHE_DIR = before


def text_buffers(array: pa.StringArray) -> Texts:
    """Return offsets (n + 1, int32) and UTF-8 bytes (uint8) of a string array without copying; a
    null is an empty text.
    """
    if array.null_count:
        array = pc.fill_null(array, "")
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.frombuffer(bytes(4), np.int32), np.frombuffer(b"", np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return bounds, np.frombuffer(data if data is not None else b"", np.uint8)


def text_array(offsets: Array, data: Array) -> pa.StringArray:
    """Return the string array of `offsets` and `data`; the reverse of `text_buffers`."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def lengths(array: pa.StringArray) -> Array:
    """Return the UTF-8 bytes of every text (uint32)."""
    return np.diff(text_buffers(array)[0]).astype(np.uint32)


def mask(array: pa.Array) -> Array:
    """Return a boolean Arrow array as NumPy; null is false."""
    return pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(np.bool_)


def replace_rows(
    array: pa.StringArray, rows: Array, values: pa.StringArray | list[str]
) -> pa.StringArray:
    """Return `array` with the rows of the boolean mask `rows` replaced, in order, by `values`."""
    if not rows.any():
        return array
    replacement = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return pc.replace_with_mask(array, pa.array(rows), replacement)
