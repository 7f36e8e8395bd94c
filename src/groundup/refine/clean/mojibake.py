"""Find and repair mojibake: UTF-8 that was read in one byte a character, such as "schÃ¶n".

ftfy's test for bad text is a regular expression of 40 sequences of character classes. RE2 runs it
at a tenth of the speed of a scan, so it gets only the lines in which a kernel sees one of the pairs
of characters that the sequences contain.
"""

from __future__ import annotations

import re
from functools import cache

import ftfy
import numpy as np
import pyarrow as pa
from ftfy.badness import BADNESS_RE

from groundup.artifacts.arrays import Array, Texts, text_buffers
from groundup.refine.clean.spans import FEW, add_line, put_spans, screened, take_spans
from groundup.refine.clean.unicode_classes import code_point
from groundup.refine.kernels import kernel
from groundup.refine.scan import next_foreign

# ftfy's test in the dialect of Arrow (RE2), where \w and \s are ASCII: without comments and blanks
# outside of brackets. A text without a match is one that ftfy does not change. Soft hyphens match
# as well: they hide mojibake until they are dropped.
_BADNESS = re.sub(r"(\[[^\]]*\])|#.*|[ \n]+", lambda match: match[1] or "", BADNESS_RE.pattern)
MOJIBAKE = r"(?m)\x{ad}|" + _BADNESS.replace(r"\w", r"[\pL\pN_]").replace(r"\s", r"[\s\pZ]")

_ELEMENT = re.compile(r"\[(?:\\.|[^\]\\])*\]|\\.|.", re.DOTALL)
_ASCII = "".join(map(chr, range(0x80)))
# All characters of the classes are below, or stand in the pattern themselves.
_CHARACTERS = "".join(sorted({*map(chr, range(0x80, 0x2800)), *_BADNESS} - {*_ASCII}))
_SINGLE = 63


@cache
def _pairs() -> tuple[Array, Array]:
    """Return for each code point of the BMP the pairs that it begins, and those that it ends.

    Each bit (uint64) stands for a pair of neighbors, none of them ASCII, in one of the sequences.
    The bit _SINGLE is set at the beginning for what stands alone among ASCII.
    """
    begins, ends = np.zeros(0x10000, np.uint64), np.zeros(0x10000, np.uint64)
    begins[0xAD] = np.uint64(1 << _SINGLE)
    seen: dict[tuple[str, str], int] = {}
    for sequence in re.split(r"\|(?![^\[]*\])", _BADNESS):
        elements = _ELEMENT.findall(sequence)
        foreign = [
            element not in "?^" and not re.search(element, _ASCII) and element != "."
            for element in elements
        ]
        pair = [k for k in range(len(foreign) - 1) if foreign[k] and foreign[k + 1]]
        if pair:
            bit = seen.setdefault((elements[pair[0]], elements[pair[0] + 1]), len(seen))
            _mark(begins, elements[pair[0]], bit)
            _mark(ends, elements[pair[0] + 1], bit)
        else:
            _mark(begins, elements[foreign.index(True)], _SINGLE)
    assert len(seen) <= _SINGLE, "more pairs than bits"
    return begins, ends


def _mark(table: Array, element: str, bit: int) -> None:
    """Set a bit for the characters of a class."""
    table[[ord(c) for c in re.findall(element, _CHARACTERS)]] |= np.uint64(1 << bit)


def has_mojibake(texts: pa.StringArray, rows: Array) -> Array:
    """Return those of the mask `rows` whose texts match MOJIBAKE."""
    buffers, found = text_buffers(texts), np.zeros(len(rows), np.bool_)
    spans = _suspicious_lines(*_pairs(), buffers, rows)
    # White space may be part of a sequence: the line break behind the line, and a letter and the
    # line break before it.
    found[screened(buffers, spans, MOJIBAKE, before=2, after=1)[:, 0]] = True
    return found


def repair_lines(texts: pa.StringArray) -> pa.StringArray:
    """Return texts whose lines with mojibake ftfy has repaired."""
    buffers = text_buffers(texts)
    spans = _suspicious_lines(*_pairs(), buffers, np.ones(len(texts), np.bool_))
    spans = screened(buffers, spans, MOJIBAKE, few=FEW)
    fixed = map(ftfy.fix_encoding, take_spans(buffers, spans).to_pylist())
    return put_spans(buffers, spans, pa.array(map(encodable, fixed), pa.string()))


def encodable(text: str) -> str:
    """Replace lone surrogates, which a repair may make and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


@kernel
def _suspicious_lines(begins: Array, ends: Array, texts: Texts, rows: Array) -> Array:
    """Return the lines of some rows that hold a pair."""
    offsets, data = texts
    out, count = np.empty((0, 3), np.int64), 0
    for text in range(len(rows)):
        if not rows[text]:
            continue
        stop, pairs = offsets[text + 1], np.uint64(0)
        end = before = offsets[text]
        i = next_foreign(data, end, stop)
        while i < stop:
            begin = i
            point, i = code_point(data, i, stop)
            # What the character before begins counts if that one is the neighbor.
            if point < 0x10000 and (
                begins[point] >> np.uint64(_SINGLE) or (before == begin and pairs & ends[point])
            ):
                out, count, end = add_line(out, count, texts, text, begin, end)
                i = end
            pairs, before = begins[point] if point < 0x10000 else np.uint64(0), i
            if i < stop and data[i] < 0x80:
                i = next_foreign(data, i, stop)
    return out[:count]
