"""Takes the markup off a page that is text throughout, as those of books are. Reads HTML or XHTML;
returns plain text.
"""

from __future__ import annotations

import html
import re
from typing import Any

from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.html import MAX_NESTING, nesting

_LINES = frozenset("br li tr dt dd option".split())
_PARAGRAPHS = frozenset(
    "address article aside blockquote body caption center details div dl fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hr main ol p pre section table tbody thead ul".split()
)
_SKIPPED = frozenset(
    "head script style nav svg audio video iframe object template annotation annotation-xml rt rp".split()
)
# Marks of the printed book, tables of contents: what a reader sees beside the text, not in it.
_MARKS = frozenset("noteref pagebreak toc landmarks page-list pagenum pageno".split())
# XML knows five entities; those of HTML are put in before it is parsed.
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)[A-Za-z][A-Za-z0-9]{1,31};")
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_EMPTY_TAG = re.compile(r"<[^<>]*/>")
# To a parser of HTML these go on until their end tag, and swallow the page.
_EMPTY_RAW = re.compile(r"<(?:script|style|title|textarea|iframe)\b[^<>]*/>", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\r\n\f]+")
# A page with as many links, which hold most of its text, is a table of contents or an index.
_MIN_LINKS = 10


def page_text(page: str) -> str:
    """Return the text of a page, a blank line between paragraphs.

    Raises:
        DamagedError: it nests too deeply, or only leads to other pages.
    """
    if page.count("<") > 2 * MAX_NESTING and nesting(_EMPTY_TAG.sub("", page)) > MAX_NESTING:
        raise DamagedError("nesting", f"elements nest more than {MAX_NESTING} deep")
    root = _parsed(_DECLARATION.sub("", page))
    writer = _Writer()
    if root is not None:
        writer.walk(root)
    if writer.links >= _MIN_LINKS and 2 * writer.linked > writer.size:
        raise DamagedError("navigation", f"most of its text is that of {writer.links:,} links")
    return writer.text()


def _parsed(page: str) -> Any:
    """Return the root of a page, read as XML where it is that, else as HTML."""
    from lxml import etree

    try:
        return etree.fromstring(
            xml_entities(page), etree.XMLParser(resolve_entities=False, no_network=True)
        )
    except (etree.XMLSyntaxError, ValueError):
        return etree.fromstring(
            _EMPTY_RAW.sub("", page.replace("\0", "")) or " ", etree.HTMLParser(no_network=True)
        )


def xml_entities(page: str) -> str:
    """Return markup with the characters that HTML's entities stand for, but for the five that XML
    knows.
    """
    # A few stand for < and &, which have to stay escaped.
    return _ENTITY.sub(lambda hit: html.escape(html.unescape(hit[0])), page)


class _Writer:
    """The text so far, how much there is, and how much of it in links."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        # Line breaks at the end, and whether white space goes on.
        self._breaks, self._fresh = 2, True
        self.size = self.links = self.linked = 0

    def walk(self, root: Any) -> None:
        """Add everything below an element, without recursion."""
        from lxml import etree

        walk: Any = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
        keeps = inside = 0
        for event, element in walk:
            name = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
            if event == "start":
                self._gap(name)
                keeps += name == "pre"
                inside += name == "a"
                self.links += name == "a"
                if _is_skipped(element, name):
                    walk.skip_subtree()
                else:
                    self._add(element.text, keeps, inside)
                continue
            keeps -= event == "end" and name == "pre"
            inside -= event == "end" and name == "a"
            self._gap(name)
            self._add(element.tail if element is not root else None, keeps, inside)

    def _gap(self, name: str) -> None:
        wanted = 2 if name in _PARAGRAPHS else int(name in _LINES)
        if wanted:
            self._parts.append("\n" * (wanted - self._breaks))
            self._breaks, self._fresh = max(wanted, self._breaks), True
        elif name in ("td", "th"):
            self._add(" ", 0, 0)

    def _add(self, text: str | None, keeps: int, inside: int) -> None:
        text = text or ""
        if not keeps:
            text = _SPACE.sub(" ", text)
            text = text.lstrip(" ") if self._fresh else text
        if text:
            self._parts.append(text)
            self._breaks, self._fresh = (
                len(text) - len(text.rstrip("\n")),
                text.endswith((" ", "\n")),
            )
            self.size += len(text)
            self.linked += len(text) if inside else 0

    def text(self) -> str:
        """Return what was added, paragraphs a blank line apart."""
        joined = re.sub(r"[ \xa0]+$", "", "".join(self._parts), flags=re.MULTILINE)
        return re.sub(r"\n{3,}", "\n\n", joined).strip("\n ")


def _is_skipped(element: Any, name: str) -> bool:
    if name in _SKIPPED:
        return True
    said = (
        f"{element.get('{http://www.idpf.org/2007/ops}type') or element.get('epub:type') or ''}"
        f" {element.get('class') or ''}"
    )
    return bool(_MARKS.intersection(said.split()))
