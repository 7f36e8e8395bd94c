"""Word files (Office Open XML): one document a file.

`word/document.xml` holds the text in order, with its tables, and refers to styles, numbers of lists
and notes in members of their own. What a reader of the paper sees is kept, and only once: the
result of a field and not its code, insertions and not deletions, a text box and not its copy for
older programs. Comments, headers, footers, hidden text and tables of contents are left out. Notes
stand at the end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.packages import Package
from groundup.collect.files.streams import Item
from groundup.collect.readers.blocks import CODE_FONT, Blocks, number_label, raised, symbols
from groundup.collect.readers.office.office import (
    attribute,
    core_title,
    local_name,
    main_part,
    math_text,
    read_package,
)
from groundup.recipe import Source

_SKIPPED = frozenset(
    "pPr rPr del moveFrom delText instrText Fallback rt sectPr tblPr trPr tcPr sdtPr numPr"
    " oMathParaPr".split()
)
_CHARACTERS = {"tab": " ", "ptab": " ", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_CONTENTS_STYLE = re.compile(r"toc ?\d|table of figures|contents \d|index \d", re.IGNORECASE)
_HEADING_STYLE = re.compile(r"title|(?:heading|überschrift|titre|rubrik) ?\d", re.IGNORECASE)
_CODE_STYLE = re.compile(r"code\b|preformatted|verbatim|\bsource\b", re.IGNORECASE)
_LEVEL = re.compile(r"%([1-9])")
_ON = ("1", "true", "on")


def read_docx(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of a Word file."""
    yield from read_package(item, "DOCX", lambda package: _Word(package).text())


@dataclass(frozen=True)
class _Style:
    """What a style says of its paragraphs, with what it is based on."""

    name: str = ""
    level: int = 9  # in the outline, from 0; 9 is body text
    list_id: str = ""
    list_level: int = 0
    hidden: bool = False
    is_code: bool = False


@dataclass
class _Lists:
    """The numbers of lists: `numbering.xml`, and how far each list has counted."""

    # List → its definition; definition → level → (style of number, text, first number).
    definitions: dict[str, str] = field(default_factory=dict)
    levels: dict[str, dict[int, tuple[str, str, int]]] = field(default_factory=dict)
    counts: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def of(cls, root: Any) -> _Lists:
        """Return the lists of a member `numbering.xml`, which may be missing."""
        lists = cls()
        for abstract in () if root is None else root.iter("{*}abstractNum"):
            levels = lists.levels.setdefault(attribute(abstract, "abstractNumId"), {})
            for level in abstract.iterchildren("{*}lvl"):
                start = _integer(attribute(level.find("{*}start")), 1)
                style = attribute(level.find("{*}numFmt"), default="decimal")
                text = attribute(level.find("{*}lvlText"))
                levels[_integer(attribute(level, "ilvl"), 0)] = (style, text, start)
        for number in () if root is None else root.iter("{*}num"):
            definition = attribute(number.find("{*}abstractNumId"))
            lists.definitions[attribute(number, "numId")] = definition
        return lists

    def label(self, list_id: str, level: int) -> str:
        """Count one paragraph of a list, and return what stands before it."""
        definition = self.definitions.get(list_id, "")
        levels = self.levels.get(definition, {})
        style, text, start = levels.get(level, ("bullet", "", 1))
        counts = self.counts[definition]
        counts[level] = counts.get(level, start - 1) + 1
        for deeper in [other for other in counts if other > level]:
            del counts[deeper]
        if style in ("bullet", "none") or not _LEVEL.search(text):
            return "- " if style != "none" else ""

        def number(match: re.Match[str]) -> str:
            other = int(match[1]) - 1
            other_style, _, first = levels.get(other, ("decimal", "", 1))
            return number_label(counts.get(other, first), other_style)

        return _LEVEL.sub(number, text)[:40] + " "


class _Word:
    """The text of a DOCX."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._part = main_part(package, "word/document.xml")
        self._relations = package.relations(self._part)
        self._styles = self._read_styles()
        self._lists = _Lists.of(package.xml(self._member("numbering")))
        self._blocks = Blocks()
        # For each field that is open: whether its code, not its result, is being read.
        self._fields: list[bool] = []
        self._notes: list[tuple[str, str]] = []  # footnotes or endnotes, id
        self._boxes: list[Any] = []  # text boxes of the paragraph
        self._unended = ""  # text of paragraphs whose end was deleted

    def text(self) -> str:
        """Return the text of the document, notes at its end."""
        tags = ("{*}p", "{*}tbl")
        for block in self._package.stream_elements(self._part, tags):
            parents = {local_name(parent) for parent in block.iterancestors()}
            if not parents & {"p", "tbl", "Fallback", "txbxContent"}:
                self._add_block(block)
                block.clear()
                # Earlier siblings hold memory, too.
                while block.getprevious() is not None:
                    del block.getparent()[0]
        self._add_notes()
        return self._blocks.text(core_title(self._package))

    def _member(self, kind: str) -> str:
        parts = (part for type_, part in self._relations.values() if type_ == kind)
        return next(parts, f"word/{kind}.xml")

    def _read_styles(self) -> dict[str, _Style]:
        """Return the styles of paragraphs and characters by id."""
        elements = {
            attribute(element, "styleId"): element
            for element in self._package.elements(self._member("styles"), "{*}style")
        }
        styles: dict[str, _Style] = {}
        for key, element in elements.items():
            chain = [element]
            while (
                len(chain) < 16
                and (base := elements.get(attribute(chain[-1].find("{*}basedOn")))) is not None
            ):
                chain.append(base)
            values = [_paragraph_values(part) for part in chain]
            name = attribute(element.find("{*}name"))
            fonts = (attribute(part.find("{*}rPr/{*}rFonts"), "ascii") for part in chain
                     if attribute(part, "default") not in _ON)  # fmt: skip
            font = next(filter(None, fonts), "")
            styles[key] = _Style(
                name,
                next((_integer(value["level"], 9) for value in values if value["level"]), 9),
                next((value["list"] for value in values if value["list"]), ""),
                next((_integer(value["depth"], 0) for value in values if value["depth"]), 0),
                _is_on(element.find("{*}rPr/{*}vanish")),
                bool(_CODE_STYLE.search(name) or CODE_FONT.search(font)),
            )
        return styles

    def _add_block(self, block: Any) -> None:
        if local_name(block) == "tbl":
            self._blocks.add_table(self._rows(block))
        else:
            self._add_paragraph(block)

    def _add_paragraph(self, element: Any) -> None:
        """Add a paragraph, with the number or bullet of its list, and its text boxes after it."""
        outer_boxes, self._boxes = self._boxes, []
        text = self._unended + self._inline(element)
        boxes, self._boxes = self._boxes, outer_boxes
        properties = element.find("{*}pPr")
        style = self._styles.get(_style_id(properties), _Style())
        is_unended = properties is not None and properties.find("{*}rPr/{*}del") is not None
        self._unended = text if is_unended else ""
        if not is_unended and not _CONTENTS_STYLE.fullmatch(style.name):
            sort = "paragraph"
            if style.level < 9 or _HEADING_STYLE.fullmatch(style.name):
                sort = "heading"
            elif style.is_code:
                sort = "code"
            label = self._label(properties, style) if text.strip() else ""
            sort = "item" if label and sort == "paragraph" else sort
            self._blocks.add(label + text, sort)
        for box in boxes:
            for child in box.iterchildren("{*}p", "{*}tbl", "{*}sdt"):
                self._add_content(child)

    def _add_content(self, element: Any) -> None:
        """Add a paragraph or a table, or those inside a content control."""
        if local_name(element) in ("p", "tbl"):
            self._add_block(element)
        else:
            for child in element.iterchildren():
                self._add_content(child)

    def _label(self, properties: Any, style: _Style) -> str:
        list_id, level = style.list_id, style.list_level
        own = None if properties is None else properties.find("{*}numPr")
        if own is not None:
            list_id = attribute(own.find("{*}numId"), default=list_id)
            level = _integer(attribute(own.find("{*}ilvl")), level)
        return "" if list_id in ("", "0") else self._lists.label(list_id, level)

    def _rows(self, table: Any) -> list[list[list[str]]]:
        """Return the rows of a table as cells of paragraphs; tables inside are paragraphs."""
        rows = []
        for row in table.iter("{*}tr"):
            if next(row.iterancestors("{*}tbl")) is not table or _is_deleted(row):
                continue
            cells = (cell for cell in row.iter("{*}tc") if next(cell.iterancestors("{*}tr")) is row)
            rows.append([self._cell(cell) for cell in cells])
        return rows

    def _cell(self, cell: Any) -> list[str]:
        """Return the paragraphs of a cell, text boxes included."""
        outer, self._blocks = self._blocks, Blocks()
        for child in cell.iterchildren():
            self._add_content(child)
        paragraphs, self._blocks = [text for _, text in self._blocks.parts if text], outer
        return paragraphs

    def _inline(self, element: Any) -> str:
        """Return the text of a paragraph; its notes and text boxes are remembered."""
        parts: list[str] = []
        self._walk(element, parts, "")
        return "".join(parts)

    def _walk(self, parent: Any, parts: list[str], font: str) -> None:
        for element in parent:
            name = local_name(element)
            if name in _SKIPPED:
                continue
            if name == "fldChar":
                self._turn_field(attribute(element, "fldCharType"))
            elif name in ("txbxContent", "footnoteReference", "endnoteReference"):
                self._remember(element, name)
            elif any(self._fields):
                # The code of a field; a field in it may have ends of its own.
                self._walk(element, parts, font)
            elif name == "t":
                parts.append(symbols(element.text or "", font))
            elif name in _CHARACTERS:
                parts.append(_CHARACTERS[name])
            elif name == "sym":
                parts.append(_symbol(element))
            elif name == "oMath":
                parts.append(math_text(element))
            elif name == "r":
                self._add_run(element, parts)
            else:
                self._walk(element, parts, font)

    def _add_run(self, run: Any, parts: list[str]) -> None:
        properties = run.find("{*}rPr")
        font = attribute(None if properties is None else properties.find("{*}rFonts"), "ascii")
        inner: list[str] = []
        self._walk(run, inner, font)
        if properties is not None and inner:
            if self._is_hidden(properties):
                return
            align = attribute(properties.find("{*}vertAlign"))
            inner = [raised("".join(inner), align, "".join(parts[-1:]))]
        parts += inner

    def _is_hidden(self, properties: Any) -> bool:
        own = properties.find("{*}vanish")
        style = self._styles.get(attribute(properties.find("{*}rStyle")), _Style())
        return style.hidden if own is None else _is_on(own)

    def _turn_field(self, kind: str) -> None:
        """Follow the marks of a field: `begin` code `separate` result `end`."""
        if kind == "begin":
            self._fields.append(True)
        elif self._fields and kind == "separate":
            self._fields[-1] = False
        elif self._fields and kind == "end":
            self._fields.pop()

    def _remember(self, element: Any, name: str) -> None:
        if name == "txbxContent":
            self._boxes.append(element)
        elif not any(self._fields):
            self._notes.append((name.removesuffix("Reference") + "s", attribute(element, "id")))

    def _add_notes(self) -> None:
        """Add the footnotes, then the endnotes, in the order of their marks in the text."""
        marks, self._fields = dict.fromkeys(self._notes), []
        for kind in ("footnotes", "endnotes"):
            if not any(other == kind for other, _ in marks):
                continue
            members = self._package.elements(self._member(kind), f"{{*}}{kind[:-1]}")
            notes = {attribute(note, "id"): note for note in members}
            for note in (notes.get(key) for other, key in marks if other == kind):
                if note is not None:
                    self._add_content(note)


def _paragraph_values(element: Any) -> dict[str, str]:
    """Return what a style itself says of level, list and depth; "" where it says nothing."""
    numbers = element.find("{*}pPr/{*}numPr")
    return {
        "level": attribute(element.find("{*}pPr/{*}outlineLvl")),
        "list": "" if numbers is None else attribute(numbers.find("{*}numId")),
        "depth": "" if numbers is None else attribute(numbers.find("{*}ilvl")),
    }


def _style_id(properties: Any) -> str:
    return "" if properties is None else attribute(properties.find("{*}pStyle"))


def _is_on(element: Any) -> bool:
    return element is not None and attribute(element, default="1") not in ("0", "false", "off")


def _is_deleted(row: Any) -> bool:
    return row.find("{*}trPr/{*}del") is not None


def _integer(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"\d{1,6}", text) else default


def _symbol(element: Any) -> str:
    code = attribute(element, "char")
    if not re.fullmatch(r"[0-9A-Fa-f]{1,4}", code):
        return ""
    return symbols(chr(0xF000 | (int(code, 16) & 0xFF)), attribute(element, "font"))
