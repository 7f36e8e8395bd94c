"""Which pages a list of addresses names, sitemaps followed. Reads the list; keeps what each sitemap
said in `sitemaps/*.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

from groundup.collect.files.archives import Refused
from groundup.collect.files.streams import DamagedError
from groundup.collect.scrape.crawler import ANY, HOSTS_AT_ONCE, NoPageError, Visitor, host_of
from groundup.collect.scrape.sitemaps import MAX_SITEMAP_BYTES, read_sitemap
from groundup.errors import SourceError
from groundup.runtime.fetch.transfer import shown
from groundup.runtime.files import read_json, write_json
from groundup.runtime.progress import Progress

# Of one list: more than a large site has, and few enough to end.
MAX_SITEMAPS = 2_000
MAX_DEPTH = 3
MAX_LIST_BYTES = 256 << 20
_MARK = "sitemap:"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list: a page, or a sitemap."""

    address: str
    sitemap: bool


@dataclass(frozen=True, slots=True)
class Said:
    """What a sitemap said, or the reason why it said nothing."""

    address: str
    pages: Sequence[str] = ()
    sitemaps: Sequence[str] = ()
    reason: str = ""
    detail: str = ""


def read_list(path: str, root: Path) -> list[Entry]:
    """Return the entries of a file with one address a line, or the one entry that `path` is itself.

    Raises:
        SourceError: there is no such file, or nothing in it.
    """
    if "://" in path:
        return [_entry(path)]
    file = root / Path(path).expanduser()
    try:
        if file.stat().st_size > MAX_LIST_BYTES:
            raise SourceError(
                f"{file}: a list of addresses is at most {MAX_LIST_BYTES >> 20} MB long"
            )
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise SourceError(
            f"{file}: the list of addresses cannot be read: {error.strerror}; correct its path in"
            " the recipe"
        ) from None
    entries = [
        _entry(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")
    ]
    if not entries:
        raise SourceError(f"{file}: it names no address; write one a line")
    return entries


def _entry(line: str) -> Entry:
    marked = line.lower().startswith(_MARK)
    address = urldefrag(line[len(_MARK) :].strip() if marked else line)[0]
    return Entry(address, marked or address.partition("?")[0].lower().endswith((".xml", ".xml.gz")))


def _by_site(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the sitemaps of a list by site."""
    sites: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.sitemap and host_of(entry.address):
            sites.setdefault(_site(entry.address), []).append(entry)
    return list(sites.values())


@dataclass
class Book:
    """The pages of a list, as far as they are known; without a visitor no sitemap is fetched."""

    folder: Path
    visitor: Visitor | None = None
    bar: Progress | None = None
    refused: list[Refused] = field(default_factory=list)
    # Sitemaps that were not fetched.
    unread: int = 0
    # Those that were asked for.
    maps: set[str] = field(default_factory=set)

    def read_ahead(self, entries: Sequence[Entry], most: int, again: bool = False) -> None:
        """Read the sitemaps of many sites side by side, about as far as `pages` will ask for them.

        Args:
            again: ask sitemaps once more that could not be read.
        """
        sites, found, maps = _by_site(entries), 0, set[str]()
        while self.visitor is not None and sites and found <= most:
            # Of a long list only the first sites may be wanted.
            some, sites = sites[:HOSTS_AT_ONCE], sites[HOSTS_AT_ONCE:]
            books = [(Book(self.folder, self.visitor, self.bar, maps=maps), here) for here in some]
            found += sum(
                map(
                    len,
                    self.visitor.side_by_side(
                        lambda pair: pair[0].pages(pair[1], most, again), books
                    ),
                )
            )

    def pages(self, entries: Sequence[Entry], most: int, again: bool = False) -> list[str]:
        """Return the addresses of pages in the order of the list, each once; a few more than `most`
        where there are more.

        Args:
            again: ask sitemaps once more that could not be read.
        """
        found: dict[str, None] = {}
        for entry in entries:
            for address in (
                self._walk(entry.address, 0, again) if entry.sitemap else [entry.address]
            ):
                if host_of(address):
                    found[address] = None
                else:
                    self.refused.append(
                        Refused(
                            shown(address)[:300],
                            "no-address",
                            "expected https://HOST/..., without a password",
                        )
                    )
                if len(found) > most:
                    return list(found)
        return list(found)

    def _walk(self, address: str, depth: int, again: bool) -> Iterator[str]:
        if address in self.maps:
            return
        self.maps.add(address)
        if depth > MAX_DEPTH or len(self.maps) > MAX_SITEMAPS:
            why = (
                f"sitemaps nest more than {MAX_DEPTH} deep"
                if depth > MAX_DEPTH
                else f"there are more than {MAX_SITEMAPS:,} sitemaps"
            )
            self.refused.append(Refused(address, "sitemaps", why))
            return
        said = self._said(address, again)
        if said is None:
            self.unread += 1
            return
        if said.reason:
            self.refused.append(Refused(shown(address), said.reason, said.detail))
        yield from (page for page in said.pages if _same_site(page, address))
        strange = [one for one in (*said.pages, *said.sitemaps) if not _same_site(one, address)]
        if strange:
            # A sitemap speaks for its own site only (sitemaps.org, "Location").
            self.refused.append(
                Refused(
                    shown(address),
                    "other-site",
                    f"{len(strange):,} addresses, such as {shown(strange[0])[:200]}",
                )
            )
        for inner in said.sitemaps:
            if _same_site(inner, address):
                yield from self._walk(urldefrag(inner)[0], depth + 1, again)

    def _said(self, address: str, again: bool) -> Said | None:
        """Return what a sitemap said when it was fetched, now or earlier."""
        file = (
            self.folder
            / "sitemaps"
            / f"{hashlib.sha256(address.encode('utf-8', 'replace')).hexdigest()[:24]}.json"
        )
        known: Any = read_json(file)
        if isinstance(known, dict) and not (again and known["reason"]):
            return Said(**known)
        if self.visitor is None:
            return None
        try:
            read = read_sitemap(self.visitor.visit(address, ANY, MAX_SITEMAP_BYTES).body)
            said = Said(
                address,
                [urldefrag(page)[0] for page in read.pages],
                list(read.sitemaps),
                *read.flaw,
            )
        except (NoPageError, DamagedError) as error:
            said = Said(address, reason=error.reason, detail=error.detail)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(said))
        if self.bar is not None:
            self.bar.add()
        return said


def _same_site(address: str, sitemap: str) -> bool:
    try:
        return _site(address) == _site(sitemap)
    except ValueError:
        return False


def _site(address: str) -> str:
    return (urlsplit(address).hostname or "").removeprefix("www.")
