"""The longest run of tokens that a sample shares with the training text; exact, in one pass.

A suffix automaton of the sample (Blumer et al. 1985) recognizes every run of its tokens. Fed with
the training tokens one by one, it knows at each token the longest run that ends there. That costs
one table look-up per token on average, whatever the length of the match, and needs no index of the
training text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from groundup.evaluate.validation_data import Stream

_Table = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SharedRun:
    """The longest shared run: `length` tokens from token `start` of shard `shard`."""

    length: int
    shard: str = ""
    start: int = 0


@dataclass(frozen=True)
class Automaton:
    """A suffix automaton with dense transitions.

    Attributes:
        next: [states, symbols] the state after a symbol, -1 for none; a symbol is a distinct token
            of the sample.
        link: [states] the state of the longest proper suffix with other transitions, -1 at the
            start.
        length: [states] length of the longest run that leads to a state.
        symbols: [vocab_size] the symbol of a token, -1 for a token that the sample does not hold.
    """

    next: _Table
    link: _Table
    length: _Table
    symbols: _Table

    @classmethod
    def of(cls, sample: Sequence[int], vocab_size: int) -> Automaton:
        """Return the automaton of a sample; it has two states or fewer per token."""
        distinct = sorted(set(sample))
        symbols = np.full(vocab_size, -1, np.int32)
        symbols[distinct] = np.arange(len(distinct), dtype=np.int32)
        builder = _Builder()
        for token in sample:
            builder.append(int(symbols[token]))
        table = np.full((len(builder.next), max(1, len(distinct))), -1, np.int32)
        for state, edges in enumerate(builder.next):
            for symbol, target in edges.items():
                table[state, symbol] = target
        link, length = np.array(builder.link, np.int32), np.array(builder.length, np.int32)
        return cls(table, link, length, symbols)


class _Builder:
    """A suffix automaton that grows by one symbol at a time."""

    def __init__(self) -> None:
        self.next: list[dict[int, int]] = [{}]
        self.link = [-1]
        self.length = [0]
        self.last = 0

    def append(self, symbol: int) -> None:
        """Add a symbol at the end of the run."""
        new = self._add({}, 0, self.length[self.last] + 1)
        state, self.last = self.last, new
        while state >= 0 and symbol not in self.next[state]:
            self.next[state][symbol] = new
            state = self.link[state]
        if state < 0:
            return
        target = self.next[state][symbol]
        if self.length[state] + 1 != self.length[target]:
            # The target also stands for longer runs, which do not end here: split it.
            clone = self._add(dict(self.next[target]), self.link[target], self.length[state] + 1)
            while state >= 0 and self.next[state].get(symbol) == target:
                self.next[state][symbol] = clone
                state = self.link[state]
            self.link[target] = target = clone
        self.link[new] = target

    def _add(self, edges: dict[int, int], link: int, length: int) -> int:
        self.next.append(edges)
        self.link.append(link)
        self.length.append(length)
        return len(self.next) - 1


@numba.njit(nogil=True, cache=True)
def _longest(
    tokens: Any, symbols: _Table, nexts: _Table, link: _Table, length: _Table
) -> tuple[int, int]:
    """Return the length of the longest run and the position after its first occurrence."""
    state, run, best, end = 0, 0, 0, 0
    for i in range(len(tokens)):
        symbol = symbols[tokens[i]]
        if symbol < 0:
            state, run = 0, 0
            continue
        while state > 0 and nexts[state, symbol] < 0:
            state = link[state]
            run = length[state]
        if nexts[state, symbol] >= 0:
            state = nexts[state, symbol]
            run += 1
        if run > best:
            best, end = run, i + 1
    return best, end


def longest_shared_run(
    sample: Sequence[int], streams: Sequence[Stream], vocab_size: int
) -> SharedRun:
    """Return the longest run that a sample shares with the streams, the first of equals."""
    automaton = Automaton.of(sample, vocab_size)
    longest = SharedRun(0)
    for stream in streams:
        # numba does not accept memory maps, but a memory map reads as a plain array.
        tokens = np.asarray(stream.tokens)
        length, end = _longest(
            tokens, automaton.symbols, automaton.next, automaton.link, automaton.length
        )
        if length > longest.length:
            longest = SharedRun(length, stream.name, end - length)
    return longest
