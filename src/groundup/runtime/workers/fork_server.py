"""A server that forks workers: one process that has imported what they need, and has one thread.

    pool ──── fork, with a pipe ────▶ server ──── os.fork ────▶ worker
         ◀─── process id ────────────
         ─────────────────────── calls, answers ──────────────▶

A process that Python starts imports for half a second before its first call. A forked one is there
in milliseconds, and shares the memory of the modules.

A fork copies one thread only, so a lock that another one held would stay locked forever. The pool's
own process has threads of Arrow and of progress, so it never forks. The server does nothing but
import, and forks only while it has one thread. Where it has more, and on macOS, whose libraries do
not survive a fork, Python starts the workers.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

AVAILABLE = sys.platform == "linux"
# A request is the id of a process to wait for, or FORK. REFUSED is no process.
FORK, REFUSED = 0, -1
# A pool asks for its first workers within 0.5 s, at most 0.05 s apart. The server then loads what
# later stages need.
_TOGETHER, _PAUSE = 0.5, 0.05
# Numpy and Arrow start threads when they are imported: OpenBLAS, though data stages multiply no
# matrices, and jemalloc, which Arrow carries beside the allocator that it uses.
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
# The process finds modules where this one finds them; before that it imports only `sys`.
_MAIN = (
    "import sys; sys.path[:] = sys.argv[3:]; from {0} import {1};"
    " {1}(int(sys.argv[1]), int(sys.argv[2]))"
)

# What a process does: it gets its end of a pipe, as a descriptor, and the id of its parent.
Main = Callable[[int, int], None]


def start_process(main: Main, pipe: Connection, **environment: str) -> subprocess.Popen[bytes]:
    """Start Python on a function of a module.

    It is `python -c` instead of multiprocessing, which runs the main script again: a script without
    `if __name__ == "__main__"` would start itself.
    """
    code = _MAIN.format(main.__module__, main.__name__)
    command = [sys.executable, "-c", code, str(pipe.fileno()), str(os.getpid()), *sys.path]
    # The child inherits this mask from its first instruction on: Ctrl-C is for this process.
    with _blocked(signal.SIGINT):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[pipe.fileno()],
            env=environment | os.environ,
        )


@contextlib.contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def serve(descriptor: int, parent: int) -> None:
    """Fork and wait on request, until the pipe is closed, as it is when the parent has died."""
    control, server = Connection(descriptor), os.getpid()
    # Ends with the pipe: a thread that watches the parent would forbid the fork.
    with contextlib.suppress(EOFError, OSError):
        main, modules = control.recv()
        for name in modules[:1]:
            _load(name)
        later, first = modules[1:], -math.inf
        while True:
            # Who asks early is not kept waiting for what later stages need.
            pause = _PAUSE if time.monotonic() < first + _TOGETHER else 0.0
            while later and not control.poll(pause):
                _load(later.pop(0))
            process = control.recv()
            if process != FORK:
                control.send(os.waitpid(process, 0)[1])
                continue
            pipe = recv_handle(control)
            threads = len(list(Path("/proc/self/task").iterdir()))
            child = os.fork() if threads == 1 else REFUSED
            if first < 0:
                first = time.monotonic()
            if child == 0:
                control.close()
                main(pipe, server)
                return
            os.close(pipe)
            control.send((child, not later))


def _load(name: str) -> None:
    """Import a module, and call its function `preload` if it has one."""
    # What fails here fails again in the worker that needs it, and is reported there.
    with contextlib.suppress(Exception):
        module = importlib.import_module(name)
        if hasattr(module, "preload"):
            module.preload()
    # The collector writes to what it visits, and so would copy the pages that workers share.
    gc.collect()
    gc.freeze()


class ForkServer:
    """The server, as the pool sees it; it imports `modules`, in order, while the pool goes on."""

    def __init__(self, main: Main, modules: Sequence[str] = ()) -> None:
        # Processes that it forks call `main`.
        self.control, child = Pipe()
        with child:
            self.process = start_process(serve, child, **_ENVIRONMENT)
        self.control.send((main, list(modules)))

    def fork(self, pipe: Connection) -> ForkedProcess | None:
        """Return a new process that has this end of a pipe; None if the server cannot fork it."""
        with contextlib.suppress(EOFError, OSError), self.exchange():
            self.control.send(FORK)
            send_handle(self.control, pipe.fileno(), self.process.pid)
            process, complete = self.control.recv()
            if process != REFUSED:
                return ForkedProcess(self, process, complete)
        return None

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """Ask the server, and read its answer; one that Ctrl-C interrupts ends the server.

        The next exchange would read what is left of the answer. A mask of signals is no help:
        another thread takes the signal, and Python interrupts this one all the same.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """Kill the server; what it has forked ends within a second."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class ForkedProcess:
    """A child of the server, with the methods of subprocess.Popen that a pool needs."""

    def __init__(self, server: ForkServer, pid: int, complete: bool) -> None:
        # `complete`: it began with all that the server loads.
        self.server, self.pid, self.complete = server, pid, complete
        self.returncode: int | None = None
        self._waiting = False

    def kill(self) -> None:
        """Kill the process, unless it has been waited for: its id may be that of another one."""
        if self.returncode is None and self.server.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, negative for a signal; raise subprocess.TimeoutExpired."""
        if self.returncode is None:
            try:
                with self.server.exchange():
                    status = self._status(timeout)
                self.returncode = os.waitstatus_to_exitcode(status)
            except (EOFError, OSError):
                # Without the server nobody knows: the process ends itself then, with status 1.
                self.returncode = 1
        return self.returncode

    def _status(self, timeout: float | None) -> int:
        control = self.server.control
        if not self._waiting:
            control.send(self.pid)
            self._waiting = True
        if not control.poll(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return int(control.recv())
