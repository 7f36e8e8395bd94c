"""The chunked loss is the plain cross-entropy: values, gradients, ignored targets, and the tied
weight's two roles.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.examples import examples

from groundup.model import cross_entropy
from groundup.model.config import ModelConfig
from groundup.model.cross_entropy import cross_entropy_sum
from groundup.model.transformer import Transformer, token_log_probabilities


@examples(30)
@given(
    rows=st.integers(1, 700),
    vocab=st.integers(2, 50),
    seed=st.integers(0, 99),
    ignored=st.floats(0, 1),
)
def test_values_and_gradients_equal_plain_cross_entropy(
    rows: int, vocab: int, seed: int, ignored: float
) -> None:
    # Protects: chunking (256 rows and more here) and the early gradient change nothing, whatever
    # counts.
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(vocab, 8, generator=generator).requires_grad_()
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[torch.rand(rows, generator=generator) < ignored] = cross_entropy.IGNORED

    def plain() -> torch.Tensor:
        return F.cross_entropy(
            x @ weight.T, targets, ignore_index=cross_entropy.IGNORED, reduction="sum"
        )

    expected = torch.autograd.grad(plain() * 0.5, (x, weight))
    loss = cross_entropy_sum(x, weight, targets)
    found = torch.autograd.grad(loss * 0.5, (x, weight))
    assert torch.allclose(loss, plain(), rtol=1e-5, atol=1e-4)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.allclose(cross_entropy_sum(x, weight, targets), plain(), rtol=1e-5, atol=1e-4)


def test_tied_weights_get_the_gradient_of_both_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: the embedding learns from what it reads and from what it predicts.
    monkeypatch.setitem(cross_entropy.CHUNK_ELEMENTS, "cpu", 1)
    config = ModelConfig(
        vocab_size=31,
        layers=1,
        width=16,
        heads=1,
        kv_heads=1,
        head_width=16,
        feed_forward=32,
        context=400,
    )
    model = Transformer(config, 1)
    tokens = torch.randint(0, 31, (2, 401), generator=torch.Generator().manual_seed(1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    weights = list(model.parameters())
    found = torch.autograd.grad(model.loss(inputs, targets), weights)
    plain = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    for a, b in zip(found, torch.autograd.grad(plain, weights), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_bf16_stays_near_fp32() -> None:
    # Protects: the sum over rows is taken in float32 under autocast.
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 32, generator=generator).requires_grad_()
    weight = torch.randn(64, 32, generator=generator).requires_grad_()
    targets = torch.randint(0, 64, (3000,), generator=generator)
    exact = cross_entropy_sum(x, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = cross_entropy_sum(x, weight, targets)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, rtol=5e-3)
    wanted, found = torch.autograd.grad(exact, weight)[0], torch.autograd.grad(rounded, weight)[0]
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_token_log_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: scores equal log softmax, batch by batch, padding on the right changes nothing, and
    # the mode is put back.
    monkeypatch.setattr("groundup.model.transformer.BATCH_TOKENS", 40)
    config = ModelConfig(
        vocab_size=31,
        layers=1,
        width=16,
        heads=1,
        kv_heads=1,
        head_width=16,
        feed_forward=32,
        context=16,
        dropout=0.5,
    )
    model = Transformer(config, 1).train()
    tokens = torch.randint(0, 31, (7, 17), generator=torch.Generator().manual_seed(1))
    found = token_log_probabilities(model, tokens)
    assert model.training and found.shape == (7, 16) and found.dtype == torch.float32
    model.eval()
    wanted = (
        torch.log_softmax(model(tokens[:, :-1]), dim=-1).gather(2, tokens[:, 1:, None]).squeeze(2)
    )
    assert torch.allclose(found, wanted, atol=1e-5)
    padded = tokens.clone()
    padded[:, 9:] = 0
    assert torch.allclose(token_log_probabilities(model, padded)[:, :8], wanted[:, :8], atol=1e-5)
    assert token_log_probabilities(model, tokens[:, :1]).shape == (7, 0)
