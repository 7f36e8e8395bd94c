"""Pages that Notion exports as HTML: title, description and body.

    <article id="…" class="page sans">
      <header><h1 class="page-title">Plan</h1><table class="properties">…</table></header>
      <div class="page-body"><figure class="callout">…</figure><ul class="toggle">…</ul></div>

The properties are fields of a database, which its CSV file has, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import Item, read_all
from groundup.collect.readers.markup.plain import with_title
from groundup.collect.readers.office.office import bounded_parsing
from groundup.collect.readers.web.html import MAX_HTML_BYTES, decode_html
from groundup.collect.readers.xml.dialects import XHTML
from groundup.collect.readers.xml.text import XmlWriter
from groundup.recipe import Source

_HIDDEN = (
    # Icons of callouts and pages, formulas a second time, addresses of bookmarks and files.
    "span=icon img=icon div=page-header-icon span=katex-html div=source div=bookmark-href"
    " table=properties table=collection-content nav=table_of_contents"
)
_DIALECT = {**XHTML, **dict.fromkeys(_HIDDEN.split(), "skip"), "summary": "paragraph"}


def read_notion(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the page of a file."""
    markup = decode_html(read_all(item.stream, MAX_HTML_BYTES))
    root = etree.fromstring(markup.encode(), etree.HTMLParser(no_network=True, encoding="utf-8"))
    parts = [] if root is None else list(root.iter("h1", "p", "div"))
    # Of a page inside of a page the first counts.
    first = {part.get("class", ""): part for part in reversed(parts)}
    if "page-body" not in first:
        yield Reject("no-text", detail="a page of Notion without a body")
        return
    with bounded_parsing():
        description, body = (
            _text(first[name]) if name in first else ""
            for name in ("page-description", "page-body")
        )
    heading = first.get("page-title")
    title = "" if heading is None else " ".join("".join(heading.itertext()).split())
    if not (text := "\n\n".join(filter(None, (description, body)))):
        yield Reject("no-text", detail=f"a page without any text: {title}"[:300])
        return
    yield Document(with_title(title, text), group=item.origin)


def _text(element: etree._Element) -> str:
    writer = XmlWriter(_DIALECT, {})
    writer.add_children(element)
    return writer.finish().text()
