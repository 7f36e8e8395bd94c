"""Generation: greedy equals a loop without a cache, seeds decide, and a full context slides."""

from __future__ import annotations

import pytest
import torch

from groundup.model.config import ModelConfig
from groundup.model.generate import generate
from groundup.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=40,
    layers=2,
    width=32,
    heads=2,
    kv_heads=1,
    head_width=16,
    feed_forward=64,
    context=16,
    dropout=0.1,
)


@pytest.fixture
def model() -> Transformer:
    model = Transformer(CONFIG, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    return model


def test_greedy_equals_the_plain_loop(model: Transformer) -> None:
    # Protects: the cache, and dropout staying off in a model that is being trained.
    found = list(generate(model.train(), [1, 2, 3], 10, temperature=0))
    assert model.training
    tokens = [1, 2, 3]
    for _ in range(10):
        tokens.append(int(model.eval()(torch.tensor([tokens]))[0, -1].argmax()))
    assert found == tokens[3:]


def test_seeds_decide_and_nothing_else(model: Transformer) -> None:
    # Protects: a sample can be made again, and making one does not touch the generator that
    # training uses.
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(generate(model, [1], 12, temperature=1.0, seed=5))
    assert torch.equal(before, torch.get_rng_state())
    assert first == list(generate(model, [1], 12, temperature=1.0, seed=5))
    assert first != list(generate(model, [1], 12, temperature=1.0, seed=6))


def test_a_full_context_slides(model: Transformer) -> None:
    # Protects: a text may grow beyond the context, and a long prompt is cut on its left.
    found = list(generate(model, [7] * 30 + [1, 2], 40, temperature=0))
    assert len(found) == 40
    assert found[0] == next(generate(model, ([7] * 30 + [1, 2])[-16:], 1, temperature=0))
    # After the first token the context is full: its last half is read again.
    half = [*([7] * 30 + [1, 2])[-7:], found[0]]
    assert found[1] == next(generate(model, half, 1, temperature=0))


def test_stop_is_not_yielded(model: Transformer) -> None:
    # Protects: an end-of-text id ends the text and does not appear in it.
    found = list(generate(model, [1], 12, temperature=1.0, seed=5))
    assert (
        list(generate(model, [1], 12, temperature=1.0, seed=5, stop={found[4]}))
        == found[: found.index(found[4])]
    )


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"min_p": 1.5}]
)
def test_senseless_settings_are_refused(model: Transformer, wrong: dict[str, float]) -> None:
    # Protects: a server can answer a bad request before it starts to generate.
    with pytest.raises(ValueError, match="must"):
        generate(model, [1], 5, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no tokens"):
        generate(model, [], 5)


def test_scores_that_are_not_numbers_are_an_error(model: Transformer) -> None:
    # Protects: a model that broke says so, where the most probable token of nothing would be drawn.
    with torch.no_grad():
        model.head_weight[3] = torch.nan
    with pytest.raises(FloatingPointError, match="not numbers"):
        next(generate(model, [1], 5))
