"""N-gram models to compare with: unigram, and trigram with interpolated Kneser-Ney smoothing.

A transformer that does not beat a trigram has learned nothing that counting would not tell. The
n-grams are counted on the tokens that the model was trained on (`CAP` of them, if there are more),
and the scored tokens are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from groundup.evaluate.perplexity import Floats, Window
from groundup.evaluate.validation_data import Ids, Stream

# Sorting 16.8 million 64-bit keys takes about 0.6 GB. Beyond that, each shard contributes its first
# tokens in proportion to its size.
CAP = 1 << 24


class Level:
    """Counts of one order, with absolute discounting interpolated with the order below.

    (Ney, Essen and Kneser 1994.) An n-gram is one int64: its ids as digits in base `vocab_size`. So
    the last word is `key % vocab_size`, and the context is `key // vocab_size`.
    """

    def __init__(self, keys: Ids, counts: Ids, vocab_size: int) -> None:
        # The distinct n-grams, sorted, and how often each occurs.
        self.keys, self.counts = keys, counts
        # The distinct contexts, sorted; the occurrences of each, and the different words after it.
        self.contexts, starts = np.unique(keys // vocab_size, return_index=True)
        self.totals = np.add.reduceat(counts, starts) if len(keys) else counts
        self.types = np.diff(np.append(starts, len(keys)))
        # n1 / (n1 + 2 n2), where n1 and n2 n-grams occur once and twice (Ney et al. 1994). Without
        # n1 there is nothing to estimate from, but unseen n-grams must keep some probability.
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        self.discount = once / (once + 2 * twice) if once else 0.5


class NGram:
    """An interpolated Kneser-Ney model of order 1, 2 or 3; order 1 is a discounted unigram.

    The highest order counts occurrences; a lower order counts the different words that an n-gram
    follows (Kneser and Ney 1995). The lowest is interpolated with the uniform distribution, so
    every token has a probability.
    """

    def __init__(self, levels: Sequence[Level], vocab_size: int, tokens: int) -> None:
        self.levels, self.vocab_size, self.tokens = levels, vocab_size, tokens

    @classmethod
    def fit(cls, streams: Sequence[Stream], vocab_size: int, order: int, cap: int = CAP) -> NGram:
        """Count the n-grams of the streams, or of `cap` tokens; ValueError if over 63 bits."""
        if vocab_size**order >= 1 << 63:
            raise ValueError(f"{order}-grams of {vocab_size} entries do not fit into 63 bits")
        sizes = [len(stream) - 1 for stream in streams]
        total = sum(sizes)
        if total > cap:
            sizes = [size * cap // total for size in sizes]
        parts = [np.empty(0, np.int64)]
        for stream, size in zip(streams, sizes, strict=True):
            parts.append(ngram_keys(stream, 1, 1 + size, order, vocab_size))
        keys = np.concatenate(parts)
        levels: list[Level] = []
        for length in range(order, 0, -1):
            keys, counts = np.unique(keys, return_counts=True)
            levels.insert(0, Level(keys, counts, vocab_size))
            # The order below counts the different words that precede each shorter n-gram.
            keys = keys % vocab_size ** (length - 1)
        return cls(levels, vocab_size, sum(sizes))

    def probabilities(self, keys: Ids) -> Floats:
        """Return the probability of the last token of each n-gram given those before it."""
        lower = np.full(len(keys), 1 / self.vocab_size)
        for length, level in enumerate(self.levels, 1):
            shorter = keys % self.vocab_size**length
            context = shorter // self.vocab_size
            count = _look_up(level.keys, level.counts, shorter)
            total = _look_up(level.contexts, level.totals, context)
            types = _look_up(level.contexts, level.types, context)
            discounted = np.maximum(count - level.discount, 0) + level.discount * types * lower
            # An unseen context falls back to the order below.
            lower = np.where(total > 0, discounted / np.maximum(total, 1), lower)
        return lower

    def scores(self, windows: Sequence[Window]) -> Iterator[Floats]:
        """Yield the log-probabilities (nats) of the tokens of each window."""
        for window in windows:
            order = len(self.levels)
            keys = ngram_keys(window.stream, window.low, window.high, order, self.vocab_size)
            yield np.log(self.probabilities(keys))


def ngram_keys(stream: Stream, low: int, high: int, order: int, vocab_size: int) -> Ids:
    """Return the key of the n-gram that ends at each of the positions `low` to `high`."""
    tokens = stream.slice(low - order + 1, high)
    keys = np.zeros(high - low, np.int64)
    for offset in range(order):
        keys = keys * vocab_size + tokens[offset : offset + high - low]
    return keys


def _look_up(keys: Ids, values: Ids, queries: Ids) -> npt.NDArray[np.int64]:
    """Return the value of each query, 0 if it is absent; `keys` are sorted."""
    if not len(keys):
        return np.zeros(len(queries), np.int64)
    place = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[place] == queries, values[place], 0)
