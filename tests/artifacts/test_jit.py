"""Compiled functions are compiled once, whatever the sizes of whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.artifacts.arrays import Array
from groundup.artifacts.jit import helper, kernel


@helper
def following(data: Array, i: int) -> int:
    return i + data[i]


@kernel
def sums(offsets: Array, data: Array) -> int:
    return following(data, 0) + following(data, offsets[0]) + following(data, offsets[0] + 1)


def test_calls_from_kernels_share_one_compiled_function() -> None:
    data = np.array([10, 20, 30], np.uint8)
    assert sums(np.array([1], np.int32), data) == 10 + 21 + 32
    # What is read from the cache asks for no other function.
    sums.recompile()
    assert len(following.signatures) == 1


def test_a_helper_is_refused_from_python() -> None:
    with pytest.raises(TypeError, match="following can be called from compiled functions only"):
        following(np.zeros(1, np.uint8), 0)
