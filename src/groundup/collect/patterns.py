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
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from groundup.collect.files.globs import COMPRESSED

# Folders of a path that a pattern may start with.
_MAX_FOLDERS = 3
_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,9}\Z")

# The folder of some files, and the suffixes that all of them have.
_Cell = tuple[str, tuple[str, ...]]


class Cover(NamedTuple):
    """Patterns for some files."""

    patterns: list[str]  # sorted
    left: set[str]  # the files that they do not name
    exceptions: list[str]  # patterns for files that they name but should not


class Patterns:
    """The files below one folder, and the patterns that can name them."""

    def __init__(self, prefix: str, origins: Iterable[str]) -> None:
        self._prefix = prefix
        self._cells = defaultdict[_Cell, list[str]](list)
        self._by_name = defaultdict[str, list[str]](list)
        for origin in origins:
            self._by_name[origin.rpartition("/")[2]].append(origin)
            folder, _, name = origin.removeprefix(prefix).rpartition("/")
            self._cells[folder, _suffixes(name)].append(origin)

    def cover(
        self, wanted: Collection[str], others: Collection[str], limit: int, few: int = 0
    ) -> Cover:
        """Return at most `limit` patterns for `wanted` that name none of `others`.

        Of files in neither they may name any; and up to `few` of `others` among more wanted files
        of their folder and suffix, which are exceptions.
        """
        sizes, banned = dict[_Cell, int](), set[str]()
        exceptions, left = dict[_Cell, list[str]](), set(wanted)
        for cell, origins in self._cells.items():
            count = sum(origin in wanted for origin in origins)
            foreign = [origin for origin in origins if origin in others]
            if foreign and (len(foreign) > min(few, count - 1) or self._is_tail(foreign, wanted)):
                banned.update(_matching(cell))
                continue
            exceptions[cell] = foreign
            if count:
                sizes[cell] = count
        # Pattern → the cells that it names, and how many wanted files that adds.
        reached, gains = defaultdict[str, set[_Cell]](set), Counter[str]()
        for cell, count in sizes.items():
            for pattern in set(_starting(cell)) - banned:
                reached[pattern].add(cell)
                gains[pattern] += count
        chosen: list[str] = []
        done = set[_Cell]()
        while gains and len(chosen) < limit:
            best = min(gains, key=lambda key: (-gains[key], len(key), key))
            chosen.append(best)
            for cell in reached[best] - done:
                left.difference_update(self._cells[cell])
                for pattern in set(_starting(cell)) - banned:
                    gains[pattern] -= sizes[cell]
            done |= reached[best]
            gains = +gains  # those that still add files
        hit = {cell for cell in exceptions if not set(chosen).isdisjoint(_matching(cell))}
        for origin in sorted(left)[: limit - len(chosen)]:
            if not self._is_tail([origin], others):
                chosen.append(glob.escape(self._name(origin)))
                left.discard(origin)
        foreign = sorted(origin for cell in hit for origin in exceptions[cell])
        return Cover(sorted(chosen), left, [glob.escape(self._name(origin)) for origin in foreign])

    def _is_tail(self, origins: Collection[str], others: Collection[str]) -> bool:
        """Return whether the whole name of a file would also name one of `others`."""
        return any(
            other in others and other.endswith(f"/{self._name(origin)}")
            for origin in origins
            for other in self._by_name[origin.rpartition("/")[2]]
        )

    def _name(self, origin: str) -> str:
        return origin.removeprefix(self._prefix)

    def named(self, patterns: Collection[str]) -> set[str]:
        """Return the files that patterns of `cover` name."""
        chosen = set(patterns)
        return {
            origin
            for cell, origins in self._cells.items()
            for origin in origins
            if not chosen.isdisjoint(_matching(cell)) or glob.escape(self._name(origin)) in chosen
        }


def _suffixes(name: str) -> tuple[str, ...]:
    """Return the suffixes of a name that a pattern may end with: `.json`, `.gz` of a.json.gz."""
    last = _SUFFIX.search(name)
    packed = next((suffix for suffix in COMPRESSED if name.endswith(suffix)), "")
    inner = _SUFFIX.search(name.removesuffix(packed)) if packed else None
    return tuple(match[0] for match in (inner, last) if match)


def _starting(cell: _Cell) -> Iterator[str]:
    """Yield the patterns for the files of a cell: their suffixes, folders, or both."""
    folder, suffixes = cell
    parts = [glob.escape(part) for part in folder.split("/") if part]
    starts = ["/".join(parts[: n + 1]) for n in range(min(len(parts), _MAX_FOLDERS))]
    yield from starts
    for suffix in suffixes:
        yield f"*{suffix}"
        yield from (f"{start}/**/*{suffix}" for start in starts)


def _matching(cell: _Cell) -> Iterator[str]:
    """Yield every pattern that names the files of a cell, also by the tail of their path."""
    folder, suffixes = cell
    parts = folder.split("/") if folder else []
    for n in range(len(parts)):
        # A folder may have a suffix, too, and what is in it is named by it.
        above = [suffix for part in parts[n:] for suffix in _suffixes(part)]
        tail = "/".join(parts[n:])
        yield from _starting((tail, (*suffixes, *above)))
    yield from (f"*{suffix}" for suffix in suffixes)
