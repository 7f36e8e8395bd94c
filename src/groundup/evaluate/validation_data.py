"""Token streams of a run, by source. Reads the view `tokenize`; writes nothing.

A stream is one shard as the model read it in training: its documents one after the other, each
followed by the end-of-text id, and that id once more in front, so that the first token has
something to be predicted from. Position 0 of a stream is that id in front; position i is token i -
1 of the shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import Tokens, open_shard
from groundup.errors import GroundupError

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """One shard of one split."""

    name: str
    tokens: Tokens
    end: int

    def __len__(self) -> int:
        return len(self.tokens) + 1

    def slice(self, start: int, stop: int) -> Ids:
        """Return positions `start` to `stop`; before the beginning there is nothing but the
        end-of-text id.
        """
        before = np.full(max(0, min(stop, 1) - start), self.end, np.int64)
        return np.concatenate(
            [before, self.tokens[max(start - 1, 0) : max(stop - 1, 0)].astype(np.int64)]
        )


@dataclass(frozen=True)
class HeldOut:
    """The tokenized data of a run.

    Attributes:
        folder: the view `tokenize`.
        shards: names of its shards by source, in order.
    """

    folder: Path
    tokenizer: Tokenizer
    shards: Mapping[str, tuple[str, ...]]

    def streams(self, source: str, split: str) -> list[Stream]:
        """Return the streams of a source, `train` or `validation`."""
        return [self.stream(name, split) for name in self.shards[source]]

    def stream(self, shard: str, split: str) -> Stream:
        """Return the stream of one shard."""
        path = self.folder / "shards" / f"{shard}.{split}.npy"
        return Stream(shard, open_shard(path, self.tokenizer.vocab_size), self.tokenizer.end_id)

    def all_streams(self, split: str) -> list[Stream]:
        """Return the streams of all sources."""
        return [stream for source in self.shards for stream in self.streams(source, split)]


def open_held_out(folder: Path) -> HeldOut:
    """Open the view `tokenize`.

    Raises:
        GroundupError: there are no token shards.
    """
    names = sorted(
        {path.name.rsplit(".", 2)[0] for path in (folder / "shards").glob("*.npy")},
        key=lambda n: n.rpartition(".")[::2],
    )
    if not names:
        raise GroundupError(
            f"{folder / 'shards'}: there are no token shards; run with --redo tokenize"
        )
    by_source: dict[str, list[str]] = {}
    for name in names:
        by_source.setdefault(name.rpartition(".")[0], []).append(name)
    return HeldOut(
        folder,
        Tokenizer.load(folder),
        {source: tuple(shards) for source, shards in by_source.items()},
    )
