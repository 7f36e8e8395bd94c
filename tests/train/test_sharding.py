"""What ranks divide: the same steps as one rank, each number held once, each weight moved twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.helpers.token_run import CONFIG, VOCAB

from groundup.model.transformer import Transformer
from groundup.train.distributed import DistributedContext
from groundup.train.hardware import Hardware
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.sharding import Sharding
from groundup.train.step import TrainStep

PLAIN = dataclasses.replace(CONFIG, dropout=0.0)
# Stacks of 4 matrices, one of 2, an embedding of 61 x 32, norms: with 4 ranks, 2 need padding.
SEQUENCES, STEPS = 7, 3
# What each rank has saved.
Results: TypeAlias = list[dict[str, Any]]


def steps_of_a_rank(rank: int, world: int, folder: Path) -> None:
    """Take some steps over this rank's share of fixed rows, and save what it then knows."""
    torch.set_num_threads(1)
    if world > 1:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    ranks = DistributedContext(rank, world)
    model = Transformer(PLAIN, 1).train()
    parameters = FlatParameters(model, rank, world)
    optimizer, sharding = Optimizer(parameters, "muon", 0.1), Sharding(model, parameters, ranks)
    # Micro-batches of one sequence, so that gradients accumulate before they are summed.
    step = TrainStep(model, parameters, optimizer, Hardware(), 1, sharding)
    generator, known = torch.Generator().manual_seed(1), []
    for number in range(STEPS):
        rows = torch.randint(0, VOCAB, (SEQUENCES, PLAIN.context + 1), generator=generator)
        share = rows[SEQUENCES * rank // world : SEQUENCES * (rank + 1) // world]
        stats = step.forward_backward(share, number, SEQUENCES)
        norms = sharding.norms()
        step.update(stats, 0.01, 0.02, clip=0.5 * stats.norm)
        known.append((stats, norms))
    sharding.wait_for_weights()
    result = {
        "steps": known,
        "weights": model.state_dict(),
        "state": optimizer.state_dict(),
        "held": sum(own.numel() for _, own in optimizer.state.values()),
        "payload": sharding.payload_bytes,
        "padded": parameters.weights.numel(),
    }
    torch.save(result, folder / f"{world}-{rank}.pt")
    if world > 1:
        dist.destroy_process_group()


def results(folder: Path, world: int) -> Results:
    if world == 1:
        steps_of_a_rank(0, 1, folder)
    else:
        mp.spawn(steps_of_a_rank, (world, folder), world)  # type: ignore[attr-defined]
    paths = [folder / f"{world}-{rank}.pt" for rank in range(world)]
    return [torch.load(path, weights_only=False) for path in paths]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results(tmp_path_factory.mktemp("alone"), 1)[0]


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(tmp_path_factory.mktemp("ranks"), request.param)


def test_ranks_take_the_steps_of_one(alone: dict[str, Any], found: Results) -> None:
    # Protects: shares that differ by one sequence, accumulation, clipping and padding change
    # rounding only; all ranks decide by the same bits and end with the same weights.
    for (stats, norms), (one_stats, one_norms) in zip(
        found[0]["steps"], alone["steps"], strict=True
    ):
        assert (stats.loss, stats.norm) == pytest.approx((one_stats.loss, one_stats.norm), rel=1e-4)
        assert stats.tokens == one_stats.tokens == SEQUENCES * PLAIN.context
        for name, both in one_norms.items():
            assert norms[name] == pytest.approx(both, rel=1e-3, abs=1e-6), name
    for name, weight in alone["weights"].items():
        assert torch.allclose(found[0]["weights"][name], weight, atol=1e-4), name
    for other in found[1:]:
        assert other["steps"] == found[0]["steps"]
        for name, weight in found[0]["weights"].items():
            assert torch.equal(other["weights"][name], weight), name
    merged = Optimizer(FlatParameters(Transformer(PLAIN, 1)), "muon", 0.1)
    merged.load_state_dict(*(each["state"] for each in found))
    state = merged.state_dict()
    assert state.keys() == alone["state"].keys() and state["steps"] == STEPS
    for name, tensor in alone["state"].items():
        assert torch.allclose(state[name], tensor, atol=1e-4), name


def test_each_rank_holds_its_part_and_moves_each_weight_twice(
    alone: dict[str, Any], found: Results
) -> None:
    # Protects: ZeRO-1's memory and traffic. On 2 ranks nothing is padded; on 4 the stack of two
    # matrices is.
    padding = {2: 0, 4: 2 * 32 * 48}[len(found)]
    for result in found:
        assert result["padded"] == PLAIN.parameter_count() + padding
        assert result["payload"] == STEPS * 2 * 4 * result["padded"]
        assert result["held"] * len(found) == alone["held"] + padding


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_a_saved_state_is_divided_without_rest(before: int, optimizer: str) -> None:
    # Protects: any number of ranks reads what any number wrote, and each number goes to one rank.
    def rank_of(rank: int, world: int) -> Optimizer:
        return Optimizer(FlatParameters(Transformer(PLAIN, 1), rank, world), optimizer, 0.1)

    alone = rank_of(0, 1)
    saved = alone.state_dict()
    for name, tensor in saved.items():
        saved[name] = torch.arange(1, 1 + tensor.numel()).view(tensor.shape).float()
    ranks = [rank_of(rank, before) for rank in range(before)]
    for each in ranks:
        each.load_state_dict(saved)
    for after in (1, 2, 3, 4):
        held: dict[str, list[torch.Tensor]] = {name: [] for name in alone.state}
        for rank in range(after):
            other = rank_of(rank, after)
            other.load_state_dict(*(each.state_dict() for each in ranks))
            assert other.steps == 1
            for name, (_, own) in other.state.items():
                held[name].append(own.flatten())
        for name, parts in held.items():
            numbers = torch.cat(parts)
            assert torch.equal(numbers[numbers > 0].sort().values, saved[name].flatten()), name
    alone.load_state_dict(*(each.state_dict() for each in ranks))
    assert all(torch.equal(alone.state_dict()[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_rank_reads_its_pieces_of_the_weights(world: int) -> None:
    # Protects: together the ranks read each weight once, and nothing else.
    saved = {name: weight.detach() for name, weight in Transformer(PLAIN, 1).named_parameters()}
    for rank in range(world):
        parameters = FlatParameters(Transformer(PLAIN, 2), rank, world)
        expected = FlatParameters(Transformer(PLAIN, 1), rank, world)
        before = [stack.all_weights.clone() for stack in parameters.stacks]
        parameters.load_own(saved)
        for stack, other, old in zip(parameters.stacks, expected.stacks, before, strict=True):
            assert torch.equal(stack.weights, other.weights)
            stack.all_weights[:, rank] = old[:, rank]
            assert torch.equal(stack.all_weights, old)
