"""Scraping: polite to good hosts, unharmed by bad ones, never twice, readable by other tools."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego
from tests.helpers.examples import examples
from tests.helpers.items import item_from_bytes
from tests.helpers.sites import Reply, Seen, Site, page, redirect, serving

from groundup.artifacts.document import Document
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.registry import read_item
from groundup.collect.scrape import SCHEME, crawler, url_list, warc_store
from groundup.collect.scrape.robots import find_opt_out, read_rules
from groundup.collect.scrape.url_list import read_sitemap
from groundup.collect.sources import Listing, list_source, source_sizes
from groundup.errors import RecipeError, SourceError
from groundup.recipe import Source, load_recipe


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(crawler, "BACK_OFF_SECONDS", 0.01)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def _list(tmp_path: Path, *addresses: str) -> None:
    (tmp_path / "sites.txt").write_text("# pages of ours\n\n" + "\n".join(addresses) + "\n")


def _scrape(tmp_path: Path, retry: bool = False, **settings: object) -> Listing:
    source = Source("scrape:sites.txt", "web", **({"delay": 0.0} | settings))  # type: ignore[arg-type]
    return list_source(source, tmp_path, retry=retry)


def _texts(listing: Listing) -> dict[str, list[str]]:
    """Return the first words of every page, by group, as the WARC reader finds them."""
    texts: dict[str, list[str]] = {}
    for file in listing.files:
        for entry in read_item(
            item_from_bytes(gzip.decompress(file.path.read_bytes()), file.origin),
            Source("x", "web"),
        ):
            if isinstance(entry, Document):
                texts.setdefault(entry.group, []).append(entry.text.split("\n")[0].split(".")[0])
    return texts


def _reasons(listing: Listing) -> dict[str, str]:
    return {
        entry.origin.partition(".test")[2].partition("/")[2]: entry.reason
        for entry in listing.refused
    }


def test_pages_become_warc_and_are_never_fetched_twice(site: Site, tmp_path: Path) -> None:
    """A longer list fetches its new addresses only, a shorter one removes pages."""
    site.pages |= {
        "/1": page("One"),
        "/2": page("Two"),
        "/3": page("Three"),
        "b.test/1": page("Other"),
    }
    first_url, second_url, third_url, other_url = (
        site.url("a.test", "/1"),
        site.url("a.test", "/2"),
        site.url("a.test", "/3"),
        site.url("b.test", "/1"),
    )
    _list(tmp_path, first_url, other_url, second_url, first_url)
    first = _scrape(tmp_path)
    assert _texts(first) == {"a.test": ["One", "Two"], "b.test": ["Other"]}
    assert sorted(site.paths()) == [
        "a.test/1",
        "a.test/2",
        "a.test/robots.txt",
        "b.test/1",
        "b.test/robots.txt",
    ]
    before = {file.origin: file.path.read_bytes() for file in first.files}
    assert {file.origin: file.path.read_bytes() for file in _scrape(tmp_path).files} == before
    assert len(site.seen) == 5
    _list(tmp_path, second_url, third_url, other_url)
    assert _texts(_scrape(tmp_path)) == {"a.test": ["Two", "Three"], "b.test": ["Other"]}
    assert site.paths()[5:] == ["a.test/robots.txt", "a.test/3"]


def test_warcio_reads_the_files(site: Site, tmp_path: Path) -> None:
    """Addresses and digests are right; a gzipped body stays as it was sent."""
    warcio = pytest.importorskip("warcio.archiveiterator", reason="warcio is not installed")
    body = gzip.compress(page("Packed").body)
    site.pages |= {
        "/1": page("One"),
        "/z": Reply(body, headers={"Content-Type": "text/html", "Content-Encoding": "gzip"}),
    }
    _list(tmp_path, site.url("a.test", "/1"), site.url("a.test", "/z"))
    listing = _scrape(tmp_path)
    with listing.files[0].path.open("rb") as file:
        records = [
            (
                r.rec_type,
                r.rec_headers.get_header("WARC-Target-URI"),
                r.content_stream().read(),
                r.digest_checker.passed,
            )
            for r in warcio.ArchiveIterator(file, check_digests="raise")
        ]
    assert [record[:2] for record in records] == [
        ("warcinfo", None),
        *(("response", site.url("a.test", path)) for path in ("/1", "/z")),
    ]
    assert [record[2] for record in records[1:]] == [site.pages["/1"].body, page("Packed").body]  # type: ignore[union-attr]
    assert all(record[3] for record in records[1:])
    assert _texts(listing) == {"a.test": ["One", "Packed"]}


def test_robots_and_delays(site: Site, tmp_path: Path) -> None:
    """Pages that robots.txt forbids are listed and not requested; its delay is kept."""
    rules = (
        b"User-agent: *\nDisallow: /\n\nUser-agent: groundup\nCrawl-delay: 0.3\nDisallow:"
        b" /private\nAllow: /private/open$\nDisallow: /*.pdf"
    )
    site.pages |= {
        "/robots.txt": Reply(rules),
        **{f"/{n}": page(n) for n in ("1", "2", "private/x", "private/open", "a.pdf")},
    }
    _list(
        tmp_path,
        *(
            site.url("a.test", path)
            for path in ("/1", "/private/x", "/private/open", "/a.pdf", "/2")
        ),
    )
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["1", "private/open", "2"]}
    assert _reasons(listing) == {"private/x": "robots", "a.pdf": "robots"}
    times = [seen.at for seen in site.seen]
    assert min(b - a for a, b in pairwise(times[1:])) > 0.1
    assert (
        len({seen.connection for seen in site.seen}) == 1
        and site.seen[0].headers["user-agent"] == "groundup"
    )


@pytest.mark.parametrize(
    ("status", "kept"), [(404, True), (403, True), (503, False), (429, False), (520, False)]
)
def test_robots_that_cannot_be_read(site: Site, tmp_path: Path, status: int, kept: bool) -> None:
    """RFC 9309: without robots.txt everything is allowed; after a server error, nothing."""
    site.pages |= {"/robots.txt": Reply(status=status), "/1": page("One")}
    _list(tmp_path, site.url("a.test", "/1"))
    listing = _scrape(tmp_path)
    assert bool(listing.files) is kept and ("a.test/1" in site.paths()) is kept
    assert _reasons(listing) == ({} if kept else {"1": "robots"})


def test_redirects(site: Site, tmp_path: Path) -> None:
    """Redirects are followed where robots.txt allows it, and never to a private address."""
    private = (
        "http://169.254.169.254/latest/meta-data/",
        f"http://[::1]:{site.port}/1",
        "http://10.0.0.1/",
        f"http://127.0.0.1:{site.port}/1",
    )
    site.pages |= {f"/evil{n}": redirect(to) for n, to in enumerate(private)}
    site.pages |= {
        "/moved": redirect("/1", 301),
        "/1": page("One"),
        "/loop": redirect("/loop"),
        "/file": redirect("file:///etc/passwd"),
        "/other": redirect(site.url("b.test", "/closed/x")),
        "b.test/robots.txt": Reply(b"User-agent: *\nDisallow: /closed"),
        "/closed/x": page("Closed"),
    }
    _list(
        tmp_path,
        *(
            site.url("a.test", f"/{name}")
            for name in ("moved", *(f"evil{n}" for n in range(4)), "loop", "file", "other")
        ),
    )
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["One"]}
    evil = {f"evil{n}": "private-address" for n in range(4)}
    assert _reasons(listing) == evil | {
        "loop": "redirects",
        "file": "no-address",
        "other": "robots",
    }
    assert "b.test/closed/x" not in site.paths()


def test_bad_responses(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless, slow, cut, wrong and failed responses each cost only themselves, in bounded time."""
    monkeypatch.setattr(crawler, "PAGE_SECONDS", 0.4)
    monkeypatch.setattr(crawler, "MAX_PAGE_BYTES", 1 << 20)
    site.pages |= {
        "/endless": Reply(b"<p>and on it goes</p>" * 1000, endless=True),
        "/slow": Reply(b"x" * 1000, drip=0.05),
        "/short": Reply(b"<p>cut</p>", length=5000),
        "/pdf": Reply(b"%PDF", headers={"Content-Type": "application/pdf"}),
        "/gone": Reply(status=410),
        "/1": page("One"),
    }
    names = ("endless", "1", "slow", "short", "pdf", "gone", "")
    _list(
        tmp_path,
        *(site.url("a.test", f"/{name}") for name in names),
        "ftp://a.test/x",
        "https://me:secret@a.test/",
        "no address",
        "no address",
    )
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["One"]}
    expected = {
        "endless": "too-large",
        "slow": "timeout",
        "short": "unreachable",
        "pdf": "content-type",
        "gone": "http-status",
    }
    assert expected.items() <= _reasons(listing).items()
    assert [entry.reason for entry in listing.refused].count("no-address") == 3
    assert "secret" not in repr(listing)


def test_slow_head(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never ends its headers does not block a host forever."""
    monkeypatch.setattr(crawler, "PAGE_SECONDS", 0.3)
    site.pages["/1"] = lambda seen: time.sleep(5) or Reply(b"")  # type: ignore[func-returns-value]
    _list(tmp_path, site.url("a.test", "/1"))
    assert _reasons(_scrape(tmp_path)) == {"1": "timeout"}


def test_busy_hosts_are_waited_for_or_given_up(site: Site, tmp_path: Path) -> None:
    """Retry-After is obeyed; a host that asks for hours, or keeps failing, is given up."""

    def busy(seen: Seen) -> Reply:
        tries = sum(entry.path == "/busy" for entry in site.seen)
        return page("Busy") if tries > 1 else Reply(status=429, headers={"Retry-After": "1"})

    site.pages |= {
        "/busy": busy,
        "b.test/1": Reply(
            status=503, headers={"Retry-After": formatdate(time.time() + 9999, usegmt=True)}
        ),
    }
    site.pages |= {f"c.test/{n}": Reply(status=500) for n in range(9)}
    hosts = {"a.test": ["/busy"], "b.test": ["/1", "/2"], "c.test": [f"/{n}" for n in range(9)]}
    _list(tmp_path, *(site.url(host, path) for host, paths in hosts.items() for path in paths))
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["Busy"]}
    asked = [seen.at for seen in site.seen if seen.path == "/busy"]
    assert asked[1] - asked[0] > 0.99
    reasons = [entry.reason for entry in listing.refused if "b.test" in entry.origin]
    assert reasons == ["http-status", "host-given-up"] and "b.test/2" not in site.paths()
    reasons = [entry.reason for entry in listing.refused if "c.test" in entry.origin]
    assert reasons == ["http-status"] * 5 + ["host-given-up"] * 4
    site.pages |= {f"c.test/{n}": page(str(n)) for n in range(9)}
    assert len(_scrape(tmp_path).refused) == 11
    assert _texts(_scrape(tmp_path, retry=True))["c.test"] == [str(n) for n in range(9)]


def test_sitemaps(site: Site, tmp_path: Path) -> None:
    """Indexes, gzip and addresses of other sites; each sitemap is requested once."""
    urls = "".join(f"<url><loc>{site.url('a.test', f'/{n}')}</loc></url>" for n in range(3))
    inner = (
        "<?xml version='1.0'?><urlset"
        f" xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{urls}</urlset>".encode()
    )
    names = [
        site.url("a.test", "/inner.xml.gz"),
        site.url("a.test", "/broken.xml"),
        site.url("b.test", "/strange.xml"),
    ]
    inner_maps = "".join(f"<sitemap><loc>{name}</loc></sitemap>" for name in names)
    index = f"<sitemapindex>{inner_maps}</sitemapindex>".encode()
    site.pages |= {
        "/sitemap": Reply(index),
        "/inner.xml.gz": Reply(gzip.compress(inner)),
        "/broken.xml": Reply(b"<html>no"),
    }
    site.pages |= {f"/{n}": page(str(n)) for n in range(3)}
    _list(tmp_path, f"sitemap: {site.url('a.test', '/sitemap')}", site.url("b.test", "/1"))
    source = Source("scrape:sites.txt", "web", delay=0.0)
    assert source_sizes(source, tmp_path)[0][1] > 0 and not site.seen
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["0", "1", "2"], "b.test": ["1"]}
    assert sorted(entry.reason for entry in listing.refused) == ["malformed", "other-site"]
    count = len(site.seen)
    _scrape(tmp_path)
    assert len(site.seen) == count
    few = _scrape(tmp_path, max_pages=2)
    assert _texts(few) == {"a.test": ["0", "1"]} and "max-pages" in {
        entry.reason for entry in few.refused
    }


def test_sitemaps_of_many_sites_are_read_in_parallel(site: Site, tmp_path: Path) -> None:
    """A slow site blocks no other; the order of pages is that of the list."""
    both = threading.Barrier(2, timeout=5)

    def answer(host: str) -> Callable[[Seen], Reply]:
        def meet(seen: Seen) -> Reply:
            both.wait()
            return Reply(f"<urlset><url><loc>{site.url(host, '/1')}</loc></url></urlset>".encode())

        return meet

    site.pages |= {f"{host}/map.xml": answer(host) for host in ("a.test", "b.test")}
    site.pages |= {f"{host}/1": page(host) for host in ("a.test", "b.test")}
    _list(tmp_path, site.url("b.test", "/map.xml"), site.url("a.test", "/map.xml"))
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["a"], "b.test": ["b"]} and not listing.refused


def test_sitemaps_beyond_max_pages_are_not_requested(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first sites name enough pages, the others are not contacted."""
    monkeypatch.setattr(url_list, "PARALLEL_HOSTS", 1)
    for host in ("a.test", "b.test"):
        urls = "".join(f"<url><loc>{site.url(host, f'/{n}')}</loc></url>" for n in range(3))
        site.pages |= {f"{host}/map.xml": Reply(f"<urlset>{urls}</urlset>".encode())}
    site.pages |= {f"/{n}": page(str(n)) for n in range(3)}
    _list(tmp_path, site.url("a.test", "/map.xml"), site.url("b.test", "/map.xml"))
    assert _texts(_scrape(tmp_path, max_pages=2)) == {"a.test": ["0", "1"]}
    assert not any(path.startswith("b.test") for path in site.paths())


@pytest.mark.parametrize(
    ("headers", "meta", "kept"),
    [
        ({}, '<meta name="robots" content="index, nofollow, max-snippet:0, noimageai">', True),
        ({}, "<META content='NoIndex,follow' name=ROBOTS>", False),
        ({}, '<meta name="robots" content="noai, noimageai">', False),
        (
            {},
            (
                '<meta name="googlebot" content="noindex"><!-- <meta name="robots"'
                ' content="noindex"> -->'
            ),
            True,
        ),
        ({}, '<meta name="groundup" content="noarchive">', False),
        ({}, '<meta name="tdm-reservation" content="1">', False),
        ({}, '<meta name="tdm-reservation" content="0">', True),
        ({"X-Robots-Tag": "unavailable_after: 25 Jun 2030 15:00:00 PST, none"}, "", False),
        ({"X-Robots-Tag": "googlebot: noindex, noarchive"}, "", True),
        ({"X-Robots-Tag": "otherbot: all, groundup: noarchive"}, "", False),
        ({"TDM-Reservation": "1"}, "", False),
        ({"Content-Signal": "search=yes, ai-train=no"}, "", False),
        ({"Content-Usage": "train-ai=y"}, "", True),
    ],
)
def test_pages_that_opt_out_of_training(
    site: Site, tmp_path: Path, headers: dict[str, str], meta: str, kept: bool
) -> None:
    """Opt-outs in headers and <meta>, for all robots or this one, are honored, gzipped or not."""
    body = page("One").body.replace(b"<body", meta.encode() + b"<body", 1)
    assert not meta or meta.encode() in body
    packed = Reply(
        gzip.compress(body),
        headers={"Content-Type": "text/html", "Content-Encoding": "gzip"} | headers,
    )
    site.pages |= {"/1": Reply(body, headers={"Content-Type": "text/html"} | headers), "/z": packed}
    _list(tmp_path, site.url("a.test", "/1"), site.url("a.test", "/z"))
    listing = _scrape(tmp_path)
    assert _texts(listing) == ({"a.test": ["One", "One"]} if kept else {})
    assert _reasons(listing) == ({} if kept else {"1": "opt-out", "z": "opt-out"})


def test_signals_in_robots(site: Site, tmp_path: Path) -> None:
    """A signal in robots.txt prevents the request; longest path and own group decide."""
    rules = (
        b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nContent-Usage: /open/"
        b" train-ai=y\nAllow: /\n"
    )
    other = (
        b"User-agent: *\nContent-Signal: ai-train=no\n\nUser-agent: x\nUser-agent:"
        b" Groundup\nDisallow: /no\n"
    )
    site.pages |= {"a.test/robots.txt": Reply(rules), "b.test/robots.txt": Reply(other)}
    site.pages |= {f"/{name}": page(name) for name in ("1", "open/1")}
    _list(
        tmp_path,
        *(site.url(host, f"/{name}") for host in ("a.test", "b.test") for name in ("1", "open/1")),
    )
    listing = _scrape(tmp_path)
    assert _texts(listing) == {"a.test": ["open/1"], "b.test": ["1", "open/1"]}
    assert [entry.reason for entry in listing.refused] == [
        "opt-out"
    ] and "a.test/1" not in site.paths()


def test_retry_after_in_strange_digits() -> None:
    """Unicode digits that are no number are ignored."""
    assert crawler._retry_seconds("\xb2") == 0 and crawler._retry_seconds(" 12 ") == 12


def test_sitemap_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip bombs, XML entities and deep nesting are refused in bounded memory."""
    with pytest.raises(DamagedError, match="too-large"):
        read_sitemap(gzip.compress(b" " * (60 << 20), 1))
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = (
        f'<!DOCTYPE urlset [<!ENTITY l0 "lol">{lol}<!ENTITY f SYSTEM'
        ' "file:///etc/passwd">]><urlset><url><loc>&l9;&f;</loc></url></urlset>'
    )
    with suppress(DamagedError):
        assert read_sitemap(bomb.encode()).pages == []
    with pytest.raises(DamagedError):
        read_sitemap(b"<a>" * 100_000)
    monkeypatch.setattr(url_list, "MAX_ADDRESSES", 5)
    many = read_sitemap(
        b"<urlset>" + b"<url><loc>https://a.example/</loc></url>" * 6 + b"</urlset>"
    )
    assert len(many.pages) == 5 and many.reason == "too-large"
    cut = read_sitemap(b"<urlset>" + b"<url><loc>https://a.example/</loc></url>" * 3 + b"<url><lo")
    assert len(cut.pages) == 3 and cut.reason == "malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_robots_txt_and_a_sitemap(data: bytes) -> None:
    """Whatever a host sends, parsing ends in a result or DamagedError."""
    assert read_rules(data, "groundup/1.0").forbids("https://a.example/x?y") in (
        "",
        "robots.txt forbids it",
    )
    assert read_rules(data, "groundup").delay >= 0
    assert (
        find_opt_out(
            b"HTTP/1.1 200 OK\r\n" + data, b"<meta name=robots content=" + data, "groundup"
        )
        is not None
    )
    with suppress(DamagedError):
        read_sitemap(data)


_KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.helpers import sites
from groundup.collect.scrape import warc_store
from groundup.runtime.fetch import https
from groundup.collect.sources import list_source
from groundup.recipe import Source

https.resolve_public = sites.resolve
real, count = warc_store.warc_record, 0

def record(kind, *parts):
    global count
    count += kind == "response"
    if count == 3:
        # Half a record is written, and then the process is gone.
        with next(Path({folder!r}).glob("cache/scrapes/*/*.warc.gz")).open("ab") as file:
            file.write(real(kind, *parts)[:200])
        os.kill(os.getpid(), 9)
    return real(kind, *parts)

warc_store.warc_record = record
list_source(Source("scrape:sites.txt", "web", delay=0.0), Path({folder!r}))
"""


def test_a_killed_scrape_resumes(site: Site, tmp_path: Path) -> None:
    """After a kill in the middle of a record only that page is fetched again."""
    site.pages |= {f"/{n}": page(str(n)) for n in range(5)}
    _list(tmp_path, *(site.url("a.test", f"/{n}") for n in range(5)))
    code = _KILLED.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    assert site.paths() == ["a.test/robots.txt", "a.test/0", "a.test/1", "a.test/2"]
    assert _texts(_scrape(tmp_path)) == {"a.test": [str(n) for n in range(5)]}
    assert site.paths()[4:] == ["a.test/robots.txt", "a.test/2", "a.test/3", "a.test/4"]


def test_torn_lists_lose_the_torn_line_only(site: Site, tmp_path: Path) -> None:
    """A journal or list of missed pages that ends inside a line loses that line only."""
    site.pages |= {f"/{n}": page(str(n)) for n in range(3)}
    _list(tmp_path, *(site.url("a.test", f"/{name}") for name in ("0", "1", "2", "x", "y")))
    _scrape(tmp_path)
    count = len(site.seen)
    for path in (tmp_path / "cache/scrapes").rglob("*.jsonl"):
        path.write_bytes(path.read_bytes()[:-9])
    assert _texts(_scrape(tmp_path)) == {"a.test": ["0", "1", "2"]}
    assert sorted(site.paths()[count + 1 :]) == ["a.test/2", "a.test/y"]
    listing = _scrape(tmp_path)
    with listing.files[0].path.open("ab") as file:
        file.write(warc_store.warc_record("warcinfo", {}, b"half")[:50])
    assert _texts(_scrape(tmp_path)) == {"a.test": ["0", "1", "2"]} and len(listing.refused) == 2


def test_a_file_that_lost_its_end(site: Site, tmp_path: Path) -> None:
    """Pages that a crash of the machine cut off are fetched again, once."""
    site.pages |= {f"/{n}": page(str(n)) for n in range(4)}
    _list(tmp_path, *(site.url("a.test", f"/{n}") for n in range(3)))
    file = _scrape(tmp_path).files[0]
    os.truncate(file.path, file.size - 400)
    for count in (3, 4, 4):
        _list(tmp_path, *(site.url("a.test", f"/{n}") for n in range(count)))
        assert _texts(_scrape(tmp_path)) == {"a.test": [str(n) for n in range(count)]}
    assert [path for path in site.paths() if "robots" not in path][3:] == ["a.test/2", "a.test/3"]


def test_host_names_as_files(tmp_path: Path) -> None:
    """Two hosts never share a file, and no name leaves the folder."""
    names = {
        warc_store.WarcStore(tmp_path, host, "").name
        for host in (
            "a.test",
            "a.test:8080",
            "a.test_8080",
            "[::1]",
            "..",
            "../x",
            "é.example",
            "e.example",
        )
    }
    assert len(names) == 8 and not any("/" in name or name.startswith(".") for name in names)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    """A missing or empty list, a wrong kind and an impossible delay are one-line errors."""
    for text in ("", "# nothing\n"):
        (tmp_path / "sites.txt").write_text(text)
        with pytest.raises(SourceError, match="names no address"):
            _scrape(tmp_path)
    with pytest.raises(SourceError, match="cannot be read"):
        list_source(Source("scrape:none.txt", "web"), tmp_path)
    for line in (
        'kind = "books"',
        'kind = "web"\ndelay = -1',
        'kind = "web"\nmax_pages = 0',
        'kind = "web"\nuser_agent = "a\\nb"',
    ):
        (tmp_path / "r.toml").write_text(f'[[source]]\npath = "scrape:sites.txt"\n{line}\n')
        with pytest.raises(RecipeError):
            load_recipe(tmp_path / "r.toml")
    assert SCHEME == "scrape:"


ROBOTS = st.lists(
    st.sampled_from(
        [
            "User-agent: *",
            "user agent : lab # ours",
            "User-Agent: my-lab",
            "useragent my*",
            "User-agent: other",
            "User-agent: lab-of-others",
            "User-agent:",
            "Disallow: /a",
            "Allow: /a/b",
            "Disallow: /*c$",
            "Crawl-delay: 3",
            "",
            "# User-agent: my-lab",
        ]
    ),
    max_size=12,
)


@examples(300)
@given(lines=ROBOTS)
def test_rules_of_other_robots_do_not_matter(lines: list[str]) -> None:
    """Their names are replaced before the file is parsed; the whole file gives the same answers."""
    text = "\n".join(lines)
    ours, whole = read_rules(text.encode(), "my-lab/1.0"), Protego.parse(text)
    for path in ("/a", "/a/b", "/c", "/xc", "/d"):
        url = f"https://host.test{path}"
        assert (not ours.forbids(url)) == whole.can_fetch(url, "my-lab"), (text, path)
    assert ours.delay == (whole.crawl_delay("my-lab") or 0)


@pytest.mark.parametrize("rule", ["Disallow: /a", "Content-Signal: ai-train=no"])
def test_a_crowded_robots_txt_takes_little_memory(rule: str) -> None:
    """15,000 robots share 15,000 rules."""
    names = "".join(f"User-agent: {n:x}\n" for n in range(15_000))
    body = f"{names}User-agent: my-lab\n{f'{rule}{chr(10)}' * 15_000}".encode()
    tracemalloc.start()
    rules = read_rules(body, "my-lab/1.0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 << 20
    assert rules.forbids("https://host.test/a") or rules.forbids_training("https://host.test/a")
