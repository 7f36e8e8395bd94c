"""The guard: what it refuses, what it leaves untouched, how a run goes back, and what it says in
the end.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples
from tests.helpers.faulty import (
    PLAIN,
    Killed,
    after_step,
    bad_samples,
    before_step,
    fresh,
    long_setup,
    with_stats,
)
from tests.helpers.token_run import train_setup, weights_digest

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError
from groundup.runtime.files import read_json
from groundup.runtime.sealed import Ledger
from groundup.train.guard import ENOUGH, RECENT, STREAK, WINDOW, Guard
from groundup.train.hardware import Hardware
from groundup.train.trainer import Trainer

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settled(steps: int = WINDOW, seed: int = 0) -> Guard:
    """A guard that has seen a loss of 3 with noise of 0.05, and norms around 1."""
    guard, random = Guard(), np.random.default_rng(seed)
    for _ in range(steps):
        guard.accept(3 + 0.05 * float(random.normal()), math.exp(0.2 * float(random.normal())))
    return guard


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
@pytest.mark.parametrize("guard", [Guard(), settled()], ids=["fresh", "settled"])
def test_what_is_not_finite_is_refused_from_the_first_step_on(loss: float, guard: Guard) -> None:
    # Protects: no NaN reaches the weights, whether the guard knows a range or is told to ignore it.
    assert "the loss is" in guard.judge(loss, 1.0, 0)
    assert "the gradient norm is" in guard.judge(3.0, loss, 16)


def test_the_range_is_judged_on_both_sides_once_it_is_known() -> None:
    # Protects: spikes and documents that repeat one token are seen; before there is a range,
    # nothing is guessed.
    guard = settled()
    assert guard.judge(3.2, 1.5, 16) == ""
    assert "above the recent 2.99" in guard.judge(5.0, 1.0, 16)
    assert "below the recent 2.99" in guard.judge(1.0, 1.0, 16)
    assert "gradient norm 100" in guard.judge(3.0, 100.0, 16)
    assert guard.judge(3.0, 1e-9, 16) == "" and guard.judge(3.0, 0.0, 16) == ""
    assert guard.judge(5.0, 100.0, 0) == ""
    assert settled(ENOUGH - 1).judge(500.0, 1e9, 16) == ""


def test_wild_values_do_not_move_the_range() -> None:
    # Protects: robust: after an eighth of wild steps that slipped in before the range was known, a
    # spike is still seen.
    guard = settled(WINDOW - 16)
    for _ in range(16):
        guard.accept(50.0, 1000.0)
    assert (
        guard.judge(6.0, 1.0, 16) and guard.judge(3.0, 1000.0, 16) and not guard.judge(3.1, 1.2, 16)
    )


@examples(60)
@given(st.lists(st.booleans(), max_size=300))
def test_memory_is_bounded_and_repeats_are_counted(refused: list[bool]) -> None:
    # Protects: a run of months remembers as much as one of minutes; five in a row, or twenty of the
    # last hundred, go back.
    guard = Guard()
    for step, bad in enumerate(refused):
        if bad:
            back = guard.refuse(step)
            streak = next(
                (n for n, bad in enumerate(reversed(refused[: step + 1])) if not bad), step + 1
            )
            assert back == (
                streak >= STREAK or sum(refused[max(0, step - RECENT + 1) : step + 1]) >= 20
            )
        else:
            guard.accept(1.0, 1.0)
    assert len(guard.losses) <= WINDOW and len(guard.refused) <= RECENT


@pytest.mark.parametrize(
    "wrong", [{"loss": NAN}, {"norm": NAN}, {"loss": 30.0}, {"norm": 1e5}], ids=str
)
def test_a_refused_step_leaves_no_trace_in_what_is_learned(
    tmp_path: Path, wrong: dict[str, float]
) -> None:
    # Protects: weights, momentum and its step count are untouched, not multiplied by zero; the next
    # step goes on.
    trainer = with_stats(
        Trainer(fresh(tmp_path), long_setup(ENOUGH + 6)), bad_samples({6 * (ENOUGH + 2)}, **wrong)
    )
    before: list[torch.Tensor] = []
    unchanged: list[int] = []

    def learned() -> list[torch.Tensor]:
        return [trainer.parameters.weights, *trainer.optimizer.state_dict().values()]

    def remember(step: int) -> None:
        before[:] = [tensor.clone() for tensor in learned()]

    def compare(step: int) -> None:
        if all(torch.equal(a, b) for a, b in zip(before, learned(), strict=True)):
            unchanged.append(step - 1)

    after_step(before_step(trainer, remember), compare).train()
    assert unchanged == [ENOUGH + 2]
    assert trainer.optimizer.steps == ENOUGH + 5 and trainer.state.step == ENOUGH + 6
    assert trainer.state.tokens == (ENOUGH + 5) * 96
    lines = Metrics(tmp_path / "train" / "metrics.jsonl").read()
    assert [line["step"] for line in lines if "guard" in line] == [ENOUGH + 2]
    found = read_json(tmp_path / "train" / "incidents" / f"step-{ENOUGH + 2:06d}-0.json")
    assert found["first_sample"] == 6 * (ENOUGH + 2) and len(found["sequences"]) == 6
    assert set(found["norms"]) == {name for name, _ in trainer.model.named_parameters()}


def test_a_real_nan_in_the_gradient_is_caught_by_the_one_read(tmp_path: Path) -> None:
    # Protects: the fault injected where it happens, in a backward pass, and not in what is read of
    # it.
    trainer = Trainer(fresh(tmp_path), long_setup(8))
    weight = trainer.model.get_parameter("model.layers.1.mlp.down_proj.weight")
    calls = 0

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # Two micro-batches a step: the second of step 3.
        return gradient * NAN if calls == 8 else gradient

    weight.register_hook(poison)
    trainer.train()
    found = read_json(tmp_path / "train" / "incidents" / "step-000003-0.json")
    assert found["norms"]["model.layers.1.mlp.down_proj.weight"]["gradient"] == "nan"
    assert [name for name, both in found["norms"].items() if both["gradient"] == "nan"] == [
        "model.layers.1.mlp.down_proj.weight"
    ]
    assert (
        found["weights_finite"] and trainer.parameters.are_finite() and trainer.optimizer.steps == 7
    )


def breaks(trainer: Trainer) -> None:
    """Flip a weight to NaN, as a fault of the memory might."""
    trainer.parameters.weights[17] = NAN


def once_at(step: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Act at a step, and not again when the step is repeated."""
    done: list[int] = []

    def acting(now: int) -> None:
        if now == step and not done:
            done.append(now)
            act()

    return acting


def test_nan_in_the_weights_goes_back_to_the_last_good_checkpoint(tmp_path: Path) -> None:
    # Protects: a flipped bit in memory costs the steps since a checkpoint; no checkpoint of broken
    # weights is written.
    trainer = Trainer(fresh(tmp_path), long_setup(60))
    before_step(trainer, once_at(38, lambda: breaks(trainer))).train()
    event = Ledger(tmp_path / "train" / "ledger.jsonl").events("rollback")[0]
    # Step 40 is on the grid of validation and checkpoints; it is reached with NaN, and nothing is
    # saved.
    assert (event["step"], event["to"], event["skipped"], event["rate"]) == (
        43,
        20,
        [120, 258],
        0.5,
    )
    assert trainer.state.spans == [(0, 0, 6), (20, 258, 6)] and trainer.state.skipped == [
        (120, 258)
    ]
    found = read_json(tmp_path / "train" / "incidents" / "step-000038-0.json")
    assert not found["weights_finite"]
    assert trainer.state.step == 60 and trainer.parameters.are_finite()
    assert [
        line["step"]
        for line in Metrics(tmp_path / "train" / "metrics.jsonl").read()
        if "loss" in line
    ] == [10, 20, 30, 40, 50, 60]


def test_weights_that_break_before_the_last_step_are_not_saved(tmp_path: Path) -> None:
    # Protects: the end of a run is no excuse: it goes back and comes to a good end.
    trainer = Trainer(fresh(tmp_path), long_setup(30))
    after_step(trainer, once_at(30, lambda: breaks(trainer))).train()
    assert trainer.state.guard.rollbacks == 1 and trainer.parameters.are_finite()
    assert read_json(tmp_path / "train" / "checkpoints" / "step-000030" / "state.json")[
        "skipped"
    ] == [[120, 180]]


def spiky(root: Path, steps: int = 130) -> Trainer:
    """From sample 6 x 95 on, twelve steps' data look like a spike; the samples behind them are
    good.
    """
    samples = range(6 * 95, 6 * 107)
    return with_stats(
        Trainer(root, long_setup(steps, checkpoint_steps=(97,))), bad_samples(samples, loss=30.0)
    )


def test_a_spike_that_lasts_goes_back_skips_the_window_and_slows_down(tmp_path: Path) -> None:
    # Protects: repeated refusals go back to before them, pass over their samples, and halve the
    # rate; twice here.
    trainer = spiky(fresh(tmp_path))
    trainer.train()
    events = Ledger(tmp_path / "train" / "ledger.jsonl").events("rollback")
    assert [(e["step"], e["to"], e["skipped"], e["rate"]) for e in events] == [
        (100, 80, [480, 600], 0.5),
        (85, 80, [480, 630], 0.25),
    ]
    # The last two bad steps are refused one by one.
    assert (
        trainer.state.step == 130
        and trainer.state.guard.rollbacks == 2
        and trainer.state.guard.refused == [80, 81]
    )
    # Saved in the middle of the trouble because the recipe names it, left behind, and reached
    # again.
    assert (
        read_json(tmp_path / "train" / "checkpoints" / "step-000097" / "state.json")["guard"][
            "rollbacks"
        ]
        == 2
    )


@pytest.mark.parametrize("call", [96, 99, 101, 120])
def test_killed_in_trouble_ends_as_undisturbed(tmp_path: Path, call: int) -> None:
    # Protects: exact resume through refusals and going back, killed before, amid and after them.
    samples = range(6 * 95, 6 * 105)
    roots = [fresh(tmp_path / name) for name in ("whole", "killed")]

    def make(root: Path) -> Trainer:
        return with_stats(
            Trainer(root, long_setup(120, checkpoint_steps=(97,), validate_every=500)),
            bad_samples(samples, loss=30.0),
        )

    make(roots[0]).train()
    steps: list[int] = []

    def dies(step: int) -> None:
        steps.append(step)
        if len(steps) == call:
            raise Killed

    with pytest.raises(Killed):
        before_step(make(roots[1]), dies).train()
    make(roots[1]).train()
    assert weights_digest(roots[0], 120) == weights_digest(roots[1], 120)
    told = [
        [
            (line["step"], line.get("loss"), line.get("guard"))
            for line in Metrics(root / "train" / "metrics.jsonl").read()
        ]
        for root in roots
    ]
    assert told[0] == told[1]
    events = [
        [e | {"time": 0} for e in Ledger(root / "train" / "ledger.jsonl").events("rollback")]
        for root in roots
    ]
    assert events[0] == events[1] and len(events[0]) >= 1


def test_after_three_times_it_stops_and_says_what_is_known(tmp_path: Path) -> None:
    # Protects: no endless circle; one line names the step, the reason and where more stands.
    trainer = Trainer(
        fresh(tmp_path), train_setup(40, config=PLAIN, validate_every=1000, checkpoint_every=1000)
    )
    before = trainer.parameters.weights.clone()
    trainer.parameters.grad_norm = lambda: torch.tensor(NAN)  # type: ignore[method-assign]
    with pytest.raises(GroundupError) as raised:
        trainer.train()
    text = str(raised.value)
    assert "\n" not in text and "step 5: the gradient norm is nan, after 3 rollbacks" in text
    assert (
        "of books.bb.train.npy" in text
        and "incidents/step-000000-3.json" in text
        and "run again" in text
    )
    assert torch.equal(before, trainer.parameters.weights) and trainer.optimizer.steps == 0
    assert trainer.state.skipped == [(0, 90)] and trainer.state.spans == [(0, 90, 6)]


def test_an_overflow_of_fp16_is_no_event_and_a_lasting_one_is(tmp_path: Path) -> None:
    # Protects: the scale's search for its size is told apart from a gradient that no scale can
    # save.
    machine = Hardware(threads=1, micro_batch=6, precision="fp16")
    trainer = with_stats(
        Trainer(fresh(tmp_path / "a"), train_setup(20, machine)), bad_samples({6, 12, 18}, norm=INF)
    )
    trainer.train()
    assert (
        trainer.state.loss_scale == 2.0**13
        and trainer.state.guard.refused == []
        and trainer.optimizer.steps == 17
    )
    assert not (tmp_path / "a" / "train" / "incidents").exists()
    trainer = with_stats(
        Trainer(fresh(tmp_path / "b"), train_setup(30, machine)),
        lambda _, __, r: dataclasses.replace(r, norm=INF),
    )
    trainer.state.loss_scale = 4.0
    with pytest.raises(GroundupError, match="gradient norm is inf"):
        trainer.train()


def test_ranks_decide_alike(tmp_path: Path) -> None:
    # Protects: the decision rests on numbers that one sum gave to all ranks. Each adds its tokens,
    # and the square of the norm of what it holds.
    class Two:
        rank, world, is_first, device = 1, 2, False, torch.device("cpu")

        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            # What the other rank, with 2 of the 5 sequences, has added.
            return tensor + torch.tensor([5.0, 32.0, 7.5**2, 1, 0], dtype=torch.float64)

    trainer = Trainer(fresh(tmp_path), train_setup(2, config=PLAIN))
    rows = torch.ones(3, 17, dtype=torch.int64)
    alone = trainer.train_step.forward_backward(rows, 0, 3)
    trainer.sharding.ranks = Two()  # type: ignore[assignment]
    stats = trainer.train_step.forward_backward(rows, 0, 5)
    assert stats.norm == pytest.approx(math.hypot(alone.norm * 3 / 5, 7.5))
    assert stats.loss == pytest.approx((alone.loss * 48 + 5) / 80)
    assert stats.tokens == 80 and stats.stop and not stats.reload


def test_targets_that_do_not_count_weigh_nothing(tmp_path: Path) -> None:
    # Protects: loss and gradient are means over the targets that count, however they fall into
    # micro-batches.
    rows = torch.randint(0, 61, (6, 17), generator=torch.Generator().manual_seed(1))
    rows[0, 5:] = -1
    rows[4, 9:] = -1
    found = []
    for size in (1, 3, 6):
        trainer = Trainer(
            fresh(tmp_path / str(size)),
            train_setup(2, Hardware(threads=1, micro_batch=size), config=PLAIN),
        )
        inputs = rows.clone()
        trainer.model.loss = _masked(trainer.model.loss)  # type: ignore[method-assign]
        stats = trainer.train_step.forward_backward(inputs, 0, len(inputs))
        assert stats.tokens == int((rows[:, 1:] >= 0).sum())
        found.append((stats.loss, stats.norm))
    assert np.allclose(found[0], found[1], rtol=1e-5) and np.allclose(found[0], found[2], rtol=1e-5)
    assert abs(found[0][0] - math.log(61)) < 0.2


def _masked(loss):  # type: ignore[no-untyped-def]
    return lambda tokens, targets, reduction: loss(tokens.clamp(min=0), targets, reduction)


def test_a_healthy_run_never_triggers(tmp_path: Path) -> None:
    # Protects: the guard costs nothing where nothing is wrong: same weights with and without it.
    for name, limit in (("with", 16.0), ("without", 0.0)):
        Trainer(
            fresh(tmp_path / name),
            long_setup(200, guard=limit, validate_every=500, checkpoint_every=500),
        ).train()
    assert not (tmp_path / "with" / "train" / "incidents").exists()
    state = [
        json.loads((tmp_path / n / "train/checkpoints/step-000200/state.json").read_text())
        for n in ("with", "without")
    ]
    assert state[0] == state[1] and state[0]["guard"]["refused"] == []
    assert weights_digest(tmp_path / "with", 200) == weights_digest(tmp_path / "without", 200)
