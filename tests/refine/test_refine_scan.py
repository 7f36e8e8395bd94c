"""Scanning in blocks finds what a plain loop finds, at every distance from the ends of a block."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.refine.scan import (
    BLOCK,
    NINE,
    ZERO,
    hash_bytes,
    next_between,
    next_byte,
    next_foreign,
)


def view(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@examples(200)
@given(st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_next(before: int, behind: int, start: int) -> None:
    """The next byte of a kind is found wherever it stands; none gives the end."""
    finders = (
        (b"\n", lambda *a: next_byte(*a, 10)),
        (b"9", lambda *a: next_between(*a, ZERO, NINE)),
        (b"\xc3", next_foreign),
    )
    for byte, find in finders:
        data = b"x" * before + byte + b"y" * behind
        found = data.find(byte, start)
        assert find(view(data), start, len(data)) == (
            found if found >= 0 else max(start, len(data))
        )
        assert find(view(data), 0, before) == before


@examples(200)
@given(st.lists(st.binary(max_size=20), max_size=20))
def test_hash_bytes(parts: list[bytes]) -> None:
    """Equal bytes have equal hashes wherever they stand, different ones different hashes."""
    seen: dict[int, bytes] = {}
    data = view(b"".join(parts))
    ends = np.cumsum([0, *map(len, parts)]).tolist()
    for k, part in enumerate(parts):
        hashed = int(hash_bytes(data, ends[k], ends[k + 1]))
        assert hashed % 2 == 1
        assert seen.setdefault(hashed, part) == part
    assert len(seen) == len(set(parts))
