"""Two texts side by side in two columns of plain text, whole or where they differ. Reads and writes
nothing.

Control sequences are taken out first, since what is measured must be what is printed; a wide
character takes two places.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import zip_longest

from groundup.runtime.progress import printable

# difflib is quadratic: so many characters from the first difference on, and so many words of them,
# are enough for a person.
MOST_CHARACTERS, MOST_WORDS = 50_000, 2_000
# Words that are the same around a difference, differences, and rows of one.
AROUND, MOST_PLACES, MOST_ROWS = 6, 5, 8
NARROWEST = 10

Row = tuple[str, str, str]


def side_by_side(
    left: str, right: str, width: int, titles: tuple[str, str] = ("", "")
) -> list[str]:
    """Return where two texts differ, word by word: `|` marks what changed, `<` and `>` what only
    one of them has.
    """
    one, other = (printable(text).split()[:MOST_WORDS] for text in _from_difference(left, right))
    matcher = SequenceMatcher(None, one, other)
    groups = list(matcher.get_grouped_opcodes(AROUND))
    if not groups:
        return [_alike(left, right, len(one))]
    rows: list[Row] = [(titles[0], " ", titles[1])] if any(titles) else []
    column = _column(width)
    for number, group in enumerate(groups[:MOST_PLACES]):
        rows += [("…", " ", "…")] if number else []
        for kind, a, b, c, d in group:
            mark = {"equal": " ", "replace": "|", "delete": "<", "insert": ">"}[kind]
            rows += _rows(wrapped(one[a:b], column), wrapped(other[c:d], column), mark)
    more = len(groups) - MOST_PLACES
    return _lines(rows, column) + ([f"… and {more} more places"] if more > 0 else [])


def _alike(left: str, right: str, words: int) -> str:
    if left == right:
        return "the texts are the same"
    return (
        f"no word differs in {MOST_WORDS:,} from the first difference on"
        if words == MOST_WORDS
        else "they differ in white space only"
    )


def beside(left: str, right: str, width: int, titles: tuple[str, str]) -> list[str]:
    """Return two texts beside each other, line by line, each wrapped in its column."""
    column = _column(width)
    sides = [
        [
            row
            for line in printable(text).split("\n")
            for row in wrapped(line.split(), column) or [""]
        ]
        for text in (left, right)
    ]
    return _lines(
        [(titles[0], "|", titles[1]), *((a, "|", b) for a, b in zip_longest(*sides, fillvalue=""))],
        column,
    )


def _from_difference(left: str, right: str) -> tuple[str, str]:
    """Cut both texts to what follows their first difference, with some words before it."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    begin = max(0, left.rfind(" ", 0, max(0, low - 12 * AROUND)) + 1)
    return left[begin : begin + MOST_CHARACTERS], right[begin : begin + MOST_CHARACTERS]


def _column(width: int) -> int:
    return max(NARROWEST, (width - 3) // 2)


def _rows(left: Sequence[str], right: Sequence[str], mark: str) -> list[Row]:
    rows = [(a, mark, b) for a, b in zip_longest(left, right, fillvalue="")]
    return rows if len(rows) <= MOST_ROWS else [*rows[:MOST_ROWS], ("…", mark, "…")]


def _lines(rows: Sequence[Row], column: int) -> list[str]:
    return [
        f"{left}{' ' * max(0, column - places(left))} {mark} {right}".rstrip()
        for left, mark, right in rows
    ]


def wrapped(words: Sequence[str], column: int) -> list[str]:
    """Return words in lines of at most `column` places; a word that is longer is cut."""
    lines: list[str] = []
    room = 0
    for piece in (part for word in words for part in _pieces(word, column)):
        size = places(piece)
        if lines and size < room:
            lines[-1] += f" {piece}"
            room -= size + 1
        else:
            lines.append(piece)
            room = column - size
    return lines


def _pieces(word: str, column: int) -> list[str]:
    pieces, room = [""], column
    for character in word:
        size = places(character)
        if size > room:
            pieces.append("")
            room = column
        pieces[-1] += character
        room -= size
    return pieces


def places(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_places(character) for character in text)


def _places(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
