"""Test the live page: it is always whole, tells how far the run is, and never disturbs the run."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lxml import html

from groundup.commands.status import run_status
from groundup.commands.verify import check_stages
from groundup.flow import STAGES, run_flow, run_one
from groundup.recipe import load_recipe
from groundup.report import live
from groundup.runtime.lock import locked
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store


@pytest.fixture
def run(run_copy: Path) -> Path:
    return run_copy.parent / "runs" / "tiny"


def refresh_seconds(root: Path) -> list[str]:
    return html.parse(str(root / "report" / "index.html")).xpath(
        '//meta[@http-equiv="refresh"]/@content'
    )


def banner(root: Path) -> str:
    return " ".join(
        html.parse(str(root / "report" / "index.html"))
        .xpath('string(//div[@class="live"])')
        .split()
    )


def begin_stage(root: Path, stage: str) -> None:
    ledger = Ledger(root / "ledger.jsonl")
    ledger.write("run", command=[], versions={})
    ledger.write("began", stage=stage)


def page_process(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "groundup.report.live", str(root)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_the_finished_report_replaces_a_live_one(run: Path) -> None:
    finished = {
        path.name: path.read_bytes()
        for path in (run / "report").iterdir()
        if path.name != "manifest.json"
    }
    begin_stage(run, "evaluate")
    live.Renderer(run).render(refresh=True)
    view = Store(run).view("report")
    assert view is not None
    assert set(view.manifest["files"]) == set(finished)
    assert refresh_seconds(run) == ["30"]
    assert "Running: evaluate." in banner(run)
    assert any("did not end" in line for line in check_stages(run))
    run_one(run, "report")
    assert {name: (run / "report" / name).read_bytes() for name in finished} == finished
    assert not list(check_stages(run))


def test_training_shows_its_step_and_the_time_left(run: Path) -> None:
    plan = json.loads((run / "train" / "train.json").read_text())
    (run / "train" / "train.json").write_text(json.dumps(plan | {"steps": 12}))
    metrics = run / "train" / "metrics.jsonl"
    metrics.write_text(
        "".join(
            json.dumps({"step": n, "loss": 3.0, "tokens": n, "seconds": 20.0 * n}) + "\n"
            for n in range(1, 7)
        )
    )
    begin_stage(run, "train")
    live.Renderer(run).render(refresh=True)
    assert "Running: train. Step 6 of 12, about 2 min 00 s left." in banner(run)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            {"event": "failed", "error": "GroundupError: no room \x1b[2J"},
            "Stopped in train. no room ␛[2J",
        ),
        ({"event": "interrupted"}, "Stopped in train. The run was interrupted"),
        ({"event": "began"}, "Stopped in train. The run was killed"),
        ({"event": "finished", "seconds": 1.0, "peak_bytes": 1}, "Stopped after train."),
    ],
)
def test_a_stopped_run_says_why_and_does_not_refresh(
    run: Path, event: dict[str, Any], words: str
) -> None:
    begin_stage(run, "train")
    fields = {key: value for key, value in event.items() if key != "event"}
    Ledger(run / "ledger.jsonl").write(event["event"], stage="train", **fields)
    live.Renderer(run).render(refresh=False)
    assert words in banner(run)
    assert "Last heartbeat" in banner(run)
    assert refresh_seconds(run) == []


def test_the_process_ends_with_the_run(run: Path) -> None:
    Ledger(run / "ledger.jsonl").write("run", command=[], versions={})
    Ledger(run / "ledger.jsonl").write("finished", stage="tokenize", seconds=1.0, peak_bytes=1)
    process = page_process(run)
    _, errors = process.communicate(live.END, timeout=300)
    assert (process.returncode, errors) == (0, b"")
    assert banner(run).startswith("Stopped after tokenize.")
    assert refresh_seconds(run) == []


def test_quit_writes_no_page(run: Path) -> None:
    before = (run / "report" / "index.html").read_bytes()
    process = page_process(run)
    process.communicate(live.QUIT, timeout=300)
    assert process.returncode == 0
    assert (run / "report" / "index.html").read_bytes() == before


def test_an_orphan_says_that_the_run_was_killed(run: Path) -> None:
    begin_stage(run, "train")
    process = page_process(run)
    process.communicate(timeout=300)
    assert "The run was killed" in banner(run)
    assert refresh_seconds(run) == []


def test_an_orphan_writes_nothing_while_another_process_has_the_lock(run: Path) -> None:
    begin_stage(run, "train")
    with locked(run):
        process = page_process(run)
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert banner(run) == ""


def test_errors_of_the_page_never_reach_the_run(tmp_path: Path) -> None:
    live.Renderer(tmp_path).render(refresh=True)
    page = live.Live(tmp_path)
    page.tell()
    page.start()
    assert page.process is not None
    page.process.kill()
    page.process.wait()
    page.tell()
    page.end()
    page.start()
    assert page.process is None, "started a page after the run had ended"


def test_the_process_hears_of_stages_and_ends_before_the_report(
    run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes | str] = []
    monkeypatch.setattr(live.Live, "tell", lambda self, word=live.STAGE: heard.append(word))
    monkeypatch.setattr(live.Live, "end", lambda self, word=live.END: heard.append(word))
    for name in STAGES:
        monkeypatch.setitem(STAGES, name, partial(lambda name, run: heard.append(name), name))
    run_flow(load_recipe(run_copy), run, workers=1)
    assert heard[:2] == ["collect", live.STAGE]
    assert heard[-6:] == ["export", live.STAGE, live.QUIT, "report", live.STAGE, live.END]


def test_a_page_that_says_running_is_closed_by_the_status_of_a_killed_run(run: Path) -> None:
    """Where a machine went down, nobody was left to write a last page."""
    begin_stage(run, "train")
    live.Renderer(run).render(refresh=True)
    with locked(run):
        assert run_status(run)["stages"]["train"]["state"] == "running"
        assert "Running: train." in banner(run)
    running = json.loads((run / "report" / "report.json").read_text())
    assert run_status(run)["stages"]["train"]["state"] == "killed"
    assert "Stopped in train. The run was killed" in banner(run)
    assert refresh_seconds(run) == []
    assert json.loads((run / "report" / "report.json").read_text()) == running


def test_status_leaves_a_finished_page_alone(run: Path) -> None:
    before = (run / "report" / "index.html").stat()
    begin_stage(run, "train")
    assert run_status(run)["stages"]["train"]["state"] == "killed"
    assert (run / "report" / "index.html").stat() == before


def test_a_page_process_that_was_killed_leaves_no_running_page(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report fails after the page process has ended, or that process hangs and is killed."""
    monkeypatch.setattr(live, "FIRST_SECONDS", 1e6)
    with pytest.raises(ZeroDivisionError), live.live_page(run):
        begin_stage(run, "report")
        live.Renderer(run).render(refresh=True)
        assert "Running: report." in banner(run)
        Ledger(run / "ledger.jsonl").write("failed", stage="report", error="OSError: no space")
        raise ZeroDivisionError
    assert banner(run).startswith("Stopped in report. OSError: no space Failed ")
    assert refresh_seconds(run) == []


def test_the_page_process_outlives_a_kill_of_the_process_group(run: Path) -> None:
    page = live.Live(run)
    page.start()
    assert page.process is not None
    assert os.getpgid(page.process.pid) != os.getpgid(0)
    page.end(live.QUIT)
