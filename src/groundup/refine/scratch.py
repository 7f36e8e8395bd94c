"""Arrays with one entry a document that live in files while a step works. Reads arrays of refined shards; writes inside one
folder, which is gone at the end.

Mapped files can leave memory at any time, arrays of our own cannot: what grows with the corpus stays out of the step's share.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from groundup.refine.arrays import Array
from groundup.refine.corpus import Corpus


class Scratch:
    """Hands out mapped arrays; use it in a with block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Scratch:
        self.folder.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def full(self, name: str, rows: int, dtype: Any, value: Any = 0) -> Array:
        """Return an array of `rows` entries that are all `value`."""
        if rows == 0:
            return np.full(0, value, dtype)
        array = np.memmap(self.folder / name, dtype, "w+", shape=(rows,)).view(np.ndarray)
        if value:
            array[:] = value
        return array

    def joined(self, corpus: Corpus, name: str) -> Array:
        """Return the arrays `name`.npy of all shards as one."""
        with (self.folder / name).open("wb") as out:
            shape, dtype = (0,), np.dtype(np.uint8)
            for part in corpus.parts(name):
                shape, dtype = part.shape, part.dtype
                part.tofile(out)
        if corpus.rows == 0:
            return np.zeros((0, *shape[1:]), dtype)
        return np.memmap(self.folder / name, dtype, "r", shape=(corpus.rows, *shape[1:])).view(np.ndarray)
