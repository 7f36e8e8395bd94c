"""Requests web pages politely: one connection per host, robots.txt, delays, back-off, bounds."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from groundup.collect.files.compression import gunzip
from groundup.collect.files.streams import DamagedError
from groundup.collect.scrape.robots import (
    MAX_ROBOTS_BYTES,
    Rules,
    find_opt_out,
    read_rules,
    robot_name,
)
from groundup.errors import SourceError
from groundup.runtime.fetch import https
from groundup.runtime.fetch.https import Access, Deadline, PrivateError, StoppedError

if TYPE_CHECKING:
    import httpx

# Per page: bytes as sent, seconds from the first byte to the last, redirects.
MAX_PAGE_BYTES = 20 << 20
PAGE_SECONDS = 60.0
MAX_REDIRECTS = 5
# Tries of a request that fails with a transient error; seconds before the second, which double.
TRIES = 3
BACK_OFF_SECONDS = 2.0
# A host that asks to wait longer, or fails this often in a row, is given up.
MAX_WAIT_SECONDS = 300.0
MAX_FAILURES = 5
_TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
# Hosts that are visited in parallel.
PARALLEL_HOSTS = 16
# Content types that are accepted.
PAGE_TYPES = ("text/html", "application/xhtml+xml")
ANY_TYPE: tuple[str, ...] = ()


class NoPageError(Exception):
    """An address that gives no page: a short reason, and a detail for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class _TransientError(NoPageError):
    """An error that may pass; `wait` is the seconds that the host asks to wait."""

    def __init__(self, reason: str, detail: str, wait: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """The response of a host."""

    url: str
    status: int
    head: bytes  # status line and headers, as they were sent
    body: bytes  # as sent: chunks joined, content encoding kept
    location: str  # address that it redirects to, "" for none
    wait: float  # seconds that it asks to wait, 0 for none


class Host:
    """One host: a single connection, the time of the next request, and its recent failures."""

    def __init__(self, user_agent: str, delay: float, stop: threading.Event) -> None:
        self.user_agent, self.delay = user_agent, delay
        self.rules: Rules | None = None
        self.rules_lock = threading.Lock()
        self._stop, self._request_lock, self._deadline = stop, threading.Lock(), Deadline()
        self._client = https.make_client()
        self._next = 0.0
        self._failures, self._given_up = 0, ""

    def get(self, url: str, types: tuple[str, ...], limit: int) -> FetchedPage:
        """Return the response to a request without its redirects, after up to TRIES tries.

        Raises NoPageError if there is none, which counts against the host if the error is
        transient, and StoppedError if the crawl is being stopped.
        """
        with self._request_lock:
            if self._given_up:
                raise NoPageError("host-given-up", self._given_up)
            failure = NoPageError("unreachable", url)
            for attempt in range(TRIES):
                if self._stop.wait(max(0.0, self._next - time.monotonic())):
                    raise StoppedError
                self._next = time.monotonic() + self.delay
                try:
                    page = self._request(url, types, limit)
                except _TransientError as error:
                    failure = NoPageError(error.reason, error.detail)
                    back_off = max(error.wait, BACK_OFF_SECONDS * 2**attempt)
                    self._next = max(self._next, time.monotonic() + back_off)
                    if error.wait > MAX_WAIT_SECONDS:
                        self._given_up = f"it asks to wait {error.wait:,.0f} s"
                        break
                else:
                    self._failures = 0
                    return page
            raise self._count_failure(failure)

    def _request(self, url: str, types: tuple[str, ...], limit: int) -> FetchedPage:
        """Return the response to one request; raise _TransientError where a second may succeed."""
        import httpx

        headers = {
            "User-Agent": self.user_agent,
            "Accept": ", ".join((*types, "*/*;q=0.1")),
            "Accept-Encoding": "gzip" if types else "identity",
        }
        access = Access(plain=True)
        try:
            # Normalized: addresses in sitemaps and redirects may hold spaces and line breaks.
            url = str(httpx.URL(url))
            access.check(url)
            with (
                self._deadline.within(PAGE_SECONDS),
                https.send(self._client, url, access, headers, self._deadline) as response,
            ):
                self._client.cookies.clear()
                page = _read_response(response, url, types, limit)
        except PrivateError as error:
            raise NoPageError("private-address", str(error)) from None
        except httpx.InvalidURL as error:
            raise NoPageError("no-address", str(error)) from None
        except (SourceError, httpx.HTTPError, OSError, ValueError) as error:
            if not self._stop.is_set() and not self._deadline.expired:
                raise _TransientError("unreachable", str(error) or type(error).__name__) from None
        if self._stop.is_set():
            raise StoppedError
        if self._deadline.expired:
            # A body without a length ends where the connection ends. A second try would take as
            # long again.
            detail = f"it took longer than {PAGE_SECONDS:.0f} s"
            raise self._count_failure(NoPageError("timeout", detail))
        if page.status in _TRANSIENT_STATUSES:
            raise _TransientError("http-status", str(page.status), page.wait)
        return page

    def _count_failure(self, failure: NoPageError) -> NoPageError:
        """Count a failure against the host, and return it."""
        self._failures += 1
        if self._failures >= MAX_FAILURES and not self._given_up:
            count = f"{self._failures} addresses failed in a row"
            self._given_up = f"{count}, the last with: {failure.detail}"
        return failure

    def close(self) -> None:
        """Close the connection, even while another thread reads from it."""
        self._deadline.cut()
        self._client.close()


def _read_response(
    response: httpx.Response, url: str, types: tuple[str, ...], limit: int
) -> FetchedPage:
    """Return a response with its body, which is b"" for a redirect or an error.

    Raises NoPageError if it is of another type, or too long.
    """
    parts, size = [], 0
    if response.status_code == 200:
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if types and content_type not in types:
            raise NoPageError("content-type", content_type or "no type")
        for part in response.iter_raw():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise NoPageError("too-large", f"longer than {limit:,} bytes")
    # Status line and headers as they were sent, but for the framing of the body.
    status = f"{response.http_version} {response.status_code} {response.reason_phrase}"
    headers = [
        b": ".join(header)
        for header in response.headers.raw
        if header[0].lower() not in (b"transfer-encoding", b"content-length")
    ]
    lines = [status.encode("latin-1", "replace"), *headers, b"Content-Length: %d" % size, b"", b""]
    location = ""
    if response.has_redirect_location:
        with suppress(ValueError):
            location = urljoin(url, response.headers["location"]).partition("#")[0]
    head, body = b"\r\n".join(lines), b"".join(parts)
    wait = _retry_seconds(response.headers.get("retry-after", ""))
    return FetchedPage(url, response.status_code, head, body, location, wait)


def _retry_seconds(retry_after: str) -> float:
    """Return the seconds in Retry-After, as a number or until a date, else 0 (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"\s*[0-9]+\s*", retry_after):
        return min(float(retry_after), 1e9)
    try:
        until = parsedate_to_datetime(retry_after)
        if not until.tzinfo:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


class Crawler:
    """Fetches pages of many hosts; thread-safe, with one request per host at a time."""

    def __init__(self, user_agent: str, delay: float) -> None:
        self.user_agent, self.delay, self.stop = user_agent, delay, threading.Event()
        self._hosts: dict[str, Host] = {}
        self._hosts_lock = threading.Lock()

    def fetch(
        self, url: str, types: tuple[str, ...] = PAGE_TYPES, limit: int = MAX_PAGE_BYTES
    ) -> FetchedPage:
        """Return the page at an address after its redirects, each checked like the address itself.

        Raises NoPageError if robots.txt or the page forbids it, it leads to a private address, is
        too large or slow, or gives no page.
        """
        for _ in range(MAX_REDIRECTS + 1):
            host = self._host(url)
            rules = self._rules(host, url)
            if forbidden := rules.forbids(url):
                raise NoPageError("robots", forbidden)
            if types == PAGE_TYPES and rules.forbids_training(url):
                raise NoPageError("opt-out", "robots.txt keeps it out of training data")
            page = host.get(url, types, limit)
            if page.status == 200:
                robot = robot_name(self.user_agent)
                if types == PAGE_TYPES and (opt_out := find_opt_out(page.head, page.body, robot)):
                    raise NoPageError("opt-out", opt_out)
                return page
            if not page.location:
                raise NoPageError("http-status", str(page.status))
            url = page.location
        raise NoPageError("redirects", f"it redirects more than {MAX_REDIRECTS} times")

    def _host(self, url: str) -> Host:
        name = host_of(url)
        if not name:
            what = f"{https.redact_url(url)[:300]} is no address of a page"
            raise NoPageError("no-address", what)
        with self._hosts_lock:
            if name not in self._hosts:
                self._hosts[name] = Host(self.user_agent, self.delay, self.stop)
            return self._hosts[name]

    def _rules(self, host: Host, url: str) -> Rules:
        """Return the rules of a host, which are fetched once; its delay follows them."""
        with host.rules_lock:
            if host.rules is not None:
                return host.rules
            parts = urlsplit(url)
            url = f"{parts.scheme}://{parts.netloc}/robots.txt"
            # No robots.txt allows all, one that cannot be reached forbids all (RFC 9309, 2.3.1).
            rules = Rules()
            try:
                for _ in range(MAX_REDIRECTS + 1):
                    page = self._host(url).get(url, ANY_TYPE, MAX_ROBOTS_BYTES)
                    if page.status == 200:
                        body = gunzip(page.body, MAX_ROBOTS_BYTES)
                        rules = read_rules(body, self.user_agent)
                    elif page.status >= 500:
                        rules = Rules(closed=f"robots.txt cannot be read ({page.status})")
                    elif page.location:
                        url = page.location
                        continue
                    break
            except (DamagedError, NoPageError) as error:
                if error.reason in ("private-address", "host-given-up"):
                    raise
                rules = Rules(closed=f"robots.txt cannot be read ({error.detail})")
            host.delay = max(host.delay, rules.delay)
            if host.delay > MAX_WAIT_SECONDS:
                rules = Rules(closed=f"robots.txt asks for {host.delay:,.0f} s between requests")
            host.rules = rules
            return rules

    def close(self) -> None:
        """Make requests that wait or read stop with StoppedError."""
        self.stop.set()
        for host in list(self._hosts.values()):
            host.close()


def host_of(url: str) -> str:
    """Return host and port of a page's address; "" when it is none, or carries a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return ""
    return parts.hostname.lower() + (f":{port}" if port not in (None, 80, 443) else "")
