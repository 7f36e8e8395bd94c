"""Glob patterns over POSIX paths: which raw files and archive members belong to a source. Reads and
writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# The tail that a compressed single file loses before its name says anything.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
ARCHIVES = (".zip", ".whl", ".egg", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tzst", *COMPRESSED)


def has_pattern(part: str) -> bool:
    """Return whether a path component holds a glob character."""
    return any(character in part for character in "*?[")


def translate(pattern: str) -> str:
    """Return a regular expression for a glob: `*` and `?` stay inside a component, `**` spans any
    number of them.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    out = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out.append(".*" if last else "(?:[^/]+/)*")
        else:
            out.append(_component(part) + ("" if last else "/"))
    return "".join(out)


def _component(part: str) -> str:
    out, position = "", 0
    while position < len(part):
        character = part[position]
        close = part.find("]", position + 2) if character == "[" else -1
        if close > 0:
            body = part[position + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            out += f"[{'^' + body[1:] if body.startswith('!') else body}]"
            position = close
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        position += 1
    return out


@lru_cache(maxsize=256)
def _tail(pattern: str) -> re.Pattern[str]:
    """Match a path whose tail, or the tail of a folder or archive above it, is the pattern."""
    try:
        return re.compile(f"(?:.*/)?(?:{translate(pattern)})(?:!?/.*)?", re.DOTALL)
    except re.error:
        return re.compile(f"(?:.*/)?{re.escape(pattern)}(?:!?/.*)?", re.DOTALL)


def matches(pattern: str, origin: str) -> bool:
    """Return whether a pattern names an origin, by its full path, its tail, or a folder or archive
    above it.

    `doc/**/*.html` names `sdist.tar.gz!/sdist-1/doc/a.html`; `*.csv` names `table.csv.gz`, which
    holds such a file.
    """
    bare = origin
    for suffix in COMPRESSED:
        bare = bare.removesuffix(suffix)
    expression = _tail(pattern)
    return expression.fullmatch(origin) is not None or (
        bare != origin and expression.fullmatch(bare) is not None
    )


@dataclass(frozen=True, slots=True)
class Selection:
    """The include and exclude patterns of a source; exclude wins, and no include means everything."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def excludes(self, origin: str) -> bool:
        """Return whether an exclude pattern names the origin."""
        return any(matches(pattern, origin) for pattern in self.exclude)

    def keeps(self, origin: str) -> bool:
        """Return whether the origin belongs to the source."""
        return (
            not self.include or any(matches(pattern, origin) for pattern in self.include)
        ) and not self.excludes(origin)

    def opens(self, origin: str) -> bool:
        """Return whether the origin belongs to the source, or is an archive that may hold something
        that does.
        """
        return self.keeps(origin) or (
            origin.lower().endswith(ARCHIVES) and not self.excludes(origin)
        )
