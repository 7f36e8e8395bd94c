"""Exports of a space of Confluence: one document a page, its current version.

An export in XML is a flat list of objects (`entities.xml`); a page and its text are two of them,
in any order:

    <hibernate-generic>
    <object class="Page"><id name="id">1</id><property name="title">Home</property>
    <collection name="bodyContents"><element class="BodyContent"><id name="id">7</id>…</object>
    <object class="BodyContent"><id name="id">7</id><property name="body">&lt;p&gt;…</object>

So the file is read twice. The text is in the storage format, XHTML with macros (`ac:`) and
resources (`ri:`). An export in HTML is a file a page, whose text is in `#main-content`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from lxml import etree

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import DamagedError, Item, read_all, spool
from groundup.collect.readers.markup.plain import with_title
from groundup.collect.readers.office.office import attribute, bounded_parsing
from groundup.collect.readers.web.feeds import parse_xml
from groundup.collect.readers.web.html import MAX_HTML_BYTES, decode_html
from groundup.collect.readers.xml.dialects import XHTML
from groundup.collect.readers.xml.text import XmlWriter
from groundup.recipe import Source

_NAMESPACES = ' xmlns:ac="http://atlassian.com/content" xmlns:ri="http://atlassian.com/resource"'
_CONTENT = frozenset(("Page", "BlogPost"))
# Macros that only show other things: lists of pages, files and issues, and code of pages.
_MACROS = frozenset(
    "toc toc-zone-menu jira jiraissues attachments children pagetree pagetreesearch gallery include"
    " excerpt-include recently-updated contentbylabel detailssummary livesearch html style"
    " html-include iframe widget view-file viewfile viewpdf viewdoc viewxls viewppt drawio gliffy"
    " lucidchart profile contributors change-history anchor blog-posts tasks-report-macro".split()
)
STORAGE = {
    **XHTML,
    "structured-macro": "macro",
    "macro": "macro",
    "link": "link",
    **dict.fromkeys(
        "parameter default-parameter emoticon placeholder task-id task-uuid task-status image"
        " adf-attribute adf-fallback page user attachment".split(),
        "skip",
    ),
    # Of exports in HTML.
    **dict.fromkeys(
        "div=toc-macro div=plugin_attachments_container div=plugin_pagetree ul=childpages-macro"
        " div=recently-updated span=jira-issue div=jira-table div=hidden span=expand-control-icon"
        " div=plugin-contributors fieldset".split(),
        "skip",
    ),
}


@dataclass
class _Page:
    """A page of an export, without its text."""

    title: str
    reason: str = ""  # why it is left out


def read_confluence(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the pages of an export in XML, or the page of one in HTML."""
    if b"<hibernate-generic" not in item.head:
        yield _html_page(item)
        return
    with item.path.open("rb") if item.path else spool(item.stream) as file:
        pages = _pages(file)
        file.seek(0)
        index = 0
        for element in _objects(file):
            if element.get("class") != "BodyContent":
                continue
            page = pages.get(_id(element)) or pages.get(
                f"page {_id(_property(element, 'content'))}"
            )
            if page is None:
                yield Reject("no-page", index, "a comment, a template or a description")
            elif page.reason:
                yield Reject(page.reason, index, page.title)
            else:
                yield _document(page, _value(element, "body"), index, item)
            index += 1
    if not index:
        yield Reject("no-text", detail="an export without any page")


def _pages(file: IO[bytes]) -> dict[str, _Page]:
    """Return the pages of an export by the ids of their texts, and by `page ID`."""
    pages: dict[str, _Page] = {}
    # Damage is told when the texts are read.
    with suppress(DamagedError):
        for element in _objects(file):
            if element.get("class") not in _CONTENT:
                continue
            page = _Page(_value(element, "title"))
            if _value(element, "contentStatus") not in ("", "current"):
                page.reason = "draft"
            if _value(element, "originalVersion") or _value(element, "originalVersionId"):
                page.reason = "old-version"
            pages[f"page {_id(element)}"] = page
            for collection in element.iterchildren("collection"):
                if collection.get("name") == "bodyContents":
                    pages |= {_id(body): page for body in collection}
    return pages


def _objects(file: IO[bytes]) -> Iterator[Any]:
    """Yield the objects of an export one by one; each is cleared after.

    Raises DamagedError at the end if there was damage.
    """
    events = etree.iterparse(
        file, tag="object", recover=True, resolve_entities=False, no_network=True
    )
    try:
        for _, element in events:
            yield element
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    except etree.XMLSyntaxError as error:
        raise DamagedError("damaged", str(error)[:300]) from None
    if len(fatal := events.error_log.filter_from_fatals()):
        raise DamagedError("damaged", f"line {fatal[0].line}: {fatal[0].message}"[:300])


def _property(element: Any, name: str) -> Any | None:
    return next((p for p in element.iterchildren("property") if p.get("name") == name), None)


def _value(element: Any, name: str) -> str:
    """Return the text of a property; "" without it."""
    found = _property(element, name)
    return "" if found is None else "".join(found.itertext()).strip()


def _id(element: Any | None) -> str:
    found = None if element is None else element.find("id")
    return "" if found is None or not found.text else found.text.strip()


def _document(page: _Page, body: str, index: int, item: Item) -> Document | Reject:
    # The end of a CDATA section inside of another is written with a space.
    markup = body.replace("]] >", "]]>")
    with bounded_parsing():
        text = storage_text(parse_xml(markup, namespaces=_NAMESPACES))
    if not text:
        return Reject("no-text", index, f"a page without any text: {page.title}")
    return Document(with_title(page.title, text), index, f"{item.origin}#{index}")


def _html_page(item: Item) -> Document | Reject:
    markup = decode_html(read_all(item.stream, MAX_HTML_BYTES))
    root = etree.fromstring(markup.encode(), etree.HTMLParser(no_network=True, encoding="utf-8"))
    parts = {} if root is None else {part.get("id"): part for part in root.iter("*")}
    if "main-content" not in parts:
        return Reject("no-text", detail="a page of Confluence without its main content")
    with bounded_parsing():
        text = storage_text(parts["main-content"])
    title = " ".join("".join(root.findtext(".//title") or "").split())
    space = next((crumb for crumb in root.iter("li") if crumb.get("class") == "first"), None)
    name = "" if space is None else " ".join("".join(space.itertext()).split())
    title = title.removeprefix(f"{name} : ")
    if not text:
        return Reject("no-text", detail=f"a page without any text: {title}")
    return Document(with_title(title, text), group=item.origin)


def storage_text(element: Any) -> str:
    """Return the text of what stands in an element, in the storage format or as HTML of it."""
    writer = _StorageWriter(STORAGE, {})
    writer.add_children(element)
    return writer.finish().text()


class _StorageWriter(XmlWriter):
    """Writes the text of a page, and what its macros and links show."""

    def add(self, element: Any) -> None:
        """Add an element by its role."""
        match self.role(element):
            case "macro":
                self._add_macro(element)
            case "link":
                pages = element.iterchildren("{*}page")
                shown = self.flat(element) or next(map(_page_title, pages), "")
                self.add_text(shown)
            case _:
                super().add(element)

    def _add_macro(self, element: Any) -> None:
        name = attribute(element, "name")
        if name in _MACROS:
            return
        parameters = element.iterchildren("{*}parameter")
        title = next((p.text or "" for p in parameters if attribute(p, "name") == "title"), "")
        if name == "status":
            self.add_text(title)
            return
        if title.strip():
            self.flush()
            self.blocks.add(title)
        self.add_children(element)


def _page_title(page: Any) -> str:
    return attribute(page, "content-title")
