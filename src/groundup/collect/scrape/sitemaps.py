"""Reads sitemaps and indexes of them (sitemaps.org, protocol 0.9), plain or gzipped. Yields
addresses, within bounds.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundup.collect.files.streams import DamagedError

# The protocol's own bounds of one file.
MAX_SITEMAP_BYTES = 50 << 20
MAX_ADDRESSES = 50_000
MAX_ADDRESS_CHARACTERS = 2_048


@dataclass(frozen=True, slots=True)
class Sitemap:
    """What a sitemap names: pages, and further sitemaps; reason and detail where that is not all
    that it holds.
    """

    pages: tuple[str, ...]
    sitemaps: tuple[str, ...]
    flaw: tuple[str, str] = ("", "")


def read_sitemap(body: bytes) -> Sitemap:
    """Return the addresses in a sitemap, in its order: up to where it breaks off, or names more
    than a sitemap may.

    Raises:
        DamagedError: it is no sitemap, or unpacks to too much.
    """
    found: dict[str, list[str]] = {"url": [], "sitemap": []}
    flaw = ("", "")
    try:
        for number, (kind, address) in enumerate(_addresses(unpacked(body, MAX_SITEMAP_BYTES))):
            if number == MAX_ADDRESSES:
                flaw = (
                    "too-large",
                    f"what it names beyond {MAX_ADDRESSES:,} addresses is left out",
                )
                break
            found[kind].append(address)
    except DamagedError as damage:
        if not any(found.values()):
            raise
        flaw = (damage.reason, damage.detail)
    return Sitemap(tuple(found["url"]), tuple(found["sitemap"]), flaw)


def _addresses(body: bytes) -> Iterator[tuple[str, str]]:
    """Yield `url` or `sitemap`, and an address; memory does not grow with the number of addresses."""
    from lxml import etree

    bounds: Any = {
        "resolve_entities": False,
        "no_network": True,
        "load_dtd": False,
        "huge_tree": False,
    }
    try:
        for _, element in etree.iterparse(
            io.BytesIO(body), events=("end",), tag="{*}loc", **bounds
        ):
            parent = element.getparent()
            kind = etree.QName(parent).localname if parent is not None else ""
            address = (element.text or "").strip()
            if kind in ("url", "sitemap") and 0 < len(address) <= MAX_ADDRESS_CHARACTERS:
                yield kind, address
            if parent is not None:
                parent.clear()
    except etree.XMLSyntaxError as error:
        raise DamagedError("malformed", f"it is no sitemap, or breaks off: {error}"[:300]) from None


def unpacked(body: bytes, limit: int) -> bytes:
    """Return a body without the gzip that it may be in; raise DamagedError when it is damaged, or
    longer than `limit` bytes.
    """
    if body.startswith(b"\x1f\x8b"):
        try:
            body = zlib.decompressobj(31).decompress(body, limit + 1)
        except zlib.error as error:
            raise DamagedError("damaged", str(error)) from None
    if len(body) > limit:
        raise DamagedError("too-large", f"it is longer than {limit:,} bytes")
    return body
