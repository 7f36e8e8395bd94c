"""Plain, bounded HTTP: redirects by hand, addresses checked, certificates as pip has them. Reads
the network; writes nothing.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.errors import SourceError, is_full_disk
from groundup.runtime.fetch.addresses import check_literal, resolve_public

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
# Index pages of large projects are a few megabytes.
MAX_PAGE_BYTES = 64 << 20
# Between two bytes; and for a whole page, or the head of a file.
TIMEOUT_SECONDS = 60.0
PAGE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Access:
    """What may be reached: a recipe's addresses public hosts over HTTPS only.

    Attributes:
        trusted: anything, as from the package index that pip is configured for.
        origins: what the user's environment names, scheme and host; they may be private, and plain
            HTTP.
        plain: HTTP to public hosts, too, as a list of web pages has it.
        token: goes to `origins`, and nowhere else.
    """

    trusted: bool = False
    origins: frozenset[str] = frozenset()
    plain: bool = False
    token: str = field(default="", repr=False)

    def trusts(self, url: str) -> bool:
        """Return whether the place that `url` names was named by the user's environment."""
        return self.trusted or self.named(url)

    def named(self, url: str) -> bool:
        """Return whether `url` lies at one of the origins."""
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" in self.origins

    def check(self, url: str) -> None:
        """Raise SourceError unless the scheme and the host of `url` may be reached."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (
            parts.scheme == "http" and (self.plain or self.trusts(url))
        ):
            raise SourceError(f"{shown(url)}: only https:// is fetched")
        if not parts.hostname:
            raise SourceError(f"{shown(url)}: it names no host")


class LostError(SourceError):
    """A connection that broke or stalled: another try may do."""


class BusyError(LostError):
    """A server that answers that it cannot now: another try may do, whatever there is to go on
    from.
    """


class StoppedError(Exception):
    """Somebody wants a transfer to end."""


class Deadline:
    """Cuts a connection when its time is up: a server that sends a byte a minute never runs into a
    timeout of a read.
    """

    def __init__(self) -> None:
        self.expired = False
        self._stream: Any = None
        self._timer: threading.Timer | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection, as httpcore reports it (httpx's extension `trace`)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]

    @contextmanager
    def within(self, seconds: float) -> Iterator[Self]:
        """Cut the connection if the with block takes longer."""
        self.expired = False
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True
        self._timer.start()
        try:
            yield self
        finally:
            self._timer.cancel()

    def lift(self) -> None:
        """Let the with block take as long as it likes from here on."""
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """Cut the connection now."""
        self.expired = True
        own = self._stream.get_extra_info("socket") if self._stream is not None else None
        if own is not None:
            try:
                # Of the plain socket: that of TLS would pull the rug from under the thread that
                # reads.
                socket.socket.shutdown(own, socket.SHUT_RDWR)
            except OSError:
                return


def shown(url: str) -> str:
    """Return a URL without the user name and password that it may carry."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@cache
def _context(*files: str) -> ssl.SSLContext:
    for path in files:
        if Path(path).is_file():
            return ssl.create_default_context(cafile=path)
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not context.get_ca_certs():
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _certificates() -> ssl.SSLContext:
    return _context(
        *(os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    )


def client() -> httpx.Client:
    """Return a client for one host: connections are kept by address, which hosts may share."""
    import httpx

    return httpx.Client(
        verify=_certificates(), timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=True
    )


def _proxied(url: httpx.URL) -> bool:
    """Return whether a proxy stands between this machine and `url`; it resolves names itself, and
    is trusted with them.
    """
    return bool(getproxies().get(url.scheme) or getproxies().get("all")) and not proxy_bypass(
        url.host
    )


@contextmanager
def fetched(
    url: str,
    access: Access,
    headers: Mapping[str, str] | None = None,
    seconds: float = PAGE_SECONDS,
) -> Iterator[Fetched]:
    """Open a URL, redirects followed and each of them checked, and hand out the answer for
    streaming.

    Args:
        headers: beside our own.
        seconds: until the with block ends, or lifts the deadline.

    Raises:
        SourceError: it is unreachable, forbidden, not found, or redirects too often; one line.
        LostError: the connection broke, or its time was up.
    """
    import httpx

    deadline = Deadline()
    try:
        with deadline.within(seconds):
            here = url
            for _ in range(MAX_REDIRECTS + 1):
                access.check(here)
                with (
                    client() as line,
                    sent(line, here, access, headers or {}, deadline) as response,
                ):
                    if not response.has_redirect_location:
                        _expect_ok(response, url)
                        yield Fetched(response, deadline)
                        if deadline.expired:
                            # A body without a length ends where the connection does.
                            raise OSError
                        return
                    here = str(httpx.URL(here).join(response.headers["location"]))
            raise SourceError(f"{shown(url)}: it redirects more than {MAX_REDIRECTS} times")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if is_full_disk(error):
            raise
        raise LostError(
            f"{shown(url)}: cannot be fetched: {_reason(error, deadline)}; check the network and"
            " run again"
        ) from None


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, and the deadline that it stands under."""

    response: httpx.Response
    deadline: Deadline


def _reason(error: Exception, deadline: Deadline) -> str:
    return "its time was up" if deadline.expired else str(error) or type(error).__name__


def _expect_ok(response: httpx.Response, url: str) -> None:
    if response.status_code not in (200, 206):
        failed = BusyError if response.status_code in (429, 500, 502, 503, 504) else SourceError
        raise failed(
            f"{shown(url)}: the server answers {response.status_code} {response.reason_phrase};"
            " check the address"
        )


@contextmanager
def sent(
    line: httpx.Client, url: str, access: Access, headers: Mapping[str, str], deadline: Deadline
) -> Iterator[httpx.Response]:
    """Send one request, to the very address that was checked, and hand out the answer; no redirect
    is followed.
    """
    import httpx

    target = httpx.URL(url)
    extensions: dict[str, Any] = {"trace": deadline.trace}
    own = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}
    own |= {"Authorization": f"Bearer {access.token}"} if access.token and access.named(url) else {}
    if not access.trusts(url):
        check_literal(target.host)
    if not access.trusts(url) and not _proxied(target):
        # A second look-up could give another address.
        address = resolve_public(
            target.host, target.port or (443 if target.scheme == "https" else 80)
        )[0]
        own["Host"], extensions["sni_hostname"] = target.netloc.decode("ascii"), target.host
        target = target.copy_with(host=address)
    request = line.build_request("GET", target, headers=own, extensions=extensions)
    response = line.send(request, stream=True)
    try:
        yield response
    finally:
        response.close()


def page(url: str, access: Access, accept: str) -> tuple[bytes, str]:
    """Return the body of a page and its content type."""
    with fetched(url, access, {"Accept": accept}) as answer:
        body = bytearray()
        for part in answer.response.iter_bytes():
            body += part
            if len(body) > MAX_PAGE_BYTES:
                raise SourceError(
                    f"{shown(url)}: the page is longer than {MAX_PAGE_BYTES >> 20} MB"
                )
        return bytes(body), answer.response.headers.get("content-type", "")
