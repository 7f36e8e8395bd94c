"""The loader is a function: sample i of training is f(seed, i). Reads `RUN/tokenize/shards/*.npy`, memory-mapped.

An example. Source `books` has 3 windows and weight 2, source `web` has 4 windows and weight 1. An epoch has
2 x 3 + 1 x 4 = 10 slots: 0 to 5 belong to books, 6 to 9 to web. Sample 17 lies in epoch 1 at position 7; the
permutation of (seed, epoch 1) sends position 7 to, say, slot 4: books' slot 4 of that epoch. Books had 6 slots in
epoch 0, so this is number 6 + 4 = 10 in the order in which books are read; with 3 windows that is pass 3, position 1,
and the permutation of (seed, books, pass 3) says which window that is. So a window comes again only after all others
of its source have come, and nothing is stored but the seed.

Which samples a step takes stands in samples.py; ranks and micro-batches have no say in it.

A window is context + 1 tokens of a shard, its first token the last of the window before it, so that every token but a
shard's first is a target once a pass. What is left at a shard's end and is shorter than a window is not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.errors import GroundupError
from groundup.tokens import Tokens, open_shard
from groundup.train.permutation import Indices, key_from, permute


@dataclass(frozen=True)
class Shard:
    """One memory-mapped array of token ids; `windows` fit into it."""

    name: str
    tokens: Tokens
    windows: int


@dataclass(frozen=True)
class Source:
    """The shards of one source, in order of name; `starts[k]` is the number of its first window within the source."""

    name: str
    shards: tuple[Shard, ...]
    starts: Indices
    windows: int
    # Samples that it gives to an epoch: round(weight x windows).
    slots: int


class Loader:
    """Samples of one split ("train" or "validation") as a function of their number."""

    def __init__(
        self, folder: Path, split: str, *, context: int, vocab_size: int, seed: int, weights: Mapping[str, float] | None = None
    ) -> None:
        """Open the shards `NAME.SPLIT.npy` of a folder; NAME is SOURCE.SHARD.

        Raises:
            GroundupError: a shard cannot be read.
        """
        self.context, self.vocab_size, self.seed = context, vocab_size, seed
        self.sources = tuple(self._source(name, paths, weights) for name, paths in _by_source(folder, split).items())
        self.tokens = sum(len(shard.tokens) for source in self.sources for shard in source.shards)
        self._ends = np.cumsum([source.slots for source in self.sources], dtype=np.int64)

    def _source(self, name: str, paths: Sequence[Path], weights: Mapping[str, float] | None) -> Source:
        shards = []
        for path in paths:
            tokens = open_shard(path, self.vocab_size, check_ids=False)
            shards.append(Shard(path.name, tokens, max(0, len(tokens) - 1) // self.context))
        counts = [shard.windows for shard in shards]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        windows = sum(counts)
        weight = 1.0 if weights is None else weights.get(name, 1.0)
        return Source(name, tuple(shards), starts, windows, round(weight * windows))

    @property
    def epoch(self) -> int:
        """Samples in an epoch, weights applied."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, samples: Indices) -> tuple[Indices, Indices]:
        """Return the source and the window in it of each sample."""
        slots = np.empty_like(samples)
        epochs = samples // self.epoch
        for epoch in np.unique(epochs):
            here = epochs == epoch
            slots[here] = permute(samples[here] % self.epoch, self.epoch, key_from(self.seed, "epoch", int(epoch)))
        sources = np.searchsorted(self._ends, slots, side="right").astype(np.int64)
        begin = self._ends - [source.slots for source in self.sources]
        windows = np.empty_like(samples)
        for number in np.unique(sources):
            here = sources == number
            windows[here] = self._windows(self.sources[number], epochs[here], slots[here] - begin[number])
        return sources, windows

    def _windows(self, source: Source, epochs: Indices, slots: Indices) -> Indices:
        order = epochs * source.slots + slots
        passes, positions = order // source.windows, order % source.windows
        windows = np.empty_like(order)
        for number in np.unique(passes):
            here = passes == number
            windows[here] = permute(positions[here], source.windows, key_from(self.seed, "source", source.name, int(number)))
        return windows

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
        shard, start = self._place(source, window)
        tokens = shard.tokens[start : start + self.context + 1]
        if tokens.max() >= self.vocab_size:
            raise GroundupError(f"{shard.name}: holds id {tokens.max()}, the vocabulary ends at {self.vocab_size - 1}; `--redo tokenize`")
        return tokens

    def _place(self, source: Source, window: int) -> tuple[Shard, int]:
        index = int(np.searchsorted(source.starts, window, side="right")) - 1
        return source.shards[index], (window - int(source.starts[index])) * self.context

    def places(self, first: int, count: int) -> list[tuple[str, str, int]]:
        """Return source, file name of the shard and first token of samples first … first + count - 1."""
        sources, windows = self.locate(np.arange(first, first + count, dtype=np.int64))
        found = []
        for number, window in zip(sources, windows, strict=True):
            shard, start = self._place(self.sources[number], int(window))
            found.append((self.sources[number].name, shard.name, start))
        return found

    def share(self, first: int, sequences: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return this rank's rows of the `sequences` samples from `first` on; `world` divides `sequences`."""
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
        self._wanted, self._rows = (first, sequences), self._thread.submit(self._read, first, sequences)

    def take(self, first: int, sequences: int) -> NDArray[np.int64]:
        """Return these rows; others than were begun are read now."""
        if self._wanted != (first, sequences):
            self.start(first, sequences)
        return self._rows.result()

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


def _by_source(folder: Path, split: str) -> dict[str, list[Path]]:
    """Shards by source in order of name. A source's name may hold dots, a shard's does not."""
    ending = f".{split}.npy"
    sources: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*{ending}"), key=lambda p: p.name):
        sources.setdefault(path.name.removesuffix(ending).rpartition(".")[0], []).append(path)
    return dict(sorted(sources.items()))
