"""Saved web pages: one document a page, its main text; the group is the host.

Other readers of HTML (WARC, feeds, EPUB) share the decoding, the bounds and the extraction:
`main_text` for web pages, `page_text` for pages of books and feeds.

`main_text` takes the article and leaves menus, comments and adverts, by two extractors. Resiliparse
(Bevendorff et al. 2018) is fast and finds nearly all of an article, with scraps of the page around
it. It runs first and its scraps are trimmed; where the rest does not read like prose, `content.py`
weighs the blocks of the page (`python -m benchmarks maintext`).

`page_text` takes everything, since the markup of books and feeds is text throughout.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from lxml import etree

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import bom_encoding, decode
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline, read_all
from groundup.collect.readers.office.office import math_text
from groundup.collect.readers.web.content import content_text
from groundup.collect.readers.web.markup import write_marks
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

# A line of this many bytes is prose, and a text of which enough is. Bytes, because a sentence is
# about as long in bytes in any script.
PROSE_BYTES = 120
MIN_PROSE = 500
PROSE_SHARE = 0.85
# Parsers compare each attribute of a tag with all before it: 130,000 take 33 s. The rest is cut. A
# page shorter than _SHORT cannot have that many.
MAX_ATTRIBUTES = 1_000
_SHORT = 200_000
# Memory and time grow with the tags: this many take 0.4 GB and 3 s to weigh.
MAX_TAGS = 300_000
MAX_NESTING = 1000  # browsers stop nesting at 512: a page beyond this is an attack, or no HTML
# Resiliparse takes time by the square of the depth, 10 s for this many tags.
_FAST_TAGS = 20_000
# Resiliparse takes a list less than three elements deep for a menu, as most lists of a page with
# few <div> are.
_FAST_DIVISIONS = 10

_SENTENCE = re.compile(r"[.!?…。！？।۔؟။]")
# Attributes as the tokenizer of the HTML standard (13.2.5.32 to 39) splits them. The quantifiers
# are possessive: no backtracking.
_ATTRIBUTE = r"[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+)?+"
_FLOOD = re.compile(rf"(<[a-zA-Z][^\s/>]*+(?:{_ATTRIBUTE}){{{MAX_ATTRIBUTES}}}+)(?:{_ATTRIBUTE})++")
# What a colon announces: lines up to a blank one, and beyond it indented lines (lists, code), items
# and their addresses.
_ANNOUNCED = re.compile(
    r"\s*\S[^\n]*(?:\n[^\n]*\S[^\n]*|\n\n {2,}\S[^\n]*"
    r"|\n(?:[ \t]*\n)++[ \t]*+(?:(?:\d{1,3}[.):]|[-*•–])[ \t]|https?:)[^\n]*)*"
)
# Below the last line of prose, a sentence and a line with a colon of this many bytes are text of
# the page. Shorter ones are mostly scraps: "Read more:", "All rights reserved."
_SHORT_SENTENCE, _SHORT_LEAD = 60, 40
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟։][\"'”’»」)\]]*\Z")

# Items and cells of a table as resiliparse writes them.
_FAST_ITEM = re.compile(r"^[ \t]*+• ", re.MULTILINE)
_CELL_TABS = re.compile(r"(?<=\S) ?\t[\t ]*(?=\S)")
# `[edit]` beside the headings of MediaWiki.
_EDIT_LINK = re.compile(
    r"<span class=\"(?:mw-)?editsection\"[^<>]*>(?:[^<\]]|<(?!span class=\"(?:mw-)?editsection\")"
    r"[^<>]*>){0,200}?\](?:\s*</span>){1,2}"
)
# A site speaks of its cookies in a line of fewer characters, among these many at either end.
_NOTICE_LINES, _NOTICE_LENGTH = 3, 1_000
_COOKIE_NOTICE = re.compile(
    r"\b(?:we|site|website|page|app|partners)\b.{0,40}\b(?:uses?|using|sets?|stores?)[^.]{0,30}"
    r" cookies"
    r"|\b(?:our|the) use of cookies|\bcookie (?:policy|settings|preferences|consent)"
    r"|\b(?:verwende[nt]|nutz(?:en|t)|setz(?:en|t)|einsatz von|verwendung von)[^.]{0,20} cookies"
    r"|\b(?:utilis|dépos|utiliz|gebrui|anvender|använd|bruk|brug)\w*[^.]{0,30} (?:cookies|kakor)"
    r"|\buso de cookies|\b(?:utilizz|używa|použív)\w*[^.]{0,30} cookie"
    r"|\bиспольз\w+[^.]{0,30} (?:cookie|куки)",
    re.IGNORECASE,
)

_TAG = re.compile(r"<[^<>]*>")
_BETWEEN_TAGS = re.compile(r">\s*([^<\s][^<]*)")
# What is not shown is read up to each "<", ten times faster than by every character. One look ahead
# is enough for most tags.
_NOT_SHOWN = re.compile(
    r"<(?=[!tsni])(?:!--[^-]*+(?:-(?!->)[^-]*+)*+(?:-->|\Z)"
    r"|(title|script|style|textarea|svg|noscript|template|select|iframe)\b"
    r"[^<]*+(?:<(?!/\1\s*>)[^<]*+)*+(?:</\1\s*>|\Z))",
    re.IGNORECASE,
)
_HEADING = re.compile(r"<h([1-6])\b[^<>]*>(.{0,500}?)</h\1\s*>", re.IGNORECASE | re.DOTALL)
# The look back follows a tab: it would be tried at every place otherwise.
_CELL_BORDER = re.compile(r"\t(?<=[^\t\n]{60}\t)\t*(?=[^\t\n]{60})")
_NOT_MARKUP = re.compile(
    r"<!--[^-]*+(?:-(?!->)[^-]*+)*+(?:-->|\Z)"
    r"|<(script|style|textarea|svg)\b[^<]*+(?:<(?!/\1\s*>)[^<]*+)*+(?:</\1\s*>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
# Elements that always have an end tag. Paragraphs, list items and table cells often have none, and
# do not nest.
_NESTING = re.compile(
    r"<(/?)(?:div|span|section|article|main|table|ul|ol|dl|blockquote|font|b|i|em|strong|center"
    r"|form|a|big|small|sub|sup|nav)\b",
    re.IGNORECASE,
)

_LINES = frozenset("br li tr dt dd option".split())
_PARAGRAPHS = frozenset(
    "address article aside blockquote body caption center details div dl fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hr main ol p pre section table ul".split()
)
_CELLS = frozenset(("td", "th"))
_SKIPPED = frozenset(
    "head script style nav svg audio video iframe object template annotation annotation-xml rt"
    " rp".split()
)
# Classes and EPUB types of what a book prints beside its text: page numbers, tables of contents.
_MARKS = frozenset("noteref pagebreak toc landmarks page-list pagenum pageno".split())
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
# XML knows five entities; those of HTML are replaced before parsing.
_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)[A-Za-z][A-Za-z0-9]{1,31};")
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_EMPTY_TAG = re.compile(r"<[^<>]*/>")
# An HTML parser reads these up to their end tag, and would swallow the rest of the page.
_EMPTY_RAW = re.compile(r"<(?:script|style|title|textarea|iframe)\b[^<>]*/>", re.IGNORECASE)
# A run of spaces is tried from its start only.
_TRAILING_SPACE = re.compile(r"(?<![ \xa0])[ \xa0]+$", re.MULTILINE)
_SPACE = re.compile(r"[ \t\r\n\f]+")
# A page with this many links, which hold most of its text, is a table of contents or an index.
_MIN_LINKS = 10


def read_html(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the main text of a saved page."""
    page = decode_html(read_all(item.stream, MAX_HTML_BYTES))
    match = _CANONICAL.search(page[:200_000])
    url = next(filter(None, match.groups()), "") if match else ""
    yield page_document(page, 0, host(url) or item.project or item.origin)


def decode_html(data: bytes, charset: str = "") -> str:
    """Return a page as text: by its byte order mark, `charset`, its own declaration, or detection.

    `charset` is what the server declared. Raises DamagedError if the page is binary.
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
    tags = page.count("<")
    if tags > MAX_TAGS:
        return Reject("too-large", index, f"it has more than {MAX_TAGS:,} tags")
    # Fewer tags parse in half a second however they nest. Counting is fast, and most pages have no
    # more.
    if tags > 4 * MAX_NESTING and nesting_depth(page) > MAX_NESTING:
        return Reject("nesting", index, f"elements nest more than {MAX_NESTING} deep")
    try:
        with deadline():
            text = main_text(page)
            markup = _NOT_SHOWN.sub(" ", page)
            shown = html.unescape(" ".join(_BETWEEN_TAGS.findall(f">{markup}")))
            # Without white space.
            visible = max(len("".join(part.split())) for part in (shown, text))
    except TooLongError as error:
        return Reject("timeout", index, str(error))
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # A crash of the extractor costs this page only.
        return Reject("malformed", index, f"{type(error).__name__}: {error}"[:300])
    if not text:
        return Reject("no-main-text", index, "nothing in it reads like an article")
    return Document(text, index, group, visible=visible)


def main_text(page: str) -> str:
    """Return the main text of a page, a blank line between paragraphs; "" where there is none.

    Time and memory grow with the number of tags: callers refuse a page with more than MAX_TAGS.
    """
    # In a script this may cut what only looks like a tag; scripts are not extracted.
    page = _FLOOD.sub(r"\1", page) if len(page) > _SHORT else page
    page = write_marks(_EDIT_LINK.sub("", page) if "editsection" in page else page)
    return _fast_text(page) or _careful_text(page)


def _fast_text(page: str) -> str:
    """Return what resiliparse takes for the main text; "" where it is mostly not prose."""
    if page.count("<") > _FAST_TAGS or page.count("<div") < _FAST_DIVISIONS:
        return ""
    from resiliparse.extract.html2text import extract_plain_text

    try:
        text = str(
            extract_plain_text(
                page, main_content=True, alt_texts=False, comments=False, post_meta=False
            )
        )
    except BaseException as error:
        # A panic in Rust is a BaseException, not an Exception.
        if type(error).__name__ != "PanicException":
            raise
        return ""
    if notices := _notices(kept := _trim_to_prose(text, page)):
        kept = _trim_to_prose(_without(notices, text), page)
    text = _FAST_ITEM.sub("- ", kept) if "•" in kept else kept
    # Cells of a row have tabs between them, and so may code.
    return text if "\t" not in text or "<pre" in page else _CELL_TABS.sub(" | ", text)


def _careful_text(page: str) -> str:
    """Return the text of the content of a page; "" where there is none."""
    text = content_text(page)
    notices = _notices(text)
    return _without(notices, text) if notices else text


def _notices(text: str) -> frozenset[str]:
    """Return the lines at either end of a text that are notices of cookies."""
    if "ookie" not in text and "OOKIE" not in text:
        return frozenset()
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    edges = (*lines[:_NOTICE_LINES], *lines[-_NOTICE_LINES:])
    short = (line for line in edges if len(line) < _NOTICE_LENGTH)
    return frozenset(line for line in short if _COOKIE_NOTICE.search(line))


def _without(lines: frozenset[str], text: str) -> str:
    """Return a text without lines, and without the cross that closes them at an end."""
    kept = "\n".join(line for line in text.split("\n") if line.strip() not in lines)
    return re.sub(r"(?:\n\s*[xX×✕✖]?)+\Z", "", kept).lstrip("\n")


def _trim_to_prose(text: str, page: str) -> str:
    """Return a page from its first line of prose to its last; "" where that is mostly not prose."""
    lines = text.split("\n")
    # The first test is the cheapest: a character has at most four bytes.
    long = [index for index, line in enumerate(lines) if 4 * len(line) >= PROSE_BYTES]
    long = [index for index in long if len(lines[index].strip().encode()) >= PROSE_BYTES]
    prose = [index for index in long if _SENTENCE.search(lines[index])]
    if not prose:
        return ""
    first, end = prose[0], prose[-1] + 1
    # Cells of a row that are prose lay out the page.
    kept = _CELL_BORDER.sub("\n\n", "\n".join(lines[first:end]).strip())
    size = sum(len(lines[index].encode()) for index in prose)
    # Manuals of code hold more code than prose.
    is_prose = size >= PROSE_SHARE * len(kept.encode()) or ("<pre" in page and "<dd" in page)
    if size < MIN_PROSE or not is_prose:
        return ""
    kept += _text_below(kept, lines[end:])
    # The line above stays if it is a heading, and another of its level is in the text; so titles of
    # pages are left out, as menus and bylines are.
    above = next((line.strip() for line in reversed(lines[:first]) if line.strip()), "")
    name = " ".join(above.split())
    levels: dict[str, set[str]] = {}
    for tag in _HEADING.finditer(page) if name else ():
        heading = " ".join(html.unescape(_TAG.sub("", tag[2])).split())
        levels.setdefault(tag[1], set()).add(heading)
    others = [headings - {name, ""} for headings in levels.values() if name in headings]
    inside = {" ".join(line.split()) for line in kept.split("\n")} if others else set()
    return f"{above}\n\n{kept}" if any(map(inside.intersection, others)) else kept


def _text_below(text: str, lines: Sequence[str]) -> str:
    """Return what goes on with a text below its prose: sentences, and what a colon announces."""
    end, last = 0, text
    for index, line in enumerate(map(str.strip, lines)):
        size = len(line.encode())
        is_sentence = size >= _SHORT_SENTENCE and _SENTENCE_END.search(line) is not None
        is_lead = size >= _SHORT_LEAD and line.endswith((":", "："))
        is_lead = is_lead and any(map(str.strip, lines[index + 1 : index + 2]))
        if is_sentence or is_lead:
            end, last = index + 1, line
        if line and not is_sentence:
            break
    below = "\n".join(["", *lines[:end]])
    if last.endswith((":", "：")):
        announced = _ANNOUNCED.match("\n".join(["", *lines[end:]]))
        below += announced[0] if announced else ""
    return below.rstrip()


def nesting_depth(page: str) -> int:
    """Return how deep the elements of a page nest, as if every omitted end tag were missing."""
    depth = deepest = 0
    for tag in _NESTING.finditer(_NOT_MARKUP.sub("", page)):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


def page_text(page: str, all_tables: bool = False) -> str:
    """Return the whole text of a page, a blank line between paragraphs.

    Cells have bars between them in tables with heads, or in all where no table is for layout.

    Raises DamagedError if it nests too deeply, or only links to other pages.
    """
    if page.count("<") > 2 * MAX_NESTING and nesting_depth(_EMPTY_TAG.sub("", page)) > MAX_NESTING:
        raise DamagedError("nesting", f"elements nest more than {MAX_NESTING} deep")
    page = write_marks(_DECLARATION.sub("", page))
    try:
        xml_parser = etree.XMLParser(resolve_entities=False, no_network=True)
        root = etree.fromstring(xml_entities(page), xml_parser)
    except (etree.XMLSyntaxError, ValueError):
        markup = _EMPTY_RAW.sub("", page.replace("\0", "")) or " "
        root = etree.fromstring(markup, etree.HTMLParser(no_network=True))
    writer = _PageWriter(all_tables)
    if root is not None:
        writer.walk(root)
    if writer.links >= _MIN_LINKS and 2 * writer.linked_size > writer.size:
        raise DamagedError("navigation", f"most of its text is that of {writer.links:,} links")
    return writer.text()


def xml_entities(page: str) -> str:
    """Return markup with the entities of HTML replaced by their characters, for an XML parser."""
    # A few stand for < and &, which have to stay escaped.
    return _ENTITY.sub(lambda entity: html.escape(html.unescape(entity[0])), page)


def _is_data(cell: Any) -> bool:
    """Return whether a cell is one of a table of data, which has heads, and none of a layout."""
    table = next(cell.iterancestors("{*}table"), None)
    return table is not None and next(table.iter("{*}th"), None) is not None


def _formula(element: Any) -> str:
    """Return a formula in MathML as TeX, where it says so, or as a line such as `x^2`."""
    notes = element.iter("{*}annotation")
    tex = next((note.text for note in notes if "tex" in (note.get("encoding") or "")), None)
    return f"${tex.strip()}$" if tex else math_text(element)


class _PageWriter:
    """Text that grows element by element, its size, and how much of it is in links."""

    def __init__(self, all_tables: bool) -> None:
        self._all_tables = all_tables
        self._parts: list[str] = []
        # Line breaks at the end of the text, and whether leading spaces are dropped there.
        self._breaks, self._at_space = 2, True
        self.size = self.links = self.linked_size = 0

    def walk(self, root: Any) -> None:
        """Add everything below an element, without recursion."""
        walk: Any = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
        pre_depth = link_depth = 0
        for event, element in walk:
            name = element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""
            if event == "start":
                self._break(name)
                pre_depth += name == "pre"
                link_depth += name == "a"
                self.links += name == "a"
                marks = f"{element.get(_EPUB_TYPE) or element.get('epub:type') or ''}"
                marks += f" {element.get('class') or ''}"
                if name in _SKIPPED or _MARKS.intersection(marks.split()):
                    walk.skip_subtree()
                elif name == "math" and element.tag != name:
                    self._add(_formula(element), 1, link_depth)
                    walk.skip_subtree()
                else:
                    is_next = name in _CELLS and element.getprevious() is not None
                    if is_next and (self._all_tables or _is_data(element)):
                        self._add("| ", 0, 0)
                    self._add(element.text, pre_depth, link_depth)
            else:
                pre_depth -= event == "end" and name == "pre"
                link_depth -= event == "end" and name == "a"
                self._break(name)
                if element is not root:
                    self._add(element.tail, pre_depth, link_depth)

    def _break(self, name: str) -> None:
        """Start a new line or paragraph, where an element of this name starts or ends one."""
        breaks = 2 if name in _PARAGRAPHS else int(name in _LINES)
        if breaks:
            self._parts.append("\n" * (breaks - self._breaks))
            self._breaks, self._at_space = max(breaks, self._breaks), True
        elif name in _CELLS:
            self._add(" ", 0, 0)

    def _add(self, text: str | None, pre_depth: int, link_depth: int) -> None:
        text = text or ""
        if not pre_depth:
            text = _SPACE.sub(" ", text)
            text = text.lstrip(" ") if self._at_space else text
        if text:
            self._parts.append(text)
            self._breaks = len(text) - len(text.rstrip("\n"))
            self._at_space = text.endswith((" ", "\n"))
            self.size += len(text)
            self.linked_size += len(text) if link_depth else 0

    def text(self) -> str:
        """Return what was added, paragraphs a blank line apart."""
        joined = _TRAILING_SPACE.sub("", "".join(self._parts))
        return re.sub(r"\n{3,}", "\n\n", joined).strip("\n ")
