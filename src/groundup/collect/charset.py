"""Bytes → text: byte order mark, UTF-8, what the file declares, then statistical detection."""

from __future__ import annotations

import codecs
import io
import re
from contextlib import suppress
from functools import lru_cache

from groundup.collect.files.streams import DamagedError, Item

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Which of four bytes are zero in ASCII characters.
_ZERO_BYTES = {
    "utf-32-le": (0, 1, 1, 1),
    "utf-32-be": (1, 1, 1, 0),
    "utf-16-le": (0, 1, 0, 1),
    "utf-16-be": (1, 0, 1, 0),
}
_HIGH = re.compile(rb"[\x80-\xff]")
_HIGH_BYTES = bytes(range(0x80, 0x100))
# The bytes that tell them apart may come after the sample. Browsers read all three like this
# (WHATWG Encoding Standard).
_SUPERSETS = {"ascii": "cp1252", "iso-8859-1": "cp1252", "iso-8859-9": "cp1254"}
# Control characters that no text holds. Tab, line and page breaks, shifts, escape sequences and
# end-of-file marks do occur.
_CONTROL = bytes(sorted(set(range(32)) - {7, 8, 9, 10, 11, 12, 13, 14, 15, 26, 27}))
# Escapes of the handler `surrogateescape` → Windows-1252.
_ESCAPED_BYTES = {0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in _HIGH_BYTES}
# Encodings of host names: their decoders take time by the square of the length.
_NOT_OF_TEXTS = frozenset(("punycode", "idna"))
SAMPLE_BYTES = 1 << 16
# Seven-bit ISO-2022 (Japanese, Korean mail) passes as ASCII; its escape sequences show it.
_ISO_2022 = b"\x1b$"


def bom_encoding(data: bytes) -> str | None:
    """Return the encoding that a byte order mark at the start of `data` names, if there is one."""
    return next((name for bom, name in _BOMS if data.startswith(bom)), None)


def is_binary(head: bytes) -> bool:
    """Return whether the first bytes of a file are no text in any known encoding."""
    head = head[:8192]
    controls = len(head) - len(head.translate(None, _CONTROL))
    # Most texts hold none.
    if not controls or bom_encoding(head) or _wide_encoding(head):
        return False
    return b"\0" in head or controls > len(head) // 50


def strip_controls(data: bytes) -> bytes:
    """Return the bytes of a damaged text without those that no text holds."""
    return data.translate(None, _CONTROL) if is_binary(data) else data


def _wide_encoding(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32 without a byte order mark, by the positions of zero bytes."""
    # Text that has many zeros, but none at its start, is damaged.
    if 0 not in head[:64]:
        return None
    head = head[: len(head) & ~3][:4096]
    if len(head) < 16 or not head.count(0) > len(head) * 0.3:
        return None
    shares = [head[n::4].count(0) / (len(head) / 4) for n in range(4)]
    for name, zeros in _ZERO_BYTES.items():
        high = min(share for share, is_zero in zip(shares, zeros, strict=True) if is_zero)
        low = max(share for share, is_zero in zip(shares, zeros, strict=True) if not is_zero)
        # Runs of zeros, which damage and fields of fixed width leave, are everywhere.
        if high > 0.6 and high > 3 * low:
            return name
    return None


def detect_encoding(data: bytes, declared: str = "") -> str:
    """Return the encoding of `data`; at worst it decodes with `errors="replace"`.

    A byte order mark wins, then UTF-8 (other encodings do not pass as UTF-8 by chance), then
    `declared` if it decodes, then what chardet says.
    """
    if encoding := bom_encoding(data) or _wide_encoding(data):
        return encoding
    if _is_utf8(data):
        return "utf-8"
    if declared and _is_text_encoding(declared):
        with suppress(UnicodeError, ValueError):
            data.decode(declared)
            return declared
    # A sample around the first high byte.
    first = _HIGH.search(data)
    start = max(0, first.start() - SAMPLE_BYTES // 4) if first else 0
    name = _guess_encoding(data[start : start + SAMPLE_BYTES])
    # Real UTF-16 and UTF-32 were recognized before; damage by zero bytes looks like them, too.
    is_wide = name.lower().startswith(("utf-16", "utf-32"))
    if is_wide or not _is_text_encoding(name) or _is_false_ebcdic(name, data):
        return "cp1252"
    return _SUPERSETS.get(name.lower(), name)


# Format, kind and reader each ask for the encoding of a file; the answer takes milliseconds.
@lru_cache(16)
def _guess_encoding(sample: bytes) -> str:
    import chardet

    # chardet's own `prefer_superset` reads ISO 8859-2 as Windows-1250, which is no superset: 171
    # instead of 195 of 199 files.
    return chardet.detect(sample)["encoding"] or "ascii"


def decode_errors(encoding: str) -> str:
    """Return the error handler for an encoding: escape bytes for `repair_text` where it can."""
    return "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def open_text(item: Item) -> io.TextIOWrapper:
    """Return the text of a file that is split into records before its bytes are repaired."""
    encoding = detect_encoding(item.head)
    if item.first and encoding == "utf-8-sig":
        encoding = "utf-8"  # a piece begins with no mark of the file
    return io.TextIOWrapper(item.stream, encoding, decode_errors(encoding), newline="")


def _is_utf8(data: bytes) -> bool:
    """Return whether `data` is UTF-8, maybe cut at its end or damaged in a few places."""
    if _ISO_2022 in data[:SAMPLE_BYTES]:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        # A sample may end inside a character. A short ASCII text with one accent at its end is
        # more likely Latin-1.
        cut = error.start >= len(data) - 3 and error.reason == "unexpected end of data"
        if cut and (len(data) >= SAMPLE_BYTES or not data[: error.start].isascii()):
            return True
        # In any other encoding most high bytes would be invalid.
        high = len(data) - len(data.translate(None, _HIGH_BYTES))
        return data.decode("utf-8", "replace").count("\ufffd") <= high // 10
    return True


def _is_false_ebcdic(name: str, data: bytes) -> bool:
    """Return whether `name` is an EBCDIC, where "@" is the space, and the spaces are of ASCII."""
    return b"@".decode(name, "replace") == " " and data.count(b" ") > data.count(b"@")


def _is_text_encoding(name: str) -> bool:
    try:
        codec = codecs.lookup(name)
        return bool(codec._is_text_encoding) and codec.name not in _NOT_OF_TEXTS
    except (LookupError, ValueError):
        return False


def _utf8_text(data: bytes) -> str | None:
    """Return `data` as text if it is UTF-8 throughout; None where something says otherwise."""
    if bom_encoding(data) or _wide_encoding(data) or _ISO_2022 in data[:SAMPLE_BYTES]:
        return None
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    return None


def decode(data: bytes, declared: str = "") -> str:
    """Return `data` as text with `\\n` for every line break.

    Raises DamagedError if the bytes are no text (`binary`).
    """
    if is_binary(data):
        raise DamagedError("binary", "it holds bytes that no text holds")
    text = _utf8_text(data)
    if text is None:
        text = data.decode(detect_encoding(data, declared), "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def repair_text(text: str) -> str:
    """Return text that UTF-8 can encode.

    Escaped bytes are read as Windows-1252, split surrogate pairs are joined, lone ones replaced.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _without_surrogates(text)
    return text


def _without_surrogates(text: str) -> str:
    # Pairs are joined first: what is left of the escapes are bytes.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    text = text.translate(_ESCAPED_BYTES)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
