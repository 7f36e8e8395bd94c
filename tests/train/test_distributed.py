"""The same samples and losses on one to four ranks, and for any accumulation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.faulty import PLAIN, fresh
from tests.helpers.token_run import recipe, run_in, train_setup, write_shards

from groundup.artifacts.metrics import Metrics
from groundup.model.hf_io import load_model
from groundup.recipe import Recipe
from groundup.runtime.files import read_json
from groundup.train import stage
from groundup.train.hardware import Hardware
from groundup.train.trainer import Trainer


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(root: Path) -> dict[int, float]:
    return {
        line["step"]: line["loss"]
        for line in Metrics(root / "train" / "metrics.jsonl").read()
        if "loss" in line
    }


def weights(root: Path, step: int) -> torch.Tensor:
    model = load_model(root / "train" / "checkpoints" / f"step-{step:06d}")
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("alone")
    write_shards(root)
    stage.run(
        run_in(root, recipe(steps=12, batch_tokens=128, micro_batch=8, model={"dropout": 0.0}))
    )
    return root


def test_one_two_three_and_four_ranks_go_on_from_each_other(tmp_path: Path) -> None:
    # Protects: a checkpoint belongs to no number of ranks: begun on one, continued on two, on three
    # (whose shares of eight sequences differ) and on four, a training reads the same samples and
    # comes to the same losses and weights up to the rounding of sums.
    def of(steps: int, processes: int) -> Recipe:
        # A warm-up and an end that do not depend on the number of steps.
        same: dict[str, Any] = {
            "warmup_steps": 1,
            "final_learning_rate": 1.0,
            "batch_tokens": 128,
            "micro_batch": 8,
            "validate_every": 4,
        }
        return recipe(steps=steps, processes=processes, model={"dropout": 0.0}, **same)

    straight = tmp_path / "straight"
    for root, course in ((straight, ((1, 16),)), (tmp_path, ((1, 4), (2, 8), (3, 12), (4, 16)))):
        write_shards(root)
        for processes, steps in course:
            stage.run(run_in(root, of(steps, processes)))
    ours, theirs = losses(tmp_path), losses(straight)
    assert {4, 8, 12, 16} <= set(theirs) <= set(ours)
    expected = [theirs[step] for step in (8, 12, 16)]
    assert [ours[step] for step in (8, 12, 16)] == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(weights(tmp_path, 16), weights(straight, 16), atol=1e-4)
    states = [
        read_json(root / "train" / "checkpoints" / "step-000016" / "state.json")
        for root in (tmp_path, straight)
    ]
    assert (
        states[0]["spans"] == states[1]["spans"] == [[0, 0, 8]]
        and states[0]["tokens"] == states[1]["tokens"]
    )


def test_a_damaged_file_of_one_rank_costs_the_steps_since(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Protects: each rank's file is a part of the checkpoint; a missing one and a flipped one are
    # named in a line each, also if one rank alone finds the damage, and the checkpoint before is
    # taken.
    write_shards(tmp_path)
    checkpoints = tmp_path / "train" / "checkpoints"
    for steps, damaged in ((4, ""), (8, "missing"), (12, "its bytes are not those")):
        stage.run(run_in(tmp_path, recipe(steps=steps, processes=2, checkpoint_every=2, keep=4)))
        second = "optimizer-00002-of-00002.safetensors"
        names = {path.name for path in (checkpoints / f"step-{steps:06d}").iterdir()}
        assert {"optimizer-00001-of-00002.safetensors", second, "model.safetensors"} <= names
        if damaged:
            file = checkpoints / f"step-{steps:06d}" / second
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.unlink()
            if damaged != "missing":
                file.write_bytes(data)
            capfd.readouterr()
            # Longer, since a training at its end is not looked at.
            stage.run(run_in(tmp_path, recipe(steps=steps + 2, checkpoint_every=2, keep=4)))
            said = [line for line in capfd.readouterr().err.splitlines() if second in line]
            assert len(said) == 1 and damaged in said[0]
            assert said[0].endswith("using the checkpoint before it")
            assert (checkpoints / f"step-{steps:06d}" / "optimizer.safetensors").exists()


@pytest.mark.parametrize("parts", [1, 4, 8])
def test_accumulation_changes_rounding_only(alone: Path, tmp_path: Path, parts: int) -> None:
    # Protects: the loss is a mean over tokens, not over micro-batches.
    machine = Hardware(threads=1, micro_batch=8 // parts)
    Trainer(
        fresh(tmp_path),
        train_setup(12, machine, config=dataclasses.replace(PLAIN), batch_tokens=128),
    ).train()
    expected = losses(alone)
    assert losses(tmp_path) == {
        step: pytest.approx(loss, abs=1e-5) for step, loss in expected.items()
    }
    assert torch.allclose(weights(tmp_path, 12), weights(alone, 12), atol=1e-4)
