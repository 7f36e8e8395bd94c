"""Characters of a page of a PDF → words, in a child process that may crash.

pdfium gives the code of each character, its place and its font, in the order in which they are
drawn. Small digits above or below the line become exponents and indexes, and accents that TeX draws
apart from their letters are joined to them.

Only the standard library, pypdfium2 and the tables of `markup` are imported here: the child starts
in 0.2 s.
"""

from __future__ import annotations

import ctypes
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.collect.readers.web.markup import SUBSCRIPTS, SUPERSCRIPTS

# A page with more characters is a drawing, or an attack.
MAX_CHARACTERS = 1_000_000
# pdfium writes this for a hyphen at the end of a line.
HYPHEN = "\x02"
_HYPHENS = (2, 0xFFFE)
_SPACES = (32, 13, 10, 9, 0xA0, 0)
# A soft hyphen that is drawn, and not at the end of a line, is a hyphen.
_SOFT_HYPHEN = 0xAD
# Programs of macOS name the ligatures ff, ffi and ffl in the fonts of TeX so, by their place in the
# font (11, 14 and 15 of OT1).
_TEX_LIGATURES = {0x21B5: 0xFB00, 0: 0xFB03, 0x270F: 0xFB04}
_TEX_FONT = re.compile(rb"(?:[A-Z]{6}\+)?CM(?:R|BX|B|TI|SL|SS)[A-Z]*\d*")
# TeX draws an accent, then the letter below it.
_ACCENTS = dict(
    zip(
        map(ord, "`´ˆ^˜~¯˘˙¨˚˝ˇ¸"),
        "\u0300 \u0301 \u0302 \u0302 \u0303 \u0303 \u0304 \u0306 \u0307 \u0308 \u030a \u030b \u030c"
        " \u0327".split(),
        strict=True,
    )
)
# Fonts of code that do not say that their letters are all as wide.
_CODE_FONT = re.compile(
    rb"courier|mono|nimbusmon|consol|menlo|typewriter|cmtt|sltt|[es]ctt|sftt|lmtt|inconsolata"
    rb"|sourcecode|firacode|lettergothic",
    re.IGNORECASE,
)
_FIXED_PITCH = 1
# A digit of less than this share of the height of its word is an exponent or an index.
SCRIPT_SIZE, _MAX_SCRIPT_WORD = 0.85, 40
_SCRIPT = re.compile(r"[+−-]?[0-9]+(?:,[0-9]+)*[+−-]?,?")
_NO_CODE = 0x110000  # beyond Unicode


@dataclass(slots=True)
class Word:
    """Letters without a space between them; ends, baseline and height in points."""

    text: str
    x0: float
    x1: float
    y: float
    size: float
    angle: int  # quarter turns, clockwise
    unmapped: bool
    pitch: float = 0.0  # width of a letter of a font of code
    spacing: float = 0.0  # between its letters
    is_guessed: bool = False  # whether pdfium guesses the space before it from a gap


def page_words(text_page: Any, box: tuple[float, float, float, float]) -> Iterator[Word]:
    """Yield the words of a page in the order in which they are drawn.

    `box` is what the page shows (left, bottom, right, top): the halves of a spread hold all of it.
    """
    from pypdfium2 import raw

    count = raw.FPDFText_CountChars(text_page)
    unicode = raw.FPDFText_GetUnicode
    codes = [unicode(text_page, n) for n in range(min(count, MAX_CHARACTERS))]
    for number, code in enumerate(codes):
        if code == _SOFT_HYPHEN:
            codes[number] = ord("-")
        elif code in _TEX_LIGATURES and _TEX_FONT.fullmatch(_font(text_page, raw, number)):
            codes[number] = _TEX_LIGATURES[code]
        elif code in _ACCENTS:
            _compose(text_page, raw, codes, number)
    x, y = ctypes.c_double(), ctypes.c_double()
    start = 0
    for end, code in enumerate([*codes, 32]):
        if code in _SPACES or code in _HYPHENS:
            stop = end + (code in _HYPHENS)
            if stop > start:
                raw.FPDFText_GetCharOrigin(text_page, start, x, y)
                if box[0] <= x.value <= box[2] and box[1] <= y.value <= box[3]:
                    word = _word(text_page, raw, codes[start:stop], start)
                    word.is_guessed = raw.FPDFText_IsGenerated(text_page, start - 1) == 1
                    yield word
            start = end + 1


def _compose(text_page: Any, raw: Any, codes: list[int], number: int) -> None:
    """Make one letter of an accent and the letter that is drawn below it.

    What follows is no letter's code any more, so that places of characters stay.
    """
    after = number + 1
    if after < len(codes) and raw.FPDFText_IsGenerated(text_page, after) == 1:
        after += 1
    if after >= len(codes) or not chr(codes[after]).isalpha():
        return
    letter = chr({ord("ı"): ord("i"), ord("ȷ"): ord("j")}.get(codes[after], codes[after]))
    composed = unicodedata.normalize("NFC", letter + _ACCENTS[codes[number]])
    accent, below = raw.FS_RECTF(), raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text_page, number, accent)
    raw.FPDFText_GetLooseCharBox(text_page, after, below)
    overlap = min(accent.right, below.right) - max(accent.left, below.left)
    if len(composed) == 1 and overlap > (accent.right - accent.left) / 2:
        codes[number : after + 1] = [ord(composed), *[_NO_CODE] * (after - number)]


def _font(text_page: Any, raw: Any, number: int, flags: Any = None) -> bytes:
    """Return the name of the font of a character; write what it says of itself into `flags`."""
    name = ctypes.create_string_buffer(100)
    raw.FPDFText_GetFontInfo(text_page, number, name, len(name), flags or ctypes.c_int())
    return name.value


def _word(text_page: Any, raw: Any, codes: Sequence[int], start: int) -> Word:
    first, last = raw.FS_RECTF(), raw.FS_RECTF()
    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(text_page, start, x, y)
    raw.FPDFText_GetLooseCharBox(text_page, start, first)
    # The box of a hyphen that pdfium marks is empty.
    end = start + len(codes) - (1 if len(codes) > 1 and codes[-1] in _HYPHENS else 0)
    raw.FPDFText_GetLooseCharBox(text_page, max(start, end - 1), last)
    quarter = round(raw.FPDFText_GetCharAngle(text_page, start) / 1.5708) % 4
    x0, x1, size, baseline = first.left, last.right, first.top - first.bottom, y.value
    if quarter == 1:
        x0, x1, size, baseline = -first.top, -last.bottom, first.right - first.left, x.value
    elif quarter == 2:
        x0, x1, baseline = -first.right, -last.left, -y.value
    elif quarter == 3:
        x0, x1, size, baseline = first.bottom, last.top, first.right - first.left, -x.value
    if quarter == 0 and any(0x30 <= code < 0x3A for code in codes[1:_MAX_SCRIPT_WORD]):
        codes, baseline, size = _with_scripts(text_page, raw, codes, start)
    text = "".join(HYPHEN if code in _HYPHENS else chr(code) for code in codes if code < _NO_CODE)
    word = Word(text, x0, max(x0, x1), baseline, max(size, 1.0), quarter, False)
    word.unmapped = raw.FPDFText_HasUnicodeMapError(text_page, start) == 1
    flags = ctypes.c_int()
    if _CODE_FONT.search(_font(text_page, raw, start, flags)) or flags.value & _FIXED_PITCH:
        word.pitch = (word.x1 - word.x0) / max(1, len(text))
    if len(codes) > 1 and quarter == 0:
        raw.FPDFText_GetLooseCharBox(text_page, start + 1, last)
        word.spacing = max(0.0, last.left - first.right)
    return word


def _with_scripts(
    text_page: Any, raw: Any, codes: Sequence[int], start: int
) -> tuple[list[int], float, float]:
    """Return the codes of a word with small digits above or below its line as exponents, indexes.

    With them, the baseline and the height of its tallest letter.
    """
    box, x, y = raw.FS_RECTF(), ctypes.c_double(), ctypes.c_double()
    sizes, heights = [], []
    for number in range(start, start + len(codes[:_MAX_SCRIPT_WORD])):
        raw.FPDFText_GetLooseCharBox(text_page, number, box)
        raw.FPDFText_GetCharOrigin(text_page, number, x, y)
        sizes.append(box.top - box.bottom)
        heights.append(y.value)
    tallest = max(sizes)
    line = heights[sizes.index(tallest)]
    written = list(codes)
    for place, (size, height) in enumerate(zip(sizes, heights, strict=True)):
        if 0x30 <= codes[place] < 0x3A and size < SCRIPT_SIZE * tallest:
            written[place] = ord(script(chr(codes[place]), (height - line) / tallest))
    return written, line, tallest


def script(text: str, rise: float) -> str:
    """Return small digits that stand above or below a line; `rise` is in heights of its letters."""
    if not _SCRIPT.fullmatch(text):
        return text
    if rise > 0.1:
        return text.translate(SUPERSCRIPTS)
    return text.translate(SUBSCRIPTS) if rise < -0.02 else text
