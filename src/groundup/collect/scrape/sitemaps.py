"""Reads sitemaps and indexes of them (sitemaps.org, protocol 0.9), plain or gzipped. Yields addresses, within bounds."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Any

from groundup.collect.streams import DamagedError

# The protocol's own bounds of one file.
MAX_SITEMAP_BYTES = 50 << 20
MAX_ADDRESSES = 50_000
MAX_ADDRESS_CHARACTERS = 2_048


@dataclass(frozen=True, slots=True)
class Sitemap:
    """What a sitemap names: pages, and further sitemaps; reason and detail where that is not all that it holds."""

    pages: tuple[str, ...]
    sitemaps: tuple[str, ...]
    flaw: tuple[str, str] = ("", "")


def read_sitemap(body: bytes) -> Sitemap:
    """Return the addresses in a sitemap, in its order: up to where it breaks off, or names more than a sitemap may.

    Raises:
        DamagedError: it is no sitemap, or unpacks to too much.
    """
    from lxml import etree

    found: dict[str, list[str]] = {"url": [], "sitemap": []}
    flaw = ("", "")
    events: Any = etree.iterparse(
        io.BytesIO(unpacked(body, MAX_SITEMAP_BYTES)),
        events=("end",),
        tag="{*}loc",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
    )
    try:
        for _, element in events:
            parent = element.getparent()
            address = (element.text or "").strip()
            names = found.get(etree.QName(parent).localname) if parent is not None else None
            if sum(map(len, found.values())) == MAX_ADDRESSES:
                flaw = ("too-large", f"what it names beyond {MAX_ADDRESSES:,} addresses is left out")
                break
            if names is not None and 0 < len(address) <= MAX_ADDRESS_CHARACTERS:
                names.append(address)
            if parent is not None:
                parent.clear()
    except etree.XMLSyntaxError as error:
        flaw = ("malformed", f"it is no sitemap, or breaks off: {error}"[:300])
        if not any(found.values()):
            raise DamagedError(*flaw) from None
    return Sitemap(tuple(found["url"]), tuple(found["sitemap"]), flaw)


def unpacked(body: bytes, limit: int) -> bytes:
    """Return a body without the gzip that it may be in; raise DamagedError when it is damaged, or longer than `limit` bytes."""
    if body.startswith(b"\x1f\x8b"):
        try:
            body = zlib.decompressobj(31).decompress(body, limit + 1)
        except zlib.error as error:
            raise DamagedError("damaged", str(error)) from None
    if len(body) > limit:
        raise DamagedError("too-large", f"it is longer than {limit:,} bytes")
    return body
