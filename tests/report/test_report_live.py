"""The page beside a run that is on: whole at every moment, true about how far the run is, and never
in the run's way.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lxml import html

from groundup.commands.verify import check_stages
from groundup.flow import run_one, run_stages
from groundup.recipe import load_recipe
from groundup.report import live
from groundup.runtime.ledger import Ledger
from groundup.runtime.run import Run, locked
from groundup.runtime.store import Store


@pytest.fixture
def run(run_copy: Path) -> Path:
    return run_copy.parent / "runs" / "tiny"


def refresh(root: Path) -> list[str]:
    return html.parse(str(root / "report" / "index.html")).xpath(
        '//meta[@http-equiv="refresh"]/@content'
    )


def banner(root: Path) -> str:
    return " ".join(
        html.parse(str(root / "report" / "index.html"))
        .xpath('string(//div[@class="live"])')
        .split()
    )


def began(root: Path, stage: str) -> None:
    ledger = Ledger(root / "ledger.jsonl")
    ledger.write("run", command=[], versions={})
    ledger.write("began", stage=stage)


def page_process(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "groundup.report.live", str(root)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_live_report_is_a_whole_view_that_the_finished_one_replaces(run: Path) -> None:
    finished = {
        path.name: path.read_bytes()
        for path in (run / "report").iterdir()
        if path.name != "manifest.json"
    }
    began(run, "evaluate")
    live.Renderer(run).render(refresh=True)
    view = Store(run).view("report")
    assert view is not None
    assert set(view.manifest["files"]) == set(finished)
    assert refresh(run) == ["30"]
    assert "Running: evaluate." in banner(run)
    assert any("did not end" in line for line in check_stages(run))
    run_one(run, "report")
    assert {name: (run / "report" / name).read_bytes() for name in finished} == finished
    assert not list(check_stages(run))


def test_training_says_its_step_and_the_time_that_is_left(run: Path) -> None:
    plan = json.loads((run / "train" / "train.json").read_text())
    (run / "train" / "train.json").write_text(json.dumps(plan | {"steps": 12}))
    metrics = run / "train" / "metrics.jsonl"
    metrics.write_text(
        "".join(
            json.dumps({"step": n, "loss": 3.0, "tokens": n, "seconds": 20.0 * n}) + "\n"
            for n in range(1, 7)
        )
    )
    began(run, "train")
    live.Renderer(run).render(refresh=True)
    assert "Running: train. Step 6 of 12, about 2 min 00 s left." in banner(run)


@pytest.mark.parametrize(
    ("event", "killed", "words"),
    [
        (
            {"event": "failed", "error": "GroundupError: no room \x1b[2J"},
            False,
            "Stopped in train. no room ␛[2J",
        ),
        ({"event": "began"}, True, "Stopped in train. The run was killed"),
        ({"event": "finished", "seconds": 1.0, "peak_bytes": 1}, False, "Stopped after train."),
    ],
)
def test_a_run_that_stopped_says_so_and_refreshes_no_more(
    run: Path, event: dict[str, Any], killed: bool, words: str
) -> None:
    began(run, "train")
    fields = {key: value for key, value in event.items() if key != "event"}
    Ledger(run / "ledger.jsonl").write(event["event"], stage="train", **fields)
    live.Renderer(run).render(refresh=False, killed=killed)
    assert words in banner(run)
    assert refresh(run) == []


def test_the_process_ends_when_it_is_told(run: Path) -> None:
    Ledger(run / "ledger.jsonl").write("run", command=[], versions={})
    Ledger(run / "ledger.jsonl").write("finished", stage="tokenize", seconds=1.0, peak_bytes=1)
    process = page_process(run)
    _, errors = process.communicate(live.END, timeout=300)
    assert (process.returncode, errors) == (0, b"")
    assert banner(run).startswith("Stopped after tokenize.")
    assert refresh(run) == []


def test_the_process_leaves_the_page_alone_when_the_finished_one_follows(run: Path) -> None:
    before = (run / "report" / "index.html").read_bytes()
    process = page_process(run)
    process.communicate(live.QUIT, timeout=300)
    assert process.returncode == 0
    assert (run / "report" / "index.html").read_bytes() == before


def test_the_process_ends_with_its_parent_and_says_that_the_run_was_killed(run: Path) -> None:
    began(run, "train")
    process = page_process(run)
    process.communicate(timeout=300)
    assert "The run was killed" in banner(run)
    assert refresh(run) == []


def test_an_orphan_does_not_write_where_another_run_works(run: Path) -> None:
    began(run, "train")
    with locked(run):
        process = page_process(run)
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert banner(run) == ""


def test_what_goes_wrong_on_the_page_never_reaches_the_run(tmp_path: Path) -> None:
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
    assert page.process is None, "a run that has ended starts no page"


def test_the_page_is_told_of_stages_and_is_gone_before_the_report_is_written(
    run: Path, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes | str] = []
    monkeypatch.setattr(live.Live, "tell", lambda self, word=live.STAGE: told.append(word))
    monkeypatch.setattr(live.Live, "end", lambda self, word=live.END: told.append(word))
    monkeypatch.setattr("groundup.flow.run_stage", lambda of, stage: told.append(stage))
    run_stages(Run(run, load_recipe(run_copy)), ("tokenize", "report"))
    assert told == ["tokenize", live.STAGE, live.QUIT, "report", live.STAGE, live.END]
