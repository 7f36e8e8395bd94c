"""MediaWiki dumps and single pages of wikitext: one document an article, its title above the text.

A dump is cut at its `<page>` tags and each page is parsed alone: memory holds one page, a broken
page costs itself, and no entity that a dump declares is ever expanded. Redirects and pages of other
namespaces (talk, users, templates) are rejected by number.

    <mediawiki><siteinfo>...<namespace key="14">Category</namespace>...</siteinfo>
    <page><title>Berlin</title><ns>0</ns><revision><text>'''Berlin''' is...</text></revision></page>
    ...</mediawiki>
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Collection, Iterable, Iterator
from xml.etree import ElementTree

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import bom_encoding, decode
from groundup.collect.files.formats import wikitext_share
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline, read_all
from groundup.collect.readers.text import declared_encoding, read_text
from groundup.collect.readers.wiki.wikitext import is_redirect, read_wikitext
from groundup.recipe import Source

MAX_PAGE_BYTES = 16 << 20  # MediaWiki stores at most 2 MB a page
_CHUNK = 1 << 20
_TAIL = 16  # bytes that may be the start of a tag
# Old dumps have no <ns>. These English names work in every wiki.
_OTHER_NAMESPACE = re.compile(
    r"^(?:(?:user|wikipedia|project|file|image|mediawiki|template|help|category|portal|module"
    r"|draft)(?: talk)?|talk|special|media):",
    re.IGNORECASE,
)
# What a wiki calls its namespaces of files (6) and categories (14), whose links show nothing.
_LANGUAGE = re.compile(r"""<mediawiki\b[^>]*\bxml:lang=["']([a-z]{2,12})""")
_DATABASE = re.compile(r"<dbname>([a-z]{2,12}?)(?:_[a-z_]+)?wik(?:i|tionary)[a-z]*</dbname>")
_HIDDEN_NAMESPACE = re.compile(r'<namespace key="(?:6|14)"[^<>]*>([^<>]+)</namespace>')
# Pieces of markup for each 1,000 characters, from which on a text file is a page of wikitext.
_WIKITEXT_SHARE = 1.5
# What lies beside a dump in streams: the place of a stream, the number of a page in it, its title.
_INDEX = re.compile(r"(?:\d+:\d+:[^\n]+\n){3}")
_MAX_TITLE, _MAX_PAGE_NAMES = 255, 10_000
_MAX_REDIRECT, _MAX_REDIRECT_FILE = 500, 200  # a page of fewer characters may be a redirect


def read_dump(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the articles of a MediaWiki XML dump, in UTF-8 or in the encoding of its BOM."""
    encoding = bom_encoding(item.head) or "utf-8"
    siteinfo = item.head.decode(encoding, "replace").partition("</namespaces>")[0]
    names = _HIDDEN_NAMESPACE.findall(siteinfo)
    hidden = frozenset(html.unescape(name).lower() for name in names)
    database = _DATABASE.search(siteinfo)
    language = _LANGUAGE.search(siteinfo) or database
    if database and database[1] == "simple":
        language = database
    code = language[1] if language else ""
    chunks = iter(lambda: item.stream.read1(_CHUNK), b"")
    if encoding in ("utf-16", "utf-32"):
        text = io.TextIOWrapper(item.stream, encoding=encoding, errors="replace")
        chunks = (chunk.encode() for chunk in iter(lambda: text.read(_CHUNK), ""))
    for index, page in enumerate(_pages(chunks), item.first):
        if page is None:
            yield Reject("too-large", index, f"a page longer than {MAX_PAGE_BYTES >> 20} MB")
            continue
        try:
            element = ElementTree.fromstring(page)
        except ElementTree.ParseError as error:
            yield Reject("malformed", index, f"not XML: {error}")
            continue
        title = (element.findtext("title") or "").strip()
        body = element.findtext("revision/text") or ""
        namespace = element.findtext("ns")
        is_marked = element.find("redirect") is not None
        is_other = (namespace or "0").strip() != "0"
        if is_other or (namespace is None and _OTHER_NAMESPACE.match(title)):
            yield Reject("namespace", index, title)
        elif is_marked or (len(body) < _MAX_REDIRECT and is_redirect(body)):
            yield Reject("redirect", index, title)
        elif (element.findtext("revision/model") or "wikitext") != "wikitext":
            yield Reject("not-wikitext", index, title)
        else:
            yield _wikitext_document(title, body, index, hidden, code)


def count_pages(stream: io.BufferedReader) -> int:
    """Return how many pages a part of a dump holds; DamagedError if it ends inside one."""
    return sum(1 for _ in _pages(iter(lambda: stream.read1(_CHUNK), b"")))


def _pages(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield the `<page>` elements, None for a long one; DamagedError if the dump ends in one."""
    held, searched = bytearray(), 0
    # True inside a page that is too long: only its tail is kept, to find its end.
    is_skipping = False
    for chunk in chunks:
        held += chunk
        # The end tag may start in the last bytes that were searched.
        while (end := held.find(b"</page>", max(0, searched - 6))) >= 0:
            start = held.find(b"<page>", 0, end)
            page = _last_revision(bytes(held[start : end + 7])) if start >= 0 else b""
            if is_skipping or len(page) > MAX_PAGE_BYTES:
                yield None
            elif page:
                yield page
            del held[: end + 7]
            is_skipping, searched = False, 0
        if len(held) > MAX_PAGE_BYTES and not is_skipping:
            # What stands before a page is none of it.
            start = held.find(b"<page>")
            del held[: start if start >= 0 else len(held) - _TAIL]
            # A page with its history may drop all revisions but the last.
            held = bytearray(_last_revision(bytes(held)))
            is_skipping = len(held) > MAX_PAGE_BYTES
        if is_skipping:
            del held[:-_TAIL]
        searched = len(held)
    if is_skipping or b"<page>" in held:
        raise DamagedError("truncated", "the dump ends inside a page")


def _last_revision(page: bytes) -> bytes:
    first, last = page.find(b"<revision>"), page.rfind(b"<revision>")
    return page[:first] + page[last:] if first >= 0 else page


def _wikitext_document(
    title: str, body: str, index: int, hidden: Collection[str] = (), language: str = ""
) -> Document | Reject:
    try:
        with deadline():
            # No wiki has longer titles, and no page says its own so often.
            named = body
            if len(title) <= _MAX_TITLE:
                named = body.replace("{{PAGENAME}}", title, _MAX_PAGE_NAMES)
            text, left_out = read_wikitext(named, hidden, language)
    except TooLongError as error:
        return Reject("timeout", index, f"{title}: {error}")
    if not text:
        return Reject("empty", index, f"{title}: nothing but markup")
    text = f"{title}\n\n{text}" if title else text
    return Document(text, index, title, left_out=left_out)


def read_page(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield a text file: as the page of wikitext that it is, with its name as title, or as text."""
    head = item.head.decode("utf-8", "replace")
    if _INDEX.match(head):
        yield Reject("wrong-kind", 0, "the index of a dump: titles, and where their pages are")
        return
    if wikitext_share(head) < _WIKITEXT_SHARE:
        yield from read_text(item, source)
        return
    text = decode(read_all(item.stream, MAX_PAGE_BYTES), declared_encoding(source))
    # Pages copied out of a dump keep its escapes.
    text = html.unescape(text) if "&lt;ref" in text else text
    title = re.sub(r"[_-]+", " ", item.name.rpartition(".")[0] or item.name)
    redirects = len(text) < _MAX_REDIRECT_FILE and is_redirect(text)
    yield Reject("redirect", 0, title) if redirects else _wikitext_document(title, text, 0)
