"""An ordered map over shards: in this process, in local processes, or on a Ray cluster.

Results come in the order of the items. An item whose worker dies is tried again.
"""

from __future__ import annotations

import heapq
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count, islice, repeat
from typing import Any, Protocol, TypeVar

from groundup.errors import GroundupError
from groundup.runtime.progress import say
from groundup.runtime.workers.processes import Outcome, ProcessPool, attempt_all

Item = TypeVar("Item")
Result = TypeVar("Result")

# An item that kills this many workers is itself the cause: a decoder that crashes, or more memory
# than the machine has.
ATTEMPTS = 3
# Small items go to another machine together, so that a task takes longer than handing it over: as
# many as have this many bytes, or fewer where each core would get less than CALLS_A_CORE of them.
CALL_BYTES, CALL_ITEMS = 16e6, 64
CALLS_A_CORE = 8
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


class RemotePool(Pool, Protocol):
    """Workers on other machines."""

    @property
    def cores(self) -> int:
        """Cores of all machines."""

    @property
    def node_cores(self) -> int:
        """Cores of the largest machine."""

    def submit_alone(self, index: int, call: bytes) -> None:
        """Take a call that uses all cores of the largest machine."""


class Workers:
    """Maps functions over shards, by `count` local processes (1: this process) or by `pool`.

    Local processes share `modules`, which are imported once. A pool that was given is left by
    `close`: what follows runs in local processes.
    """

    def __init__(
        self, count: int = 1, pool: RemotePool | None = None, modules: Sequence[str] = ()
    ) -> None:
        self.remote = pool
        # 0 for a pool that was given: what it has may change.
        self.count = 0
        self.pool: Pool | None = pool
        if pool is None:
            self._use_processes(count, modules)

    def _use_processes(self, count: int, modules: Sequence[str] = ()) -> None:
        self.count = count
        self.pool = None if count == 1 else ProcessPool(count, modules)

    @property
    def cores(self) -> int:
        """Calls that run side by side now."""
        return self.count or (self.remote.cores if self.remote else 0)

    @property
    def threads(self) -> int:
        """Threads of a step that is performed alone, while all other workers are idle."""
        return self.count or (self.remote.node_cores if self.remote else 0) or default_workers()

    def start(self) -> None:
        """Start the pool; GroundupError if its workers would give other results than here."""
        if self.pool is not None:
            self.pool.start()

    def map(
        self,
        function: Callable[..., Result],
        items: Iterable[tuple[Any, ...]],
        names: Sequence[str] | None = None,
        sizes: Sequence[float] | None = None,
    ) -> Iterator[Result]:
        """Yield `function(*item)` for every item, in order.

        The items are taken one by one, as there is room for them. An item that fails fails the map,
        after the results before it were yielded. So does one that killed its worker ATTEMPTS times,
        by a GroundupError with its name from `names`. With more than one worker, `function` and the
        items must pickle. A single item runs in this process, or alone on a node of a pool that was
        given, which gets consecutive items of small `sizes` (bytes) as one call.
        """
        items = iter(items)
        first = list(islice(items, 2))
        items = chain(first, items)
        single = len(first) < 2
        if self.pool is None or (single and self.remote is None):
            for item in items:
                yield function(*item)
            return
        labels = iter(names) if names else (f"item {n}" for n in count())
        submit, call_bytes = self.pool.submit, 0.0
        if self.remote is not None:
            self.remote.start()
            if single:
                submit = self.remote.submit_alone
            share = sum(sizes or ()) / (CALLS_A_CORE * max(self.remote.cores, 1))
            call_bytes = min(CALL_BYTES, share)
        entries = zip(items, labels, sizes or repeat(CALL_BYTES), strict=False)
        yield from _Map(self.pool, submit, function, entries, call_bytes).results()

    def close(self) -> None:
        """Stop the workers at once; artifacts that they have committed stay."""
        if self.pool is not None:
            self.pool.close()
        if self.remote is not None:
            self.remote = None
            self._use_processes(default_workers())


@dataclass
class _Call:
    """Consecutive items that one worker takes, with their names."""

    calls: list[bytes] = field(default_factory=list)  # pickled (function, arguments)
    names: list[str] = field(default_factory=list)
    size: float = 0.0
    losses: int = 0  # workers that died with it

    @property
    def pickled(self) -> bytes:
        """What is submitted."""
        return self.calls[0] if len(self.calls) == 1 else pickle.dumps((attempt_all, (self.calls,)))


@dataclass
class _Map:
    """A map in progress. A call is known by the index of its first item."""

    pool: Pool
    submit: Callable[[int, bytes], None]
    function: Callable[..., Any]
    entries: Iterator[tuple[tuple[Any, ...], str, float]]  # item, name, size
    call_bytes: float  # items are added to a call while they have fewer together
    taken: int = 0  # items
    next_entry: tuple[tuple[Any, ...], str, float] | None = None
    calls: dict[int, _Call] = field(default_factory=dict)  # that have not ended
    again: list[int] = field(default_factory=list)  # to be submitted once more, as a heap
    # Index → (result, error), for items that wait to be yielded.
    ended: dict[int, tuple[Any, Exception | None]] = field(default_factory=dict)

    def results(self) -> Iterator[Any]:
        """Yield the results in the order of the items; the calls end with the iterator."""
        try:
            for index in count():
                while index not in self.ended:
                    if not self._advance():
                        return
                result, error = self.ended.pop(index)
                if error is not None:
                    raise error
                yield result
        finally:
            self.pool.cancel()

    def _advance(self) -> bool:
        """Submit calls while the pool has room, and take in those that ended; False at the end."""
        while self.pool.has_room():
            index = heapq.heappop(self.again) if self.again else self._next_call()
            if index is None:
                break
            self.submit(index, self.calls[index].pickled)
        if not self.calls:
            return False
        for index, outcome in self.pool.wait():
            if outcome.lost:
                self._lose(index, outcome.lost)
                continue
            call, answers = self.calls.pop(index), [outcome.answer]
            if len(call.calls) > 1:
                answers, _ = pickle.loads(outcome.answer)
            for number, answer in enumerate(answers):
                self._end(index + number, *pickle.loads(answer))
        return True

    def _next_call(self) -> int | None:
        """Make a call of the next items and return its index; None if there are no more."""
        call, first = _Call(), self.taken
        while entry := self.next_entry or next(self.entries, None):
            item, name, size = self.next_entry = entry
            full = call.size + size > self.call_bytes or len(call.calls) >= CALL_ITEMS
            if call.calls and full:
                break
            call.calls.append(pickle.dumps((self.function, item)))
            call.names.append(name)
            call.size += size
            self.next_entry = None
        if not call.calls:
            return None
        self.calls[first] = call
        self.taken += len(call.calls)
        return first

    def _lose(self, index: int, how: str) -> None:
        """Try the items of a call whose worker died again, each alone."""
        lost = self.calls.pop(index)
        losses = lost.losses + 1
        for number, (call, name) in enumerate(zip(lost.calls, lost.names, strict=True), index):
            if losses >= ATTEMPTS:
                message = f"{name}: {how}, {ATTEMPTS} times; {ADVICE}"
                self._end(number, None, GroundupError(message))
                continue
            say(f"warning: {name}: {how}; it is tried again")
            self.calls[number] = _Call([call], [name], losses=losses)
            heapq.heappush(self.again, number)

    def _end(self, index: int, result: Any, error: Exception | None) -> None:
        self.ended[index] = (result, error)
        if error is not None:
            # Later results will not be requested.
            self.entries, self.next_entry = iter(()), None
            for other in [other for other in self.again if other > index]:
                del self.calls[other]
            self.again = sorted(other for other in self.again if other < index)


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
