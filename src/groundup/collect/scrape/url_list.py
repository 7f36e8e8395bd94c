"""The pages that a URL list names, its sitemaps included (sitemaps.org, protocol 0.9).

A URL list is a text file with one address per line, of a page or of a sitemap; `#` starts a
comment. `sitemap:` before an address marks a sitemap whose name does not end in `.xml`:

    https://example.org/about
    https://example.org/sitemap.xml
    sitemap: https://example.net/map

What each sitemap named is kept in `sitemaps/HASH.json` of the scrape's folder.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from groundup.collect.files.archives import Refused
from groundup.collect.files.compression import gunzip
from groundup.collect.files.streams import BUFFER, DamagedError
from groundup.collect.readers.web.html import host
from groundup.collect.scrape.crawler import ANY_TYPE, PARALLEL_HOSTS, Crawler, NoPageError, host_of
from groundup.errors import SourceError
from groundup.runtime.fetch.https import redact_url
from groundup.runtime.files import read_json_object, write_json
from groundup.runtime.progress import Progress
from groundup.runtime.workers.map import map_threads

# Of one list: more than a large site has.
MAX_SITEMAPS = 2_000
MAX_DEPTH = 3
MAX_LIST_BYTES = 256 << 20
# The protocol's own bounds of one sitemap.
MAX_SITEMAP_BYTES = 50 << 20
MAX_ADDRESSES = 50_000
MAX_ADDRESS_CHARACTERS = 2_048
_SITEMAP_MARK = "sitemap:"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """A line of a URL list: a page, or a sitemap."""

    address: str
    is_sitemap: bool


@dataclass(frozen=True, slots=True)
class Sitemap:
    """What a sitemap names; reason and detail say why that is nothing, or not all that it holds."""

    address: str
    pages: Sequence[str] = ()
    sitemaps: Sequence[str] = ()
    reason: str = ""
    detail: str = ""


def read_list(path: str, root: Path) -> list[ListEntry]:
    """Return the entries of a URL list, or the one entry that `path` is itself.

    Raises SourceError if there is no such file, or nothing in it.
    """
    if "://" in path:
        return [_parse_entry(path)]
    file = root / Path(path).expanduser()
    try:
        if file.stat().st_size > MAX_LIST_BYTES:
            raise SourceError(f"{file}: the list of addresses exceeds {MAX_LIST_BYTES >> 20} MB")
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        what = f"the list of addresses cannot be read: {error.strerror}"
        raise SourceError(f"{file}: {what}; correct its path in the recipe") from None
    stripped = filter(None, map(str.strip, lines))
    entries = [_parse_entry(line) for line in stripped if not line.startswith("#")]
    if not entries:
        raise SourceError(f"{file}: it names no address; write one per line")
    return entries


def _parse_entry(line: str) -> ListEntry:
    marked = line.lower().startswith(_SITEMAP_MARK)
    address = urldefrag(line[len(_SITEMAP_MARK) :].strip() if marked else line)[0]
    path = address.partition("?")[0].lower()
    return ListEntry(address, marked or path.endswith((".xml", ".xml.gz")))


def read_sitemap(body: bytes, address: str = "") -> Sitemap:
    """Return what a sitemap names, in its order, up to where it breaks off or exceeds its bounds.

    Raises DamagedError if it is no sitemap, or unpacks to too much.
    """
    from lxml import etree

    bounds: Any = dict.fromkeys(("resolve_entities", "load_dtd", "huge_tree"), False)
    data, reader, reason, detail = gunzip(body, MAX_SITEMAP_BYTES), _SitemapReader(), "", ""
    # It builds no tree: 50 MB of small elements would take 2 GB.
    parser = etree.XMLParser(target=reader, no_network=True, **bounds)
    try:
        for start in range(0, len(data), BUFFER):
            parser.feed(data[start : start + BUFFER])
            if reader.is_full:
                reason = "too-large"
                detail = f"what it names beyond {MAX_ADDRESSES:,} addresses is left out"
                break
        else:
            parser.close()
    except etree.XMLSyntaxError as error:
        reason, detail = "malformed", f"it is no sitemap, or breaks off: {error}"[:300]
        if not reader.pages and not reader.sitemaps:
            raise DamagedError(reason, detail) from None
    return Sitemap(address, reader.pages, reader.sitemaps, reason, detail)


class _SitemapReader:
    """Collects the addresses of a sitemap while lxml parses it."""

    def __init__(self) -> None:
        self.pages, self.sitemaps = list[str](), list[str]()
        self.is_full = False  # whether it names more than MAX_ADDRESSES
        self._open, self._text = list[str](), list[str]()

    def start(self, tag: str, attributes: Any) -> None:
        """An element begins."""
        self._open.append(tag.rpartition("}")[2])
        self._text.clear()

    def data(self, text: str) -> None:
        """A part of the text of an element."""
        if self._open and self._open[-1] == "loc" and len(self._text) <= MAX_ADDRESS_CHARACTERS:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """An element ends: it is an address where it is a <loc> of a page or a sitemap."""
        name, parent = self._open.pop(), self._open[-1] if self._open else ""
        location = "".join(self._text).strip()
        self._text.clear()
        is_address = name == "loc" and parent in ("url", "sitemap")
        if not is_address or not 0 < len(location) <= MAX_ADDRESS_CHARACTERS:
            return
        if len(self.pages) + len(self.sitemaps) == MAX_ADDRESSES:
            self.is_full = True
        elif parent == "url":
            self.pages.append(urldefrag(location)[0])
        else:
            self.sitemaps.append(location)

    def close(self) -> None:
        """The sitemap ends."""


@dataclass
class UrlList:
    """The pages of a list, as far as they are known."""

    folder: Path
    crawler: Crawler | None = None  # without it only sitemaps of earlier scrapes are known
    bar: Progress | None = None  # counts fetched sitemaps
    refused: list[Refused] = field(default_factory=list)  # addresses that give no pages
    unread_sitemaps: int = 0  # number of sitemaps that were not fetched
    visited: set[str] = field(default_factory=set)  # sitemaps that were asked for

    def prefetch_sitemaps(
        self, entries: Sequence[ListEntry], max_pages: int, retry: bool = False
    ) -> None:
        """Fetch the sitemaps of many sites in parallel, about as far as `pages` will need them."""
        if self.crawler is None:
            return
        by_site = defaultdict[str, list[ListEntry]](list)
        for entry in entries:
            if entry.is_sitemap and host_of(entry.address):
                by_site[host(entry.address)].append(entry)
        sites, pages, visited = list(by_site.values()), 0, set[str]()
        of_site = partial(UrlList, self.folder, self.crawler, self.bar, visited=visited)
        # Of a long list the first sites may be enough.
        while sites and pages <= max_pages:
            batch, sites = sites[:PARALLEL_HOSTS], sites[PARALLEL_HOSTS:]
            counts = map_threads(
                lambda entries: len(of_site().pages(entries, max_pages, retry)),
                batch,
                PARALLEL_HOSTS,
                self.crawler.close,
            )
            pages += sum(counts)

    def pages(self, entries: Sequence[ListEntry], max_pages: int, retry: bool = False) -> list[str]:
        """Return the pages in the order of the list, each once.

        It stops after a few more than `max_pages`. With `retry`, sitemaps that could not be read
        are requested again.
        """
        pages: dict[str, None] = {}
        for entry in entries:
            addresses: Iterable[str] = [entry.address]
            if entry.is_sitemap:
                addresses = self._walk(entry.address, 0, retry)
            for address in addresses:
                if host_of(address):
                    pages[address] = None
                else:
                    detail = "expected https://HOST/..., without a password"
                    self.refused.append(Refused(redact_url(address)[:300], "no-address", detail))
                if len(pages) > max_pages:
                    return list(pages)
        return list(pages)

    def _walk(self, address: str, depth: int, retry: bool) -> Iterator[str]:
        """Yield the pages of a sitemap and of the sitemaps that it names."""
        if address in self.visited:
            return
        self.visited.add(address)
        too_deep = depth > MAX_DEPTH
        if too_deep or len(self.visited) > MAX_SITEMAPS:
            too_many = f"there are more than {MAX_SITEMAPS:,} sitemaps"
            detail = f"sitemaps nest more than {MAX_DEPTH} deep" if too_deep else too_many
            self.refused.append(Refused(address, "sitemaps", detail))
            return
        sitemap = self._sitemap(address, retry)
        if sitemap.reason:
            self.refused.append(Refused(redact_url(address), sitemap.reason, sitemap.detail))
        site = host(address)
        yield from (page for page in sitemap.pages if host(page) == site)
        # A sitemap may name pages of its own site only (sitemaps.org, "Location").
        named = (*sitemap.pages, *sitemap.sitemaps)
        other = [location for location in named if host(location) != site]
        if other:
            detail = f"{len(other):,} addresses, such as {redact_url(other[0])[:200]}"
            self.refused.append(Refused(redact_url(address), "other-site", detail))
        for inner in sitemap.sitemaps:
            if host(inner) == site:
                yield from self._walk(urldefrag(inner)[0], depth + 1, retry)

    def _sitemap(self, address: str, retry: bool) -> Sitemap:
        """Return a sitemap from the folder, else fetch it; unread without a crawler."""
        key = hashlib.sha256(address.encode("utf-8", "replace")).hexdigest()[:24]
        file = self.folder / "sitemaps" / f"{key}.json"
        known = read_json_object(file)
        if known is not None and not (retry and known["reason"]):
            return Sitemap(**known)
        if self.crawler is None:
            self.unread_sitemaps += 1
            return Sitemap(address)
        try:
            body = self.crawler.fetch(address, ANY_TYPE, MAX_SITEMAP_BYTES).body
            sitemap = read_sitemap(body, address)
        except (NoPageError, DamagedError) as error:
            sitemap = Sitemap(address, reason=error.reason, detail=error.detail)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(sitemap))
        if self.bar is not None:
            self.bar.add()
        return sitemap
