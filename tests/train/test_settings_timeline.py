"""What changes while a training is on: the ledger of settings and of samples, by step, and its
replay after a crash.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.faulty import Killed, before_step, fresh
from tests.helpers.token_run import recipe, run_in, train_setup, weights_digest, write_shards

from groundup.artifacts.metrics import Metrics
from groundup.recipe import Recipe, load_recipe
from groundup.runtime.files import read_json
from groundup.runtime.sealed import Ledger
from groundup.schema import settings as table_of
from groundup.train import stage
from groundup.train.data import resize, samples_of_step, skip_to
from groundup.train.setup import timeline
from groundup.train.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@examples(100)
@given(
    changes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(0, 20)), max_size=8
    )
)
def test_every_sample_is_read_once_and_in_order_whatever_changes(
    changes: list[tuple[int, int, int]],
) -> None:
    # Protects: no change of batch repeats a sample or leaves one out; only what is skipped by name
    # is left out.
    spans, step, expected, skips = resize([], 0, 4), 0, 0, set()
    read: list[int] = []
    for steps, sequences, skip in [*changes, (3, 5, 0)]:
        for _ in range(steps):
            first, count = samples_of_step(spans, step)
            read += range(first, first + count)
            step += 1
        expected = samples_of_step(spans, step)[0]
        if skip:
            spans = skip_to(spans, step, expected + skip)
            skips |= set(range(expected, expected + skip))
        spans = resize(spans, step, sequences)
        assert samples_of_step(spans, step) == (expected + skip, sequences)
    assert len(spans) <= len(changes) + 2
    assert read == [n for n in range(read[-1] + 1) if n not in skips]


def test_a_later_line_overrules_from_its_step_on() -> None:
    # Protects: after going back to a checkpoint, what was noted beyond it no longer holds.
    setup = train_setup()
    base = table_of(recipe().train) | {"steps": 12}
    events = [
        {"step": n, "settings": base | {"clip": clip}}
        for n, clip in ((0, 1.0), (5, 2.0), (9, 3.0), (7, 4.0))
    ]
    assert [(step, change.train.clip) for step, change in timeline(setup, events)] == [
        (0, 1.0),
        (5, 2.0),
        (7, 4.0),
    ]


def write_recipe(path: Path, of: Recipe, **train: object) -> Recipe:
    """Write a recipe file that says what `of` says, but for some of [train]; return it as it is
    read.
    """
    import tomli_w

    table = table_of(dataclasses.replace(of, train=dataclasses.replace(of.train, **train)))  # type: ignore[arg-type]
    path.write_text(tomli_w.dumps(table))
    return load_recipe(path)


def test_the_batch_may_change_and_the_samples_go_on(tmp_path: Path) -> None:
    # Protects: another batch size is no other training: the next sample follows the last, and the
    # ledger says so.
    write_shards(tmp_path)
    stage.run(run_in(tmp_path, recipe(steps=8)))
    first = weights_digest(tmp_path, 8)
    stage.run(run_in(tmp_path, recipe(steps=12, batch_tokens=192, checkpoint_steps=(8,))))
    assert weights_digest(tmp_path, 8) == first
    state = read_json(tmp_path / "train" / "checkpoints" / "step-000012" / "state.json")
    assert state["spans"] == [[0, 0, 6], [8, 48, 12]] and state["tokens"] == 8 * 96 + 4 * 192
    events = Ledger(tmp_path / "train" / "ledger.jsonl").events("settings")
    assert (
        "batch_tokens was 96, is 192" in events[1]["changed"]
        and events[1]["step"] == 8
        and events[1]["time"] > 1e9
    )


def at_step(trainer: Trainer, step: int, act: Callable[[], object]) -> Trainer:
    return before_step(trainer, lambda now: act() if now == step else None)


def reloading(root: Path, at: int, **train: object) -> Trainer:
    """A training that reads its recipe again, which was edited meanwhile, after step `at`."""
    path = root / "recipe.toml"
    of = recipe(steps=12)
    if not path.exists():
        write_recipe(path, of)
    setup = dataclasses.replace(train_setup(12), train=load_recipe(path).train, recipe=str(path))

    def edit() -> None:
        write_recipe(path, of, **train)
        os.kill(os.getpid(), signal.SIGHUP)

    return at_step(Trainer(root, setup), at - 1, edit)


CHANGE = {
    "learning_rate": 0.001,
    "batch_tokens": 192,
    "steps": 15,
    "clip": 0.5,
    "checkpoint_steps": (6,),
    "validation_tokens": 64,
}


@pytest.mark.parametrize("killed", [7, 9, 10, 13])
def test_a_reload_holds_from_its_step_and_is_replayed_after_a_crash(
    tmp_path: Path, killed: int
) -> None:
    # Protects: guarantee 1 with changes: killed before or after the reload at step 7, the end is
    # the undisturbed one's.
    undisturbed, root = fresh(tmp_path / "whole"), fresh(tmp_path / "killed")
    reloading(undisturbed, 7, **CHANGE).train()
    trainer = reloading(root, 7, **CHANGE)

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        at_step(trainer, killed, die).train()
    # As `groundup run` begins it again: with the recipe as it is now.
    now = dataclasses.replace(
        trainer.setup, train=load_recipe(root / "recipe.toml").train, steps=15
    )
    Trainer(root, now).train()
    assert weights_digest(root, 15) == weights_digest(undisturbed, 15)
    state = read_json(root / "train" / "checkpoints" / "step-000015" / "state.json")
    assert state["spans"] == [[0, 0, 6], [7, 42, 12]]
    told = [
        [(x["step"], x.get("loss")) for x in Metrics(at / "train" / "metrics.jsonl").read()]
        for at in (root, undisturbed)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"optimizer": "adamw"}, "[train] optimizer cannot change while a run is on"),
        ({"micro_batch": 2}, "micro_batch cannot change"),
        ({"clip": 1.0}, "nothing changed"),
        ({"learning_rate": 0.001}, "learning_rate was 0.003, is 0.001"),
    ],
)
def test_what_a_reload_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], line: str
) -> None:
    # Protects: what cannot change while a process runs is refused in a line, and the run goes on as
    # before.
    root = fresh(tmp_path)
    trainer = reloading(root, 3, **change)
    trainer.train()
    assert line in capsys.readouterr().err and trainer.state.step == 12
    assert len(Ledger(root / "train" / "ledger.jsonl").events("settings")) == 2 * (
        "learning_rate" in change
    )


def test_a_recipe_that_is_broken_or_gone_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: a typing mistake during a run of days does not end it.
    root = fresh(tmp_path)
    trainer = reloading(root, 3)
    path = root / "recipe.toml"

    def spoil() -> None:
        path.write_text("[train\nsteps = 1")
        signal.raise_signal(signal.SIGHUP)

    def remove() -> None:
        path.unlink()
        signal.raise_signal(signal.SIGHUP)

    at_step(at_step(trainer, 5, spoil), 8, remove).train()
    said = capsys.readouterr().err
    assert (
        "cannot be read as TOML" in said
        and "there is no such recipe" in said
        and said.count("the settings stay as they were") == 2
    )
    assert trainer.state.step == 12


def test_a_change_of_batch_gives_the_guard_a_new_range(tmp_path: Path) -> None:
    # Protects: smaller batches have larger gradients by right.
    root = fresh(tmp_path)
    reloading(root, 7, batch_tokens=48).train()
    state = read_json(root / "train" / "checkpoints" / "step-000012" / "state.json")
    assert len(state["guard"]["losses"]) == 5 and np.isfinite(state["guard"]["losses"]).all()
