"""The longest run of tokens that a sample shares with the training text. Reads train streams;
exact, one pass.

The suffix automaton of the sample (Blumer et al. 1985) recognises every run of its tokens. Fed with
the training tokens one by one, it knows at each of them the longest run that ends there, in
constant time on average. So the search costs one table look-up a token whatever the length of the
match, and nothing has to be indexed.
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
class Overlap:
    """Where the longest shared run stands: `length` tokens from position `start` of the tokens of
    shard `shard`.
    """

    length: int
    shard: str = ""
    start: int = 0


@dataclass(frozen=True)
class Automaton:
    """A suffix automaton with dense transitions.

    Attributes:
        next: [states, symbols] the state after a symbol, -1 for none; a symbol is a distinct token
            of the sample.
        link: [states] the state of the longest proper suffix that leads elsewhere, -1 at the start.
        length: [states] length of the longest run that leads to a state.
        symbols: [vocab_size] the symbol of a token, -1 for a token that the sample does not hold.
    """

    next: _Table
    link: _Table
    length: _Table
    symbols: _Table


def build(sample: Sequence[int], vocab_size: int) -> Automaton:
    """Return the suffix automaton of a sample: at most two states a token."""
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
    return Automaton(
        table, np.array(builder.link, np.int32), np.array(builder.length, np.int32), symbols
    )


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
        if state >= 0:
            self.link[new] = self._suffix(state, symbol)

    def _suffix(self, state: int, symbol: int) -> int:
        """Return the state of exactly the longest run of `state`, with `symbol` after it."""
        target = self.next[state][symbol]
        if self.length[state] + 1 == self.length[target]:
            return target
        # The target also stands for longer runs, which do not end here: split it.
        clone = self._add(dict(self.next[target]), self.link[target], self.length[state] + 1)
        while state >= 0 and self.next[state].get(symbol) == target:
            self.next[state][symbol] = clone
            state = self.link[state]
        self.link[target] = clone
        return clone

    def _add(self, edges: dict[int, int], link: int, length: int) -> int:
        self.next.append(edges)
        self.link.append(link)
        self.length.append(length)
        return len(self.next) - 1


@numba.njit(nogil=True, cache=True)
def _longest(
    tokens: Any, symbols: _Table, nexts: _Table, link: _Table, length: _Table
) -> tuple[int, int]:
    """Return the longest run and the position after its first occurrence."""
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


def longest_overlap(sample: Sequence[int], streams: Sequence[Stream], vocab_size: int) -> Overlap:
    """Return the longest run that a sample shares with the streams, the first of equals."""
    machine = build(sample, vocab_size)
    found = Overlap(0)
    for stream in streams:
        # A memory map reads as a plain array; numba knows no other.
        tokens = np.asarray(stream.tokens)
        best, end = _longest(tokens, machine.symbols, machine.next, machine.link, machine.length)
        if best > found.length:
            found = Overlap(best, stream.name, end - best)
    return found
