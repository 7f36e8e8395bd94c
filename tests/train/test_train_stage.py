"""The stage: what is fresh, what resumes, what is guarded, and what a machine's probe resolves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tests.helpers.token_run import (
    CONFIG,
    FIXED,
    SETTINGS,
    recipe,
    run_in,
    weights_digest,
    write_shards,
)

from groundup.artifacts.metrics import Metrics
from groundup.errors import ExpensiveError, GroundupError
from groundup.model.config import PRESETS, ModelConfig
from groundup.recipe import Recipe, Train
from groundup.runtime.files import read_json, write_json
from groundup.runtime.lock import LOCK, load_lock, machine_settings, recipe_lock, write_lock
from groundup.runtime.sealed import Ledger
from groundup.train import hardware, hardware_probe, launch, stage
from groundup.train.__main__ import main as rank
from groundup.train.hardware import (
    Hardware,
    count_processes,
    divisible_share,
    largest_divisor,
    recorded_hardware,
)
from groundup.train.hardware_probe import HardwareProbe
from groundup.train.memory import step_memory
from groundup.train.setup import automatic_tokens
from groundup.train.step_cost import count_step


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_shards(tmp_path)
    return tmp_path


def train(root: Path, of: Recipe, redo: frozenset[str] = frozenset()) -> tuple[int, int]:
    run = run_in(root, of, redo)
    stage.run(run)
    return run.built, run.reused


def make_expensive(root: Path) -> None:
    """Claim that what stands there took eleven minutes."""
    path = root / "train" / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 12, "seconds": 660.0}) + "\n")


def test_a_second_run_finds_it_fresh(root: Path) -> None:
    # Protects: running again costs nothing, and neither does a change that training does not depend
    # on.
    assert train(root, recipe()) == (1, 0)
    before = {path: path.stat().st_mtime_ns for path in (root / "train").rglob("*")}
    assert train(root, recipe()) == (0, 1)
    assert train(root, dataclasses.replace(recipe(), name="other")) == (0, 1)
    assert train(root, recipe(learning_rate=0.1)) == (0, 1)
    assert train(root, recipe(steps=6)) == (0, 1)
    assert before == {path: path.stat().st_mtime_ns for path in (root / "train").rglob("*")}


def test_checkpoints_that_a_kill_left_are_removed(root: Path) -> None:
    # Protects: a kill after the last checkpoint, before those that it replaced were removed, leaves
    # a run that ends with the same files as an undisturbed one.
    train(root, recipe(checkpoint_every=2))
    folder = root / "train" / "checkpoints"
    before = sorted(path.name for path in folder.iterdir())
    shutil.copytree(folder / before[-1], folder / "step-000002")
    assert train(root, recipe(checkpoint_every=2)) == (1, 0)
    assert sorted(path.name for path in folder.iterdir()) == before
    # Settings that change afterwards remove nothing.
    assert train(root, recipe(checkpoint_every=5)) == (0, 1)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_later_end_goes_on_and_is_noted(root: Path) -> None:
    # Protects: guarantee 5: end step and learning rate may change while it runs, and the ledger
    # says from which step.
    train(root, recipe(steps=8))
    first = weights_digest(root, 8)
    train(root, recipe(steps=12, learning_rate=0.001, checkpoint_steps=(8,)))
    assert weights_digest(root, 8) == first
    events = Ledger(root / "train" / "ledger.jsonl").events("settings")
    assert [
        (event["step"], event["settings"]["steps"], event["settings"]["learning_rate"])
        for event in events
    ] == [(0, 8, 0.003), (8, 12, 0.001)]


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"weight": 2.0}, {"model": {"layers": 1}}, {"optimizer": "adamw"}]
)
def test_another_key_is_another_training(root: Path, change: dict[str, object]) -> None:
    # Protects: data order, sizes, optimizer and seed are never mixed within one training.
    train(root, recipe(steps=4))
    before = weights_digest(root, 4)
    assert train(root, recipe(steps=4, **change)) == (1, 0)  # type: ignore[arg-type]
    assert weights_digest(root, 4) != before
    assert not (root / "aside").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 2}, "seed was 1, is 2"),
        ({"model": {"layers": 1}}, "model.layers was 2, is 1"),
        ({"weight": 2.0}, "weights.books was 1.0, is 2.0"),
    ],
)
def test_training_again_says_why_and_compares(
    root: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], reason: str
) -> None:
    # Protects: nobody waits for a training without knowing which setting asked for it, nor has to
    # look up whether it was worth it; also if it was stopped in between.
    train(root, recipe(steps=5))
    old = read_json(root / "train" / "best.json")["loss"]
    assert "again" not in capsys.readouterr().err
    stage.prepare(run_in(root, recipe(steps=5, **change)))
    said = capsys.readouterr().err
    assert f"train: trains again from step 0: {reason}\n" in said
    train(root, recipe(steps=5, **change))
    new = read_json(root / "train" / "best.json")["loss"]
    assert f"train: validation loss {new:.4g}, before {old:.4g}\n" in capsys.readouterr().err
    train(root, recipe(steps=5, **change))
    assert capsys.readouterr().err == ""


def test_other_tokens_are_another_training(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Protects: weights always belong to the shards that stand beside them.
    train(root, recipe(steps=4))
    key = read_json(root / "train" / "train.json")["key"]
    write_shards(root, seed=50)
    assert train(root, recipe(steps=4)) == (1, 0)
    assert read_json(root / "train" / "train.json")["key"] != key
    assert "again from step 0: its data changed (6 of 6 token shards)" in capsys.readouterr().err


def test_expensive_training_is_guarded(root: Path) -> None:
    # Protects: guarantee 5: eleven minutes are not thrown away unasked; with --redo they move
    # aside, whole and loadable.
    train(root, recipe(steps=4))
    make_expensive(root)
    before = weights_digest(root, 4)
    with pytest.raises(ExpensiveError, match=r"seed was 1, is 2.*11 minutes.*--redo train"):
        train(root, recipe(steps=4, seed=2))
    assert weights_digest(root, 4) == before
    train(root, recipe(steps=4, seed=2), frozenset({"train"}))
    aside = root / "aside" / "train-1" / "checkpoints" / "step-000004"
    assert (aside / "tokenizer.json").exists() and (aside / "model.safetensors").exists()
    assert weights_digest(root, 4) != before


def test_redo_trains_again(root: Path) -> None:
    # Protects: --redo builds what is not stale too, and comes to the same weights.
    train(root, recipe(steps=4))
    before = weights_digest(root, 4)
    assert train(root, recipe(steps=4), frozenset({"train"})) == (1, 0)
    assert weights_digest(root, 4) == before


def test_what_the_machine_decided_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: guarantee 1: nothing is chosen again by timing when training goes on; what the
    # recipe says wins.
    auto: dict[str, Any] = dict.fromkeys(FIXED, "auto")
    of = recipe(steps=4, **(auto | {"threads": 1}))
    train(root, of)
    chosen = machine_settings(root)
    assert (
        chosen["micro_batch"] in (1, 2, 3, 6)
        and chosen["device"] in ("cpu", "cuda")
        and not chosen["compile"]
    )
    monkeypatch.setattr(hardware_probe, "resolve_hardware", lambda *_: pytest.fail("probed again"))
    train(root, dataclasses.replace(of, train=dataclasses.replace(of.train, steps=6)))
    assert machine_settings(root) == chosen
    train(
        root, dataclasses.replace(of, train=dataclasses.replace(of.train, steps=8, micro_batch=2))
    )
    assert machine_settings(root) == chosen | {"micro_batch": 2}


def test_a_wish_is_read_alike_by_every_run(root: Path) -> None:
    # Protects: a micro-batch that does not divide the batch is rounded the same way when training
    # goes on.
    train(root, recipe(steps=4, micro_batch=4))
    chosen = machine_settings(root)
    train(root, recipe(steps=6, micro_batch=4))
    assert machine_settings(root) == chosen and chosen["micro_batch"] == 3


def test_the_record_of_an_older_version_is_read_and_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: guarantee 1 for runs that were begun when train/machine.json held the settings.
    train(root, recipe(steps=4))
    chosen = machine_settings(root)
    (root / LOCK).unlink()
    assert recorded_hardware(root) is None
    write_json(root / "train" / "machine.json", chosen | {"micro_batch": 1})
    monkeypatch.setattr(hardware_probe, "resolve_hardware", lambda *_: pytest.fail("probed again"))
    train(root, recipe(steps=6, micro_batch="auto"))
    assert machine_settings(root) == chosen | {"micro_batch": 1}
    assert not (root / "train" / "machine.json").exists()


def test_a_later_stage_that_is_stopped_keeps_the_record(root: Path) -> None:
    # Protects: the lock goes back to the recipe of the work that stays, and the settings of the
    # training that stands there now are not lost.
    train(root, recipe(steps=4))
    chosen = machine_settings(root)
    with pytest.raises(ExpensiveError), recipe_lock(root, recipe(steps=4, seed=2)):
        write_lock(root, recipe(steps=4, seed=2), machine={"micro_batch": 1})
        raise ExpensiveError("tune")
    assert machine_settings(root) == chosen | {"micro_batch": 1}
    assert load_lock(root).seed == 1


def test_auto_steps_are_resolved_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: "auto" is at most four passes over the text, and does not move when the run goes on.
    monkeypatch.setattr("groundup.train.setup.CPU_SECONDS", 1e9)
    train(root, recipe(steps="auto", model={"context": 128}, batch_tokens=2048, validate_every=100))
    steps = read_json(root / "train" / "train.json")["steps"]
    assert steps == 4 * (31 + 19 + 24) * 128 // 2048
    monkeypatch.setattr("groundup.train.setup.CPU_SECONDS", 0.0)
    assert train(
        root, recipe(steps="auto", model={"context": 128}, batch_tokens=2048, validate_every=100)
    ) == (0, 1)


def test_two_ranks_learn_what_one_learns(tmp_path: Path) -> None:
    # Protects: guarantee 2 for training: ranks share the work, not the result (fp32, up to the
    # order of sums).
    losses = []
    for processes in (1, 2):
        root = tmp_path / str(processes)
        write_shards(root)
        of = recipe(steps=6, processes=processes, model={"dropout": 0.0})
        assert train(root, of) == (1, 0)
        assert train(root, of) == (0, 1)
        losses.append(
            [
                line.get("loss", line.get("validation_loss"))
                for line in Metrics(root / "train" / "metrics.jsonl").read()
            ]
        )
    assert len(losses[0]) >= 4 and losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_errors_of_ranks_are_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: what a rank finds wrong reaches the user as it would in one process; ranks that die
    # are told apart.
    run = run_in(root, recipe(steps=2, processes=2))
    monkeypatch.setattr(launch, "wait", lambda *_: 1)
    with pytest.raises(GroundupError, match="the training processes died"):
        stage.run(run)
    path = root / "tokenize" / "shards" / "books.aa.train.npy"
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[128:] = b"\xff" * (len(data) - 128)
    path.write_bytes(data)
    monkeypatch.setenv(launch.PREPARED, "1")

    def rank_here(*_: object) -> int:
        rank(root)
        return 0

    monkeypatch.setattr(launch, "wait", rank_here)
    with pytest.raises(GroundupError, match=r"books\.aa\.train\.npy: holds id 65535"):
        stage.run(run)


def test_too_little_text_is_said_before_anything_is_built(tmp_path: Path) -> None:
    # Protects: an empty or tiny corpus is one clear line.
    write_shards(tmp_path, {"books.aa": 12})
    with pytest.raises(GroundupError, match="fill one window"):
        train(tmp_path, recipe())
    with pytest.raises(GroundupError, match="no token shards"):
        stage.run(run_in(tmp_path / "nothing", recipe()))


def test_a_batch_with_fewer_sequences_than_processes(root: Path) -> None:
    # Protects: no process idles; shares that differ by one are no error.
    with pytest.raises(GroundupError, match="6 sequences, fewer than the 7 processes"):
        train(root, recipe(processes=7))
    assert count_processes(Train(processes=4), 6, "cpu") == 4


def test_all_gpus_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: 64 sequences on 6 GPUs are shares of 10 and 11, and on 3 sequences 3 GPUs work.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 6)
    assert [count_processes(Train(), sequences, "cuda") for sequences in (64, 3)] == [6, 3]
    # Micro-batches of 8 at most: not of one sequence because 73 and 74 have no common divisor.
    shares = [divisible_share(sequences, 7) for sequences in (512, 511, 20)]
    assert [largest_divisor(share, 8) for share in shares] == [8, 1, 4]


def test_divisors() -> None:
    # Protects: micro-batches are all of one size.
    assert [
        largest_divisor(share, limit) for share, limit in ((12, 5), (7, 4), (8, 100), (6, 0))
    ] == [4, 1, 8, 1]


def test_a_gpu_that_is_gone_is_named() -> None:
    # Protects: a run that moved to a machine without a GPU says so.
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(GroundupError, match="GPU"):
        Hardware(device="cuda").apply()


def test_what_fits_is_tried_before_step_0(monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: the micro-batch shrinks to what fits, layers are computed twice only where one
    # sequence would not fit, and what cannot fit at all is one line; before anything is trained.
    train = Train(**(FIXED | SETTINGS | {"micro_batch": "auto"}))  # type: ignore[arg-type]
    need = {size: transient(CONFIG, size) for size in (1, 2, 3, 12)}
    assert need[1] < need[2] < need[3] < need[12]
    assert transient(CONFIG, 12, recompute=True) < 0.8 * need[12]
    for free, expected in (
        (need[12] + 1, (12, False)),
        (need[12] - 1, (6, False)),
        (need[3] + 1, (3, False)),
        (need[1] - 1, (1, True)),
    ):
        monkeypatch.setattr(
            psutil,
            "virtual_memory",
            lambda free=free: _Memory(free / hardware_probe.CPU_MEMORY_SHARE),
        )
        probe = HardwareProbe(CONFIG, train, "cpu", 12)
        assert (probe.largest_fitting("fp32", 12), probe.model.recompute) == expected
    monkeypatch.setattr(psutil, "virtual_memory", lambda: _Memory(1000))
    with pytest.raises(GroundupError, match="1 x 16 tokens does not fit into memory"):
        HardwareProbe(CONFIG, train, "cpu", 12).largest_fitting("fp32", 12)


@dataclasses.dataclass
class _Memory:
    available: float


def transient(config: ModelConfig, size: int, recompute: bool = False) -> float:
    cost = count_step(config, size, precision="fp32", recompute=recompute, device="cpu")
    return step_memory(cost, "cpu").beyond_weights


def test_the_count_of_a_step_is_near_what_it_takes() -> None:
    # Protects: the sum that stands in for trying on a CPU: within a quarter of what was measured of
    # a real pass. The rest is the allocator's; benchmarks/plan_memory.py measures whole processes.
    config = dataclasses.replace(
        CONFIG, layers=6, width=256, heads=4, head_width=64, feed_forward=1024, context=512
    )
    probe = HardwareProbe(config, Train(**(FIXED | SETTINGS)), "cpu", 8)  # type: ignore[arg-type]
    tokens = probe.dummy_tokens(8)
    before = psutil.Process().memory_info().rss
    loss = probe.model.loss(tokens[:, :-1], tokens[:, 1:])
    taken = psutil.Process().memory_info().rss - before
    del loss
    saved = count_step(config, 8, precision="fp32", device="cpu").saved_bytes
    assert 0.75 * taken < saved < 1.25 * taken


def test_memory_that_runs_out_later_is_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: no traceback after hours, and a way on.
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("groundup.train.step.TrainStep.forward_backward", fails)
    with pytest.raises(
        GroundupError,
        match=r"out of memory at step 0, with micro-batches of 3; set \[train\] micro_batch = 1",
    ):
        train(root, recipe())


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.torture)])
def test_computing_layers_twice_changes_no_bit(tmp_path: Path, compiled: bool) -> None:
    # Protects: recompute is a choice about memory only; dropout falls alike the second time.
    if compiled and not hardware.compiler_works():
        pytest.skip("torch.compile finds no compiler here")
    digests = []
    for recompute in ("on", "off"):
        write_shards(tmp_path / recompute)
        of = recipe(steps=6, recompute=recompute, compile="on" if compiled else "off")
        train(tmp_path / recompute, of)
        assert machine_settings(tmp_path / recompute)["recompute"] == (recompute == "on")
        digests.append(weights_digest(tmp_path / recompute, 6))
    assert digests[0] == digests[1]


def test_the_probe_keeps_what_the_recipe_says() -> None:
    # Protects: explicit settings are never overruled by timing.
    resolved, speed = hardware_probe.resolve_hardware(CONFIG, Train(**(FIXED | SETTINGS)), 6)  # type: ignore[arg-type]
    assert (
        resolved
        == Hardware("cpu" if not torch.cuda.is_available() else "cuda", 1, "fp32", False, 3, 1)
        and speed > 0
    )


@pytest.mark.parametrize(("bf16", "chosen"), [(1.14, "fp32"), (1.16, "bf16"), (0.5, "fp32")])
def test_precision_changes_only_if_it_pays(
    monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    # Protects: noise does not decide between two trainings of one recipe. Here a first pass is
    # slow, as it is, and one of the others in each precision meets another program.
    tries: dict[tuple[str, int], int] = {}

    def pass_seconds(self: HardwareProbe, precision: str, size: int) -> float:
        count = tries[precision, size] = tries.get((precision, size), 0) + 1
        slow = {1: 5.0, 2: 13.0}.get(count, 1.0)
        return slow * size / (bf16 if precision == "bf16" else 1.0)

    monkeypatch.setattr(HardwareProbe, "pass_seconds", pass_seconds)
    wish = FIXED | SETTINGS | {"precision": "auto"}
    resolved, speed = hardware_probe.resolve_hardware(CONFIG, Train(**wish), 6)  # type: ignore[arg-type]
    if resolved.device == "cuda":
        pytest.skip("a GPU does not choose")
    assert resolved.precision == chosen
    assert speed == pytest.approx(CONFIG.context * (bf16 if chosen == "bf16" else 1.0))


@pytest.mark.parametrize(
    ("share", "spread", "said"),
    [(5.0, 1.2, ""), (62.0, 1.0, "use 62% of its cores"), (0.0, 3.0, "varies by 3.0 times")],
)
def test_a_busy_machine_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    share: float,
    spread: float,
    said: str,
) -> None:
    # Protects: a measured speed that other programs lowered is not taken for the machine's, unless
    # nothing depends on it.
    def speeds(self: HardwareProbe, choices: Any) -> dict[Any, float]:
        self.spread = spread
        return dict.fromkeys(choices, 100.0)

    monkeypatch.setattr(HardwareProbe, "speeds", speeds)
    monkeypatch.setattr(hardware_probe, "share_of_others", lambda *_: share / 100)
    hardware_probe.resolve_hardware(CONFIG, Train(**(FIXED | SETTINGS | {"steps": "auto"})), 6)  # type: ignore[arg-type]
    shown = capsys.readouterr().err
    assert said in shown and shown.count("machine is busy") == bool(said)
    hardware_probe.resolve_hardware(CONFIG, Train(**(FIXED | SETTINGS | {"steps": 9})), 6)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_the_probe_of_a_large_model_is_short_and_hears_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Protects: 20 s at most by a clock that passes drive, also where bf16 is emulated; and none
    # that takes longer than a second, since no backward pass hears Ctrl-C before its end.
    config = dataclasses.replace(PRESETS["125m"], vocab_size=512)
    peak, clock, passes = 2e10, [0.0], list[float]()

    def pass_seconds(self: HardwareProbe, precision: str, size: int) -> float:
        operations = size * self.config.context * self.config.flops_per_token()
        seconds = (
            operations / (hardware_probe.USUAL_SHARE * peak) * (10 if precision == "bf16" else 1)
        )
        clock[0] += seconds
        passes.extend([seconds] * (precision == "fp32"))
        return seconds

    monkeypatch.setattr(HardwareProbe, "pass_seconds", pass_seconds)
    monkeypatch.setattr(hardware_probe, "peak_flops", lambda *_: peak)
    monkeypatch.setattr(hardware_probe, "choose_device", lambda: "cpu")
    monkeypatch.setattr(hardware_probe, "gain_of_blocks", lambda *_: 1.0)
    monkeypatch.setattr("groundup.train.hardware_probe.time.perf_counter", lambda: clock[0])
    wish = Train(threads=1, compile="off", batch_tokens=4 * config.context)
    hardware_probe.probe_quickly.cache_clear()
    resolved, speed = hardware_probe.resolve_hardware(config, wish, 4)
    before = clock[0]
    # A plan of the same training measures nothing again.
    assert (
        hardware_probe.probe_quickly(config, wish, "cpu").precision == resolved.precision == "fp32"
    )
    hardware_probe.probe_quickly.cache_clear()
    assert clock[0] == before < hardware_probe.PROBE_SECONDS
    assert passes and max(passes) <= hardware_probe.LONG_PASS_SECONDS
    expected = hardware_probe.USUAL_SHARE * peak / config.flops_per_token()
    assert speed == pytest.approx(expected, rel=1e-6)


def test_auto_steps_make_a_model_on_a_slow_machine() -> None:
    # Protects: whatever the probe measured, 200 steps or one pass over the text; a model that is
    # too large for that gets the operations of 300 s on two idle cores. A fast machine does more.
    small = dataclasses.replace(PRESETS["starter"], vocab_size=4096)
    large = dataclasses.replace(PRESETS["125m"], vocab_size=50_000)
    assert automatic_tokens(9_400_000, CONFIG, "cpu", 10.0, 16_384) == 200 * 16_384
    assert automatic_tokens(100_000, CONFIG, "cpu", 10.0, 16_384) == 100_000
    assert automatic_tokens(9_400_000, small, "cpu", 20_000.0, 16_384) == 6_000_000
    assert automatic_tokens(100_000, small, "cpu", 20_000.0, 16_384) == 400_000
    operations = automatic_tokens(10**9, large, "cpu", 10.0, 16_384) * large.flops_per_token()
    assert operations == pytest.approx(3e13, rel=1e-3)
    assert automatic_tokens(10**12, small, "cuda", 10.0, 16_384) == 20 * small.parameter_count()


def test_too_few_auto_steps_are_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Protects: nobody finds out from the loss that a model read a hundredth of its text.
    of = recipe(steps="auto", model={"context": 128}, batch_tokens=2048, validate_every=100)
    monkeypatch.setattr("groundup.train.setup.CPU_SECONDS", 0.0)
    monkeypatch.setattr("groundup.train.setup.MIN_OPERATIONS", 0.0)
    assert stage.prepare(run_in(root, of)).steps == 1
    assert 'steps = "auto" came to 1 steps, 0.0% of the text' in capsys.readouterr().err
    monkeypatch.undo()
    assert stage.prepare(run_in(root, of)).steps >= (31 + 19 + 24) * 128 // 2048
    assert "came to" not in capsys.readouterr().err
