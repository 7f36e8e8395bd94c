"""Lines of texts as 64-bit hashes, and where those that are listed stand. Reads and writes nothing
on disk.

White space at both ends of a line does not count, and inside it every run of it is one space. Only
a line of WORDS plain words
has a hash: headings, cells of tables and lines of code repeat by right.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.unicode_classes import (
    CODE_POINTS,
    UNSPACED,
    WORD,
    WORD_CLASSES,
    code_point,
)
from groundup.refine.dedup.minhash import mix, unique
from groundup.refine.kernels import Number, kernel

# Kinds in which a repeated line is boilerplate. In code `return None` is none, nor "Yes, please."
# in a conversation, nor "CHAPTER I" in a book.
KINDS = ("wikipedia", "web", "text")
# A plain word is letters only, but for punctuation around it; a character of a script without
# spaces is half a word. Of the repeated lines of real pages those below six are mostly headings and
# code, from six on mostly boilerplate (docs/experiments.md).
WORDS = 6

_LETTER, _JOIN, _DIGIT, _SIGN, _SPACE, _SYLLABLE = range(6)
# What stands between two spaces: nothing yet, letters, letters and a sign behind them, no plain
# word.
_NOTHING, _LETTERS, _ENDED, _BROKEN = range(4)
_NEXT = np.array(
    [
        # letter, apostrophe or hyphen, digit, other sign, space, character of a script without
        # spaces
        [_LETTERS, _NOTHING, _BROKEN, _NOTHING, _NOTHING, _NOTHING],
        [_LETTERS, _LETTERS, _BROKEN, _ENDED, _NOTHING, _LETTERS],
        [_BROKEN, _ENDED, _BROKEN, _ENDED, _NOTHING, _ENDED],
        [_BROKEN, _BROKEN, _BROKEN, _BROKEN, _NOTHING, _BROKEN],
    ],
    np.uint8,
)
_FNV_BASIS, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_NEWLINE, _BLANK, _TAB = 0x0A, 0x20, 0x09


def _roles() -> Array:
    roles = np.full(CODE_POINTS, _SIGN, np.uint8)
    roles[WORD_CLASSES == WORD] = _LETTER
    roles[WORD_CLASSES == UNSPACED] = _SYLLABLE
    roles[ord("0") : ord("9") + 1] = _DIGIT
    roles[[ord("'"), ord("-"), 0x2019]] = _JOIN
    roles[[_BLANK, _TAB]] = _SPACE
    return roles


_ROLES = _roles()


def line_hashes(texts: Texts) -> tuple[Array, Array]:
    """Return for every text its lines' hashes, ascending and each once (uint64), and the row of
    each (uint32).
    """
    hashes, rows, count = _line_hashes(*texts, _ROLES, _NEXT)
    return hashes[:count], rows[:count]


@kernel
def _line_hashes(
    offsets: Array, data: Array, roles: Array, following: Array
) -> tuple[Array, Array, int]:
    most = _most_lines(offsets, data)
    hashes, rows = np.empty(most, np.uint64), np.empty(most, np.uint32)
    at = 0
    for text in range(len(offsets) - 1):
        i, first = offsets[text], at
        while i < offsets[text + 1]:
            i, hashes[at] = _line(data, i, offsets[text + 1], roles, following)
            i, at = i + 1, at + (hashes[at] != 0)
        at = first + unique(hashes[first:at])
        rows[first:at] = text
    return hashes, rows, at


@kernel
def _most_lines(offsets: Array, data: Array) -> int:
    return (data[offsets[0] : offsets[-1]] == _NEWLINE).sum() + len(offsets)


@kernel
def _line(data: Array, i: int, stop: int, roles: Array, following: Array) -> tuple[int, Number]:
    """Return where the line at `i` ends, and its hash (FNV-1a); 0 for one of fewer than WORDS plain
    words.
    """
    hashed, halves, state, gap = _FNV_BASIS, 0, _NOTHING, False
    while i < stop and data[i] != _NEWLINE:
        begin = i
        point, i = code_point(data, i, stop)
        role = roles[point]
        if role == _SPACE:
            gap = hashed != _FNV_BASIS
            halves += 2 * (state in (_LETTERS, _ENDED))
        else:
            if gap:
                hashed, gap = (hashed ^ np.uint64(_BLANK)) * _FNV_PRIME, False
            for k in range(begin, i):
                hashed = (hashed ^ np.uint64(data[k])) * _FNV_PRIME
            halves += role == _SYLLABLE
        state = following[state, role]
    halves += 2 * (state in (_LETTERS, _ENDED))
    return i, max(mix(hashed), np.uint64(1)) if halves >= 2 * WORDS else np.uint64(0)


def find_lines(texts: Texts, listed: Array) -> Array:
    """Return where listed lines stand, int64 [n, 4]: row, number in `listed`, first byte and the
    byte after the last.

    Args:
        texts: offsets and bytes; the bytes that are returned count from the beginning of a text.
        listed: hashes, ascending and each once (uint64).
    """
    found, count = _find(*texts, listed, _ROLES, _NEXT)
    return np.array(found[:count])


@kernel
def _find(
    offsets: Array, data: Array, listed: Array, roles: Array, following: Array
) -> tuple[Array, int]:
    found, at = np.empty((_most_lines(offsets, data), 4), np.int64), 0
    for text in range(len(offsets) - 1):
        i = start = offsets[text]
        while i < offsets[text + 1]:
            end, hashed = _line(data, i, offsets[text + 1], roles, following)
            number = np.searchsorted(listed, hashed)
            if hashed and number < len(listed) and listed[number] == hashed:
                found[at, 0], found[at, 1], found[at, 2], found[at, 3] = (
                    text,
                    number,
                    i - start,
                    end - start,
                )
                at += 1
            i = end + 1
    return found, at


def cuts_of(texts: Texts, found: Array) -> Array:
    """Return what to cut, int64 [n, 3]: row, first byte and the byte after the last, ascending and
    apart from each other.

    Lines with nothing but white space between them go in one cut. Of the white space on both sides
    of it the longer one stays, and none at the ends of the text, so that a text that was tidy still
    is.

    Args:
        texts: as for `find_lines`.
        found: what that returned.
    """
    out, count = _cuts(*texts, found)
    return np.array(out[:count])


@kernel
def _cuts(offsets: Array, data: Array, found: Array) -> tuple[Array, int]:
    out, count = np.empty((len(found), 3), np.int64), 0
    for k in range(len(found)):
        row, start = found[k, 0], offsets[found[k, 0]]
        last = count - 1
        if (
            count
            and out[last, 0] == row
            and _blank(data, start + out[last, 2], start + found[k, 2])
        ):
            out[last, 2] = found[k, 3]
        else:
            out[count, 0], out[count, 1], out[count, 2] = row, found[k, 2], found[k, 3]
            count += 1
    for k in range(count):
        start, stop = offsets[out[k, 0]], offsets[out[k, 0] + 1]
        begin, end = _widened(data, start, stop, start + out[k, 1], start + out[k, 2])
        out[k, 1], out[k, 2] = begin - start, end - start
    return out, count


@kernel
def _is_white(byte: int) -> bool:
    return byte in (_NEWLINE, _BLANK, _TAB)


@kernel
def _blank(data: Array, begin: int, end: int) -> bool:
    while begin < end and _is_white(data[begin]):
        begin += 1
    return bool(begin == end)


@kernel
def _widened(data: Array, start: int, stop: int, begin: int, end: int) -> tuple[int, int]:
    """Return a cut with the white space that goes with it; the indentation of the line after it
    stays.
    """
    before, behind = begin, end
    while before > start and _is_white(data[before - 1]):
        before -= 1
    while behind < stop and _is_white(data[behind]):
        behind += 1
    if behind == stop or before == start:
        return before, behind
    while data[behind - 1] != _NEWLINE:
        behind -= 1
    return (begin, behind) if begin - before >= behind - end else (before, end)
