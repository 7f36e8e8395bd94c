"""Keeps the page of a run up to date while it is on, in a process of its own. Reads the run; writes
the view `report`.

A live report is a whole view like the finished one, with all four files, but it names no artifact:
so the stage `report` replaces it, and `verify` does not take it for finished. The process is the
nicest there is, knows by a pipe when its
parent ends a stage, ends, or is gone, and never fails the run: what goes wrong in it costs the
page.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup.errors import StoreError
from groundup.runtime.ledger import Ledger
from groundup.runtime.store import Store, commit

# A run that is over sooner gets its finished page and no live one.
FIRST_SECONDS = 5.0
EVERY_SECONDS = 30
# Nor more than a sixtieth of one core, however large the run.
MOST_SHARE = 1 / 60
# Enough for a last page; a process that hangs is killed then.
PATIENCE_SECONDS = 20.0
# Their messages say all; of any other error the kind says something too.
OWN_ERRORS = r"^(Groundup|Recipe|Source|Store|Expensive)Error: "
# What the parent says: a stage ended; the run ended; the finished page follows at once.
STAGE, END, QUIT = b"s", b"e", b"q"


@dataclass
class Live:
    """The parent's end: starts the process after a while, tells it what happens, and ends it."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Start the process, unless the run has ended meanwhile."""
        with self._lock, contextlib.suppress(OSError):
            if not self._ended:
                errors = None if os.environ.get("GROUNDUP_TRACEBACK") else subprocess.DEVNULL
                command = [sys.executable, "-m", "groundup.report.live", str(self.root.resolve())]
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    bufsize=0,
                )

    def tell(self, word: bytes = STAGE) -> None:
        """Say what happened; a process that is gone does not matter."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(word)

    def begin(self, stage: str) -> None:
        """Make way for the finished page if it is written next."""
        if stage == "report":
            self.end(QUIT)

    def end(self, word: bytes = END) -> None:
        """Have the process write its last page (or none, with QUIT), and wait for its end."""
        with self._lock:
            self._ended = True
        if self.process is None:
            return
        self.tell(word)
        process, self.process = self.process, None
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def live_page(root: Path) -> Iterator[Live]:
    """Keep the page of a run up to date for the length of a with block."""
    live = Live(root)
    timer = threading.Timer(FIRST_SECONDS, live.start)
    timer.daemon = True
    timer.start()
    try:
        yield live
    finally:
        timer.cancel()
        live.end()


def main() -> None:
    """Render until the pipe says that the run has ended, or is closed because the parent is gone."""
    # Ctrl-C reaches the whole group; the parent says what it means.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(19)
    renderer, wait = Renderer(Path(sys.argv[1])), 0.0
    while True:
        word = _word(wait)
        if QUIT in (word or b""):
            return
        start = time.process_time()
        if word is not None and (END in word or not word):
            renderer.last(orphan=END not in word)
            return
        renderer.render(refresh=True)
        wait = max(float(EVERY_SECONDS), (time.process_time() - start) / MOST_SHARE)


def _word(seconds: float) -> bytes | None:
    """Return what the parent said within so many seconds, None when it said nothing, empty bytes
    when it is gone.
    """
    ready, _, _ = select.select([0], [], [], seconds)
    return os.read(0, 1000) if ready else None


@dataclass
class Renderer:
    """Renders the run as it stands; what needs a scan of texts is kept until a stage changed them."""

    root: Path
    _deep: dict[str, Any] = field(default_factory=dict)
    _deep_of: list[Any] | None = None

    def last(self, orphan: bool) -> None:
        """Render once more, without refreshing; under the run's lock where the parent does not hold
        it any more.
        """
        from groundup.runtime.lock import locked

        if not orphan:
            self.render(refresh=False)
            return
        # Somebody else works there by now: their page it is.
        with contextlib.suppress(StoreError), locked(self.root):
            self.render(refresh=False, killed=True)

    def render(self, refresh: bool, killed: bool = False) -> None:
        """Publish a live report; what fails costs this page only."""
        try:
            self._render(refresh, killed)
        except Exception:
            if os.environ.get("GROUNDUP_TRACEBACK"):
                raise

    def _render(self, refresh: bool, killed: bool) -> None:
        from groundup.report.gather import deep, joined, shallow
        from groundup.report.measured import metric_lines
        from groundup.report.run_files import lock_table
        from groundup.report.stage import write_files

        recipe = lock_table(self.root)
        found = shallow(self.root, str(recipe["name"]))
        contents = [
            row for row in found["artefacts"] if row["name"] in ("collect", "refine", "tokenize")
        ]
        if contents != self._deep_of:
            self._deep, self._deep_of = deep(self.root, int(recipe["seed"])), contents
        report, lines = joined(found, self._deep), metric_lines(self.root)
        with Store(self.root).stage() as folder:
            write_files(folder, report, lines, status(self.root, report, lines, refresh, killed))
            commit(
                folder,
                self.root / "report",
                {"view": "report", "artefacts": [], "facts": {"live": refresh}},
            )


def status(
    root: Path, report: dict[str, Any], lines: list[dict[str, Any]], refresh: bool, killed: bool
) -> dict[str, Any]:
    """Return what the top of a live page says: which stage, how far, how long it will take; or why
    it stopped.
    """
    events = Ledger(root / "ledger.jsonl").events()
    started = max((n for n, event in enumerate(events) if event.get("event") == "run"), default=0)
    events = [event for event in events[started:] if "stage" in event]
    now = {
        "moment": datetime.now(UTC).strftime("%-d %B %Y, %H:%M:%S UTC"),
        "refresh": EVERY_SECONDS if refresh else 0,
        "of": 0,
        "step": 0,
    }
    last = events[-1] if events else {"stage": "collect", "event": "began"}
    return now | (_going_on(last, report, lines) if refresh else _stopped(last, killed))


def _stopped(last: dict[str, Any], killed: bool) -> dict[str, Any]:
    if last["event"] == "failed":
        return {
            "title": f"Stopped in {last['stage']}.",
            "words": re.sub(OWN_ERRORS, "", str(last.get("error", ""))),
        }
    if killed:
        return {
            "title": f"Stopped in {last['stage']}.",
            "words": "The run was killed; run it again to go on.",
        }
    return {"title": f"Stopped after {last['stage']}.", "words": "That is as far as it was to go."}


def _going_on(
    last: dict[str, Any], report: dict[str, Any], lines: list[dict[str, Any]]
) -> dict[str, Any]:
    if last["event"] != "began":
        return {"title": f"Running: {last['stage']} is done.", "words": "The next stage begins."}
    title = {"title": f"Running: {last['stage']}."}
    return title | (_training(report, lines) if last["stage"] == "train" else {"words": ""})


def _training(report: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return step, end step and the time that is left at the pace of the last steps."""
    from groundup.report.formatting import seconds

    steps = [line for line in lines if "seconds" in line]
    of = int(report["figures"].get("train.steps_planned", {}).get("value") or 0)
    if not steps or not of:
        return {"words": "The first steps are on their way."}
    step, earlier = int(steps[-1]["step"]), steps[max(0, len(steps) - 11)]
    since = (earlier["step"], earlier["seconds"]) if earlier is not steps[-1] else (0, 0.0)
    pace = (steps[-1]["seconds"] - since[1]) / max(1, step - since[0])
    left = f", about {seconds(pace * (of - step))} left" if step < of else ""
    return {"step": min(step, of), "of": of, "words": f"Step {step:,} of {of:,}{left}."}


if __name__ == "__main__":
    main()
