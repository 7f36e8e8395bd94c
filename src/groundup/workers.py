"""The same map over shards, in this process or in local worker processes. Results come in the order of the items."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, TypeVar

from groundup.errors import GroundupError

Result = TypeVar("Result")


def _start_worker(parent: int) -> None:
    """Leave Ctrl-C to the parent, and leave when the parent is gone: an orphan would hold memory and disk."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@dataclass
class Workers:
    """A pool of `count` processes, started at its first use; one worker is this process itself."""

    count: int = 1
    _pool: ProcessPoolExecutor | None = field(default=None, repr=False)

    def map(self, function: Callable[..., Result], items: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
        """Yield `function(*item)` for every item, in order.

        An item that fails fails the map, after the items before it have been yielded. `function` and the items
        must pickle when there is more than one worker.

        Raises:
            GroundupError: a worker process died (killed, out of memory).
        """
        if self.count == 1 or len(items) < 2:
            for item in items:
                yield function(*item)
            return
        yield from self._map(function, items)

    def _map(self, function: Callable[..., Result], items: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
        futures: list[Future[Result]] = []
        try:
            futures = [self._started().submit(function, *item) for item in items]
            for future in futures:
                yield future.result()
        except BrokenProcessPool:
            self.close()
            raise GroundupError("a worker process died, killed or out of memory; run again with fewer --workers") from None
        finally:
            for future in futures:
                future.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: a forked child would inherit the run's lock and the threads of torch and Arrow.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, context, initializer=_start_worker, initargs=(os.getpid(),))
        return self._pool

    def close(self) -> None:
        """Stop the worker processes at once; what they had committed stays."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            self._pool = None


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
