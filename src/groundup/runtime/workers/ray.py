"""A pool of workers on a Ray cluster that this machine is a node of.

Artifacts go through the file system that all nodes share; only their manifests go through Ray.
Every node is checked before it gets work: the same versions and source files of groundup, and the
run directory and raw files at the same paths. `RUN/.staging/seen-*` is a file that a node must see.

Ray carries `perform` and what it calls to the nodes by value, to find out whether groundup is there
at all. So these functions may refer to each other and to the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import signal
import socket
import threading
import uuid
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError, one_line
from groundup.runtime.progress import say
from groundup.runtime.workers import processes
from groundup.runtime.workers.processes import Outcome, attempt

# Calls that Ray has per core: one that runs, and one that its node can start next.
CALLS_PER_CORE = 2
CONNECT_SECONDS = 10
CHECK_SECONDS = 120
WAIT_SECONDS = 5

# Tokens of the pools that this process was checked for, on a node.
_CHECKED: set[str] = set()


def perform(required: Mapping[str, Any], call: bytes) -> tuple[str, bytes]:
    """Make a pickled call on a node, if the node meets the requirements; an empty call only checks.

    Returns what is wrong with the node ("" for nothing), and the answer. `required` comes from
    `RayPool.requirements`; it is a plain dictionary, since a node may lack the classes of groundup.
    """
    if required["token"] not in _CHECKED:
        wrong = check_node(required)
        if wrong:
            return f"node {socket.gethostname()}: {wrong}", b""
        _CHECKED.add(required["token"])
    return "", attempt(call) if call else b""


def check_node(required: Mapping[str, Any]) -> str:
    """Return in words what is wrong with this machine, "" for nothing."""
    installed = installed_versions(required["versions"])
    if not installed["groundup"]:
        package = f"groundup=={required['versions']['groundup']}"
        return f"groundup is not installed there; run `pip install {package}` on every node"
    differences = [
        f"{name} {installed[name] or 'is missing'} (here {version})"
        for name, version in required["versions"].items()
        if installed[name] != version
    ]
    if differences:
        return f"{', '.join(differences)}; install the same versions on every node"
    if source_digest() != required["source_digest"]:
        other = f"its groundup {installed['groundup']} has other source files than the one here"
        return f"{other}; install the same one on every node"
    for title, (path, inode) in required["paths"].items():
        try:
            same = Path(path).stat().st_ino == inode
        except OSError:
            same = False
        if not same:
            shared = "it must lie on a file system that all nodes mount at the same place"
            return f"does not see {title}; {shared}"
    folder = required["writable"]
    try:
        probe = Path(folder, f"mark-{uuid.uuid4().hex[:12]}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
    return ""


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution, "" where it is missing; of Python the minor one."""
    versions = {}
    for name in names:
        versions[name] = ""
        if name == "python":
            versions[name] = ".".join(platform.python_version_tuple()[:2])
        elif name == "groundup":
            # Not its metadata: a source tree on PYTHONPATH has none.
            if importlib.util.find_spec(name):
                versions[name] = str(getattr(importlib.import_module(name), "__version__", ""))
        else:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
    return versions


def source_digest() -> str:
    """Return a SHA-256 over groundup's source files: checkouts of one version may differ."""
    folder = Path(str(importlib.import_module("groundup").__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


class RayPool:
    """The cores of a Ray cluster, connected to at first use."""

    def __init__(
        self, address: str, writable: Path, paths: Mapping[str, Path], libraries: tuple[str, ...]
    ) -> None:
        self.address = address  # `auto`, or `host:port` of the cluster
        self.writable = writable  # the run's staging folder
        self.paths = paths  # what else every node must see, by title
        self.libraries = libraries  # what every node must have in the version that is here
        self.token = writable / f"seen-{uuid.uuid4().hex[:12]}"
        self.ray: Any = None
        self.cores = 0
        self.calls: dict[Any, int] = {}

    def start(self) -> None:
        """Connect, and check that every node can do the work; GroundupError if one cannot."""
        if self.ray is not None:
            return
        self.ray = connect(self.address)
        for module in (importlib.import_module(__name__), processes):
            self.ray.cloudpickle.register_pickle_by_value(module)
        self.perform = self.ray.remote(num_cpus=1, max_retries=0)(perform)
        self.token.touch()
        self.required = self.requirements()
        # A node that dies meanwhile does not count.
        hosts = {
            node["NodeID"]: node["NodeManagerHostname"]
            for node in self.ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        }
        if not hosts:
            raise GroundupError(f"--ray {self.address}: no node of the cluster has a core (CPU)")
        on_node = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        checks = {}
        for node_id, host in hosts.items():
            strategy = on_node(node_id, soft=False)
            check = self.perform.options(num_cpus=0, scheduling_strategy=strategy)
            checks[check.remote(self.required, b"")] = host
        n = len(checks)
        answered, silent = self.ray.wait(list(checks), num_returns=n, timeout=CHECK_SECONDS)
        for reference in answered:
            self._outcome(reference)
        if silent:
            silence = f"gave no answer in {CHECK_SECONDS} seconds"
            raise GroundupError(f"node {checks[silent[0]]}: {silence}; see `ray status`")
        self.cores = int(self.ray.cluster_resources().get("CPU", 0))

    @property
    def node_cores(self) -> int:
        """Cores of the largest node that is alive."""
        self.start()
        alive = [node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]]
        return int(max(alive, default=0))

    def requirements(self) -> dict[str, Any]:
        """Return what `check_node` compares a node with."""
        paths = {f"the run directory {self.writable.parent}": self.token}
        paths |= {f"{title} {path}": path for title, path in self.paths.items()}
        return {
            "token": self.token.name,  # identifies the pool
            "versions": installed_versions(self.libraries),
            "source_digest": source_digest(),
            "paths": {title: (str(path), path.stat().st_ino) for title, path in paths.items()},
            "writable": str(self.writable),
        }

    def has_room(self) -> bool:
        """Whether Ray has fewer calls than keep its cores busy: it never holds a whole corpus."""
        self.start()
        return len(self.calls) < max(CALLS_PER_CORE * self.cores, 1)

    def submit(self, index: int, call: bytes) -> None:
        """Hand a call to Ray, which finds a core for it."""
        self.calls[self.perform.remote(self.required, call)] = index

    def submit_alone(self, index: int, call: bytes) -> None:
        """Hand Ray a call that uses all cores of the largest node: a list over the whole corpus."""
        perform = self.perform.options(num_cpus=max(self.node_cores, 1))
        self.calls[perform.remote(self.required, call)] = index

    def wait(self) -> list[tuple[int, Outcome]]:
        """Return calls that have ended, after at most WAIT_SECONDS.

        Raises GroundupError if Ray failed, or a node that joined later cannot do the work.
        """
        ended, _ = self.ray.wait(list(self.calls), timeout=WAIT_SECONDS)
        if ended:
            ended, _ = self.ray.wait(list(self.calls), num_returns=len(self.calls), timeout=0)
        before, self.cores = self.cores, int(self.ray.cluster_resources().get("CPU", 0))
        if before and not self.cores:
            say("warning: no node is left in the Ray cluster; waiting for one")
        return [(self.calls.pop(reference), self._outcome(reference)) for reference in ended]

    def _outcome(self, reference: Any) -> Outcome:
        errors = self.ray.exceptions
        try:
            wrong, answer = self.ray.get(reference)
        except (errors.NodeDiedError, errors.LocalRayletDiedError):
            return Outcome(lost="its node died")
        except errors.OutOfMemoryError:
            return Outcome(lost="its node ran out of memory, and Ray ended its worker process")
        except (errors.WorkerCrashedError, errors.ObjectLostError, errors.TaskUnschedulableError):
            return Outcome(lost="its worker process died")
        except errors.RayError as error:
            raise GroundupError(f"Ray: {one_line(error)}") from error
        if wrong:
            raise GroundupError(wrong)
        return Outcome(answer)

    def cancel(self) -> None:
        """Cancel the calls that have not ended; a call that runs is killed."""
        for reference in self.calls:
            self.ray.cancel(reference, force=True)
        self.calls = {}

    def close(self) -> None:
        """Leave the cluster, which ends every worker process of this run."""
        if self.ray is not None:
            self.ray.shutdown()
            self.token.unlink(missing_ok=True)
            self.ray, self.calls = None, {}


def connect(address: str) -> Any:
    """Join a Ray cluster and return the module `ray`; GroundupError says what is missing."""
    head = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if head != "auto":
        host, _, port = head.rpartition(":")
        if "/" in head or not host or not port.isdecimal():
            forms = 'give "auto" on a node of the cluster, or HOST:PORT of its head'
            raise GroundupError(f"--ray {head}: {forms}; ray:// is not supported")
        try:
            # Ray would try for minutes.
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            why = f"nothing answers there ({error}); `ray start --head` starts a cluster"
            raise GroundupError(f"--ray {head}: {why}") from None
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        why = "--ray needs the extra `ray`: pip install 'groundup[ray]', on every node"
        raise GroundupError(why) from None
    # Ray installs its own handler of SIGTERM.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        advice = "`ray start` makes this machine a node of a cluster"
        raise GroundupError(f"--ray {address}: {one_line(error)}; {advice}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
    return ray
