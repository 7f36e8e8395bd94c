"""Names and values as SQL dumps write them, in the dialects of MySQL, PostgreSQL and SQLite.

    'It''s', 'It\\'s', E'It\\'s', N'It''s', _utf8'It''s', $$It's$$   a text
    0x4974, X'4974', _binary 'It'                                  bytes
    replace('a\\nb','\\n',char(10)), unistr('a\\u000ab')              a text of sqlite3 .dump

Only MySQL has escapes with a backslash in every text: 'C:\\' is whole in the other dialects. The
first bytes of a dump tell which one it is.
"""

from __future__ import annotations

import re

from groundup.collect.charset import decode_errors, repair_text
from groundup.collect.readers.records.csv_rows import MAX_FIELDS

# Texts, by dialect, without the closing mark. Possessive quantifiers: nothing is tried twice.
_PLAIN = rb"'[^']*+(?:''[^']*+)*+"
_ESCAPED = rb"'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+"
_DOUBLE = rb'"[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+'
_DOLLAR = rb"\$(?P<tag>\w*+)\$[^$]*+(?:\$(?!(?P=tag)\$)[^$]*+)*+"
BLOCK_COMMENT = rb"/\*[^*]*+(?:\*(?!/)[^*]*+)*+\*/"
_COMMENT = rb"--[^\n]*+|" + BLOCK_COMMENT
_WORD = rb"[A-Za-z_\x80-\xff][\w$\x80-\xff]*+"
IDENTIFIER = rb'(?:`(?:[^`]|``)++`|"(?:[^"]|"")++"|\[[^\[\]]++\]|' + _WORD + rb")"
NAME = IDENTIFIER + rb"(?:\s*+\.\s*+" + IDENTIFIER + rb")*+"
_IDENTIFIERS = re.compile(IDENTIFIER)
# What only dumps of MySQL hold, and what only others do.
_MYSQL = re.compile(rb"`|/\*!\d|/\*M!|\b(?:MySQL|MariaDB)\b|\w\\'\w")
_OTHER = re.compile(rb"PostgreSQL|PRAGMA foreign_keys|standard_conforming_strings = on")

_HEX_DIGITS = re.compile(rb"(?:0[xX]|')([0-9a-fA-F]*+)'?\Z")
_MYSQL_ESCAPE = re.compile(rb"\\(.)|''|\"\"", re.DOTALL)
_C_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_C_LETTERS = {b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_MYSQL_LETTERS = _C_LETTERS | {b"0": b"\0", b"Z": b"\x1a"}
_C_LETTERS |= {b"f": b"\f", b"v": b"\v"}
# sqlite3 .dump writes a text that holds line ends as a call of a function.
_REPLACE = re.compile(
    rb"(?:replace\()++(" + _PLAIN + rb"')((?:,'[^']*+',char\(\d{1,2}\)\))++)", re.IGNORECASE
)
_REPLACED = re.compile(rb",'([^']*)',char\((\d+)\)\)", re.IGNORECASE)
_UNISTR = re.compile(rb"unistr\((" + _PLAIN + rb"')\)", re.IGNORECASE)
_UNISTR_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|\\)")


def uses_backslashes(head: bytes) -> bool:
    """Return whether a backslash escapes what follows it in the texts of a dump."""
    if b"standard_conforming_strings = off" in head:
        return True
    return _OTHER.search(head) is None and _MYSQL.search(head) is not None


def statement_pattern(has_backslashes: bool) -> re.Pattern[bytes]:
    """Return what matches a statement of any sort up to its semicolon."""
    string = _ESCAPED if has_backslashes else _PLAIN
    quoted = (string + rb"'", rb'"[^"]*+"', rb"`[^`]*+`", _DOLLAR + rb"\$(?P=tag)\$", _COMMENT)
    # A mark that opens what has no end makes the whole fail; it is not taken for a letter.
    return re.compile(
        rb"(?:[^;'\"`$/\-]++|" + rb"|".join(quoted) + rb"|\$(?!\w*+\$)|/(?!\*)|-(?!-))*+;",
        re.DOTALL,
    )


class RowPattern:
    """Finds the values of a row `(1,'a',NULL)` in a dialect."""

    def __init__(self, has_backslashes: bool) -> None:
        string = _ESCAPED if has_backslashes else _PLAIN
        unclosed = rb"(?:" + string + (rb"|" + _DOUBLE if has_backslashes else b"") + rb")"
        closed = rb"(?:" + string + rb"'" + (rb"|" + _DOUBLE + rb'"' if has_backslashes else b"")
        # What stands in a call of a function, such as replace(replace('…')).
        inside = rb"(?:[^'()]++|" + string + rb"')"
        for _ in range(3):
            inside = rb"(?:[^'()]++|" + string + rb"'|\(" + inside + rb"*+\))"
        self._value = re.compile(
            rb"\s*+(?:"
            rb"(?P<escaped>[eE]" + _ESCAPED + rb"')"
            rb"|(?P<hex>(?:_\w++\s*+)?+(?:0[xX][0-9a-fA-F]*+|[xX]'[0-9a-fA-F]*+'))"
            rb"|(?P<text>(?:[nNbB]|_\w++\s*+)?+" + closed + rb"))"
            rb"|(?P<dollar>" + _DOLLAR + rb"\$(?P=tag)\$)"
            rb"|(?P<call>\w++\s*+\(" + inside + rb"*+\))"
            rb"|(?P<bare>[-+]?+[\w.]++(?:[+-]\d++)?+)"
            rb")(?:::\w++(?:[ ]\w++)*+(?:\[\])?+)?+\s*+[,)]",
            re.DOTALL,
        )
        self._start = re.compile(
            rb"\s*+(?:(?:\w*+\s*+\()++" + inside + rb"*+)?+"
            rb"(?:(?:\w++\s*+)?+" + unclosed + rb"|" + _DOLLAR + rb"|[-+\w.]*+)",
            re.DOTALL,
        )

    def match(self, data: bytes, at: int) -> tuple[list[re.Match[bytes]], int]:
        """Return the values of the row that starts at a place, and where it ends.

        [] and the place of the value that is none where the row is damaged, or not whole.
        """
        values: list[re.Match[bytes]] = []
        if data[at : at + 1] != b"(":
            return values, at
        at += 1
        while len(values) < MAX_FIELDS and (value := self._value.match(data, at)):
            values.append(value)
            at = value.end()
            if data[at - 1] == ord(")"):
                return values, at
        return [], at

    def reach(self, data: bytes, at: int) -> int:
        """Return how far the value goes that `match` stopped at."""
        start = self._start.match(data, at)
        return start.end() if start else at


def literal_value(
    value: re.Match[bytes], encoding: str, has_backslashes: bool
) -> str | bytes | None:
    """Return the text or bytes of a value that RowPattern found; None for NULL."""
    sort = value.lastgroup or ""
    raw: bytes = value[sort]
    if sort == "bare":
        return None if raw.upper() in (b"NULL", b"DEFAULT") else to_text(raw, encoding)
    if sort == "hex":
        digits = _HEX_DIGITS.search(raw)
        text = digits[1].decode() if digits else ""
        return bytes.fromhex(text.zfill(len(text) + len(text) % 2))
    if sort == "dollar":
        size = len(value["tag"]) + 2
        return to_text(raw[size:-size], encoding)
    if sort == "call":
        return to_text(_call_result(raw), encoding)
    quote = raw[-1:]
    inner = raw[raw.index(quote) + 1 : -1]
    if sort == "escaped":
        inner = _unescape_c(inner.replace(b"''", b"'"))
    elif has_backslashes and b"\\" in inner:
        inner = _MYSQL_ESCAPE.sub(lambda it: _mysql_character(it, quote), inner)
    else:
        inner = inner.replace(quote * 2, quote)
    return inner if raw.startswith(b"_binary") else to_text(inner, encoding)


def to_text(data: bytes, encoding: str) -> str:
    """Return bytes of a dump as text that UTF-8 can encode."""
    return repair_text(data.decode(encoding, decode_errors(encoding)))


def _mysql_character(escape: re.Match[bytes], quote: bytes) -> bytes:
    if escape[1]:
        return _MYSQL_LETTERS.get(escape[1], escape[1])
    return quote if escape[0] == quote * 2 else escape[0]


def _unescape_c(text: bytes) -> bytes:
    return _C_ESCAPE.sub(_c_character, text) if b"\\" in text else text


def _c_character(escape: re.Match[bytes]) -> bytes:
    if code := escape[1] or escape[2]:
        return bytes([int(code, 16 if escape[1] else 8) & 255])
    return _C_LETTERS.get(escape[3], escape[3])


def _call_result(raw: bytes) -> bytes:
    """Return the text that a function of sqlite3 .dump gives; another call as it is written."""
    if match := _REPLACE.fullmatch(raw):
        text = match[1][1:-1].replace(b"''", b"'")
        for mark, code in _REPLACED.findall(match[2]):
            text = text.replace(mark, bytes([int(code)])) if mark else text
        return text
    if match := _UNISTR.fullmatch(raw):
        text = match[1][1:-1].replace(b"''", b"'")
        return _UNISTR_ESCAPE.sub(_unistr_character, text)
    return raw


def _unistr_character(escape: re.Match[bytes]) -> bytes:
    return chr(int(escape[1], 16)).encode("utf-8", "replace") if escape[1] else b"\\"


def identifiers(names: bytes, encoding: str) -> list[str]:
    """Return the names in a list, or in a path `schema.table`, without quotation marks."""
    return [to_text(_bare_name(name), encoding) for name in _IDENTIFIERS.findall(names)]


def _bare_name(name: bytes) -> bytes:
    if name[:1] in (b"`", b'"'):
        return name[1:-1].replace(name[:1] * 2, name[:1])
    return name[1:-1] if name.startswith(b"[") else name


def copy_values(line: bytes, encoding: str, delimiter: bytes) -> list[str | None]:
    """Return the values of a line of COPY: fields between delimiters, `\\N` for null."""
    return [
        None if field == b"\\N" else to_text(_unescape_c(field), encoding)
        for field in line.split(delimiter)
    ]
