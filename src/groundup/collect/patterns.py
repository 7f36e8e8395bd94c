"""Finds few include patterns that name some files of a folder and none of certain others.

    wanted a.eml, old/b.eml; others b.txt             →  *.eml
    wanted slack/1.json, slack/x/2.json; others 3.json →  slack
    wanted notes/a.txt; others notes/b.json, c.txt    →  notes/**/*.txt

The shortest list is a set cover, so it is found greedily. What a pattern matches is defined in
`files/globs.py`: a path, its tail, or a folder or archive above.
"""

from __future__ import annotations

import glob
import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from groundup.collect.files.globs import ARCHIVES, COMPRESSED

# Folders of a path that a pattern may start with.
_MAX_FOLDERS = 3
_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,9}\Z")

# The folder of some files, as a pattern, and the suffixes that all of them have.
_Cell = tuple[str, tuple[str, ...]]
# A folder of 60,000 files has some 20,000 cells; each is asked for its patterns dozens of times.
_CACHED = 1 << 17


class Cover(NamedTuple):
    """Patterns for some files."""

    patterns: list[str]  # sorted
    left: set[str]  # the files that they do not name
    exceptions: list[str]  # patterns for files that they name but should not


class Patterns:
    """The files below one folder with their sizes, and the patterns that can name them."""

    def __init__(self, prefix: str, sizes: Mapping[str, int]) -> None:
        self._prefix, self.sizes = prefix, sizes
        self._cells = defaultdict[_Cell, list[str]](list)
        self._cell_of = dict[str, _Cell]()
        self.archives = frozenset(o for o in sizes if o.lower().endswith(ARCHIVES))
        # Whole name below the folder → the other files whose paths end with it.
        self._longer = {self._name(origin): list[str]() for origin in sizes}
        for origin in sizes:
            for tail in _tails(origin):
                if tail in self._longer:
                    self._longer[tail].append(origin)
            folder, _, name = origin.removeprefix(prefix).rpartition("/")
            self._cell_of[origin] = cell = glob.escape(folder), _suffixes(name)
            self._cells[cell].append(origin)

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
        counts, foreign = Counter(map(self._cell_of.__getitem__, wanted)), self._by_cell(others)
        exceptions, banned, left = dict[_Cell, list[str]](), set[str](), set(wanted)
        for cell, origins in foreign.items():
            if len(origins) > min(few, counts[cell] - 1) or self._is_tail(origins, wanted):
                banned |= _matching(cell)
            else:
                exceptions[cell] = origins
        gains = {cell: n for cell, n in counts.items() if cell in exceptions or cell not in foreign}
        if by_size:
            gains = dict.fromkeys(gains, 0)
            for origin in wanted:
                if (cell := self._cell_of[origin]) in gains:
                    gains[cell] += self.sizes[origin]
        chosen, done = _choose(gains, banned, limit)
        left.difference_update(*(self._cells[cell] for cell in done))
        hit = self._hit(chosen)
        for origin in sorted(left)[: limit - len(chosen)]:
            if not self._is_tail([origin], others):
                chosen.append(glob.escape(self._name(origin)))
                left.discard(origin)
        excepted = sorted(origin for cell in hit for origin in exceptions.get(cell, ()))
        return Cover(sorted(chosen), left, [glob.escape(self._name(origin)) for origin in excepted])

    def _by_cell(self, origins: Iterable[str]) -> dict[_Cell, list[str]]:
        cells = defaultdict[_Cell, list[str]](list)
        for origin in origins:
            cells[self._cell_of[origin]].append(origin)
        return cells

    def _is_tail(self, origins: Collection[str], others: Collection[str]) -> bool:
        """Return whether the whole name of a file would also name one of `others`."""
        return any(
            other in others for origin in origins for other in self._longer[self._name(origin)]
        )

    def _name(self, origin: str) -> str:
        return origin.removeprefix(self._prefix)

    def named(self, patterns: Collection[str]) -> set[str]:
        """Return the files that patterns of `cover` name."""
        named = {origin for cell in self._hit(patterns) for origin in self._cells[cell]}
        for pattern in patterns:
            # The whole name of a file, if escaping it again gives the pattern.
            name = re.sub(r"\[([*?[])\]", r"\1", pattern)
            if glob.escape(name) == pattern and name in self._longer:
                named.add(self._prefix + name)
        return named

    def _hit(self, patterns: Collection[str]) -> set[_Cell]:
        """Return the cells whose files some of the patterns name."""
        chosen = frozenset(patterns)
        return {cell for cell in self._cells if not chosen.isdisjoint(_matching(cell))}


def _choose(
    sizes: dict[_Cell, int], banned: Collection[str], limit: int
) -> tuple[list[str], set[_Cell]]:
    """Return at most `limit` patterns that are not banned, and the cells that they name.

    `sizes` are what a cell adds, in files or bytes. Each pattern adds most to the former ones.
    """
    reached, gains = defaultdict[str, set[_Cell]](set), Counter[str]()
    for cell, size in sizes.items():
        for pattern in _starting(cell).difference(banned):
            reached[pattern].add(cell)
            gains[pattern] += size
    chosen: list[str] = []
    done = set[_Cell]()
    # Gains only shrink: an entry of the heap whose gain is no longer true is put back.
    heap = [(-gain, len(pattern), pattern) for pattern, gain in gains.items()]
    heapq.heapify(heap)
    while heap and len(chosen) < limit:
        gain, length, best = heapq.heappop(heap)
        if gains[best] != -gain:
            if gains[best]:
                heapq.heappush(heap, (-gains[best], length, best))
            continue
        chosen.append(best)
        for cell in reached[best] - done:
            for pattern in _starting(cell).difference(banned):
                gains[pattern] -= sizes[cell]
        done |= reached[best]
    return chosen, done


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


@lru_cache(_CACHED)
def _matching(cell: _Cell) -> frozenset[str]:
    """Return every pattern that names the files of a cell, also by the tail of their path."""
    folder, suffixes = cell
    parts, found = folder.split("/") if folder else [], {f"*{suffix}" for suffix in suffixes}
    for n in range(len(parts)):
        # A folder may have a suffix, too, and what is in it is named by it.
        above = [suffix for part in parts[n:] for suffix in _suffixes(part)]
        found |= _starting(("/".join(parts[n:]), (*suffixes, *above)))
    return frozenset(found)
