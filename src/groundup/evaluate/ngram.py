"""Counting models to compare with: unigram and interpolated trigram. Reads train streams; returns
scorers.

A transformer that does not beat a trigram has learned nothing that counting would not have told.
The counts are those of the tokens that the model was trained on, at most `CAP` of them, and the
tokens scored are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from groundup.evaluate.perplexity import Floats, Window
from groundup.evaluate.validation_data import Ids, Stream

# Sorting 16.8 million 64-bit keys takes about 0.6 GB. Beyond it, each shard gives its first tokens
# in proportion.
CAP = 1 << 24


@dataclass(frozen=True)
class Level:
    """Counts of one order: absolute discounting, interpolated with the order below (Ney, Essen and
    Kneser 1994).

    An n-gram is one int64: its ids as digits to the base of the vocabulary. So the last word is
    `key % vocab`, and the context is `key // vocab`.
    """

    keys: Ids
    counts: Ids
    contexts: Ids
    totals: Ids
    types: Ids
    discount: float

    @classmethod
    def of(cls, keys: Ids, counts: Ids, vocab_size: int) -> Level:
        """Return the level of sorted distinct `keys`."""
        of_key = keys // vocab_size
        contexts, starts = np.unique(of_key, return_index=True)
        types = np.diff(np.append(starts, len(keys)))
        totals = np.add.reduceat(counts, starts) if len(keys) else counts
        return cls(keys, counts, contexts, totals, types, discount(counts))

    def probability(self, context: Ids, word: Ids, vocab_size: int, lower: Floats) -> Floats:
        """Return p(word | context), given the probabilities `lower` of the order below."""
        count = _look_up(self.keys, self.counts, context * vocab_size + word)
        total = _look_up(self.contexts, self.totals, context)
        types = _look_up(self.contexts, self.types, context)
        seen = np.maximum(count - self.discount, 0) + self.discount * types * lower
        # A context never seen has nothing to say.
        return np.where(total > 0, seen / np.maximum(total, 1), lower)


def discount(counts: Ids) -> float:
    """Return the discount n1 / (n1 + 2 n2), where n1 and n2 are how many n-grams occur once and
    twice (Ney et al. 1994).
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    # Without n-grams that occur once there is nothing to estimate from, yet unseen ones must keep
    # some probability.
    return once / (once + 2 * twice) if once else 0.5


class NGram:
    """An interpolated Kneser-Ney model of any order up to three; order one is a discounted unigram.

    Counts of the highest order are occurrences; a lower order counts in how many different words an
    n-gram follows (Kneser and Ney 1995). The lowest is interpolated with the uniform distribution,
    so every token has a probability.
    """

    def __init__(self, levels: Sequence[Level], vocab_size: int, tokens: int) -> None:
        self.levels, self.vocab_size, self.tokens = levels, vocab_size, tokens

    @classmethod
    def fit(cls, streams: Sequence[Stream], vocab_size: int, order: int, cap: int = CAP) -> NGram:
        """Count the n-grams of the streams, of the first `cap` tokens of them in proportion.

        Raises:
            ValueError: the n-grams of such a vocabulary do not fit into 63 bits.
        """
        if vocab_size**order >= 1 << 63:
            raise ValueError(f"{order}-grams of {vocab_size} entries do not fit into 63 bits")
        total = sum(len(s) - 1 for s in streams)
        sizes = [len(s) - 1 if total <= cap else (len(s) - 1) * cap // total for s in streams]
        parts = [
            ngram_keys(s, 1, 1 + size, order, vocab_size)
            for s, size in zip(streams, sizes, strict=True)
        ]
        keys, counts = np.unique(
            np.concatenate(parts) if parts else np.empty(0, np.int64), return_counts=True
        )
        levels = [Level.of(keys, counts, vocab_size)]
        for below in range(order - 1, 0, -1):
            # How many different words stand in front of each shorter n-gram.
            keys, counts = np.unique(levels[0].keys % vocab_size**below, return_counts=True)
            levels.insert(0, Level.of(keys, counts, vocab_size))
        return cls(levels, vocab_size, sum(sizes))

    def probabilities(self, keys: Ids) -> Floats:
        """Return the probability of the last token of each n-gram given those before it."""
        lower = np.full(len(keys), 1 / self.vocab_size)
        for length, level in enumerate(self.levels, 1):
            shorter = keys % self.vocab_size**length
            lower = level.probability(
                shorter // self.vocab_size, shorter % self.vocab_size, self.vocab_size, lower
            )
        return lower

    def scores(self, windows: Sequence[Window]) -> Iterator[Floats]:
        """Yield the log-probabilities (nats) of the tokens of each window."""
        for window in windows:
            keys = ngram_keys(
                window.stream, window.low, window.high, len(self.levels), self.vocab_size
            )
            yield np.log(self.probabilities(keys))


def ngram_keys(stream: Stream, low: int, high: int, order: int, vocab_size: int) -> Ids:
    """Return the key of the n-gram that ends at each of the positions `low` to `high`."""
    tokens = stream.slice(low - order + 1, high)
    keys = np.zeros(high - low, np.int64)
    for offset in range(order):
        keys = keys * vocab_size + tokens[offset : offset + high - low]
    return keys


def _look_up(keys: Ids, values: Ids, wanted: Ids) -> npt.NDArray[np.int64]:
    """Return the value of each wanted key, 0 where it is absent; `keys` are sorted."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
