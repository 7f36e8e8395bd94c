"""Saved web pages: one document a page, its main text; the group is the host.

Other readers of HTML (WARC, feeds, EPUB) share the decoding and the bounds of this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import bom_encoding, decode
from groundup.collect.files.streams import Item, TooLongError, deadline, read_all
from groundup.collect.readers.html_extraction import (
    MAX_NESTING,
    MAX_TAGS,
    main_text,
    nesting_depth,
)
from groundup.recipe import Source

MAX_HTML_BYTES = 20 << 20
_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)"
    rb"|<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.:-]+)",
    re.IGNORECASE,
)
_CANONICAL = re.compile(
    r"<link\b(?=[^>]{0,600}\brel\s*=\s*[\"']?canonical\b)"
    r"[^>]{0,600}?\bhref\s*=\s*[\"']?([^\s\"'>]+)"
    r"|<meta\b(?=[^>]{0,600}\b(?:property|name)\s*=\s*[\"']?(?:og:url|twitter:url)\b)"
    r"[^>]{0,600}?\bcontent\s*=\s*[\"']?([^\s\"'>]+)"
    r"|<base\b[^>]{0,200}?\bhref\s*=\s*[\"']?([^\s\"'>]+)",
    re.IGNORECASE,
)


def read_html(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the main text of a saved page."""
    page = decode_html(read_all(item.stream, MAX_HTML_BYTES))
    match = _CANONICAL.search(page[:200_000])
    url = next(filter(None, match.groups()), "") if match else ""
    yield page_document(page, 0, host(url) or item.project or item.origin)


def decode_html(data: bytes, charset: str = "") -> str:
    """Return a page as text: by its byte order mark, `charset`, its own declaration, or detection.

    Args:
        data: the page.
        charset: what the server declared.

    Raises:
        DamagedError: it is binary.
    """
    match = _CHARSET.search(data[:4096])
    declared = (match[1] or match[2]).decode("ascii") if match else ""
    # A page that declares UTF-16 in ASCII is not in UTF-16.
    if declared.lower().startswith("utf-16") and not bom_encoding(data):
        declared = ""
    return decode(data, charset or declared).lstrip("\ufeff")


def host(url: str) -> str:
    """Return the host of a URL, without `www.`; "" when it has none."""
    try:
        name = urlsplit(url.strip()).hostname or ""
    except ValueError:
        return ""
    return name.lower().removeprefix("www.")


def page_document(page: str, index: int, group: str) -> Document | Reject:
    """Return the main text of a page as the document of record `index`."""
    if page.count("<") > MAX_TAGS:
        return Reject("too-large", index, f"it has more than {MAX_TAGS:,} tags")
    # Fewer tags parse in half a second however they nest. Counting is fast, and most pages have no
    # more.
    if page.count("<") > 4 * MAX_NESTING and nesting_depth(page) > MAX_NESTING:
        return Reject("nesting", index, f"elements nest more than {MAX_NESTING} deep")
    try:
        with deadline():
            text = main_text(page)
    except TooLongError as error:
        return Reject("timeout", index, str(error))
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # A crash of the extractor costs this page only.
        return Reject("malformed", index, f"{type(error).__name__}: {error}"[:300])
    if not text:
        return Reject("no-main-text", index, "nothing in it reads like an article")
    return Document(text, index, group)
