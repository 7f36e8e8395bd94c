r"""Rich Text Format: one document a file.

RTF is text with control words: `\par` ends a paragraph, `{` and `}` enclose a group whose settings
end with it, and the first word of a group may make it something else than text:

    {\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}}Caf\'e9 {\b bold}\par}

Bytes above ASCII are in the code page of the font; `\u8217?` is a character of Unicode with its
replacement for older programs, which is skipped. A fragment, to be put into a document, has no head
and may be several groups.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import (
    MAX_RECORD,
    DamagedError,
    Item,
    TooLongError,
    deadline,
    read_all,
)
from groundup.collect.readers.blocks import Blocks, raised, symbols
from groundup.recipe import Source

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+"
    rb"|([^\\{}\r\n]+)",
    re.DOTALL,
)
MAX_GROUPS = 5_000  # groups inside each other
# Groups that hold no text of the document. So does every group that begins with `\*`.
_SKIPPED = frozenset(
    b"fonttbl colortbl stylesheet info pict objdata objclass header headerl headerr headerf footer"
    b" footerl footerr footerf fldinst listtable listoverridetable revtbl rsidtbl annotation atnid"
    b" atnauthor atnref atntime xe tc tcn themedata colorschememapping latentstyles datastore"
    b" generator nonesttables shprslt sp private bkmkstart bkmkend filetbl do mmath".split()
)
# Groups with `\*` that do hold text.
_KEPT = frozenset((b"shpinst", b"shptxt"))
_CHARACTERS = {
    **dict.fromkeys((b"tab", b"emspace", b"enspace", b"qmspace"), " "),
    b"emdash": "—",
    b"endash": "–",
    b"bullet": "•",
    b"line": "\n",
    b"softline": "\n",
    b"lquote": "‘",
    b"rquote": "’",
    b"ldblquote": "“",
    b"rdblquote": "”",
}
_ESCAPES = {b"~": " ", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}"}
_PARAGRAPH_ENDS = frozenset((b"par", b"sect", b"page", b"column"))
_CODE_PAGES = {b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850"}
_CHARSET_PAGES = (
    "1252 10000 932 949 1361 936 950 1253 1254 1258 1255 1256 1257 1251 874 1250 437 850"
)
# Character set of a font → code page.
_CHARSETS = dict(
    zip(
        (0, 77, 128, 129, 130, 134, 136, 161, 162, 163, 177, 178, 186, 204, 222, 238, 254, 255),
        _CHARSET_PAGES.split(),
        strict=True,
    )
)
_SYMBOL_CHARSET = 2
_BULLET = re.compile(r"[^\w()]*\Z")


def read_rtf(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the text of an RTF file, notes at its end."""
    data = read_all(item.stream, MAX_RECORD)
    try:
        with deadline():
            reader = _Reader(data)
            text = reader.text()
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    if text:
        yield Document(text, group=item.origin)
    else:
        yield Reject("no-text", detail="an RTF file without any text")


@dataclass(frozen=True)
class _Settings:
    """What the words of a group set, until it ends."""

    skipped: bool = False
    place: bytes = b""  # the group that this is, where it is not the text of the document
    font: int = -1
    replacement: int = 1  # characters that follow a character of Unicode for older programs
    hidden: bool = False
    align: str = ""  # "superscript" or "subscript"


@dataclass
class _Flow:
    """Text of the document or of a note: the paragraph, row and table that are being read."""

    blocks: Blocks = field(default_factory=Blocks)
    text: list[str] = field(default_factory=list)
    label: str = ""  # number or bullet of the paragraph
    cell: list[str] = field(default_factory=list)
    row: list[list[str]] = field(default_factory=list)
    rows: list[list[list[str]]] = field(default_factory=list)
    is_heading: bool = False
    in_table: bool = False

    def end_paragraph(self) -> None:
        """Add the paragraph to its cell, or to the document."""
        text, label = "".join(self.text), self.label
        self.text, self.label = [], ""
        if self.in_table:
            self.cell += [label + text] if text.strip() else []
            return
        self.end_table()
        sort = "heading" if self.is_heading else "paragraph"
        if text.strip():
            self.blocks.add(label + text, "item" if label and sort == "paragraph" else sort)

    def end_cell(self) -> None:
        """Add the cell to its row."""
        self.in_table = True
        self.end_paragraph()
        self.row.append(self.cell)
        self.cell = []

    def end_row(self) -> None:
        """Add the row to its table."""
        self.rows += [self.row] if self.row else []
        self.row = []

    def end_table(self) -> None:
        """Add the table to the document."""
        self.end_row()
        if self.rows:
            self.blocks.add_table(self.rows)
            self.rows = []


class _Reader:
    """Reads the tokens of an RTF file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._is_fragment = not data.lstrip().startswith(b"{\\rtf")
        self._settings = _Settings()
        self._groups: list[tuple[_Settings, _Flow]] = []
        self._flow = self._document = _Flow()
        self._notes: list[_Flow] = []
        self._code_page = "cp1252"
        # Number of a font → its code page ("symbol" for none) and name.
        self._fonts: dict[int, tuple[str, str]] = {}
        self._bytes = bytearray()  # not yet decoded
        self._skip = 0  # characters that stand for one of Unicode before
        self._high = ""  # first half of a surrogate pair
        self._title: list[str] = []

    def text(self) -> str:
        """Return the text of the document."""
        position = 0
        while token := _TOKEN.match(self._data, position):
            position = token.end()
            word, number, byte, escape, brace, text = token.groups()
            if text is not None:
                self._add_bytes(text)
            elif byte is not None:
                self._add_bytes(bytes((int(byte, 16),)))
            elif brace is not None:
                self._flush()
                self._turn(brace)
                if not self._groups and not self._is_fragment:
                    # What follows the outermost group is no RTF.
                    break
            elif word is not None:
                if word == b"bin":
                    position += max(0, int(number or 0))
                self._read_word(word.lower(), int(number) if number else None)
            elif escape is not None:
                self._read_escape(escape)
        self._flush()
        self._document.end_paragraph()
        self._document.end_table()
        for note in self._notes:
            for sort, part in note.blocks.parts:
                self._document.blocks.add(part, sort)
        return self._document.blocks.text("".join(self._title))

    def _turn(self, brace: bytes) -> None:
        """Begin or end a group."""
        self._skip = 0
        if brace == b"{":
            if len(self._groups) >= MAX_GROUPS:
                raise DamagedError("nesting", f"groups nest more than {MAX_GROUPS:,} deep")
            self._groups.append((self._settings, self._flow))
        elif self._groups:
            flow = self._flow
            self._settings, self._flow = self._groups.pop()
            if flow is not self._flow:
                flow.in_table = False
                flow.end_paragraph()
                flow.end_table()

    def _add_bytes(self, data: bytes) -> None:
        if self._settings.skipped and self._settings.place not in (b"fonttbl", b"title"):
            return
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._bytes += data[skipped:]

    def _flush(self) -> None:
        """Decode the bytes of a run, and add its text."""
        if not self._bytes:
            return
        data, self._bytes = bytes(self._bytes), bytearray()
        code_page, name = self._fonts.get(self._settings.font, (self._code_page, ""))
        if self._settings.place == b"fonttbl":
            known = self._fonts.get(self._settings.font, (self._code_page, ""))[0]
            self._fonts[self._settings.font] = (known, data.decode("cp1252", "replace").strip("; "))
        elif code_page == "symbol":
            self._add(symbols("".join(chr(0xF000 | byte) for byte in data), name or "Symbol"))
        else:
            self._add(data.decode(code_page, "replace"))

    def _add(self, text: str) -> None:
        settings = self._settings
        if settings.place == b"title":
            self._title.append(text)
        elif settings.skipped or settings.hidden:
            return
        elif settings.place in (b"listtext", b"pntext"):
            label = text.strip()
            self._flow.label += "- " if _BULLET.match(label) and label else f"{label} "
            self._flow.label = self._flow.label.replace("  ", " ").lstrip()
        else:
            parts = self._flow.text
            parts.append(raised(text, settings.align, parts[-1] if parts else ""))

    def _read_escape(self, escape: bytes) -> None:
        if escape == b"*":
            self._settings = replace(self._settings, place=b"*")
        elif escape in (b"\r", b"\n"):
            self._read_word(b"par", None)
        elif escape in _ESCAPES:
            self._flush()
            if self._skip:
                self._skip -= 1
            else:
                self._add(_ESCAPES[escape])

    def _read_word(self, word: bytes, number: int | None) -> None:  # noqa: PLR0912 - a table
        if word == b"u" and number is not None:
            self._flush()
            self._add_code(number & 0xFFFF)
            self._skip = self._settings.replacement
            return
        self._flush()
        settings, is_on = self._settings, number != 0
        if word in _SKIPPED or (settings.place == b"*" and word not in _KEPT):
            place = word if word in (b"fonttbl",) else b""
            self._settings = replace(settings, skipped=True, place=place)
        elif word == b"title" and settings.skipped:
            self._settings = replace(settings, place=b"title")
        elif word in (b"listtext", b"pntext", b"shpinst"):
            self._settings = replace(settings, place=word)
        elif word == b"footnote":
            self._flow = _Flow()
            self._notes.append(self._flow)
        elif word == b"f" and number is not None:
            self._settings = replace(settings, font=number)
        elif word == b"fcharset" and settings.place == b"fonttbl":
            self._fonts[settings.font] = (_code_page(number or 0), "")
        elif word == b"uc":
            self._settings = replace(settings, replacement=min(number or 0, 8))
        elif word in (b"v", b"deleted"):
            self._settings = replace(settings, hidden=is_on)
        elif word in (b"super", b"sub") and is_on:
            self._settings = replace(settings, align=f"{word.decode()}script")
        elif word in (b"super", b"sub", b"nosupersub"):
            self._settings = replace(settings, align="")
        elif word == b"plain":
            self._settings = replace(settings, hidden=False, align="")
        elif word == b"ansicpg" and number:
            self._code_page = _known(f"cp{number}")
        elif word in _CODE_PAGES:
            self._code_page = _CODE_PAGES[word]
        elif not settings.skipped and not settings.hidden:
            self._read_mark(word, number)

    def _read_mark(self, word: bytes, number: int | None) -> None:
        """Follow a word that ends or describes a paragraph, cell or row, or is a character."""
        flow = self._flow
        if word in _CHARACTERS:
            self._add(_CHARACTERS[word])
        elif word in _PARAGRAPH_ENDS:
            flow.end_paragraph()
        elif word in (b"cell", b"nestcell"):
            flow.end_cell()
        elif word in (b"row", b"nestrow"):
            flow.end_row()
        elif word == b"pard":
            flow.in_table = flow.is_heading = False
        elif word in (b"intbl", b"itap"):
            flow.in_table = number != 0
        elif word == b"outlinelevel":
            flow.is_heading = (number or 0) < 9

    def _add_code(self, code: int) -> None:
        """Add a character of Unicode, which may be half of a pair."""
        if 0xD800 <= code < 0xDC00:
            self._high = chr(code)
            return
        pair = (self._high + chr(code)).encode("utf-16-le", "surrogatepass")
        self._high = ""
        _, name = self._fonts.get(self._settings.font, ("", ""))
        self._add(symbols(pair.decode("utf-16-le", "replace"), name))


def _code_page(charset: int) -> str:
    if charset == _SYMBOL_CHARSET:
        return "symbol"
    return _known(f"cp{_CHARSETS.get(charset, '1252')}")


def _known(name: str) -> str:
    """Return the name of a code page that Python knows."""
    name = {"cp10000": "mac_roman", "cp1361": "johab", "cp65001": "utf-8"}.get(name, name)
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "cp1252"
