r"""Manual pages in man and mdoc, as `man` prints them but for header, footer and margins.

    .TH LS 1                              NAME
    .SH NAME
    ls \- list files                      ls - list files
    .SH OPTIONS                      →
    .TP                                   OPTIONS
    \fB\-a\fR, \fB\-\-all\fR
    show all                              -a, --all
                                          show all

A page may define macros and strings; other files are never read. Drawings are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import ClassVar

from groundup.collect.readers.markup import mdoc
from groundup.collect.readers.markup.plain import (
    Stash,
    dedent,
    join_lines,
    read_markup,
    squeeze,
    table_row,
)
from groundup.collect.readers.markup.roff import GLUE, JOINED, Roff, arguments, plain

_GLUED = re.compile(f"{JOINED} ?| *{GLUE}[ {GLUE}]*")
_BULLET = re.compile(r"(?:[•○□·*+o−—–-]|\(\*\))\Z")
_LABEL = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)]\Z|\[\d{1,3}\]\Z")
_NUMBERED = re.compile(r"([•○·])\s+|(\(?\d{1,3}[.)])\s+(?=\S)")

_ALTERNATING = frozenset("BR RB BI IB IR RI".split())
_FONTS = frozenset("B I SM SB R CW".split())
_PARAGRAPHS = frozenset("PP P LP sp HP Sp Pp Lp bp YS".split())
_BREAKS = frozenset("br RS RE in ti ce ta TA".split())
_CODE_BEGINS = frozenset("nf EX Vb CS".split())
_CODE_ENDS = frozenset("fi EE Ve CE".split())
_BLOCKS = frozenset("SH SS TP TQ IP TS EQ UR MT UE ME SY OP MR TH".split())
_MDOC_BLOCKS = frozenset("Sh Ss Bl El It Bd Ed D1 Dl Dd".split())
KNOWN = (
    _ALTERNATING | _FONTS | _PARAGRAPHS | _BREAKS | _CODE_BEGINS | _CODE_ENDS | _BLOCKS
    | _MDOC_BLOCKS | mdoc.INLINE | frozenset(("IX",))
) - {"R", "CW", "CS", "CE", "P"}  # fmt: skip


class _Page:
    """Prints the macros of a page: adds lines of prose to `out`."""

    def __init__(self, roff: Roff, stash: Stash) -> None:
        self.events, self.stash = iter(roff), stash
        self.phrases = mdoc.Phrases()
        self.out: list[str] = []
        self.words: list[str] = []  # of the paragraph
        self.code: list[str] | None = None  # the lines of a block that is printed as it is
        self.prefix = ""  # of the next paragraph: the mark of an item
        self.next_is = ""  # what the next line of text is: "tag", "heading" or ""
        self.link: tuple[str, int] | None = None  # an address, and the words before its own
        self.lists: list[tuple[str, int, bool]] = []  # of mdoc: type, items, compact
        self.section = ""

    def print(self) -> list[str]:
        """Return the lines of the page; code in them is marks of the stash."""
        for name, rest in self.events:
            if not name:
                self.text(plain(rest))
            elif name in mdoc.INLINE:
                self.inline(name, rest)
            elif handler := self.HANDLERS.get(name):
                handler(self, name, [plain(word) for word in arguments(rest)])
        self.end_code()
        self.end()
        return self.out

    # Text and paragraphs.

    def text(self, line: str) -> None:
        """Add a line of text."""
        if self.code is not None:
            self.code.append(line)
        elif not line.strip():
            self.gap()
        else:
            if line[0] in " \t":
                self.end()
            self.words.append(line.strip(" \t"))
            if self.next_is and not line.endswith(JOINED):
                self.finish_title()

    def finish_title(self) -> None:
        """End a heading, or the tag of an item, that took the next line of text."""
        sort, self.next_is = self.next_is, ""
        if sort == "heading":
            self.heading()
        else:
            self.tag(_joined(self.words))
            self.words = []

    def heading(self) -> None:
        """Add the words so far as a heading."""
        self.section = _joined(self.words)
        self.end()
        self.out.append("")

    def tag(self, words: str) -> None:
        """Add what an item of a list begins with: a line, or the mark before its first one."""
        if _BULLET.match(words):
            self.prefix = "- "
        elif _LABEL.match(words):
            self.prefix = f"{words} "
        elif words:
            self.out.append(words)

    def end(self) -> None:
        """End the line."""
        text = _joined(self.words)
        self.words = []
        if text and (mark := _NUMBERED.match(text)) and not self.prefix:
            text = f"{'-' if mark[1] else mark[2]} {text[mark.end() :]}"
        if text:
            self.out.append(self.prefix + text)
            self.prefix = ""

    def gap(self) -> None:
        """End the paragraph."""
        self.end()
        if self.code is not None:
            self.code.append("")
        else:
            self.out.append("")

    def begin_code(self) -> None:
        """Begin a block of lines that are printed as they are."""
        if self.code is None:
            self.end()
            self.code = []

    def end_code(self) -> None:
        """End such a block."""
        if self.code is not None:
            lines = [_GLUED.sub("", line.expandtabs(8)) for line in self.code]
            width = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
            self.code = None
            if text := dedent(lines, width):
                self.out += ["", self.stash.put(text), ""]

    # Macros of man.

    def do_font(self, name: str, words: list[str]) -> None:
        if words:
            self.text(("" if name in _ALTERNATING else " ").join(words))

    def do_paragraph(self, name: str, words: list[str]) -> None:
        self.gap()

    def do_break(self, name: str, words: list[str]) -> None:
        self.end()

    def do_code(self, name: str, words: list[str]) -> None:
        if name in _CODE_BEGINS:
            self.begin_code()
        else:
            self.end_code()

    def do_heading(self, name: str, words: list[str]) -> None:
        self.end_code()
        self.gap()
        self.prefix = self.next_is = ""
        self.words = [" ".join(words)] if words else []
        if words:
            self.heading()
        else:
            self.next_is = "heading"

    def do_tag(self, name: str, words: list[str]) -> None:
        self.end_code()
        if name == "TQ":
            self.end()
        else:
            self.gap()
        self.next_is = "tag"

    def do_item(self, name: str, words: list[str]) -> None:
        self.end_code()
        self.gap()
        self.tag(words[0].strip() if words else "")

    def do_link(self, name: str, words: list[str]) -> None:
        self.link = (words[0] if words else "", len(self.words))

    def do_link_end(self, name: str, words: list[str]) -> None:
        address, count = self.link or ("", 0)
        if self.link and len(self.words) <= count and address:
            self.words.append(address)
        self.link = None
        if words:
            self.words.append(GLUE + words[0])

    def do_synopsis(self, name: str, words: list[str]) -> None:
        if name == "SY":
            self.end()
        self.words.append(" ".join(words) if name == "SY" else f"[{' '.join(words)}]")

    def do_reference(self, name: str, words: list[str]) -> None:
        page, section, stop = (*words, "", "", "")[:3]
        self.text(f"{page}({section}){stop}")

    def do_table(self, name: str, words: list[str]) -> None:
        self.end_code()
        self.gap()
        self.out += [*_table(self.until("TE")), ""]

    def do_formula(self, name: str, words: list[str]) -> None:
        lines = [rest for event, rest in self.until("EN") if not event]
        self.text(" ".join(line for line in lines if not line.startswith("delim")))

    def until(self, end: str) -> Iterator[tuple[str, str]]:
        """Yield the lines before a macro."""
        for name, rest in self.events:
            if name == end:
                return
            yield name, rest

    # Macros of mdoc.

    def inline(self, name: str, rest: str) -> None:
        """Add a line that begins with a macro of mdoc."""
        is_synopsis = self.section == "SYNOPSIS"
        if is_synopsis and (name in ("Ft", "Fn", "Fo", "In", "Fd", "Vt") or name == "Nm"):
            self.end()
        self.text(plain(self.phrases.phrase([name, *arguments(rest)])))
        if is_synopsis and name in ("Fn", "Fc", "In", "Fd", "Vt"):
            self.end()

    def do_section(self, name: str, words: list[str]) -> None:
        self.do_heading(name, [plain(self.phrases.phrase(words))])

    def do_list(self, name: str, words: list[str]) -> None:
        self.end()
        if name == "El":
            self.lists = self.lists[:-1]
            return
        sort = next((word for word in words if word in _LISTS), "-bullet")
        self.lists.append((sort, 0, "-compact" in words))
        self.out.append("")

    def do_list_item(self, name: str, words: list[str]) -> None:
        sort, count, is_compact = self.lists.pop() if self.lists else ("-bullet", 0, True)
        self.lists.append((sort, count + 1, is_compact))
        self.end_code()
        self.end()
        text = self.phrases.phrase(words)
        if sort == "-column":
            cells = re.split(r"(?:^| )Ta(?: |$)|\t", " ".join(words))
            self.out.append(
                table_row(_joined([plain(self.phrases.phrase(c.split()))]) for c in cells)
            )
            return
        if not is_compact:
            self.out.append("")
        if sort in ("-bullet", "-dash", "-hyphen", "-enum"):
            self.prefix = f"{count + 1}. " if sort == "-enum" else "- "
        if text:
            self.words = [plain(text)]
            if sort in ("-tag", "-hang", "-ohang"):
                self.tag(_joined(self.words))
                self.words = []

    def do_display(self, name: str, words: list[str]) -> None:
        self.end()
        if name in ("D1", "Dl"):
            line = _joined([plain(self.phrases.phrase(words))])
            self.out += ["", self.stash.put(line), ""]
        elif name == "Bd" and {"-literal", "-unfilled"} & set(words):
            self.begin_code()
        else:
            self.end_code()
            self.out.append("")

    HANDLERS: ClassVar[dict[str, Callable[[_Page, str, list[str]], None]]] = {
        **dict.fromkeys(_FONTS | _ALTERNATING, do_font),
        **dict.fromkeys(_PARAGRAPHS, do_paragraph),
        **dict.fromkeys(_BREAKS, do_break),
        **dict.fromkeys(_CODE_BEGINS | _CODE_ENDS, do_code),
        **dict.fromkeys(("SH", "SS"), do_heading),
        **dict.fromkeys(("TP", "TQ"), do_tag),
        "IP": do_item,
        **dict.fromkeys(("UR", "MT"), do_link),
        **dict.fromkeys(("UE", "ME"), do_link_end),
        **dict.fromkeys(("SY", "OP"), do_synopsis),
        "MR": do_reference,
        "TS": do_table,
        "EQ": do_formula,
        **dict.fromkeys(("Sh", "Ss"), do_section),
        **dict.fromkeys(("Bl", "El"), do_list),
        "It": do_list_item,
        **dict.fromkeys(("Bd", "Ed", "D1", "Dl"), do_display),
    }


_LISTS = frozenset(
    "-bullet -dash -hyphen -item -enum -tag -hang -ohang -inset -diag -column".split()
)


def _joined(words: list[str]) -> str:
    """Return words as one line."""
    return _GLUED.sub("", join_lines(words)).strip()


def _table(lines: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Yield the rows of a table in the language of tbl."""
    separator, is_format = "\t", True
    cells: list[list[str]] = []
    is_open = False  # in a cell of several lines, between T{ and T}
    for name, line in lines:
        if name:
            is_format = is_format or name == "T&"
            if is_open and name in _FONTS | _ALTERNATING:
                cells[-1].append(("" if name in _ALTERNATING else " ").join(arguments(line)))
        elif is_format:
            if option := re.search(r"\btab\s*\((.)\)", line):
                separator = option[1]
            is_format = not line.rstrip().endswith(".")
        elif is_open and not line.startswith("T}"):
            cells[-1].append(line)
        elif line.strip() not in ("_", "=", ""):
            pieces = line.split(separator)[1 if is_open else 0 :]
            cells += [[piece.removesuffix("T{")] for piece in pieces]
            is_open = line.endswith("T{")
            if not is_open:
                yield table_row(
                    _joined([plain(" ".join(cell))]).replace("\\^", "") for cell in cells
                )
                cells = []


def man_text(text: str, name: str = "") -> str:
    """Return the text of a manual page, "" where there is none."""
    stash = Stash()
    lines = "\n".join(_Page(Roff(text, KNOWN), stash).print())
    return stash.restore(squeeze(lines))


read_man = read_markup(man_text)
