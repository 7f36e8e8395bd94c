"""How long a user waits before anything is done: the help, ten small files from raw text to tokens
with the kernels compiled and on a machine that has none yet, and workers until their first answer.

By the clock, the best of five turns (of two on a fresh machine), so on a quiet machine only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.machine import machine
from groundup.flow import WORKER_MODULES
from groundup.runtime.workers.map import Workers
from groundup.runtime.workers.processes import ProcessPool

TURNS, FRESH_TURNS = 5, 2
TEXTS = sorted(topics.items())


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "raw")
        groundup(folder, "init", "raw")
        # Compiles what this machine has not compiled yet.
        to_tokens(folder)
        figures = {
            "s, groundup --help": best(TURNS, lambda: groundup(folder, "--help")),
            "s, ten files to tokens": best(TURNS, lambda: to_tokens(folder)),
            "s, ten files to tokens, one worker": best(TURNS, lambda: to_tokens(folder, 1)),
            "s, ten files to tokens, fresh machine": best(FRESH_TURNS, lambda: fresh(folder)),
        }
    # Their own clocks: the first worker waits for the imports, the later ones do not.
    first, later = zip(*(readiness() for _ in range(TURNS)), strict=True)
    figures |= {"s, first worker": min(first), "s, each later worker": min(later)}
    what = " ".join((__doc__ or "").split())
    return {"what": what, "figures": figures, "machine": machine()}


def write_files(folder: Path) -> None:
    """Write ten files of four kinds, 180 kB together."""
    folder.mkdir()
    for n, (title, text) in enumerate(TEXTS[:4]):
        (folder / f"{n}.txt").write_text(f"{title}\n\n{text}", encoding="utf-8")
    for n, (title, text) in enumerate(TEXTS[4:8]):
        body = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
        page = f"<!doctype html><title>{title}</title><article><h1>{title}</h1>{body}</article>"
        (folder / f"{n}.html").write_text(page, encoding="utf-8")
    (folder / "notes.md").write_text("\n\n".join(f"# {t}\n\n{x}" for t, x in TEXTS[8:13]))
    rows = [json.dumps({"text": text}) + "\n" for _, text in TEXTS[13:33]]
    (folder / "rows.jsonl").write_text("".join(rows))


def groundup(folder: Path, *arguments: str, **environment: str) -> None:
    """Run a command in a folder."""
    command = [sys.executable, "-m", "groundup", *arguments]
    subprocess.run(
        command, cwd=folder, env=os.environ | environment, check=True, capture_output=True
    )


def to_tokens(folder: Path, workers: int = 0, **environment: str) -> None:
    """Make tokens of the raw files, in a new run."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    options = ["--workers", str(workers)] if workers else []
    arguments = ["run", "recipe.toml", "--until", "tokenize", "--out", "run", *options]
    groundup(folder, *arguments, **environment)


def fresh(folder: Path) -> None:
    """Make tokens with an empty cache of kernels."""
    with tempfile.TemporaryDirectory() as cache:
        to_tokens(folder, NUMBA_CACHE_DIR=cache)


def readiness() -> tuple[float, float]:
    """Return the seconds until the first worker of a new pool answers, and of a later one."""
    workers = Workers(2, modules=list(WORKER_MODULES.values()))
    seconds = []
    try:
        for _ in range(2):
            start = time.perf_counter()
            list(workers.map(abs, [(1,), (2,)]))
            seconds.append((time.perf_counter() - start) / (1 + len(seconds)))
            # The next map waits for what the server loads in idle time, and starts new workers.
            time.sleep(5)
            assert isinstance(workers.pool, ProcessPool)
            while workers.pool.workers:
                workers.pool.workers.pop().kill()
    finally:
        workers.close()
    return seconds[0], seconds[1]


def best(turns: int, action: Callable[[], object]) -> float:
    """Return the fewest seconds of several turns."""
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
