"""Reads feeds (RSS, RDF, Atom) and other XML. Yields one document an entry of a feed, with its
title; the group is the host.

A feed is cut at its entries and each parsed by itself, so that a broken one costs itself and no
entity is ever in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import strip_controls
from groundup.collect.files.streams import DamagedError, Item, read_all
from groundup.collect.readers.html import MAX_HTML_BYTES, decode_html, host
from groundup.collect.readers.markup import page_text, xml_entities
from groundup.recipe import Source

_ENTRY = re.compile(
    r"<((?:\w{1,40}:)?(?:item|entry))(?=[\s>])[^<>]{0,2000}>.*?(?:</\1\s*>|(?=<(?:\w{1,40}:)?(?:item|entry)[\s>])|\Z)",
    re.DOTALL,
)
# What stands before the outermost element: it contradicts text that is decoded already, and no
# entity in it is wanted.
_PROLOGUE = re.compile(
    r"\A\s*(?:<\?xml[^>]*\?>)?\s*(?:<!--.*?-->\s*|<\?.*?\?>\s*)*(?:<!DOCTYPE[^>\[]*(?:\[[^\]]*\]\s*)?>)?",
    re.DOTALL,
)
# What an entry says, the fullest first; feeds repeat it in short under the later names.
_BODIES = ("encoded", "content", "body", "description", "summary")


def read_feed(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the entries of a feed."""
    text = decode_html(strip_controls(read_all(item.stream, MAX_HTML_BYTES)))
    found = _ENTRY.search(text)
    front = _parts(text[: found.start()] if found else text)
    for number, match in enumerate(_ENTRY.finditer(text)):
        yield _entry(match[0], number, host(front.get("link", "")) or item.origin)


def read_xml(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of an XML file as one document."""
    text = lines_of(xml_root(item))
    yield (
        Document(text, group=item.origin)
        if text
        else Reject("empty", detail="XML without any text")
    )


def xml_root(item: Item) -> Any:
    """Return the outermost element of an XML file, read as far as it can be.

    Raises:
        DamagedError: it is damaged, binary or too long.
    """
    root = _parsed(decode_html(read_all(item.stream, MAX_HTML_BYTES)))
    return root[0] if len(root) else root


def lines_of(element: Any) -> str:
    """Return the text of an element, a line for each run of text between tags."""
    lines = (line.strip() for run in element.itertext("*") for line in run.split("\n"))
    return "\n".join(filter(None, lines))


def _entry(markup: str, number: int, group: str) -> Document | Reject:
    parts = _parts(markup)
    body = next((parts[name] for name in _BODIES if parts.get(name, "").strip()), "")
    try:
        text = "\n\n".join(filter(None, (page_text(parts.get("title", "")), page_text(body))))
    except DamagedError as damage:
        return Reject(damage.reason, number, damage.detail)
    return (
        Document(text, number, host(parts.get("link", "")) or group)
        if text
        else Reject("empty", number, "an entry without text")
    )


def _parts(markup: str) -> dict[str, str]:
    """Return the first of each element of an entry, by name: the markup that it holds, escaped or
    not, or where it points.
    """
    found: dict[str, str] = {}
    for child in _parsed(markup).iter("*"):
        name = re.split(r"[}:]", child.tag)[-1]
        if name not in found and (name in _BODIES or name in ("title", "link")):
            found[name] = _inside(child) or child.get("href", "")
    return found


def _inside(element: Any) -> str:
    from lxml import etree

    if not len(element):
        return (element.text or "").strip()
    inner = [etree.tostring(child, encoding="unicode") for child in element]
    return ((element.text or "") + "".join(inner)).strip()


def _parsed(markup: str) -> Any:
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, recover=True, remove_comments=True, remove_pis=True
    )
    bare = _PROLOGUE.sub("", markup.replace("\0", ""), count=1)
    root = etree.fromstring(f"<x>{xml_entities(bare)}</x>", parser)
    return etree.Element("x") if root is None else root
