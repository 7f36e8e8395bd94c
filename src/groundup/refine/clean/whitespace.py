"""Normalize white space and remove invisible characters, in one pass over the bytes of a batch.

Line ends become a newline. Control, zero-width and bidirectional characters are removed; joiners
stay where a script or an emoji needs them. Spaces at line ends, more than two blank lines in a row,
and white space at both ends of a text are removed, except the newline that ends a source file. In
prose, every kind of space becomes a plain one, and runs inside a line become one; indentation
stays, since prose also contains poems and code.
"""

from __future__ import annotations

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    DROP,
    HIDDEN,
    JOINER,
    MARK,
    NEWLINE,
    PLAIN,
    RETURN,
    SPACE,
    UNSTABLE,
    code_point,
)
from groundup.refine.kernels import Number, helper, kernel_with
from groundup.refine.scan import BLOCK, copy_bytes

_LINE, _BLANK, _TAB = np.uint8(0x0A), np.uint8(0x20), np.uint8(0x09)
# Two blank lines separate more than one does, and PEP 8 wants them; a third has no meaning.
_MAX_NEWLINES = 3


@kernel_with(CLEANING_CLASSES)
def normalize_whitespace(classes: Array, texts: Texts, code: Array, gentle: Array) -> Texts:
    """Normalize white space and remove invisible characters, as the module describes.

    `code` is the mask of source code; `gentle` that of the texts that keep their spaces, C1
    controls and soft hyphens, which are evidence for the repair of their encoding.
    """
    offsets, data = texts
    count, pos = len(offsets) - 1, 0
    out, out_offsets = np.empty(offsets[-1] - offsets[0], np.uint8), np.zeros(count + 1, np.int32)
    for i in range(count):
        begin, stop = offsets[i], offsets[i + 1]
        if gentle[i]:
            pos = _drop_invisible(data, begin, stop, classes, out, pos)
        else:
            pos = _normalize_text(data, begin, stop, code[i], classes, out, pos)
        out_offsets[i + 1] = pos
    return out_offsets, out[:pos]


@helper
def _drop_invisible(data: Array, i: int, stop: int, classes: Array, out: Array, pos: int) -> int:
    """Write a gentle text to `out` from `pos`; return its end."""
    previous: Number = 0x0A
    while i < stop:
        begin, i = i, _visible(data, i, stop, classes)
        if i > begin:
            pos, previous = copy_bytes(data, begin, i, out, pos), _last_point(data, begin, i)
            continue
        point, i = code_point(data, i, stop)
        if classes[point] == JOINER and _may_join(previous):
            pos, previous = copy_bytes(data, begin, i, out, pos), point
    return pos


@helper
def _visible(data: Array, i: int, stop: int, classes: Array) -> int:
    """Return the position from `i` of the next character to drop, or joiner."""
    while i < stop:
        if data[i] < 0x80:
            i = _plain(data, i, stop)
        if i < stop:
            point, following = code_point(data, i, stop)
            if classes[point] in (DROP, JOINER):
                break
            i = following
    return i


@helper
def _plain(data: Array, i: int, stop: int) -> int:
    """Return the end of the visible ASCII characters, blanks and line feeds from `i`."""
    while i + BLOCK <= stop:
        bad = False
        for k in range(i, i + BLOCK):
            byte = data[np.uint64(k)]
            bad |= (byte >= 0x7F) | ((byte < _BLANK) & (byte != _LINE))
        if bad:
            break
        i += BLOCK
    while i < stop and (_BLANK <= data[i] < 0x7F or data[i] == _LINE):
        i += 1
    return i


@helper
def _last_point(data: Array, begin: int, end: int) -> Number:
    """Return the last code point of data[begin:end], which is not empty."""
    last = end - 1
    while last > begin and data[last] & 0xC0 == 0x80:
        last -= 1
    return code_point(data, last, end)[0]


@helper
def _normalize_text(
    data: Array, i: int, stop: int, code: bool, classes: Array, out: Array, start: int
) -> int:
    """Write data[i:stop] to `out` from `start`; return its end."""
    # Next byte to write; after the last one that is no pending space; after the last of a word.
    pos = solid = text_end = start
    newlines, previous = 0, 0x0A
    while i < stop:
        if pos == text_end > start:
            begin, i = i, _words(data, i, stop, classes, code)
            if i > begin:
                pos = solid = text_end = copy_bytes(data, begin, i, out, pos)
                previous, newlines = _last_point(data, begin, i), 0
                continue
        begin = i
        point, i = code_point(data, i, stop)
        kind = classes[point]
        if kind in (DROP, HIDDEN) or (kind == JOINER and not _may_join(previous)):
            continue
        if kind in (NEWLINE, RETURN):
            i += kind == RETURN and i < stop and data[i] == _LINE
            if text_end > start and newlines < _MAX_NEWLINES:
                out[solid] = _LINE
                solid, newlines = solid + 1, newlines + 1
            pos, previous = solid, 0x0A
        elif kind == SPACE and code:
            pos, previous = copy_bytes(data, begin, i, out, pos), 0x20
        elif kind == SPACE:
            # After a word and a space, both become one plain space.
            again = pos > solid and solid == text_end > start
            out[pos - again] = _TAB if point == 0x09 and not again else _BLANK
            pos, previous = pos - again + 1, 0x20
        else:
            single = solid != text_end and pos - solid == 1 and out[solid] == _BLANK
            if not code and (text_end == start or single):
                pos = solid  # the first line is not indented, and one space is no indentation
            pos = solid = text_end = copy_bytes(data, begin, i, out, pos)
            newlines, previous = 0, point
    # A source file ends in a newline.
    return text_end + (code and solid > text_end > start)


@helper
def _words(data: Array, i: int, stop: int, classes: Array, code: bool) -> int:
    """Return the end of the words from `i` that stay as they are, or `i`.

    One blank or line feed stands between two. In source code, more blanks may follow.
    """
    begin = i
    while i < stop:
        if data[i] < 0x80:
            i = _ascii_words(data, i, stop, code)
        if i == stop or data[i] < 0x80:
            break
        point, following = code_point(data, i, stop)
        if classes[point] not in (PLAIN, MARK, UNSTABLE):
            break
        i = following
    # A space is settled only when what follows it is.
    while i > begin and data[i - 1] <= _BLANK:
        i -= 1
    return i


@helper
def _ascii_words(data: Array, i: int, stop: int, code: bool) -> int:
    """Return the end of the ASCII from `i` that holds nothing else than such words."""
    while i + BLOCK < stop:
        ended = False
        for k in range(i, i + BLOCK):
            ended |= _ends_words(data[np.uint64(k)], data[np.uint64(k) + np.uint64(1)], code)
        if ended:
            break
        i += BLOCK
    while i < stop and not _ends_words(data[i], data[i + 1] if i + 1 < stop else _LINE, code):
        i += 1
    return i


@helper
def _ends_words(byte: Number, following: Number, code: bool) -> bool:
    """Whether a byte is neither visible ASCII nor one blank or line feed between two words."""
    is_other = (byte >= 0x7F) | ((byte < _BLANK) & (byte != _LINE))
    is_wide = (following == _LINE) | ((following <= _BLANK) & (not code))
    return is_other | ((byte <= _BLANK) & is_wide)


@helper
def _may_join(previous: int) -> bool:
    """Whether a joiner after this code point shapes letters (Arabic, Indic scripts) or an emoji."""
    return previous >= 0x600 and not 0x2000 <= previous <= 0x206F
