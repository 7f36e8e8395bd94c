"""The same map over shards: in this process, in local processes (processes.py), or on a Ray cluster
(cluster.py).

Results come in the order of the items. A worker that is lost costs the item that it had, which is
tried again. Reads and writes nothing itself.
"""

from __future__ import annotations

import heapq
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from groundup.errors import GroundupError
from groundup.runtime.progress import say
from groundup.runtime.workers.pool import Pool
from groundup.runtime.workers.processes import Processes

Result = TypeVar("Result")

# An item that takes its worker with it so often does it by itself: a decoder that crashes, more
# memory than there is.
ATTEMPTS = 3
ADVICE = "run again with fewer workers if memory is short, else leave out the raw file that does it"


class Workers:
    """Who maps functions over shards: `count` local processes (one is this process itself), or
    `pool`.
    """

    def __init__(self, count: int = 1, pool: Pool | None = None) -> None:
        self.count = count
        self.pool = pool if pool is not None or count == 1 else Processes(count)

    def start(self) -> None:
        """Make ready.

        Raises:
            GroundupError: there are no workers, or they cannot give the answers that this process
                would.
        """
        if self.pool is not None:
            self.pool.start()

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[tuple[Any, ...]],
        names: Sequence[str] | None = None,
    ) -> Iterator[Result]:
        """Yield `function(*item)` for every item, in order.

        An item that fails fails the map, after the items before it have been yielded. `function`
        and the items must pickle when there is more than one worker. `names` are for messages.

        Raises:
            GroundupError: the worker of one item died three times (killed, out of memory).
        """
        if self.pool is None or len(items) < 2:
            for item in items:
                yield function(*item)
            return
        yield from _Map(
            self.pool, function, items, names or [f"item {n}" for n in range(len(items))]
        ).results()

    def close(self) -> None:
        """Stop the workers at once; what they had committed stays."""
        if self.pool is not None:
            self.pool.close()


@dataclass
class _Map:
    """One map that is on: which items wait, in order, which have ended, and how often each has lost
    its worker.
    """

    pool: Pool
    function: Callable[..., Any]
    items: Sequence[tuple[Any, ...]]
    names: Sequence[str]
    ended: dict[int, tuple[Any, Exception | None]] = field(default_factory=dict)
    losses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.waiting = list(range(len(self.items)))

    def results(self) -> Iterator[Any]:
        try:
            for number in range(len(self.items)):
                while number not in self.ended:
                    self._advance()
                value, error = self.ended.pop(number)
                if error is not None:
                    raise error
                yield value
        finally:
            self.pool.drop()

    def _advance(self) -> None:
        while self.waiting and self.pool.room():
            number = heapq.heappop(self.waiting)
            self.pool.submit(number, pickle.dumps((self.function, self.items[number])))
        for number, outcome in self.pool.wait():
            if outcome.lost:
                self._lost(number, outcome.lost)
            else:
                self._end(number, *pickle.loads(outcome.answer))

    def _end(self, number: int, value: Any, error: Exception | None) -> None:
        self.ended[number] = (value, error)
        if error is not None:
            # What comes after it will not be asked for. Sorted, since the rest of a heap need not
            # be one.
            self.waiting = sorted(other for other in self.waiting if other < number)

    def _lost(self, number: int, how: str) -> None:
        self.losses[number] += 1
        if self.losses[number] < ATTEMPTS:
            say(f"warning: {self.names[number]}: {how}; it is tried again")
            heapq.heappush(self.waiting, number)
        else:
            self._end(
                number,
                None,
                GroundupError(f"{self.names[number]}: {how}, {ATTEMPTS} times; {ADVICE}"),
            )


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
