"""A `[[source]]` of a recipe: a place that raw text comes from, and how it is read."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Literal

from groundup.schema import check, nearest

KINDS = ("books", "wikipedia", "web", "code", "conversations", "text", "evaluation")
# Kind of the source that `[tune] data` names; no [[source]] is of this kind.
TUNING = "tuning"
# Codecs of Python that decode something else than the text of a file.
NO_CHARACTER_SETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}
MAX_PATTERNS = 1_000


@dataclass(frozen=True, slots=True)
class Source:
    """One place that raw text comes from."""

    # A file, folder or glob; or https://, s3://, hf://OWNER/NAME, pypi:NAME==VERSION, scrape:FILE.
    path: str
    # What the files are; it decides readers, filters and grouping.
    kind: str = "text"
    # Name in every report; by default the last part of the path.
    name: str = ""
    # License of the texts; one that a document states itself comes first.
    license: str = ""
    # Share of training tokens relative to the size of the source, 0 to 100; above 1 it repeats.
    weight: float = 1.0
    # Of two duplicates, the one from the source of higher priority (0 to 100) stays; among equals
    # the longer one.
    priority: int = 0
    # Globs over origins, members of archives too: only matching files are read.
    include: tuple[str, ...] = ()
    # Globs over origins: matching files are not read, even if `include` matches.
    exclude: tuple[str, ...] = ()
    # The one folder outside of the source that links in it may lead into; the stores of the Hugging
    # Face cache, git-annex and DVC need no naming.
    follow_links: str = ""
    # SHA-256 of the file that a pypi: or https: path names; without it, the lock remembers the one
    # that was fetched first.
    sha256: str = ""
    # "package.module:function" of your own, which reads the files instead of the reader of the
    # kind.
    reader: str = ""
    # Encoding of plain-text files; "auto" detects it from the bytes.
    encoding: str = "auto"
    # scrape: seconds between two requests to a host, 0 to 300; more if its robots.txt asks for it.
    delay: float = 1.0
    # scrape: most pages to fetch.
    max_pages: int = 10_000
    # scrape: name under which hosts are visited, best with an address for their owners.
    user_agent: str = "groundup"
    # As in [refine], for this source; 1 allows anything, such as a source whose documents are all
    # in another source too.
    most_dropped: float | Literal["auto"] = "auto"
    # Columns of text and label in tuning data.
    columns: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(bool(self.path), "path is empty; name a file, folder or glob")
        if self.kind not in (*KINDS, TUNING):
            raise ValueError(f'kind "{self.kind}" is unknown{nearest(self.kind, KINDS)}')
        check(0 <= self.weight <= 100, f"weight {self.weight} must lie between 0 and 100")
        message = f'reader "{self.reader}" is not of the form "package.module:function"'
        check(not self.reader or ":" in self.reader, message)
        check(0 <= self.priority <= 100, f"priority {self.priority} must lie between 0 and 100")
        most = self.most_dropped
        check(most == "auto" or 0 <= most <= 1, f"most_dropped {most} is a share between 0 and 1")
        digest = not self.sha256 or re.fullmatch(r"[0-9a-f]{64}", self.sha256)
        check(bool(digest), "sha256 must be 64 hexadecimal digits")
        try:
            # zlib, idna and the like are none; the standard library has no public name for this.
            codec = codecs.lookup("utf-8" if self.encoding == "auto" else self.encoding)
            is_text = codec._is_text_encoding and codec.name not in NO_CHARACTER_SETS
        except LookupError:
            is_text = False
        check(is_text, f'encoding "{self.encoding}" is not one that Python knows')
        check(
            len(self.include) + len(self.exclude) <= MAX_PATTERNS,
            f"include and exclude have more than {MAX_PATTERNS:,} patterns, and every file is"
            " compared with each; put the files into folders",
        )
        check(0 <= self.delay <= 300, f"delay {self.delay} must lie between 0 and 300 seconds")
        check(self.max_pages >= 1, f"max_pages {self.max_pages} must be at least 1")
        agent = re.fullmatch(r"[!-~][ -~]{0,199}", self.user_agent)
        check(bool(agent), "user_agent is a name of plain letters, such as my-lab/1.0 (mail)")
        is_web = not self.path.startswith("scrape:") or self.kind == "web"
        check(is_web, 'path "scrape:..." gives web pages: write kind = "web"')
        if not self.name:
            object.__setattr__(self, "name", default_name(self.path))
        check_name(self.name)


def check_name(name: str) -> None:
    """Raise ValueError unless a name can be that of a file."""
    allowed = re.fullmatch(r"[\w.+-]{1,80}", name)
    check(bool(allowed), f'name "{name}" may hold letters, digits and . _ + - only')


def default_name(path: str) -> str:
    """Return the name of a source: the last part of its path without pattern and suffix."""
    if path.startswith("pypi:"):
        package = re.split(r"[=/]", path.removeprefix("pypi:"))[0]
        return re.sub(r"[^\w.+-]+", "-", package)[:80] or "source"
    path = path.removeprefix("scrape:")
    plain = [
        part
        for part in re.split(r"[/\\]", path.rsplit("://", maxsplit=1)[-1])
        if part and not re.search(r"[*?\[]", part)
    ]
    stem = re.sub(r"[^\w.+-]+", "-", plain[-1] if plain else "source").strip("-.")
    return (re.sub(r"(\.[A-Za-z]\w{0,4}){1,2}$", "", stem) or stem or "source")[:80]
