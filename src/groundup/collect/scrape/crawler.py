"""Visits web pages politely: one connection a host, robots.txt, delays, back-off, bounds. Reads the
network; writes nothing.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from groundup.collect.files.streams import DamagedError
from groundup.collect.scrape.optouts import opted_out
from groundup.collect.scrape.robots import (
    MAX_ROBOTS_BYTES,
    Rules,
    closed,
    opened,
    read_rules,
    robot_of,
)
from groundup.collect.scrape.sitemaps import unpacked
from groundup.errors import SourceError
from groundup.runtime.fetch import transfer
from groundup.runtime.fetch.addresses import PrivateError
from groundup.runtime.fetch.transfer import Access, Deadline, StoppedError

if TYPE_CHECKING:
    import httpx

# Of one address: its body as sent, its time from the first byte to the last, and the redirects that
# lead to it.
MAX_PAGE_BYTES = 20 << 20
PAGE_SECONDS = 60.0
MAX_REDIRECTS = 5
# Tries of a request that meets a passing trouble, and seconds before the second, which double.
TRIES = 3
BACK_OFF_SECONDS = 2.0
# A host that asks to wait longer, or fails so often in a row, is given up.
MAX_WAIT_SECONDS = 300.0
MAX_FAILURES = 5
_PASSING = (429, 500, 502, 503, 504)
T = TypeVar("T")
R = TypeVar("R")
# Hosts that are visited side by side.
HOSTS_AT_ONCE = 16
PAGES = ("text/html", "application/xhtml+xml")
ANY: tuple[str, ...] = ()


class NoPageError(Exception):
    """An address that gives no page: a short reason, and a detail for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Manners:
    """How hosts are visited: under which name, and at most how often (seconds between two
    requests).
    """

    user_agent: str
    delay: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host sent: the body as it came over the wire, chunks joined, content encoding kept."""

    url: str
    status: int
    head: bytes
    body: bytes
    location: str
    retry_after: str

    @property
    def ok(self) -> bool:
        """Whether this is what was asked for."""
        return self.status == 200


class Host:
    """One host: a single connection, the time of the next request, and how many failed in a row."""

    def __init__(self, manners: Manners, stop: threading.Event) -> None:
        self.manners, self.delay = manners, manners.delay
        self.rules: Rules | None = None
        self.deciding = threading.Lock()
        self._stop, self._turn, self._deadline = stop, threading.Lock(), Deadline()
        self._client = transfer.client()
        self._next = 0.0
        self._failed, self._given_up = 0, ""

    def get(self, url: str, forms: tuple[str, ...], limit: int) -> Answer:
        """Return the answer to one request, redirects included, after as many tries as it deserves.

        Raises:
            NoPageError: there is none; passing troubles are counted against the host.
            StoppedError: somebody wants to end.
        """
        with self._turn:
            if self._given_up:
                raise NoPageError("host-given-up", self._given_up)
            trouble = NoPageError("unreachable", url)
            for number in range(TRIES):
                self._wait()
                found, wait = self._try(url, forms, limit)
                if isinstance(found, Answer):
                    self._failed = 0
                    return found
                trouble = found
                self._next = max(
                    self._next, time.monotonic() + max(wait, BACK_OFF_SECONDS * 2**number)
                )
                if wait > MAX_WAIT_SECONDS:
                    self._given_up = f"it asks to wait {wait:,.0f} s"
                    break
            raise self._failure(trouble)

    def _try(
        self, url: str, forms: tuple[str, ...], limit: int
    ) -> tuple[Answer | NoPageError, float]:
        """Return an answer, or a trouble that may pass and the seconds that the host asks to wait."""
        import httpx

        try:
            answer = self._ask(url, forms, limit)
        except PrivateError as error:
            raise NoPageError("private-address", str(error)) from None
        except httpx.InvalidURL as error:
            raise NoPageError("no-address", str(error)) from None
        except (SourceError, httpx.HTTPError, OSError, ValueError) as error:
            if self._stop.is_set():
                raise StoppedError from None
            if self._deadline.expired:
                # The time is spent; a second try would spend as much again.
                raise self._failure(_late()) from None
            return NoPageError("unreachable", str(error) or type(error).__name__), 0
        if answer.status in _PASSING:
            return NoPageError("http-status", str(answer.status)), _seconds(answer.retry_after)
        return answer, 0

    def _failure(self, trouble: NoPageError) -> NoPageError:
        """Count a trouble against the host, and return it."""
        self._failed += 1
        if self._failed >= MAX_FAILURES and not self._given_up:
            self._given_up = (
                f"{self._failed} addresses failed in a row, the last with: {trouble.detail}"
            )
        return trouble

    def _wait(self) -> None:
        now = time.monotonic()
        if self._stop.wait(max(0.0, self._next - now)):
            raise StoppedError
        self._next = time.monotonic() + self.delay

    def _ask(self, url: str, forms: tuple[str, ...], limit: int) -> Answer:
        import httpx

        # As it is sent: what a sitemap or a redirect says may hold spaces and line breaks.
        url = str(httpx.URL(url))
        headers = {
            "User-Agent": self.manners.user_agent,
            "Accept": ", ".join((*forms, "*/*;q=0.1")),
        }
        headers["Accept-Encoding"] = "gzip" if forms else "identity"
        access = Access(plain=True)
        access.check(url)
        with (
            self._deadline.within(PAGE_SECONDS),
            transfer.sent(self._client, url, access, headers, self._deadline) as response,
        ):
            self._client.cookies.clear()
            body = _body(response, forms, limit)
        if self._stop.is_set():
            raise StoppedError
        if self._deadline.expired:
            # A body without a length ends where the connection does.
            raise self._failure(_late())
        return Answer(
            url,
            response.status_code,
            _head(response, len(body)),
            body,
            _location(response, url),
            response.headers.get("retry-after", ""),
        )

    def close(self) -> None:
        """End the connection, also under a thread that reads from it."""
        self._deadline.cut()
        self._client.close()


def _late() -> NoPageError:
    return NoPageError("timeout", f"it took longer than {PAGE_SECONDS:.0f} s")


def _body(response: httpx.Response, forms: tuple[str, ...], limit: int) -> bytes:
    """Return the body of a wanted answer, b"" of any other; raise NoPageError for one of another
    type, or too long.
    """
    if response.status_code != 200:
        return b""
    form = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if forms and form not in forms:
        raise NoPageError("content-type", form or "no type")
    parts, size = [], 0
    for part in response.iter_raw():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise NoPageError("too-large", f"longer than {limit:,} bytes")
    return b"".join(parts)


def _head(response: httpx.Response, length: int) -> bytes:
    """Return status line and headers as they were sent, but for what spoke of chunks."""
    lines = [
        f"{response.http_version} {response.status_code} {response.reason_phrase}".encode(
            "latin-1", "replace"
        )
    ]
    lines += [
        b": ".join(pair)
        for pair in response.headers.raw
        if pair[0].lower() not in (b"transfer-encoding", b"content-length")
    ]
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", b""])


def _location(response: httpx.Response, url: str) -> str:
    try:
        return (
            urljoin(url, response.headers["location"]).partition("#")[0]
            if response.has_redirect_location
            else ""
        )
    except ValueError:
        return ""


def _seconds(text: str) -> float:
    """Return what Retry-After says: seconds, or the time until a date; 0 when it says nothing (RFC
    9110, 10.2.3).
    """
    if re.fullmatch(r"\s*[0-9]+\s*", text):
        return min(float(text), 1e9)
    try:
        until = parsedate_to_datetime(text)
        return max(
            0.0,
            (
                (until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)
            ).total_seconds(),
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0


class Visitor:
    """Visits addresses of many hosts; safe to be used by many threads, of which each host sees one
    at a time.
    """

    def __init__(self, manners: Manners) -> None:
        self.manners, self.stop = manners, threading.Event()
        self._hosts: dict[str, Host] = {}
        self._adding = threading.Lock()

    def visit(
        self, url: str, forms: tuple[str, ...] = PAGES, limit: int = MAX_PAGE_BYTES
    ) -> Answer:
        """Return the answer of an address after its redirects, each of them as welcome as the
        address itself.

        Raises:
            NoPageError: robots.txt or the page itself forbids it, it leads to a private address, is
                too large or slow, or gives no page.
        """
        here = url
        for _ in range(MAX_REDIRECTS + 1):
            host = self._host(here)
            self._ask_robots(host, here, forms)
            answer = host.get(here, forms, limit)
            if answer.ok:
                said = (
                    opted_out(answer.head, answer.body, robot_of(self.manners.user_agent))
                    if forms == PAGES
                    else ""
                )
                if said:
                    raise NoPageError("opt-out", said)
                return answer
            if not answer.location:
                raise NoPageError("http-status", str(answer.status))
            here = answer.location
        raise NoPageError("redirects", f"it redirects more than {MAX_REDIRECTS} times")

    def _ask_robots(self, host: Host, url: str, forms: tuple[str, ...]) -> None:
        """Raise NoPageError where robots.txt forbids an address, or lets it be read but not learned
        from.
        """
        rules = self._rules(host, url)
        forbidden = rules.forbids(url)
        if forbidden:
            raise NoPageError("robots", forbidden)
        if forms == PAGES and rules.reserves(url):
            raise NoPageError("opt-out", "robots.txt keeps it out of training data")

    def _host(self, url: str) -> Host:
        name = host_of(url)
        if not name:
            raise NoPageError("no-address", f"{transfer.shown(url)[:300]} is no address of a page")
        with self._adding:
            if name not in self._hosts:
                self._hosts[name] = Host(self.manners, self.stop)
            return self._hosts[name]

    def _rules(self, host: Host, url: str) -> Rules:
        with host.deciding:
            if host.rules is None:
                host.rules = self._read_robots(
                    f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/robots.txt"
                )
                host.delay = max(host.delay, host.rules.delay)
                if host.delay > MAX_WAIT_SECONDS:
                    host.rules = closed(
                        self.manners.user_agent,
                        f"robots.txt asks for {host.delay:,.0f} s between requests",
                    )
        return host.rules

    def _read_robots(self, url: str) -> Rules:
        agent = self.manners.user_agent
        try:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._host(url).get(url, ANY, MAX_ROBOTS_BYTES)
                if answer.ok:
                    return read_rules(unpacked(answer.body, MAX_ROBOTS_BYTES), agent)
                if answer.status >= 500:
                    return closed(agent, f"robots.txt cannot be read ({answer.status})")
                if not answer.location:
                    return opened(agent)
                url = answer.location
        except DamagedError as error:
            return closed(agent, f"robots.txt cannot be read ({error.detail})")
        except NoPageError as error:
            if error.reason in ("private-address", "host-given-up"):
                raise
            return closed(agent, f"robots.txt cannot be read ({error.detail})")
        return opened(agent)

    def side_by_side(self, visit: Callable[[T], R], hosts: Iterable[T]) -> list[R]:
        """Return what `visit` does for many hosts at once; what goes wrong with one, or an
        interrupt, ends the visits of all.
        """
        with ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
            work = [pool.submit(visit, host) for host in hosts]
            try:
                return [one.result() for one in work]
            except BaseException:
                self.end()
                pool.shutdown(cancel_futures=True)
                raise

    @contextmanager
    def visiting(self) -> Iterator[Visitor]:
        """End all visits with the with block."""
        try:
            yield self
        finally:
            self.end()

    def end(self) -> None:
        """Let visits that wait or read stop with StoppedError."""
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
