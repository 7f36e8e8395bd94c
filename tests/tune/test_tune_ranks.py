"""Tuning on several ranks, compiled, guarded: the same result as one rank that nothing disturbs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers.talking import CONTEXT, TUNE, stirred, talking_run, talks
from tests.tune.test_tune_stage import figures, lines

from groundup.artifacts.tokenizer import Tokenizer
from groundup.errors import GroundupError
from groundup.model.hf_io import load_model
from groundup.recipe import Tune
from groundup.runtime.lock import machine_settings, write_lock
from groundup.runtime.store import Store
from groundup.train.guard import STREAK
from groundup.train.hardware import Hardware, compiler_works
from groundup.train.step import StepStats
from groundup.tune import state
from groundup.tune.data import Conversation, Row, make_rows
from groundup.tune.finetuner import Finetuner
from groundup.tune.stage import run as tune
from groundup.tune.state import TuneCheckpoints


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[Row]:
    conversations = (Conversation("a", n, f"#{n}", talk) for n, talk in enumerate(talks()))
    return make_rows(conversations, tokenizer, CONTEXT, validation=0).train


def tuner(
    tokenizer: Tokenizer, checkpoints: TuneCheckpoints | None = None, **changes: Any
) -> Finetuner:
    settings = Tune("sft", epochs=3, learning_rate=1e-3, batch_tokens=2 * CONTEXT)
    return Finetuner(
        stirred(tokenizer.vocab_size),
        dataclasses.replace(settings, **{k: v for k, v in changes.items() if k != "hardware"}),
        changes.get("hardware", Hardware(micro_batch=2)),
        tokenizer.chat_ids,
        1,
        checkpoints=checkpoints,
    )


def weights(folder: Path) -> torch.Tensor:
    model = load_model(folder / "tune" / "model")
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_two_ranks_learn_what_one_does(tmp_path: Path, method: str) -> None:
    # Protects: shares of a step's sequences whose gradients are summed, uneven ones too, and
    # held-out figures that do not depend on who measures them.
    runs = [talking_run(tmp_path / f"{n}", tune=TUNE | {"method": method}) for n in (1, 2)]
    for processes, run in zip((1, 2), runs, strict=True):
        machine = dataclasses.asdict(Hardware(micro_batch=4, processes=processes))
        write_lock(run.root, run.recipe, machine=machine)
        tune(run)
    one, two = (figures(run) for run in runs)
    assert one["before"] == two["before"]
    assert two["after"]["loss"] == pytest.approx(one["after"]["loss"], rel=1e-4)
    assert torch.allclose(weights(runs[0].root), weights(runs[1].root), atol=1e-4)
    metrics = [lines(run.root / "tune" / "metrics.jsonl") for run in runs]
    for ours, theirs in zip(*metrics, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["learnt_tokens"] == theirs["learnt_tokens"]
    assert machine_settings(runs[1].root)["packed_attention"] == "documents"


def test_compiled_layers_learn_the_same(tokenizer: Tokenizer, rows: list[Row]) -> None:
    if not compiler_works():
        pytest.skip("torch.compile finds no compiler here")
    plain = tuner(tokenizer, epochs=1)
    compiled = tuner(tokenizer, epochs=1, hardware=Hardware(micro_batch=2, compile=True))
    expected, found = (each.train(rows[:12], lambda: None) for each in (plain, compiled))
    assert [line["loss"] for line in found] == pytest.approx(
        [line["loss"] for line in expected], rel=1e-4
    )


def test_a_step_that_is_not_finite_is_not_applied(
    tokenizer: Tokenizer, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    disturbed = tuner(tokenizer, epochs=1)
    compute = disturbed.forward_backward

    def broken(step: int, *arguments: Any) -> StepStats:
        stats = compute(step, *arguments)
        return dataclasses.replace(stats, norm=float("nan")) if step == 1 else stats

    disturbed.forward_backward = broken  # type: ignore[method-assign,assignment]
    metrics = disturbed.train(rows, lambda: None)
    assert metrics[1] == {"step": 2, "epoch": 1, "refused": "the gradient norm is nan"}
    assert "learnt_tokens" in metrics[2] and disturbed.optimizer.steps == len(metrics) - 1
    assert "step 2: the gradient norm is nan; this step is not applied" in capsys.readouterr().err


def test_repeated_trouble_goes_back_to_a_checkpoint_and_reads_on(
    tokenizer: Tokenizer, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: the weights of the last calm checkpoint, a lower rate, and none of the steps since.
    monkeypatch.setattr(state, "MIN_STEPS", 4)
    found = tuner(tokenizer, TuneCheckpoints(tmp_path, "k" * 64), epochs=1)
    compute, first = found.forward_backward, 5

    def broken(step: int, *arguments: Any) -> StepStats:
        stats = compute(step, *arguments)
        is_bad = first <= step < first + STREAK
        return dataclasses.replace(stats, loss=float("inf")) if is_bad else stats

    found.forward_backward = broken  # type: ignore[method-assign,assignment]
    metrics = found.train(rows, lambda: None)
    assert len(metrics) > 12
    back = next(line for line in metrics if "back_to" in line)
    assert (back["step"], back["back_to"]) == (first + STREAK, 4)
    # The metrics of what was taken back are gone, and the state tells of one rollback.
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, *range(10, len(metrics) + 6)]
    assert (found.state.guard.rollbacks, found.state.guard.rate) == (1, 0.5)


def test_trouble_without_a_checkpoint_says_what_to_do(
    tokenizer: Tokenizer, rows: list[Row]
) -> None:
    found = tuner(tokenizer, epochs=1)
    compute = found.forward_backward
    found.forward_backward = lambda *a: dataclasses.replace(  # type: ignore[method-assign]
        compute(*a), loss=float("nan")
    )
    wrong = rf"step {STREAK}: the loss is nan, repeatedly; lower \[tune\] learning_rate"
    with pytest.raises(GroundupError, match=wrong):
        found.train(rows, lambda: None)


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_a_tuning_goes_on_from_its_checkpoint_with_the_same_bits(
    tokenizer: Tokenizer,
    rows: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(state, "MIN_STEPS", 4)
    checkpoints = TuneCheckpoints(tmp_path, "k" * 64)
    undisturbed = tuner(tokenizer, method=method)
    expected = undisturbed.train(rows, lambda: 1.0)
    killed = tuner(tokenizer, checkpoints, method=method)
    compute = killed.forward_backward

    def kill(step: int, *arguments: Any) -> StepStats:
        if step == 15:
            raise KeyboardInterrupt
        return compute(step, *arguments)

    killed.forward_backward = kill  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        killed.train(rows, lambda: 1.0)
    resumed = tuner(tokenizer, checkpoints, method=method)
    assert resumed.restore() and 0 < resumed.state.step < 15
    assert resumed.train(rows, lambda: 1.0) == expected
    torch.testing.assert_close(
        resumed.parameters.weights, undisturbed.parameters.weights, rtol=0, atol=0
    )
    # A checkpoint whose bytes changed is passed over, and the one before it is used.
    (newest, *_) = checkpoints.steps().values()
    (newest / "weights.safetensors").chmod(0o644)
    (newest / "weights.safetensors").write_bytes(b"x")
    again = tuner(tokenizer, checkpoints, method=method)
    again.restore()
    assert again.state.step < max(checkpoints.steps())
    checkpoints.discard()
    assert not checkpoints.steps() and not tuner(tokenizer, checkpoints).restore()
    Store(tmp_path).clean()
