"""What the readers of Markdown, reStructuredText, Org, AsciiDoc, LaTeX and man pages share.

Each turns the text of a file into prose: `convert(text, name)` returns it, "" where there is none.
A scanner of lines finds the blocks; code and formulas go into a `Stash`, so that the patterns for
marks inside lines can run over the whole text at once and change nothing in them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline, read_all
from groundup.collect.readers.text import declared_encoding
from groundup.collect.readers.web.markup import write_marks
from groundup.recipe import Source

# Markup of one file; longer ones are dumps of something else.
MAX_MARKUP_BYTES = 20 << 20
# Levels of quotes, lists and notes inside each other; deeper ones are read as the last.
MAX_DEPTH = 12
# Noncharacters: they are in no text.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

# Patterns begin with a character, not a choice or a look back: they are found ten times faster.
_GAP = re.compile(r"\n\n\n+")
_SPACES = re.compile(r"  (?<=\S  )[ \t]*(?=\S)")
# What is left of a link, an image or a citation that is gone: brackets, space before a stop.
_HOLE = re.compile(r" (?:\([,;. ]*+\)|(?=[.,](?:\s|\Z)))")
# Chinese and Japanese are written without spaces, also where a line of the file ends.
_CJK = "[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_CJK_BREAK = re.compile(f"(?<={_CJK}) (?={_CJK})")

_TAGS = frozenset(
    "a abbr address article aside audio b base big blockquote body br button caption center cite"
    " code col colgroup dd del details dfn dialog div dl dt em embed fieldset figcaption figure"
    " font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label"
    " legend li link main map mark meta nav noscript object ol optgroup option p param picture pre"
    " q rp rt ruby s samp section select small source span strike strong sub summary sup table"
    " tbody td textarea tfoot th thead time title tr tt u ul var video wbr svg path g".split()
)
_BREAKING = frozenset(
    "address article aside blockquote br center dd details div dl dt figcaption figure footer form"
    " h1 h2 h3 h4 h5 h6 header hr main nav ol p pre section summary table tr ul caption".split()
)
_TAG = re.compile(r"<(?:/)?([A-Za-z][\w.:-]*+)(?:\s[^<>\n]*+|/)?>( *)")
_COMMENT = re.compile(r"<!--(?:(?!-->|<!--)[^\n])*+-->")


class Stash:
    """Pieces of a text that no pattern may change, each behind a mark in the text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def put(self, piece: str) -> str:
        """Return the mark that stands for a piece."""
        self._pieces.append(piece)
        return f"{_OPEN}{len(self._pieces) - 1}{_CLOSE}"

    def restore(self, text: str) -> str:
        """Return a text with its pieces, and the pieces inside of those, in their places."""
        for _ in range(4):
            if _OPEN not in text:
                break
            text = _MARK.sub(lambda mark: self._pieces[int(mark[1])], text)
        return text


def clean_input(text: str) -> str:
    """Return a text without the characters that mark stashed pieces."""
    if _OPEN in text or _CLOSE in text:
        text = text.replace(_OPEN, "").replace(_CLOSE, "")
    return text.replace("\ufeff", "") if text.startswith("\ufeff") else text


def join_lines(lines: Iterable[str]) -> str:
    """Return the lines of a paragraph as one."""
    text = " ".join(lines)
    return text if text.isascii() else _CJK_BREAK.sub("", text)


def table_row(cells: Iterable[str]) -> str:
    """Return a row of a table; empty cells at its end are left out."""
    return " | ".join(cell.strip() for cell in cells).rstrip("| ")


def dedent(lines: list[str], width: int) -> str:
    """Return lines of code without up to `width` columns of indentation."""
    if width:
        lines = [line[min(width, len(line) - len(line.lstrip())) :] for line in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    return "\n".join(line.rstrip() for line in lines)


def item_lines(mark: str, lines: list[str]) -> list[str]:
    """Return the lines of an item of a list behind its mark, the further ones indented."""
    while lines and not lines[0]:
        lines.pop(0)
    first = mark + lines[0] if lines else mark.rstrip()
    # Code gets no margin: its lines are behind one mark of a stash.
    rest = [line if not line or line[0] == _OPEN else f"  {line}" for line in lines[1:]]
    return [first, *rest]


def indent_of(line: str) -> int:
    """Return the columns of spaces that a line begins with."""
    return len(line) - len(line.lstrip(" "))


def html_words(text: str) -> str:
    """Return a text without its HTML tags and comments, and with characters for its entities."""
    if "<" in text:
        text = _COMMENT.sub("", text)
        if "<su" in text or "<q" in text:
            text = write_marks(text)
        text = _TAG.sub(_tag_words, text)
    return html.unescape(text) if "&" in text else text


def _tag_words(tag: re.Match[str]) -> str:
    """Return what stands for a tag: a line break, the border of a cell, nothing, or itself."""
    name = tag[1].lower()
    if name in _BREAKING:
        return "\n"
    if name in ("td", "th"):
        return " | " if tag[0][1] == "/" else ""
    if name == "li":
        return "" if tag[0][1] == "/" else "\n- "
    return tag[2] if name in _TAGS or "-" in name else tag[0]


def tidy(text: str) -> str:
    """Return prose without the gaps that removed marks leave; code must be stashed."""
    return squeeze(_HOLE.sub("", _SPACES.sub(" ", text)))


def squeeze(text: str) -> str:
    """Return prose with one space between words and one blank line between paragraphs."""
    text = _SPACES.sub(" ", text)
    text = "\n".join(map(str.rstrip, text.split("\n")))
    return _GAP.sub("\n\n", text.replace(" |\n", "\n")).strip("\n ")


def with_title(title: str, text: str) -> str:
    """Return a text that begins with its title, as a line of its own."""
    title = " ".join(title.split())
    if not title or text[: len(title) + 200].casefold().startswith(title.casefold()):
        return text
    return f"{title}\n\n{text}".rstrip()


def read_markup(
    convert: Callable[[str, str], str],
) -> Callable[[Item, Source], Iterator[Document | Reject]]:
    """Return the reader of files, one document each, that `convert(text, name)` makes prose of."""

    def read(item: Item, source: Source) -> Iterator[Document | Reject]:
        text = decode(read_all(item.stream, MAX_MARKUP_BYTES), declared_encoding(source))
        try:
            with deadline():
                prose = convert(clean_input(text), item.name)
        except TooLongError as error:
            raise DamagedError("timeout", str(error)) from None
        if prose:
            yield Document(prose, group=item.origin)
        else:
            yield Reject("empty", detail="markup without any text")

    return read
