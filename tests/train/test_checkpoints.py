"""Checkpoints that are damaged, belong to something else or do not fit on the disk; the best one,
and what is shown.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.helpers.faulty import Killed, after_step, fresh
from tests.helpers.token_run import (
    CONFIG,
    recipe,
    run_in,
    train_setup,
    weights_digest,
    write_shards,
)

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError, StoreError
from groundup.model.transformer import Transformer
from groundup.runtime.files import file_digest, read_json
from groundup.train import checkpoint_writer, logging, stage
from groundup.train import state as checkpoint
from groundup.train.checkpoint_writer import CheckpointWriter
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.setup import TrainSetup
from groundup.train.state import TrainState
from groundup.train.trainer import Trainer
from groundup.train.validation import is_better, standard_error


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = fresh(tmp_path_factory.mktemp("undisturbed"))
    Trainer(root, train_setup()).train()
    return root


def damage(folder: Path, name: str, how: str) -> None:
    path = folder / name
    folder.chmod(0o755)
    path.chmod(0o644)
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        cut = {
            "flipped": data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
            "torn": data[: len(data) // 2],
            "empty": b"",
        }[how]
        path.write_bytes(cut)


@pytest.mark.parametrize("how", ["missing", "flipped", "torn", "empty"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_any_damage_is_named_and_costs_the_steps_since(
    undisturbed: Path, tmp_path: Path, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: whichever file of the newest checkpoint is damaged, however: it is named, and the
    # one before is taken.
    root = fresh(tmp_path)
    Trainer(root, train_setup()).train()
    capsys.readouterr()
    damage(root / "train" / "checkpoints" / "step-000012", name, how)
    trainer = Trainer(root, train_setup())
    assert trainer.state.step == 8 and "step-000012" in capsys.readouterr().err
    trainer.train()
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


def test_a_checkpoint_of_another_size_or_tokenizer_is_not_gone_on_from(tmp_path: Path) -> None:
    # Protects: weights never go on under other sizes or ids; such a training is another one, and
    # begins at 0.
    write_shards(tmp_path)
    stage.run(run_in(tmp_path, recipe(steps=4)))
    checkpoints = checkpoint.Checkpoints(
        tmp_path, read_json(tmp_path / "train" / "train.json")["key"]
    )
    assert checkpoints.newest() is not None
    assert dataclasses.replace(checkpoints, key="another").latest_valid() is None
    found = checkpoints.latest_valid()
    assert found is not None
    other = Trainer(
        fresh(tmp_path / "other"), train_setup(config=dataclasses.replace(CONFIG, width=64))
    )
    with pytest.raises(GroundupError, match="belongs to another model"):
        checkpoints.restore(found[0], other.parameters, other.optimizer)


def test_a_full_disk_while_saving_keeps_the_last_good_state(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: half a checkpoint is never seen; one line says what is kept, and with room the run
    # ends as undisturbed.
    root, inner = fresh(tmp_path), checkpoint_writer.write_tensors
    calls = 0

    def full(path: Path, *rest: Any) -> dict[str, Any]:
        nonlocal calls
        is_weights = path.name == "model.safetensors"
        calls += is_weights
        if is_weights and calls == 3:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return inner(path, *rest)

    monkeypatch.setattr(checkpoint_writer, "write_tensors", full)
    with pytest.raises(
        StoreError,
        match=r"the disk is full, step 8 could not be saved; checkpoints: step-4, step-5; free",
    ):
        Trainer(root, train_setup()).train()
    assert not any((root / ".staging").iterdir())
    Trainer(root, train_setup()).train()
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


def test_files_have_the_bytes_of_safetensors(tmp_path: Path) -> None:
    # Protects: the format on disk, which other programs read; 8 and 4 bytes a number.
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(7), "steps": torch.tensor(9)}
    for metadata in (None, {"format": "pt"}):
        save_file(tensors, tmp_path / "theirs", metadata)
        entry = checkpoint_writer.write_tensors(tmp_path / "ours", tensors, metadata=metadata)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
        assert entry["sha256"] == file_digest(tmp_path / "ours")
        assert entry["size"] == (tmp_path / "ours").stat().st_size
        (tmp_path / "ours").unlink()


def test_training_goes_on_while_a_checkpoint_is_written(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: steps are taken before the files are there, the files have the numbers of their own
    # step, and a second checkpoint waits for the first.
    root, inner = fresh(tmp_path), checkpoint_writer.write_tensors
    on_disk: dict[int, list[str]] = {}
    step_5_was_taken = threading.Event()

    def late(path: Path, *rest: Any) -> dict[str, Any]:
        if path.parent.name.startswith("step-000004"):
            assert step_5_was_taken.wait(60)
        return inner(path, *rest)

    def look(step: int) -> None:
        on_disk[step] = sorted(path.name for path in (root / "train" / "checkpoints").iterdir())
        if step == 5:
            step_5_was_taken.set()

    monkeypatch.setattr(checkpoint_writer, "write_tensors", late)
    after_step(Trainer(root, train_setup()), look).train()
    assert on_disk[5] == [] and "step-000004" in on_disk[6]
    for step in (4, 5, 12):
        path = Path("train") / "checkpoints" / f"step-{step:06d}"
        if (undisturbed / path).exists():
            for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
                assert (root / path / name).read_bytes() == (undisturbed / path / name).read_bytes()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: a checkpoint is whole or absent, and its remains do not disturb the next attempt.
    root, inner = fresh(tmp_path), checkpoint_writer.write_tensors

    def torn(path: Path, *rest: Any) -> dict[str, Any]:
        if path.parent.name.startswith("step-000008"):
            path.write_bytes(b"half of it")
            raise checkpoint_writer.AbandonedError
        return inner(path, *rest)

    def kill(step: int) -> None:
        if step == 9:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint_writer, "write_tensors", torn)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        after_step(Trainer(root, train_setup()), kill).train()
    assert list((root / ".staging").glob("step-000008.*/optimizer.safetensors"))
    trainer = Trainer(root, train_setup())
    assert trainer.state.step == 5 and not any((root / ".staging").iterdir())
    trainer.train()
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


def test_a_rank_that_is_ahead_saves_a_step_again(tmp_path: Path) -> None:
    # Protects: a signal may save a step that was due anyway. What rank 1 writes the second time is
    # not taken for the first, after which rank 0 would wait forever.
    root, state = fresh(tmp_path), TrainState(step=4)
    saved: list[TrainState] = []
    writers = []
    for rank in range(2):
        model = Transformer(CONFIG)
        parameters = FlatParameters(model, rank, 2)
        optimizer, ranks = Optimizer(parameters, "muon", 0.1), DistributedContext(rank, 2)
        checkpoints = checkpoint.Checkpoints(root, "key")
        writers.append(CheckpointWriter(checkpoints, model, parameters, optimizer, ranks))
    writers[0]._wait_until = time.monotonic() + 10
    for writer in reversed(writers):
        for _ in range(2):
            writer.start(state, {}, 0.0, saved.append)
            writer.wait()
    assert [done.step for done in saved] == [4, 4]
    assert not any((root / ".staging").iterdir())


def test_the_best_must_be_better_than_noise() -> None:
    # Protects: of two models that cannot be told apart the first stays; a small gain on every
    # window is a gain.
    random = np.random.default_rng(1)
    windows = 3 + 0.3 * random.normal(size=400)
    gain = windows - 0.002 + 0.01 * random.normal(size=400)
    luck = windows - 0.002 + 0.3 * random.normal(size=400)
    assert standard_error(windows) > 0.01
    assert is_better(gain.tolist(), windows.tolist()) and not is_better(
        windows.tolist(), gain.tolist()
    )
    assert abs(np.mean(luck) - windows.mean()) < 0.05 and not is_better(
        (windows - 0.0001 * luck).tolist(), (windows - 0.0001 * luck).tolist()
    )
    assert (
        is_better([3.0, 3.0], [])
        and not is_better([float("nan"), 3.0], [])
        and is_better([2.0], [3.0])
    )


def test_tensorboard_shows_what_metrics_hold(tmp_path: Path) -> None:
    # Protects: the figures beside each other are the same ones.
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    root = fresh(tmp_path)
    Trainer(root, train_setup(tensorboard=True)).train()
    events = EventAccumulator(str(root / "train" / "tensorboard")).Reload()
    shown = {event.step: event.value for event in events.Scalars("train/loss")}
    lines = Metrics(root / "train" / "metrics.jsonl").read()
    assert shown == {line["step"]: pytest.approx(line["loss"]) for line in lines if "loss" in line}
    assert {"train/validation_loss.books", "train/perplexity", "train/memory_bytes"} <= set(
        events.Tags()["scalars"]
    )


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_asked_for_and_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    asked: dict[str, Any] = {name: True}
    with pytest.raises(GroundupError, match=rf"{name} = true.*pip install"):
        Trainer(fresh(tmp_path), train_setup(**asked))


def test_weights_and_biases_gets_figures_with_our_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: its own step never goes back, ours may; nothing but scalars is sent. (The library
    # itself is not needed.)
    sent: list[dict[str, float]] = []

    class Fake:
        @staticmethod
        def init(**settings: object) -> Fake:
            assert settings["resume"] == "allow" and str(tmp_path) in str(settings["dir"])
            return Fake()

        def log(self, figures: dict[str, float]) -> None:
            sent.append(figures)

    monkeypatch.setitem(__import__("sys").modules, "wandb", Fake)
    Trainer(fresh(tmp_path), train_setup(wandb=True)).train()
    assert [line["train/step"] for line in sent if "train/validation_loss" in line] == [5, 10, 12]


def test_utilization_is_computed_by_its_formula() -> None:
    # Protects: causal attention and the head are counted, and every process has its own peak.
    machine = Hardware(peak_flops=1e9, sheet_flops=4e9, processes=2)
    setup = dataclasses.replace(train_setup(), hardware=machine)
    layer = (
        2 * (CONFIG.layer_matrix_parameters)
        + 4 * CONFIG.heads * CONFIG.head_width * (CONFIG.context + 1) / 2
    )
    a_token = 3 * (CONFIG.layers * layer + 2 * CONFIG.vocab_size * CONFIG.width)

    def figures(setup: TrainSetup) -> dict[str, float]:
        interval = logging.Interval()
        interval.add(1.0, 1.0, 1e-3, 1_000_000)
        interval.busy = 1.0
        return interval.take(setup, torch.device("cpu"))

    assert figures(setup)["utilisation"] == pytest.approx(1e6 * a_token / 2e9, rel=1e-4)
    assert figures(setup)["mfu"] == pytest.approx(1e6 * a_token / 8e9, rel=1e-4)
    assert not {"utilisation", "mfu"} & set(figures(train_setup()))


def test_status_shows_figures_and_what_the_guard_did(tmp_path: Path) -> None:
    from groundup.commands.status import run_status, status_text

    root = fresh(tmp_path)
    (root / "recipe.lock.toml").write_text("")
    (root / "train" / "train.json").write_text("{}")
    metrics = Metrics(root / "train" / "metrics.jsonl")
    metrics.write(step=9, loss=3.0, perplexity=20.1, utilization=0.31)
    metrics.write(step=10, guard="the loss is nan", refused_loss=float("nan"))
    text = status_text(run_status(root))
    assert "utilization 0.31" in text and "guard      the loss is nan" in text
    assert json.loads(metrics.path.read_text().splitlines()[1])["refused_loss"] is None
