"""Reads saved web pages. Yields the main text of each; the group is the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import bom_encoding, decode
from groundup.collect.deadline import TooLongError, deadline
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.html_extraction import MAX_TAGS, main_text
from groundup.recipe import Source

MAX_HTML_BYTES = 20 << 20
# Browsers stop nesting at 512; a page beyond this is an attack, or not HTML.
MAX_NESTING = 1000
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"<link\b(?=[^>]{0,600}\brel\s*=\s*[\"']?canonical\b)[^>]{0,600}?\bhref\s*=\s*[\"']?([^\s\"'>]+)"
    r"|<meta\b(?=[^>]{0,600}\b(?:property|name)\s*=\s*[\"']?(?:og:url|twitter:url)\b)[^>]{0,600}?\bcontent\s*=\s*[\"']?([^\s\"'>]+)"
    r"|<base\b[^>]{0,200}?\bhref\s*=\s*[\"']?([^\s\"'>]+)",
    re.IGNORECASE,
)
_NOT_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|textarea|svg)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL
)
# Elements that always have an end tag; paragraphs, list items and table cells often have none, and
# nest nowhere.
_NESTING = re.compile(
    r"<(/?)(?:div|span|section|article|main|table|ul|ol|dl|blockquote|font|b|i|em|strong|center|form|a|big|small|sub|sup|nav)\b",
    re.IGNORECASE,
)


def read_html(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the main text of a saved page."""
    page = decode_html(read_all(item.stream, MAX_HTML_BYTES))
    yield page_document(page, 0, host(_canonical(page)) or item.project or item.origin)


def decode_html(data: bytes, charset: str = "") -> str:
    """Return a page as text: by its mark, the server's charset, what it declares itself, or
    detection.

    Raises:
        DamagedError: it is binary.
    """
    match = _CHARSET.search(data[:4096])
    declared = (match[1] or match[2]).decode("ascii") if match else ""
    # A page that declares UTF-16 in ASCII is not in UTF-16.
    return decode(
        data,
        charset
        or ("" if declared.lower().startswith("utf-16") and not bom_encoding(data) else declared),
    ).lstrip("\ufeff")


def host(url: str) -> str:
    """Return the host of an address, without `www.`; "" when it has none."""
    try:
        name = urlsplit(url.strip()).hostname or ""
    except ValueError:
        return ""
    return name.lower().removeprefix("www.")


def _canonical(page: str) -> str:
    match = _ADDRESS.search(page[:200_000])
    return next((group for group in match.groups() if group), "") if match else ""


def nesting(page: str) -> int:
    """Return how deeply a page's elements nest, at most: end tags that are left out count as never
    given.
    """
    depth = deepest = 0
    for match in _NESTING.finditer(_NOT_MARKUP.sub("", page)):
        depth = max(0, depth - 1) if match[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def page_document(page: str, number: int, group: str) -> Document | Reject:
    """Return the main text of a page as a document."""
    if page.count("<") > MAX_TAGS:
        return Reject("too-large", number, f"it has more than {MAX_TAGS:,} tags")
    # Fewer tags are parsed in half a second however they nest; counting is fast, and most pages
    # have no more.
    if page.count("<") > 4 * MAX_NESTING and nesting(page) > MAX_NESTING:
        return Reject("nesting", number, f"elements nest more than {MAX_NESTING} deep")
    try:
        with deadline():
            text = main_text(page)
    except TooLongError as error:
        return Reject("timeout", number, str(error))
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # A crash of the extractor is that page's loss.
        return Reject("malformed", number, f"{type(error).__name__}: {error}"[:300])
    return (
        Document(text, number, group)
        if text
        else Reject("no-main-text", number, "nothing in it reads like an article")
    )
