"""Training data: sample i is a function of (seed, i) and of the token shards, computed both ways.

Nothing is shuffled in memory and no order is stored. Ranks, micro-batches and restarts do not
change which tokens sample i is.

    shards  books.aa.train.npy   t0 t1 t2 t3 t4 t5 t6 t7 t8 t9
            windows (context 3)  └─ window 0 ─┘
                                          └─ window 1 ─┘
                                                   └─ window 2 ─┘

A window is context + 1 tokens: inputs and, moved by one, targets. It starts with the last token of
the window before it, so every token but a shard's first is a target once per pass. A rest that is
shorter than a window is not read.

An example of samples → windows. Source `books` has 3 windows and weight 2, source `web` has 4
windows and weight 1. So an epoch has 2 · 3 + 1 · 4 = 10 slots: 0 to 5 are of books, 6 to 9 of web.

    sample 17             = position 7 of epoch 1               (17 = 1 · 10 + 7)
    position 7            → slot 4, by the permutation of (seed, "epoch", 1): a slot of books
    books, epoch 1 slot 4 = read 10 of books                    (1 · 6 + 4)
    read 10 of books      = position 1 of its pass 3            (10 = 3 · 3 + 1)
    position 1            → window 2, by the permutation of (seed, "source", "books", 3)

So a window is read again only after all others of its source. Backwards (`samples_of`): a window
has one position in every pass, which is one slot of one epoch, which is one sample.

Which samples a step takes is a short list of spans, part of every checkpoint. A span (step, first,
sequences) says: step `step` takes samples `first` to `first + sequences - 1`, and each later step
the samples that follow, until the next span begins. An example:

    [(0, 0, 64), (100, 6400, 128), (150, 14080, 128)]

The batch was doubled at step 100: a change of the batch size begins a span at the next sample. At
step 150 the next sample would have been 6400 + 50 · 128 = 12800. A rollback skipped 1,280 samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from groundup.artifacts.tokens import open_shard
from groundup.errors import GroundupError

Indices: TypeAlias = NDArray[np.int64]
Span: TypeAlias = tuple[int, int, int]
Weights: TypeAlias = Mapping[str, float] | None
# Four rounds make a Feistel network a pseudo-random permutation if its round function is one (Luby
# and Rackoff 1988). Ours is only a mixer, so two more.
ROUNDS = 6


def derive_seed(*parts: int | str) -> int:
    """Return a 64-bit seed from parts that name its purpose, such as (seed, "epoch", 3)."""
    text = "\x00".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def permute(values: Indices, size: int, key: int, inverse: bool = False) -> Indices:
    """Return the image of each value under the permutation `key` of range(size), or its inverse.

    A Feistel network permutes the smallest range(4^k) that contains range(size). A result outside
    of range(size) goes through it again until it lands inside (cycle-walking, Black and Rogaway
    2002), which takes less than four rounds on average.
    """
    # A value is two halves of this many bits, so 4^half is the range that the network permutes.
    half = max(1, -(-(size - 1).bit_length() // 2))
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    # One key per round, so that no two rounds cancel each other.
    keys = [np.uint64(derive_seed(key, number)) for number in range(ROUNDS)]
    result = values.astype(np.uint64)
    # Indices of the values that are not in range(size) yet: at first all go through the network.
    outside = np.arange(len(result))
    while len(outside):
        left, right = result[outside] >> shift, result[outside] & mask
        if inverse:
            # The same rounds in reverse: each one needs only the half that it left unchanged.
            for round_key in reversed(keys):
                left, right = right ^ (_mix(left ^ round_key) & mask), left
        else:
            for round_key in keys:
                left, right = right, left ^ (_mix(right ^ round_key) & mask)
        result[outside] = (left << shift) | right
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64 bits so that every input bit changes every output bit: variant 13 of Stafford."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class SourceShards:
    """The shards of one source, in order of name."""

    name: str
    shards: tuple[str, ...]
    starts: Indices  # `starts[k]` is the first window of shard k, counted through the whole source
    windows: int  # of all shards
    slots: int  # samples of this source in an epoch: round(weight · windows)

    def place(self, window: int, context: int) -> tuple[str, int]:
        """Return the shard of a window, and its first token there."""
        index = int(np.searchsorted(self.starts, window, side="right")) - 1
        # Windows lie `context` tokens apart, and share one token with the next.
        return self.shards[index], (window - int(self.starts[index])) * context


class SampleOrder:
    """The order in which the windows of all shards are read: sample ↔ source and window.

    `lengths` has the number of tokens of each SOURCE.SHARD; sources without a weight have 1.
    """

    def __init__(
        self, lengths: Mapping[str, int], *, context: int, seed: int, weights: Weights = None
    ) -> None:
        self.context, self.seed = context, seed
        by_source: dict[str, list[str]] = {}
        # In the order in which the files SOURCE.SHARD.SPLIT.npy sort.
        for shard in sorted(lengths, key=lambda name: f"{name}."):
            by_source.setdefault(shard.rpartition(".")[0], []).append(shard)
        sources = []
        for name, shards in sorted(by_source.items()):
            # A window adds `context` tokens to the one that it shares with the window before.
            counts = [max(0, lengths[shard] - 1) // context for shard in shards]
            ends = np.cumsum([0, *counts]).astype(np.int64)
            windows = int(ends[-1])
            slots = round((weights or {}).get(name, 1.0) * windows)
            sources.append(SourceShards(name, tuple(shards), ends[:-1], windows, slots))
        self.sources = tuple(sources)
        # Slots of an epoch up to the end of each source.
        self._ends = np.cumsum([source.slots for source in self.sources], dtype=np.int64)

    @property
    def epoch_size(self) -> int:
        """Samples in an epoch, weights applied."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, samples: Indices) -> tuple[Indices, Indices]:
        """Return the source (its index) and the window in it of each sample."""
        # Which slot of its epoch each sample is, and so of which source.
        epochs, positions = np.divmod(samples, self.epoch_size)
        slots = self._permute(positions, epochs, self.epoch_size, "epoch")
        sources = np.searchsorted(self._ends, slots, side="right").astype(np.int64)
        windows = np.empty_like(samples)
        for index in np.unique(sources):
            here, source = sources == index, self.sources[index]
            first_slot = self._ends[index] - source.slots
            # Its number among all reads of the source, since the start of training.
            reads = epochs[here] * source.slots + slots[here] - first_slot
            passes, positions = np.divmod(reads, source.windows)
            windows[here] = self._permute(positions, passes, source.windows, "source", source.name)
        return sources, windows

    def _permute(
        self, values: Indices, rounds: Indices, size: int, *purpose: str, inverse: bool = False
    ) -> Indices:
        """Permute values of range(size), each by the permutation of its round (epoch or pass)."""
        result = np.empty_like(values)
        # A batch touches one or two rounds, so this loop is short.
        for number in np.unique(rounds):
            here = rounds == number
            key = derive_seed(self.seed, *purpose, int(number))
            result[here] = permute(values[here], size, key, inverse)
        return result

    def samples_of(self, shard: str, begin: int, end: int, limit: int) -> Indices:
        """Return the samples below `limit` that hold a token from `begin` to `end` - 1, sorted."""
        index = next((n for n, source in enumerate(self.sources) if shard in source.shards), -1)
        if index < 0 or begin >= end or limit <= 0 or not self.sources[index].slots:
            return np.zeros(0, np.int64)
        source = self.sources[index]
        # Windows that contain one of the tokens. The last token of one is the first of the next.
        starts, shard_index = [*source.starts, source.windows], source.shards.index(shard)
        last = int(starts[shard_index + 1] - starts[shard_index]) - 1
        first, last = -(-begin // self.context) - 1, min(last, (end - 1) // self.context)
        windows = starts[shard_index] + np.arange(max(0, first), last + 1, dtype=np.int64)
        # One read of each window per pass, over all passes that the epochs up to `limit` begin.
        all_reads = -(-limit // self.epoch_size) * source.slots
        count, purpose = -(-all_reads // source.windows), ("source", source.name)
        passes, windows = np.repeat(np.arange(count), len(windows)), np.tile(windows, count)
        positions = self._permute(windows, passes, source.windows, *purpose, inverse=True)
        reads = passes * source.windows + positions
        # From the reads back to slots of epochs, and to samples.
        epochs, slots = np.divmod(reads[reads < all_reads], source.slots)
        slots += self._ends[index] - source.slots
        positions = self._permute(slots, epochs, self.epoch_size, "epoch", inverse=True)
        samples = np.sort(epochs * self.epoch_size + positions)
        return samples[samples < limit]


class Loader(SampleOrder):
    """Samples of one split, "train" or "validation", as token ids.

    `folder` holds `SOURCE.SHARD.SPLIT.npy`. They are memory-mapped: a shard is read where a sample
    needs it, and never whole.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        *,
        context: int,
        vocab_size: int,
        seed: int,
        weights: Weights = None,
    ) -> None:
        self.vocab_size, self._ending = vocab_size, f".{split}.npy"
        self._shards = {
            path.name.removesuffix(self._ending): open_shard(path, vocab_size, check_ids=False)
            for path in sorted(folder.glob(f"*{self._ending}"))
        }
        lengths = {name: len(tokens) for name, tokens in self._shards.items()}
        super().__init__(lengths, context=context, seed=seed, weights=weights)

    def places(self, first: int, count: int) -> list[tuple[str, str, int]]:
        """Return source, file name of the shard and first token of each of `count` samples."""
        places = []
        located = self.locate(np.arange(first, first + count, dtype=np.int64))
        for index, window in zip(*located, strict=True):
            shard, start = self.sources[index].place(int(window), self.context)
            places.append((self.sources[index].name, shard + self._ending, start))
        return places

    def samples(self, first: int, count: int) -> NDArray[np.int64]:
        """Return samples `first` to `first + count - 1` as token ids [count, context + 1]."""
        rows = np.empty((count, self.context + 1), dtype=np.int64)
        for row, (_, name, start) in zip(rows, self.places(first, count), strict=True):
            # Widened to int64, which the embedding takes.
            row[:] = self._shards[name.removesuffix(self._ending)][start : start + len(row)]
            # Checked here and not when a shard is opened, which would read all of it.
            if row.max() >= self.vocab_size:
                beyond = f"holds id {row.max()}, the vocabulary ends at {self.vocab_size - 1}"
                raise GroundupError(f"{name}: {beyond}; `--redo tokenize`")
        return rows

    def share(self, first: int, sequences: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return this rank's rows of a step's samples. Shares differ by at most one."""
        # Consecutive rows, so the ranks' rows in order are the step's, whatever `world` is.
        begin, end = (sequences * n // world for n in (rank, rank + 1))
        return self.samples(first + begin, end - begin)


class Prefetcher:
    """Reads the rows of the next step in a thread while the current step is computed."""

    def __init__(self, loader: Loader, rank: int, world: int) -> None:
        self._read = partial(loader.share, rank=rank, world=world)
        # One thread: reading a step takes far less time than computing one.
        self._thread = ThreadPoolExecutor(1)
        self._samples = (-1, 0)
        self._rows: Future[NDArray[np.int64]]

    def start(self, first: int, sequences: int) -> None:
        """Begin to read the rows of a step."""
        self._samples = (first, sequences)
        self._rows = self._thread.submit(self._read, first, sequences)

    def take(self, first: int, sequences: int) -> NDArray[np.int64]:
        """Return the rows of a step. They are read now if others were begun."""
        # After a rollback, a resume or a new batch size the step takes other samples.
        if self._samples != (first, sequences):
            self.start(first, sequences)
        return self._rows.result()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()


def samples_of_step(spans: Sequence[Span], step: int) -> tuple[int, int]:
    """Return the first sample of a step, and how many samples it takes."""
    begin, first, sequences = next(span for span in reversed(spans) if span[0] <= step)
    return first + (step - begin) * sequences, sequences


def steps_of_samples(spans: Sequence[Span], end: int, samples: Indices) -> Indices:
    """Return the step below `end` that took each sample: the inverse of `samples_of_step`.

    -1 is for a sample that was skipped or not reached.
    """
    if not spans:
        return np.full(len(samples), -1, np.int64)
    begins, firsts, sequences = np.array(spans, np.int64).T
    # The last span that begins at or before each sample.
    index = np.searchsorted(firsts, samples, side="right") - 1
    steps = begins[index] + (samples - firsts[index]) // sequences[index]
    # A span ends where the next one begins; samples between the two were skipped.
    ends = np.append(begins[1:], end)
    return np.where((index >= 0) & (steps < ends[index]), steps, -1)


def resize(spans: Sequence[Span], step: int, sequences: int) -> list[Span]:
    """Return the spans with a batch of `sequences` from `step` on."""
    if not spans:
        return [(step, 0, sequences)]
    first, before = samples_of_step(spans, step)
    # Equal neighbors are not split, so equal runs have equal lists.
    if before == sequences:
        return list(spans)
    return [*(span for span in spans if span[0] < step), (step, first, sequences)]


def skip_to(spans: Sequence[Span], step: int, first: int) -> list[Span]:
    """Return the spans with `step` continuing at sample `first`."""
    sequences = samples_of_step(spans, step)[1]
    return [*(span for span in spans if span[0] < step), (step, first, sequences)]
