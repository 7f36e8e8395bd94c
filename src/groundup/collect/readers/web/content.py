"""Main content of a web page that reads like no article: lists, tables, forums, a few lines.

One walk turns the parsed page into flat arrays: its block elements, and the pieces of text between
their borders.

    <body><div class="menu">…</div><div id="a"><h1>Rye</h1><p>It grew <a>well</a>.</p></div></body>

    elements  0 body, 1 div.menu, 2 div#a, 3 h1, 4 p
    pieces    "Rye" of 3, "It grew well." of 4, with 4 of its 13 characters in links

1. Elements with a name of what stands around a text (`sidebar`, `related-posts`, `<nav>`) are not
   read, unless they hold most of the page's text.
2. A piece weighs what it has outside of links, half of that where it is no prose. The content is
   the innermost element that holds nearly all of the weight.
3. In it, pieces and blocks that are mostly links are left out; the headline above it is kept.

Text length and link density tell text from the page around it (Kohlschütter et al. 2010); names of
elements do so as in Arc90's Readability. The figures were chosen on 980 pages that are in neither
set of `python -m benchmarks maintext` (docs/experiments.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from lxml import etree

from groundup.collect.readers.blocks import LAYOUT_CELL, Blocks, join_cells

# A piece of this many bytes is prose; so is a shorter one that ends like a sentence. Bytes, because
# a sentence is about as long in bytes in any script.
_PROSE, _SENTENCE = 80, 25
_SENTENCE_END = re.compile(r"[.!?…。！？।۔؟։:][\"'”’»」)\]]*\Z")
# What is no prose weighs this much.
_SCRAP = 0.5
# A piece or block with a greater share of its text in links is a menu.
_MOST_LINKED = 0.7
# An element with a bad name that holds more of the page's text than this is read. Sizes of elements
# inside each other take time by the square of their depth: a few are judged.
_MOST_OF_PAGE = 0.55
_MOST_JUDGED = 20
# The content holds this share of what is left; an element with a good name, this one.
_CONTENT_SHARE, _NAMED_SHARE = 0.9, 0.6

_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset"
    " figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav"
    " noscript ol p pre section summary table tbody td tfoot th thead tr ul".split()
)
_HEADINGS = frozenset("h1 h2 h3 h4 h5 h6".split())
_HEADLINES = frozenset(("h1", "h2"))
# What may be the content: no paragraph, list or heading is.
_CONTAINERS = frozenset("html body main article section div center table tbody tr td".split())
_NO_TEXT = frozenset(
    "head script style svg audio video iframe object template select textarea button"
    " canvas map noframes noembed".split()
)
# Elements that are left out by their tag, and those that no name of theirs can leave out.
_AROUND = frozenset("nav footer aside form menu figure dialog noscript".split())
_NEVER_AROUND = frozenset("html body main article".split())
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
# Parts of names, as `post-share` and `share_links` have them, and names as they are.
_AROUND_WORDS = frozenset(
    "nav navi navigation menu menus footer breadcrumb breadcrumbs sidebar comment comments"
    " kommentar kommentare disqus respond share sharing sharedaddy addtoany social socials follow"
    " related recommended recommendation recommendations similar popular trending teaser teasers"
    " promo promotion sponsored advert advertisement advertising ad newsletter subscribe"
    " subscription signup login cookie consent gdpr popup modal overlay tags taglist categories"
    " byline author authors meta date pagination pager paging toolbar rating ratings copyright"
    " legal disclaimer outbrain taboola likes wpcnt infobox toc credit credits caption source"
    " sources bio footnotes".split()
)
_AROUND_NAMES = frozenset(
    "read-more more-link most-read tag-links cat-links page-nav side-bar sr-only"
    " screen-reader-text visually-hidden jp-relatedposts".split()
)
# A name that begins or goes on like this says what is inside or beside: `has-sidebar`,
# `content-sidebar-wrap`.
_BESIDE = frozenset("has no with is js".split())
_WRAPPERS = frozenset("wrap wrapper contain container with content".split())
_CONTENT_NAMES = frozenset("article entry hentry".split())
# Attributes that name an element, and what stands for one that is not there.
_NAMES, _NO_NAMES = ("class", "id", "itemprop"), ("", "", "")
_CONTENT_NAME = re.compile(
    r"(?:^|\s)(?:entry|post|article|story|page|blog|news|main|art|single|text|content|node)[_-]?"
    r"(?:content|body|text|entry|inhalt|detail|main|copy)(?:\s|$)|articleBody",
    re.IGNORECASE,
)
# Elements whose start and end change how the text in them is read.
_COUNTED = frozenset("a br li ol pre table td th tr ul".split())
_CELLS, _LISTS, _LINES = frozenset(("td", "th")), frozenset(("ul", "ol")), frozenset(("dt", "dd"))
# What goes on in an item is a paragraph from this length on.
_LONG_ITEM = 120
_LIST_START = re.compile(r"[0-9]{1,9}")
_KEEPS_LINES = re.compile(r"white-space\s*:\s*(?:pre|break-spaces)", re.IGNORECASE)
# Stands for the start of a cell; a parsed page has none.
_CELL = "\0"


class _Piece(NamedTuple):
    """A text, how many of its characters are in links, the block it is in, its sort in `Blocks`."""

    text: str
    linked: int
    element: int
    sort: str

    @property
    def is_menu(self) -> bool:
        return self.linked > _MOST_LINKED * len(self.text)

    @property
    def weight(self) -> float:
        """How much the piece speaks for the elements that it is in."""
        size = len(self.text.encode())
        if self.is_menu:
            return 0
        is_prose = size >= _PROSE or (size >= _SENTENCE and _SENTENCE_END.search(self.text))
        return (1 if is_prose else _SCRAP) * (size - self.linked)


@dataclass
class _Page:
    """Block elements in the order of their start tags, and pieces.

    Element `i` is in `parents[i]` and holds the pieces from `first[i]` to `last[i]`. The first one
    stands for the page.
    """

    parents: list[int] = field(default_factory=lambda: [0])
    tags: list[str] = field(default_factory=lambda: ["html"])
    names: list[str] = field(default_factory=lambda: [""])
    first: list[int] = field(default_factory=lambda: [0])
    last: list[int] = field(default_factory=lambda: [0])
    pieces: list[_Piece] = field(default_factory=list)

    def sums(self, values: Iterable[float]) -> list[float]:
        """Return the sum over the pieces of each element."""
        total = [0.0, *accumulate(values)]
        return [
            total[last] - total[first] for first, last in zip(self.first, self.last, strict=True)
        ]

    def inside(self, marked: Iterable[bool]) -> list[bool]:
        """Return which elements are marked, or in one that is."""
        found: list[bool] = []
        for parent, is_marked in zip(self.parents, marked, strict=True):
            found.append(is_marked or (found[parent] if found else False))
        return found


def content_text(page: str) -> str:
    """Return the text of a page that is neither menu nor beside its content; "" if it has none."""
    parser = etree.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    root = etree.fromstring(page.replace("\0", "").encode("utf-8", "replace") or b" ", parser)
    if root is None:
        return ""
    etree.strip_elements(root, *_NO_TEXT, with_tail=False)
    body = root.find("body")
    root = root if body is None else body
    pieces = _content_pieces(_PageReader(_size(root)).read(root))
    blocks = Blocks()
    for piece in pieces or _PageReader(0).read(root).pieces:
        blocks.add(piece.text, piece.sort)
    return blocks.text()


def _content_pieces(page: _Page) -> list[_Piece]:
    """Return the pieces of the content."""
    pieces, content = page.pieces, _content_element(page)
    linked = page.sums(piece.linked for piece in pieces)
    sizes = page.sums(len(piece.text) for piece in pieces)
    is_menu = page.inside(
        element > content and linked[element] > _MOST_LINKED * sizes[element]
        for element in range(len(sizes))
    )
    kept = [not is_menu[piece.element] and not piece.is_menu for piece in pieces]
    inside = range(page.first[content], page.last[content])
    found = [index for index in inside if kept[index] and not _is_above_menu(pieces, kept, index)]
    return _headline(page, found) + [pieces[index] for index in found]


def _is_above_menu(pieces: Sequence[_Piece], kept: Sequence[bool], index: int) -> bool:
    """Return whether a piece is the heading of links, which it goes with."""
    is_heading = pieces[index].sort == "heading" and index + 1 < len(pieces)
    return is_heading and pieces[index + 1].is_menu and not any(kept[index + 1 : index + 3])


def _headline(page: _Page, found: Sequence[int]) -> list[_Piece]:
    """Return the headline above the first piece found, unless that is one itself."""
    if not found or page.pieces[found[0]].sort == "heading":
        return []
    above = (piece for piece in reversed(page.pieces[: found[0]]) if not piece.is_menu)
    return [piece for piece in above if page.tags[piece.element] in _HEADLINES][:1]


def _content_element(page: _Page) -> int:
    """Return the innermost element with nearly all of the weight, or with most and a good name."""
    content, named = 0, 0
    weights = page.sums(piece.weight for piece in page.pieces)
    for element in range(1, len(page.tags)):
        # Elements with this much of what their parent has follow each other inwards.
        is_in_content = page.parents[element] == content
        if is_in_content and weights[element] >= _CONTENT_SHARE * (weights[content] or 1):
            content = element
        most = weights[named] if named else _NAMED_SHARE * (weights[0] or 1)
        is_container = page.tags[element] in _CONTAINERS
        if weights[element] >= most and is_container and _CONTENT_NAME.search(page.names[element]):
            named = element
    if named and weights[named] >= _NAMED_SHARE * weights[content]:
        content = named
    while page.tags[content] not in _CONTAINERS:
        content = page.parents[content]
    return content


@lru_cache(maxsize=4096)
def _is_around(names: str) -> bool:
    """Return whether classes and an id are those of what stands around the text of a page."""
    classes = names.lower().split()
    if _CONTENT_NAMES.intersection(classes) or _CONTENT_NAME.search(names):
        return False
    for name in classes:
        parts = [part for part in re.split("[-_]+", name) if part]
        if name in _AROUND_NAMES:
            return True
        if not parts or parts[0] in _BESIDE:
            continue
        is_wrapper = len(parts) > 1 and parts[1] in _WRAPPERS
        if parts[-1] in _AROUND_WORDS or (parts[0] in _AROUND_WORDS and not is_wrapper):
            return True
    return False


def _size(element: Any) -> int:
    """Return how many characters the text of an element has, without white space."""
    text = etree.tostring(element, encoding="unicode", method="text", with_tail=False)
    return len("".join(text.split()))


class _PageReader:
    """Fills a `_Page` in one walk over a tree, without recursion.

    `size` is that of the page; with 0 all of it is read.
    """

    def __init__(self, size: int) -> None:
        self._page = _Page()
        self._most_around = _MOST_OF_PAGE * size
        self._to_judge = _MOST_JUDGED if size else 0
        self._open = [0]  # block elements that are open, innermost last
        self._parts: list[str] = []
        self._linked = 0
        self._is_data = [False]  # of each table that is open, whether it holds data
        # How many links, preformatted elements, elements that keep lines, and items are open.
        self._links = self._code = self._lines = self._items = 0
        self._is_new_item = False
        self._numbers: list[int | None] = []  # of the last item of each list that is open
        self._row: Any = None  # the row that is open, of a table of data

    def read(self, root: Any) -> _Page:
        """Return the page below an element."""
        walk: Any = etree.iterwalk(root, events=("start", "end"))
        # Of elements that are open: whether they are blocks, and keep lines; None where not read.
        entered: list[tuple[bool, bool] | None] = []
        for event, element in walk:
            if event == "end":
                if (kind := entered.pop()) is not None:
                    self._leave(element, *kind)
                if element.tail:
                    self._add(element.tail)
                continue
            entered.append(kind := self._enter(element))
            if kind is None:
                walk.skip_subtree()
            elif element.text:
                self._add(element.text)
        self._end()
        return self._page

    def _enter(self, element: Any) -> tuple[bool, bool] | None:
        """Start an element; return whether it is a block, keeps lines; None if it is left out."""
        tag, attributes = element.tag, dict(element.items())
        # The cells of a row are one block with it.
        is_block = tag in _BLOCKS and self._row is None
        if is_block:
            self._flush()
        if self._is_left_out(element, attributes, is_block):
            return None
        if is_block:
            self._start(tag, attributes)
        keeps_lines = "style" in attributes and bool(_KEEPS_LINES.search(attributes["style"]))
        self._lines += keeps_lines
        if tag in _COUNTED:
            self._count(element, 1)
        return is_block, keeps_lines

    def _leave(self, element: Any, is_block: bool, keeps_lines: bool) -> None:
        if is_block:
            self._end()
        if element.tag in _COUNTED:
            self._count(element, -1)
        self._lines -= keeps_lines

    def _is_left_out(self, element: Any, attributes: Mapping[str, str], is_block: bool) -> bool:
        """Return whether an element is hidden, or around the text and not most of the page."""
        tag = element.tag
        is_hidden = bool(attributes) and tag != "body" and _is_hidden(attributes)
        if not is_block or not self._to_judge:
            return is_hidden and not is_block
        names = f"{attributes.get('class', '')} {attributes.get('id', '')}"
        is_around = is_hidden or tag in _AROUND
        if not is_around and (tag in _NEVER_AROUND or not _is_around(names)):
            return False
        if _size(element) <= self._most_around:
            return True
        self._to_judge -= 1
        return False

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        page = self._page
        page.parents.append(self._open[-1])
        page.tags.append(tag)
        page.names.append(" ".join(map(attributes.get, _NAMES, _NO_NAMES)))
        page.first.append(len(page.pieces))
        page.last.append(0)
        self._open.append(len(page.tags) - 1)
        self._is_new_item = tag == "li" or (self._is_new_item and tag not in _LISTS)

    def _end(self) -> None:
        self._flush()
        self._page.last[self._open.pop()] = len(self._page.pieces)

    def _count(self, element: Any, change: int) -> None:
        """Note that an element starts or ends which changes how text is read, or is text itself."""
        tag = element.tag
        if tag == "a":
            self._links += change
        elif tag == "pre":
            self._code += change
        elif tag == "li" or tag in _LISTS:
            self._count_list(element, change)
        elif tag in ("table", "tr"):
            self._count_table(element, change)
        elif tag == "br" and change > 0:
            # The second of two ends a paragraph.
            last = "".join(self._parts[-2:]).rstrip(" ")
            if self._row is None and not self._code and last.endswith("\n"):
                self._flush()
            else:
                self._parts.append("\n")
        elif change > 0 and self._row is not None:
            self._parts.append(_CELL)

    def _count_list(self, element: Any, change: int) -> None:
        if element.tag == "li":
            self._items += change
            number = self._numbers[-1] if self._numbers else None
            if change > 0 and number is not None:
                self._numbers[-1] = number + 1
        elif change > 0:
            start = element.get("start", "")
            before = int(start) - 1 if _LIST_START.fullmatch(start) else 0
            self._numbers.append(before if element.tag == "ol" else None)
        else:
            self._numbers.pop()

    def _count_table(self, element: Any, change: int) -> None:
        if element.tag == "table" and change > 0:
            self._is_data.append(not _is_layout(element))
        elif element.tag == "table":
            self._is_data.pop()
        elif change > 0 and self._row is None and self._is_data[-1]:
            self._row = element
        elif element is self._row:
            self._row = None

    def _add(self, text: str) -> None:
        if not self._code and not self._lines:
            # White space is one space, line ends of the file too, unless it is preformatted.
            if text.isspace() and not self._parts:
                return
            text = _fold_spaces(text)
        self._parts.append(text)
        self._linked += len(text) if self._links else 0

    def _flush(self) -> None:
        """Make a piece of the text since the last border of a block."""
        if not self._parts:
            return
        text, linked = "".join(self._parts), self._linked
        self._parts, self._linked = [], 0
        tag = self._page.tags[self._open[-1]]
        if self._code:
            text, sort = text.strip("\n").rstrip(), "code"
        elif _CELL in text:
            cells = [" ".join(cell.split()) for cell in text.split(_CELL)[1:]]
            is_single = sum(map(bool, cells)) == 1
            text, sort = "".join(cells) if is_single else join_cells(cells), "row"
        elif tag in _HEADINGS:
            text, sort = text.strip(), "heading"
        elif self._items:
            text, sort = text.strip(), "item" if len(text) < _LONG_ITEM else "paragraph"
            if self._is_new_item and text:
                number = self._numbers[-1] if self._numbers else None
                mark = "-" if number is None else f"{number}."
                text, sort = f"{mark} {text}", "item"
        else:
            text, sort = text.strip(), "line" if tag in _LINES else "paragraph"
        if text:
            self._is_new_item = False
            piece = _Piece(text, min(linked, len(text)), self._open[-1], sort)
            self._page.pieces.append(piece)


def _fold_spaces(text: str) -> str:
    """Return a text that is not empty with one space for each run of white space."""
    folded = " ".join(text.split())
    if not folded:
        return " "
    # A pattern takes three times as long.
    return f"{' ' * text[0].isspace()}{folded}{' ' * text[-1].isspace()}"


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    """Return whether an element is not shown."""
    is_hidden = "hidden" in attributes or attributes.get("aria-hidden") == "true"
    return is_hidden or ("style" in attributes and bool(_HIDDEN.search(attributes["style"])))


def _is_layout(table: Any) -> bool:
    """Return whether a table arranges a page: its cells hold tables, paragraphs or long texts."""
    if table.get("role") == "presentation" or table.find(".//table") is not None:
        return True
    if next(table.iter("th", "thead", "caption"), None) is not None:
        return False
    cells = list(table.iter("td"))
    paragraphs = max((len(cell.findall("p")) for cell in cells), default=0)
    longest = max((len("".join(cell.itertext())) for cell in cells), default=0)
    has_code = table.find(".//pre") is not None
    return len(cells) == 1 or paragraphs > 1 or longest >= LAYOUT_CELL or has_code
