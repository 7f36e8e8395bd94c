"""A child process for libraries that a file may crash, as parsers in C++ and Rust may be.

It starts with the first file that needs it, reads one file after the other, and is replaced when it
dies: a file that crashes it, or that takes too much time or memory, costs itself. The child imports
this module, too, so that it imports little.
"""

from __future__ import annotations

import atexit
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from groundup.runtime.workers.processes import Worker

if TYPE_CHECKING:
    from groundup.collect.files.streams import Item

# Address space of the child.
MEMORY = 2 << 30


class Child:
    """The process, shared by all readers; it has no state that a call may rely on."""

    _worker: Worker | None = None

    @classmethod
    def call(cls, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(*arguments)`; DamagedError if it crashes, or takes too long."""
        from groundup.collect.files.streams import RECORD_SECONDS, DamagedError

        if cls._worker is None or not cls._worker.alive:
            cls.stop()
            cls._worker = Worker()
        worker = cls._worker
        worker.submit(0, pickle.dumps((_limited, (function, *arguments))))
        if not wait([worker.pipe], RECORD_SECONDS):
            cls.stop()
            raise DamagedError("timeout", f"it took longer than {RECORD_SECONDS:.0f} s")
        outcome = worker.outcome()
        if outcome.lost:
            cls._worker = None
            raise DamagedError("damaged", f"it crashes the library that reads it: {outcome.lost}")
        result, error = pickle.loads(outcome.answer)
        if isinstance(error, MemoryError):
            cls.stop()
            raise DamagedError("too-large", f"it takes more than {MEMORY >> 20:,} MB of memory")
        if error is not None:
            raise error
        return result

    @classmethod
    def stop(cls) -> None:
        """End the process."""
        if cls._worker is not None:
            cls._worker.kill()
            cls._worker = None


atexit.register(Child.stop)


def _limited(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the child, within its memory; Linux only."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    return function(*arguments)


@contextmanager
def item_path(item: Item) -> Iterator[str]:
    """Give the path of a file; a member of an archive is written to a temporary one."""
    if item.path is not None:
        yield str(item.path)
        return
    with tempfile.NamedTemporaryFile() as file:
        while data := item.stream.read(1 << 20):
            file.write(data)
        file.flush()
        yield file.name
