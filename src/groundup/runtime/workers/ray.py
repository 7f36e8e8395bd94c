"""A pool of workers on a Ray cluster, which this machine is a node of.

Reads and writes the run directory as any worker does: artifacts go through the file system that all
nodes share, and only their manifests through Ray. Writes `RUN/.staging/seen-*`, to see whether a
node sees it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.recipe import Recipe, all_sources
from groundup.runtime.progress import say
from groundup.runtime.workers import node
from groundup.runtime.workers.pool import Outcome

# Calls that are with Ray for each of its cores: one that runs, and one that its node finds ready.
CALLS_PER_CORE = 2
CONNECT_SECONDS = 10
LOOK_SECONDS = 120
WAIT_SECONDS = 5


class RayPool:
    """The cores of a Ray cluster, connected to at first use.

    Args:
        address: `auto`, or `host:port` of the cluster.
        writable: the run's staging folder.
        places: what else every node must see: title → path.
        libraries: what every node must have in the version that is installed here.
    """

    def __init__(
        self, address: str, writable: Path, places: Mapping[str, Path], libraries: tuple[str, ...]
    ) -> None:
        self.address, self.writable, self.places, self.libraries = (
            address,
            writable,
            places,
            libraries,
        )
        self.ray: Any = None
        self.cores = 0
        self.calls: dict[Any, int] = {}

    def start(self) -> None:
        """Connect, and look whether every node can do the work.

        Raises:
            GroundupError: there is no such cluster, or a node lacks something or does not see the
                run.
        """
        if self.ray is not None:
            return
        self.ray = connect(self.address)
        self.ray.cloudpickle.register_pickle_by_value(node)
        self.perform = self.ray.remote(num_cpus=1, max_retries=0)(node.perform)
        self.token = self.writable / f"seen-{uuid.uuid4().hex[:12]}"
        self.token.touch()
        self.expected = self.wanted()
        self._look()

    def wanted(self) -> dict[str, Any]:
        """Return what `node.fault` compares a node with."""
        places = {f"the run directory {self.writable.parent}": self.token} | {
            f"{title} {path}": path for title, path in self.places.items()
        }
        return {
            "token": self.token.name,
            "versions": node.versions(self.libraries),
            "sources": node.sources(),
            "places": {title: (str(path), path.stat().st_ino) for title, path in places.items()},
            "writable": str(self.writable),
        }

    def _look(self) -> None:
        """Ask every node that has cores; one that dies meanwhile is none of them."""
        names = {
            one["NodeID"]: one["NodeManagerHostname"]
            for one in self.ray.nodes()
            if one["Alive"] and one["Resources"].get("CPU")
        }
        if not names:
            raise GroundupError(f"--ray {self.address}: no node of the cluster has a core (CPU)")
        looks = {self._on(name).remote(self.expected, b""): host for name, host in names.items()}
        answered, silent = self.ray.wait(list(looks), num_returns=len(looks), timeout=LOOK_SECONDS)
        for reference in answered:
            self._outcome(reference)
        if silent:
            raise GroundupError(
                f"node {looks[silent[0]]}: gave no answer in {LOOK_SECONDS} seconds; `ray status`"
                " tells how it is"
            )
        self.cores = self._count_cores()

    def _on(self, name: str) -> Any:
        strategy = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            name, soft=False
        )
        return self.perform.options(num_cpus=0, scheduling_strategy=strategy)

    def room(self) -> bool:
        """Whether Ray has fewer calls than keep its cores busy: it is never handed all of a large
        corpus.
        """
        self.start()
        return len(self.calls) < max(CALLS_PER_CORE * self.cores, 1)

    def submit(self, number: int, call: bytes) -> None:
        """Hand a call to Ray, which finds a core for it."""
        self.calls[self.perform.remote(self.expected, call)] = number

    def wait(self) -> list[tuple[int, Outcome]]:
        """Return how calls ended, after a few seconds at the latest.

        Raises:
            GroundupError: a node that came later cannot do the work, or Ray failed.
        """
        ended, _ = self.ray.wait(list(self.calls), timeout=WAIT_SECONDS)
        if ended:
            ended, _ = self.ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)
        before, self.cores = self.cores, self._count_cores()
        if before and not self.cores:
            say("warning: no node is left in the Ray cluster; waiting for one")
        return [(self.calls.pop(reference), self._outcome(reference)) for reference in ended]

    def _count_cores(self) -> int:
        return int(self.ray.cluster_resources().get("CPU", 0))

    def _outcome(self, reference: Any) -> Outcome:
        errors = self.ray.exceptions
        try:
            fault, answer = self.ray.get(reference)
        except (errors.NodeDiedError, errors.LocalRayletDiedError):
            return Outcome(lost="its node died")
        except errors.OutOfMemoryError:
            return Outcome(lost="its node ran out of memory, and Ray ended its worker process")
        except (errors.WorkerCrashedError, errors.ObjectLostError, errors.TaskUnschedulableError):
            return Outcome(lost="its worker process died")
        except errors.RayError as error:
            raise GroundupError(f"Ray: {_line(error)}") from error
        if fault:
            raise GroundupError(fault)
        return Outcome(answer)

    def drop(self) -> None:
        """Cancel what has not ended; a call that is being made loses its process."""
        for reference in self.calls:
            self.ray.cancel(reference, force=True)
        self.calls = {}

    def close(self) -> None:
        """Leave the cluster, which ends every worker process of this run."""
        if self.ray is not None:
            self.ray.shutdown()
            self.token.unlink(missing_ok=True)
            self.ray = None


def connect(address: str) -> Any:
    """Join a Ray cluster and return the module `ray`.

    Raises:
        GroundupError: Ray is not installed, or there is no such cluster, or this machine is none of
            its nodes.
    """
    _reach(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise GroundupError(
            "--ray needs the extra `ray`: pip install 'groundup[ray]', on every node"
        ) from None
    try:
        with _own_signals():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise GroundupError(
            f"--ray {address}: {_line(error)}; `ray start` makes this machine a node of a cluster"
        ) from None
    return ray


def _reach(address: str) -> None:
    """Knock at an address; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if "/" in address or not host or not port.isdecimal():
        raise GroundupError(
            f'--ray {address}: give "auto" on a node of the cluster, or HOST:PORT of its head;'
            " ray:// is not supported"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise GroundupError(
            f"--ray {address}: nothing answers there ({error}); `ray start --head` begins a cluster"
        ) from None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answer to SIGTERM, which Ray would replace by its own."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def shared_places(recipe: Recipe) -> dict[str, Path]:
    """Return what every node must see beside the run directory: where raw files lie, fetched ones
    too, and the user's own code.
    """
    from groundup.collect.sources import split_pattern
    from groundup.runtime.fetch.cache import cache_root

    places = (
        {"the folder of the recipe": recipe.root}
        if any(":" in name for name in recipe.refine.filters)
        else {}
    )
    for path in [source.path for source in all_sources(recipe)]:
        if "://" in path or path.startswith(("pypi:", "scrape:")):
            cache_root().mkdir(parents=True, exist_ok=True)
            places["the cache ($GROUNDUP_CACHE moves it)"] = cache_root()
        else:
            top = split_pattern(str(Path(path).expanduser()), recipe.root)[0]
            places |= {f"the raw files {path} in": top.resolve()} if top.exists() else {}
    return places
