"""Token streams of a run, by source and split.

A stream is one shard as the model read it in training: the end-of-text id at position 0, then the
documents, each followed by that id. So the first token has something to be predicted from, and
position i is token i - 1 of the shard.

    shard   t0 t1 end t2 end          positions 0 1 2 3 4 5
    stream  end t0 t1 end t2 end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import Tokens, open_shard
from groundup.errors import GroundupError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """One shard of one split; `end` is the end-of-text id."""

    name: str
    tokens: Tokens
    end: int

    def __len__(self) -> int:
        return len(self.tokens) + 1

    def slice(self, start: int, stop: int) -> Ids:
        """Return positions `start` to `stop`; negative positions hold the end-of-text id too."""
        before = np.full(max(0, min(stop, 1) - start), self.end, np.int64)
        tokens = self.tokens[max(start - 1, 0) : max(stop - 1, 0)]
        return np.concatenate([before, tokens.astype(np.int64)])


@dataclass(frozen=True)
class ValidationData:
    """The tokenized data of a run: what is held out, and the training tokens to compare with."""

    folder: Path  # the view `tokenize`
    tokenizer: Tokenizer
    shards: Mapping[str, tuple[str, ...]]  # source → names of its shards, in order

    def documents(self, split: str, columns: Sequence[str], *filters: tuple[Any, ...]) -> pa.Table:
        """Return the rows of the index of documents that pass pyarrow's filters."""
        path, in_split = self.folder / "index.parquet", ("split", "=", split)
        return pq.read_table(path, columns=list(columns), filters=[in_split, *filters])

    def stream(self, shard: str, split: str) -> Stream:
        """Return the stream of one shard; `split` is train or validation."""
        path = self.folder / "shards" / f"{shard}.{split}.npy"
        return Stream(shard, open_shard(path, self.tokenizer.vocab_size), self.tokenizer.end_id)

    def streams(self, source: str, split: str) -> list[Stream]:
        """Return the streams of a source."""
        return [self.stream(name, split) for name in self.shards[source]]

    def all_streams(self, split: str) -> list[Stream]:
        """Return the streams of all sources."""
        return [stream for source in self.shards for stream in self.streams(source, split)]


def open_validation_data(folder: Path) -> ValidationData:
    """Open the view `tokenize`; GroundupError if it has no token shards."""
    path = folder / "shards"
    names = {file.name.rsplit(".", 2)[0] for file in path.glob("*.npy")}
    if not names:
        raise GroundupError(f"{path}: there are no token shards; run with --redo tokenize")
    shards: dict[str, tuple[str, ...]] = {}
    for name in sorted(names, key=lambda name: name.rpartition(".")[::2]):
        source = name.rpartition(".")[0]
        shards[source] = (*shards.get(source, ()), name)
    return ValidationData(folder, Tokenizer.load(folder), shards)
