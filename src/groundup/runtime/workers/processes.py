"""A pool of local worker processes. Reads and writes pipes to them.

They are started by `python -c`, not forked: a forked child would inherit the run's lock and the
threads of torch and Arrow. Nor by multiprocessing's spawn, which runs the main script again: one
without `if __name__ == "__main__"` would start itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from groundup.runtime.workers.node import attempt
from groundup.runtime.workers.pool import Outcome

# Modules are found where this process finds them; before that, nothing but `sys` is imported.
_BEGIN = (
    "import sys; sys.path[:] = sys.argv[3:]; from groundup.runtime.workers.processes import work;"
    " work(int(sys.argv[1]), int(sys.argv[2]))"
)


def work(descriptor: int, parent: int) -> None:
    """Make the calls that come through a pipe until it is closed, and leave when the parent is
    gone.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send_bytes(attempt(pipe.recv_bytes()))


def _watch(parent: int) -> None:
    """An orphan would hold memory and disk until its call has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Worker:
    """One process, and the number of the call that it has."""

    def __init__(self) -> None:
        self.call: int | None = None
        self.pipe, theirs = Pipe()
        command = [sys.executable, "-c", _BEGIN, str(theirs.fileno()), str(os.getpid()), *sys.path]
        with theirs, _interrupts_held():
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )

    def take(self, number: int, call: bytes) -> None:
        """Send a call. That the process has died meanwhile is noticed when the answer is read."""
        self.call = number
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(call)

    def outcome(self) -> Outcome:
        """Read the answer to the call."""
        self.call = None
        try:
            return Outcome(self.pipe.recv_bytes())
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Its pipe breaks a moment before its status is known.
                self.process.wait(5)
            return Outcome(lost=f"its worker process died ({_cause(self.end())})")

    def end(self) -> int:
        """Kill the process if it lives, and return its exit status; what it had committed stays."""
        self.pipe.close()
        self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started here leaves Ctrl-C to this one: it inherits the mask, from its
    first instruction on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cause(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return signal.Signals(-status).name + (": out of memory?" if -status == signal.SIGKILL else "")


class Processes:
    """Up to `count` processes, each started when there is a call for it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Nothing has to be ready."""

    def room(self) -> bool:
        """Whether one of them is idle, or not yet started."""
        return sum(worker.call is not None for worker in self.workers) < self.count

    def submit(self, number: int, call: bytes) -> None:
        """Give a call to an idle process."""
        worker = next((one for one in self.workers if one.call is None), None)
        if worker is None or worker.process.poll() is not None:
            self.workers = [one for one in self.workers if one is not worker]
            self.workers.append(worker := Worker())
        worker.take(number, call)

    def wait(self) -> list[tuple[int, Outcome]]:
        """Wait until calls have ended, and return how."""
        busy = [one for one in self.workers if one.call is not None]
        ready = wait([one.pipe for one in busy])
        outcomes = [
            (one.call, one.outcome()) for one in busy if one.call is not None and one.pipe in ready
        ]
        self.workers = [one for one in self.workers if not one.pipe.closed]
        return outcomes

    def drop(self) -> None:
        """Kill the processes that have a call."""
        for worker in self.workers:
            if worker.call is not None:
                worker.end()
        self.workers = [one for one in self.workers if not one.pipe.closed]

    def close(self) -> None:
        """Kill all of them."""
        for worker in self.workers:
            worker.end()
        self.workers = []
