"""The loop: exact resume, the same losses as ever, as many ranks as you like, and what it leaves on
disk.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.faulty import Killed, after_step, fresh
from tests.helpers.token_run import CONFIG, SIZES, VOCAB, train_setup, weights_digest

from groundup.artifacts.metrics import Metrics, cut_back
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import load_model
from groundup.runtime.files import read_json
from groundup.runtime.sealed import read_sealed
from groundup.train.distributed import init_distributed
from groundup.train.hardware import Hardware
from groundup.train.hardware_probe import gpu_attention
from groundup.train.trainer import Trainer

GOLDEN = Path(__file__).parent / "golden.json"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def lines(root: Path) -> list[dict[str, float]]:
    return Metrics(root / "train" / "metrics.jsonl").read()


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "train" / "checkpoints").iterdir())


def killed_before(trainer: Trainer, call: int) -> None:
    """Let `trainer` die before the given call of one of its inner functions."""
    count = 0

    def counted(inner: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == call:
                raise Killed
            return inner(*arguments, **named)

        return wrapper

    for name in ("_update", "_validate", "_save", "_publish", "_write_log"):
        setattr(trainer, name, counted(getattr(trainer, name)))
    with pytest.raises(Killed):
        trainer.train()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = fresh(tmp_path_factory.mktemp("undisturbed"))
    Trainer(root, train_setup()).train()
    return root


def test_what_a_training_leaves(undisturbed: Path) -> None:
    # Protects: what evaluate, export and report read.
    best = read_json(undisturbed / "train" / "best.json")
    assert best["step"] in (5, 10, 12) and 0 < best["loss"] < 5
    assert f"step-{best['step']:06d}" in checkpoints(undisturbed)
    validations = [line for line in lines(undisturbed) if "validation_loss" in line]
    assert [line["step"] for line in validations] == [5, 10, 12]
    assert all(
        line["validation_loss"] > best["loss"] - 3 * line["validation_error"]
        for line in validations
    )
    assert {
        "validation_perplexity",
        "validation_loss.books",
        "validation_loss.web.1",
        "validation_seconds",
    } < set(validations[0])
    steps = [line for line in lines(undisturbed) if "loss" in line]
    expected = {
        "perplexity",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
        "data_wait",
        "memory_bytes",
        "tokens",
        "seconds",
    }
    assert expected < set(steps[-1])
    assert not any("guard" in line or "refused" in line for line in lines(undisturbed))
    assert steps[-1]["tokens"] == 12 * 96
    folder = undisturbed / "train" / "checkpoints" / "step-000012"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "tokenizer.json",
    }
    assert load_model(folder).config == train_setup().config


@pytest.mark.parametrize("call", [1, 3, 8, 9, 10, 13, 17, 19, 24, 28, 30])
def test_killed_and_resumed_is_undisturbed(undisturbed: Path, tmp_path: Path, call: int) -> None:
    # Protects: guarantee 1. Weights, optimizer, state, kept checkpoints and metrics are those of a
    # run that was left alone.
    root = fresh(tmp_path)
    killed_before(Trainer(root, train_setup()), call)
    torch.manual_seed(call)
    Trainer(root, train_setup()).train()
    assert checkpoints(root) == checkpoints(undisturbed)
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)
    assert read_json(root / "train" / "best.json") == read_json(undisturbed / "train" / "best.json")
    assert [(line["step"], line.get("loss")) for line in lines(root)] == [
        (line["step"], line.get("loss")) for line in lines(undisturbed)
    ]


@pytest.mark.parametrize(
    "kernels",
    [
        {"precision": "bf16", "residual": "bf16", "attention": "blocks"},
        # As trainings of older versions have it in their lock.
        {"precision": "bf16"},
        {"precision": "fp16"},
    ],
    ids=str,
)
def test_exact_in_every_precision(tmp_path: Path, kernels: dict[str, Any]) -> None:
    # Protects: guarantee 1 with a residual stream in bf16, and under autocast, the loss scale of
    # fp16 included.
    machine = Hardware(threads=1, micro_batch=6, **kernels)
    for name in ("whole", "killed"):
        trainer = Trainer(fresh(tmp_path / name), train_setup(8, machine))
        if name == "killed":
            killed_before(trainer, 9)
            trainer = Trainer(tmp_path / name, train_setup(8, machine))
        trainer.train()
    assert weights_digest(tmp_path / "whole", 8) == weights_digest(tmp_path / "killed", 8)
    assert trainer.state.loss_scale == (2.0**16 if machine.precision == "fp16" else 1.0)


def test_exact_on_a_gpu(tmp_path: Path) -> None:
    # Protects: guarantee 1 on CUDA: flash attention and cuBLAS in their deterministic forms.
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: exact resume on CUDA is not checked")
    config = dataclasses.replace(CONFIG, width=128, heads=2, kv_heads=1, head_width=64)
    machine = Hardware("cuda", precision="bf16", micro_batch=6, residual="bf16")
    machine = dataclasses.replace(machine, attention=gpu_attention(config, "bf16"))
    for name in ("whole", "killed"):
        root = fresh(tmp_path / name)
        with init_distributed(machine) as ranks:
            trainer = Trainer(root, train_setup(8, machine, config), ranks)
            if name == "killed":
                killed_before(trainer, 9)
                trainer = Trainer(root, train_setup(8, machine, config), ranks)
            trainer.train()
    assert weights_digest(tmp_path / "whole", 8) == weights_digest(tmp_path / "killed", 8)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_a_damaged_checkpoint_is_named_and_passed_over(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: one flipped byte costs the steps since the checkpoint before it, and nothing else.
    root = fresh(tmp_path)
    Trainer(root, train_setup()).train()
    path = root / "train" / "checkpoints" / "step-000012" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    trainer = Trainer(root, train_setup())
    assert trainer.state.step == 8
    assert "step-000012/model.safetensors" in capsys.readouterr().err
    trainer.train()
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


def test_a_signal_stops_between_steps_and_the_run_goes_on(
    undisturbed: Path, tmp_path: Path
) -> None:
    # Protects: Ctrl-C costs nothing; the off-grid checkpoint that it makes is gone in the end.
    root = fresh(tmp_path)

    def interrupt(step: int) -> None:
        if step == 7:
            signal.raise_signal(signal.SIGINT)

    trainer = after_step(Trainer(root, train_setup()), interrupt)
    with pytest.raises(GroundupError, match="stopped at step 7; run the same command to resume"):
        trainer.train()
    assert "step-000007" in checkpoints(root)
    Trainer(root, train_setup()).train()
    assert checkpoints(root) == checkpoints(undisturbed)
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


def test_named_checkpoints_are_kept_and_rolling_ones_go(tmp_path: Path) -> None:
    # Protects: the checkpoints that a recipe names stay for ever, and the disk does not fill.
    root = fresh(tmp_path)
    Trainer(
        root,
        train_setup(20, checkpoint_steps=(3, 9), checkpoint_every=2, keep=2, validate_every=100),
    ).train()
    assert checkpoints(root) == [f"step-{step:06d}" for step in (3, 9, 18, 20)]


def test_sampling_and_logging_leave_no_trace(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: watching the model learn does not change what it learns.
    root = fresh(tmp_path)
    Trainer(root, train_setup(sample_seconds=0.0, sample_prompt="! the #")).train()
    assert capsys.readouterr().err.count("loss") >= 12
    assert weights_digest(root, 12) == weights_digest(undisturbed, 12)


@pytest.mark.parametrize("micro_batch", [1, 2, 6])
def test_micro_batches_change_rounding_only(
    undisturbed: Path, tmp_path: Path, micro_batch: int
) -> None:
    # Protects: accumulation takes the same samples and weighs each token the same.
    config = ModelConfig(
        **{field: getattr(train_setup().config, field) for field in train_setup().config.__slots__}
        | {"dropout": 0.0}
    )
    losses = []
    for number, size in enumerate((3, micro_batch)):
        trainer = Trainer(
            fresh(tmp_path / str(number)),
            train_setup(3, Hardware(threads=1, micro_batch=size), config=config),
        )
        trainer.train()
        losses.append([line["loss"] for line in lines(trainer.root) if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    # Protects: the whole machine goes downhill: from uniform to near the entropy of the made-up
    # language (1.9 nats).
    root = fresh(tmp_path)
    Trainer(
        root,
        train_setup(
            60,
            Hardware(threads=1, micro_batch=16),
            batch_tokens=256,
            validate_every=60,
            checkpoint_every=500,
        ),
    ).train()
    assert read_json(root / "train" / "best.json")["loss"] < 3.2


@pytest.mark.parametrize("family", ["muon", "adamw"])
def test_golden_losses(tmp_path: Path, family: str) -> None:
    # Protects: a change of the mathematics is noticed. Made again by: PYTHONPATH=src:. python
    # tests/train/test_trainer.py
    assert golden(tmp_path, family) == pytest.approx(
        json.loads(GOLDEN.read_text())[family], abs=1e-4
    )


def golden(folder: Path, family: str) -> list[float]:
    """Losses of 20 steps, one thread, fp32, no dropout (whose bits differ between versions of
    torch).
    """
    config = ModelConfig(
        VOCAB, layers=2, width=32, heads=2, kv_heads=1, head_width=16, feed_forward=48, context=16
    )
    trainer = Trainer(fresh(folder), train_setup(20, config=config, optimizer=family))
    losses: list[float] = []
    after_step(trainer, lambda _: losses.append(trainer.interval.last_loss)).train()
    return losses


def test_no_validation_text_means_the_last_step_is_the_best(tmp_path: Path) -> None:
    # Protects: a tiny corpus without a held-out window still gives a model to evaluate.
    root = fresh(tmp_path)
    for name in SIZES:
        (root / "tokenize" / "shards" / f"{name}.validation.npy").unlink()
    Trainer(root, train_setup()).train()
    assert read_sealed(root / "train" / "best.json") == {"step": 12, "loss": None}


@examples(20)
@given(size=st.integers(0, 200), more=st.text(max_size=50))
def test_files_are_cut_back(tmp_path_factory: pytest.TempPathFactory, size: int, more: str) -> None:
    # Protects: what was logged after a checkpoint is not logged twice.
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    path.write_bytes(b"x" * size)
    with path.open("ab") as file:
        file.write(more.encode())
    cut_back(path, size)
    assert path.read_bytes() == b"x" * size


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    table = {family: golden(Path(tempfile.mkdtemp()), family) for family in ("muon", "adamw")}
    GOLDEN.write_text(json.dumps(table, indent=1) + "\n")
