"""Rows that outgrow memory: appended to a file, then turned into one `.npy`. Reads and writes
inside one folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np

from groundup.artifacts.arrays import Array

# Rows moved at a time when the file is turned; 448-byte signatures make this 29 MB.
_BLOCK_ROWS = 1 << 16


@dataclass
class Spool:
    """Appends blocks of rows of one width and type to a temporary file."""

    path: Path
    dtype: np.dtype[np.generic]
    width: int = 1
    rows: int = 0
    _file: BinaryIO = field(init=False, repr=False)

    def __enter__(self) -> Spool:
        self._file = self.path.open("w+b")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def append(self, block: Array) -> None:
        """Append rows: shape (n, width), or (n,) for a width of 1."""
        self._file.write(np.ascontiguousarray(block, self.dtype).tobytes())
        self.rows += len(block)

    def clear(self) -> None:
        """Begin again; views of what was appended may no longer be looked at."""
        self._file.seek(0)
        self._file.truncate()
        self.rows = 0

    def view(self, mode: Literal["r", "r+"] = "r") -> Array:
        """Return all rows so far as a memory map, shape (rows, width), or (rows,) for a width of 1;
        with "r+" one to change.
        """
        self._file.flush()
        shape = (self.rows, self.width) if self.width > 1 else (self.rows,)
        if self.rows == 0:
            return np.frombuffer(b"", self.dtype).reshape(shape)
        return np.memmap(self.path, self.dtype, mode, shape=shape).view(np.ndarray)

    def save(self, path: Path, transpose: bool = False) -> None:
        """Write the rows as `.npy`; transposed to (width, rows), so that every column of them can
        be read by itself.
        """
        rows = self.view()
        shape = rows.shape[::-1] if transpose else rows.shape
        if self.rows == 0:
            np.save(path, np.zeros(shape, self.dtype))
            return
        out = np.lib.format.open_memmap(path, "w+", self.dtype, shape)
        for begin in range(0, self.rows, _BLOCK_ROWS):
            block = rows[begin : begin + _BLOCK_ROWS]
            if transpose:
                out[:, begin : begin + _BLOCK_ROWS] = block.T
            else:
                out[begin : begin + _BLOCK_ROWS] = block
        out.flush()
