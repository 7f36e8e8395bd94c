"""The loader is a function: sample i of training is f(seed, i). Reads `RUN/tokenize/shards/*.npy`,
memory-mapped.

Which window that is stands in order.py, and which samples a step takes in samples.py; ranks and
micro-batches have no say in either.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.artifacts.tokens import Tokens, open_shard
from groundup.errors import GroundupError
from groundup.train.order import Order, Source


class Loader(Order):
    """Samples of one split ("train" or "validation") as token ids."""

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        context: int,
        vocab_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Open the shards `NAME.SPLIT.npy` of a folder; NAME is SOURCE.SHARD.

        Raises:
            GroundupError: a shard cannot be read.
        """
        self.vocab_size, self._ending = vocab_size, f".{split}.npy"
        paths = sorted(folder.glob(f"*{self._ending}"))
        self._shards = {
            path.name.removesuffix(self._ending): open_shard(path, vocab_size, check_ids=False)
            for path in paths
        }
        super().__init__(
            {name: len(tokens) for name, tokens in self._shards.items()},
            context=context,
            seed=seed,
            weights=weights,
        )
        self.tokens = sum(len(tokens) for tokens in self._shards.values())

    def samples(self, first: int, count: int) -> NDArray[np.int64]:
        """Return samples first … first + count - 1 as token ids [count, context + 1].

        Raises:
            GroundupError: a shard holds an id beyond the vocabulary.
        """
        rows = np.empty((count, self.context + 1), dtype=np.int64)
        sources, windows = self.locate(np.arange(first, first + count, dtype=np.int64))
        for row, number, window in zip(rows, sources, windows, strict=True):
            row[:] = self._read(self.sources[number], int(window))
        return rows

    def _read(self, source: Source, window: int) -> Tokens:
        shard, start = self.place(source, window)
        tokens = self._shards[shard][start : start + self.context + 1]
        if tokens.max() >= self.vocab_size:
            name = shard + self._ending
            raise GroundupError(
                f"{name}: holds id {tokens.max()}, the vocabulary ends at {self.vocab_size - 1};"
                " `--redo tokenize`"
            )
        return tokens

    def places(self, first: int, count: int) -> list[tuple[str, str, int]]:
        """Return source, file name of the shard and first token of samples first … first + count -
        1.
        """
        sources, windows = self.locate(np.arange(first, first + count, dtype=np.int64))
        found = []
        for number, window in zip(sources, windows, strict=True):
            shard, start = self.place(self.sources[number], int(window))
            found.append((self.sources[number].name, shard + self._ending, start))
        return found

    def share(self, first: int, sequences: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return this rank's rows of the `sequences` samples from `first` on; `world` divides
        `sequences`.
        """
        part = sequences // world
        return self.samples(first + rank * part, part)


class Ahead:
    """Reads the rows of the next step in a thread while this one is computed."""

    def __init__(self, loader: Loader, rank: int, world: int) -> None:
        self._read = partial(loader.share, rank=rank, world=world)
        self._thread = ThreadPoolExecutor(1)
        self._wanted: tuple[int, int] = (-1, 0)
        self._rows: Future[NDArray[np.int64]]

    def start(self, first: int, sequences: int) -> None:
        """Begin to read."""
        self._wanted, self._rows = (
            (first, sequences),
            self._thread.submit(self._read, first, sequences),
        )

    def take(self, first: int, sequences: int) -> NDArray[np.int64]:
        """Return these rows; others than were begun are read now."""
        if self._wanted != (first, sequences):
            self.start(first, sequences)
        return self._rows.result()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
