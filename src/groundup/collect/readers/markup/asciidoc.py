"""AsciiDoc: headings, paragraphs, lists, notes, tables and code.

    = Title                               Title
    Ann <a@x.org>
    :what: word                           A word, see b.
                                     →
    A *{what}*, see http://x.y[b].        Note
    NOTE: Mind the gap.
                                          Mind the gap.

A scanner of lines: blocks that hold blocks are read as if their borders were blank lines. Values of
attributes that the document sets are put in, and conditions are asked with them, as if the page
were made for the web. Other files are never included.
"""

from __future__ import annotations

import re

from groundup.collect.readers.markup.asciidoc_inline import inline_words
from groundup.collect.readers.markup.asciidoc_tables import table_rows
from groundup.collect.readers.markup.plain import (
    Stash,
    dedent,
    indent_of,
    join_lines,
    read_markup,
    table_row,
    tidy,
)

_CONDITION = re.compile(r"(ifn?def|ifeval|endif)::([^\[\]\s]*)\[(.*)\]\Z")
# Another file, and the parts that others take of this one.
_FILES = ("include::", "tag::", "end::")
_COMPARISON = re.compile(
    r"\s*(\S+|\"[^\"]*\"|'[^']*')\s*([=!]=|[<>]=?)\s*(\S+|\"[^\"]*\"|'[^']*')\s*\Z"
)
_DIRECTIVE = re.compile(r"\\(?=(?:ifn?def|ifeval|endif|include)::)")
_ENTRY = re.compile(r":(!?)([\w-]+)(!?):(?:[ \t]+(.*))?\Z")
_REFERENCE = re.compile(r"(\\?)\{([\w-]+)\}")
_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+\1)?\Z")
_UNDERLINE = re.compile(r"(?:=+|-+|~+|\^+|\++)\Z")
_SETTINGS = re.compile(r"\[(?:[\w.#%{,\"'][^\n]*|\[[^\[\]]*\])?\]\Z")
_TITLE = re.compile(r"\.(?![\s.])(.*)")
_MACRO = re.compile(r"[a-z][\w-]*::\S*\[.*\]\Z")
_RULE = re.compile(r"(?:'{3,}|<{3,}|-{3}|\*{3}|- - -|\* \* \*)\Z")
_BORDER = re.compile(
    r"(?:-{4,}|\.{4,}|\+{4,}|/{4,}|={4,}|\*{4,}|_{4,}|~{4,}|--|[|,:!]={3,}|```[\w,+#-]*)\Z"
)
_NOTE = re.compile(r"(NOTE|TIP|IMPORTANT|WARNING|CAUTION):[ \t]+(.*)")
_ITEM = re.compile(
    r"[ \t]*(-|\*{1,6}|\.{1,6}|•|\d{1,6}\.|[A-Za-z]\.|[ivxIVX]{1,6}\))[ \t]+"
    r"(?:\[[ xX*]\][ \t]+)?(\S.*)"
)
_CALLOUT = re.compile(r"<(\d+|\.)>[ \t]+(.*)")
_TERM = re.compile(r"[ \t]*(?!//)(\S(?:.*?\S)??)(:{2,4}|;;)(?:[ \t]+(.*))?\Z")
_SETTING = re.compile(r'(?:[^,"]|"[^"]*"?)+')
# An anchor, and the heading or the title of a block below it.
_ANCHOR = re.compile(
    r"^\[(?:\[|#)([\w:-]+)[^\n]*\]\n{1,3}+(?:\[[^\n]*\]\n){0,3}+(?:={2,6}[ \t]+|\.(?=\w))([^\n]+)",
    re.MULTILINE,
)
_SECTION = re.compile(r"^={2,6}[ \t]+([^\n]+)", re.MULTILINE)

_NOTES = frozenset("NOTE TIP IMPORTANT WARNING CAUTION".split())
_CODE = frozenset("source listing literal subs".split())
_FORMULAS = frozenset("stem latexmath asciimath".split())
_GONE = frozenset("comment pass".split())
# Attributes that a processor knows, as if it made a page for the web.
_KNOWN = {
    "asciidoctor": "", "backend-html5": "", "basebackend-html": "", "empty": "", "zwsp": "",
    "wj": "",
    "backend": "html5", "basebackend": "html", "sp": " ", "nbsp": " ", "blank": "", "lt": "<",
    "gt": ">", "amp": "&", "plus": "+", "apos": "'", "quot": '"', "lsquo": "‘", "rsquo": "’",
    "ldquo": "“", "rdquo": "”", "deg": "°", "startsb": "[", "endsb": "]", "vbar": "|",
    "caret": "^", "asterisk": "*", "tilde": "~", "backslash": "\\", "backtick": "`",
    "two-colons": "::", "two-semicolons": ";;", "cpp": "C++", "cxx": "C++", "pp": "++",
    "brvbar": "¦", "hash": "#",
}  # fmt: skip
# Signs that would be read as marks.
_SIGNS = frozenset(
    "plus lt gt amp startsb endsb vbar caret asterisk tilde backslash backtick pp cpp cxx"
    " hash".split()
)
# A text whose attributes make it longer than this many times itself has the rest as written.
_MAX_EXPANSION = 4


class _Scanner:
    """Finds the blocks of a document and adds each, as lines of prose, to `out`."""

    def __init__(self, text: str, stash: Stash) -> None:
        self.source, self.stash = text.split("\n"), stash
        self.index = 0
        self.shown: list[bool] = []  # whether the lines inside of each open condition are read
        self.attributes = dict(_KNOWN)
        self.room = _MAX_EXPANSION * len(text) + 10_000  # characters that references may add
        self.out: list[str] = []
        self.paragraph: list[str] = []
        self.keeps_lines = False  # of the paragraph, as of verses
        # Of the open lists, the outermost first: the mark of its items, and how many there were.
        self.lists: list[tuple[str, int]] = []
        self.is_apart = False  # a blank line came before
        self.in_item = False  # nothing else came since the last item began
        self.awaits_meaning = False  # a term has none so far
        self.settings: dict[str, str] = {}  # of the next block: positions 0, 1, 2 and names
        # Blocks that hold blocks: border, the lists around them, what follows them.
        self.open: list[tuple[str, list[tuple[str, int]], str]] = []

    # Lines.

    def next(self) -> str | None:
        """Return the next line for which all conditions hold, None at the end."""
        while self.index < len(self.source):
            line = self.source[self.index].rstrip()
            self.index += 1
            condition = _CONDITION.match(line)
            is_shown = not self.shown or self.shown[-1]
            if condition is None:
                if is_shown and not (line.startswith(_FILES) and line.endswith("]")):
                    return _DIRECTIVE.sub("", line) if line.startswith("\\") else line
            elif condition[1] == "endif":
                self.shown = self.shown[:-1]
            else:
                holds = is_shown and self.holds(*condition.groups())
                if condition[1] == "ifeval" or not condition[3]:
                    self.shown.append(holds)
                elif holds:
                    return condition[3]
        return None

    def peek(self) -> str:
        """Return the next line without going on; "" at the end."""
        place, shown = self.index, self.shown.copy()
        line = self.next()
        self.index, self.shown = place, shown
        return line or ""

    def holds(self, name: str, target: str, content: str) -> bool:
        """Return whether a condition holds; one that is not understood does."""
        if name == "ifeval":
            sides = _COMPARISON.match(self.expand(content))
            if sides is None:
                return True
            left, right = (
                re.sub(r"\{[\w-]+\}", "", side.strip("\"'")) for side in sides.group(1, 3)
            )
            return sides[2] not in ("==", "!=") or (left == right) == (sides[2] == "==")
        quantifier = all if "+" in target else any
        is_defined = quantifier(name in self.attributes for name in re.split(r"[,+]", target))
        return is_defined == (name == "ifdef")

    def until(self, border: str) -> list[str]:
        """Return the lines before a border."""
        lines = []
        while (line := self.next()) is not None and line != border:
            lines.append(line)
        return lines

    def expand(self, text: str) -> str:
        """Return a text with the values of the attributes that are known."""
        return _REFERENCE.sub(self.value, text) if "{" in text else text

    def value(self, reference: re.Match[str]) -> str:
        name = reference[2].lower()
        value = self.attributes.get(name)
        if reference[1] or value is None or len(value) > self.room:
            return reference[0][len(reference[1]) :] if reference[1] else reference[0]
        self.room -= len(value)
        return self.stash.put(value) if name in _SIGNS else value

    # Blocks.

    def scan(self) -> list[str]:
        """Return the lines of prose; code and formulas in them are marks of the stash."""
        while (line := self.next()) is not None:
            self.line(line)
        self.flush()
        return self.out

    def line(self, line: str) -> None:
        """Read a line and, where it begins a block of lines, that block."""
        if not line:
            self.flush()
            self.is_apart = not self.awaits_meaning
        elif line.startswith("//") and not line.startswith("///"):
            pass
        elif line == "+" and self.lists:
            self.flush()
            self.is_apart = False
        elif _BORDER.match(line):
            self.flush()
            self.border(line)
        elif _SETTINGS.match(line):
            self.flush()
            self.set(line)
        elif not self.starts_item(line):
            if self.paragraph:
                self.paragraph.append(line.strip())
            else:
                self.start(line)

    def starts_item(self, line: str) -> bool:
        """Begin an item of a list in a line, if one begins there."""
        if self.paragraph and not self.lists:
            return False
        if self.settings.get("0") in _CODE:
            return False
        if item := _ITEM.match(line):
            mark = "1." if item[1][-1] in ".)" and item[1][0] != "." else item[1]
            self.begin_item(mark, item[2])
        elif callout := _CALLOUT.match(line):
            self.begin_item("<1>", callout[2])
        elif term := _TERM.match(line):
            self.begin_item(term[2], term[1])
            self.flush()
            self.paragraph += [term[3].strip()] if term[3] else []
            self.awaits_meaning = not term[3]
        else:
            return False
        return True

    def begin_item(self, mark: str, words: str) -> None:
        """Begin an item of the open list with this mark, or of a new one inside the innermost."""
        self.flush()
        self.title()
        marks = [each for each, _ in self.lists]
        level = marks.index(mark) if mark in marks else len(marks)
        number = self.lists[level][1] + 1 if level < len(marks) else 1
        self.lists = [*self.lists[:level], (mark, number)]
        is_term = mark[0] in ":;"
        if is_term or not self.in_item:
            self.out.append("")
        depth = 0 if is_term else sum(each[0] not in ":;" for each in marks[:level])
        sign = "" if is_term else f"{number}. " if mark[0] in ".1<" else "- "
        self.paragraph = [f"{'  ' * min(depth, 10)}{sign}{words}"]
        self.is_apart, self.in_item, self.awaits_meaning, self.settings = False, True, False, {}

    def start(self, line: str) -> None:
        """Read the first line of a block that is no item and has no border."""
        heading = _HEADING.match(line)
        below = self.peek()
        is_underlined = (
            _UNDERLINE.match(below)
            and abs(len(below) - len(line)) < 3
            and len(below) > 1
            and re.search(r"\w", line)
            and line[0] not in " \t."
        )
        if (entry := _ENTRY.match(line)) and (self.is_apart or not self.lists):
            self.define(entry)
        elif heading or is_underlined:
            if is_underlined:
                self.next()
            self.heading(heading[2] if heading else line, below[:1] if is_underlined else line)
        elif title := _TITLE.match(line):
            self.settings["title"] = title[1]
        elif _RULE.match(line) or line == "+":
            self.settings = {}
        elif _MACRO.match(line):
            self.title()
            self.settings = {}
        else:
            self.begin_paragraph(line)

    def end_lists(self) -> None:
        """End all lists."""
        self.out += [""] if self.lists else []
        self.lists = []

    def heading(self, words: str, mark: str) -> None:
        """Add a heading; the lines below that of the document say who wrote it, and when."""
        is_first = not any(self.out) and mark[:2] in ("=", "= ", "# ")
        self.lists, self.settings, self.awaits_meaning = [], {}, False
        self.out += ["", self.expand(words), ""]
        count = 0
        while is_first and (line := self.peek()):
            entry = _ENTRY.match(line)
            count += not entry and not line.startswith("//")
            if count > 2 or _BORDER.match(line) or _SETTINGS.match(line):
                break
            self.next()
            if entry:
                self.define(entry)
            elif count == 1 and not line.startswith("//"):
                self.attributes["author"] = re.split(r"\s*[<;]", line, maxsplit=1)[0]

    def define(self, entry: re.Match[str]) -> None:
        """Set or forget an attribute."""
        name, value = entry[2].lower(), entry[4] or ""
        while value.endswith(" \\"):
            value = f"{value[:-2].removesuffix(' +')} {(self.next() or '').strip()}"
        if entry[1] or entry[3]:
            self.attributes.pop(name, None)
        else:
            self.attributes[name] = self.expand(value)

    def set(self, line: str) -> None:
        """Note the settings of the next block: `[quote, Ann, "A book"]`, `[%header,cols=2*]`."""
        if line.startswith("[["):
            return
        position = 0
        for piece in _SETTING.findall(self.expand(line[1:-1])):
            name, mark, value = piece.partition("=")
            if mark and re.fullmatch(r"\s*[\w-]+\s*", name):
                self.settings[name.strip()] = value.strip().strip('"')
                continue
            words = piece.strip().strip('"')
            if position == 0:
                self.settings["shorthand"] = words
                words = re.split("[.#%]", words)[0]
            if words or position:
                self.settings[str(position)] = words
            position += 1

    def title(self) -> None:
        """Add the title of a block."""
        if title := self.settings.pop("title", ""):
            self.out += ["", self.expand(title), ""]

    def begin_paragraph(self, line: str) -> None:
        """Begin a paragraph of prose or, as its settings or its margin say, of something else."""
        style = self.settings.get("0", "")
        if self.awaits_meaning:
            self.paragraph, self.awaits_meaning = [line.strip()], False
            return
        if line[0] in " \t" and style not in ("normal", *_NOTES):
            style = style or "literal"
        if style in _CODE | _FORMULAS | _GONE:
            lines = [line]
            while self.peek():
                lines.append(self.next() or "")
            self.verbatim(style, lines)
            return
        if self.is_apart:
            self.end_lists()
        self.label()
        self.out.append("")
        self.in_item = False
        self.keeps_lines = style == "verse" or "hardbreaks" in str(self.settings)
        if note := _NOTE.match(line):
            self.out += [note[1].capitalize(), ""]
            line = note[2]
        self.paragraph.append(line.strip())
        if style in ("quote", "verse"):
            while self.peek():
                self.paragraph.append((self.next() or "").strip())
            source = self.attribution()
            self.flush()
            self.out += [source, ""]
        self.settings = {}

    def label(self) -> None:
        """Add what stands above a block: its title, or which sort of note it is."""
        if self.settings.get("0") in _NOTES and "title" not in self.settings:
            self.settings["title"] = self.settings["0"].capitalize()
        self.title()

    def attribution(self) -> str:
        """Return who is quoted from where, "" if nothing says so."""
        names = [
            self.settings.get(n) or self.settings.get(name, "")
            for n, name in (("1", "attribution"), ("2", "citetitle"))
        ]
        words = ", ".join(filter(None, names))
        return f"— {self.expand(words)}" if words else ""

    def flush(self) -> None:
        """Add the paragraph that was begun."""
        if self.paragraph:
            lines = [self.expand(line) for line in self.paragraph]
            if all(line.startswith(">") for line in lines):  # a quote as in Markdown
                lines = [line[1:].lstrip() for line in lines]
            text, self.paragraph = "", []
            for line in lines:
                is_broken = self.keeps_lines or line.endswith(" +")
                text += line.removesuffix(" +") + ("\n" if is_broken else "\ufdd6")
            pieces = text.rstrip("\n\ufdd6").split("\n")
            self.out += [join_lines(piece.strip("\ufdd6").split("\ufdd6")) for piece in pieces]
            self.keeps_lines = False
            if not self.lists:
                self.out.append("")

    def border(self, line: str) -> None:
        """Read a block between two borders, or the border of one that holds blocks."""
        style = self.settings.get("0", "")
        if self.open and self.open[-1][0] == line:
            _, self.lists, source = self.open.pop()
            self.out += ["", source, ""]
        elif line[1:4] == "===" and line[0] in "|,:!":
            self.label()
            settings, self.settings = self.settings, {}
            rows = table_rows(self.until(line), line[0], settings)
            self.out += ["", *(self.expand(table_row(row)) for row in rows), ""]
        elif line[0] in "./+`" or (line[0] == "-" and len(line) > 2) or style in _CODE | _GONE:
            if style not in _FORMULAS | _GONE:
                style = {"/": "comment", "+": "pass"}.get(line[0], "source")
            self.verbatim(style, self.until("```" if line[0] == "`" else line))
        elif style == "verse":
            self.label()
            source, self.settings = self.attribution(), {}
            self.out += ["", *map(self.expand, self.until(line)), source, ""]
        else:
            if self.is_apart:
                self.end_lists()
            self.label()
            is_quote = line[0] == "_" or style == "quote"
            self.open.append((line, self.lists, self.attribution() if is_quote else ""))
            self.lists, self.settings, self.is_apart = [], {}, False
            self.out.append("")
        self.is_apart = self.in_item = self.awaits_meaning = False

    def verbatim(self, style: str, lines: list[str]) -> None:
        """Add lines that stay as they are, or leave out what is not for the reader."""
        settings, self.settings = self.settings, {"title": self.settings.get("title", "")}
        if style in _GONE:
            self.settings = {}
            return
        self.title()
        lines = [line.expandtabs(8) for line in lines]
        if "attributes" in settings.get("subs", ""):
            lines = [self.expand(line) for line in lines]
        width = min((indent_of(line) for line in lines if line.strip()), default=0)
        if text := dedent(lines, width):
            formula = f"$$\n{text}\n$$" if style in _FORMULAS else text
            self.out += ["", self.stash.put(formula), ""]
        self.settings = {}


def asciidoc_text(text: str, name: str = "") -> str:
    """Return the prose of AsciiDoc, "" where there is none."""
    stash = Stash()
    titles = {
        f"_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}": title
        for title in _SECTION.findall(text)
    }
    titles |= dict(_ANCHOR.findall(text))
    lines = "\n".join(_Scanner(text, stash).scan())
    return stash.restore(tidy(inline_words(lines, titles, stash)))


read_asciidoc = read_markup(asciidoc_text)
