"""Keep the page of a run up to date while it runs, in a process with the lowest priority.

A live report is a whole view with all four files, but it lists no artifact: so the stage `report`
replaces it, and `verify` does not take it for finished. The process learns through a pipe that its
parent ended a stage, ended, or was killed. An error in it costs a page, never the run.

A page cannot say "Running" for longer than the run does. The process writes a last page, and
outlives a kill of the run's process group to do so. Where it was killed too, `close_page` does it:
at the end of the run, and whenever somebody asks for the status of the run.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.runtime.lock import is_locked
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store, commit
from groundup.runtime.work import unfinished

if TYPE_CHECKING:
    from groundup.report.figures import Row
    from groundup.report.gather import Report
    from groundup.report.page import LiveStatus

# A shorter run gets its finished page only.
FIRST_SECONDS = 5.0
EVERY_SECONDS = 30
# Of one core; pages of a large run are further apart.
MAX_CPU_SHARE = 1 / 60
# After it, a process that hangs is killed.
LAST_PAGE_SECONDS = 20.0
# Of 0.1 s, after the death of the parent.
LOCK_TRIES = 30
# The message of our own errors says it all; of other errors the class is shown, too.
OWN_ERRORS = r"^(Groundup|Recipe|Source|Store|Expensive)Error: "
# What the parent writes into the pipe: a stage ended; the run ended; the finished page follows.
STAGE, END, QUIT = b"s", b"e", b"q"


@dataclass
class Live:
    """The parent's end of the pipe: starts the process, tells it what happens, and ends it."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Start the process, unless the run has ended."""
        command = [sys.executable, "-m", "groundup.report.live", str(self.root.resolve())]
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.DEVNULL,
            "bufsize": 0,
        }
        if not os.environ.get("GROUNDUP_TRACEBACK"):
            pipes["stderr"] = subprocess.DEVNULL
        with self._lock, contextlib.suppress(OSError):
            if not self._ended:
                # In its own session: a kill of the run's process group leaves somebody to say so.
                self.process = subprocess.Popen(command, start_new_session=True, **pipes)

    def tell(self, word: bytes = STAGE) -> None:
        """Write to the process; it does not matter if the process is gone."""
        if self.process is not None and self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(word)

    def begin(self, stage: str) -> None:
        """Make way for the finished page if it is written next."""
        if stage == "report":
            self.end(QUIT)

    def end(self, word: bytes = END) -> None:
        """Have the process write its last page (none with QUIT), and wait for it."""
        with self._lock:
            self._ended = True
        if self.process is None:
            return
        self.tell(word)
        process, self.process = self.process, None
        try:
            # It closes the pipe, too.
            process.communicate(timeout=LAST_PAGE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def live_page(root: Path) -> Iterator[Live]:
    """Keep the page of a run up to date inside a with block."""
    live = Live(root)
    timer = threading.Timer(FIRST_SECONDS, live.start)
    timer.daemon = True
    timer.start()
    try:
        yield live
    finally:
        timer.cancel()
        live.end()
        close_page(root)


def main() -> None:
    """Render pages until the parent says that the run has ended, or is gone."""
    # Signals for the run are none of its page's; the parent decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(19)
    renderer, wait = Renderer(Path(sys.argv[1])), 0.0
    while True:
        ready, _, _ = select.select([0], [], [], wait)
        # None if the parent wrote nothing; empty if it is gone.
        word = os.read(0, 1000) if ready else None
        if QUIT in (word or b""):
            return
        start = time.process_time()
        if word is not None and (END in word or not word):
            renderer.render(refresh=False, orphan=not word)
            return
        renderer.render(refresh=True)
        wait = max(float(EVERY_SECONDS), (time.process_time() - start) / MAX_CPU_SHARE)


@dataclass
class Renderer:
    """Renders live pages of a run; texts are scanned again only after a data stage changed them."""

    root: Path
    _content: Report = field(default_factory=dict)
    _scanned: list[Row] | None = None

    def render(self, refresh: bool, orphan: bool = False) -> None:
        """Publish a live report; an error costs this page only.

        The parent of an orphan no longer holds the run's lock. If another process has it by now,
        the page belongs to that process.
        """
        with page_errors():
            from groundup.artifacts.forgotten import DATA_STAGES
            from groundup.report.figures import lock_table
            from groundup.report.gather import gather_content, gather_facts, merge

            events = Ledger(self.root / "ledger.jsonl").events()
            # A killed process can lose its lock a moment later than its end of the pipe.
            for _ in range(LOCK_TRIES):
                if not (orphan and is_locked(self.root)):
                    break
                time.sleep(0.1)
            else:
                return
            recipe = lock_table(self.root)
            facts = gather_facts(self.root, str(recipe["name"]))
            hashes = [row for row in facts["artefacts"] if row["name"] in DATA_STAGES]
            if hashes != self._scanned:
                self._content = gather_content(self.root, int(recipe["seed"]))
                self._scanned = hashes
            # Nor may the page of a killed run replace that of a run that began meanwhile.
            if not orphan or events == Ledger(self.root / "ledger.jsonl").events():
                publish_page(self.root, merge(facts, self._content), refresh, time.time())


@contextmanager
def page_errors() -> Iterator[None]:
    """Let no error of a page reach the run."""
    try:
        yield
    except Exception:
        if os.environ.get("GROUNDUP_TRACEBACK"):
            raise


def close_page(root: Path) -> None:
    """Have a page that says "Running" say how the run ended; call it when no process runs it.

    The figures stay those of the page, which may be older than the end of the run.
    """
    from groundup.report.figures import json_file

    with page_errors():
        view = Store(root).view("report")
        if view is not None and view.facts.get("live"):
            report = json_file(root, "report/report.json")
            publish_page(root, report, refresh=False, heartbeat=view.facts.get("heartbeat"))


def publish_page(root: Path, report: Report, refresh: bool, heartbeat: float | None) -> None:
    """Write the four files of a live report and replace the one before."""
    from groundup.report.figures import metric_lines
    from groundup.report.stage import write_files

    lines = metric_lines(root)
    with Store(root).stage() as folder:
        write_files(folder, report, lines, status(root, report, lines, refresh, heartbeat))
        facts = {"live": refresh, "heartbeat": heartbeat}
        commit(folder, root / "report", {"view": "report", "artefacts": [], "facts": facts})


def status(
    root: Path, report: Report, lines: Sequence[Row], refresh: bool, heartbeat: float | None
) -> LiveStatus:
    """Return the stage, how far it is and how long it will take; or why the run stopped.

    A run that was killed leaves no event: its last stage began and never ended.
    """
    from groundup.report.page import LiveStatus

    events = Ledger(root / "ledger.jsonl").events()
    started = max((n for n, event in enumerate(events) if event.get("event") == "run"), default=0)
    events = [event for event in events[started:] if "stage" in event]
    last: Row = events[-1] if events else {"stage": "collect", "event": "began"}
    stage, event = last["stage"], last["event"]
    title, words = f"Stopped in {stage}.", ""
    step = of = 0
    if refresh and event == "began":
        title = f"Running: {stage}."
        if stage == "train":
            words, step, of = training_progress(report, lines)
        else:
            words = data_progress(Store(root), stage, float(last["time"]))
    elif refresh:
        title, words = f"Running: {stage} is done.", "The next stage begins."
    elif event == "failed":
        words = re.sub(OWN_ERRORS, "", str(last.get("error", "")))
    elif event in ("interrupted", "began"):
        how = "killed" if event == "began" else event
        words = f"The run was {how}; run the same command to resume."
    else:
        title, words = f"Stopped after {stage}.", "No later stage began."
    ended = "" if refresh or event == "began" else f"{event.capitalize()} {moment(last['time'])}."
    alive = moment(heartbeat) if heartbeat else "unknown"
    return LiveStatus(title, words, alive, ended, EVERY_SECONDS if refresh else 0, step, of)


def moment(seconds: float) -> str:
    """Return a time since the epoch as a date and time of day."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y, %H:%M:%S UTC")


def data_progress(store: Store, stage: str, began: float) -> str:
    """Return how many of the artifacts of a stage are there, and how fast it reads."""
    from groundup.report.formatting import size

    work = unfinished(store, stage, began)
    if not work.planned:
        return ""
    speed = f", {size(work.bytes_in / work.seconds)}/s" if work.bytes_in else ""
    return f"{work.there:,} of {work.planned:,} parts are there{speed}."


def training_progress(report: Report, lines: Sequence[Row]) -> tuple[str, int, int]:
    """Return words, step and last step, with the time left at the pace of the last ten steps."""
    from groundup.report.formatting import seconds

    steps = [line for line in lines if "seconds" in line]
    last = int(report["figures"].get("train.steps_planned", {}).get("value") or 0)
    if not steps or not last:
        return "The first steps are running.", 0, 0
    step, now = int(steps[-1]["step"]), steps[-1]["seconds"]
    earlier = steps[-11:][0] if len(steps) > 1 else {"step": 0, "seconds": 0.0}
    pace = (now - earlier["seconds"]) / max(1, step - earlier["step"])
    left = f", about {seconds(pace * (last - step))} left" if step < last else ""
    return f"Step {step:,} of {last:,}{left}.", min(step, last), last


if __name__ == "__main__":
    main()
