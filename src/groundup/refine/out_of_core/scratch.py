"""Arrays with one entry a document that live in files while a step works. Reads arrays of refined
shards; writes inside one folder, which is gone at the end.

Mapped files can leave memory at any time, arrays of our own cannot: what grows with the corpus
stays out of the step's share.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.out_of_core.corpus import Corpus


class Scratch:
    """Hands out mapped arrays; use it in a with block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Scratch:
        self.folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
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
        return np.memmap(self.folder / name, dtype, "r", shape=(corpus.rows, *shape[1:])).view(
            np.ndarray
        )

    def kept(self, corpus: Corpus, lists: Sequence[Path], name: str = "kept") -> Array:
        """Return the mask of the rows that are on none of these lists of dropped documents.

        Raises:
            ValueError: a list does not belong to the corpus.
        """
        mask = self.full(name, corpus.rows, np.bool_, True)
        for path in lists:
            for rows, _ in corpus.listed(path):
                mask[rows] = False
        return mask

    def lengths(self, corpus: Corpus) -> Array:
        """Return the UTF-8 bytes that are left of every document (uint32) without what is cut out
        of it.
        """
        found = self.full("lengths", corpus.rows, np.uint32)
        for part, first in zip(corpus.parts("sizes"), corpus.starts.tolist(), strict=False):
            found[first : first + len(part)] = part
        for _, rows, cuts in corpus.cut_shards():
            np.subtract.at(found[rows], cuts.rows, np.diff(cuts.spans)[:, 0].astype(np.uint32))
        return found
