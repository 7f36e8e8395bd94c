"""Fetches the pages of a list of addresses and sitemaps, politely, into one WARC file a host. Reads
the list and the network.

Writes `CACHE/scrapes/NAME-HASH/`: a `Harvest` a host, and what sitemaps said. An address is fetched
once: a run that was cut off goes on, a longer list costs its new addresses, and what gave no page
stays listed until it is tried again on demand.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from groundup.collect.files.archives import Refused
from groundup.collect.scrape.crawler import Manners, NoPageError, Visitor, host_of
from groundup.collect.scrape.url_list import Book, Entry, read_list
from groundup.collect.scrape.warc_store import Harvest, Missed
from groundup.errors import SourceError, is_full_disk
from groundup.recipe import Source, default_name
from groundup.runtime.fetch.cache import cache_root
from groundup.runtime.fetch.transfer import StoppedError
from groundup.runtime.progress import Progress, progress, say

SCHEME = "scrape:"
# What a page comes to in a WARC file, where nobody knows yet.
ASSUMED_PAGE_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Scrape:
    """The pages of a source: a WARC file a host, by origin, and the addresses that gave none."""

    files: dict[str, Path]
    refused: list[Refused]


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a scrape still has to do: bytes that are here or may be expected, and a line for a
    person, "" when all is done.
    """

    bytes: int
    line: str


def scrape(source: Source, root: Path, again: bool = False) -> Scrape:
    """Return the pages of a source, after fetching those that are missing.

    Args:
        again: try once more what gave no page.

    Raises:
        SourceError: the list cannot be read, or the cache cannot be written.
    """
    entries = read_list(source.path.removeprefix(SCHEME), root)
    folder = _folder(source, root)
    try:
        with _alone(folder):
            return _scraped(source, entries, folder, again)
    except OSError as error:
        why = (
            "the disk is full; free some space and run again"
            if is_full_disk(error)
            else f"it cannot be written: {error.strerror}"
        )
        raise SourceError(f"{folder}: {why}") from None


def ahead(source: Source, root: Path) -> Ahead:
    """Return what a scrape has to do, without fetching anything."""
    entries, folder = read_list(source.path.removeprefix(SCHEME), root), _folder(source, root)
    book = Book(folder)
    pages = book.pages(entries, source.max_pages)[: source.max_pages]
    maps, hosts = book.unread, _by_host(pages)
    harvests = {host: Harvest(folder, host, "") for host in hosts} if folder.is_dir() else {}
    missing = sum(len(_missing(here, harvests.get(host))) for host, here in hosts.items())
    size = (
        sum(one.warc.stat().st_size for one in harvests.values() if one.warc)
        + missing * ASSUMED_PAGE_BYTES
    )
    parts = [f"{missing:,} pages of {len(hosts):,} hosts"] if missing else []
    parts += (
        [
            (
                f"what {maps:,} sitemaps name"
                if not parts
                else f"what {maps:,} sitemaps name beside them"
            )
        ]
        if maps
        else []
    )
    line = (
        f'source "{source.name}" will be fetched: {" and ".join(parts)}, {source.max_pages:,} pages'
        " at most"
        if parts
        else ""
    )
    return Ahead(size, line)


def _missing(pages: Sequence[str], harvest: Harvest | None) -> list[str]:
    done = harvest.kept | harvest.missed.keys() if harvest is not None else frozenset()
    return [page for page in pages if page not in done]


def _folder(source: Source, root: Path) -> Path:
    """Return where the pages of a list are kept: one folder for each list, wherever recipes name
    it.
    """
    path = source.path.removeprefix(SCHEME)
    whole = path if "://" in path else str((root / Path(path).expanduser()).resolve())
    key = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return cache_root() / "scrapes" / f"{default_name(source.path)[:60]}-{key}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep the folder from other processes, which wait."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _scraped(source: Source, entries: Sequence[Entry], folder: Path, again: bool) -> Scrape:
    with Visitor(Manners(source.user_agent, source.delay)).visiting() as visitor:
        with progress(f"sitemaps of {source.name}", 0, "sitemap") as bar:
            book = Book(folder, visitor, bar)
            book.read_ahead(entries, source.max_pages, again)
            found = book.pages(entries, source.max_pages)
        if len(found) > source.max_pages:
            why = f"addresses beyond max_pages = {source.max_pages:,} are not fetched"
            book.refused.append(Refused(source.path, "max-pages", why))
        hosts = _by_host(found[: source.max_pages])
        harvests = {host: Harvest(folder, host, source.user_agent) for host in hosts}
        for host, harvest in harvests.items():
            harvest.keep_only(frozenset(hosts[host]))
            if again:
                harvest.retry()
        _fetch(source, visitor, hosts, harvests)
    refused = [
        Refused(one.address, one.reason, one.detail)
        for harvest in harvests.values()
        for one in harvest.missed.values()
    ]
    return Scrape(
        {f"{h.name}.warc.gz": h.warc for h in harvests.values() if h.warc is not None},
        book.refused + refused,
    )


def _by_host(pages: Sequence[str]) -> dict[str, list[str]]:
    hosts: dict[str, list[str]] = {}
    for page in pages:
        hosts.setdefault(host_of(page), []).append(page)
    return hosts


def _fetch(
    source: Source,
    visitor: Visitor,
    hosts: Mapping[str, Sequence[str]],
    harvests: Mapping[str, Harvest],
) -> None:
    """Bring the pages that are missing, host by host, many hosts side by side."""
    missing = {host: _missing(pages, harvests[host]) for host, pages in hosts.items()}
    todo = {host: pages for host, pages in missing.items() if pages}
    if not todo:
        return
    count, longest = sum(map(len, todo.values())), max(map(len, todo.values())) * source.delay
    say(
        f'source "{source.name}": fetching {count:,} pages of {len(todo):,} hosts;'
        f" {_duration(longest)} at least, {source.delay:g} s apart"
    )
    with progress(f"fetching {source.name}", count, "page") as bar:
        visitor.side_by_side(
            lambda host: _fetch_host(visitor, todo[host], harvests[host], bar), todo
        )
    missed = sum(len(harvest.missed) for harvest in harvests.values())
    if missed:
        say(
            f'source "{source.name}": {missed:,} addresses gave no page; they are listed, and'
            " `--redo collect` tries them again"
        )


def _fetch_host(visitor: Visitor, pages: Sequence[str], harvest: Harvest, bar: Progress) -> None:
    for page in pages:
        try:
            harvest.add(page, visitor.visit(page))
        except NoPageError as error:
            harvest.miss(Missed(page, error.reason, error.detail))
        except StoppedError:
            return
        bar.add(1, harvest.name)
    harvest.settle()


def _duration(seconds: float) -> str:
    return (
        f"{seconds / 3600:,.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:,.0f} min"
        if seconds >= 90
        else f"{seconds:,.0f} s"
    )
