"""The lines of a shard as hashes, sorted, each with the rows that hold it. Writes lines.npy and
line_rows.npy of a refined shard; reads them by range of hashes, so that no step holds the lines of
a corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.lines.lines import line_hashes
from groundup.refine.out_of_core.hash_ranges import inside, ranges
from groundup.refine.out_of_core.row_file import Spool

# Lines that are sorted or counted at a time: with the copies that sorting makes about 160 MB.
PART_LINES = 4_000_000


class Sketch:
    """Collects the lines of one shard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes = Spool(folder / ".line_hashes", np.dtype(np.uint64))
        self._rows = Spool(folder / ".line_rows", np.dtype(np.uint32))
        self._documents = 0

    def __enter__(self) -> Sketch:
        self._stack = ExitStack()
        for spool in (self._hashes, self._rows):
            self._stack.enter_context(spool)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stack.close()

    def append(self, texts: Texts) -> None:
        """Add the lines of the next documents."""
        hashes, rows = line_hashes(texts)
        self._hashes.append(hashes)
        self._rows.append(rows + np.uint32(self._documents))
        self._documents += len(texts[0]) - 1

    def save(self) -> None:
        """Write lines.npy (uint64), ascending, and line_rows.npy (uint32), ascending where lines
        are equal.
        """
        hashes, rows = self._hashes.view(), self._rows.view()
        out = [
            _create(self._folder / f"{name}.npy", part)
            for name, part in (("lines", hashes), ("line_rows", rows))
        ]
        at = 0
        for low, high in ranges(len(hashes), PART_LINES):
            found = inside(hashes, low, high)
            # Rows come in ascending order, and a stable sort leaves them so.
            found = found[np.argsort(hashes[found], kind="stable")]
            for target, part in zip(out, (hashes, rows), strict=True):
                target[at : at + len(found)] = part[found]
            at += len(found)


def _create(path: Path, like: Array) -> Array:
    if len(like) == 0:
        np.save(path, like)
        return np.empty_like(like)
    return np.lib.format.open_memmap(path, "w+", like.dtype, like.shape)


def counted(shards: Sequence[Path], kept: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """Yield the lines of some shards, ascending, each once, and how many kept documents hold each;
    a range at a time.

    Args:
        shards: folders of refined shards.
        kept: for each of them the mask of the rows that count.
    """
    sketches = [(_open(shard, "lines"), _open(shard, "line_rows")) for shard in shards]
    for low, high in ranges(sum(len(hashes) for hashes, _ in sketches), PART_LINES):
        parts = [np.zeros(0, np.uint64)]
        counts = [np.zeros(0, np.int64)]
        for (hashes, rows), mask in zip(sketches, kept, strict=True):
            begin, end = (
                np.searchsorted(hashes, np.uint64(low)),
                np.searchsorted(hashes, np.uint64(high), side="right"),
            )
            own = hashes[begin:end][mask[rows[begin:end]]]
            first = np.flatnonzero(np.diff(own, prepend=~own[:1]))
            parts.append(own[first])
            counts.append(np.diff(first, append=len(own)))
        # A stable sort merges what is sorted already, one run a shard.
        lines = np.concatenate(parts)
        order = np.argsort(lines, kind="stable")
        lines = lines[order]
        first = np.flatnonzero(np.diff(lines, prepend=~lines[:1]))
        yield (
            lines[first],
            np.add.reduceat(np.concatenate(counts)[order], first) if len(first) else counts[0],
        )


def rows_with(shard: Path, listed: Array, documents: int) -> Array:
    """Return the mask of the rows of a shard that hold one of the listed lines (ascending, uint64)."""
    hashes, rows = _open(shard, "lines"), _open(shard, "line_rows")
    mask = np.zeros(documents, np.bool_)
    for begin in range(0, len(hashes) if len(listed) else 0, PART_LINES):
        block = hashes[begin : begin + PART_LINES]
        at = np.minimum(np.searchsorted(listed, block), len(listed) - 1)
        mask[rows[begin : begin + PART_LINES][listed[at] == block]] = True
    return mask


def _open(shard: Path, name: str) -> Array:
    return np.load(shard / f"{name}.npy", mmap_mode="r").view(np.ndarray)
