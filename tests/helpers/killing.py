"""Kills a run at random moments, starts it again until it is done, and counts the kills that hit a
commit.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from groundup.runtime.store import COMMITTING, MANIFEST

# All that is promised to be the same: documents, verdicts, tokens and weights.
PROMISED = (
    "collect/**/*.parquet",
    "refine/**/*.parquet",
    "refine/**/*.npy",
    "tokenize/**/*.npy",
    "tokenize/*.json",
    "tokenize/*.parquet",
)
WEIGHTS = (
    "train/checkpoints/*/*.safetensors",
    "tune/*.json*",
    "tune/**/*.safetensors",
    "export/**/*.safetensors",
)


def digests(out: Path) -> dict[str, str]:
    """Return the SHA-256 of every file whose bytes are promised; manifests tell seconds too."""
    files = {
        path
        for pattern in PROMISED + WEIGHTS
        for path in out.glob(pattern)
        if path.is_file() and path.name != MANIFEST
    }
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


# Runs the command line with pieces of as many bytes as its first argument says.
IN_PIECES = """
import runpy, sys
from groundup.collect import pieces
pieces.PIECE_BYTES = int(sys.argv.pop(1))
runpy.run_module("groundup", run_name="__main__")
"""


def start(
    recipe: Path, out: Path, *extra: str, piece_bytes: int = 0, workers: int = 2
) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        *(("-c", IN_PIECES, str(piece_bytes)) if piece_bytes else ("-m", "groundup")),
        "run",
        str(recipe),
        "--out",
        str(out),
        "--workers",
        str(workers),
        *extra,
    ]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(
    recipe: Path, out: Path, *extra: str, piece_bytes: int = 0, workers: int = 2
) -> dict[str, str]:
    process = start(recipe, out, *extra, piece_bytes=piece_bytes, workers=workers)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return digests(out)


def committing(out: Path) -> bool:
    """Whether a folder stands between its first flush and its rename."""
    try:
        return any(path.name.endswith(COMMITTING) for path in (out / ".staging").iterdir())
    except FileNotFoundError:
        return False


@dataclass
class Killer:
    """Kills runs of one recipe in one directory and keeps count."""

    recipe: Path
    out: Path
    expected: dict[str, str]
    # Seconds after which a run is killed at the latest.
    longest: float
    # More of the command line, such as where to stop.
    extra: tuple[str, ...] = ()
    piece_bytes: int = 0
    kills: int = 0
    in_commit: int = 0
    finished: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def kill_once(self, hunt: bool) -> None:
        """Start the run and kill it at a random moment, or, hunting, at the first commit after that
        moment.
        """
        process = start(self.recipe, self.out, *self.extra, piece_bytes=self.piece_bytes)
        moment = time.monotonic() + self.rng.uniform(0.3, self.longest)
        while process.poll() is None and (
            time.monotonic() < moment or (hunt and not committing(self.out))
        ):
            time.sleep(0.0005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self.kills += 1
            self.in_commit += committing(self.out)
        else:
            self.check_finished(process)

    def check_finished(self, process: subprocess.Popen[bytes]) -> None:
        """A run that was quicker than its killer must be right; the next one begins from the raw
        files.
        """
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        assert digests(self.out) == self.expected
        self.finished += 1
        shutil.rmtree(self.out)

    def rampage(self, kills: int, in_commit: int) -> None:
        """Kill until both numbers are reached, then let the run finish and compare."""
        while self.kills < kills or self.in_commit < in_commit:
            assert self.kills + self.finished < 5 * kills, "commits are not being hit"
            self.kill_once(hunt=self.in_commit < in_commit and self.kills % 2 == 0)
        end = finish(self.recipe, self.out, *self.extra, piece_bytes=self.piece_bytes)
        assert end == self.expected
