"""Writes the text of an XML document, element by element, as a dialect tells their roles.

    <sec><label>1</label><title>Aims</title>         1 Aims
    <p>We ask<xref ref-type="bibr">2</xref> two
    things<fn><p>Or three.</p></fn>:</p>       →     We ask two things:
    <list><list-item><p>who,</p></list-item>         Or three.
    </list></sec>                                    - who,

Text is collected until a block ends it. Notes wait for the end of their paragraph, list or stanza.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from groundup.collect.readers.blocks import Blocks, number_label, raised
from groundup.collect.readers.office.office import attribute, local_name, math_text
from groundup.collect.readers.xml.dialects import VALUED, Dialect

_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
# Noncharacters around the mark of a note, which is left out, or around a citation. A citation in
# words stays, unless brackets hold nothing else.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_HOLE = f"{_OPEN}{_CLOSE}"
_CITATION = f"{_OPEN}[^{_HOLE}]*+{_CLOSE}"
_BETWEEN = r"[\s,;–—-]*+"
_MARKS = re.compile(
    rf"\s?[\[(]{_BETWEEN}{_CITATION}(?:{_BETWEEN}{_CITATION})*+{_BETWEEN}[\])]"
    rf"|\s?{_HOLE}(?:{_BETWEEN}{_HOLE})*(?=[.,;:])|{_HOLE}(?:{_BETWEEN}{_HOLE})*|[{_HOLE}]"
)
_WORD = re.compile(r"[^\W\d_]{2}")
_SPACE, _SPACES = re.compile(r"\s+"), re.compile(r"[^\S\n]+")
# Signs that a word which goes on in the next line is cut by.
_CUT = re.compile(r"(?<=\w)[-¬⸗‐\xad]\s*\Z")
_SURE_CUT = re.compile(r"[-¬⸗‐\xad]?\s*\Z")
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_TEX_MARKS = re.compile(r"\A\s*(?:\$\$?|\\\[|\\\()|(?:\$\$?|\\\]|\\\))\s*\Z")
_DISPLAYED = frozenset("disp-formula equation informalequation".split())
_SEPARATORS = {"menuchoice": " > ", "keycombo": "+", "simplelist": ", "}
# Styles of numbers in JATS and DocBook, as `number_label` knows them.
_NUMBERS = dict(
    style.split("=")
    for style in "alpha-lower=lowerLetter alpha-upper=upperLetter roman-lower=lowerRoman"
    " roman-upper=upperRoman loweralpha=lowerLetter upperalpha=upperLetter lowerroman=lowerRoman"
    " upperroman=upperRoman".split()
)


class XmlWriter:
    """The text of an element, read in a dialect.

    `ids` are the elements that others refer to; None stands for a note that was added.
    """

    def __init__(self, dialect: Dialect, ids: dict[str, Any | None]) -> None:
        self.dialect, self.ids = dialect, ids
        self.blocks = Blocks()
        self.notes: list[Blocks] = []
        self._valued = {key.partition("=")[0] for key in dialect if "=" in key}
        self._parts: list[str] = []  # text of the block that is open
        self._sort = "paragraph"
        self._label = ""  # stands before the next block
        self._is_item = False  # the next block is the first of an item
        self._numbers: list[tuple[str, int]] = []  # of open lists: the style, and how far it is
        self._holding = 0  # lists and stanzas that are open
        self._is_verbatim = False
        self._cut: re.Pattern[str] | None = None  # a word that is cut where the text ends

    def role(self, element: Any) -> str:
        """Return the role of an element, "skip" for comments and entities; "" if it is inline."""
        name = local_name(element)
        if not name:
            return "skip"
        if name in self._valued:
            for key, values in element.attrib.items():
                if key.rpartition("}")[2] in VALUED:
                    for value in str(values).split():
                        if role := self.dialect.get(f"{name}={value}"):
                            return role
        parent = element.getparent()
        inside = "" if parent is None else f"{local_name(parent)}/{name}"
        return self.dialect.get(inside) or self.dialect.get(name, "")

    def add(self, element: Any) -> None:  # noqa: PLR0912 - a table of roles
        """Add an element by its role."""
        name = _identity(element)
        if name in self.ids and self.ids[name] is None:
            # A note that stands after its mark.
            return
        match role := self.role(element):
            case "skip":
                pass
            case "paragraph" | "line" | "code" | "lines":
                self._add_block(element, role)
            case "heading" | "term" | "label" | "speaker":
                self._add_title(element, role)
            case "list" | "numbered" | "group" | "abstract" | "admonition":
                self._add_group(element, role)
            case "item":
                self._add_item(element)
            case "table":
                self._add_table(element)
            case "note":
                self._add_note(element)
            case "noteref":
                target = self.ids.get(_reference(element))
                if target is None:
                    self._add_hole()
                else:
                    self._add_note(target)
            case "mark":
                is_words = _WORD.search("".join(element.itertext("*"))) is not None
                self._add_hole(element if is_words else None)
            case "meta":
                self._add_meta(element)
            case "formula":
                self._add_formula(element)
            case _:
                self._add_inline(element, role)

    def add_children(self, element: Any) -> None:
        """Add what is in an element, and its text."""
        self.add_text(element.text)
        for child in element:
            self.add(child)
            self.add_text(child.tail)

    def add_text(self, text: str | None) -> None:
        """Add text to the block that is open."""
        if not text:
            return
        if self._is_verbatim:
            self._parts.append(text)
            return
        text = _SPACE.sub(" ", text)
        if self._cut is not None:
            text = text.lstrip()
            if not text:
                return
            self._join_cut(text)
        self._parts.append(text)

    def finish(self) -> Blocks:
        """Return the blocks; headings below which nothing stands are taken off their end."""
        self.flush()
        self._holding = 0
        self._end_notes()
        parts = self.blocks.parts
        if any(sort not in ("heading", "break") for sort, _ in parts):
            while parts[-1][0] in ("heading", "break"):
                parts.pop()
        return self.blocks

    def flush(self) -> None:
        """End the block that is open."""
        text, self._cut = "".join(self._parts), None
        self._parts = []
        if not text.strip():
            return
        if _OPEN in text:
            text = _MARKS.sub("", _SPACES.sub(" ", text))
        sort = "paragraph" if self._sort == "lines" else self._sort
        if sort == "code":
            self.blocks.add(text.strip("\n"), sort)
        else:
            is_item = self._is_item and sort == "paragraph"
            self.blocks.add(self._label + text.lstrip(), "item" if is_item else sort)
        self._label, self._is_item = "", False
        if sort == "paragraph":
            self._end_notes()

    def _end_notes(self) -> None:
        """Add the notes that wait, unless a list or a stanza goes on."""
        if not self._holding:
            for note in self.notes:
                self.blocks.parts += note.parts
            self.notes = []

    def inside(self, element: Any) -> XmlWriter:
        """Return what stands in an element, read apart from the text around it."""
        inner = type(self)(self.dialect, self.ids)
        inner._holding = 1
        inner.add_children(element)
        inner.flush()
        return inner

    def flat(self, element: Any) -> str:
        """Return the text of an element in one line; its notes are the next that end."""
        inner = self.inside(element)
        self.notes += inner.notes
        return " ".join(" ".join(text for _, text in inner.blocks.parts).split())

    @contextmanager
    def _block(self, sort: str) -> Iterator[None]:
        """Add what the block adds as a block of a sort."""
        self.flush()
        before = (self._sort, self._is_verbatim)
        self._sort, self._is_verbatim = sort, self._is_verbatim or sort in ("code", "lines")
        yield
        self.flush()
        self._sort, self._is_verbatim = before

    def _add_block(self, element: Any, role: str) -> None:
        # A paragraph in an example of code or in a line of verse is a part of it.
        with self._block(self._sort if self._sort in ("code", "line") else role):
            self.add_children(element)

    def _add_title(self, element: Any, role: str) -> None:
        """Add a heading; what names the next block becomes its label."""
        self.flush()
        text = self.flat(element)
        if not text:
            return
        if role == "heading":
            self.blocks.add(self._label + text, "heading")
            self._label = ""
        elif role == "label":
            self._label = f"{text} "
        elif role == "speaker":
            self._label = f"{text.rstrip('.: ')}: "
        elif self._label.endswith(": "):
            # Several terms have one definition.
            self._label = f"{self._label.removesuffix(': ')}, {text}: "
        else:
            self._label += f"{text}: "

    def _add_group(self, element: Any, role: str) -> None:
        """Add blocks that belong together, such as a list or a stanza."""
        self.flush()
        if role == "admonition" and not any(self.role(child) == "heading" for child in element):
            self.blocks.add(local_name(element).capitalize(), "heading")
        is_list = role in ("list", "numbered")
        is_held = is_list or role == "group"
        # Between a list and a list in it is no gap.
        gap = [("break", "")] if role == "group" or (is_list and not self._numbers) else []
        self.blocks.parts += gap
        if is_list:
            style = attribute(element, "list-type") or attribute(element, "numeration")
            style = _NUMBERS.get(style, "decimal") if role == "numbered" else ""
            self._numbers.append((style, 0))
        self._holding += is_held
        self.add_children(element)
        self.flush()
        self._holding -= is_held
        if is_list:
            self._numbers.pop()
        self._label, self._is_item = "", False
        self._end_notes()
        self.blocks.parts += gap

    def _add_item(self, element: Any) -> None:
        self.flush()
        mark = "- "
        if self._numbers:
            style, number = self._numbers[-1]
            self._numbers[-1] = (style, number + 1)
            mark = f"{number_label(number + 1, style)}. " if style else mark
        # The term of a definition may stand before it.
        self._label, self._is_item = mark + self._label, True
        self.add_children(element)
        self.flush()
        self._label, self._is_item = "", False

    def _add_table(self, table: Any) -> None:
        self.flush()
        rows: list[list[list[str]]] = []
        self._holding += 1
        self._add_rows(table, rows)
        if self._label:
            self.blocks.add(self._label)
            self._label = ""
        self.blocks.add_table(rows)
        self._holding -= 1
        self._end_notes()

    def _add_rows(self, element: Any, rows: list[list[list[str]]]) -> None:
        """Collect the rows of a table; what else is in it, such as its title, is added."""
        for child in element:
            match self.role(child):
                case "row":
                    cells = [cell for cell in child if self.role(cell) == "cell"]
                    rows.append([self._cell(cell) for cell in cells])
                case "" | "group":
                    self._add_rows(child, rows)
                case _:
                    self.add(child)

    def _cell(self, cell: Any) -> list[str]:
        inner = self.inside(cell)
        self.notes += inner.notes
        return [text for _, text in inner.blocks.parts if text]

    def _add_note(self, element: Any) -> None:
        if name := _identity(element):
            self.ids[name] = None
        inner = self.inside(element)
        # The title of a note is its number.
        inner.blocks.parts = [part for part in inner.blocks.parts if part[0] != "heading"]
        self.notes += [inner.blocks, *inner.notes]
        self._add_hole()

    def _add_hole(self, citation: Any = None) -> None:
        """Add what stands for a mark that is left out, or around a citation in words."""
        self._parts.append(_OPEN)
        if citation is not None:
            self.add_children(citation)
        self._parts.append(_CLOSE)

    def _add_meta(self, element: Any) -> None:
        """Add the titles and abstracts among what is said about a document."""
        for child in element:
            match self.role(child):
                case "heading" | "abstract":
                    self.add(child)
                case "meta" | "":
                    self._add_meta(child)

    def _add_formula(self, element: Any) -> None:
        is_displayed = local_name(element) in _DISPLAYED
        formula = formula_text(element, is_displayed)
        if not formula and is_displayed:
            self._add_block(element, "paragraph")
        elif not formula:
            self.add_children(element)
        elif is_displayed:
            with self._block("code" if formula.startswith("$") else "paragraph"):
                self._parts.append(formula)
        else:
            self._parts.append(formula)

    def _add_inline(self, element: Any, role: str) -> None:
        """Add an element that is a part of the text around it."""
        match role:
            case "superscript" | "subscript":
                start, before = len(self._parts), "".join(self._parts[-2:])
                self.add_children(element)
                self._parts[start:] = [raised("".join(self._parts[start:]), role, before)]
            case "quote" | "parenthesis":
                marks = "“”" if role == "quote" else "()"
                self.add_text(marks[0])
                self.add_children(element)
                self.add_text(marks[1])
            case "spaced":
                parts = [text for text in map(self.flat, element) if text]
                self.add_text(_SEPARATORS.get(local_name(element), " ").join(parts))
            case "reference":
                self.add_children(element)
                if not len(element) and not element.text:
                    self.add_text(self._title_of(element))
            case "newline":
                self._parts.append("\n")
            case "linebreak":
                is_sure = attribute(element, "break") == "no"
                if is_sure or self._cut is None:
                    self._cut = _SURE_CUT if is_sure else _CUT
            case _:
                self.add_children(element)

    def _join_cut(self, text: str) -> None:
        """Join the parts of a word that a line break cuts; else a space stands for the break."""
        cut, self._cut = self._cut, None
        while self._parts and not self._parts[-1].strip(" "):
            self._parts.pop()
        last = self._parts[-1] if self._parts else ""
        match = cut.search(last) if cut is not None else None
        if match is None:
            self._parts.append(" ")
        elif cut is _SURE_CUT or text[0].islower():
            self._parts[-1] = last[: match.start()]

    def _title_of(self, element: Any) -> str:
        """Return the title of what a cross-reference refers to."""
        target = self.ids.get(_reference(element))
        label = attribute(target, "xreflabel")
        if target is None or label:
            return label
        titles = (child for child in target.iter("*") if self.role(child) in ("heading", "term"))
        title = next(titles, None)
        return "" if title is None else " ".join("".join(title.itertext("*")).split())


def identified(root: Any) -> dict[str, Any | None]:
    """Return the elements of a document by their ids."""
    ids: dict[str, Any | None] = {}
    for element in root.iter("*"):
        if name := _identity(element):
            ids.setdefault(name, element)
    return ids


def _identity(element: Any) -> str:
    return element.get(_XML_ID) or element.get("id") or ""


def _reference(element: Any) -> str:
    """Return the id of the element that another refers to."""
    names = (attribute(element, key) for key in ("rid", "href", "target", "linkend"))
    return next(filter(None, names), "").removeprefix("#")


def formula_text(element: Any, is_displayed: bool = False) -> str:
    """Return a formula in TeX, between dollars, or as a line; "" where it is in neither."""
    marks = ("$$\n", "\n$$") if is_displayed else ("$", "$")
    for part in element.iter("{*}tex-math", "{*}annotation", "{*}alt", "{*}formula"):
        encoding = (
            attribute(part, "encoding") + attribute(part, "notation") + attribute(part, "role")
        )
        if local_name(part) == "tex-math" or "tex" in encoding.lower():
            tex = "".join(part.itertext())
            body = _TEX_BODY.search(tex)
            tex = _TEX_MARKS.sub("", (body[1] if body else tex).strip()).strip()
            if tex:
                return f"{marks[0]}{tex}{marks[1]}"
    math = next(element.iter("{*}math"), None)
    return "" if math is None else " ".join(math_text(math).split())
