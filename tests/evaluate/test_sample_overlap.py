"""The longest run shared with training text is exact."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groundup.evaluate.samples import longest_shared_run
from groundup.evaluate.validation_data import Stream

VOCAB = 5
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=30)


def plain(sample: list[int], train: list[list[int]]) -> int:
    runs = {tuple(t[i:j]) for t in train for i in range(len(t)) for j in range(i + 1, len(t) + 1)}
    return max(
        (
            j - i
            for i in range(len(sample))
            for j in range(i + 1, len(sample) + 1)
            if tuple(sample[i:j]) in runs
        ),
        default=0,
    )


# The first call compiles the kernel.
@given(tokens, st.lists(tokens, max_size=3), st.sampled_from([np.uint16, np.uint32]))
def test_equal_to_brute_force(
    sample: list[int], train: list[list[int]], kind: type[np.unsignedinteger]
) -> None:
    """The length is that of the longest common run, which stands where it is said to stand; runs do
    not cross shards.
    """
    streams = [Stream(str(n), np.array(t, kind), 0) for n, t in enumerate(train)]
    length, shard, start = longest_shared_run(sample, streams, VOCAB)
    assert length == plain(sample, train)
    if length:
        run = train[int(shard)][start : start + length]
        assert any(sample[i : i + length] == run for i in range(len(sample)))
        assert len(run) == length
