"""What a step costs by count, and how long it takes on devices of the table."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import GroundupError
from groundup.model.config import PRESETS, ModelConfig
from groundup.model.transformer import Transformer
from groundup.runtime.devices import device_table, find_devices, sheet_flops
from groundup.train import step_cost
from groundup.train.checkpoint_writer import Buffers
from groundup.train.memory import step_memory
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.performance import TERMS, predict_step
from groundup.train.step_cost import StepCost, StepCounter, Traffic, count_step

CONFIG = dataclasses.replace(
    PRESETS["tiny"], layers=3, vocab_size=512, context=64, heads=2, kv_heads=1, head_width=32
)


def counted(config: ModelConfig = CONFIG, size: int = 2, **options: object) -> StepCost:
    return count_step(config, size, **{"precision": "fp32"} | options)


def test_operations_are_those_that_torch_counts() -> None:
    # Three layers from a count of one and two, against a real pass over three.
    model, tokens_BT = Transformer(CONFIG), torch.zeros(2, 65, dtype=torch.long)
    # torch does not know the product in place that the head adds its gradient with.
    added = {torch.ops.aten.addmm_: lambda grad, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=added) as counter:
        model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    products = sum(counter.get_flop_counts()["Global"].values())
    parts = counted().parts
    assert parts["layers"].matrix_flops + parts["head"].matrix_flops == products
    # Attention is five products in the backward pass of flash attention; a model counts four.
    attention = parts["layers"].attention_flops * 3 / 3.5
    assert products + attention == pytest.approx(128 * CONFIG.flops_per_token())


def test_further_layers_cost_what_the_second_does() -> None:
    parts, saved = counted().parts["layers"], counted().saved_bytes
    counter, really_saved = step_cost._count_passes(CONFIG, 2, "fp32", False)
    assert parts == counter.parts["layers"] and saved == really_saved
    update, peak, state = step_cost._count_small_update(CONFIG, "muon", torch.float32)
    assert counted().parts["optimizer"] == update
    assert (counted().peaks["optimizer"], counted().state_bytes) == (peak, state)


def test_fused_kernels_move_only_what_crosses_a_product() -> None:
    """The example of the module: silu(gate) * up, then a product that reads it."""
    gate, up, matrix = (torch.ones(64, 64) for _ in range(3))
    with StepCounter() as counter:
        torch.mm(torch.mul(torch.sigmoid(gate), up), matrix)
    size, traffic = 64 * 64 * 4, counter.parts["layers"]
    assert (traffic.bytes, traffic.fused_bytes) == (5 * size, 3 * size)
    assert (traffic.matrix_flops, traffic.matrix_bytes) == (2 * 64**3, 3 * size)
    assert (traffic.kernels, traffic.products) == (3, 1)


def test_memory_follows_tensors_to_the_end_of_their_lives() -> None:
    with StepCounter() as counter:
        first = torch.ones(1000)
        second = first + 1
        del first
        torch.ones(500)
    assert counter.peaks["forward"] == 8000 and counter.live == 4000
    assert second.numel() == 1000


@pytest.mark.parametrize(
    "larger",
    [{"layers": 4}, {"context": 128}, {"feed_forward": 256}, {"vocab_size": 1024}, {"size": 3}],
)
def test_memory_grows_with_all_that_is_larger(larger: dict[str, int]) -> None:
    size, sizes = larger.get("size", 2), {k: v for k, v in larger.items() if k != "size"}
    cost = counted(dataclasses.replace(CONFIG, **sizes), size)  # type: ignore[arg-type]
    assert step_memory(cost, "cpu").peak > step_memory(counted(), "cpu").peak


def test_computing_layers_twice_keeps_less_and_works_more() -> None:
    twice = counted(recompute=True)
    assert twice.saved_bytes < counted().saved_bytes / 2
    assert twice.parts["layers"].matrix_flops > 1.2 * counted().parts["layers"].matrix_flops


def test_ranks_share_the_state_of_the_optimizer() -> None:
    one, four = (step_memory(counted(), "cuda", processes) for processes in (1, 4))
    assert (four.state, four.weights) == (one.state / 4, one.weights)


def test_the_buffers_of_checkpoints_are_counted_where_they_are() -> None:
    # Protects: as much as they take, which is the weights and the rank's part of the state.
    model = Transformer(CONFIG, 1)
    parameters = FlatParameters(model)
    buffers = Buffers(parameters, Optimizer(parameters, "muon", 0.1))
    memory = step_memory(counted(), "cpu")
    assert memory.checkpoint == pytest.approx(buffers.nbytes, abs=8)
    assert memory.checkpoint == pytest.approx(memory.weights + memory.state)
    assert step_memory(counted(), "cuda").checkpoint == 0


def seconds(name: str, processes: int, preset: str = "30m") -> dict[str, float]:
    """Terms of a step of 64 sequences."""
    config = dataclasses.replace(PRESETS[preset], vocab_size=8192)
    spec, share = find_devices(name).spec, 64 // processes
    step = predict_step(
        config,
        counted(config, 8, precision="bf16", device="cuda"),
        spec,
        processes=processes,
        sequences=64,
        passes=share / 8,
        precision=spec.half,
        compiled=True,
    )
    assert step.tokens == 64 * config.context and 0 < step.utilization < spec.share
    return dict(step.terms)


@pytest.mark.parametrize("name", list(device_table()))
def test_every_device_takes_time_for_every_term(name: str) -> None:
    terms = seconds(name, 1)
    assert tuple(terms) == TERMS and terms.pop("exposed communication") == 0
    assert min(terms.values()) > 0
    spec = device_table()[name]
    assert spec.source.startswith("https://") and spec.bf16 >= spec.fp32 > 5 > 0
    assert 10 < spec.memory < 600 and 200 <= spec.bandwidth < 10_000 and 0.3 <= spec.share < 1


@pytest.mark.parametrize("name", [n for n, spec in device_table().items() if spec.link])
def test_more_devices_are_slower_only_if_they_wait_for_each_other(name: str) -> None:
    steps = [seconds(name, processes) for processes in (1, 2, 4, 8)]
    waits = [step.pop("exposed communication") for step in steps]
    assert waits == sorted(waits) and waits[1] > 0
    for fewer, more in itertools.pairwise(steps):
        assert all(more[term] <= fewer[term] for term in fewer)
        assert sum(more.values()) < sum(fewer.values())


def test_traffic_is_extrapolated_by_field() -> None:
    assert Traffic(bytes=1).extrapolate(Traffic(bytes=3, kernels=1), 2) == Traffic(
        bytes=5, kernels=2
    )


def test_devices_are_found_by_name() -> None:
    four = find_devices("4xA100-80GB")
    assert (four.name, four.count, four.spec.memory) == ("4xa100-80gb", 4, 80)
    assert find_devices("4090").name == "1x4090"
    # An Apple chip is sold with several sizes of memory.
    assert find_devices("m3-max-36gb").spec.memory == 36


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("8xh10", 'did you mean "h100"'),
        ("a100", 'did you mean "a100-'),
        ("4090-48gb", "is unknown"),
        ("9xh100", "machines with 1 to 8 NVIDIA H100"),
        ("0xh100", "machines with 1 to 8 NVIDIA H100"),
        ("2xm3-max", "machines with one Apple M3 Max"),
        ("", "known are a100-40gb, "),
    ],
)
def test_a_device_that_is_not_known_is_one_line_with_the_nearest(name: str, said: str) -> None:
    with pytest.raises(GroundupError, match=said) as error:
        find_devices(name)
    assert "\n" not in str(error.value)


def test_the_data_sheet_of_a_device_by_the_name_that_pytorch_reports() -> None:
    assert sheet_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert sheet_flops("NVIDIA L40S", "bf16") == 362e12
    assert sheet_flops("NVIDIA L4", "fp32") == 30.3e12
    # No bfloat16 there.
    assert (sheet_flops("Tesla T4", "bf16"), sheet_flops("Tesla T4", "fp16")) == (0, 65e12)
    assert sheet_flops("a card of tomorrow", "bf16") == 0
