"""Feeds (RSS, RDF, Atom) and other XML: one document an entry of a feed, grouped by host.

A feed is cut at its entries and each is parsed alone: a broken entry costs itself, and no entity
that the file declares is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import strip_controls
from groundup.collect.files.formats import XML_PROLOGUE
from groundup.collect.files.streams import DamagedError, Item, read_all
from groundup.collect.readers.web.html import (
    MAX_HTML_BYTES,
    decode_html,
    host,
    page_text,
    xml_entities,
)
from groundup.recipe import Source

_ENTRY = re.compile(
    r"<((?:\w{1,40}:)?(?:item|entry))(?=[\s>])[^<>]{0,2000}>.*?"
    r"(?:</\1\s*>|(?=<(?:\w{1,40}:)?(?:item|entry)[\s>])|\Z)",
    re.DOTALL,
)
# The text of an entry, the fullest first: feeds repeat it in short under the later names.
_BODIES = ("encoded", "content", "body", "description", "summary")


def read_feed(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the entries of a feed, each with its title."""
    text = decode_html(strip_controls(read_all(item.stream, MAX_HTML_BYTES)))
    first_entry = _ENTRY.search(text)
    header = _parts(text[: first_entry.start()] if first_entry else text)
    feed_host = host(header.get("link", "")) or item.origin
    for index, entry in enumerate(_ENTRY.finditer(text)):
        parts = _parts(entry[0])
        body = next((parts[name] for name in _BODIES if parts.get(name, "").strip()), "")
        try:
            title_and_body = (page_text(parts.get("title", "")), page_text(body))
        except DamagedError as damage:
            yield Reject(damage.reason, index, damage.detail)
            continue
        if any(title_and_body):
            group = host(parts.get("link", "")) or feed_host
            yield Document("\n\n".join(filter(None, title_and_body)), index, group)
        else:
            yield Reject("empty", index, "an entry without text")


def _parts(markup: str) -> dict[str, str]:
    """Return the first title, link and body of each name: its markup, or where it points."""
    parts: dict[str, str] = {}
    for child in parse_xml(markup).iter("*"):
        name = re.split(r"[}:]", child.tag)[-1]
        if name not in parts and (name in _BODIES or name in ("title", "link")):
            inner = (etree.tostring(element, encoding="unicode") for element in child)
            parts[name] = "".join([child.text or "", *inner]).strip() or child.get("href", "")
    return parts


def read_xml(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of an XML file as one document."""
    text = element_lines(xml_root(item))
    document = Document(text, group=item.origin)
    yield document if text else Reject("empty", detail="XML without any text")


def xml_root(item: Item) -> Any:
    """Return the root element of an XML file, parsed as far as possible.

    Raises DamagedError if it is damaged, binary or too long.
    """
    wrapper = parse_xml(decode_html(read_all(item.stream, MAX_HTML_BYTES)))
    return wrapper[0] if len(wrapper) else wrapper


def element_lines(element: Any) -> str:
    """Return the text of an element, a line for each run of text between tags."""
    lines = (line.strip() for run in element.itertext("*") for line in run.split("\n"))
    return "\n".join(filter(None, lines))


def xml_parser() -> Any:
    """Return a parser that expands no entity, fetches nothing, and repairs what it can."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, recover=True, remove_comments=True, remove_pis=True
    )


def parse_xml(markup: str, parser: Any = None, namespaces: str = "") -> Any:
    """Return an element around the markup, which may be a fragment or damaged.

    `namespaces` declares prefixes that the markup may use without a declaration.
    """
    # Without what stands before the root element: its encoding no longer applies to decoded text,
    # and its entities are not wanted.
    bare = XML_PROLOGUE.sub("", markup.replace("\0", ""), count=1)
    wrapped = f"<x{namespaces}>{xml_entities(bare)}</x>"
    root = etree.fromstring(wrapped, xml_parser() if parser is None else parser)
    return etree.Element("x") if root is None else root
