"""Token shards: flat .npy files of the smallest integer type that holds the vocabulary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.document import read_batches
from groundup.errors import GroundupError

# Ids to check at a time: 32 or 64 MB.
_CHUNK = 1 << 24

Tokens = npt.NDArray[np.unsignedinteger[Any]]


def token_type(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest type that holds every id of a vocabulary, little-endian."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def open_shard(path: Path, vocab_size: int, check_ids: bool = True) -> Tokens:
    """Memory-map a token shard; GroundupError if its type does not fit the vocabulary.

    `check_ids` also checks that every id is in the vocabulary, which reads the whole file.
    """
    try:
        tokens: Tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GroundupError(f"{path}: cannot be read as a token shard: {error}") from None
    dtype = token_type(vocab_size)
    if tokens.ndim != 1 or tokens.dtype != dtype:
        form = f"holds {tokens.dtype} in {tokens.ndim} dimensions"
        wants = f"a vocabulary of {vocab_size} wants a flat {dtype} array"
        raise GroundupError(f"{path}: {form}; {wants}")
    if check_ids:
        chunks = range(0, len(tokens), _CHUNK)
        largest = max((int(tokens[i : i + _CHUNK].max()) for i in chunks), default=0)
        if largest >= vocab_size:
            outside = f"is outside the vocabulary of {vocab_size}"
            raise GroundupError(f"{path}: token id {largest} {outside}")
    return tokens


def train_lengths(index: Path) -> Counter[str]:
    """Return the number of training tokens of each shard, from the index of the tokens."""
    lengths: Counter[str] = Counter()
    for batch in read_batches([index], ["shard", "split", "length"]):
        train = pa.Table.from_batches([batch]).filter(pc.equal(batch.column("split"), "train"))
        for row in train.group_by("shard").aggregate([("length", "sum")]).to_pylist():
            lengths[row["shard"]] += row["length_sum"]
    return lengths
