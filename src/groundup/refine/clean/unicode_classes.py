"""Tables that classify every Unicode code point for the word splitter and the cleaner.

The ranges are literals. `unicodedata` would change with the Python version, and MinHash signatures
must not. Ranges are written as `FIRST-LAST` in hexadecimal, both ends included.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.kernels import Number, kernel

CODE_POINTS = 0x110000

# Classes of the word splitter.
BREAK, WORD, UNSPACED = 0, 1, 2
# Classes of the cleaner.
PLAIN, UNSTABLE, DROP, NEWLINE, SPACE, JOINER, RETURN, HIDDEN = 0, 1, 2, 3, 4, 5, 6, 7

# Scripts written without spaces between words: each code point counts as one word.
_UNSPACED = (
    "E01-E3A E40-E4E E50-E59 E81-EDF "  # Thai, Lao
    "1000-1049 1050-109F A9E0-A9FE AA60-AA7F 1780-17D3 17D7 17DC-17F9 "  # Burmese, Khmer
    "2E80-2FD5 3005-3007 3021-3029 3031-3035 3038-303C "  # CJK radicals and signs
    "3041-309A 309D-309F 30A1-30FA 30FC-312F 31A0-31BF 31F0-31FF "  # Kana, Bopomofo
    "3400-4DBF 4E00-A4CF F900-FAFF FF66-FF9F "  # CJK, Yi, half-width Katakana
    "16FE0-18D8F 1AFF0-1B16F 20000-3FFFD"  # Tangut, old Kana, CJK extensions
)
# Those of them in which a word is about four code points long: letters, vowel signs and tone marks.
_LONG_WORDS = "E01-EDF 1000-109F 1780-17FF A9E0-A9FE AA60-AA7F"  # Thai, Lao, Burmese, Khmer
# Letters that hold as much as two or three of an alphabet: Kana, Han, Yi, Hangul.
_DENSE = "3041-30FF 3400-4DBF 4E00-A48C AC00-D7A3 F900-FAFF 20000-3FFFD"
# Marks that end a word as a space does: of Ethiopic, Tibetan (after each syllable), Ogham.
_WORD_MARKS = "F0B-F0C 1361 1680"
# Beyond ASCII, everything belongs to a word except spaces, punctuation, symbols and unassigned code
# points.
_BREAKS = """
    80-A9 AB-B1 B4 B6-B8 BB BF D7 F7 2C2-2C5 2D2-2DF 2E5-2EB 2ED 2EF-2FF 375 37E 384-385 387 3F6 482
    55A-55F 589-58F 5BE 5C0 5C3 5C6 5F3-5F4 600-60F 61B-61F 66A-66D 6D4 6DD-6DE 6E9 6FD-6FE 700-70F
    7F6-7F9 830-83E 85E 964-965 970 9F2-9F3 9FA-9FD A76 AF0-AF1 BF3-BFA C77 C84 DF4 E3F E4F E5A-E5B
    F01-F17 F1A-F1F F34 F36 F38 F3A-F3D F85 FBE-FC5 FC7-FDA 104A-104F 109E-109F 10FB 1360-1368
    1390-1399 1400 166D-166E 1680 169B-169C 16EB-16ED 1735-1736 17D4-17D6 17D8-17DB 1800-180E
    1940-1945 19DE-19FF 1FBD 1FBF-1FC1 1FCD-1FCF 1FDD-1FDF 1FED-1FEF 1FFD-1FFE 2000-206F 207A-207E
    208A-208E 20A0-20CF 2190-2BFF 2CE5-2CEA 2CF9-2CFF 2E00-2E7F 2FD6-3004 3008-3020 3030 3036-3037
    303D-303F 309B-309C 30A0 30FB 3190-319F 31C0-31EF 3200-33FF 4DC0-4DFF A490-A4CF A4FE-A4FF
    A60D-A60F A700-A716 A720-A721 A789-A78A AA77-AA79 D800-F8FF FD3E-FD4F FDD0-FDEF FDFC-FE1F
    FE30-FE6F FEFF-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF65 FFE0-FFFF 1D000-1D3FF 1F000-1FAFF E0000-10FFFF
"""
# Capitals of living scripts: range, step, distance to the lowercase letter. Capitals that are often
# written as two letters or without their accent (German sharp s, accented Greek) are left out.
_CAPITALS = (
    "41-5A/1+32 C0-D6/1+32 D8-DE/1+32 100-12E/2+1 130/1-199 132-136/2+1 139-147/2+1 "  # Latin
    "14A-176/2+1 178/1-121 179-17D/2+1 1A0-1A4/2+1 1AF/1+1 1CD-1DB/2+1 1DE-1EE/2+1 1F8-21E/2+1 "
    "222-232/2+1 1E00-1E94/2+1 1E9E/1-7615 1EA0-1EFE/2+1 "
    "181/1+210 186/1+206 187/1+1 189-18A/1+205 18E/1+79 18F/1+202 190/1+203 191/1+1 "  # Africa
    "194/1+207 196/1+211 197/1+209 198/1+1 19D/1+213 1B1-1B2/1+217 1B3-1B5/2+1 "
    "386/1+38 388-38A/1+37 38C/1+64 38E-38F/1+63 391-3A1/1+32 3A3-3AB/1+32 3C2/1+1 "  # Greek
    "1F08-1F0F/1-8 1F18-1F1D/1-8 1F28-1F2F/1-8 1F38-1F3F/1-8 1F48-1F4D/1-8 1F59-1F5F/2-8 "
    "1F68-1F6F/1-8 "
    "400-40F/1+80 410-42F/1+32 460-480/2+1 48A-4BE/2+1 4C0/1+15 4C1-4CD/2+1 4D0-52E/2+1 "  # Slavic
    "531-556/1+48 10A0-10C5/1+7264 1C90-1CBA/1-3008 13A0-13EF/1+38864 "  # Armenian to Adlam
    "FF21-FF3A/1+32 10400-10427/1+40 1E900-1E921/1+34"
)
# Never meant: controls but white space, bidirectional and zero-width controls, byte order mark,
# interlinear annotation, non-characters.
_DROP = "0-8 E-1F 7F 61C 180E 200B 200E-200F 202A-202E 2060-206F FDD0-FDEF FEFF FFF9-FFFB " + (
    " ".join(f"{plane + 0xFFFE:X}-{plane + 0xFFFF:X}" for plane in range(0, CODE_POINTS, 0x10000))
)
_NEWLINE = "A-C 2028-2029"
_SPACE = "9 20 A0 1680 2000-200A 202F 205F 3000"
# Code points that NFC neither changes nor combines with what precedes them (NFC_Quick_Check = Yes
# and combining class 0, UAX 15). A text of these alone is in NFC. Others are UNSTABLE: the cleaner
# normalizes texts with them.
_STABLE = (
    "0-2FF 400-482 48A-52F 5D0-5EA 620-64A 660-66F "  # Latin, Cyrillic, Hebrew, Arabic
    "2002-205F 20A0-20BF 2190-21FF 2500-27BF "  # punctuation, currency, arrows, symbols
    "3000-3029 3041-3096 30A1-30FA 30FC 4E00-9FFF AC00-D7A3 "  # Kana, Han, Hangul
    "FE0F FF01-FF60 1F300-1FAFF"
)
# Digits, fractions and powers (general categories Nd, Nl, No): part of words, but not letters.
_NUMERALS = """
    30-39 B2-B3 B9 BC-BE 660-669 6F0-6F9 7C0-7C9 966-96F 9E6-9EF 9F4-9F9 A66-A6F AE6-AEF B66-B6F
    B72-B77 BE6-BF2 C66-C6F C78-C7E CE6-CEF D58-D5E D66-D78 DE6-DEF F20-F33 1369-137C 1810-1819
    1946-194F 2070 2074-2079 2080-2089 2150-2182 2185-2189 FF10-FF19
"""
# Sentence_Terminal (UAX 29) of scripts in use, and the strokes that end a Tibetan one.
_SENTENCE_ENDS = """
    21 2E 3F 589 61D-61F 6D4 700-702 7F9 964-965 F0D-F11 104A-104B 1362 1367-1368 166E 17D4-17D5
    1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 3002
    A4FF A60E-A60F A6F3 A6F7 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01
    FF0E FF1F FF61
"""


def _range(item: str, step: int = 1) -> slice:
    """Return the code points of `FIRST-LAST`, or of one of them."""
    first, _, last = item.partition("-")
    return slice(int(first, 16), int(last or first, 16) + 1, step)


def _fill(table: Array, ranges: str, value: int) -> Array:
    """Set the code points of `ranges` to `value`; return the table."""
    for item in ranges.split():
        table[_range(item)] = value
    return table


# Later lines override earlier ones.
WORD_CLASSES = np.full(CODE_POINTS, WORD, np.uint8)
_fill(WORD_CLASSES, "0-7F", BREAK)
_fill(WORD_CLASSES, "30-39 41-5A 61-7A", WORD)
_fill(WORD_CLASSES, _UNSPACED, UNSPACED)
_fill(WORD_CLASSES, _BREAKS, BREAK)

CLEANING_CLASSES = np.full(CODE_POINTS, UNSTABLE, np.uint8)
_fill(CLEANING_CLASSES, _STABLE, PLAIN)
_fill(CLEANING_CLASSES, _DROP, DROP)
_fill(CLEANING_CLASSES, _NEWLINE, NEWLINE)
_fill(CLEANING_CLASSES, _SPACE, SPACE)
_fill(CLEANING_CLASSES, "200C-200D", JOINER)
_fill(CLEANING_CLASSES, "D", RETURN)
# C1 controls and the soft hyphen are evidence of a wrong encoding. They are dropped after the
# repair.
_fill(CLEANING_CLASSES, "80-9F AD", HIDDEN)

NUMERALS = _fill(np.zeros(CODE_POINTS, np.bool_), _NUMERALS, True)
WORD_MARKS = _fill(np.zeros(CODE_POINTS, np.bool_), _WORD_MARKS, True)
LONG_WORDS = _fill(np.zeros(CODE_POINTS, np.bool_), _LONG_WORDS, True)
DENSE = _fill(np.zeros(CODE_POINTS, np.bool_), _DENSE, True)
SENTENCE_ENDS = _fill(np.zeros(CODE_POINTS, np.bool_), _SENTENCE_ENDS, True)
# Code point → its lowercase letter, or itself.
LOWERCASE = np.arange(CODE_POINTS, dtype=np.uint32)
for _item in _CAPITALS.split():
    _bounds, _, _rule = _item.partition("/")
    LOWERCASE[_range(_bounds, int(_rule[0]))] += np.uint32(int(_rule[1:]) % 2**32)


@kernel
def code_point(data: Array, pos: int, end: int) -> tuple[Number, int]:
    """Decode the UTF-8 sequence at `pos`; return its code point and the next position.

    Arrow strings are valid UTF-8. A damaged sequence decodes to some code point without reading
    beyond `end`.
    """
    lead = np.int64(data[pos])
    if lead < 0x80:
        return lead, pos + 1
    if lead < 0xE0 or pos + 3 > end:
        tail = np.int64(data[pos + 1]) & 0x3F if pos + 2 <= end else 0
        return (lead & 0x1F) << 6 | tail, min(pos + 2, end)
    second, third = np.int64(data[pos + 1]) & 0x3F, np.int64(data[pos + 2]) & 0x3F
    if lead < 0xF0 or pos + 4 > end:
        return (lead & 0x0F) << 12 | second << 6 | third, pos + 3
    point = (lead & 0x07) << 18 | second << 12 | third << 6 | np.int64(data[pos + 3]) & 0x3F
    return min(point, CODE_POINTS - 1), pos + 4
