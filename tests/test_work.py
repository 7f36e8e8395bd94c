"""What a stage says of its speed: how much it read, and what kept it from being faster."""

import time
from pathlib import Path

import pytest

from groundup.commands.status import run_status, status_text
from groundup.recipe import recipe_from
from groundup.runtime.lock import write_lock
from groundup.runtime.run import Job, Run
from groundup.runtime.store import Artifact, Step
from groundup.runtime.work import Work, unfinished


def built(name: str, seconds: float, processor: float, size: int = 0) -> Artifact:
    facts = {"bytes_in": size} if size else {}
    table = {"step": "collect/shard", "name": name, "facts": facts, "seconds": seconds}
    return Artifact(Path(name), table | {"processor_seconds": processor})


@pytest.mark.parametrize(
    ("artifacts", "seconds", "limit"),
    [
        ([built("a", 10, 9.5), built("b", 10, 9)], 10, "processors"),
        ([built("a", 10, 2), built("b", 10, 3)], 10, "disk or network"),
        ([built("a", 10, 9.5), built("b", 1, 1)], 10, "one long job"),
        # Ten short ones, half of the time between them.
        ([built(str(n), 1, 1) for n in range(10)], 10, "one process"),
        ([], 10, ""),
    ],
)
def test_what_limits_two_workers(artifacts: list[Artifact], seconds: float, limit: str) -> None:
    work = Work()
    work.add(artifacts, seconds)
    assert work.limit(2) == limit


def test_cores_that_others_use_are_not_a_slow_disk() -> None:
    work = Work()
    work.add([built("a", 10, 4), built("b", 10, 5)], 10)
    work.idle_seconds = 1.0
    assert work.limit(2) == "other processes on this machine"
    work.idle_seconds = 11.0
    assert work.limit(2) == "disk or network"


def test_nobody_knows_what_limits_workers_that_nobody_counted() -> None:
    work = Work()
    work.add([built("a", 10, 9.5)], 10)
    assert work.limit(0) == ""


def read(folder: Path, size: int) -> dict[str, int]:
    (folder / "x").write_text("x")
    return {"bytes_in": size}


def job(name: str, size: int) -> Job:
    return Job(Step("collect/shard", name, 1), read, {"size": size})


def test_the_status_shows_the_bytes_that_a_stage_read_a_second(tmp_path: Path) -> None:
    root = tmp_path / "run"
    recipe = recipe_from({"source": [{"path": "x"}]}, "test", tmp_path)
    with Run.open(recipe, root, workers=1) as run:
        write_lock(root, recipe)
        with run.stage("collect"):
            run.build("collect", [job("a", 10_000_000), job("b", 20_000_000)], "reading")
            time.sleep(0.01)
        status = run_status(root)
    collect = status["stages"]["collect"]
    assert collect["bytes_in"] == 30_000_000
    assert f" {30 / collect['seconds']:,.1f} " in status_text(status)


def test_a_stage_that_runs_says_how_much_of_it_is_there(tmp_path: Path) -> None:
    recipe = recipe_from({"source": [{"path": "x"}]}, "test", tmp_path)
    run = Run(tmp_path / "run", recipe)
    run.build("collect", [job("a", 500)], "reading")
    began = time.time() - 10
    plan = run.store.plan("collect")
    plan["collect/shard"]["b"] = "0" * 64
    run.store.write_plan("collect", plan)
    work = unfinished(run.store, "collect", began)
    assert (work.there, work.planned, work.bytes_in) == (1, 2, 500)
    # What an earlier run built says nothing about the speed of this one.
    assert unfinished(run.store, "collect", time.time() + 10).bytes_in == 0


def test_the_status_names_the_job_that_the_others_waited_for() -> None:
    work = Work()
    work.add([built("a", 10, 9.5), built("b", 1, 1)], 10)
    stage = {"state": "done", "seconds": 10.0, "peak_bytes": None, "built": 2, "reused": 0}
    stages = {"collect": stage | work.counts(2)}
    text = status_text({"run": "x", "stages": stages, "training": {}})
    assert "limited by one long job (collect/shard a)" in text
