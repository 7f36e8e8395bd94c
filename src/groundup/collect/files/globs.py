"""Glob patterns over POSIX paths: which raw files and archive members belong to a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# Suffixes that a compressed single file loses before its name says anything.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
ARCHIVES = (".zip", ".whl", ".egg", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tzst", *COMPRESSED)
# A set of characters, which may begin with "]", or a single character.
_GLOB_TOKEN = re.compile(r"\[(.[^]]*)\]|.", re.DOTALL)


def has_glob(part: str) -> bool:
    """Return whether a path component holds a glob character."""
    return any(character in part for character in "*?[")


@lru_cache(maxsize=256)
def glob_to_regex(pattern: str) -> str:
    """Return a regular expression for a glob; what would be none is matched literally.

    `*`, `?` and `[...]` stay inside a path component; `**` spans any number of components.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    regex = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            regex += ".*" if last else "(?:[^/]+/)*"
            continue
        for token in _GLOB_TOKEN.finditer(part):
            if characters := token[1]:
                body = characters.replace("\\", "\\\\").replace("[", "\\[")
                regex += f"[{'^' + body[1:] if body.startswith('!') else body}]"
            else:
                regex += {"*": "[^/]*", "?": "[^/]"}.get(token[0], re.escape(token[0]))
        regex += "" if last else "/"
    try:
        re.compile(regex)
    except re.error:
        return re.escape(pattern)
    return regex


def matches(pattern: str, origin: str) -> bool:
    """Return whether a pattern names an origin: its path, its tail, or a folder or archive above.

    `doc/**/*.html` names `sdist.tar.gz!/sdist-1/doc/a.html`; `*.csv` names `table.csv.gz`, which
    holds such a file.
    """
    plain = origin
    for suffix in COMPRESSED:
        plain = plain.removesuffix(suffix)
    regex = re.compile(f"(?:.*/)?(?:{glob_to_regex(pattern)})(?:!?/.*)?", re.DOTALL)
    return any(regex.fullmatch(name) for name in {origin, plain})


@dataclass(frozen=True, slots=True)
class Selection:
    """Include and exclude patterns of a source; exclude wins, no include means everything."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def excludes(self, origin: str) -> bool:
        """Return whether an exclude pattern names the origin."""
        return any(matches(pattern, origin) for pattern in self.exclude)

    def keeps(self, origin: str) -> bool:
        """Return whether the origin belongs to the source."""
        included = not self.include or any(matches(pattern, origin) for pattern in self.include)
        return included and not self.excludes(origin)

    def opens(self, origin: str) -> bool:
        """Return whether the origin belongs to the source, or is an archive that may hold some."""
        return self.keeps(origin) or (
            origin.lower().endswith(ARCHIVES) and not self.excludes(origin)
        )
