"""C4's rules for single lines (Raffel et al. 2020, section 2.2). Takes texts, returns them without
lines that are no prose; reads and writes nothing on disk.

A line stays when it ends as a sentence does, has five words or more, none of them endless, and
speaks neither of Javascript nor of terms and cookies. Marks of citations go out of the lines that
stay. Bounds and phrases are those of the code that made C4, in the tfds package; closing quotation
marks are those of print, too, which the paper does not leave out.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.arrays import Array, mask, text_buffers
from groundup.refine.kernels import kernel

WORDS, WORD_LENGTH = 5, 1_000
_CITATION = r"\[\d*\]|\[edit\]|\[citation needed\]"
_NOTICE = r"(?i)javascript|terms of use|privacy policy|cookie policy|uses? cookies|use of cookies"


def prose_lines(texts: pa.StringArray) -> pa.StringArray:
    """Return texts without the lines that are no prose; empty where none is left."""
    lines = pc.split_pattern(texts, "\n")
    flat = _without_citations(pc.utf8_trim_whitespace(lines.flatten()))
    keep = _is_prose(flat)
    ends = np.concatenate([[0], np.cumsum(keep)])[
        lines.offsets.to_numpy() - lines.offsets[0].as_py()
    ]
    kept = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat.filter(pa.array(keep)))
    return pc.binary_join(kept, "\n")


def _without_citations(lines: pa.StringArray) -> pa.StringArray:
    found = (
        pc.replace_substring_regex(lines, _CITATION, "")
        if mask(pc.match_substring(lines, "[")).any()
        else lines
    )
    return pc.utf8_trim_whitespace(found)


def _is_prose(lines: pa.StringArray) -> Array:
    """Return a mask; each test looks only at the lines that passed the ones before it."""
    keep = mask(pc.match_substring_regex(lines, r"[.?!\"”]$")) & ~mask(pc.ends_with(lines, "..."))
    keep &= _among(lines, keep, rf"(?:\S+\s+){{{WORDS - 1}}}\S")
    keep &= ~_among(lines, keep, _NOTICE)
    return keep & (_longest_words(*text_buffers(lines)) <= WORD_LENGTH)


def _among(lines: pa.StringArray, rows: Array, pattern: str) -> Array:
    """Return which of `rows` match."""
    found = rows.copy()
    found[rows] = mask(pc.match_substring_regex(lines.filter(pa.array(rows)), pattern))
    return found


@kernel
def _longest_words(offsets: Array, data: Array) -> Array:
    """Return how many characters the longest word of each line has: a pattern of 1,000 repetitions
    takes seconds a megabyte.
    """
    longest = np.zeros(len(offsets) - 1, np.int64)
    for line in range(len(offsets) - 1):
        run = 0
        for i in range(offsets[line], offsets[line + 1]):
            byte = data[i]
            # Bytes behind the first of a character count with it.
            run = 0 if byte == 0x20 or 0x09 <= byte <= 0x0D else run + ((byte & 0xC0) != 0x80)
            longest[line] = max(longest[line], run)
    return longest
