"""Tables that classify every Unicode code point for the word splitter and the cleaner.

The ranges are in unicode_classes.toml.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.kernels import Number, helper

CODE_POINTS = 0x110000

# Classes of the word splitter.
BREAK, WORD, UNSPACED = 0, 1, 2
# Classes of the cleaner. A code point outside of the ranges is UNSTABLE: NFC may change it.
UNSTABLE, PLAIN, MARK, DROP, NEWLINE, SPACE, JOINER, RETURN, HIDDEN = range(9)
_CLEANING = ("plain", "mark", "drop", "newline", "space", "joiner", "carriage_return", "hidden")

_RANGES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_RANGES = {name: " ".join(lines).split() for name, lines in _RANGES.items()}


def _range(item: str, step: int = 1) -> slice:
    """Return the code points of `FIRST-LAST`, or of one of them."""
    first, _, last = item.partition("-")
    return slice(int(first, 16), int(last or first, 16) + 1, step)


def _classes(other: int, **values: int) -> Array:
    """Return the value (uint8) of each code point; of several ranges, the last one counts."""
    table = np.full(CODE_POINTS, other, np.uint8)
    for name, value in values.items():
        for item in _RANGES[name]:
            table[_range(item)] = value
    return table


WORD_CLASSES = _classes(WORD, ascii=BREAK, ascii_words=WORD, unspaced=UNSPACED, breaks=BREAK)
CLEANING_CLASSES = _classes(UNSTABLE, **{name: k for k, name in enumerate(_CLEANING, PLAIN)})
NUMERALS, WORD_MARKS, LONG_WORDS, DENSE, SENTENCE_ENDS = (
    _classes(0, **{name: 1}).view(np.bool_)
    for name in ("numerals", "word_marks", "long_words", "dense", "sentence_ends")
)
# Code point → the letter that stands for it where duplicates are compared: lower case.
LOWERCASE = np.arange(CODE_POINTS, dtype=np.uint32)
for _folded in _RANGES["folded"]:
    _letters, _, _rule = _folded.partition("/")
    LOWERCASE[_range(_letters, int(_rule[0]))] += np.uint32(int(_rule[1:]) % 2**32)


@helper
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
