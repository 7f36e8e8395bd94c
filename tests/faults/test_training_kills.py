"""A training that is killed, as a whole or one rank of it, ends with the bytes of one that was left
alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.helpers.training import Killer, Training, ranks

from groundup.runtime.files import read_json
from groundup.runtime.sealed import Ledger
from groundup.train.hardware import compiler_works


def test_a_short_rampage(tmp_path: Path) -> None:
    # Protects: the torture below, in a form that every test run can afford: one process, two kills,
    # one in a commit.
    expected = Training(tmp_path / "whole").prepare().finish()
    killer = Killer(Training(tmp_path / "killed").prepare(), expected, longest=6)
    killer.rampage(kills=2, in_commit=1)


@pytest.mark.torture
@pytest.mark.parametrize(("processes", "compiled"), [(1, "off"), (2, "off"), (1, "on"), (2, "on")])
def test_thirteen_kills_three_of_them_inside_a_commit(
    tmp_path: Path, processes: int, compiled: str
) -> None:
    # Protects: guarantee 1, over all four: 52 kills, at least 12 inside a commit.
    if compiled == "on" and not compiler_works():
        pytest.skip("torch.compile finds no compiler here")
    start = time.monotonic()
    expected = Training(tmp_path / "whole", processes, compiled).prepare().finish()
    took = time.monotonic() - start
    killer = Killer(
        Training(tmp_path / "killed", processes, compiled).prepare(), expected, longest=0.9 * took
    )
    killer.rampage(kills=13, in_commit=3)
    print(
        f"{processes} ranks, compile {compiled}: {killer.kills} kills, {killer.in_commit} inside a"
        f" commit, {killer.finished} finished"
    )


@pytest.mark.torture
def test_thirty_kills_of_any_rank(tmp_path: Path) -> None:
    # Protects: guarantee 1 where the optimizer is divided among ranks, and each writes its file.
    start = time.monotonic()
    expected = Training(tmp_path / "whole", processes=2).prepare().finish()
    longest = 0.9 * (time.monotonic() - start)
    killer = Killer(Training(tmp_path / "killed", processes=2).prepare(), expected, longest)
    killer.kill_ranks(30)
    print(f"{killer.kills} kills of a rank, {killer.writing} while a checkpoint was written")


def test_a_rank_that_is_lost_is_replaced(tmp_path: Path) -> None:
    # Protects: the death of one of two processes costs the steps since a checkpoint, without
    # anybody's help.
    training = Training(tmp_path / "whole", 2, steps=90).prepare()
    process = training.start()
    training.wait_for(process)
    below = ranks(process)
    assert len(below) == 2
    below[1].send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-3000:]
    digest = training.digest()
    assert Training(tmp_path / "other", 2, steps=90).prepare().finish() == digest


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_stops_all_ranks_after_a_step_with_a_checkpoint(
    tmp_path: Path, processes: int
) -> None:
    # Protects: what a scheduler sends before it ends a job; torchrun's own handling would kill the
    # ranks.
    training = Training(tmp_path, processes, steps=100_000).prepare()
    process = training.start()
    training.wait_for(process)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=120)
    last = errors.decode().splitlines()[-1]
    assert process.returncode == 1 and last.startswith("groundup: stopped at step "), (
        errors.decode()[-2000:]
    )
    step = int(last.removeprefix("groundup: stopped at step ").partition(";")[0])
    assert (
        read_json(tmp_path / "train" / "checkpoints" / f"step-{step:06d}" / "state.json")["step"]
        == step
    )


def test_nothing_outlives_a_master_that_is_killed_alone(tmp_path: Path) -> None:
    # Protects: ranks never go on writing outside of the run's lock.
    training = Training(tmp_path, 2, steps=100_000).prepare()
    process = training.start()
    training.wait_for(process)
    below = ranks(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    end = time.monotonic() + 30
    while (
        any(one.is_running() and one.status() != "zombie" for one in below)
        and time.monotonic() < end
    ):
        time.sleep(0.1)
    size = training.metrics().stat().st_size
    time.sleep(0.5)
    assert training.metrics().stat().st_size == size
    assert not [one for one in below if one.is_running() and one.status() != "zombie"]


def test_a_rank_whose_master_died_while_it_began_leaves_at_once() -> None:
    # Protects: two orphans could find each other and train outside of the run's lock.
    code = (
        "from groundup.train.launch import exit_with_parent; exit_with_parent(); print('went on')"
    )
    for parent, expected in ((os.getpid(), (0, "went on\n")), (os.getpid() + 1_000_000, (1, ""))):
        environment = os.environ | {
            "GROUNDUP_PARENT": str(parent),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == expected


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: no decision rests on the time of day: an hour back at every look, and the bytes are
    # the same.
    from tests.helpers.token_run import train_setup, weights_digest, write_shards

    from groundup.train.trainer import Trainer

    digests, jumps = [], iter(range(10**6))
    for name in ("steady", "jumping"):
        if name == "jumping":
            monkeypatch.setattr(time, "time", lambda: 1e9 - 3600 * next(jumps))
        write_shards(tmp_path / name)
        (tmp_path / name / "train" / "checkpoints").mkdir(parents=True)
        Trainer(tmp_path / name, train_setup(12)).train()
        digests.append(weights_digest(tmp_path / name, 12))
    assert digests[0] == digests[1]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write("one")
    ledger.write("two")
    assert [event["event"] for event in ledger.events()] == ["one", "two"]
