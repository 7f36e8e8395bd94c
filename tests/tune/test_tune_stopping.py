"""Killed while it tunes: nothing half-made is found, and the next call resumes and ends with the
bytes of an undisturbed one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.helpers.killing import digests
from tests.helpers.talking import TUNE, talking_run

STEPS = [f"{name}={value}" for name, value in (TUNE | {"epochs": 40}).items() if name != "method"]


def start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, str(root), *STEPS]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


# `groundup tune` without the report, for which this run lacks most of a run.
CODE = """
import sys
from pathlib import Path
import groundup.cli, groundup.flow
from groundup.commands.tune import tuning_recipe

def tune(directory, overrides, **_):
    groundup.flow.run_one(directory, "tune", tuning_recipe(directory, None, "sft", overrides))

groundup.cli.cli.commands["tune"].callback = tune
options = [part for setting in sys.argv[2:] for part in ("--set", setting)]
sys.argv = ["groundup", "tune", sys.argv[1], *options]
groundup.cli.main()
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An untuned run, and what tuning it without a disturbance gives."""
    fresh, done = (tmp_path_factory.mktemp("stopping") / name for name in ("fresh", "done"))
    talking_run(fresh)
    shutil.copytree(fresh, done)
    process = start(done)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    found = digests(done)
    assert any(name.startswith("tune/model/") for name in found)
    return fresh, found


def saved(root: Path) -> list[Path]:
    return list(root.glob(".store/tune/checkpoint/step-*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_tuning_leaves_nothing_half_and_resumes(
    expected: tuple[Path, dict[str, str]], tmp_path: Path, number: signal.Signals
) -> None:
    fresh, whole = expected
    root = tmp_path / "run"
    shutil.copytree(fresh, root)
    process = start(root)
    while process.poll() is None and not saved(root):
        time.sleep(0.002)
    time.sleep(0.2)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0, "it was through before it was killed"
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert errors.splitlines()[-1].startswith("groundup: tuning stopped at step "), errors
    assert not (root / "tune").exists()
    again = start(root)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "tune: resumes at step " in errors
    assert digests(root) == whole and not saved(root)


@pytest.mark.torture
def test_ten_kills_at_random_moments_end_in_the_same_bytes(
    expected: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    fresh, whole = expected
    root, moments = tmp_path / "run", random.Random(10)
    kills = 0
    while kills < 10:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(fresh, root)
        while not (root / "tune").exists():
            process = start(root)
            try:
                process.wait(timeout=moments.uniform(3, 12))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
        assert digests(root) == whole
