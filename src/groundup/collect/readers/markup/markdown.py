"""Markdown, as CommonMark, GitHub, Obsidian, MkDocs, MyST, Pandoc and R Markdown have it.

    # A *title*                               A title
    See [the docs](http://a.b) or             See the docs or Page.
    [[Page]].                          →
    - [x] done ![badge](b.svg)                - done

One pass over the lines finds the blocks (headings, lists, quotes, tables, code), and a few patterns
take the marks out of all of them at once. Front matter gives its title only.
"""

from __future__ import annotations

import re

from groundup.collect.readers.markup.markdown_inline import inline_text
from groundup.collect.readers.markup.plain import (
    MAX_DEPTH,
    Stash,
    dedent,
    html_words,
    join_lines,
    read_markup,
    table_row,
    tidy,
    with_title,
)
from groundup.collect.readers.markup.restructured import VERSIONS, rst_text

_FRONT_MATTER = re.compile(
    r"\A\s*(?:---[ \t]*\n((?:(?!---|\.\.\.)[^\n]*\n)*+)(?:---|\.\.\.)|"
    r"\+\+\+[ \t]*\n((?:(?!\+\+\+)[^\n]*\n)*+)\+\+\+)[ \t]*(?:\n|\Z)"
)
_KEY = re.compile(r"^[\w.-]+\s*[:=]", re.MULTILINE)
_TITLE = re.compile(r"^title\s*[:=]\s*(.+)$", re.MULTILINE | re.IGNORECASE)

# An export of Notion: its files have names such as `Plan 0123…cdef.md`; the properties of a page,
# `Status: Done`, stand below its title. One alone is told from a sentence by its end.
_NOTION_FILE = re.compile(r" [0-9a-f]{32}\.md\Z")
_NOTION_PROPERTIES = re.compile(
    r"\A(\s*# [^\n]*\n\s*\n)"
    r"(?:(?:[^\n:]{1,60}:[ \t][^\n]*\n){2,}+|[^\n:]{1,60}:[ \t][^\n]*[^\n.!?]\n)(?=\n|\Z)"
)
_NOTION_ADDRESS = re.compile(r"https?://(?:www\.)?notion\.(?:so|site)/[^\s()\[\]<>]*")
_NOTION_ID = re.compile(r"(?:%20|[ -])[0-9a-f]{32}(?=/|\.(?:md|csv|html)\b)")

_HEADING = re.compile(r"(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\Z")
_UNDERLINE = re.compile(r"(?:=+|-+)[ \t]*\Z")
_RULE = re.compile(r"([-*_])[ \t]*(?:\1[ \t]*){2,}\Z")
_ITEM = re.compile(r"([-*+]|\d{1,9}[.)])(?:([ \t]+)|\Z)")
# A line of tags of Obsidian, `#project/site #todo`.
_TAGS = re.compile(r"(?:#(?=[^\s#]*[^\W\d_])[^\s#]++[ \t]*+)++\Z")
_TASK = re.compile(r"\[[ xX/>-]\][ \t]+")
# Directives of MyST may have colons for fences: `:::{note}`.
_FENCE = re.compile(r"(`{3,}|~{3,}|:{3,}(?=[ \t]*\{[\w:-]+\}))[ \t]*([^`]*)\Z")
_DIVIDER = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*+\|?[ \t]*\Z")
_CELL = re.compile(r"(?<!\\)\|")
_QUOTE = re.compile(r"[ \t]*>[ \t]?")
_CALLOUT = re.compile(r"\[!([\w-]+)[^\]\n]*\][+-]?[ \t]*(.*)\Z")
_LABEL = re.compile(r"^[ \t>]{0,9}\[(?!\^)([^\[\]\n]{1,999})\]:[ \t]*\S", re.MULTILINE)
_DEFINITION = re.compile(r"\[(?!\^)[^\[\]]{1,999}\]:[ \t]*(\S.*)?\Z")
_NOTE = re.compile(r"\[\^[^\[\]\s]{1,99}\]:[ \t]*")
_COLONS = re.compile(r":{3,}[ \t]*(?:\{[^{}]*\}|[\w-]+)?[ \t]*(.*)\Z")
_ADMONITION = re.compile(r"(?:!!!|\?\?\?)\+?[ \t]+[\w -]*?[ \t]*(?:\"(.*)\")?[ \t]*\Z")
_TAB = re.compile(r"===[!+]?[ \t]+\"(.*)\"[ \t]*\Z")
# Lines that a site generator or a notebook executes, and marks of tables of contents.
_DIRECTIVE = re.compile(
    r"\{%.*%\}|\{\{[<%#].*\}\}|\{:.*\}|\[TOC\]|\[\[_?TOC_?\]\]|--8<--.*|\\(?:newpage|pagebreak)"
    r"|\{/\*.*\*/\}|\([\w:.-]+\)=|\+{3,}(?:[ \t]*\{.*\})?",
    re.IGNORECASE,
)
# A component of a site generator, alone in its line.
_COMPONENT = re.compile(r"</?[A-Z][\w.]*(?:\s(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+)?>")
_SKIPPED = re.compile(r"<(script|style|svg|template)\b", re.IGNORECASE)
_INCLUDE = re.compile(r"^[ \t]*\{\{#.*\}\}[ \t]*\n?", re.MULTILINE)
_IMPORT = re.compile(r"(?:import\b.*\bfrom\b.*['\"]|import\s+['\"]|export\s+(?:const|default)\b)")
# Directives of MyST whose body is a list of other pages, a picture or a program's output, and
# queries of Obsidian's plugins.
_DROPPED_FENCES = frozenset(
    "toctree contents image index tableofcontents automodule autoclass autofunction include"
    " literalinclude raw bibliography dataview dataviewjs query base".split()
)
_CODE_FENCES = frozenset(
    "code code-block code-cell sourcecode python r bash doctest sql julia javascript js css ruby"
    " perl stan ojs sh".split()
)
# Options of a directive, one in each line or as YAML.
_OPTIONS = re.compile(
    r"\A\s*(?:---[ \t]*\n(?:(?!---)[^\n]*\n)*+---[ \t]*(?:\n|\Z)"
    r"|(?:[ \t]*:[\w-]+:[^\n]*(?:\n|\Z))+)\n*"
)


class _Scanner:
    """Finds the blocks of Markdown lines and adds each, as a line of prose, to `out`."""

    def __init__(self, lines: list[str], stash: Stash, depth: int = 0) -> None:
        self.lines, self.stash, self.depth = lines, stash, depth
        self.out: list[str] = []
        self.paragraph: list[str] = []
        self.prefix = ""  # the mark of the list item that the next block begins
        # Open list items: the column where their text starts, and the margin of what is in them.
        self.items: list[tuple[int, str]] = []
        self.after_blank = True  # no paragraph is open, so that code may be indented
        self.fresh = True  # the same, before the block that is read
        self.unclosed: set[str] = set()  # marks that no later line closes

    def scan(self) -> list[str]:
        """Return the lines of prose; code and formulas in them are marks of the stash."""
        index, count = 0, len(self.lines)
        while index < count:
            line = self.lines[index]
            text = line.lstrip()
            if not text:
                self.flush()
                self.out.append("")
                self.after_blank = True
                index += 1
                continue
            if line[0] in " \t":
                line = line.expandtabs(4)
            indent = len(line) - len(text)
            if self.paragraph and text[0].isalpha():
                self.paragraph.append(text)
                index += 1
                continue
            if self.after_blank and not _ITEM.match(text):
                while self.items and indent < self.items[-1][0]:
                    self.items.pop()
            self.fresh, self.after_blank = self.after_blank, False
            index = self.block(index, indent, text)
        self.flush()
        return self.out

    def block(self, index: int, indent: int, text: str) -> int:
        """Read the block that begins in a line; return the index of the line after it."""
        column = next((column for column, _ in self.items[::-1] if column <= indent), 0)
        if self.fresh and not self.paragraph and indent - column >= 4:
            return self.indented_code(index, column + 4)
        handler = _HANDLERS.get(text[0])
        if handler is None and text[0].isdigit():
            handler = _Scanner.item
        after = handler(self, index, indent, text) if handler else None
        if after is not None:
            return after
        self.paragraph.append(text)
        return index + 1

    def flush(self) -> None:
        """End the paragraph."""
        if self.paragraph:
            text, start = "", 0
            for number, line in enumerate(self.paragraph):
                # Two spaces or a backslash at its end break a line.
                if line.endswith(("  ", "\\")) and number + 1 < len(self.paragraph):
                    self.paragraph[number] = line.rstrip(" \\")
                    text += join_lines(self.paragraph[start : number + 1]) + "\n"
                    start = number + 1
            text += join_lines(self.paragraph[start:])
            self.emit(text)
            self.paragraph = []

    def emit(self, text: str) -> None:
        """Add a block, behind the mark of the item that it begins."""
        if self.prefix:
            text, self.prefix = self.prefix + text, ""
        elif self.items and self.items[-1][1]:
            margin = self.items[-1][1]
            text = margin + text.replace("\n", "\n" + margin)
        self.out.append(text)

    def break_off(self) -> None:
        """End the paragraph where something stands that is no text."""
        self.flush()
        self.out.append("")
        self.after_blank = True

    def emit_code(self, code: str) -> None:
        """Add code or formulas, which get no margin, with a blank line around them."""
        self.flush()
        if self.prefix:
            self.emit("")
        self.out += ["", self.stash.put(code) if code else "", ""]
        self.after_blank = True

    def emit_apart(self, text: str) -> None:
        """Add a block with a blank line around it."""
        self.flush()
        if not self.prefix:
            self.out.append("")
        self.emit(text)
        self.out.append("")
        self.after_blank = True

    def indented_code(self, index: int, width: int) -> int:
        """Read code that is indented by `width` columns."""
        code: list[str] = []
        while index < len(self.lines):
            line = self.lines[index].expandtabs(4)
            if line.strip() and len(line) - len(line.lstrip()) < width:
                break
            code.append(line)
            index += 1
        self.emit_code(dedent(code, width))
        return index

    def heading(self, index: int, indent: int, text: str) -> int | None:
        """`## Heading ##`; a line of tags goes."""
        if not (match := _HEADING.match(text)):
            if self.paragraph or not _TAGS.match(text):
                return None
            self.break_off()
            return index + 1
        self.emit_apart(match[2] or "")
        self.after_blank = True
        return index + 1

    def underline_or_item(self, index: int, indent: int, text: str) -> int | None:
        """A line of `=` or `-` below a heading, a rule, or an item of a list."""
        if self.paragraph and _UNDERLINE.match(text):
            heading, self.paragraph = join_lines(self.paragraph), []
            self.emit_apart(heading)
            self.after_blank = True
            return index + 1
        if match := _TAB.match(text):
            return self.container(index, indent, match[1])
        if text[0] in "-:|" and self.paragraph and self.table_divider(text):
            return self.table(index + 1)
        if _RULE.match(text):
            self.break_off()
            return index + 1
        return self.item(index, indent, text)

    def table_divider(self, text: str) -> bool:
        """Whether a line divides the head of a table, the last line read, from its rows."""
        return "-" in text and "|" in self.paragraph[-1] + text and bool(_DIVIDER.match(text))

    def table(self, index: int) -> int:
        """Read a table whose head is the last line of the paragraph."""
        head = self.paragraph.pop()
        self.flush()
        rows = [head]
        while index < len(self.lines) and "|" in self.lines[index]:
            rows.append(self.lines[index].strip())
            index += 1
        self.emit_apart("\n".join(table_row(_CELL.split(row.strip("| "))) for row in rows))
        self.after_blank = True
        return index

    def item(self, index: int, indent: int, text: str) -> int | None:
        """`- item` or `1. item`; what is in it is read as lines of its own."""
        match = _ITEM.match(text)
        if not match:
            return self.generated(index, indent, text)
        starts_list = text[0] in "-*+" or self.fresh or self.items or text[0] == "1"
        if self.paragraph and not starts_list:
            return None
        self.flush()
        if self.prefix:
            self.emit("")
        rest = text[match.end() :]
        rest = rest[task.end() :] if (task := _TASK.match(rest)) else rest
        while self.items and indent < self.items[-1][0]:
            self.items.pop()
        margin = self.items[-1][1] if self.items else ""
        self.prefix = margin + ("- " if text[0] in "-*+" else f"{match[1]} ")
        spaces = len(match[2] or " ")
        column = indent + len(match[1]) + (spaces if spaces <= 4 else 1)
        if len(self.items) < MAX_DEPTH:
            self.items.append((column, margin + "  "))
        self.fresh = False
        if not rest or rest[0].isalpha() or len(self.items) >= MAX_DEPTH:
            self.paragraph.append(rest)
            return index + 1
        if rest[0] in "`~":
            self.lines[index] = " " * column + rest
        return self.block(index, column, rest)

    def fence(self, index: int, indent: int, text: str) -> int | None:
        """Code between fences; a directive of MyST in them is read as Markdown."""
        match = _FENCE.match(text)
        if not match:
            return None
        self.flush()
        mark, info = match[1], match[2].strip()
        body: list[str] = []
        index += 1
        while index < len(self.lines):
            line = self.lines[index]
            index += 1
            bare = line.strip()
            if bare.startswith(mark) and not bare.strip(mark[0]):
                break
            body.append(line)
        name = re.match(r"\{?\s*([\w:.-]*)", info)
        word = name[1].lower() if name else ""
        if word in _DROPPED_FENCES:
            return index
        if info.startswith("{") and self.depth < MAX_DEPTH:
            self.directive(word, info.partition("}")[2].strip(), dedent(body, indent))
        elif code := _INCLUDE.sub("", dedent(body, indent)):
            self.emit_code(code)
        self.after_blank = True
        return index

    def directive(self, name: str, title: str, body: str) -> None:
        """Read a directive, without its options: code, reStructuredText or Markdown."""
        body = _OPTIONS.sub("", body)
        body = rst_text(body) if name == "eval-rst" else body
        if name == "eval-rst" or not name or name[0] == "." or name in _CODE_FENCES:
            self.emit_code(body)
        elif name == "math":
            self.emit_code(f"$$\n{body}\n$$")
        else:
            title = f"{VERSIONS[name]} {title}" if name in VERSIONS else title
            self.nested([title, "", *body.split("\n")])

    def nested(self, lines: list[str]) -> None:
        """Read lines inside of a quote or a directive."""
        if self.depth >= MAX_DEPTH:
            lines = [line.lstrip("> \t") for line in lines]
        self.flush()
        inner = _Scanner(lines, self.stash, min(self.depth + 1, MAX_DEPTH)).scan()
        self.emit_apart("\n".join(inner).strip("\n"))
        self.after_blank = True

    def quote(self, index: int, indent: int, text: str) -> int | None:
        """`> quoted`, and the callouts of Obsidian and GitHub."""
        if self.depth >= MAX_DEPTH:
            return None
        body: list[str] = []
        while index < len(self.lines):
            line = self.lines[index]
            match = _QUOTE.match(line)
            # A paragraph of a quote goes on in a line without the mark.
            lazy = body and body[-1].strip() and line[:1].isalpha()
            if not match and not lazy:
                break
            body.append(line[match.end() :] if match else line)
            index += 1
        if callout := _CALLOUT.match(body[0].lstrip()):
            body[:1] = [callout[2] or callout[1].capitalize(), ""]
        self.nested(body)
        return index

    def bracket(self, index: int, indent: int, text: str) -> int | None:
        """The definition of a link, which goes, or of a footnote, whose text stays."""
        if _DIRECTIVE.fullmatch(text.rstrip()):
            return index + 1
        if match := _NOTE.match(text):
            return self.container(index, indent, text[match.end() :])
        if self.paragraph or not _DEFINITION.match(text):
            return None
        return index + 1

    def container(self, index: int, indent: int, title: str) -> int:
        """A block whose further lines are indented by four columns."""
        self.flush()
        margin = self.items[-1][1] if self.items else ""
        while len(self.items) >= MAX_DEPTH:
            self.items.pop()
        self.items.append((indent + 4, margin))
        self.paragraph.append(title)
        return index + 1

    def admonition(self, index: int, indent: int, text: str) -> int | None:
        """`!!! note "Title"`, as MkDocs has it."""
        match = _ADMONITION.match(text)
        if not match:
            return None
        after = self.container(index, indent, match[1] or "")
        self.break_off()
        return after

    def colons(self, index: int, indent: int, text: str) -> int | None:
        """The fences of Pandoc and Docusaurus, `::: note Title`; the definition of a term."""
        if (after := self.fence(index, indent, text)) is not None:
            return after
        if match := _COLONS.match(text):
            self.flush()
            if title := match[1].strip("[]: "):
                self.emit_apart(title)
            self.after_blank = True
            return index + 1
        if text[:2] in (": ", ":\t"):
            self.flush()
            self.paragraph.append(text[1:].lstrip())
            return index + 1
        return self.underline_or_item(index, indent, text)

    def generated(self, index: int, indent: int, text: str) -> int | None:
        """A line of a site generator, `{% include x %}`, or between cells of MyST, `+++`."""
        if not _DIRECTIVE.fullmatch(text.rstrip()):
            return None
        self.break_off()
        return index + 1

    def markup(self, index: int, indent: int, text: str) -> int | None:
        """A comment, script, style, picture or preformatted text of HTML."""
        if text.startswith("<!--"):
            return self.comment(index, text.rstrip())
        if _COMPONENT.fullmatch(text.rstrip()):
            self.break_off()
            return index + 1
        if match := _SKIPPED.match(text):
            return self.skip(index, f"</{match[1].lower()}")
        if not text.lower().startswith("<pre"):
            return None
        self.flush()
        end = self.skip(index, "</pre")
        if end is None:
            return None
        code = html_words(re.sub(r"</?(?:pre|code)\b[^<>]*>", "", "\n".join(self.lines[index:end])))
        self.emit_code(dedent(code.split("\n"), 0))
        return end

    def comment(self, index: int, text: str) -> int | None:
        """A comment, unless words follow it in its line."""
        end = text.find("-->")
        if end < 0:
            return self.skip(index, "-->")
        if end + len("-->") < len(text):
            return None
        self.break_off()
        return index + 1

    def skip(self, index: int, end: str) -> int | None:
        """Return the index after the line that has `end`; None if there is none."""
        if end not in self.unclosed:
            for number in range(index, len(self.lines)):
                if end in self.lines[number].lower():
                    self.break_off()
                    return number + 1
            self.unclosed.add(end)
        return None

    def verbatim(self, index: int, indent: int, text: str) -> int | None:
        """Formulas on lines of their own: `$$`, `\\begin{...}`; comments of Obsidian: `%%`."""
        if text.startswith("%%"):
            return self.skip(index + 1, "%%") if text.count("%%") == 1 else None
        if text[0] == "$" and (not text.startswith("$$") or text.count("$$") > 1):
            return None
        if text[0] == "\\" and not text.startswith("\\begin{"):
            return index + 1 if _DIRECTIVE.fullmatch(text.rstrip()) else None
        name = re.match(r"\\begin\{(\w+\*?)\}", text)
        closing = f"\\end{{{name[1].lower()}}}" if name else "$$"
        after = self.skip(index + (closing == "$$"), closing)
        if after is None:
            return None
        self.emit_code(dedent(self.lines[index:after], indent))
        return after


_HANDLERS = {
    "#": _Scanner.heading,
    "-": _Scanner.underline_or_item,
    "=": _Scanner.underline_or_item,
    "*": _Scanner.underline_or_item,
    "_": _Scanner.underline_or_item,
    "|": _Scanner.underline_or_item,
    "+": _Scanner.item,
    "`": _Scanner.fence,
    "~": _Scanner.fence,
    ">": _Scanner.quote,
    "[": _Scanner.bracket,
    "!": _Scanner.admonition,
    "?": _Scanner.admonition,
    ":": _Scanner.colons,
    "{": _Scanner.generated,
    "(": _Scanner.generated,
    "<": _Scanner.markup,
    "$": _Scanner.verbatim,
    "\\": _Scanner.verbatim,
    "%": _Scanner.verbatim,
}


def markdown_text(text: str, name: str = "") -> str:
    """Return the prose of Markdown; `name` is that of its file."""
    title = ""
    if match := _FRONT_MATTER.match(text):
        front = match[1] or match[2] or ""
        if _KEY.search(front) or not front.strip():
            found = _TITLE.search(front)
            title = found[1].strip().strip("\"'") if found else ""
            text = text[match.end() :]
    if _NOTION_FILE.search(name):
        text = _NOTION_ID.sub("", _NOTION_ADDRESS.sub("", _NOTION_PROPERTIES.sub(r"\1", text)))
    labels = {label.casefold() for label in _LABEL.findall(text)} if "]:" in text else set()
    lines = text.split("\n")
    if name.lower().endswith(".mdx"):
        lines = [line for line in lines if not _IMPORT.match(line)]
    stash = Stash()
    prose = inline_text("\n".join(_Scanner(lines, stash).scan()), labels, stash)
    title = inline_text(title, labels, stash)
    return with_title(stash.restore(title), stash.restore(tidy(prose)))


read_markdown = read_markup(markdown_text)
