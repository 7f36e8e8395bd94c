"""Org mode: headings, paragraphs, lists, tables, code and formulas of an outline.

    #+TITLE: Notes                        Notes
    * TODO Read [[http://x.y][it]] :a:
      DEADLINE: <2012-03-26 Mon>     →    Read it
      :PROPERTIES:
      :ID: 7                              Then /write/ becomes write.
      :END:
    Then =/write/= becomes /write/.

Left out: settings, drawers, planning lines, tags, states, comments, trees that are not exported,
images, targets, citations and macros. Files are not included.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from groundup.collect.readers.blocks import raised
from groundup.collect.readers.markup.plain import (
    MAX_DEPTH,
    Stash,
    dedent,
    html_words,
    indent_of,
    join_lines,
    read_markup,
    table_row,
    tidy,
    with_title,
)

_HEADING = re.compile(r"(\*+) +(.*?)[ \t]*(:(?:[\w@#%]+:)+)?[ \t]*\Z")
# States are words of capitals; these are the usual ones.
_STATE = re.compile(
    r"(?:TODO|DONE|NEXT|WAIT(?:ING)?|STARTED|INPROGRESS|HOLD|CANCELL?ED|DELEGATED|SOMEDAY)"
    r"(?:\s+|\Z)"
)
_HEADING_MARKS = re.compile(r"\[#\w\]\s*|\s*\[\d*(?:/\d*|%)\]")
_BLOCK = re.compile(r"\s*#\+begin_(\w+)", re.IGNORECASE)
_KEYWORD = re.compile(r"\s*#\+(\w+)(?:\[[^\]\n]*\])?:\s*(.*)", re.IGNORECASE)
_DRAWER = re.compile(r"\s*:[\w-]+:\s*\Z")
# Lines of a drawer: logs are the longest.
MAX_DRAWER = 1000
_DRAWER_END = re.compile(r"\s*:END:\s*\Z", re.IGNORECASE)
_COMMENT = re.compile(r"\s*#(?:\s|\Z|\+\w+\s*\Z)")
_PLANNING = re.compile(r"\s*(?:SCHEDULED|DEADLINE|CLOSED|CLOCK):\s*[<\[]")
_FIXED = re.compile(r"\s*:(?: |\Z)")
_RULE = re.compile(r"\s*-{5,}\s*\Z")
_ROW = re.compile(r"\s*\|")
_ROW_RULE = re.compile(r"\s*\|[-+|]*\Z")
_ITEM = re.compile(r"(\s*)([-+]|\s\*|\w+[.)])\s+(?:\[@\d+\]\s*)?(?:\[[ X-]\]\s+)?(.*)\Z")
_NUMBERED = re.compile(r"(?:\d+|[A-Za-z])[.)]\Z")
_NOTE = re.compile(r"\[fn:([\w-]+)\]\s*(.*)\Z")

# What has two ends is short: else each beginning without an end would be looked for to the end.
_MATH = re.compile(
    r"\\\(((?:(?!\\[()]).){0,500}+)\\\)|\\\[((?:(?!\\[\[\]]).){0,2000}+)\\\]", re.DOTALL
)
_VERBATIM = re.compile(r"(?<![^\s\-({'\"|])([=~])(\S|\S[^\n]{0,200}?\S)\1(?![^\s\-.,;:!?'\")}\[|])")
_LINK = re.compile(r"\[\[([^\[\]\n]*+)\](?:\[((?:(?!\]\]).){0,500}+)\])?\]")
_PICTURE = re.compile(r"(?:file:)?\S+\.(?:png|jpe?g|gif|svg|webp|bmp)\Z", re.IGNORECASE)
_INLINE_NOTE = re.compile(r"\s*\[fn:[\w-]*:\s*([^\[\]\n]*+)\]")
_GONE = re.compile(
    r"\s*\[fn:[\w-]++\]|\s*\[cite[^\[\]\n]*+\]|(?<!<)<<[^<>\n]++>>(?!>)|\{\{\{[^{}\n]*+\}\}\}"
    r"|@@\w+:[^@\n]*+@@|\s*\\(?:cite\w{0,10}|ref|eqref|label)(?:\[[^\[\]\n]*+\])*\{[^{}\n]*+\}"
)
# An address has marks of emphasis in it.
_ADDRESS = re.compile(r"<?\b((?:https?|ftp)://[^\s<>\[\]|]*[^\s<>\[\]|.,;:!?'\")(*=~+])>?")
_SCRIPT = re.compile(r"([\^_])\{([^{}\n]{1,100})\}")
_TIME = re.compile(r"[<\[](\d{4}-\d\d-\d\d)(?: [^<>\[\]\n]*+)?[>\]](--(?=[<\[]))?")
_EMPHASIS = re.compile(
    r"(?<![^\s\-({'\"*/_+|])([*/_+])([^\s*/_+]|[^\s*/_+][^\n]{0,500}?[^\s*/_+])\1"
    r"(?![^\s\-.,;:!?'\")}\[*/_+|])"
)
_ENTITIES = {"ldots": "…", "nbsp": " ", "ndash": "–", "mdash": "—", "rarr": "→", "larr": "←"}
_ENTITY = re.compile(rf"\\({'|'.join(_ENTITIES)})(?:\{{\}}|\b)")


def org_text(text: str, name: str = "") -> str:
    """Return the prose of an Org file, "" where there is none."""
    stash, titles = Stash(), list[str]()
    blocks = "\n".join(_blocks(text.split("\n"), stash, titles))
    blocks = _MATH.sub(
        lambda formula: stash.put(f"$${formula[2]}$$" if formula[2] else f"${formula[1]}$"), blocks
    )
    prose = tidy("\n\n".join(map(_flush_left, _words(blocks, stash).split("\n\n"))))
    return stash.restore(with_title(_words(" ".join(titles), stash), prose))


def _blocks(lines: list[str], stash: Stash, titles: list[str], depth: int = 0) -> Iterator[str]:
    """Yield the lines of the text, paragraphs as one; code is put into the stash."""
    paragraph: list[str] = []
    ends = [n for n, line in enumerate(lines) if _DRAWER_END.match(line)]
    skipped = number = 0  # level of a heading whose tree is left out; number of the next line
    while number < len(lines):
        line = lines[number].expandtabs(8).rstrip()
        number += 1
        if heading := _HEADING.match(line):
            yield from _flushed(paragraph)
            level = len(heading[1])
            if not skipped or level <= skipped:
                words = _HEADING_MARKS.sub("", _STATE.sub("", heading[2], 1))
                is_hidden = words.startswith("COMMENT") or ":noexport:" in (heading[3] or "")
                skipped = level if is_hidden else 0
                yield from () if is_hidden else ("", words, "")
        elif begin := _BLOCK.match(line):
            yield from _flushed(paragraph)
            mark = re.compile(rf"\s*#\+end_{begin[1]}\s*\Z", re.IGNORECASE)
            end = next((n for n in range(number, len(lines)) if mark.match(lines[n])), len(lines))
            inside, number = lines[number:end], end + 1
            if not skipped:
                yield from _block(begin[1].lower(), inside, stash, titles, depth)
        elif _DRAWER.match(line):
            yield from _flushed(paragraph)
            number = _after_drawer(lines, number, ends)
        elif not skipped:
            yield from _line(line, paragraph, stash, titles)
    yield from _flushed(paragraph)


def _after_drawer(lines: list[str], start: int, ends: list[int]) -> int:
    """Return the number of the line after the drawer that began before `start`.

    A word between colons that no drawer ends, before the next heading, is left out alone.
    """
    place = bisect_left(ends, start)
    if _DRAWER_END.match(lines[start - 1]) or place == len(ends):
        return start
    inside = lines[start : min(ends[place], start + MAX_DRAWER)]
    is_whole = ends[place] <= start + MAX_DRAWER and not any(map(_HEADING.match, inside))
    return ends[place] + 1 if is_whole else start


def _flush_left(block: str) -> str:
    """Return lines with the outermost items of their list at the margin."""
    lines = block.split("\n")
    width = min((indent_of(line) for line in lines if _ITEM.match(line)), default=0)
    return "\n".join(line[min(width, indent_of(line)) :] for line in lines) if width else block


def _line(line: str, paragraph: list[str], stash: Stash, titles: list[str]) -> Iterator[str]:
    """Yield what a line outside of blocks and drawers ends or is."""
    keyword = _KEYWORD.match(line)
    item = _ITEM.match(line)
    note = _NOTE.match(line)
    if keyword:
        yield from _flushed(paragraph)
        if keyword[1].lower() == "title":
            titles.append(keyword[2])
        elif keyword[1].lower() == "caption":
            yield from (keyword[2], "")
    elif _COMMENT.match(line) or _PLANNING.match(line) or _RULE.match(line) or not line:
        yield from _flushed(paragraph)
        yield ""
    elif _FIXED.match(line):
        yield from _flushed(paragraph)
        yield stash.put(_FIXED.sub("", line))
    elif _ROW.match(line):
        yield from _flushed(paragraph)
        if not _ROW_RULE.match(line):
            yield table_row(line.strip().strip("|").split("|"))
    elif item and (item[2] in "-+" or item[2].strip() == "*" or _NUMBERED.match(item[2])):
        yield from _flushed(paragraph)
        mark = item[2] if _NUMBERED.match(item[2]) else "-"
        # What a term means may begin in the next line.
        term, is_term, words = f"{item[3]} ".partition(" :: ")
        indent = " " * min(len(item[1]), 20)
        paragraph.append(f"{indent}{mark} {f'{term}: {words}' if is_term else term}")
    elif note:
        yield from _flushed(paragraph)
        yield ""
        paragraph.append(note[2])
    else:
        paragraph.append(line.strip() if paragraph else line[min(indent_of(line), 20) :])


def _flushed(paragraph: list[str]) -> Iterator[str]:
    """Yield the lines of a paragraph as one, and forget them."""
    if paragraph:
        yield join_lines(paragraph)
        paragraph.clear()


def _block(
    sort: str, lines: list[str], stash: Stash, titles: list[str], depth: int
) -> Iterator[str]:
    """Yield the text of a block `#+begin_SORT`."""
    if sort in ("src", "example"):
        lines = [re.sub(r"\A(\s*),(?=[*#,])", r"\1", line.expandtabs(8)) for line in lines]
        width = min((indent_of(line) for line in lines if line.strip()), default=0)
        yield from ("", stash.put(dedent(lines, width)), "")
    elif sort == "verse":
        yield from ("", *(line.strip() for line in lines), "")
    elif sort not in ("comment", "export") and depth < MAX_DEPTH:
        yield from ("", *_blocks(lines, stash, titles, depth + 1), "")


def _words(text: str, stash: Stash) -> str:
    """Return a text without marks, links and targets; verbatim words go into the stash."""
    text = _VERBATIM.sub(lambda words: stash.put(words[2]), text)
    text = _GONE.sub("", _INLINE_NOTE.sub(r" (\1)", _LINK.sub(_link_words, text)))
    text = _SCRIPT.sub(_script_words, _ADDRESS.sub(lambda link: stash.put(link[1]), text))
    text = text.replace("<<<", "").replace(">>>", "")
    text = _TIME.sub(lambda time: time[1] + ("–" if time[2] else ""), text)
    for _ in range(2):
        text = _EMPHASIS.sub(r"\2", text)
    text = re.sub(r"\\\\(?=\n|\Z)", "", text)
    return html_words(_ENTITY.sub(lambda name: _ENTITIES[name[1]], text.replace("\\_", "_")))


def _script_words(script: re.Match[str]) -> str:
    """Return an exponent or index in characters of Unicode, where there are some."""
    align = "superscript" if script[1] == "^" else "subscript"
    return raised(script[2], align, script.string[max(0, script.start() - 1) : script.start()])


def _link_words(link: re.Match[str]) -> str:
    """Return the words of a link, or its target where it has none; a picture gives nothing."""
    words = link[2]
    if words is None:
        if _PICTURE.match(link[1]):
            return ""
        return re.sub(r"\A(?:file:|\*|#|id:)", "", link[1])
    return "" if _PICTURE.match(words) else words


read_org = read_markup(org_text)
