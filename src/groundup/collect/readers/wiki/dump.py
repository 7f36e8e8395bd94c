"""Reads MediaWiki dumps and single pages of wikitext. Yields one document an article; redirects and
other namespaces are listed.

A dump is cut at its `<page>` tags and each page parsed by itself: memory holds one page, a broken
page costs itself, and no entity that a dump declares is ever in force.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import bom_encoding, decode
from groundup.collect.deadline import TooLongError, deadline
from groundup.collect.files.formats import wikitext_share
from groundup.collect.files.streams import DamagedError, Item, read_all
from groundup.collect.readers.text import read_text
from groundup.collect.readers.wiki.wikitext import redirect_target, to_text
from groundup.recipe import Source

# MediaWiki stores at most 2 MB a page.
MAX_PAGE_BYTES = 16 << 20
_CHUNK = 1 << 20
# Old dumps have no <ns>; these are the English names, which every wiki understands.
_OTHER_SPACES = re.compile(
    r"^(?:(?:user|wikipedia|project|file|image|mediawiki|template|help|category|portal|module|draft)(?:"
    r" talk)?|talk|special|media):",
    re.IGNORECASE,
)
_NAMED_SPACE = re.compile(r'<namespace key="(?:6|14)"[^<>]*>([^<>]+)</namespace>')
# More markup than this for each 1,000 characters makes a text file a page of wikitext.
_WIKITEXT_SHARE = 1.5
_LEAD = 200


def read_dump(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the articles of a MediaWiki XML dump, in any encoding that has a byte order mark, or
    UTF-8.
    """
    silent = silent_spaces(item.head)
    for number, page in enumerate(_pages(_utf8(item))):
        if page is None:
            yield Reject("too-large", number, f"a page longer than {MAX_PAGE_BYTES >> 20} MB")
            continue
        try:
            yield _article(ElementTree.fromstring(page), number, silent)
        except ElementTree.ParseError as error:
            yield Reject("malformed", number, f"not XML: {error}")


def silent_spaces(head: bytes) -> frozenset[str]:
    """Return what a dump calls its namespaces of files (6) and categories (14), whose links show
    nothing, in small letters.
    """
    codec = bom_encoding(head) or "utf-8"
    names = _NAMED_SPACE.findall(head.decode(codec, "replace").partition("</namespaces>")[0])
    return frozenset(html.unescape(name).lower() for name in names)


def _utf8(item: Item) -> Iterator[bytes]:
    mark = bom_encoding(item.head)
    if mark in ("utf-16", "utf-32"):
        text = io.TextIOWrapper(item.stream, encoding=mark, errors="replace")
        yield from (part.encode() for part in iter(lambda: text.read(_CHUNK), ""))
        return
    while part := item.stream.read1(_CHUNK):
        yield part


def _pages(parts: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield the `<page>` elements of a dump; None for one that is too long.

    Raises:
        DamagedError: the dump ends inside a page.
    """
    held, skipping, seen = bytearray(), False, 0
    for part in parts:
        held += part
        # What has been looked through holds no end of a page, but perhaps the beginning of one.
        while (end := held.find(b"</page>", max(0, seen - 6))) >= 0:
            start = held.find(b"<page>", 0, end)
            if skipping or start >= 0:
                yield None if skipping else _last_revision(bytes(held[start : end + 7]))
            del held[: end + 7]
            skipping, seen = False, 0
        if len(held) > MAX_PAGE_BYTES:
            skipping = skipping or held.count(b"<revision>") < 2
            held = bytearray(_shortened(bytes(held)))
        seen = len(held)
    if skipping or b"<page>" in held:
        raise DamagedError("truncated", "the dump ends inside a page")


def _shortened(held: bytes) -> bytes:
    """Drop what a page that is still growing can spare: all revisions but the last, or everything
    but its tail.
    """
    if held.count(b"<revision>") > 1:
        return _last_revision(held)
    return held[-16:]


def _last_revision(page: bytes) -> bytes:
    first, last = page.find(b"<revision>"), page.rfind(b"<revision>")
    return page[:first] + page[last:] if first >= 0 else page


def _article(page: ElementTree.Element, number: int, silent: frozenset[str]) -> Document | Reject:
    title = (page.findtext("title") or "").strip()
    space = page.findtext("ns")
    if (space or "0").strip() != "0" or (space is None and _OTHER_SPACES.match(title)):
        return Reject("namespace", number, title)
    body = page.findtext("revision/text") or ""
    if page.find("redirect") is not None or (len(body) < 500 and redirect_target(body)):
        return Reject("redirect", number, title)
    if (page.findtext("revision/model") or "wikitext") != "wikitext":
        return Reject("not-wikitext", number, title)
    return _document(title, body, number, silent)


def _document(
    title: str, body: str, number: int, silent: frozenset[str] = frozenset()
) -> Document | Reject:
    try:
        with deadline():
            text = to_text(body.replace("{{PAGENAME}}", title), silent)
    except TooLongError as error:
        return Reject("timeout", number, f"{title}: {error}")
    if not text:
        return Reject("empty", number, f"{title}: nothing but markup")
    return Document(f"{title}\n\n{text}" if title else text, number, title)


def read_page(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield a text file: as the page of wikitext that it is, or as plain text; the file's name is
    the title.
    """
    head = item.head.decode("utf-8", "replace")
    if wikitext_share(head) < _WIKITEXT_SHARE:
        yield from read_text(item, source)
        return
    text = decode(
        read_all(item.stream, MAX_PAGE_BYTES), "" if source.encoding == "auto" else source.encoding
    )
    # Pages copied out of a dump keep its escapes.
    text = html.unescape(text) if "&lt;ref" in text else text
    title = re.sub(r"[_-]+", " ", item.name.rpartition(".")[0] or item.name)
    target = redirect_target(text) if len(text) < _LEAD else None
    yield Reject("redirect", 0, title) if target else _document(title, text, 0)
