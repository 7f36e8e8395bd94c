"""The hash of a text by which exact duplicates are found: MD5, white space folded.

    "The  cat\\n\\nsat. "  →  "The cat sat."  →  e9a80c98…

The white space of all texts is folded by one kernel; hashlib takes each folded text.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    NEWLINE,
    RETURN,
    SPACE,
    code_point,
)
from groundup.refine.kernels import helper, kernel_with

HASH_BYTES = 16
# Bytes that are checked for white space at a time.
_SCANNED = 16
_BLANK, _LINE = np.uint8(0x20), np.uint8(0x0A)
# Roles of bytes: white space, and the first bytes of white space beyond ASCII.
_WHITE, _MAY_BE_WHITE = 1, 2
_ROLES = np.zeros(256, np.uint8)
_ROLES[:0x80][np.isin(CLEANING_CLASSES[:0x80], (NEWLINE, RETURN, SPACE))] = _WHITE
_ROLES[[0xC2, 0xE1, 0xE2, 0xE3]] = _MAY_BE_WHITE


def folded_hashes(texts: Texts) -> Array:
    """Return the MD5 of texts with their white space folded, shape (n, HASH_BYTES), uint8."""
    offsets, data = fold_whitespace(texts)
    view = data.data
    hashes = b"".join(
        hashlib.md5(view[begin:end], usedforsecurity=False).digest()
        for begin, end in pairwise(offsets.tolist())
    )
    return np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)


# White space


@kernel_with(CLEANING_CLASSES, _ROLES)
def fold_whitespace(classes: Array, roles: Array, texts: Texts) -> Texts:
    """Return the texts with each run of white space as one space, and none at the ends."""
    offsets, data = texts
    count, pos = len(offsets) - 1, 0
    out, out_offsets = np.empty(offsets[-1] - offsets[0], np.uint8), np.zeros(count + 1, np.int32)
    for text in range(count):
        i, stop, start = offsets[text], offsets[text + 1], pos
        # Whether white space was written last. Before the text, as if.
        white = True
        while i < stop:
            plain = _copy_plain(data, i, stop, white, out, pos)
            if plain:
                i, pos = i + plain, pos + plain
                white = out[pos - 1] == _BLANK
            i, pos, white = _fold_block(data, i, stop, white, (classes, roles), out, pos)
        pos -= white and pos > start
        out_offsets[text + 1] = pos
    return out_offsets, out


@helper
def _fold_block(
    data: Array, i: int, stop: int, white: bool, tables: tuple[Array, Array], out: Array, pos: int
) -> tuple[int, int, bool]:
    """Fold a block byte by byte; return the positions behind it, and whether it ends in white."""
    (classes, roles), end = tables, min(i + _SCANNED, stop)
    while i < end:
        byte = data[i]
        role = roles[byte]
        if role == _MAY_BE_WHITE:
            point, behind = code_point(data, i, stop)
            kind = classes[point]
            is_white = (kind == SPACE) | (kind == NEWLINE) | (kind == RETURN)
            # Another character goes byte by byte.
            i = behind if is_white else i + 1
        else:
            is_white = role == _WHITE
            i += 1
        # Without a branch: blanks between words cannot be predicted.
        out[pos] = _BLANK if is_white else byte
        pos += not (white & is_white)
        white = is_white
    return i, pos, white


@helper
def _copy_plain(data: Array, i: int, stop: int, white: bool, out: Array, pos: int) -> int:
    """Copy whole blocks in which white space is single blanks and newlines; return their bytes.

    Newlines become blanks. A block of another kind ends it; `white` says what stands before `i`.
    """
    first, previous = i, _BLANK if white else np.uint8(0)
    # Two bytes after the block are looked at.
    while i + _SCANNED + 2 <= stop:
        bad = (previous == _BLANK) & (data[i] <= _BLANK)
        for k in range(np.uint64(i), np.uint64(i + _SCANNED)):
            byte, second = data[k], data[k + np.uint64(1)]
            third = data[k + np.uint64(2)]
            bad |= (byte < _BLANK) & (byte != _LINE)
            bad |= (byte <= _BLANK) & (second <= _BLANK)
            # The first bytes of all white space beyond ASCII: U+0085, U+00A0, U+1680, U+2000 to
            # U+200A, U+2028, U+2029, U+202F, U+205F and U+3000, and of little else.
            bad |= (byte == 0xC2) & ((second == 0x85) | (second == 0xA0))
            bad |= (byte == 0xE1) & (second == 0x9A)
            bad |= (byte == 0xE2) & (second <= 0x81) & ((third <= 0x8A) | (third >= 0x9F))
            bad |= (byte == 0xE3) & (second == 0x80) & (third == 0x80)
        if bad:
            break
        for k in range(np.uint64(_SCANNED)):
            byte = data[np.uint64(i) + k]
            out[np.uint64(pos) + k] = _BLANK if byte == _LINE else byte
        i, pos = i + _SCANNED, pos + _SCANNED
        previous = out[pos - 1]
    return i - first
