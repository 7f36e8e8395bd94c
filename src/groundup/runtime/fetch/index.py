"""Finds a file of a package in the index that pip is configured for. Reads the index's page of one
project.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from groundup.errors import SourceError
from groundup.runtime.fetch.transfer import Access, page

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2,"
    " text/html;q=0.1"
)
_SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz")


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file that an index offers: its name, address and SHA-256 ("" where the index gives none)."""

    filename: str
    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """`pypi:NAME==VERSION` or `pypi:NAME==VERSION/FILENAME`, taken apart."""

    name: str
    version: str
    filename: str = ""


def parse(path: str) -> Requirement:
    """Take a `pypi:` path apart.

    Raises:
        SourceError: it does not pin one version.
    """
    match = re.fullmatch(r"pypi:([A-Za-z0-9][\w.-]*)==([\w.+!-]+)(?:/([\w.+!-]+))?", path)
    if match is None:
        raise SourceError(f"{path}: expected pypi:NAME==VERSION or pypi:NAME==VERSION/FILENAME")
    return Requirement(match[1], match[2], match[3] or "")


def normalized(name: str) -> str:
    """Return a project's name as indexes spell it in addresses (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def index_url() -> str:
    """Return the address of the package index that pip is configured for.

    Raises:
        SourceError: none is known, since pip is not installed and PIP_INDEX_URL is not set.
    """
    configured = os.environ.get("PIP_INDEX_URL") or _pip_setting()
    if not configured:
        try:
            from pip._internal.models.index import PyPI
        except ImportError:
            raise SourceError(
                "no package index is known; set PIP_INDEX_URL, or install pip"
            ) from None
        configured = str(PyPI.simple_url)
    return configured.rstrip("/") + "/"


def _pip_setting() -> str:
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


class _Links(HTMLParser):
    """Collects the addresses of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a link."""
        self.hrefs.extend(value for name, value in attrs if tag == "a" and name == "href" and value)


def read_page(body: bytes, content_type: str, base: str) -> list[PackageFile]:
    """Return the files that an index page offers, in JSON (PEP 691) or HTML (PEP 503).

    Raises:
        SourceError: the page is neither.
    """
    if "json" in content_type:
        try:
            entries = json.loads(body)["files"]
            return [
                PackageFile(
                    e["filename"], urljoin(base, e["url"]), e.get("hashes", {}).get("sha256", "")
                )
                for e in entries
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceError("the package index answers with a page that cannot be read") from None
    links = _Links()
    links.feed(body.decode("utf-8", "replace"))
    return [_linked(urljoin(base, href)) for href in links.hrefs]


def _linked(url: str) -> PackageFile:
    address, fragment = urldefrag(url)
    digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    return PackageFile(unquote(urlsplit(address).path.rpartition("/")[2]), address, digest)


def choose(wanted: Requirement, files: list[PackageFile]) -> PackageFile:
    """Return the file that a requirement names, or the source distribution of its version.

    Raises:
        SourceError: there is none; the line names what there is.
    """
    here = [
        file for file in files if _version_of(file.filename, wanted.name) == wanted.version.lower()
    ]
    for file in files if wanted.filename else here:
        if file.filename == wanted.filename or (
            not wanted.filename and file.filename.endswith(_SDIST)
        ):
            return file
    seen = ", ".join(file.filename for file in here[:5]) or f"{len(files)} files of other versions"
    what = wanted.filename or f"a source distribution of {wanted.version}"
    raise SourceError(
        f"pypi:{wanted.name}=={wanted.version}: the index does not hold {what}; it has {seen}"
    )


def _version_of(filename: str, name: str) -> str:
    stem = next(
        (filename.removesuffix(suffix) for suffix in _SDIST if filename.endswith(suffix)), ""
    )
    project, _, version = stem.rpartition("-") if stem else ("", "", "")
    if filename.endswith(".whl"):
        project, version = [*filename.split("-"), ""][:2]
    return version.lower() if normalized(project) == normalized(name) else ""


def find(wanted: Requirement) -> PackageFile:
    """Ask the configured index for the file that a requirement names.

    Raises:
        SourceError: the index cannot be reached, or does not hold it.
    """
    url = f"{index_url()}{normalized(wanted.name)}/"
    body, content_type = page(url, Access(trusted=True), _ACCEPT)
    return choose(wanted, read_page(body, content_type, url))
