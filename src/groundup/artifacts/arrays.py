"""Arrow string arrays as two NumPy arrays, offsets and UTF-8 bytes, and back."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = npt.NDArray[Any]
# Offsets (n + 1) into the UTF-8 bytes of n texts.
Texts: TypeAlias = tuple[Array, Array]


def text_buffers(array: pa.StringArray) -> Texts:
    """Return offsets (n + 1, int32) and bytes (uint8) without copying; a null is an empty text.

    Both are read-only, even if Arrow could write to them: kernels are compiled once for each kind.
    """
    if array.null_count:
        array = pc.fill_null(array, "")
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.frombuffer(bytes(4), np.int32), np.frombuffer(b"", np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    values = np.frombuffer(data if data is not None else b"", np.uint8)
    bounds.flags.writeable = values.flags.writeable = False
    return bounds, values


def text_array(offsets: Array, data: Array) -> pa.StringArray:
    """Return the string array of `offsets` and `data`; the reverse of `text_buffers`."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def lengths(array: pa.StringArray) -> Array:
    """Return the length of every text in UTF-8 bytes (uint32)."""
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
