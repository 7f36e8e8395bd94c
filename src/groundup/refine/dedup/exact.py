"""The hash of a text by which exact duplicates are found: MD5 (RFC 1321), white space folded.

    "The  cat\\n\\nsat. "  →  "The cat sat."  →  e9a80c98…

MD5 is a chain: a block of 64 bytes needs the state after the block before it, so one text keeps a
core waiting for its own results. Texts do not depend on each other, so LANES of them are hashed
side by side, one in each lane of a vector. When a text ends, the next one takes its lane:

    lane 0    text 0, block 0    text 0, block 1    text 0, block 2    text 5, block 0    …
    lane 1    text 1, block 0    text 3, block 0    text 3, block 1    text 3, block 2    …
    lane 2    text 2, block 0    text 2, block 1    text 4, block 0    text 6, block 0    …
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.artifacts.arrays import Array, Texts
from groundup.refine.clean.unicode_classes import (
    CLEANING_CLASSES,
    NEWLINE,
    RETURN,
    SPACE,
    code_point,
)
from groundup.refine.kernels import helper, kernel_with

LANES = 16
_BLOCK_BYTES, _BLOCK_WORDS, _STATE_WORDS = 64, 16, 4
# The state before the first block of a text.
_INITIAL = np.array([0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476], np.uint32)
# Of each of the four rounds: bits that its steps rotate by in turn, and the word of the block that
# step k takes, as factor and summand.
_ROUNDS = (
    ((7, 12, 17, 22), (1, 0)),
    ((5, 9, 14, 20), (5, 1)),
    ((4, 11, 16, 23), (3, 5)),
    ((6, 10, 15, 21), (7, 0)),
)
# Bytes that are checked for white space at a time.
_SCANNED = 16
_BLANK, _LINE = np.uint8(0x20), np.uint8(0x0A)
# Roles of bytes: white space, and the first bytes of white space beyond ASCII.
_WHITE, _MAY_BE_WHITE = 1, 2
_ROLES = np.zeros(256, np.uint8)
_ROLES[:0x80][np.isin(CLEANING_CLASSES[:0x80], (NEWLINE, RETURN, SPACE))] = _WHITE
_ROLES[[0xC2, 0xE1, 0xE2, 0xE3]] = _MAY_BE_WHITE


def folded_md5(texts: Texts) -> Array:
    """Return the MD5 of texts with their white space folded, shape (n, 16), uint8."""
    return md5(fold_whitespace(texts))


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


# MD5


@cast(Any, intrinsic)
def _compress(_: Any, state: Any, block: Any) -> Any:
    """Add a block of every lane to its state.

    Arguments are addresses of uint32 [4, LANES] and [16, LANES].
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(32), LANES)

        def constant(value: int) -> Any:
            return ir.Constant(vector, [value] * LANES)

        def rows(address: Any, count: int) -> list[Any]:
            first = builder.inttoptr(address, vector.as_pointer())
            return [builder.gep(first, [ir.Constant(ir.IntType(32), k)]) for k in range(count)]

        state_rows = rows(arguments[0], _STATE_WORDS)
        words = [builder.load(row, align=4) for row in rows(arguments[1], _BLOCK_WORDS)]
        before = a, b, c, d = [builder.load(row, align=4) for row in state_rows]
        ones = constant(0xFFFFFFFF)
        for step in range(64):
            shifts, (factor, summand) = _ROUNDS[step // 16]
            if step < 16:
                mixed = builder.xor(d, builder.and_(b, builder.xor(c, d)))
            elif step < 32:
                mixed = builder.xor(c, builder.and_(d, builder.xor(b, c)))
            elif step < 48:
                mixed = builder.xor(b, builder.xor(c, d))
            else:
                mixed = builder.xor(c, builder.or_(b, builder.xor(d, ones)))
            sine = constant(int(abs(math.sin(step + 1)) * 2**32))
            word = builder.add(words[(factor * step + summand) % _BLOCK_WORDS], sine)
            total = builder.add(builder.add(a, word), mixed)
            left = shifts[step % 4]
            high, low = constant(left), constant(32 - left)
            turned = builder.or_(builder.shl(total, high), builder.lshr(total, low))
            a, b, c, d = d, builder.add(b, turned), b, c
        for row, old, new in zip(state_rows, before, (a, b, c, d), strict=True):
            builder.store(builder.add(old, new), row, align=4)
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(types.int64, types.int64), emit


@kernel_with(_INITIAL)
def md5(initial: Array, texts: Texts) -> Array:
    """Return the MD5 of the bytes of every text, shape (n, 16), uint8."""
    offsets, data = texts
    count = len(offsets) - 1
    out = np.empty((count, _STATE_WORDS), np.uint32)
    state = np.empty((_STATE_WORDS, LANES), np.uint32)
    block = np.zeros((_BLOCK_WORDS, LANES), np.uint32)
    # The text in each lane (-1: none), and where its next block begins.
    lanes, places = np.full(LANES, -1, np.int64), np.zeros(LANES, np.int64)
    following, busy = 0, True
    while busy:
        busy = False
        for lane in range(LANES):
            text = lanes[lane]
            # Nine bytes of padding follow the last byte of a text.
            if text >= 0 and places[lane] >= offsets[text + 1] - offsets[text] + 9:
                for word in range(_STATE_WORDS):
                    out[text, word] = state[word, lane]
                text = -1
            if text < 0 and following < count:
                text, following, places[lane] = following, following + 1, 0
                for word in range(_STATE_WORDS):
                    state[word, lane] = initial[word]
            lanes[lane] = text
            if text >= 0:
                _load_block(data, offsets[text], offsets[text + 1], places[lane], block, lane)
                places[lane] += _BLOCK_BYTES
                busy = True
        _compress(state.ctypes.data, block.ctypes.data)
    return out.view(np.uint8)


@helper
def _load_block(data: Array, begin: int, end: int, place: int, block: Array, lane: int) -> None:
    """Write the block at `place` of a text to its lane: little-endian words, padded at the end."""
    i, size = np.uint64(begin + place), end - begin
    if place + _BLOCK_BYTES <= size:
        for word in range(_BLOCK_WORDS):
            block[word, lane] = (
                np.uint32(data[i])
                | np.uint32(data[i + np.uint64(1)]) << np.uint32(8)
                | np.uint32(data[i + np.uint64(2)]) << np.uint32(16)
                | np.uint32(data[i + np.uint64(3)]) << np.uint32(24)
            )
            i += np.uint64(4)
        return
    for word in range(_BLOCK_WORDS):
        value = np.uint32(0)
        for k in range(4):
            pos = place + 4 * word + k
            # A bit follows the text, and then zeros.
            byte = data[begin + pos] if pos < size else np.uint8(0x80 if pos == size else 0)
            value |= np.uint32(byte) << np.uint32(8 * k)
        block[word, lane] = value
    if place + _BLOCK_BYTES >= size + 9:
        # The last eight bytes are the length in bits.
        block[_BLOCK_WORDS - 2, lane] = np.uint32((size << 3) & 0xFFFFFFFF)
        block[_BLOCK_WORDS - 1, lane] = np.uint32(size >> 29)
