"""In which order the windows of all shards are read: sample i ↔ a window, computed both ways. Reads
and writes nothing.

An example. Source `books` has 3 windows and weight 2, source `web` has 4 windows and weight 1. An
epoch has 2 x 3 + 1 x 4 = 10 slots: 0 to 5 belong to books, 6 to 9 to web. Sample 17 lies in epoch 1
at position 7; the permutation of (seed, epoch 1) sends position 7 to, say, slot 4: books' slot 4 of
that epoch. Books had 6 slots in epoch 0, so this is number 6 + 4 = 10 in the order in which books
are read; with 3 windows that is pass 3, position 1, and the permutation of (seed, books, pass 3)
says which window that is. So a window comes again only after all others of its source have come,
and nothing is stored but the seed. Backwards: a window has one position in every pass, that is one
slot of one epoch, and that is one sample.

A window is context + 1 tokens of a shard, its first token the last of the window before it, so that
every token but a shard's first is a target once a pass. What is left at a shard's end and is
shorter than a window is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from groundup.train.permutation import Indices, key_from, permute, permute_back


@dataclass(frozen=True)
class Source:
    """The shards of one source, in order of name; `starts[k]` is the number of the first window of
    shard k within the source.
    """

    name: str
    shards: tuple[str, ...]
    starts: Indices
    windows: int
    # Samples that it gives to an epoch: round(weight x windows).
    slots: int


class Order:
    """The samples of one split as a function of their number."""

    def __init__(
        self,
        lengths: Mapping[str, int],
        *,
        context: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Take the number of tokens of each shard; a shard is called SOURCE.SHARD."""
        self.context, self.seed = context, seed
        sources: dict[str, dict[str, int]] = {}
        # As the files SOURCE.SHARD.SPLIT.npy sort.
        for name in sorted(lengths, key=lambda name: f"{name}."):
            sources.setdefault(name.rpartition(".")[0], {})[name] = (
                max(0, lengths[name] - 1) // context
            )
        self.sources = tuple(
            _source(name, sources[name], (weights or {}).get(name, 1.0)) for name in sorted(sources)
        )
        self._ends = np.cumsum([source.slots for source in self.sources], dtype=np.int64)

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
            slots[here] = permute(
                samples[here] % self.epoch, self.epoch, key_from(self.seed, "epoch", int(epoch))
            )
        sources = np.searchsorted(self._ends, slots, side="right").astype(np.int64)
        begin = self._ends - [source.slots for source in self.sources]
        windows = np.empty_like(samples)
        for number in np.unique(sources):
            here = sources == number
            windows[here] = self._windows(
                self.sources[number], epochs[here], slots[here] - begin[number]
            )
        return sources, windows

    def _windows(self, source: Source, epochs: Indices, slots: Indices) -> Indices:
        order = epochs * source.slots + slots
        passes, positions = order // source.windows, order % source.windows
        windows = np.empty_like(order)
        for number in np.unique(passes):
            here = passes == number
            windows[here] = permute(
                positions[here],
                source.windows,
                key_from(self.seed, "source", source.name, int(number)),
            )
        return windows

    def samples_of(self, shard: str, begin: int, end: int, limit: int) -> Indices:
        """Return the samples below `limit` that hold one of the tokens `begin` to `end` - 1 of a
        shard, ascending.
        """
        number = next((n for n, source in enumerate(self.sources) if shard in source.shards), -1)
        if number < 0 or begin >= end or not self.sources[number].slots:
            return np.zeros(0, np.int64)
        source, epochs = self.sources[number], -(-limit // self.epoch)
        orders = self._orders(
            source, self._holding(source, shard, begin, end), epochs * source.slots
        )
        first = int(self._ends[number]) - source.slots
        samples = [np.zeros(0, np.int64)]
        for epoch in np.unique(orders // source.slots):
            slots = first + orders[orders // source.slots == epoch] % source.slots
            samples.append(
                epoch * self.epoch
                + permute_back(slots, self.epoch, key_from(self.seed, "epoch", int(epoch)))
            )
        found = np.sort(np.concatenate(samples))
        return found[found < limit]

    def _holding(self, source: Source, shard: str, begin: int, end: int) -> Indices:
        """Return the windows of a source that hold one of the tokens; the last token of one is the
        first of the next.
        """
        at = source.shards.index(shard)
        count = int([*source.starts, source.windows][at + 1] - source.starts[at])
        first, last = (
            max(0, -(-begin // self.context) - 1),
            min(count - 1, (end - 1) // self.context),
        )
        return np.arange(first, last + 1, dtype=np.int64) + source.starts[at]

    def _orders(self, source: Source, windows: Indices, limit: int) -> Indices:
        """Return the numbers below `limit` that windows have in the order in which their source is
        read.
        """
        found = [np.zeros(0, np.int64)]
        for number in range(-(-limit // source.windows)) if len(windows) else ():
            key = key_from(self.seed, "source", source.name, number)
            found.append(number * source.windows + permute_back(windows, source.windows, key))
        orders = np.concatenate(found)
        return orders[orders < limit]

    def place(self, source: Source, window: int) -> tuple[str, int]:
        """Return the shard of a window, and its first token there."""
        index = int(np.searchsorted(source.starts, window, side="right")) - 1
        return source.shards[index], (window - int(source.starts[index])) * self.context


def _source(name: str, windows: Mapping[str, int], weight: float) -> Source:
    ends = np.cumsum([0, *windows.values()]).astype(np.int64)
    return Source(name, tuple(windows), ends[:-1], int(ends[-1]), round(weight * int(ends[-1])))
