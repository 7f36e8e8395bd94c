"""A Ray cluster of one-core nodes on this machine, in a process of its own.

The process prints the address. A line on its standard input kills the second node, the end of
standard input ends the cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class Nodes:
    """The test's side of the cluster."""

    def __init__(self, count: int = 2) -> None:
        environment = os.environ | {
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(count)],
            stdin=pipe,
            stdout=pipe,
            env=environment,
            text=True,
        )
        self.address = self._answer()

    def kill_second(self) -> None:
        """Kill the second node; it is dead when this returns."""
        assert self.process.stdin is not None
        print("kill", file=self.process.stdin, flush=True)
        assert self._answer() == "killed"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        # Ray prints what it likes.
        return next(
            line.removeprefix("> ").strip() for line in self.process.stdout if line.startswith("> ")
        )

    def end(self) -> None:
        """End the cluster."""
        self.process.communicate(timeout=60)


def main() -> None:
    from ray.cluster_utils import Cluster

    # Where Ray notes the address of the cluster; with a TMPDIR of one's own it expects the folder
    # to be there.
    (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)
    # Short: sockets are made below it.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": folder},
    )
    others = [cluster.add_node(num_cpus=1) for _ in range(int(sys.argv[1]) - 1)]
    print(">", cluster.address, flush=True)
    if sys.stdin.readline():
        cluster.remove_node(others[0], allow_graceful=False)
        print("> killed", flush=True)
        sys.stdin.read()
    cluster.shutdown()
    shutil.rmtree(Path(folder), ignore_errors=True)


if __name__ == "__main__":
    main()
