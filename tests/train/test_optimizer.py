"""AdamW and Muon step like their references; the schedule has the shape of the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.helpers.token_run import CONFIG
from torch import nn

from groundup.errors import GroundupError, RecipeError
from groundup.flow import run_flow
from groundup.model.transformer import Transformer
from groundup.plan import make_plan
from groundup.recipe import Recipe, Source, Train
from groundup.train.optimizer import FlatParameters, Optimizer, lr_scale, orthogonalize


def gradients_for(model: nn.Module, number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {
        name: torch.randn(weight.shape, generator=generator)
        for name, weight in model.named_parameters()
    }


def trained(family: str, steps: int = 4) -> tuple[Transformer, Optimizer]:
    model = Transformer(CONFIG, 1)
    optimizer = Optimizer(FlatParameters(model), family, weight_decay=0.1)
    for number in range(steps):
        take(model, optimizer, number)
    return model, optimizer


def take(model: Transformer, optimizer: Optimizer, number: int) -> None:
    for name, gradient in gradients_for(model, number).items():
        kept = model.get_parameter(name).grad
        assert kept is not None
        kept.copy_(gradient)
    optimizer.step(learning_rate=0.01, muon_learning_rate=0.02)


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    return weight.ndim == 2 and "embed" not in name


def test_adamw_equals_torch() -> None:
    # Protects: bias correction, epsilon, betas and decoupled decay (none on norms), over stacked
    # weights.
    ours, _ = trained("adamw")
    theirs = Transformer(CONFIG, 1)
    norms = [weight for weight in theirs.parameters() if weight.ndim == 1]
    others = [weight for weight in theirs.parameters() if weight.ndim == 2]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for number in range(4):
        for name, gradient in gradients_for(theirs, number).items():
            theirs.get_parameter(name).grad = gradient
        reference.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_muon_equals_torch_up_to_its_bf16() -> None:
    # Protects: Nesterov momentum, the scale by shape and the decay; torch orthogonalises in
    # bfloat16 only.
    ours, _ = trained("muon", steps=1)
    theirs = Transformer(CONFIG, 1)
    start = {name: weight.detach().clone() for name, weight in theirs.named_parameters()}
    matrices = {
        name: weight for name, weight in theirs.named_parameters() if is_matrix(name, weight)
    }
    reference = torch.optim.Muon(
        matrices.values(),
        lr=0.02,
        weight_decay=0.1,
        momentum=0.95,
        nesterov=True,
        adjust_lr_fn="original",
    )
    for name, gradient in gradients_for(theirs, 0).items():
        theirs.get_parameter(name).grad = gradient
    reference.step()
    for name, weight in matrices.items():
        moved, wanted = ours.get_parameter(name) - start[name], weight - start[name]
        assert (moved - wanted).norm() < 0.03 * wanted.norm(), name


def test_muon_steps_follow_a_plain_loop() -> None:
    # Protects: stacking: each matrix is updated as if it were alone, tall and wide ones, over
    # several steps.
    ours, _ = trained("muon", steps=3)
    model = Transformer(CONFIG, 1)
    for name, weight in model.named_parameters():
        if is_matrix(name, weight):
            w, m = weight.detach().double(), torch.zeros_like(weight, dtype=torch.double)
            for number in range(3):
                g = gradients_for(model, number)[name].double()
                m = 0.95 * m + 0.05 * g
                x = 0.05 * g + 0.95 * m
                x = x / x.norm()
                for _ in range(5):
                    x = 3.4445 * x + (-4.7750 * (x @ x.T) + 2.0315 * (x @ x.T) @ (x @ x.T)) @ x
                w = w * (1 - 0.02 * 0.1) - 0.02 * max(1, w.shape[0] / w.shape[1]) ** 0.5 * x
            assert torch.allclose(ours.get_parameter(name).double(), w, atol=1e-5), name


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8)])
def test_orthogonal_up_to_the_iteration(shape: tuple[int, ...]) -> None:
    # Protects: all singular values of an update lie near one, whatever those of the gradient.
    stack = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(stack))
    assert values.min() > 0.4 and values.max() < 1.3
    assert torch.isfinite(orthogonalize(torch.zeros(shape))).all()


@pytest.mark.parametrize("family", ["muon", "adamw"])
def test_state_round_trip(family: str) -> None:
    # Protects: a resumed optimizer goes on exactly as one that never stopped.
    model, optimizer = trained(family)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    take(model, optimizer, 9)
    other = Transformer(CONFIG, 2)
    again = Optimizer(FlatParameters(other), family, weight_decay=0.1)
    other.load_state_dict(weights)
    again.load_state_dict(saved)
    take(other, again, 9)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_a_foreign_state_is_refused() -> None:
    # Protects: the state of one optimizer is never taken for that of another.
    _, muon = trained("muon", steps=1)
    _, adamw = trained("adamw", steps=1)
    with pytest.raises(GroundupError, match="another"):
        adamw.load_state_dict(muon.state_dict())


def test_flat_parameters_are_the_model() -> None:
    # Protects: the buffers are the weights and gradients, not copies of them.
    model = Transformer(CONFIG, 1)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    flat = FlatParameters(model)
    assert flat.weights.numel() == CONFIG.parameter_count()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    tokens = torch.arange(16)[None]
    model.loss(tokens, tokens + 1).backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert len(gradients) == len(before)
    assert float(flat.grad_norm()) == pytest.approx(
        float(torch.stack([gradient.norm() for gradient in gradients]).norm()), rel=1e-5
    )
    flat.weights.zero_()
    assert all(not weight.any() for weight in model.parameters())
    flat.zero_grad()
    assert not any(gradient.any() for gradient in gradients)


def test_schedule() -> None:
    # Protects: the peak comes after the warm-up, the end is the share that was asked for, and it
    # never leaves that range.
    rates = [lr_scale(step, 100, 10, 0.1) for step in range(100)]
    assert (
        rates[0] == pytest.approx(0.1)
        and rates[9] == 1 == max(rates)
        and rates[99] == pytest.approx(0.1)
    )
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert lr_scale(0, 1, 2000, 0.1) > 0 and lr_scale(500, 100, 10, 0.1) == pytest.approx(0.1)
    assert lr_scale(4, 10, 100, 0.1) == 1


def test_an_unknown_optimizer_is_refused_before_any_work(tmp_path: Path) -> None:
    # Protects: `plan` and `run` say which names there are, and nothing is read or built.
    (tmp_path / "a.txt").write_text("text")
    train = Train(optimizer="mun")
    recipe = Recipe(source=(Source(str(tmp_path / "a.txt")),), train=train)
    line = r'^\[train\] optimizer: "mun" is not one of muon, adamw$'
    with pytest.raises(RecipeError, match=line):
        make_plan(recipe, root=tmp_path / "run")
    with pytest.raises(RecipeError, match=line):
        run_flow(recipe, tmp_path / "run", until="collect")
    assert not (tmp_path / "run" / "collect").exists()
