"""Bytes → text: byte order mark, UTF-8, what the file itself declares, then detection. Reads and
writes nothing.
"""

from __future__ import annotations

import codecs
import re

from groundup.collect.files.streams import DamagedError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_BYTES = bytes(range(0x80, 0x100))
# The bytes that tell them apart may come after the sample; browsers read all three so (WHATWG
# Encoding Standard).
_SUPERSETS = {"ascii": "cp1252", "iso-8859-1": "cp1252", "iso-8859-9": "cp1254"}
# Control characters that no text holds (tab, line and page breaks, shifts, escape sequences and
# end-of-file marks do occur).
_CONTROL = bytes(sorted(set(range(32)) - {7, 8, 9, 10, 11, 12, 13, 14, 15, 26, 27}))
SAMPLE = 1 << 16


def bom_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark at the start of `data` names, if there is one."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), None)


def is_binary(head: bytes) -> bool:
    """Return whether the first bytes of a file cannot be text in any encoding that this module
    knows.
    """
    head = head[:8192]
    if not head or bom_encoding(head) or _wide(head):
        return False
    controls = len(head) - len(head.translate(None, _CONTROL))
    return b"\0" in head or controls > len(head) // 50


def strip_controls(data: bytes) -> bytes:
    """Return the bytes of a text without those that no text holds, where damage left some."""
    return data.translate(None, _CONTROL) if is_binary(data) else data


def _wide(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32 without a mark, told by where the zero bytes of ASCII characters
    stand.
    """
    head = head[: len(head) & ~3][:4096]
    # Text that begins without a zero, and has many later on, is damaged.
    if len(head) < 16 or not head.count(0) > len(head) * 0.3 or 0 not in head[:64]:
        return None
    zeros = [head[n::4].count(0) / (len(head) / 4) for n in range(4)]
    shapes = {
        "utf-32-le": (0, 1, 1, 1),
        "utf-32-be": (1, 1, 1, 0),
        "utf-16-le": (0, 1, 0, 1),
        "utf-16-be": (1, 0, 1, 0),
    }
    return next(
        (
            n
            for n, s in shapes.items()
            if all((z > 0.6) == bool(want) for z, want in zip(zeros, s, strict=True))
        ),
        None,
    )


def detect_encoding(data: bytes, declared: str = "") -> str:
    """Return the name of the encoding of `data`; it decodes with `errors="replace"` at worst.

    A mark wins, then UTF-8 (no other encoding passes as it by chance), then `declared` if it
    decodes, then what chardet says.
    """
    mark = bom_encoding(data)
    if mark is not None:
        return mark
    wide = _wide(data)
    if wide is not None:
        return wide
    if _is_utf8(data):
        return "utf-8"
    if declared and _decodes(data, declared):
        return declared
    return _detect(data)


def decode_errors(encoding: str) -> str:
    """Return how what cannot be decoded is kept: as escaped bytes for `mend`, where an encoding has
    single bytes.
    """
    return "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def _is_utf8(data: bytes) -> bool:
    # Seven-bit ISO-2022 (Japanese, Korean mail) passes as ASCII; its escapes give it away.
    if b"\x1b$" in data[:SAMPLE]:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        # A sample may end inside a character; a word that ends in an accent, as in Latin-1, is no
        # such sample.
        ends = error.start >= len(data) - 3 and error.reason == "unexpected end of data"
        ends = ends and (len(data) >= SAMPLE or not data[: error.start].isascii())
        return ends or _is_damaged_utf8(data)
    return True


def _is_damaged_utf8(data: bytes) -> bool:
    """Return whether a few bytes spoil what is UTF-8 otherwise: in any other encoding most high
    bytes would.
    """
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    return data.decode("utf-8", "replace").count("\ufffd") <= high // 10


def _decodes(data: bytes, name: str) -> bool:
    try:
        if _is_text(name):
            data.decode(name)
            return True
    except (UnicodeError, ValueError):
        pass
    return False


def _is_text(name: str) -> bool:
    try:
        return bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False


def _detect(data: bytes) -> str:
    import chardet

    first = _HIGH.search(data)
    start = max(0, first.start() - SAMPLE // 4) if first else 0
    # Its own `prefer_superset` reads ISO 8859-2 as Windows-1250, which is no superset: 171 instead
    # of 195 of 199 files.
    name = chardet.detect(data[start : start + SAMPLE])["encoding"] or "ascii"
    # Where text is in UTF-16 or UTF-32, `_wide` has seen it; zero bytes of damage look like it,
    # too.
    return (
        _SUPERSETS.get(name.lower(), name)
        if _is_text(name) and not name.lower().startswith(("utf-16", "utf-32"))
        else "cp1252"
    )


def decode(data: bytes, declared: str = "") -> str:
    """Return `data` as text with `\\n` for every line break.

    Raises:
        DamagedError: the bytes are no text (`binary`).
    """
    if is_binary(data):
        raise DamagedError("binary", "it holds bytes that no text holds")
    text = data.decode(detect_encoding(data, declared), "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def repair_text(text: str) -> str:
    """Return text that UTF-8 can hold: escaped bytes read as Windows-1252, split surrogates joined,
    lone ones replaced.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        pass
    else:
        return text
    text = re.sub(
        r"(?<![\ud800-\udbff])[\udc80-\udcff]",
        lambda hit: bytes([ord(hit[0]) - 0xDC00]).decode("cp1252", "replace"),
        text,
    )
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
