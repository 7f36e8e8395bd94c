"""OpenDocument texts and presentations (ODT, ODP): one document a file.

`content.xml` holds the text in order; it refers to the styles of lists, here and in `styles.xml`.
Text stands between the tags of a paragraph, as in HTML. Deletions stand apart from the text, and
are left out with comments, headers, footers, hidden text, numbers of pages and indexes. Notes stand
at the end of a text, and after their slide in a presentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.packages import Package
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.blocks import CODE_FONT, Blocks, number_label, raised, symbols
from groundup.collect.readers.office.office import (
    attribute,
    local_name,
    math_text,
    read_package,
    without_running_lines,
)
from groundup.recipe import Source

# Parts of a document that are no text of it, and fields that are no words of it.
_SKIPPED = frozenset(
    "tracked-changes annotation annotation-end forms sequence-decls variable-decls scripts"
    " user-field-decls dde-connection-decls table-of-content illustration-index table-index"
    " object-index user-index alphabetical-index note-citation ruby-text page-number page-count"
    " hidden-text hidden-paragraph title-hint desc date-time footer header settings"
    " table-header-source shapes event-listeners object-ole plugin".split()
)
_PLACES_SKIPPED = frozenset(("footer", "header", "date-time", "page-number", "page"))
_MAX_SPACES, _MAX_CELLS = 100, 200
_NUMBER_STYLES = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_CODE_STYLE = ("preformatted", "code", "source")
# Their font is that of the whole text, which may be typed.
_DEFAULT_STYLES, _MAX_STYLES = ("", "standard", "text_20_body"), 8
# A part of a document that is parsed, read and cleared at a time.
_BLOCKS = ("{*}p", "{*}h", "{*}list", "{*}table", "{*}page", "{*}tracked-changes")


def read_odt(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of an OpenDocument text."""
    yield from read_package(item, "ODT", lambda package: _OpenDocument(package).text())


def read_odp(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of an OpenDocument presentation, slide by slide, notes after each."""
    yield from read_package(item, "ODP", lambda package: _OpenDocument(package).text())


@dataclass
class _ListLevel:
    """The numbers of one level of a list: "" as style is a bullet."""

    style: str = ""
    prefix: str = ""
    suffix: str = ""
    start: int = 1


def check_password(package: Package) -> None:
    """Raise DamagedError if a file of OpenDocument wants a password."""
    if package.elements("META-INF/manifest.xml", "{*}encryption-data"):
        raise DamagedError("encrypted", "it wants a password: save it without one first")


@dataclass
class _OpenDocument:
    """The text of an ODT or ODP."""

    package: Package
    blocks: Blocks = field(default_factory=Blocks)
    notes: list[Any] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)  # frames in the paragraph that is read
    # Style of a list → level → its numbers; style of a paragraph or a character → font and parent.
    lists: dict[str, dict[int, _ListLevel]] = field(default_factory=dict)
    fonts: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    # Style of a run → "superscript" or "subscript".
    aligns: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # how far a list has counted

    def text(self) -> str:
        """Return the text; DamagedError if the file wants a password."""
        check_password(self.package)
        for style in self.package.elements("styles.xml", "*"):
            self._read_style(style)
        slides: list[Blocks] = []
        styles = ("{*}list-style", "{*}style")
        for block in self.package.stream_elements("content.xml", (*_BLOCKS, *styles)):
            parents = {local_name(parent) for parent in block.iterancestors()}
            if local_name(block) in ("list-style", "style"):
                for part in block.iter("*"):
                    self._read_style(part)
            elif not parents & _BLOCKS_INSIDE:
                self._add(block)
                if local_name(block) == "page":
                    slides.append(self.blocks)
                    self.blocks = Blocks()
                block.clear()
                while block.getprevious() is not None:
                    del block.getparent()[0]
        if slides:
            self.blocks = without_running_lines(slides)
        for note in self.notes:
            self._add_children(note)
        return self.blocks.text(self._title())

    def _title(self) -> str:
        titles = self.package.elements("meta.xml", "{http://purl.org/dc/elements/1.1/}title")
        return next((element.text or "" for element in titles), "")

    def _read_style(self, element: Any) -> None:
        name = local_name(element)
        if name in ("list-level-style-number", "list-level-style-bullet"):
            levels = self.lists.setdefault(attribute(element.getparent(), "name"), {})
            number = attribute(element, "num-format") if name.endswith("number") else ""
            suffix = attribute(element, "num-suffix", ".")
            start = attribute(element, "start-value", "1")
            level = attribute(element, "level", "1")
            levels[int(level) if level.isdecimal() else 1] = _ListLevel(
                number, attribute(element, "num-prefix"), suffix,
                int(start) if start.isdecimal() and len(start) < 7 else 1,
            )  # fmt: skip
        elif name == "text-properties":
            font = attribute(element, "font-name")
            style = attribute(element.getparent(), "name")
            self.fonts[style] = font
            position = attribute(element, "text-position")
            if position and not position.startswith("0"):
                is_low = position.startswith(("sub", "-"))
                self.aligns[style] = "subscript" if is_low else "superscript"
        elif name == "style":
            parent = attribute(element, "parent-style-name")
            self.parents[attribute(element, "name")] = parent

    def _add(self, element: Any) -> None:
        """Add a part of the document by its name."""
        match local_name(element):
            case "p" | "h" as name:
                self._add_paragraph(element, "heading" if name == "h" else "paragraph", "")
            case "list":
                self._add_list(element, 1, "")
            case "table":
                self._add_table(element)
            case "note":
                self.notes.append(element)
            case "frame" | "notes":
                if attribute(element, "class") not in _PLACES_SKIPPED:
                    self._add_children(element)
            case "page":
                self._add_slide(element)
            case name if name not in _SKIPPED and name:
                self._add_children(element)

    def _add_children(self, element: Any) -> None:
        for child in element:
            self._add(child)

    def _add_slide(self, page: Any) -> None:
        """Add a slide: its title, its other frames in order, its notes."""
        for frame in sorted(page, key=_slide_order):
            if attribute(frame, "class") == "title":
                text = " ".join(" ".join(self._inline(p).split()) for p in frame.iter("{*}p"))
                self.blocks.add(text, "heading")
            else:
                self._add(frame)

    def _add_paragraph(self, element: Any, sort: str, label: str) -> None:
        outer, self.boxes = self.boxes, []
        text = self._inline(element)
        boxes, self.boxes = self.boxes, outer
        if sort == "paragraph" and self._is_code(attribute(element, "style-name")):
            sort = "code"
        if text.strip():
            self.blocks.add(label + text, "item" if label and sort == "paragraph" else sort)
        for box in boxes:
            self._add_children(box)

    def _is_code(self, style: str) -> bool:
        """Return whether a style, or one that it is based on, is one of code by name or font."""
        for _ in range(_MAX_STYLES):
            if style.lower() in _DEFAULT_STYLES:
                return False
            if any(word in style.lower() for word in _CODE_STYLE):
                return True
            if font := self.fonts.get(style):
                return CODE_FONT.search(font) is not None
            style = self.parents.get(style, "")
        return False

    def _add_list(self, element: Any, level: int, style: str) -> None:
        """Add the items of a list; a list inside an item is one level deeper."""
        style = attribute(element, "style-name", style)
        numbers = self.lists.get(style, {}).get(level, _ListLevel())
        number = numbers.start - 1
        if attribute(element, "continue-numbering") == "true":
            number = self.counts.get(f"{style}/{level}", number)
        for item in element:
            is_counted = local_name(item) == "list-item" and any(
                local_name(child) in ("p", "h") for child in item
            )
            number += is_counted
            label = "- "
            if numbers.style:
                value = number_label(number, _NUMBER_STYLES.get(numbers.style, "decimal"))
                label = f"{numbers.prefix}{value}{numbers.suffix} "
            label = label if is_counted else ""
            for child in item:
                name = local_name(child)
                if name == "list":
                    self._add_list(child, level + 1, style)
                elif name in ("p", "h"):
                    sort = "heading" if name == "h" else "paragraph"
                    # Numbers of headings stand in lists that hold one heading each.
                    is_heading = name == "h" and not numbers.style
                    self._add_paragraph(child, sort, "" if is_heading else label)
                    label = ""
                else:
                    self._add(child)
        self.counts[f"{style}/{level}"] = number

    def _add_table(self, table: Any) -> None:
        rows = []
        for row in table.iter("{*}table-row"):
            if next(row.iterancestors("{*}table")) is table:
                cells = row.iterchildren("{*}table-cell", "{*}covered-table-cell")
                rows.append([self._cell(cell) for cell in cells][:_MAX_CELLS])
        self.blocks.add_table(rows)

    def _cell(self, cell: Any) -> list[str]:
        outer, self.blocks = self.blocks, Blocks()
        self._add_children(cell)
        paragraphs, self.blocks = [text for _, text in self.blocks.parts if text], outer
        return paragraphs

    def _inline(self, element: Any) -> str:
        """Return the text of a paragraph; notes and frames in it are remembered."""
        parts: list[str] = []
        self._walk(element, parts, self._font(element, ""))
        return "".join(parts)

    def _font(self, element: Any, outer: str) -> str:
        return self.fonts.get(attribute(element, "style-name"), "") or outer

    def _walk(self, element: Any, parts: list[str], font: str) -> None:
        # White space of the file is one space; more of it has elements.
        parts.append(_spaced(element.text, font))
        for child in element:
            name = local_name(child)
            if name == "s":
                count = attribute(child, "c", "1")
                parts.append(" " * (min(int(count), _MAX_SPACES) if count.isdecimal() else 1))
            elif name in ("tab", "line-break"):
                parts.append(" " if name == "tab" else "\n")
            elif name == "note":
                self.notes += child.iterchildren("{*}note-body")
            elif name in ("frame", "text-box", "custom-shape"):
                self._remember(child, parts)
            elif name and name not in _SKIPPED:
                inner: list[str] = []
                self._walk(child, inner, self._font(child, font))
                align = self.aligns.get(attribute(child, "style-name"), "")
                parts.append(raised("".join(inner), align, "".join(parts[-2:])))
            parts.append(_spaced(child.tail, font))

    def _remember(self, frame: Any, parts: list[str]) -> None:
        """Read a formula in its place, and a frame of text after the paragraph."""
        links = [attribute(part, "href") for part in frame.iterchildren("{*}object")]
        root = self.package.xml(f"{links[0].removeprefix('./')}/content.xml") if links else None
        if root is not None and local_name(root) == "math":
            parts.append(math_text(root))
        elif attribute(frame, "class") not in _PLACES_SKIPPED:
            self.boxes.append(frame)


# A block inside one of these is read with it.
_BLOCKS_INSIDE = frozenset(
    "p h list table page tracked-changes annotation forms note master-styles".split()
) | (_SKIPPED - {"title-hint"})


def _spaced(text: str | None, font: str) -> str:
    if not text:
        return ""
    squeezed = " ".join(text.split())
    left = " " if text[0].isspace() else ""
    right = " " if squeezed and text[-1].isspace() else ""
    return symbols(f"{left}{squeezed}{right}", font)


def _slide_order(frame: Any) -> int:
    """Return 0 for the title of a slide, 2 for its notes, 1 for what stands between."""
    if attribute(frame, "class") == "title":
        return 0
    return 2 if local_name(frame) == "notes" else 1
