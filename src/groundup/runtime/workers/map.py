"""An ordered map over shards: in this process, in local processes, or on a Ray cluster.

Results come in the order of the items. An item whose worker dies is tried again.
"""

from __future__ import annotations

import heapq
import os
import pickle
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from groundup.errors import GroundupError
from groundup.runtime.progress import say
from groundup.runtime.workers.processes import Outcome, ProcessPool

Item = TypeVar("Item")
Result = TypeVar("Result")

# An item that kills this many workers is itself the cause: a decoder that crashes, or more memory
# than the machine has.
ATTEMPTS = 3
ADVICE = "run again with fewer workers if memory is short, else leave out the raw file that does it"


class Pool(Protocol):
    """Workers that take pickled calls by index, and report how each call ended."""

    def start(self) -> None:
        """Start, and check what can be checked before there is any work."""

    def has_room(self) -> bool:
        """Whether one more call would be taken now."""

    def submit(self, index: int, call: bytes) -> None:
        """Take a call: a pickled (function, arguments)."""

    def wait(self) -> list[tuple[int, Outcome]]:
        """Return calls that have ended, after waiting for a while; may be empty."""

    def cancel(self) -> None:
        """Give up the calls that have not ended."""

    def close(self) -> None:
        """Stop at once; the next call starts the pool again."""


class Workers:
    """Maps functions over shards, by `count` local processes (1: this process) or by `pool`.

    Local processes share `modules`, which are imported once.
    """

    def __init__(
        self, count: int = 1, pool: Pool | None = None, modules: Sequence[str] = ()
    ) -> None:
        self.pool = pool if pool is not None or count == 1 else ProcessPool(count, modules)
        # 0 for a pool that was given: what it has may change.
        self.count = count if pool is None else 0

    @property
    def threads(self) -> int:
        """Threads of a step that this process performs alone, while its workers are idle."""
        return self.count or default_workers()

    def start(self) -> None:
        """Start the pool; GroundupError if its workers would give other results than here."""
        if self.pool is not None:
            self.pool.start()

    def map(
        self,
        function: Callable[..., Result],
        items: Sequence[tuple[Any, ...]],
        names: Sequence[str] | None = None,
    ) -> Iterator[Result]:
        """Yield `function(*item)` for every item, in order.

        An item that fails fails the map, after the results before it were yielded. So does one that
        killed its worker ATTEMPTS times, by a GroundupError with its name from `names`. With more
        than one worker, `function` and the items must pickle.
        """
        if self.pool is None or len(items) < 2:
            for item in items:
                yield function(*item)
            return
        names = names or [f"item {n}" for n in range(len(items))]
        yield from _Map(self.pool, function, items, names).results()

    def close(self) -> None:
        """Stop the workers at once; artifacts that they have committed stay."""
        if self.pool is not None:
            self.pool.close()


@dataclass
class _Map:
    """A map in progress."""

    pool: Pool
    function: Callable[..., Any]
    items: Sequence[tuple[Any, ...]]
    names: Sequence[str]
    waiting: list[int] = field(default_factory=list)  # not submitted, as a heap
    # Index → (result, error), for items that wait to be yielded.
    ended: dict[int, tuple[Any, Exception | None]] = field(default_factory=dict)
    losses: Counter[int] = field(default_factory=Counter)  # workers that died with each item

    def results(self) -> Iterator[Any]:
        """Yield the results in the order of the items; the calls end with the iterator."""
        self.waiting = list(range(len(self.items)))
        try:
            for index in range(len(self.items)):
                while index not in self.ended:
                    self._advance()
                result, error = self.ended.pop(index)
                if error is not None:
                    raise error
                yield result
        finally:
            self.pool.cancel()

    def _advance(self) -> None:
        """Submit items while the pool has room, then take in the calls that have ended."""
        while self.waiting and self.pool.has_room():
            index = heapq.heappop(self.waiting)
            self.pool.submit(index, pickle.dumps((self.function, self.items[index])))
        for index, outcome in self.pool.wait():
            if not outcome.lost:
                self._end(index, *pickle.loads(outcome.answer))
                continue
            self.losses[index] += 1
            if self.losses[index] < ATTEMPTS:
                say(f"warning: {self.names[index]}: {outcome.lost}; it is tried again")
                heapq.heappush(self.waiting, index)
            else:
                message = f"{self.names[index]}: {outcome.lost}, {ATTEMPTS} times; {ADVICE}"
                self._end(index, None, GroundupError(message))

    def _end(self, index: int, result: Any, error: Exception | None) -> None:
        self.ended[index] = (result, error)
        if error is not None:
            # Later results will not be requested. Sorted, because a filtered heap is no heap.
            self.waiting = sorted(other for other in self.waiting if other < index)


def map_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    stop: Callable[[], None],
) -> list[Result]:
    """Return `function(item)` for each item, in threads; on an error, call `stop` and end all."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop()
            pool.shutdown(cancel_futures=True)
            raise


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, while threads work on the next ones.

    At most `threads` results wait, so memory does not grow with the items. The items are taken in
    the thread of the caller.
    """
    if threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque[Future[Result]]()
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
