"""Ctrl-C, a full disk, a second run: one line, and whatever was finished is kept."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.killing import digests, finish, start

from groundup.commands.status import run_status
from groundup.plan import check_plan
from groundup.recipe import load_recipe
from groundup.runtime.run import Run


@pytest.mark.parametrize(
    ("stage", "number"),
    [("collect", signal.SIGINT), ("refine", signal.SIGINT), ("train", signal.SIGTERM)],
)
def test_a_stopped_run_says_so_in_one_line_and_goes_on(
    tiny_project: Path, tiny_run: Path, tmp_path: Path, stage: str, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(
        tiny_project, out, "--set", "train.steps=100000" if stage == "train" else "train.steps=6"
    )
    ledger = out / "ledger.jsonl"
    while process.poll() is None and not (
        ledger.exists() and '"began"' in (text := ledger.read_text()) and f'"{stage}"' in text
    ):
        time.sleep(0.01)
    if stage == "train":
        while not (out / "train" / "metrics.jsonl").exists():
            time.sleep(0.01)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    lines = errors.decode().splitlines()
    assert process.returncode == 130, errors.decode()
    assert run_status(out)["stages"][stage]["state"] == "interrupted"
    # Training names the step at which it stopped, unless the signal comes after its last step.
    stopped = r"(interrupted|stopped at step \d+);" if stage == "train" else "interrupted;"
    assert re.match(f"groundup: {stopped}", lines[-1]), lines[-1]
    assert "Traceback" not in errors.decode()
    if stage != "train":
        # What follows from the tokens is the same then, as the other tests show.
        expected = {
            name: digest
            for name, digest in digests(tiny_run).items()
            if name.startswith(("collect/", "refine/", "tokenize/"))
        }
        assert finish(tiny_project, out, "--until", "tokenize") == expected


def test_a_second_run_in_the_directory_is_told(tiny_project: Path, tmp_path: Path) -> None:
    first = start(tiny_project, tmp_path / "run", "--set", "train.steps=100000")
    try:
        while not (tmp_path / "run" / "ledger.jsonl").exists():
            time.sleep(0.01)
        second = start(tiny_project, tmp_path / "run")
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"process {first.pid} on" in errors.decode()
        assert errors.decode().count("\n") == 1
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)]
    if (
        os.geteuid() != 0
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("a small disk needs the right to mount one (root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    tiny_project: Path, tiny_run: Path, small_disk: Path
) -> None:
    # Planned with room; then somebody else fills the disk.
    with Run.open(load_recipe(tiny_project), small_disk / "run") as run:
        check_plan(run, trains=True)
    for size in ("2m", "3m", "4m", "5m"):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        process = start(tiny_project, small_disk / "run")
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        last = errors.decode().splitlines()[-1]
        assert last.startswith("groundup: ") and "the disk is full" in last, errors.decode()
    assert size != "2m"
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert finish(tiny_project, small_disk / "run") == digests(tiny_run)
