"""A pool of local worker processes, each with a pipe, which it keeps from one stage to the next.

They are forked by a server where that is safe, else started by Python. This process forks none: a
child would inherit the run's lock and the threads of torch and Arrow.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from groundup.runtime.workers.fork_server import AVAILABLE, ForkServer, start_process


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with the answer of `attempt`, or, in `lost`, how its worker died."""

    answer: bytes = b""
    lost: str = ""


def attempt(call: bytes) -> bytes:
    """Make a pickled (function, arguments) call and return the pickled (result, error).

    Ray carries this function to its nodes by value, so it may refer to the standard library only.
    """
    try:
        function, arguments = pickle.loads(call)
        return pickle.dumps((function(*arguments), None))
    except Exception as error:
        # A traceback does not pickle; its text goes with the error, for GROUNDUP_TRACEBACK.
        error.add_note("".join(traceback.format_exception(error)))
        try:
            answer = pickle.dumps((None, error))
            pickle.loads(answer)
            return answer
        except Exception:
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def attempt_all(calls: Sequence[bytes]) -> list[bytes]:
    """Make calls one after the other and return the answers of `attempt`."""
    return [attempt(call) for call in calls]


def work(descriptor: int, parent: int) -> None:
    """Make the calls that come through a pipe, until it is closed or the parent is gone."""

    def exit_with_parent() -> None:
        # An orphan would hold memory and disk until its call has ended.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send_bytes(attempt(pipe.recv_bytes()))


class Worker:
    """One process, and the index of the call that it has."""

    def __init__(self, server: ForkServer | None = None) -> None:
        self.call: int | None = None
        self.pipe, child = Pipe()
        with child:
            forked = server.fork(child) if server is not None else None
            self.process = forked or start_process(work, child)
        # Whether a later one would begin with more that is loaded.
        self.early = forked is not None and not forked.complete

    @property
    def alive(self) -> bool:
        """Whether the process runs, if it has no call: its pipe then has only its end to read."""
        return not self.pipe.poll()

    def submit(self, index: int, call: bytes) -> None:
        """Send a call. If the process has died meanwhile, `outcome` notices."""
        self.call = index
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(call)

    def outcome(self) -> Outcome:
        """Read the answer to the call."""
        self.call = None
        try:
            return Outcome(self.pipe.recv_bytes())
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The pipe breaks a moment before the exit status is known.
                self.process.wait(5)
            status = self.kill()
            cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            if -status == signal.SIGKILL:
                cause += ": out of memory?"
            return Outcome(lost=f"its worker process died ({cause})")

    def kill(self) -> int:
        """Kill the process if it is alive, and return its exit status."""
        self.pipe.close()
        self.process.kill()
        return self.process.wait()


class ProcessPool:
    """Up to `count` processes, each started when there is a call for it.

    A server imports `modules` for all of them.
    """

    def __init__(self, count: int, modules: Sequence[str] = ()) -> None:
        self.count, self.modules = count, modules
        self.workers: list[Worker] = []
        self.server: ForkServer | None = None

    def start(self) -> None:
        """Start the server, which imports meanwhile; processes start with their first call."""
        if AVAILABLE and (self.server is None or not self.server.alive):
            self.server = ForkServer(work, self.modules)

    def has_room(self) -> bool:
        """Whether a process is idle, or not yet started."""
        return sum(worker.call is not None for worker in self.workers) < self.count

    def submit(self, index: int, call: bytes) -> None:
        """Give a call to an idle process."""
        worker = next((worker for worker in self.workers if worker.call is None), None)
        if worker is not None and not worker.alive:
            worker.kill()
            self.workers.remove(worker)
            worker = None
        if worker is None:
            self.start()
            self.workers.append(worker := Worker(self.server))
        worker.submit(index, call)

    def wait(self) -> list[tuple[int, Outcome]]:
        """Wait until a call has ended, and return all that have."""
        busy = [worker for worker in self.workers if worker.call is not None]
        ready = wait([worker.pipe for worker in busy])
        ended = [worker for worker in busy if worker.pipe in ready]
        outcomes = [(w.call, w.outcome()) for w in ended if w.call is not None]
        self.workers = [worker for worker in self.workers if not worker.pipe.closed]
        return outcomes

    def cancel(self) -> None:
        """Kill the processes that have a call, and those that began before all was loaded."""
        for worker in self.workers:
            if worker.call is not None or worker.early:
                worker.kill()
        self.workers = [worker for worker in self.workers if not worker.pipe.closed]

    def close(self) -> None:
        """Kill all processes."""
        for worker in self.workers:
            worker.kill()
        self.workers = []
        if self.server is not None:
            self.server.close()
            self.server = None
