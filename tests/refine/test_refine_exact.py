"""The hash of exact duplicates against hashlib and a regular expression."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.artifacts.arrays import text_buffers
from groundup.refine.clean.unicode_classes import CLEANING_CLASSES, NEWLINE, RETURN, SPACE
from groundup.refine.dedup.exact import fold_whitespace, folded_hashes

SPACES = "[\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
# Words of every length up to two blocks, so that white space and characters of several bytes stand
# at every place of a block.
PIECES = (
    st.integers(1, 40).map("x".__mul__)
    | st.sampled_from(
        ["\n", "\n\n", " ", "  ", "\t", "\r\n", "\u2003", "\u3000", "\u00a0", "\u2028"]
    )
    | st.sampled_from(
        ["é", "\u201c", "\u3001", "\u20ac", "\u2060", "Я", "中", "\U0001f600", "\x85", "\x01"]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
)
TEXTS = st.lists(st.lists(PIECES, max_size=30).map("".join), max_size=6)


def folded(text: str) -> str:
    return re.sub(SPACES, " ", text).strip(" ")


@examples(400)
@given(TEXTS)
def test_fold(texts: list[str]) -> None:
    """Folding equals splitting at white space and joining by one space."""
    offsets, data = fold_whitespace(text_buffers(pa.array(texts, pa.string())))
    whole = data.tobytes()
    found = [whole[a:b].decode() for a, b in pairwise(offsets.tolist())]
    assert found == [folded(text) for text in texts]


def test_every_white_space_is_folded() -> None:
    """Each code point of white space, alone and within a block, is folded; no other one is."""
    points = [p for p in range(1, len(CLEANING_CLASSES)) if not 0xD800 <= p < 0xE000]
    white = np.isin(CLEANING_CLASSES[points], (NEWLINE, RETURN, SPACE))
    texts = [f"{'x' * 40}{chr(point)}{'y' * 40}" for point in points]
    offsets, data = fold_whitespace(text_buffers(pa.array(texts)))
    firsts = data[offsets[:-1] + 40]
    sizes = np.array([len(chr(point).encode()) for point in points])
    assert np.diff(offsets).tolist() == np.where(white, 81, 80 + sizes).tolist()
    assert ((firsts == ord(" ")) == white).all()


@examples(200)
@given(TEXTS)
def test_hash(texts: list[str]) -> None:
    """The hash is the MD5, also of texts that begin within a buffer."""
    column = pa.array(["before", *texts], pa.string())[1:]
    expected = [hashlib.md5(folded(text).encode()).digest() for text in texts]
    assert [row.tobytes() for row in folded_hashes(text_buffers(column))] == expected
