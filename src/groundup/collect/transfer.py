"""Plain, bounded HTTP: redirects by hand, addresses checked, certificates as pip has them. Reads the network; writes a file."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from groundup.collect.addresses import resolve_public
from groundup.errors import SourceError
from groundup.progress import progress

if TYPE_CHECKING:
    import httpx

MAX_REDIRECTS = 5
MAX_BYTES = 1 << 40
# Index pages of large projects are a few megabytes.
MAX_PAGE_BYTES = 64 << 20
TIMEOUT_SECONDS = 60.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Access:
    """What may be reached: a trusted place (the configured index) anything, a recipe public addresses over HTTPS only."""

    trusted: bool = False

    def check(self, url: str) -> None:
        """Raise SourceError unless the scheme and the host of `url` may be reached."""
        parts = urlsplit(url)
        if parts.scheme != "https" and not (self.trusted and parts.scheme == "http"):
            raise SourceError(f"{shown(url)}: only https:// is fetched")
        if not parts.hostname:
            raise SourceError(f"{shown(url)}: it names no host")


def shown(url: str) -> str:
    """Return a URL without the user name and password that it may carry."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _certificates() -> ssl.SSLContext:
    for variable in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        path = os.environ.get(variable, "")
        if Path(path).is_file():
            return ssl.create_default_context(cafile=path)
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not context.get_ca_certs():
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _client() -> httpx.Client:
    import httpx

    return httpx.Client(verify=_certificates(), timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=True)


def _proxied(url: httpx.URL) -> bool:
    """Return whether a proxy stands between this machine and `url`; it resolves names itself, and is trusted."""
    return bool(getproxies().get(url.scheme) or getproxies().get("all")) and not proxy_bypass(url.host)


@contextmanager
def fetched(url: str, access: Access, accept: str = "*/*") -> Iterator[httpx.Response]:
    """Open a URL, redirects followed and each of them checked, and hand out the response for streaming.

    Raises:
        SourceError: it is unreachable, forbidden, not found, or redirects too often; one line.
    """
    import httpx

    try:
        with _client() as client:
            here = url
            for _ in range(MAX_REDIRECTS + 1):
                access.check(here)
                with _send(client, here, access, accept) as response:
                    if not response.has_redirect_location:
                        _expect_ok(response, url)
                        yield response
                        return
                    here = str(httpx.URL(here).join(response.headers["location"]))
            raise SourceError(f"{shown(url)}: it redirects more than {MAX_REDIRECTS} times")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{shown(url)}: cannot be fetched: {reason}; check the network and run again") from None


def _expect_ok(response: httpx.Response, url: str) -> None:
    if response.status_code != 200:
        raise SourceError(f"{shown(url)}: the server answers {response.status_code} {response.reason_phrase}; check the address")


@contextmanager
def _send(client: httpx.Client, url: str, access: Access, accept: str) -> Iterator[httpx.Response]:
    import httpx

    target, extensions = httpx.URL(url), {}
    headers = {"Accept": accept, "Accept-Encoding": "identity"}
    if not access.trusted and not _proxied(target):
        # Connect to the very address that was checked; a second look-up could give another one.
        address = resolve_public(target.host, target.port or 443)[0]
        headers["Host"], extensions = target.netloc.decode("ascii"), {"sni_hostname": target.host}
        target = target.copy_with(host=address)
    request = client.build_request("GET", target, headers=headers, extensions=extensions)
    response = client.send(request, stream=True)
    try:
        yield response
    finally:
        response.close()


def page(url: str, access: Access, accept: str) -> tuple[bytes, str]:
    """Return the body of a page and its content type."""
    with fetched(url, access, accept) as response:
        body = b""
        for part in response.iter_bytes(_CHUNK):
            body += part
            if len(body) > MAX_PAGE_BYTES:
                raise SourceError(f"{shown(url)}: the page is longer than {MAX_PAGE_BYTES >> 20} MB")
        return body, response.headers.get("content-type", "")


def download(url: str, target: IO[bytes], access: Access) -> str:
    """Write the file at `url` to `target`, and return its SHA-256.

    Raises:
        SourceError: it cannot be fetched, is longer than `MAX_BYTES`, or shorter than announced.
    """
    digest, done = hashlib.sha256(), 0
    with fetched(url, access) as response:
        total = int(response.headers.get("content-length") or 0)
        with progress(f"fetching {urlsplit(url).path.rpartition('/')[2] or shown(url)}", total, "B") as bar:
            # Raw bytes: a server that calls a .gz file a transfer encoding must not have it unpacked.
            for part in response.iter_raw(_CHUNK):
                digest.update(part)
                target.write(part)
                done += len(part)
                bar.add(len(part))
                if done > MAX_BYTES:
                    raise SourceError(f"{shown(url)}: it is longer than {MAX_BYTES >> 40} TB")
    if total and done != total:
        raise SourceError(f"{shown(url)}: the connection ended after {done:,} of {total:,} bytes; run again")
    return digest.hexdigest()
