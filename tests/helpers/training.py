"""Kills trainings, rank and all, at random moments and inside commits; also a program that runs
one: `python training.py ROOT ...`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def main(root: Path, processes: int, compiled: str, steps: int) -> None:
    """Train the made-up language under the run's lock, as `groundup run` does."""
    from groundup.errors import GroundupError
    from groundup.runtime.run import Run
    from groundup.train import stage
    from tests.helpers.token_run import recipe

    # Checkpoints so often that a kill finds one being committed.
    of = recipe(
        steps=steps,
        processes=processes,
        compile=compiled,
        checkpoint_every=3,
        validate_every=30,
        checkpoint_steps=(10, 20),
    )
    try:
        with Run.open(of, root, workers=1) as run:
            stage.run(run)
    except GroundupError as error:
        sys.exit(f"groundup: {error}")


@dataclass(frozen=True)
class Training:
    """One training in a run directory, run as a process group of its own."""

    root: Path
    processes: int = 1
    compiled: str = "off"
    steps: int = 120

    def prepare(self) -> Training:
        from tests.helpers.token_run import write_shards

        write_shards(self.root)
        return self

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        }
        arguments = [str(self.root), str(self.processes), self.compiled, str(self.steps)]
        return subprocess.Popen(
            [sys.executable, __file__, *arguments],
            start_new_session=True,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self) -> str:
        """Run to the end and return what must be equal."""
        process = self.start()
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()[-3000:]
        return self.digest()

    def digest(self) -> str:
        from tests.helpers.token_run import weights_digest

        kept = sorted(path.name for path in (self.root / "train" / "checkpoints").iterdir())
        return f"{weights_digest(self.root, self.steps)} {kept}"

    def metrics(self) -> Path:
        return self.root / "train" / "metrics.jsonl"

    def wait_for(self, process: subprocess.Popen[bytes], size: int = 1) -> None:
        """Wait until metrics hold more than `size` bytes, or the process has ended."""
        while process.poll() is None and not (
            self.metrics().exists() and self.metrics().stat().st_size > size
        ):
            time.sleep(0.02)


def ranks(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that compute, below torchrun."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            # Not torchrun above them, and not the compiler's workers below.
            if (
                child.cmdline()[-3:-1] == ["-m", "groundup.train"]
                and "groundup.train.launch" not in child.cmdline()
            ):
                found.append(child)
        except (psutil.Error, IndexError):
            continue
    return found


def gone(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole group and wait until nothing of it runs."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    # Children that torchrun put into groups of their own notice that their parent is gone.
    psutil.wait_procs(below, timeout=30)


def writing(root: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((root / ".staging").glob("step-*"))


@dataclass
class Killer:
    """Kills a training again and again and counts."""

    training: Training
    expected: str
    longest: float
    kills: int = 0
    in_commit: int = 0
    finished: int = 0
    writing: int = 0  # kills of a rank while a checkpoint was being written
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def committing(self) -> bool:
        from tests.helpers.killing import committing

        return committing(self.training.root)

    def kill_once(self, hunt: bool) -> None:
        """Kill at a random moment; hunting, at the first commit after it."""
        process = self.training.start()
        moment = time.monotonic() + self.rng.uniform(1.0, self.longest)
        while process.poll() is None and (
            time.monotonic() < moment or (hunt and not self.committing())
        ):
            time.sleep(0.0005)
        if process.poll() is None:
            gone(process)
            self.kills += 1
            self.in_commit += self.committing()
            return
        assert process.returncode == 0, process.communicate()[1].decode()[-3000:]
        assert self.training.digest() == self.expected
        self.finished += 1
        shutil.rmtree(self.training.root / "train")

    def kill_ranks(self, kills: int) -> None:
        """Kill one rank at a time, any of them at random moments; torchrun replaces it, until it
        gives up. Start again until `kills` is reached, then let it finish and compare.
        """
        while self.kills < kills:
            process = self.training.start()
            moment = time.monotonic() + self.rng.uniform(0.5, self.longest)
            while process.poll() is None:
                if self.kills < kills and time.monotonic() >= moment:
                    if below := ranks(process):
                        with contextlib.suppress(psutil.Error):
                            self.rng.choice(below).kill()
                            self.kills += 1
                            self.writing += writing(self.training.root)
                    moment = time.monotonic() + self.rng.uniform(0.5, self.longest)
                time.sleep(0.002)
            _, errors = process.communicate()
            if process.returncode == 0:
                assert self.training.digest() == self.expected
                self.finished += 1
                shutil.rmtree(self.training.root / "train")
            else:
                last = errors.decode().splitlines()[-1]
                assert "the training processes died" in last, errors.decode()[-3000:]
        assert self.training.finish() == self.expected

    def rampage(self, kills: int, in_commit: int) -> None:
        """Kill until both numbers are reached, then let it finish and compare."""
        while self.kills < kills or self.in_commit < in_commit:
            assert self.kills + self.finished < 5 * kills + 10, "commits are not being hit"
            self.kill_once(hunt=self.in_commit < in_commit)
        assert self.training.finish() == self.expected


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
