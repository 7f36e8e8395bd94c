"""HTTP requests that never reach private addresses and never run without bounds.

Redirects are followed by hand and each one is checked; a request goes to the very address that was
checked. Certificates are found as pip finds them.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.errors import SourceError, is_full_disk

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
# Index pages of large projects have a few megabytes.
MAX_PAGE_BYTES = 64 << 20
# Between two bytes; and for a whole page, or the headers of a file.
TIMEOUT_SECONDS = 60.0
PAGE_SECONDS = 300.0
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# What is not the public internet: the special-purpose registries of IANA (RFC 6890 and its
# successors), as of 2026. Not `ipaddress.is_global`, which differs between versions of Python.
_PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "127.0.0.0/8"),  # this network, and loopback
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # private use
        "100.64.0.0/10",  # shared by a provider's customers
        "169.254.0.0/16",  # link-local; clouds answer with credentials here
        *("192.0.0.0/24", "2001::/23"),  # protocol assignments, Teredo among them
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # documentation
        *("2001:db8::/32", "3fff::/20"),  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "198.18.0.0/15",  # benchmarks of networks
        *("224.0.0.0/4", "240.0.0.0/4"),  # multicast, reserved and broadcast
    )
]
# All else that is global unicast lies in here; fec0::/10, fc00::/7 and the like do not.
_GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
# RFC 6052: IPv4 addresses as a NAT64 gateway writes them.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Names that resolve to this machine or to a local network wherever they are looked up (RFC 6761,
# 6762, 8375 and ICANN's reservation of .internal).
_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa", "lan", "localdomain")


class PrivateError(SourceError):
    """A host that is not on the public internet."""


class RetryableError(SourceError):
    """A connection that broke or stalled; what has arrived can be continued."""


class BusyError(RetryableError):
    """A server that cannot answer now; worth a retry even where nothing has arrived."""


class StoppedError(Exception):
    """A transfer was stopped from outside."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, seen through IPv4 wrapped in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_IPV6:
            return False
    return not any(address in network for network in _PRIVATE)


def check_literal(host: str) -> None:
    """Raise PrivateError for a private address or a local name; names are not resolved.

    A proxy resolves names for itself, so this is all that can be checked in front of one.
    """
    # As resolvers see it: full-width letters and digits are ordinary ones.
    host = unicodedata.normalize("NFKC", host)
    name = host.rstrip(".").lower()
    if any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
        why = "it is a name of this machine or its network, not a public address"
        raise PrivateError(f"{host}: {why}; a recipe may not reach it")
    try:
        # As resolvers read it: 127.1, 0x7f000001 and 2130706433 are addresses, too.
        address: Address = ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        try:
            address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        except ValueError:
            return
    if not is_public(address):
        raise PrivateError(f"{host}: it is not a public address; a recipe may not reach it")


def resolve_public(host: str, port: int) -> list[str]:
    """Return the addresses of a host; PrivateError unless every one of them is public."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = f"its address cannot be found ({error}); check the name and the network"
        raise SourceError(f"{host}: {why}") from None
    addresses = list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in infos))
    for address in addresses:
        if not is_public(ipaddress.ip_address(address)):
            why = f"it resolves to {address}, which is not a public address"
            raise PrivateError(f"{host}: {why}; a recipe may not reach it")
    return addresses


@dataclass(frozen=True, slots=True)
class Access:
    """What may be reached; by default only public hosts over HTTPS, as for a recipe's addresses."""

    trusted: bool = False  # everything, as for the package index that pip is configured for
    # Scheme and host that the environment names; may be private and plain HTTP.
    origins: frozenset[str] = frozenset()
    plain: bool = False  # HTTP to public hosts, too, as for a list of web pages
    token: str = field(default="", repr=False)  # sent to `origins` only

    def trusts(self, url: str) -> bool:
        """Whether the environment of the user names the host of `url`."""
        return self.trusted or self.is_origin(url)

    def is_origin(self, url: str) -> bool:
        """Whether `url` is at one of the origins."""
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}" in self.origins

    def check(self, url: str) -> None:
        """Raise SourceError unless the scheme and the host of `url` may be reached."""
        parts = urlsplit(url)
        plain = parts.scheme == "http" and (self.plain or self.trusts(url))
        if parts.scheme != "https" and not plain:
            raise SourceError(f"{redact_url(url)}: only https:// is fetched")
        if not parts.hostname:
            raise SourceError(f"{redact_url(url)}: it names no host")


class Deadline:
    """Cuts a connection when its time is up.

    A read timeout is not enough: a server that sends a byte per minute never runs into it.
    """

    def __init__(self) -> None:
        self.expired = False
        self._stream: Any = None
        self._timer: threading.Timer | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the connection, as httpcore reports it (extension `trace` of httpx)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut the connection if the block takes longer."""
        self.expired = False
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True
        self._timer.start()
        try:
            yield
        finally:
            self._timer.cancel()

    def lift(self) -> None:
        """Let the rest of the block take any time."""
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """Cut the connection now."""
        self.expired = True
        tcp = self._stream.get_extra_info("socket") if self._stream is not None else None
        if tcp is not None:
            # Shut down the plain socket: shutting down TLS would break the thread that reads.
            with suppress(OSError):
                socket.socket.shutdown(tcp, socket.SHUT_RDWR)


def redact_url(url: str) -> str:
    """Return a URL without user name, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


@cache
def _ssl_context(*files: str) -> ssl.SSLContext:
    for path in files:
        if Path(path).is_file():
            return ssl.create_default_context(cafile=path)
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not context.get_ca_certs():
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def make_client() -> httpx.Client:
    """Return a client for one host: httpx keeps connections by address, which hosts may share."""
    import httpx

    names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    context = _ssl_context(*(os.environ.get(name, "") for name in names))
    return httpx.Client(verify=context, timeout=TIMEOUT_SECONDS, follow_redirects=False)


@contextmanager
def open_url(
    url: str, access: Access, headers: Mapping[str, str] | None = None
) -> Iterator[tuple[httpx.Response, Deadline]]:
    """Open a URL for streaming; redirects are followed and checked.

    The block must end, or lift the deadline, within PAGE_SECONDS. Raises SourceError if the URL is
    forbidden or not found, and RetryableError if the connection broke, or its time was up.
    """
    import httpx

    deadline, target, where = Deadline(), url, redact_url(url)
    try:
        with deadline.within(PAGE_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                access.check(target)
                with (
                    make_client() as client,
                    send(client, target, access, headers or {}, deadline) as response,
                ):
                    if response.has_redirect_location:
                        target = str(httpx.URL(target).join(response.headers["location"]))
                        continue
                    status = response.status_code
                    if status not in (200, 206):
                        failed = BusyError if status in TRANSIENT_STATUSES else SourceError
                        answer = f"the server answers {status} {response.reason_phrase}"
                        raise failed(f"{where}: {answer}; check the address")
                    yield response, deadline
                    if deadline.expired:
                        # A body without a length ends where the connection ends.
                        raise OSError
                    return
            raise SourceError(f"{where}: it redirects more than {MAX_REDIRECTS} times")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if is_full_disk(error):
            raise
        why = "its time was up" if deadline.expired else str(error) or type(error).__name__
        why += "; check the network and run again"
        raise RetryableError(f"{where}: cannot be fetched: {why}") from None


@contextmanager
def send(
    client: httpx.Client, url: str, access: Access, headers: Mapping[str, str], deadline: Deadline
) -> Iterator[httpx.Response]:
    """Send one request to the very address that was checked; no redirect is followed."""
    import httpx

    target = httpx.URL(url)
    extensions: dict[str, Any] = {"trace": deadline.trace}
    all_headers = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}
    if access.token and access.is_origin(url):
        all_headers["Authorization"] = f"Bearer {access.token}"
    if not access.trusts(url):
        check_literal(target.host)
        # A proxy resolves names itself, and is trusted with them.
        proxies = getproxies()
        proxied = bool(proxies.get(target.scheme) or proxies.get("all"))
        if not proxied or proxy_bypass(target.host):
            # Connect to the checked address: a second look-up could give another one.
            port = target.port or (443 if target.scheme == "https" else 80)
            address = resolve_public(target.host, port)[0]
            all_headers["Host"] = target.netloc.decode("ascii")
            extensions["sni_hostname"] = target.host
            target = target.copy_with(host=address)
    request = client.build_request("GET", target, headers=all_headers, extensions=extensions)
    response = client.send(request, stream=True)
    try:
        yield response
    finally:
        response.close()


def fetch_page(url: str, access: Access, accept: str) -> tuple[bytes, str]:
    """Return the body of a page and its content type."""
    with open_url(url, access, {"Accept": accept}) as (response, _):
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > MAX_PAGE_BYTES:
                why = f"the page is longer than {MAX_PAGE_BYTES >> 20} MB"
                raise SourceError(f"{redact_url(url)}: {why}")
        return bytes(body), response.headers.get("content-type", "")
