"""Fetches the pages of a URL list into WARC files, one per host: `path = "scrape:sites.txt"`.

    CACHE/scrapes/NAME-HASH/      a WarcStore per host, and sitemaps/ (see url_list)

An address is fetched once. An interrupted scrape continues, a longer list costs its new addresses,
and an address that gave no page stays listed until it is retried on demand.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from groundup.collect.files.archives import Refused
from groundup.collect.scrape.crawler import PARALLEL_HOSTS, Crawler, NoPageError, host_of
from groundup.collect.scrape.url_list import UrlList, read_list
from groundup.collect.scrape.warc_store import WarcStore
from groundup.recipe import Source, default_name
from groundup.runtime.fetch.download import cache_root, cannot_write, locked_folder
from groundup.runtime.fetch.https import StoppedError
from groundup.runtime.progress import progress, say
from groundup.runtime.workers.map import map_threads

SCHEME = "scrape:"
# Of a page in a WARC file, before it is fetched.
ASSUMED_PAGE_BYTES = 20_000


def scrape(
    source: Source, root: Path, retry: bool = False
) -> tuple[dict[str, Path], list[Refused]]:
    """Fetch missing pages; return WARC files by origin, and the addresses that gave no page.

    Relative paths start from `root`. With `retry`, what gave no page is requested again.

    Raises SourceError if the list cannot be read, or the cache cannot be written.
    """
    entries, folder = read_list(source.path.removeprefix(SCHEME), root), _folder(source, root)
    try:
        crawler = Crawler(source.user_agent, source.delay)
        with locked_folder(folder), closing(crawler):
            with progress(f"sitemaps of {source.name}", 0, "sitemap") as bar:
                url_list = UrlList(folder, crawler, bar)
                url_list.prefetch_sitemaps(entries, source.max_pages, retry)
                pages = url_list.pages(entries, source.max_pages)
            refused = url_list.refused
            if len(pages) > source.max_pages:
                detail = f"addresses beyond max_pages = {source.max_pages:,} are not fetched"
                refused.append(Refused(source.path, "max-pages", detail))
            by_host = _by_host(pages[: source.max_pages])
            stores = {host: WarcStore(folder, host, source.user_agent) for host in by_host}
            for host, store in stores.items():
                store.prune(frozenset(by_host[host]), retry)
            _fetch_pages(source, crawler, by_host, stores)
            for store in stores.values():
                refused += store.missed.values()
            files = {f"{store.name}.warc.gz": store.warc for store in stores.values() if store.warc}
            return files, refused
    except OSError as error:
        raise cannot_write(folder, error) from None


def estimate_scrape(source: Source, root: Path) -> tuple[int, str]:
    """Return the expected bytes of a scrape, and what it has to fetch in words ("" for nothing)."""
    entries, folder = read_list(source.path.removeprefix(SCHEME), root), _folder(source, root)
    url_list = UrlList(folder)
    by_host = _by_host(url_list.pages(entries, source.max_pages)[: source.max_pages])
    stores = {host: WarcStore(folder, host, "") for host in by_host}
    size = sum(store.warc.stat().st_size for store in stores.values() if store.warc)
    missing = sum(len(_missing(pages, stores[host])) for host, pages in by_host.items())
    parts = [f"{missing:,} pages of {len(by_host):,} hosts"] if missing else []
    if url_list.unread_sitemaps:
        also = " in addition" if missing else ""
        parts.append(f"the pages of {url_list.unread_sitemaps:,} sitemaps{also}")
    to_fetch = f"{' and '.join(parts)}, up to {source.max_pages:,} pages" if parts else ""
    return size + missing * ASSUMED_PAGE_BYTES, to_fetch


def _missing(pages: Sequence[str], store: WarcStore) -> list[str]:
    done = store.kept | store.missed.keys()
    return [page for page in pages if page not in done]


def _folder(source: Source, root: Path) -> Path:
    """Return the folder of a URL list, the same for every recipe that names the list."""
    path = source.path.removeprefix(SCHEME)
    absolute = path if "://" in path else str((root / Path(path).expanduser()).resolve())
    key = hashlib.sha256(absolute.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return cache_root() / "scrapes" / f"{default_name(source.path)[:60]}-{key}"


def _by_host(pages: Sequence[str]) -> dict[str, list[str]]:
    by_host = defaultdict[str, list[str]](list)
    for page in pages:
        by_host[host_of(page)].append(page)
    return by_host


def _fetch_pages(
    source: Source,
    crawler: Crawler,
    by_host: Mapping[str, Sequence[str]],
    stores: Mapping[str, WarcStore],
) -> None:
    """Fetch the pages that are missing, many hosts in parallel."""
    missing = {host: _missing(pages, stores[host]) for host, pages in by_host.items()}
    to_fetch = {host: pages for host, pages in missing.items() if pages}
    if not to_fetch:
        return
    counts = [len(pages) for pages in to_fetch.values()]
    count, seconds = sum(counts), max(counts) * source.delay
    duration = f"{seconds / 3600:,.1f} h"
    if seconds < 5400:
        duration = f"{seconds:,.0f} s" if seconds < 90 else f"{seconds / 60:,.0f} min"
    say(
        f'source "{source.name}": fetching {count:,} pages of {len(to_fetch):,} hosts;'
        f" this takes at least {duration}, {source.delay:g} s between requests"
    )
    with progress(f"fetching {source.name}", count, "page") as bar:

        def fetch_host(host: str) -> None:
            for page in to_fetch[host]:
                try:
                    stores[host].add(page, crawler.fetch(page))
                except NoPageError as error:
                    stores[host].add(page, error)
                except StoppedError:
                    return
                bar.add(1, stores[host].name)
            stores[host].flush()

        map_threads(fetch_host, to_fetch, PARALLEL_HOSTS, crawler.close)
    missed = sum(len(store.missed) for store in stores.values())
    if missed:
        say(
            f'source "{source.name}": {missed:,} addresses gave no page; they are listed, and'
            " `--redo collect` tries them again"
        )
