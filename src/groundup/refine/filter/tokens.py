"""Count words and sentences of texts, 32 bytes at a time.

    text        H e   s a i d   " N o . "
    part        1 1 0 1 1 1 1 0 1 1 1 1 1     bits of a number, the first one lowest
    letter      1 1 0 1 1 1 1 0 0 1 1 0 0
    end         0 0 0 0 0 0 0 0 0 0 0 1 0     of a sentence, if only closers follow in its word
    closer      0 0 0 0 0 0 0 0 1 0 0 0 1     quotes and brackets

A sum finds what a word consists of, since a carry goes through ones and stops at the first zero:
the closers, with one more behind each end, carry a bit to the gap behind `No."`. In the same way
what is no letter, with one more where a word begins, carries a bit to the gap behind a word without
letters. What is not ASCII goes one character at a time.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.refine.clean.unicode_classes import (
    BREAK,
    CLEANING_CLASSES,
    NEWLINE,
    NUMERALS,
    SPACE,
    UNSPACED,
    WORD_CLASSES,
    WORD_MARKS,
    code_point,
)
from groundup.refine.kernels import Number, inlined, kernel_with
from groundup.refine.scan import BLOCK, next_foreign

# What `count_tokens` counts: words, their code points, words with a letter, sentence ends, and
# words with a letter or a digit.
TOKENS = ("words", "word_chars", "letter_words", "sentences", "alphanumeric_words")
# Roles in the word so far, and whether a sentence ends with it.
State: TypeAlias = tuple[Number, Number]
Counts: TypeAlias = tuple[Number, Number, Number, Number, Number]
_ONE = np.uint64(1)
_PAIRS, _FOURS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EIGHTS, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)


def _token_roles() -> Array:
    """Return what a code point is in a token, as bits (uint8); 0 for white space and word marks."""
    roles = np.full(len(WORD_CLASSES), _PART, np.uint8)
    roles[WORD_CLASSES != BREAK] |= _LETTER | _ALPHANUMERIC
    roles[NUMERALS] &= ~np.uint8(_LETTER)
    roles[NUMERALS] |= _ALPHANUMERIC
    roles[[0x2E, 0x21, 0x3F, 0x2026]] |= _END
    # Quotes and brackets that close after it.
    roles[[0x22, 0x27, 0x29, 0x5D, 0x2019, 0x201D, 0xBB]] |= _CLOSER
    roles[WORD_CLASSES == UNSPACED] = _SINGLE
    roles[[0x3002, 0xFF01, 0xFF1F]] |= _STOP  # 。！？
    roles[(CLEANING_CLASSES == SPACE) | (CLEANING_CLASSES == NEWLINE) | WORD_MARKS] = 0
    return roles


# A letter or digit; a letter; part of a word; what may close a sentence after its end; the end of a
# sentence if the word ends there; a word by itself; the end of a sentence anywhere.
_ALPHANUMERIC, _LETTER, _PART, _CLOSER, _END, _SINGLE, _STOP = (1 << bit for bit in range(7))
# A byte that is not ASCII.
_FOREIGN = 0x80
_ROLES = _token_roles()
# Of bytes.
_BYTE_ROLES = np.where(np.arange(256) < 0x80, _ROLES[:256], _FOREIGN).astype(np.uint8)


@kernel_with(_ROLES, _BYTE_ROLES)
def count_tokens(roles: Array, byte_roles: Array, offsets: Array, data: Array) -> Array:
    """Return the counts in TOKENS of each text, shape (n, 5), int64.

    White space and word marks separate words. In scripts without spaces every code point is one.
    """
    out = np.zeros((len(offsets) - 1, 5), np.int64)
    for text in range(len(offsets) - 1):
        i, stop = np.int64(offsets[text]), np.int64(offsets[text + 1])
        words = chars = letters = sentences = alphanumeric = 0
        state = np.int64(0), False
        while i <= stop:
            if i + BLOCK <= stop and data[i] < 0x80:
                i, state, more = _count_block(data, i, state)
            else:
                # A space behind the text ends its last word.
                role = np.int64(byte_roles[data[i]]) if i < stop else np.int64(0)
                i += 1
                if role == _FOREIGN:
                    point, i = code_point(data, i - 1, stop)
                    role = np.int64(roles[point])
                state, more = _count_character(role, state)
            words, chars, letters = words + more[0], chars + more[1], letters + more[2]
            sentences, alphanumeric = sentences + more[3], alphanumeric + more[4]
        row = out[text]
        row[0], row[1], row[2], row[3], row[4] = words, chars, letters, sentences, alphanumeric
    return out


@inlined
def _count_character(role: Number, state: State) -> tuple[State, Counts]:
    """Return the state after a character, and what it adds to each count."""
    seen, ended = state
    stops = np.int64(role & _STOP != 0)
    if role & _PART:
        ended = bool(role & _END) or (ended and bool(role & _CLOSER))
        return (seen | role, ended), (0, 1, 0, stops, 0)
    is_word = np.int64(seen != 0)
    if role & _SINGLE:
        return (np.int64(0), False), (is_word + 1, 1, 1, stops, 1)
    letters, alphanumeric = np.int64(seen & _LETTER != 0), seen & _ALPHANUMERIC
    return (np.int64(0), False), (is_word, 0, letters, stops + np.int64(ended), alphanumeric)


@inlined
def _count_block(data: Array, i: Number, state: State) -> tuple[Number, State, Counts]:
    """Count the ASCII at the beginning of a block; return its end, the state, and the counts."""
    seen, ended = state
    size, parts, letters, alphanumeric, ends, closers = _block_bits(data, i)
    inside = np.uint64(seen != 0)
    before = (parts << _ONE) | inside
    starts, gaps = parts & ~before, ~parts & ((_ONE << size) - _ONE)
    word_ends = gaps & before
    # Carries go through what is no letter from the beginning of a word, or from the last block.
    other, plain = parts & ~letters, parts & ~alphanumeric
    no_letter = other + (starts & other | inside & np.uint64(seen & _LETTER == 0))
    nothing = plain + (starts & plain | inside & np.uint64(seen & _ALPHANUMERIC == 0))
    sentence_ends = closers + (ends << _ONE | np.uint64(ended))
    words = _count_bits(word_ends)
    counts = (
        words,
        _count_bits(parts),
        words - _count_bits(word_ends & no_letter),
        _count_bits(sentence_ends & gaps),
        words - _count_bits(word_ends & nothing),
    )
    seen, ended = np.int64(0), False
    if parts >> (size - _ONE):
        seen = _PART | (0 if no_letter >> size & _ONE else _LETTER)
        seen |= 0 if nothing >> size & _ONE else _ALPHANUMERIC
        ended = bool(sentence_ends >> size & _ONE)
    return i + np.int64(size), (np.int64(seen), ended), counts


@inlined
def _block_bits(data: Array, i: Number) -> tuple[Number, Number, Number, Number, Number, Number]:
    """Return the number of bytes before the first that is not ASCII, and the bits of their roles.

    Those are: part of a word, letter, letter or digit, end of a sentence, and closer.
    """
    parts = letters = alphanumeric = ends = closers = foreign = np.uint64(0)
    for k in range(BLOCK):
        byte, bit = data[np.uint64(i + k)], np.uint64(k)
        is_letter = np.uint8((byte | 0x20) - 0x61) <= 25
        is_digit = np.uint8(byte - 0x30) <= 9
        is_end = (byte == 0x2E) | (byte == 0x21) | (byte == 0x3F)
        is_closer = (byte == 0x22) | (byte == 0x27) | (byte == 0x29) | (byte == 0x5D)
        parts |= np.uint64(not _is_space(byte)) << bit
        letters |= np.uint64(is_letter) << bit
        alphanumeric |= np.uint64(is_letter | is_digit) << bit
        ends |= np.uint64(is_end) << bit
        closers |= np.uint64(is_closer) << bit
        foreign |= np.uint64(byte >= 0x80) << bit
    # The bits below the lowest one.
    bits = (foreign | _ONE << np.uint64(BLOCK)) - _ONE & ~foreign
    bits &= (_ONE << np.uint64(BLOCK)) - _ONE
    size = np.uint64(_count_bits(bits))
    return size, parts & bits, letters & bits, alphanumeric & bits, ends & bits, closers & bits


@inlined
def _count_bits(bits: Number) -> Number:
    """Return the number of ones: LLVM knows these sums, and makes them one instruction."""
    bits -= bits >> _ONE & _PAIRS
    bits = (bits & _FOURS) + (bits >> np.uint64(2) & _FOURS)
    bits = bits + (bits >> np.uint64(4)) & _EIGHTS
    return np.int64(bits * _SUM >> np.uint64(56))


@kernel_with(_ROLES, _BYTE_ROLES)
def count_words(roles: Array, byte_roles: Array, offsets: Array, data: Array) -> Array:
    """Return the words of each text, as `count_tokens` counts them."""
    out = np.zeros(len(offsets) - 1, np.int64)
    for text in range(len(offsets) - 1):
        i, stop, count = offsets[text], offsets[text + 1], 0
        role: Number = 0
        while i < stop:
            end = next_foreign(data, i, stop)
            # A word begins behind white space; after the first byte, this compiles to vector code.
            if i < end:
                count += (byte_roles[data[i]] != 0) & (role & _PART == 0)
                behind, ahead = data[i : end - 1], data[i + 1 : end]
                for k in range(len(ahead)):
                    count += _is_space(behind[k]) & (not _is_space(ahead[k]))
                i, role = end, np.int64(byte_roles[data[end - 1]])
            while i < stop and data[i] >= 0x80:
                before = role
                point, i = code_point(data, i, stop)
                role = np.int64(roles[point])
                count += bool(role & _SINGLE) | (bool(role & _PART) & (before & _PART == 0))
        out[text] = count
    return out


@inlined
def _is_space(byte: Number) -> bool:
    """Whether a byte of ASCII is white space, which has no role."""
    return (byte == 0x20) | ((byte >= 0x09) & (byte <= 0x0C))
