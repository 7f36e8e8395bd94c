"""What every code point is to the word splitter and to the cleaner. Reads and writes nothing.

The ranges are written out, not taken from `unicodedata`: that follows the Python version, and
signatures may not.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from groundup.artifacts.arrays import Array, Number, kernel

CODE_POINTS = 0x110000

# Of the word splitter.
BREAK, WORD, UNSPACED = 0, 1, 2
# Of the cleaner.
PLAIN, UNSTABLE, DROP, NEWLINE, SPACE, JOINER, RETURN, HIDDEN = 0, 1, 2, 3, 4, 5, 6, 7

Ranges = Iterable[tuple[int, int]]

# Scripts written without spaces between words: each code point counts as one word (first and last
# of each range).
_UNSPACED: Ranges = (
    *((0x0E01, 0x0E3A), (0x0E40, 0x0E4E), (0x0E50, 0x0E59), (0x0E81, 0x0EDF)),  # Thai, Lao
    *((0x1000, 0x1049), (0x1050, 0x109F), (0xA9E0, 0xA9FE), (0xAA60, 0xAA7F)),  # Burmese
    *((0x1780, 0x17D3), (0x17D7, 0x17D7), (0x17DC, 0x17F9)),  # Khmer
    *(
        (0x2E80, 0x2FD5),
        (0x3005, 0x3007),
        (0x3021, 0x3029),
        (0x3031, 0x3035),
        (0x3038, 0x303C),
    ),  # CJK radicals and signs
    *(
        (0x3041, 0x309A),
        (0x309D, 0x309F),
        (0x30A1, 0x30FA),
        (0x30FC, 0x312F),
        (0x31A0, 0x31BF),
        (0x31F0, 0x31FF),
    ),  # Kana, Bopomofo
    *(
        (0x3400, 0x4DBF),
        (0x4E00, 0xA4CF),
        (0xF900, 0xFAFF),
        (0xFF66, 0xFF9F),
    ),  # CJK, Yi, half-width Katakana
    *(
        (0x16FE0, 0x18D8F),
        (0x1AFF0, 0x1B16F),
        (0x20000, 0x3FFFD),
    ),  # Tangut, old Kana, CJK extensions
)

# Beyond ASCII, everything is part of a word but spaces, punctuation, symbols and what is not
# assigned to text.
_BREAKS: Ranges = (
    *(
        (0x80, 0xA9),
        (0xAB, 0xB1),
        (0xB4, 0xB4),
        (0xB6, 0xB8),
        (0xBB, 0xBB),
        (0xBF, 0xBF),
        (0xD7, 0xD7),
        (0xF7, 0xF7),
    ),
    *(
        (0x2C2, 0x2C5),
        (0x2D2, 0x2DF),
        (0x2E5, 0x2EB),
        (0x2ED, 0x2ED),
        (0x2EF, 0x2FF),
        (0x375, 0x375),
        (0x37E, 0x37E),
    ),
    *(
        (0x384, 0x385),
        (0x387, 0x387),
        (0x3F6, 0x3F6),
        (0x482, 0x482),
        (0x55A, 0x55F),
        (0x589, 0x58F),
        (0x5BE, 0x5BE),
        (0x5C0, 0x5C0),
    ),
    *(
        (0x5C3, 0x5C3),
        (0x5C6, 0x5C6),
        (0x5F3, 0x5F4),
        (0x600, 0x60F),
        (0x61B, 0x61F),
        (0x66A, 0x66D),
        (0x6D4, 0x6D4),
    ),
    *(
        (0x6DD, 0x6DE),
        (0x6E9, 0x6E9),
        (0x6FD, 0x6FE),
        (0x700, 0x70F),
        (0x7F6, 0x7F9),
        (0x830, 0x83E),
        (0x85E, 0x85E),
    ),
    *(
        (0x964, 0x965),
        (0x970, 0x970),
        (0x9F2, 0x9F3),
        (0x9FA, 0x9FD),
        (0xA76, 0xA76),
        (0xAF0, 0xAF1),
        (0xBF3, 0xBFA),
        (0xC77, 0xC77),
    ),
    *(
        (0xC84, 0xC84),
        (0xDF4, 0xDF4),
        (0xE3F, 0xE3F),
        (0xE4F, 0xE4F),
        (0xE5A, 0xE5B),
        (0xF01, 0xF17),
        (0xF1A, 0xF1F),
        (0xF34, 0xF34),
    ),
    *(
        (0xF36, 0xF36),
        (0xF38, 0xF38),
        (0xF3A, 0xF3D),
        (0xF85, 0xF85),
        (0xFBE, 0xFC5),
        (0xFC7, 0xFDA),
        (0x104A, 0x104F),
        (0x109E, 0x109F),
    ),
    *(
        (0x10FB, 0x10FB),
        (0x1360, 0x1368),
        (0x1390, 0x1399),
        (0x1400, 0x1400),
        (0x166D, 0x166E),
        (0x1680, 0x1680),
        (0x169B, 0x169C),
    ),
    *(
        (0x16EB, 0x16ED),
        (0x1735, 0x1736),
        (0x17D4, 0x17D6),
        (0x17D8, 0x17DB),
        (0x1800, 0x180E),
        (0x1940, 0x1945),
        (0x19DE, 0x19FF),
    ),
    *(
        (0x1FBD, 0x1FBD),
        (0x1FBF, 0x1FC1),
        (0x1FCD, 0x1FCF),
        (0x1FDD, 0x1FDF),
        (0x1FED, 0x1FEF),
        (0x1FFD, 0x1FFE),
    ),
    *(
        (0x2000, 0x206F),
        (0x207A, 0x207E),
        (0x208A, 0x208E),
        (0x20A0, 0x20CF),
        (0x2190, 0x2BFF),
        (0x2CE5, 0x2CEA),
        (0x2CF9, 0x2CFF),
    ),
    *(
        (0x2E00, 0x2E7F),
        (0x2FD6, 0x3004),
        (0x3008, 0x3020),
        (0x3030, 0x3030),
        (0x3036, 0x3037),
        (0x303D, 0x303F),
    ),
    *(
        (0x309B, 0x309C),
        (0x30A0, 0x30A0),
        (0x30FB, 0x30FB),
        (0x3190, 0x319F),
        (0x31C0, 0x31EF),
        (0x3200, 0x33FF),
        (0x4DC0, 0x4DFF),
    ),
    *(
        (0xA490, 0xA4CF),
        (0xA4FE, 0xA4FF),
        (0xA60D, 0xA60F),
        (0xA700, 0xA716),
        (0xA720, 0xA721),
        (0xA789, 0xA78A),
        (0xAA77, 0xAA79),
    ),
    *(
        (0xD800, 0xF8FF),
        (0xFD3E, 0xFD4F),
        (0xFDD0, 0xFDEF),
        (0xFDFC, 0xFE1F),
        (0xFE30, 0xFE6F),
        (0xFEFF, 0xFF0F),
        (0xFF1A, 0xFF20),
    ),
    *(
        (0xFF3B, 0xFF40),
        (0xFF5B, 0xFF65),
        (0xFFE0, 0xFFFF),
        (0x1D000, 0x1D3FF),
        (0x1F000, 0x1FAFF),
        (0xE0000, 0x10FFFF),
    ),
)

# Capitals of living scripts: first, last, how far apart they stand, and how far behind each its
# small letter is. The capital of a German sharp s or an accented Greek vowel is often written as
# two letters, or without its accent: these are not found.
_CAPITALS: Iterable[tuple[int, int, int, int]] = (
    *(
        (0x41, 0x5A, 1, 32),
        (0xC0, 0xD6, 1, 32),
        (0xD8, 0xDE, 1, 32),
        (0x100, 0x12E, 2, 1),
        (0x130, 0x130, 1, -199),
    ),  # Latin
    *(
        (0x132, 0x136, 2, 1),
        (0x139, 0x147, 2, 1),
        (0x14A, 0x176, 2, 1),
        (0x178, 0x178, 1, -121),
        (0x179, 0x17D, 2, 1),
    ),
    *(
        (0x1A0, 0x1A4, 2, 1),
        (0x1AF, 0x1AF, 1, 1),
        (0x1CD, 0x1DB, 2, 1),
        (0x1DE, 0x1EE, 2, 1),
        (0x1F8, 0x21E, 2, 1),
    ),
    *(
        (0x222, 0x232, 2, 1),
        (0x1E00, 0x1E94, 2, 1),
        (0x1E9E, 0x1E9E, 1, -7615),
        (0x1EA0, 0x1EFE, 2, 1),
    ),
    *(
        (0x181, 0x181, 1, 210),
        (0x186, 0x186, 1, 206),
        (0x187, 0x187, 1, 1),
        (0x189, 0x18A, 1, 205),
        (0x18E, 0x18E, 1, 79),
    ),  # of Africa
    *(
        (0x18F, 0x18F, 1, 202),
        (0x190, 0x190, 1, 203),
        (0x191, 0x191, 1, 1),
        (0x194, 0x194, 1, 207),
        (0x196, 0x196, 1, 211),
    ),
    *(
        (0x197, 0x197, 1, 209),
        (0x198, 0x198, 1, 1),
        (0x19D, 0x19D, 1, 213),
        (0x1B1, 0x1B2, 1, 217),
        (0x1B3, 0x1B5, 2, 1),
    ),
    *(
        (0x386, 0x386, 1, 38),
        (0x388, 0x38A, 1, 37),
        (0x38C, 0x38C, 1, 64),
        (0x38E, 0x38F, 1, 63),
        (0x391, 0x3A1, 1, 32),
    ),  # Greek
    *(
        (0x3A3, 0x3AB, 1, 32),
        (0x3C2, 0x3C2, 1, 1),
        (0x1F08, 0x1F0F, 1, -8),
        (0x1F18, 0x1F1D, 1, -8),
        (0x1F28, 0x1F2F, 1, -8),
    ),
    *(
        (0x1F38, 0x1F3F, 1, -8),
        (0x1F48, 0x1F4D, 1, -8),
        (0x1F59, 0x1F5F, 2, -8),
        (0x1F68, 0x1F6F, 1, -8),
    ),
    *(
        (0x400, 0x40F, 1, 80),
        (0x410, 0x42F, 1, 32),
        (0x460, 0x480, 2, 1),
        (0x48A, 0x4BE, 2, 1),
        (0x4C0, 0x4C0, 1, 15),
    ),  # Cyrillic
    *(
        (0x4C1, 0x4CD, 2, 1),
        (0x4D0, 0x52E, 2, 1),
        (0x531, 0x556, 1, 48),
        (0x10A0, 0x10C5, 1, 7264),
        (0x1C90, 0x1CBA, 1, -3008),
    ),  # and
    *(
        (0x13A0, 0x13EF, 1, 38864),
        (0xFF21, 0xFF3A, 1, 32),
        (0x10400, 0x10427, 1, 40),
        (0x1E900, 0x1E921, 1, 34),
    ),  # Armenian to Adlam
)

_DROP: Ranges = (
    *((0x00, 0x08), (0x0E, 0x1F), (0x7F, 0x7F)),  # C0 but white space, DEL
    *((0x61C, 0x61C), (0x180E, 0x180E)),  # Arabic letter mark, Mongolian separator
    *(
        (0x200B, 0x200B),
        (0x200E, 0x200F),
        (0x202A, 0x202E),
        (0x2060, 0x206F),
    ),  # zero width and bidirectional controls
    *(
        (0xFDD0, 0xFDEF),
        (0xFEFF, 0xFEFF),
        (0xFFF9, 0xFFFB),
    ),  # non-characters, byte order mark, interlinear annotation
    *((plane + 0xFFFE, plane + 0xFFFF) for plane in range(0, CODE_POINTS, 0x10000)),
)
_NEWLINE: Ranges = ((0x0A, 0x0C), (0x2028, 0x2029))
_SPACE: Ranges = (
    (0x09, 0x09),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)
# Code points that normal form C neither changes nor combines with what stands before them
# (NFC_Quick_Check = Yes and combining class 0, UAX 15); a text of these alone is in NFC. The rest
# is UNSTABLE: it may be fine, and is looked at.
_STABLE: Ranges = (
    *(
        (0x00, 0x2FF),
        (0x400, 0x482),
        (0x48A, 0x52F),
        (0x5D0, 0x5EA),
        (0x620, 0x64A),
        (0x660, 0x66F),
    ),  # Latin, Cyrillic, Hebrew, Arabic
    *(
        (0x2002, 0x205F),
        (0x20A0, 0x20BF),
        (0x2190, 0x21FF),
        (0x2500, 0x27BF),
    ),  # punctuation, currency, arrows, symbols
    *(
        (0x3000, 0x3029),
        (0x3041, 0x3096),
        (0x30A1, 0x30FA),
        (0x30FC, 0x30FC),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A3),
    ),  # Kana, Han, Hangul
    *((0xFE0F, 0xFE0F), (0xFF01, 0xFF60), (0x1F300, 0x1FAFF)),
)


# Digits, fractions and powers, which are no letters although they stand in words (general
# categories Nd, Nl and No).
_NUMBERS: Ranges = (
    *(
        (0x30, 0x39),
        (0xB2, 0xB3),
        (0xB9, 0xB9),
        (0xBC, 0xBE),
        (0x660, 0x669),
        (0x6F0, 0x6F9),
        (0x7C0, 0x7C9),
        (0x966, 0x96F),
    ),
    *(
        (0x9E6, 0x9EF),
        (0x9F4, 0x9F9),
        (0xA66, 0xA6F),
        (0xAE6, 0xAEF),
        (0xB66, 0xB6F),
        (0xB72, 0xB77),
        (0xBE6, 0xBF2),
        (0xC66, 0xC6F),
    ),
    *(
        (0xC78, 0xC7E),
        (0xCE6, 0xCEF),
        (0xD58, 0xD5E),
        (0xD66, 0xD78),
        (0xDE6, 0xDEF),
        (0xF20, 0xF33),
        (0x1369, 0x137C),
        (0x1810, 0x1819),
    ),
    *(
        (0x1946, 0x194F),
        (0x2070, 0x2070),
        (0x2074, 0x2079),
        (0x2080, 0x2089),
        (0x2150, 0x2182),
        (0x2185, 0x2189),
        (0xFF10, 0xFF19),
    ),
)
# What ends a sentence (property Sentence_Terminal, UAX 29) in scripts that are in use.
_STOPS: Ranges = (
    *(
        (0x21, 0x21),
        (0x2E, 0x2E),
        (0x3F, 0x3F),
        (0x589, 0x589),
        (0x61D, 0x61F),
        (0x6D4, 0x6D4),
        (0x700, 0x702),
        (0x7F9, 0x7F9),
    ),
    *(
        (0x964, 0x965),
        (0x104A, 0x104B),
        (0x1362, 0x1362),
        (0x1367, 0x1368),
        (0x166E, 0x166E),
        (0x17D4, 0x17D5),
        (0x1803, 0x1803),
    ),
    *(
        (0x1809, 0x1809),
        (0x1944, 0x1945),
        (0x1AA8, 0x1AAB),
        (0x1B5A, 0x1B5B),
        (0x1B5E, 0x1B5F),
        (0x1C3B, 0x1C3C),
        (0x1C7E, 0x1C7F),
    ),
    *(
        (0x203C, 0x203D),
        (0x2047, 0x2049),
        (0x3002, 0x3002),
        (0xA4FF, 0xA4FF),
        (0xA60E, 0xA60F),
        (0xA6F3, 0xA6F3),
        (0xA6F7, 0xA6F7),
    ),
    *(
        (0xA8CE, 0xA8CF),
        (0xA92F, 0xA92F),
        (0xA9C8, 0xA9C9),
        (0xAA5D, 0xAA5F),
        (0xAAF0, 0xAAF1),
        (0xABEB, 0xABEB),
        (0xFE52, 0xFE52),
    ),
    *((0xFE56, 0xFE57), (0xFF01, 0xFF01), (0xFF0E, 0xFF0E), (0xFF1F, 0xFF1F), (0xFF61, 0xFF61)),
)


def _paint(table: Array, ranges: Ranges, value: int) -> None:
    for first, last in ranges:
        table[first : last + 1] = value


def _word_classes() -> Array:
    table = np.full(CODE_POINTS, WORD, np.uint8)
    _paint(table, ((0, 0x7F),), BREAK)
    _paint(table, ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)), WORD)
    _paint(table, _UNSPACED, UNSPACED)
    _paint(table, _BREAKS, BREAK)
    return table


def _small_letters() -> Array:
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for first, last, step, distance in _CAPITALS:
        table[first : last + 1 : step] += np.uint32(distance % 2**32)
    return table


def _tidy_classes() -> Array:
    table = np.full(CODE_POINTS, UNSTABLE, np.uint8)
    _paint(table, _STABLE, PLAIN)
    classes = (
        (_DROP, DROP),
        (_NEWLINE, NEWLINE),
        (_SPACE, SPACE),
        (((0x200C, 0x200D),), JOINER),
        (((0x0D, 0x0D),), RETURN),
        (
            ((0x80, 0x9F), (0xAD, 0xAD)),
            HIDDEN,
        ),  # C1 and the soft hyphen: evidence of a wrong encoding, then dropped
    )
    for ranges, value in classes:
        _paint(table, ranges, value)
    return table


def _marked(ranges: Ranges) -> Array:
    table = np.zeros(CODE_POINTS, np.bool_)
    _paint(table, ranges, True)
    return table


WORD_CLASSES = _word_classes()
NUMBERS, STOPS = _marked(_NUMBERS), _marked(_STOPS)
# Code point → its small letter; itself where it has none, or is one.
SMALL_LETTERS = _small_letters()
TIDY_CLASSES = _tidy_classes()


@kernel
def code_point(data: Array, at: int, end: int) -> tuple[Number, int]:
    """Decode the UTF-8 sequence at `at`; return its code point and the position after it, never
    beyond `end`.

    Arrow strings are valid UTF-8; a damaged sequence decodes to some code point and does not read
    out of bounds.
    """
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, at + 1
    if lead < 0xE0 or at + 3 > end:
        tail = np.int64(data[at + 1]) & 0x3F if at + 2 <= end else 0
        return (lead & 0x1F) << 6 | tail, min(at + 2, end)
    if lead < 0xF0 or at + 4 > end:
        return (lead & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(
            data[at + 2]
        ) & 0x3F, at + 3
    high = (lead & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return min(
        high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, CODE_POINTS - 1
    ), at + 4
