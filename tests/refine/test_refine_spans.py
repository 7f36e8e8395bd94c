"""Spans of texts: the lines that hold a byte or an address, taken out and put back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.artifacts.arrays import text_buffers
from groundup.refine.clean.spans import address_lines, lines_with, put_spans, take_spans

TEXTS = st.lists(
    st.lists(st.sampled_from(["@", "://", "www.", ":/", "ww.", "w", "é", "\n", "x" * 40])).map(
        "".join
    )
)


@examples(200)
@given(TEXTS)
def test_lines(texts: list[str]) -> None:
    """The lines that hold a byte or an address are those of a plain split."""
    buffers = text_buffers(pa.array(texts, pa.string()))
    lines = [line for text in texts for line in text.split("\n")]
    found = take_spans(buffers, lines_with(buffers, np.ones(len(texts), np.bool_), ord("@")))
    assert found.to_pylist() == [line for line in lines if "@" in line]
    addresses = take_spans(buffers, address_lines(buffers)).to_pylist()
    marks = ("@", "://", "www.")
    assert addresses == [line for line in lines if any(mark in line for mark in marks)]


@examples(200)
@given(TEXTS)
def test_put(texts: list[str]) -> None:
    """Lines are replaced where they stand; everything else stays, also in a slice of a column."""
    column = pa.array(["a@b", *texts], pa.string()).slice(1)
    buffers = text_buffers(column)
    spans = lines_with(buffers, np.ones(len(texts), np.bool_), ord("@"))
    values = pa.array([f"<{k}>" for k in range(len(spans))], pa.string())
    numbers = iter(values.to_pylist())
    assert put_spans(buffers, spans, values).to_pylist() == [
        "\n".join(next(numbers) if "@" in line else line for line in text.split("\n"))
        for text in texts
    ]
    assert put_spans(buffers, spans, take_spans(buffers, spans)).to_pylist() == texts
