"""White space and invisible characters, one pass over the bytes of a batch. Reads and writes
nothing on disk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    DROP,
    HIDDEN,
    JOINER,
    NEWLINE,
    RETURN,
    SPACE,
    UNSTABLE,
    code_point,
)
from groundup.refine.kernels import kernel

_LINE, _BLANK, _TAB = np.uint8(0x0A), np.uint8(0x20), np.uint8(0x09)
# Two blank lines in a row separate more than one, and PEP 8 asks for them; a third says nothing.
_MOST_NEWLINES = 3


class Tidied(NamedTuple):
    """Offsets and bytes of texts, and boolean masks: which changed, and which may not be in normal
    form C.
    """

    offsets: Array
    data: Array
    changed: Array
    unstable: Array


def tidy(offsets: Array, data: Array, code: Array, gentle: Array | None = None) -> Tidied:
    """Put the white space of texts in order, and take out what cannot be seen.

    Line ends become a newline; control, zero-width and bidirectional characters go, joiners stay
    where a script or emoji needs them; spaces at line ends, blank lines beyond two in a row and at
    both ends of the text go, but not the line break that ends a source file. In prose (`code`
    false, one flag a text) every kind of space becomes a plain one and runs inside a line become
    one; indentation stays, since poems and code live in prose too. A `gentle` text loses only
    what is never meant: its spaces, C1 controls and soft hyphens are evidence for encoding repair.
    """
    if gentle is None:
        gentle = np.zeros(len(code), np.bool_)
    out_offsets, out, changed, unstable = _tidy(offsets, data, code, gentle, CLEANING_CLASSES)
    return Tidied(out_offsets, out[: out_offsets[-1]].copy(), changed, unstable)


@kernel
def _tidy(
    offsets: Array, data: Array, code: Array, gentle: Array, classes: Array
) -> tuple[Array, Array, Array, Array]:
    count = len(offsets) - 1
    out = np.empty(offsets[-1] - offsets[0], np.uint8)
    out_offsets, changed, unstable = (
        np.zeros(count + 1, np.int32),
        np.zeros(count, np.bool_),
        np.zeros(count, np.bool_),
    )
    at = 0
    for i in range(count):
        if gentle[i]:
            end, unstable[i] = _drop_text(data, offsets[i], offsets[i + 1], classes, out, at)
        else:
            end, unstable[i] = _tidy_text(
                data, offsets[i], offsets[i + 1], code[i], classes, out, at
            )
        changed[i] = _differs(data, offsets[i], offsets[i + 1], out, at, end)
        out_offsets[i + 1] = at = end
    return out_offsets, out, changed, unstable


@kernel
def _drop_text(
    data: Array, i: int, stop: int, classes: Array, out: Array, at: int
) -> tuple[int, bool]:
    """Write the text at data[i:stop] to `out` without what is never meant; return what `_tidy_text`
    returns.
    """
    previous, unstable = 0x0A, False
    while i < stop:
        if data[i] == 0x20 or _visible(data[i]):
            out[at] = previous = data[i]
            i, at = i + 1, at + 1
            continue
        begin = i
        point, i = code_point(data, i, stop)
        kind = classes[point]
        if kind == DROP or (kind == JOINER and not _joins(previous)):
            continue
        at = _copy(data, begin, i, out, at)
        unstable |= kind == UNSTABLE
        previous = point
    return at, unstable


@kernel
def _tidy_text(
    data: Array, i: int, stop: int, code: bool, classes: Array, out: Array, start: int
) -> tuple[int, bool]:
    """Write the text at data[i:stop] to `out` from `start`; return where it ends, and whether it
    may not be in NFC.
    """
    at = start  # next byte to write
    solid = start  # after the last byte that is not a space that may yet go
    text_end = (
        start  # after the last byte that is no white space: where the text ends if nothing follows
    )
    newlines, previous, unstable = 0, 0x0A, False
    while i < stop:
        if _visible(data[i]) and at == text_end > start:
            out[at] = previous = data[i]
            i, at = i + 1, at + 1
            solid = text_end = at
            continue
        begin = i
        point, i = code_point(data, i, stop)
        kind = classes[point]
        if kind in (DROP, HIDDEN) or (kind == JOINER and not _joins(previous)):
            continue
        if kind in (NEWLINE, RETURN):
            i += kind == RETURN and i < stop and data[i] == _LINE
            at = solid
            if text_end > start and newlines < _MOST_NEWLINES:
                out[at] = _LINE
                at, newlines = at + 1, newlines + 1
            solid, previous = at, 0x0A
        elif kind == SPACE:
            again = at > solid and solid == text_end > start
            at = _copy(data, begin, i, out, at) if code else _put_space(out, at, point, again)
            previous = 0x20
        else:
            if not code and (
                text_end == start
                or (solid != text_end and at - solid == 1 and out[solid] == _BLANK)
            ):
                at = solid  # the first line is not indented, and one space is no indentation
            at = _copy(data, begin, i, out, at)
            solid = text_end = at
            newlines, previous = 0, point
            unstable |= kind == UNSTABLE
    # A source file ends in a line break.
    return text_end + (code and solid > text_end > start), unstable


@kernel
def _put_space(out: Array, at: int, point: int, again: bool) -> int:
    """Write a space of prose; `again` behind a word and another space, where one plain space stands
    for both.
    """
    at -= again
    out[at] = _TAB if point == 0x09 and not again else _BLANK
    return at + 1


@kernel
def _visible(byte: int) -> bool:
    return 0x20 < byte < 0x7F


@kernel
def _joins(previous: int) -> bool:
    """Whether a joiner after this code point shapes letters (Arabic, Indic scripts) or emoji, and
    is not just hidden.
    """
    return previous >= 0x600 and not 0x2000 <= previous <= 0x206F


@kernel
def _copy(data: Array, begin: int, end: int, out: Array, at: int) -> int:
    for k in range(begin, end):
        out[at + k - begin] = data[k]
    return at + end - begin


@kernel
def _differs(data: Array, begin: int, end: int, out: Array, out_begin: int, out_end: int) -> bool:
    if end - begin != out_end - out_begin:
        return True
    different = 0
    for k in range(end - begin):
        different |= data[begin + k] ^ out[out_begin + k]
    return different != 0


def fold(offsets: Array, data: Array) -> tuple[Array, Array]:
    """Return offsets and bytes of the texts with every run of white space as one space and none at
    the ends.
    """
    out_offsets, out = _fold(offsets, data, CLEANING_CLASSES)
    return out_offsets, out


@kernel
def _fold(offsets: Array, data: Array, classes: Array) -> tuple[Array, Array]:
    count = len(offsets) - 1
    out, out_offsets = np.empty(offsets[-1] - offsets[0], np.uint8), np.zeros(count + 1, np.int32)
    at = 0
    for text in range(count):
        i, start, gap = offsets[text], at, False
        while i < offsets[text + 1]:
            if _visible(data[i]) and not gap:
                out[at] = data[i]
                i, at = i + 1, at + 1
                continue
            begin = i
            point, i = code_point(data, i, offsets[text + 1])
            kind = classes[point]
            if kind in (SPACE, NEWLINE, RETURN):
                gap = at > start
                continue
            if gap:
                out[at] = _BLANK
                at, gap = at + 1, False
            at = _copy(data, begin, i, out, at)
        out_offsets[text + 1] = at
    return out_offsets, out
