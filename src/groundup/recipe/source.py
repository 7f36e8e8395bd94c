"""A source of a recipe: a place that raw text comes from, and what is known of it. Reads and writes
nothing.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Literal

from groundup.schema import check, nearest

KINDS = ("books", "wikipedia", "web", "code", "conversations", "text", "evaluation")
# The kind of the source that `[tune] data` names; no [[source]] is of this kind.
TUNING = "tuning"
# Collected like the others, for later stages; no text of these kinds is trained on.
UNTRAINED = ("evaluation", TUNING)


@dataclass(frozen=True, slots=True)
class Source:
    """One place that raw text comes from."""

    path: str
    kind: str = "text"
    name: str = ""
    license: str = ""
    # Share of training tokens relative to its size; above 1 the source repeats.
    weight: float = 1.0
    # Of two duplicates the one from the source of higher priority stays; among equals the longer
    # one.
    priority: int = 0
    # Globs over origins (archive members too); exclude wins.
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    # Of the file that a pypi: or https: path names; without it the lock remembers what was seen
    # first.
    sha256: str = ""
    # "package.module:function" of your own, which reads the files in place of the kind's reader.
    reader: str = ""
    # Of plain-text files; "auto" looks at the bytes.
    encoding: str = "auto"
    # Of scrape: paths. Seconds between two requests to a host (more where its robots.txt asks for
    # it), pages at most, and the name under which hosts are visited, best with an address where
    # their owners can write to.
    delay: float = 1.0
    max_pages: int = 10_000
    user_agent: str = "groundup"
    # In place of [refine]'s; 1 allows anything, such as a source whose every document stands in
    # another one too.
    most_dropped: float | Literal["auto"] = "auto"
    # Of tuning data: the columns of text and label, where their names do not say so.
    columns: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(bool(self.path), "path is empty; name a file, folder or glob")
        if self.kind not in (*KINDS, TUNING):
            raise ValueError(f'kind "{self.kind}" is unknown{nearest(self.kind, KINDS)}')
        check(0 <= self.weight <= 100, f"weight {self.weight} must lie between 0 and 100")
        check(
            not self.reader or ":" in self.reader,
            f'reader "{self.reader}" is not of the form "package.module:function"',
        )
        check(0 <= self.priority <= 100, f"priority {self.priority} must lie between 0 and 100")
        check(
            self.most_dropped == "auto" or 0 <= self.most_dropped <= 1,
            f"most_dropped {self.most_dropped} is a share between 0 and 1",
        )
        check(
            self.sha256 == "" or bool(re.fullmatch(r"[0-9a-f]{64}", self.sha256)),
            "sha256 must be 64 hexadecimal digits",
        )
        check(
            self.encoding == "auto" or _is_encoding(self.encoding),
            f'encoding "{self.encoding}" is not one that Python knows',
        )
        check(0 <= self.delay <= 300, f"delay {self.delay} must lie between 0 and 300 seconds")
        check(self.max_pages >= 1, f"max_pages {self.max_pages} must be at least 1")
        check(
            bool(re.fullmatch(r"[!-~][ -~]{0,199}", self.user_agent)),
            "user_agent is a name of plain letters, such as my-lab/1.0 (mail)",
        )
        check(
            not self.path.startswith("scrape:") or self.kind == "web",
            'path "scrape:..." gives web pages: write kind = "web"',
        )
        if not self.name:
            object.__setattr__(self, "name", default_name(self.path))
        check(
            bool(re.fullmatch(r"[\w.+-]{1,80}", self.name)),
            f'name "{self.name}" may hold letters, digits and . _ + - only',
        )


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def default_name(path: str) -> str:
    """Return a source's name: the last component of its path that holds no pattern, without a
    file's suffix.
    """
    if path.startswith("pypi:"):
        return (
            re.sub(r"[^\w.+-]+", "-", re.split(r"[=/]", path.removeprefix("pypi:"))[0])[:80]
            or "source"
        )
    path = path.removeprefix("scrape:")
    plain = [
        part
        for part in re.split(r"[/\\]", path.rsplit("://", maxsplit=1)[-1])
        if part and not re.search(r"[*?\[]", part)
    ]
    stem = re.sub(r"[^\w.+-]+", "-", plain[-1] if plain else "source").strip("-.")
    return (re.sub(r"(\.[A-Za-z]\w{0,4}){1,2}$", "", stem) or stem or "source")[:80]
