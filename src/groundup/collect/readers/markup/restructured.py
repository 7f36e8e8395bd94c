"""reStructuredText, with the roles and directives of docutils and Sphinx.

    A title                               A title
    =======
    See :class:`~a.b.C` and `here         See C and here.
    <http://x.y>`_ [1]_.             →
    .. note:: Mind the *gap*.             Note

                                          Mind the gap.

docutils is slower and fails on directives that it does not know, so this is a scanner of lines and
patterns of our own. It leaves: bodies of directives that include files, list pages or
draw pictures; tables whose cells span rows or columns are read line by line; `csv-table` from a
file gives nothing.
"""

from __future__ import annotations

import csv
import re

from groundup.collect.readers.markup.plain import (
    MAX_DEPTH,
    Stash,
    dedent,
    indent_of,
    item_lines,
    join_lines,
    read_markup,
    table_row,
    tidy,
    with_title,
)

_PUNCTUATION = r"!-/:-@\[-`{-~"
_LINE = re.compile(rf"([{_PUNCTUATION}])\1*\Z")
_HEADER = re.compile(r"\A(?:[A-Z][\w-]*:(?:[ \t][^\n]*)?\n(?:[ \t]+[^\n]*\n)*){3,}(?:[ \t]*\n|\Z)")
_TITLE = re.compile(r"^Title:[ \t]*(.*(?:\n[ \t]+.*)*)", re.MULTILINE)
_BULLET = re.compile(r"[-*+•‣⁃](?:[ \t]+|\Z)")
_NUMBER = re.compile(
    r"(?:\d{1,6}|[A-Za-z]|[ivxlcIVXLC]{1,8}|#)[.)][ \t]+|\((?:\d{1,6}|[a-z])\)[ \t]+"
)
_FIELD = re.compile(r":([^\s:`][^:`\n]{0,99}):(?:[ \t]+|\Z)")
_DIRECTIVE = re.compile(r"\.\.[ \t]+(?:\|[^|\n]+\|[ \t]+)?([\w:+.-]+?)[ \t]?::(?:[ \t]+|\Z)(.*)")
_SUBSTITUTION = re.compile(
    r"^[ \t]*\.\.[ \t]+\|([^|\n]+)\|[ \t]+(\w+)::[ \t]*(.*(?:\n[ \t]{3,}(?![ \t:]).*)*)",
    re.MULTILINE,
)
_NOTE = re.compile(r"\.\.[ \t]+\[[^\]\s]{1,99}\](?:[ \t]+|\Z)")
_GRID = re.compile(r"\+[-=+]*[-=]\+\Z")
_SIMPLE = re.compile(r"=+(?:[ \t]+=+)+[ \t]*\Z")
_MAX_ROWS = 2000  # lines of a table whose end is looked for
_TERM_SPLIT = re.compile(r"[ \t]+:[ \t]+")
_ADMONITIONS = frozenset(
    "attention caution danger error hint important note seealso tip warning todo".split()
)
VERSIONS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
    "versionremoved": "Removed in version",
}
_CODE = frozenset(
    "code code-block sourcecode parsed-literal highlight-block ipython doctest testcode testoutput"
    " prompt productionlist literal console-block jupyter-execute runpython".split()
)
# What lists, includes, draws or executes something.
_DROPPED = frozenset(
    "toctree contents raw index image include literalinclude meta highlight sectnum default-role"
    " currentmodule module default-domain bibliography graphviz digraph plot tabularcolumns"
    " autosummary sectionauthor codeauthor program-output testsetup testcleanup mermaid uml"
    " inheritance-diagram title target-notes header footer date role moduleauthor py:module"
    " py:currentmodule footbibliography jupyter-kernel gallery click program todolist"
    " section-numbering js:module namespace c:namespace c:namespace-push c:namespace-pop"
    " cpp:namespace cpp:namespace-push cpp:namespace-pop".split()
)
# Their argument is a file, a style, or a name whose documentation is elsewhere; their body is text.
# The names of directives that begin so: `autoclass`, and `canonical-doc` of PEPs.
_NO_TITLE = (
    *("figure", "container", "only", "ifconfig", "tabs", "hlist", "grid", "rst-class", "cssclass"),
    *("auto", "canonical-"),
)

# Roles of a file's own, each with the one that it is made of: `role:: m(math)`; the one of text
# without a role has no name.
_NEW_ROLE = re.compile(
    r"^[ \t]*\.\.[ \t]+(?:default-role::[ \t]+()([\w-]+)|role::[ \t]+([\w-]+)\(([\w-]+)\))",
    re.MULTILINE,
)
_LITERAL = re.compile(r"``(?!\s)([^\n]{1,2000}?)``(?!`)")
_ROLE = re.compile(r":([\w:+.-]+):`([^`\n]++)`(?:__?(?!\w))?")
_QUOTED = re.compile(r"`([^`\n]++)`(?:(__?(?!\w))|:([\w:+.-]+):)?")
_FOOT_MARK = re.compile(r"\[(?:\d+|[#*][\w.-]*|[A-Za-z][\w.-]*)\]_(?!\w)")
_BAR = re.compile(r"\|(?<![\w|\\]\|)([^|\s](?:[^|\n]{0,100}[^|\s])?)\|(?:__?)?(?![\w|])")
# Substitutions whose values no file has.
_SPHINX_WORDS = dict.fromkeys(("version", "release", "today"), "")
_REFERENCE = re.compile(r"_(?<=[\w]_)_?(?![\w`_])")
_STARS = re.compile(r"(\*(?<!\*\*)\*?)(?![\s*])([^*\n]++)(?<!\s)\1(?!\*)")
_ESCAPE = re.compile(r"\\([^\w\n]|_|[A-Za-z](?=\w*\\))")


class _Scanner:
    """Finds the blocks of lines of one indentation and adds each, as lines of prose, to `out`."""

    def __init__(self, lines: list[str], stash: Stash, depth: int = 0) -> None:
        self.lines, self.stash, self.depth = lines, stash, depth
        self.out: list[str] = []
        self.is_head = depth == 0  # nothing but titles so far: fields are about the document

    def scan(self) -> list[str]:
        """Return the lines of prose; code and formulas in them are marks of the stash."""
        index, count = 0, len(self.lines)
        while index < count:
            line = self.lines[index]
            if not line.strip():
                self.out.append("")
                index += 1
            elif line[0] == " ":
                body, index = self.indented(index, 1)
                self.out += ["", *self.nested(body), ""]
            else:
                index = self.block(index, line.rstrip())
        return self.out

    def nested(self, lines: list[str]) -> list[str]:
        """Return the prose of lines that are indented."""
        if self.depth >= MAX_DEPTH:
            return [line.strip() for line in lines]
        width = min((indent_of(line) for line in lines if line.strip()), default=0)
        return _Scanner([line[width:] for line in lines], self.stash, self.depth + 1).scan()

    def indented(self, index: int, width: int) -> tuple[list[str], int]:
        """Return the lines from `index` on that are indented by `width`, and the index after."""
        start = index
        while index < len(self.lines):
            line = self.lines[index]
            if line.strip() and indent_of(line) < width:
                break
            index += 1
        lines = self.lines[start:index]
        while lines and not lines[-1].strip():
            lines.pop()
        return lines, index

    def code(self, lines: list[str]) -> None:
        """Add lines of code, as they are."""
        width = min((indent_of(line) for line in lines if line.strip()), default=0)
        if code := dedent(lines, width):
            self.out += ["", self.stash.put(code), ""]

    def block(self, index: int, text: str) -> int:  # noqa: PLR0911 - a table of cases
        """Read the block that begins in a line; return the index of the line after it."""
        if text.startswith("..") and (len(text) == 2 or text[2] in " \t"):
            return self.explicit(index, text)
        if text.startswith(("__ ", ">>> ")) or text == "__":
            return self.paragraph_like(index, text)
        if _GRID.match(text):
            return self.grid(index)
        if _SIMPLE.match(text) and (end := self.simple_table_end(index)):
            return self.simple_table(index, end)
        if _LINE.match(text) and text != "::" and len(text) > 1 and text != "...":
            return self.overline(index)
        if match := _BULLET.match(text) or _NUMBER.match(text):
            return self.item(index, text, match.end())
        if text[0] == ":" and (match := _FIELD.match(text)):
            return self.field(index, text, match)
        if text.startswith("| ") or text == "|":
            return self.line_block(index)
        return self.paragraph(index)

    def paragraph_like(self, index: int, text: str) -> int:
        """A session of Python, which is code, or an anonymous target, which goes."""
        if text.startswith("__"):
            return index + 1
        start = index
        while index < len(self.lines) and self.lines[index].strip():
            index += 1
        self.code(self.lines[start:index])
        return index

    def overline(self, index: int) -> int:
        """A rule, or the line above a title."""
        title, below = (*self.lines[index + 1 : index + 3], "", "")[:2]
        if title.strip() and below[:1] == self.lines[index][0] and _LINE.match(below.rstrip()):
            self.out += ["", title.strip(), ""]
            return index + 3
        return index + 1

    def paragraph(self, index: int) -> int:
        """A paragraph, a title with the line below it, or a term with its definition."""
        start = index
        while index < len(self.lines) and self.lines[index].strip():
            line = self.lines[index]
            if index > start and line[0] == " " and index == start + 1:
                return self.definition(start)
            is_line = index == start + 1 and _LINE.match(line.rstrip())
            if is_line and len(line.rstrip()) >= min(3, len(self.lines[start].rstrip())):
                self.out += ["", self.lines[start].strip(), ""]
                return index + 1
            index += 1
        self.is_head = False
        text = join_lines(line.strip() for line in self.lines[start:index])
        if not text.endswith("::"):
            self.out += [text]
            return index
        text = text[:-2].rstrip() if text.endswith(" ::") or text == "::" else text[:-1]
        self.out += [text] if text else []
        body, after = self.indented(index, 1)
        self.code(body)
        return after

    def definition(self, index: int) -> int:
        """A term, and its definition below it, indented."""
        self.is_head = False
        term = self.lines[index].strip()
        is_code = term.endswith("::")
        self.out.append(term[:-1] if is_code else _TERM_SPLIT.sub(": ", term))
        body, after = self.indented(index + 1, 1)
        if is_code:
            self.code(body)
        else:
            self.out += [*self.nested(body)]
        return after

    def item(self, index: int, text: str, width: int) -> int:
        """An item of a list: what is below it, indented, belongs to it."""
        self.is_head = False
        body, after = self.indented(index + 1, min(width, 2))
        mark = "- " if text[0] in "-*+•‣⁃#" else text[:width].rstrip() + " "
        # Lines of a paragraph may go on further left than the text of the item.
        self.out += item_lines(mark, self.nested([" " + text[width:].lstrip(), *_shifted(body)]))
        if after < len(self.lines) and after > index + 1 and not self.lines[after - 1].strip():
            self.out.append("")
        return after

    def field(self, index: int, text: str, match: re.Match[str]) -> int:
        """`:name: body`: metadata at the start of a file, else what is said about a parameter."""
        body, after = self.indented(index + 1, 1)
        if self.is_head:
            return after
        name = match[1].removeprefix("param ")
        inner = self.nested([" " + text[match.end() :], *_shifted(body)])
        self.out += item_lines(f"{name}: ", inner)
        return after

    def line_block(self, index: int) -> int:
        """Lines of verse, each behind a bar."""
        while index < len(self.lines) and self.lines[index].startswith("|"):
            self.out.append(self.lines[index][1:].strip())
            index += 1
        return index

    def explicit(self, index: int, text: str) -> int:
        """A directive, a footnote, or a comment or target, which go."""
        body, after = self.indented(index + 1, 1)
        if match := _NOTE.match(text):
            self.out += ["", *self.nested([" " + text[match.end() :], *_shifted(body)]), ""]
        elif (match := _DIRECTIVE.match(text)) and "|" not in text[: match.start(1)]:
            self.directive(match[1].lower().removeprefix("py:"), match[2].strip(), body)
        return after

    def directive(self, name: str, argument: str, body: list[str]) -> None:
        """Add what a directive says: its title, and its body as text or as code."""
        while body and (not body[0].strip() or _FIELD.match(body[0].strip())):
            body = body[1:]
        if name in _DROPPED:
            return
        self.is_head = False
        if name in _CODE:
            self.code(body)
        elif name == "math":
            formula = "\n".join(filter(None, (argument, dedent(body, 3))))
            self.out += ["", self.stash.put(f"$$\n{formula}\n$$"), ""]
        elif name in _ADMONITIONS:
            title = "See also" if name == "seealso" else name.capitalize()
            self.out += ["", title, "", *self.nested([" " + argument, *_shifted(body)]), ""]
        elif name in VERSIONS:
            version, _, rest = argument.partition(" ")
            start = f"{VERSIONS[name]} {version}"
            text = self.nested([" " + rest, *_shifted(body)])
            self.out += ["", *(item_lines(f"{start}: ", text) if any(text) else [start]), ""]
        elif name == "csv-table":
            rows = csv.reader(line.strip() for line in body if line.strip())
            self.out += ["", argument, "", *map(table_row, rows), ""]
        elif name == "list-table":
            self.out += ["", argument, "", *self.listed_rows(body), ""]
        else:
            # A class is one of Python, or a style of what follows.
            is_style = name == "class" and not re.match(r"[A-Z]|.*[(.]", argument)
            is_titled = not is_style and not name.startswith(_NO_TITLE)
            title = argument if is_titled else ""
            self.out += ["", title, "", *self.nested(body), ""]

    def listed_rows(self, body: list[str]) -> list[str]:
        """Return the rows of a table that is written as a list of lists."""
        rows: list[list[list[str]]] = []
        for line in body:
            text = line.strip()
            row = re.match(r"\*[ \t]+-(?:[ \t]+|\Z)", text)
            if row or (rows and re.match(r"-(?:[ \t]|\Z)", text)):
                if row:
                    rows.append([])
                rows[-1].append([text[row.end() if row else 1 :].strip()])
            elif text and rows:
                rows[-1][-1].append(text)
        return [table_row(map(join_lines, row)) for row in rows]

    def grid(self, index: int) -> int:
        """A table with borders of `+---+` and `|`."""
        cells: dict[int, list[str]] = {}
        while index < len(self.lines) and self.lines[index][:1] in ("+", "|"):
            line = self.lines[index].rstrip()
            index += 1
            if line[0] == "+":
                if any(cells.values()):
                    self.out.append(table_row(join_lines(cells[key]) for key in sorted(cells)))
                cells = {}
                continue
            start = 1
            for piece in line[1:].split("|"):
                if piece.strip():
                    cells.setdefault(start, []).append(piece.strip())
                start += len(piece) + 1
        self.out.append("")
        return index

    def simple_table_end(self, index: int) -> int:
        """Return the index of the last border of a table, 0 if there is none."""
        for number in range(index + 1, min(len(self.lines), index + _MAX_ROWS)):
            line = self.lines[number].rstrip()
            is_last = number + 1 == len(self.lines) or not self.lines[number + 1].strip()
            if is_last and _LINE.match(line.replace(" ", "") or " ") and line[0] == "=":
                return number
        return 0

    def simple_table(self, index: int, end: int) -> int:
        """A table with borders of `==== ====` alone; a row without a first cell goes on."""
        starts = [match.start() for match in re.finditer("=+", self.lines[index])]
        ends = [*starts[1:], None]
        row: list[list[str]] = []
        for line in [*self.lines[index + 1 : end], ""]:
            is_border = line.strip() and not line.strip(" =-")
            cells = [line[a:b].strip() for a, b in zip(starts, ends, strict=True)]
            if is_border or not line.strip() or cells[0] or not row:
                if row:
                    self.out.append(table_row(map(join_lines, row)))
                row = [] if is_border or not line.strip() else [[cell] for cell in cells]
            else:
                for parts, cell in zip(row, cells, strict=True):
                    parts.extend([cell] if cell else [])
        self.out.append("")
        return end + 1


def _shifted(body: list[str]) -> list[str]:
    """Return lines that go on after the argument of a directive, at its column."""
    width = min((indent_of(line) for line in body if line.strip()), default=1)
    return [line[width - 1 :] if line.strip() else "" for line in body]


def rst_text(text: str, name: str = "") -> str:
    """Return the prose of reStructuredText."""
    title = ""
    if (header := _HEADER.match(text)) and (found := _TITLE.search(header[0])):
        title, text = join_lines(found[1].split()), text[header.end() :]
    words = _SPHINX_WORDS.copy()
    if ".. |" in text:
        for match in _SUBSTITUTION.finditer(text):
            words[match[1]] = join_lines(match[3].split()) if match[2] == "replace" else ""
    roles = {new[1] or new[3] or "": new[2] or new[4] for new in _NEW_ROLE.finditer(text)}
    stash = Stash()
    lines = text.expandtabs(8).split("\n")
    prose = rst_inline("\n".join(_Scanner(lines, stash).scan()), words, roles, stash)
    return with_title(title, stash.restore(tidy(prose)))


def rst_inline(text: str, words: dict[str, str], roles: dict[str, str], stash: Stash) -> str:
    """Return lines without the marks inside of them.

    `words` has the values of substitutions, `roles` what the roles of the file are made of.
    """

    def interpreted(role: str, content: str) -> str:
        return _role_words(roles.get(role, role), content, stash)

    if "``" in text:
        text = _LITERAL.sub(lambda literal: stash.put(literal[1]), text)
    if "|" in text:
        # What the settings of the whole documentation say has its name alone here.
        text = _BAR.sub(lambda bar: words.get(bar[1], bar[1]), text)
    if "`" in text:
        text = _ROLE.sub(lambda role: interpreted(role[1], role[2]), text)
        text = _QUOTED.sub(
            lambda quoted: interpreted("link" if quoted[2] else quoted[3] or "", quoted[1]), text
        )
    if "\\" in text:
        text = _ESCAPE.sub(lambda escape: stash.put(escape[1]) if escape[1] != " " else "", text)
    if "]_" in text:
        text = _FOOT_MARK.sub("", text)
    if "_" in text:
        text = _REFERENCE.sub("", text)
    return _STARS.sub(r"\2", text) if "*" in text else text


def _role_words(role: str, text: str, stash: Stash) -> str:
    """Return the words of interpreted text: those before its target, or the last of its path."""
    role = role.rpartition(":")[2].lower()
    if role.startswith(("cite", "foot")):
        return ""
    if role in ("pep", "rfc"):
        return f"{role.upper()} {re.sub(r'[ ]*<[^<>]*>$', '', text)}"
    if role == "math":
        return stash.put(f"${text}$")
    words = re.sub(r"\s*<[^<>]*>\Z", "", text) or text.strip("<>")
    if words.startswith("~"):
        words = words.rpartition(".")[2]
    return stash.put(words.lstrip("~!"))


read_rst = read_markup(rst_text)
