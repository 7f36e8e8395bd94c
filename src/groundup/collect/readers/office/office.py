"""PowerPoint files and what files of Office share: one document a file.

A package of Office Open XML has a member for each slide, and members of relations that say which
slides there are, and in which order. A slide gives its title, its other texts in order, its tables
and diagrams, then its notes. Comments, charts, dates, footers and numbers of slides are left out.

Word and PowerPoint files from before 2007 are read by a converter, if the machine has one.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.formats import detect_format
from groundup.collect.files.packages import Package
from groundup.collect.files.programs import run_program
from groundup.collect.files.streams import (
    MAX_RECORD,
    DamagedError,
    Item,
    TooLongError,
    deadline,
    memory_limit,
    read_all,
    spool,
)
from groundup.collect.readers.blocks import Blocks, symbols
from groundup.recipe import Source

# What one paragraph, table or slide may take while it is parsed.
MAX_BLOCK_MEMORY = 2 << 30
_TITLES = frozenset(("title", "ctrTitle"))
_SLIDE = re.compile(r"ppt/slides/slide\d+\.xml")
_MATH = "/math}"
# Structures of MathML; those of Office Math have other names.
_MATHML = frozenset("mfrac msup msub msubsup msqrt mover munder".split())
# What reads old files, the best first: text is printed, or written to x.txt.
_OFFICE = tuple("soffice --headless --convert-to txt:Text --outdir {folder} {path}".split())
_CONVERTERS = {
    "doc": (("antiword", "-w", "0", "{path}"), ("catdoc", "-w", "{path}"), _OFFICE),
    "ppt": (("catppt", "{path}"), _OFFICE),
}
# A line of more slides than this, by share, is a running footer.
_RUNNING_SHARE, _RUNNING_SLIDES, _RUNNING_LENGTH = 0.5, 3, 100
_FOOTERS = frozenset(("ftr", "sldNum", "dt", "hdr"))


@contextmanager
def bounded_parsing() -> Iterator[None]:
    """Bound the time and memory of the block, and how deep it recurses, by DamagedError."""
    try:
        with deadline(), memory_limit(MAX_BLOCK_MEMORY):
            yield
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    except RecursionError:
        raise DamagedError("nesting", "its elements nest too deeply") from None


def read_package(
    item: Item, title: str, text_of: Callable[[Package], str]
) -> Iterator[Document | Reject]:
    """Yield the document of a zip file of XML, within bounds of time and memory."""
    with item.path.open("rb") if item.path else spool(item.stream) as file:
        package = Package(file, title)
        with bounded_parsing():
            text = text_of(package)
    if text:
        yield Document(text, group=item.origin)
    elif package.damage is None:
        yield Reject("no-text", detail=f"a {title} without any text")
    if package.damage is not None:
        # What stands before the damage is kept.
        yield Reject(package.damage.reason, int(bool(text)), package.damage.detail)


def read_pptx(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of the slides of a PowerPoint file, each with its notes after it."""
    yield from read_package(item, "PPTX", lambda package: _Slides(package).text())


def read_encrypted(item: Item, source: Source) -> Iterator[Reject]:
    """Yield that a file of Office wants a password."""
    yield Reject("encrypted", detail="it wants a password: save it without one first")


def find_converter(format: str) -> tuple[str, ...] | None:
    """Return the command of the best program on this machine that reads an old format, if any."""
    commands = _CONVERTERS[format]
    return next((command for command in commands if shutil.which(command[0])), None)


def read_legacy(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of a Word or PowerPoint file from before 2007, by a program that reads it.

    The program is a child with bounds of time and memory.
    """
    suffix = detect_format(item.name, item.head)
    command = find_converter(suffix)
    if command is None:
        names = " or ".join(command[0] for command in _CONVERTERS[suffix])
        yield Reject("unsupported-format", detail=f"{suffix}: install {names}, or save it as"
                     f" {suffix}x first")  # fmt: skip
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{suffix}"
        path.write_bytes(read_all(item.stream, MAX_RECORD))
        text = run_program([part.format(path=path, folder=folder) for part in command], folder)
        written = path.with_suffix(".txt")
        if written.exists():
            with written.open("rb") as file:
                text = read_all(file)
    blocks = Blocks()
    for line in decode(text).split("\n") if text.strip() else ():
        blocks.add(line)
    if blocks.parts:
        yield Document(blocks.text(), group=item.origin)
    else:
        yield Reject("no-text", detail=f"{command[0]} finds no text in it")


def local_name(element: Any) -> str:
    """Return the name of an element without its namespace; "" of comments."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: Any, name: str = "val", default: str = "") -> str:
    """Return an attribute by its name without a namespace."""
    if element is None:
        return default
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return str(value)
    return default


def main_part(package: Package, fallback: str) -> str:
    """Return the member that holds the document itself."""
    parts = package.relations("").values()
    return next((part for kind, part in parts if kind == "officeDocument"), fallback)


def core_title(package: Package) -> str:
    """Return the title in the properties of a file of Office Open XML."""
    parts = package.relations("").values()
    name = next((part for kind, part in parts if kind == "core-properties"), "docProps/core.xml")
    return next((element.text or "" for element in package.elements(name, "{*}title")), "")


class _Slides:
    """The text of a PPTX."""

    def __init__(self, package: Package) -> None:
        self._package = package
        part = main_part(package, "ppt/presentation.xml")
        relations = package.relations(part)
        # A slide has an `id` of its own beside that of the relation, which has a namespace.
        ids = (
            next((value for key, value in slide.attrib.items() if key.endswith("}id")), "")
            for slide in package.elements(part, "{*}sldId")
        )
        self.names = [relations[key][1] for key in ids if key in relations]
        if not self.names:
            slides = (name for name in package.names if _SLIDE.fullmatch(name))
            self.names = sorted(slides, key=lambda name: (len(name), name))

    def text(self) -> str:
        """Return the text of the slides, without the lines that many of them repeat."""
        slides = [self._slide(name) for name in self.names]
        return without_running_lines(slides).text(core_title(self._package))

    def _slide(self, name: str) -> Blocks:
        """Return the blocks of a slide: its title, its shapes in order, its notes."""
        root, blocks = self._package.xml(name), Blocks()
        relations = self._package.relations(name)
        shapes = [] if root is None else list(_shapes(root))
        # Sorting keeps the order of shapes that are alike.
        for shape in sorted(shapes, key=lambda shape: _placeholder(shape) not in _TITLES):
            if local_name(shape) == "sp":
                _add_shape(blocks, shape)
            for table in shape.iter("{*}tbl"):
                rows = ([_cell(cell) for cell in row.iter("{*}tc")] for row in table.iter("{*}tr"))
                blocks.add_table(list(rows))
            for diagram in shape.iter("{*}relIds"):
                member = relations.get(attribute(diagram, "dm"), ("", ""))[1]
                for text in self._package.elements(member, "{*}t") if member else ():
                    for paragraph in text.iterchildren("{*}p"):
                        blocks.add(_paragraph(paragraph), "item")
        for notes in (member for kind, member in relations.values() if kind == "notesSlide"):
            root = self._package.xml(notes)
            for shape in () if root is None else _shapes(root):
                if _placeholder(shape) == "body":
                    for paragraph in shape.iter("{*}p"):
                        blocks.add(_paragraph(paragraph))
        return blocks


def without_running_lines(slides: list[Blocks]) -> Blocks:
    """Return the blocks of all slides without the short paragraphs that most of them repeat.

    Titles, items and the texts of placeholders stay.
    """
    counts = Counter(part for blocks in slides for part in set(blocks.parts))
    limit = max(_RUNNING_SLIDES, _RUNNING_SHARE * len(slides))
    whole = Blocks()
    for blocks in slides:
        for sort, text in blocks.parts:
            is_running = counts[sort, text] >= limit and len(text) <= _RUNNING_LENGTH
            if sort != "paragraph" or not is_running:
                whole.add(text, sort)
        whole.parts.append(("break", ""))
    return whole


def _shapes(root: Any) -> Iterator[Any]:
    """Yield the shapes of a slide that hold text, tables or diagrams, those in groups too."""
    for shape in root.iter("{*}sp", "{*}graphicFrame"):
        is_copy = any(local_name(parent) == "Fallback" for parent in shape.iterancestors())
        if not is_copy and _placeholder(shape) not in _FOOTERS:
            yield shape


def _placeholder(shape: Any) -> str:
    """Return the type of a placeholder, `obj` where none is given; "" for other shapes."""
    element = next(shape.iter("{*}ph"), None)
    return "" if element is None else attribute(element, "type", "obj")


def _add_shape(blocks: Blocks, shape: Any) -> None:
    """Add the paragraphs of a shape; those of the body of a slide are items of a list."""
    place = _placeholder(shape)
    paragraphs = [(_paragraph(p), p.find("{*}pPr")) for p in shape.iter("{*}p")]
    paragraphs = [(text, properties) for text, properties in paragraphs if text.strip()]
    is_list = place in ("body", "obj") and len(paragraphs) > 1
    number = 0
    for text, properties in paragraphs:
        marks = set() if properties is None else {local_name(mark) for mark in properties}
        number = number + 1 if "buAutoNum" in marks else 0
        if place in _TITLES:
            blocks.add(" ".join(text.split()), "heading")
        elif number:
            blocks.add(f"{number}. {text}", "item")
        elif "buChar" in marks or "buBlip" in marks or (is_list and "buNone" not in marks):
            blocks.add(f"- {text}", "item")
        else:
            blocks.add(text, "body" if place else "paragraph")


def _cell(cell: Any) -> list[str]:
    return [text for text in map(_paragraph, cell.iter("{*}p")) if text.strip()]


def _paragraph(element: Any) -> str:
    """Return the text of a paragraph of a slide, without its number and date."""
    parts = []
    for child in element.iter("{*}t", "{*}br", "{*}oMath"):
        name, parent = local_name(child), child.getparent()
        if name == "oMath":
            parts.append(math_text(child))
        elif name == "br":
            parts.append("\n")
        elif local_name(parent) == "r" and _MATH in parent.tag:
            continue
        elif not attribute(parent, "type").startswith(("slidenum", "datetime")):
            font = parent.find("{*}rPr/{*}latin")
            parts.append(symbols(child.text or "", attribute(font, "typeface")))
    return "".join(parts)


def math_text(element: Any) -> str:
    """Return a formula of Office, or in MathML, as a line: `(a+b)/2`, `x^2`, `∑_(i=1)^n a_i`."""
    name = local_name(element)
    if name in ("t", "mi", "mn", "mo", "mtext"):
        return element.text or ""
    if name.endswith("Pr") or name.startswith("annotation"):
        return ""
    if name in _MATHML:
        cells = [math_text(child) for child in element] + ["", "", ""]
        return _mathml(name, *cells[:3])
    text = _office_math(element, name)
    return "".join(math_text(child) for child in element) if text is None else text


def _office_math(element: Any, name: str) -> str | None:  # noqa: PLR0911 - a table of cases
    """Return a structure of a formula of Office, None where it is a group of others."""
    parts = {local_name(child): child for child in element}
    properties = list(parts.get(f"{name}Pr", ()))
    signs = {local_name(child): attribute(child) for child in properties}

    def part(key: str) -> str:
        return math_text(parts[key]) if key in parts else ""

    def scripts() -> str:
        return _script("_", part("sub")) + _script("^", part("sup"))

    match name:
        case "f":
            return f"{_grouped(part('num'))}/{_grouped(part('den'))}"
        case "sSup" | "sSub" | "sSubSup":
            return part("e") + scripts()
        case "rad":
            return part("deg") + f"√{_grouped(part('e'))}"
        case "nary":
            return f"{signs.get('chr', '∫')}{scripts()} {part('e')}"
        case "d":
            cells = [math_text(child) for child in element.iterchildren("{*}e")]
            start, end = signs.get("begChr", "("), signs.get("endChr", ")")
            return start + signs.get("sepChr", "|").join(cells) + end
        case "func":
            return f"{part('fName')} {part('e')}"
        case "limLow" | "limUpp":
            return part("e") + _script("_" if name == "limLow" else "^", part("lim"))
        case "m":
            rows = ([math_text(cell) for cell in row] for row in element.iterchildren("{*}mr"))
            return "[" + "; ".join(", ".join(row) for row in rows) + "]"
    return None


def _mathml(name: str, first: str, second: str, third: str) -> str:
    match name:
        case "mfrac":
            return f"{_grouped(first)}/{_grouped(second)}"
        case "msqrt":
            return f"√{_grouped(first + second + third)}"
        case "msup" | "mover":
            return first + _script("^", second)
    return first + _script("_", second) + _script("^", third)


def _script(mark: str, text: str) -> str:
    return mark + _grouped(text) if text else ""


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"\w*", text) else f"({text})"
