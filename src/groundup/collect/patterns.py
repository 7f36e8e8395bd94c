"""Finds few include patterns that name some files of a folder and none of certain others.

    wanted a.eml, old/b.eml; others b.txt             →  *.eml
    wanted slack/1.json, slack/x/2.json; others 3.json →  slack
    wanted notes/a.txt; others notes/b.json, c.txt    →  notes/**/*.txt

The shortest list is a set cover, so it is found greedily. What a pattern matches is defined in
`files/globs.py`: a path, its tail, or a folder or archive above.
"""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from groundup.collect.files.globs import ARCHIVES, COMPRESSED

# Folders of a path that a pattern may start with.
_MAX_FOLDERS = 3
_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,9}\Z")

# The folder of some files, as a pattern, and the suffixes that all of them have.
_Cell = tuple[str, tuple[str, ...]]
# A folder of 60,000 files has some 20,000 cells, many of which share a tail of their path.
_CACHED = 1 << 17
# What a pattern adds that names a file of others.
_NEVER = -(1 << 62)
_Numbers = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


class Cover(NamedTuple):
    """Patterns for some files."""

    patterns: list[str]  # sorted
    left: set[str]  # the files that they do not name
    exceptions: list[str]  # patterns for files that they name but should not


class _Lists:
    """Lists of numbers, one after another in one array."""

    def __init__(self, numbers: _Numbers, lengths: _Numbers) -> None:
        self.numbers, self.lengths = numbers, lengths
        self._starts = np.cumsum(lengths) - lengths

    def joined(self, lists: _Numbers) -> _Numbers:
        """Return the numbers of some lists."""
        lengths = self.lengths[lists]
        shifts = self._starts[lists] - (np.cumsum(lengths) - lengths)
        return self.numbers[np.repeat(shifts, lengths) + np.arange(lengths.sum())]

    def inverted(self, count: int) -> _Lists:
        """Return for each number below `count` the lists that hold it."""
        holders = np.repeat(np.arange(len(self.lengths)), self.lengths)
        order = np.argsort(self.numbers, kind="stable")
        return _Lists(holders[order], np.bincount(self.numbers, minlength=count))


class Patterns:
    """The files below one folder with their sizes, and the patterns that can name them.

    Files of one folder with the same suffixes are a cell: a pattern names all of them or none.
    Cells and patterns are numbered, patterns by their length and in the order of the alphabet.
    """

    def __init__(self, prefix: str, sizes: Mapping[str, int]) -> None:
        self._prefix, self.sizes = prefix, sizes
        self._cell_of = dict[str, int]()
        self.archives = frozenset(o for o in sizes if o.lower().endswith(ARCHIVES))
        # Whole name below the folder → the other files whose paths end with it.
        self._longer = {self._name(origin): list[str]() for origin in sizes}
        cells = dict[_Cell, int]()
        for origin in sizes:
            for tail in _tails(origin):
                if tail in self._longer:
                    self._longer[tail].append(origin)
            folder, _, name = origin.removeprefix(prefix).rpartition("/")
            cell = glob.escape(folder), _suffixes(name)
            self._cell_of[origin] = cells.setdefault(cell, len(cells))
        matching = list(map(_matching, cells))
        self._patterns = sorted(set[str]().union(*matching), key=lambda name: (len(name), name))
        self._number_of = {pattern: number for number, pattern in enumerate(self._patterns)}
        self._starting, self._starting_cells = self._index(map(_starting, cells))
        self._matching, self._matching_cells = self._index(matching)

    def _index(self, patterns: Iterable[Collection[str]]) -> tuple[_Lists, _Lists]:
        """Return the numbers of the patterns of each cell, and the cells of each pattern."""
        lists = [[self._number_of[pattern] for pattern in some] for some in patterns]
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        numbers = np.fromiter(chain.from_iterable(lists), np.int64, lengths.sum())
        of_cells = _Lists(numbers, lengths)
        return of_cells, of_cells.inverted(len(self._patterns))

    def cover(
        self,
        wanted: Collection[str],
        others: Collection[str],
        limit: int,
        few: int = 0,
        by_size: bool = False,
    ) -> Cover:
        """Return at most `limit` patterns for most of `wanted` that name none of `others`.

        Most are many files, or with `by_size` many bytes.

        Of files in neither they may name any; and up to `few` of `others` among more wanted files
        of their folder and suffix, which are exceptions.
        """
        if not wanted:
            return Cover([], set(), [])
        cells, n_cells = self._cells(wanted), len(self._matching.lengths)
        counts = np.bincount(cells, minlength=n_cells)
        is_foreign, exceptions = self._foreign_cells(wanted, others, counts, few)
        gains = counts
        if by_size:
            # An empty file counts, too: it is named where there is room.
            sizes = np.fromiter(map(self.sizes.__getitem__, wanted), np.int64, len(wanted))
            gains = np.bincount(cells, sizes.clip(1), n_cells).astype(np.int64)
        banned = self._matching.joined(np.flatnonzero(is_foreign))
        chosen, done = self._choose(np.where(is_foreign, 0, gains), banned, limit)
        left = {origin for origin, is_left in zip(wanted, ~done[cells], strict=True) if is_left}
        hit = self._hit(chosen)
        for origin in sorted(left)[: limit - len(chosen)]:
            if not self._is_tail([origin], others):
                chosen.append(glob.escape(self._name(origin)))
                left.discard(origin)
        named = sorted(o for cell, origins in exceptions.items() if hit[cell] for o in origins)
        return Cover(sorted(chosen), left, [glob.escape(self._name(origin)) for origin in named])

    def _foreign_cells(
        self, wanted: Collection[str], others: Collection[str], counts: _Numbers, few: int
    ) -> tuple[_Flags, dict[int, list[str]]]:
        """Return which cells hold files of `others`, and cells with up to `few` as exceptions.

        `counts` are the wanted files of each cell.
        """
        foreign = np.bincount(self._cells(others), minlength=len(counts))
        is_foreign = foreign > np.minimum(few, counts - 1).clip(0)
        exceptions = defaultdict[int, list[str]](list)
        if few:
            excepted = (foreign > 0) & ~is_foreign
            for origin in others:
                if excepted[cell := self._cell_of[origin]]:
                    exceptions[cell].append(origin)
        for cell in [c for c, origins in exceptions.items() if self._is_tail(origins, wanted)]:
            del exceptions[cell]
            is_foreign[cell] = True
        return is_foreign, exceptions

    def _cells(self, origins: Collection[str]) -> _Numbers:
        """Return the cells of some files."""
        return np.fromiter(map(self._cell_of.__getitem__, origins), np.int64, len(origins))

    def _choose(self, gains: _Numbers, banned: _Numbers, limit: int) -> tuple[list[str], _Flags]:
        """Return at most `limit` patterns that are not banned, and whether each cell has one.

        `gains` are what a cell adds, in files or bytes. Each pattern adds most to the former ones.
        """
        gains, done = gains.copy(), np.zeros(len(gains), bool)
        added = np.zeros(len(self._patterns), np.int64)
        np.add.at(added, self._starting.numbers, np.repeat(gains, self._starting.lengths))
        added[banned] = _NEVER
        chosen: list[str] = []
        # Of patterns that add the same the first, the shortest, is chosen.
        while len(chosen) < limit and added[best := int(added.argmax())] > 0:
            chosen.append(self._patterns[best])
            cells = self._starting_cells.joined(np.array([best]))
            cells = cells[gains[cells] > 0]
            lost = np.repeat(gains[cells], self._starting.lengths[cells])
            np.subtract.at(added, self._starting.joined(cells), lost)
            gains[cells], done[cells] = 0, True
        return chosen, done

    def _is_tail(self, origins: Collection[str], others: Collection[str]) -> bool:
        """Return whether the whole name of a file would also name one of `others`."""
        return any(
            other in others for origin in origins for other in self._longer[self._name(origin)]
        )

    def _name(self, origin: str) -> str:
        return origin.removeprefix(self._prefix)

    def named(self, patterns: Collection[str]) -> set[str]:
        """Return the files that patterns of `cover` name."""
        hit = self._hit(patterns)
        named = {origin for origin, cell in self._cell_of.items() if hit[cell]}
        for pattern in patterns:
            # The whole name of a file, if escaping it again gives the pattern.
            name = re.sub(r"\[([*?[])\]", r"\1", pattern)
            if glob.escape(name) == pattern and name in self._longer:
                named.add(self._prefix + name)
        return named

    def _hit(self, patterns: Iterable[str]) -> _Flags:
        """Return of each cell whether some of the patterns name its files."""
        numbers = [self._number_of[name] for name in patterns if name in self._number_of]
        hit = np.zeros(len(self._matching.lengths), bool)
        hit[self._matching_cells.joined(np.array(numbers, np.int64))] = True
        return hit


def _tails(path: str) -> Iterator[str]:
    """Yield what follows each slash of a path."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


@lru_cache(_CACHED)
def _suffixes(name: str) -> tuple[str, ...]:
    """Return the suffixes of a name that a pattern may end with: `.json`, `.gz` of a.json.gz."""
    last = _SUFFIX.search(name)
    packed = next((suffix for suffix in COMPRESSED if name.endswith(suffix)), "")
    inner = _SUFFIX.search(name.removesuffix(packed)) if packed else None
    return tuple(match[0] for match in (inner, last) if match)


@lru_cache(_CACHED)
def _starting(cell: _Cell) -> frozenset[str]:
    """Return the patterns for the files of a cell: their suffixes, folders, or both."""
    folder, suffixes = cell
    parts = [part for part in folder.split("/") if part]
    starts = ["/".join(parts[: n + 1]) for n in range(min(len(parts), _MAX_FOLDERS))]
    below = [f"{start}/**/*{suffix}" for suffix in suffixes for start in starts]
    return frozenset((*starts, *below, *(f"*{suffix}" for suffix in suffixes)))


def _matching(cell: _Cell) -> frozenset[str]:
    """Return every pattern that names the files of a cell, also by the tail of their path."""
    folder, suffixes = cell
    parts, found = folder.split("/") if folder else [], {f"*{suffix}" for suffix in suffixes}
    for n in range(len(parts)):
        # A folder may have a suffix, too, and what is in it is named by it.
        above = [suffix for part in parts[n:] for suffix in _suffixes(part)]
        found |= _starting(("/".join(parts[n:]), (*suffixes, *above)))
    return frozenset(found)
