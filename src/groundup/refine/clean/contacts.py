"""Lines of postal addresses and telephone numbers, as they stand below letters and mails.

    Ann Example                        ←  stays: a name is no contact line
    Example Ltd., 12 Main Street       ┐
    Springfield, IL 62701              │  contact lines
    Tel.: +1 555 234 5678              ┘

Two or more such lines in a row are a signature if one of them is a telephone number or a postal
address. A street or a number in a sentence is not a line of its own, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.spans import FEW, screened
from groundup.refine.kernels import kernel
from groundup.refine.scan import ZERO, next_between, next_byte

_NUMBER = r"[+(]?\d[\d ()./-]{5,20}\d(?: ?(?:x|ext\.?) ?\d{1,5})?"
_PHONE_NAME = (
    r"(?:tel(?:[eé](?:phone?|fono?|fax|fon))?|t[ée]l|phone|fax|mob(?:ile?|il)?|cell|handy|office"
    r"|direct|[tmfpwdo]|тел|факс|电话|電話)"
)
_PHONE = rf"{_PHONE_NAME}[.: ]{{1,3}}{_NUMBER}|\+\d{_NUMBER}"
_MAIL = r"(?:(?:e-?mail|mail|[ew])[.: ]{1,3})?<?[\w.+-]+@[\w-]+(?:\.[\w-]+)+>?"
_SITE = r"(?:(?:web(?:site)?|url|internet|home ?page|w)[.: ]{1,3})?(?:https?://|www\.)\S+"
_WORDS = r"[A-ZÀ-ÖØ-Þ][\w'’.-]*(?: [A-ZÀ-ÖØ-Þ\d][\w'’.-]*){0,3}"
_ROOM = r"(?:,? (?:suite|ste\.?|floor|apt\.?|unit|room|#) ?\w{1,6})?"
_STREET = "|".join(
    [
        rf"\d{{1,5}}[a-z]?,? {_WORDS} (?i:street|st|road|rd|avenue|ave|boulevard|blvd|lane|ln|drive"
        rf"|dr|way|court|ct|square|sq|parkway|pkwy|highway|hwy)\.?{_ROOM}",
        r"(?:[A-ZÄÖÜ][\w.-]*[ -]){0,3}[A-ZÄÖÜ]?[\w-]*(?i:stra(?:ß|ss)e|str\.|weg|platz|allee|gasse"
        r"|straat|laan|plein|gracht|gatan|vägen|vej|gade) \d{1,4} ?[a-z]?",
        r"\d{1,4},? (?:bis |ter )?(?i:rue|avenue|boulevard|place|chemin|allée|quai) [^,\n]{2,40}",
        rf"(?i:calle|avda\.?|via|viale|piazza|corso|rua|avenida) {_WORDS},? ?(?:n\.? ?)?\d{{1,4}}",
        r"(?i:p\.? ?o\.? ?box|postfach) \d[\d ]{0,8}",
    ]
)
_STATE_OR_CODE = (
    rf"{_WORDS},? [A-Z]{{2}} \d{{5}}(?:-\d{{4}})?|{_WORDS},? [A-Z]{{1,2}}\d[A-Z\d]? \d[A-Z]{{2}}"
)
# It may also be "1914 Paris".
_CODE_AND_TOWN = rf"(?:[A-Z]{{1,2}}[- ])?\d{{4,5}}(?: [A-Z]{{2}})? {_WORDS}"
_TOWN = rf"(?:{_STATE_OR_CODE}|{_CODE_AND_TOWN})(?:, ?{_WORDS})?"
_STRONG = (
    rf"(?i:{_PHONE})|(?:{_WORDS}, ?)?(?:{_STREET})(?:, ?{_TOWN})?[,.]?|(?:{_STATE_OR_CODE})[,.]?"
)
# Atomic: a line that is almost one costs no more than one that is.
_PART = rf"(?>(?i:{_MAIL}|{_SITE})|{_STRONG}|{_TOWN}[,.]?)"
_LINE = re.compile(rf"[ \t>*|]*{_PART}(?:(?: ?[|·•,;/] ?| {{1,3}}){_PART}){{0,3}}[ \t|]*")
_STRONG_LINE = re.compile(rf"[ \t>*|]*(?:{_STRONG})(?:\W|$)")
_AT, _LINE_FEED = 0x40, 0x0A
_LONGEST, _MIN_LINES, _MAX_WORDS = 120, 2, 5
# A contact line has one of these.
_SIGNS = np.zeros(256, np.bool_)
_SIGNS[list(b"0123456789@")] = True
# Sentences and code have these, contact lines never.
_STRANGE = np.zeros(256, np.bool_)
_STRANGE[list(b'[]{}"!\\^`$')] = True


def _screen() -> str:
    """Return what the beginning of a strong line matches, for RE2, where \\w and \\d are ASCII.

    Every other character counts as both: the classes of Unicode would take RE2 20 ms to compile.
    """
    foreign = r"\x{80}-\x{10FFFF}"

    def widened(item: re.Match[str]) -> str:
        inner = item[0][1:-1] if item[0][0] == "[" else item[0]
        return f"[{foreign}{inner}]" if r"\w" in inner or r"\d" in inner else item[0]

    pattern = re.sub(r"\[(?:\\.|[^\]\\])*\]|\\[wd]", widened, _STRONG)
    # For Python, "i" in any case is dotless, too.
    return rf"(?m)^[ \t>*|]*(?:{re.sub(r'(?<![?])i', '[iıİ]', pattern)})"


_SCREEN = _screen()


def find_signatures(texts: Texts) -> Iterator[tuple[int, int, int]]:
    """Yield the text, first byte and end of each signature, in order; whole lines."""
    offsets, data = texts
    view = data.data
    groups = screened(texts, _line_groups(offsets, data, _SIGNS, _STRANGE), _SCREEN, few=FEW)
    for row, begin, end in groups.tolist():
        start = begin - int(offsets[row])
        for group in _contact_groups(bytes(view[begin:end]).decode().split("\n")):
            yield row, start + group[0], start + group[1]


@kernel
def _line_groups(offsets: Array, data: Array, signs: Array, strange: Array) -> Array:
    """Return the spans of groups of lines that may be contact lines.

    They are short, have a digit or an @, few words in small letters, and no byte of `strange`.
    """
    out, groups = np.empty((len(data) // 4 + len(offsets), 3), np.int64), 0
    for text in range(len(offsets) - 1):
        i, last = offsets[text], offsets[text + 1]
        first, lines, end = i, 0, i - 2
        while True:
            i = next_between(data, i, last, ZERO, _AT)
            if i == last:
                break
            # Other signs are between digits and the @.
            if not signs[data[i]]:
                i += 1
                continue
            line, i = i, next_byte(data, i, last, _LINE_FEED)
            while line > offsets[text] and i - line <= _LONGEST and data[line - 1] != _LINE_FEED:
                line -= 1
            if i - line > _LONGEST:
                continue
            words = strangers = 0
            for k in range(line, i):
                words += 97 <= data[k] <= 122 and data[k - 1] == 32
                strangers += strange[data[k]]
            if strangers or words > _MAX_WORDS:
                continue
            if line != end + 1:
                first, lines = line, 0
            lines, end = lines + 1, i
            groups += lines == _MIN_LINES
            if lines >= _MIN_LINES:
                out[groups - 1, 0], out[groups - 1, 1], out[groups - 1, 2] = text, first, end
    return out[:groups].copy()


def _contact_groups(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the first byte and the end of contact lines in a row that are a signature."""
    position = first = count = 0
    is_strong = False
    for line in [*lines, ""]:
        if _LINE.fullmatch(line):
            first = first if count else position
            count += 1
            is_strong |= _STRONG_LINE.match(line) is not None
        else:
            if count >= _MIN_LINES and is_strong:
                yield first, position - 1
            count, is_strong = 0, False
        position += len(line.encode()) + 1
