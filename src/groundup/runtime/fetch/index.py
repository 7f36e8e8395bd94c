"""Finds a file of a package in the index that pip is configured for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from groundup.errors import SourceError
from groundup.runtime.fetch.https import Access, fetch_page

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2,"
    " text/html;q=0.1"
)
_SDIST = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz")


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file that an index offers, with its SHA-256 ("" where the index gives none)."""

    filename: str
    url: str
    sha256: str


def find_file(path: str) -> PackageFile:
    """Return the file that a path names, or the source distribution of its version.

    Raises SourceError if the index cannot be reached, or does not hold it.
    """
    match = re.fullmatch(r"pypi:([A-Za-z0-9][\w.-]*)==([\w.+!-]+)(?:/([\w.+!-]+))?", path)
    if match is None:
        raise SourceError(f"{path}: expected pypi:NAME==VERSION or pypi:NAME==VERSION/FILENAME")
    name, version, filename = match.groups()
    url = f"{_index_url()}{_normalize(name)}/"
    body, content_type = fetch_page(url, Access(trusted=True), _ACCEPT)
    files = _parse_page(body, content_type, url)
    same_version = [file for file in files if _version(file.filename, name) == version.lower()]
    if filename:
        matching = [file for file in files if file.filename == filename]
    else:
        matching = [file for file in same_version if file.filename.endswith(_SDIST)]
    if matching:
        return matching[0]
    what = filename or f"a source distribution of {version}"
    offered = ", ".join(file.filename for file in same_version[:5])
    offered = offered or f"{len(files)} files of other versions"
    raise SourceError(f"pypi:{name}=={version}: the index does not hold {what}; it has {offered}")


def _index_url() -> str:
    """Return the address of the package index: PIP_INDEX_URL, pip's configuration, its default."""
    configured = os.environ.get("PIP_INDEX_URL")
    if not configured:
        command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        try:
            pip = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            configured = pip.stdout.strip() if pip.returncode == 0 else ""
        except (OSError, subprocess.TimeoutExpired):
            pass
    if not configured:
        try:
            from pip._internal.models.index import PyPI
        except ImportError:
            why = "no package index is known; set PIP_INDEX_URL, or install pip"
            raise SourceError(why) from None
        configured = str(PyPI.simple_url)
    return configured.rstrip("/") + "/"


def _parse_page(body: bytes, content_type: str, base: str) -> list[PackageFile]:
    """Return the files that an index page offers, in JSON (PEP 691) or HTML (PEP 503)."""
    files = []
    if "json" not in content_type:
        from lxml import etree

        page: Any = etree.fromstring(b"<html>" + body, etree.HTMLParser(encoding="utf-8"))
        for href in page.xpath("//a/@href"):
            url, fragment = urldefrag(urljoin(base, href))
            filename = unquote(urlsplit(url).path.rpartition("/")[2])
            digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
            files.append(PackageFile(filename, url, digest))
        return files
    try:
        for entry in json.loads(body)["files"]:
            url, digest = urljoin(base, entry["url"]), entry.get("hashes", {}).get("sha256", "")
            files.append(PackageFile(entry["filename"], url, digest))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError("the package index answers with a page that cannot be read") from None
    return files


def _normalize(name: str) -> str:
    """Return a project's name as indexes spell it in addresses (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(filename: str, name: str) -> str:
    """Return the version of a wheel or source distribution, "" where it is of another project."""
    stem = next((filename.removesuffix(end) for end in _SDIST if filename.endswith(end)), "")
    project, _, version = stem.rpartition("-")
    if filename.endswith(".whl"):
        project, version = [*filename.split("-"), ""][:2]
    return version.lower() if _normalize(project) == _normalize(name) else ""
