r"""Cuts text into words as pretokenizers of `tokenizers` do, on the UTF-8 bytes of Arrow arrays.

    splitter = Splitter("qwen2")
    ends, first = splitter.words(text_buffers(pa.array(["The cat's 12", "a  b"])))

    The| cat|'s| |1|2  a| | b         ends   3 7 9 10 11 12 13 14 16
                                      first  0 6 9            indices of each text's first word

A pretokenizer is a regular expression. Each kernel below is one of them, written out: it looks at
the classes of one or two code points to see which alternative matches, then walks to its end. That
takes one processor second for 300 MB instead of 5. The classes come from splitter.toml, the words
are those of the library for every valid text, and tests compare the two.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import tokenizers
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.artifacts.arrays import Array, Texts
from groundup.artifacts.jit import inlined, kernel

# A pretokenizer, by the name that llama.cpp has for it.
QWEN2, LLAMA3, GPT2, SMOLLM = range(4)
NAMES = {"qwen2": QWEN2, "llama-bpe": LLAMA3, "gpt-2": GPT2, "smollm": SMOLLM}

# Classes of code points: \p{L}, \p{N}, \s without line breaks, [\r\n], and all others.
# Words are runs of one of the first three.
OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)
_CODE_POINTS = 0x110000
# No class: the end of a text.
_END = 255

_APOSTROPHE, _BLANK = ord("'"), ord(" ")
_D, _E, _L, _M, _R, _S, _T, _V = map(ord, "delmrstv")

# Ends of words, and indices of first words.
Words: TypeAlias = tuple[Array, Array]
# A scalar inside a kernel.
Number: TypeAlias = Any


def _class_table(name: str) -> Array:
    """Return the class (uint8) of each code point for a pretokenizer."""
    lists = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    classes = {"letters": LETTER, "numbers": NUMBER, "spaces": SPACE}
    if name == "smollm":
        classes["new_numbers"] = NUMBER
    table = np.full(_CODE_POINTS, OTHER, np.uint8)
    for key, value in classes.items():
        for item in " ".join(lists[key]).split():
            first, _, last = item.partition("-")
            table[int(first, 16) : int(last or first, 16) + 1] = value
    table[[ord("\r"), ord("\n")]] = NEWLINE
    return table


class Splitter:
    """One of the pretokenizers in NAMES."""

    def __init__(self, name: str) -> None:
        self.rule, self.classes = NAMES[name], _class_table(name)

    def words(self, texts: Texts) -> Words:
        """Return the end byte of every word (int32) and the n + 1 indices of first words (int64).

        Words cover all of a text. The memory is up to 4 bytes for each byte of the texts.
        """
        offsets, data = texts
        # Types of arguments that never differ: each one more is compiled anew.
        bounds = offsets.astype(np.int64)
        return cast(Words, _split_texts(self.classes, self.rule, bounds, data.ctypes.data))

    def agrees(self, library: tokenizers.pre_tokenizers.PreTokenizer) -> bool:
        """Tell whether the installed library has our classes of code points.

        What another version of Unicode adds are neighbors of a class, or blocks of 16 and more.
        """
        last = np.flatnonzero(np.diff(self.classes))
        points = np.unique(np.concatenate([last, last + 1, np.arange(0, 0x40000, 16)]))
        points = points[(points < 0xD800) | (points > 0xDFFF)]
        text = "".join(f"a{chr(point)}1 " for point in points)
        data = np.frombuffer(text.encode(), np.uint8)
        ends, _ = self.words((np.array([0, len(data)]), data))
        characters = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
        theirs = [end for _, (_, end) in library.pre_tokenize_str(text)]
        return np.array_equal(ends, characters[theirs])


@cast(Any, intrinsic)
def byte_at(_: Any, address: Any, i: Any) -> Any:
    """Load the byte at `address + i` as int64.

    Arrays that a kernel passes to its functions are counted references: on these few instructions
    that takes more time than all the rest.
    """

    def load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = builder.inttoptr(builder.add(*arguments), ir.IntType(8).as_pointer())
        return builder.zext(builder.load(where), ir.IntType(64))

    return types.int64(types.int64, types.int64), load


# The kernels. All of them are in this file: numba compiles a kernel again when its file changes,
# but not when it calls code of another file that changed. Those of a few instructions are inlined:
# a call costs as much, since an array is seven arguments.


@kernel
def _split_texts(table: Array, rule: int, bounds: Array, data: int) -> Words:
    classes, count = table.ctypes.data, len(bounds) - 1
    # A word has one byte or more.
    ends = np.empty(bounds[count] - bounds[0], np.int32)
    first = np.zeros(count + 1, np.int64)
    word = 0
    for text in range(count):
        i, stop = bounds[text], bounds[text + 1]
        while i < stop:
            if rule in (QWEN2, LLAMA3):
                i = _qwen2_word(classes, rule, data, i, stop)
            else:
                i = _gpt2_word(classes, rule, data, i, stop)
            # Beyond `stop` only if the text ends within a code point.
            ends[word] = min(i, stop)
            word += 1
        first[text + 1] = word
    return ends[:word], first


@inlined
def _qwen2_word(classes: int, rule: int, data: int, i: int, stop: int) -> int:
    r"""Return the end of the word at `i`, by the pattern of Qwen2 or Llama 3.

    (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} |
     ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+

    Llama 3 has \p{N}{1,3}.
    """
    begin, byte = i, byte_at(data, i)
    kind, i = _class_at(classes, data, i, stop), _after(data, i)
    if kind == LETTER:
        return _skip(classes, LETTER, data, i, stop)
    if kind == NUMBER:
        for _ in range(0 if rule == QWEN2 else 2):
            if _class_at(classes, data, i, stop) != NUMBER:
                break
            i = _after(data, i)
        return i
    if byte == _APOSTROPHE:
        length = _contraction(data, i, stop, True)
        if length:
            return i + length
    following = _class_at(classes, data, i, stop)
    if following == LETTER and kind != NEWLINE:
        return _skip(classes, LETTER, data, i, stop)
    if kind == OTHER or (following == OTHER and byte == _BLANK):
        i = _skip(classes, OTHER, data, i, stop)
        return _skip(classes, NEWLINE, data, i, stop)
    return _white_space(classes, rule, data, begin, stop)


@inlined
def _gpt2_word(classes: int, rule: int, data: int, i: int, stop: int) -> int:
    r"""Return the end of the word at `i`, by the pattern of GPT-2.

    's|'t|'re|'ve|'m|'ll|'d | ?\p{L}+ | ?\p{N}+ | ?[^\s\p{L}\p{N}]+ | \s+(?!\S) | \s+

    SmolLM's pretokenizer cuts a text before and after every digit first.
    """
    begin, byte = i, byte_at(data, i)
    kind, i = _class_at(classes, data, i, stop), _after(data, i)
    if byte == _APOSTROPHE:
        length = _contraction(data, i, stop, False)
        if length:
            return i + length
    following = _class_at(classes, data, i, stop)
    if byte == _BLANK and following <= NUMBER:
        kind = SPACE if following == NUMBER and rule == SMOLLM else following
    if kind == NUMBER and rule == SMOLLM:
        return i
    if kind <= NUMBER:
        return _skip(classes, kind, data, i, stop)
    return _white_space(classes, rule, data, begin, stop)


@inlined
def _white_space(classes: int, rule: int, data: int, begin: int, stop: int) -> int:
    r"""Return the end of the word that begins with white space at `begin`.

    Qwen2 and Llama 3 take all up to the last line break (\s*[\r\n]+). Else it is all but the last
    character, which belongs to the next word (\s+(?!\S)), unless it is the only one, or the text
    ends there; for SmolLM, a text ends before a digit.
    """
    i, last, after_newline, kind = begin, begin, 0, SPACE
    while i < stop:
        kind = _class_at(classes, data, i, stop)
        if kind not in (SPACE, NEWLINE):
            break
        last, i = i, _after(data, i)
        if kind == NEWLINE:
            after_newline = i
    if after_newline and (rule in (QWEN2, LLAMA3)):
        return after_newline
    ends = i >= stop or (rule == SMOLLM and kind == NUMBER)
    return i if ends or last == begin else last


@inlined
def _skip(classes: int, kind: int, data: int, i: int, stop: int) -> int:
    """Return where the code points of a class that begin at `i` end."""
    while i < stop:
        # Most bytes are ASCII; they need no decoding.
        if byte_at(data, i) < 0x80:
            if byte_at(classes, byte_at(data, i)) != kind:
                break
            i += 1
        else:
            if _class_at(classes, data, i, stop) != kind:
                break
            i = _after(data, i)
    return i


@inlined
def _contraction(data: int, i: int, stop: int, any_case: bool) -> int:
    """Return how many bytes of s, t, re, ve, m, ll, d stand at `i`, after an apostrophe."""
    if i >= stop:
        return 0
    case = 0x20 if any_case else 0
    first = byte_at(data, i) | case
    if first in (_S, _T, _M, _D):
        return 1
    if i + 1 >= stop:
        return 0
    second = byte_at(data, i + 1) | case
    if (first in (_R, _V) and second == _E) or (first == _L and second == _L):
        return 2
    # U+017F, the long s, is an s whatever the case.
    return 2 if any_case and byte_at(data, i) == 0xC5 and byte_at(data, i + 1) == 0xBF else 0


@inlined
def _class_at(classes: int, data: int, i: int, stop: int) -> Number:
    """Return the class of the code point at `i`; _END if the text ends there."""
    if i >= stop:
        return _END
    if byte_at(data, i) < 0x80:
        return byte_at(classes, byte_at(data, i))
    # Arrow strings are valid UTF-8; nothing beyond `stop` is read if one is not.
    if _after(data, i) > stop:
        return OTHER
    return byte_at(classes, _code_point(data, i))


@inlined
def _after(data: int, i: int) -> int:
    """Return the place after the code point at `i`."""
    lead = byte_at(data, i)
    if lead < 0x80:
        return i + 1
    if lead < 0xE0:
        return i + 2
    return i + 3 if lead < 0xF0 else i + 4


@inlined
def _code_point(data: int, i: int) -> Number:
    """Decode a code point that is not ASCII."""
    lead, second = byte_at(data, i), byte_at(data, i + 1) & 0x3F
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | second
    third = byte_at(data, i + 2) & 0x3F
    if lead < 0xF0:
        return (lead & 0x0F) << 12 | second << 6 | third
    point = (lead & 0x07) << 18 | second << 12 | third << 6 | byte_at(data, i + 3) & 0x3F
    return min(point, _CODE_POINTS - 1)
