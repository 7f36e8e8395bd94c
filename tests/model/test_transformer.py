"""The transformer is Qwen3: same logits and gradients as transformers' own code, cached or not,
after a round trip on disk.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import load_model, save_model
from groundup.model.kv_cache import SlotCache
from groundup.model.transformer import Transformer

PLAIN = ModelConfig(
    vocab_size=97,
    layers=2,
    width=48,
    heads=3,
    kv_heads=3,
    head_width=16,
    feed_forward=80,
    context=32,
)
GROUPED = ModelConfig(
    97,
    layers=3,
    width=64,
    heads=4,
    kv_heads=2,
    head_width=32,
    feed_forward=96,
    context=40,
    rope_theta=5000.0,
)


def stirred(config: ModelConfig, seed: int = 3) -> Transformer:
    """A model none of whose weights is zero or one, so that no term can hide."""
    model = Transformer(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model


def tokens_for(config: ModelConfig, batch: int = 3) -> torch.Tensor:
    return torch.randint(
        0, config.vocab_size, (batch, config.context), generator=torch.Generator().manual_seed(5)
    )


@pytest.mark.parametrize("config", [PLAIN, GROUPED], ids=["plain", "grouped"])
def test_logits_and_gradients_equal_those_of_transformers(
    config: ModelConfig, tmp_path: Path
) -> None:
    # Protects: a model that was trained here is the same function in every program that knows
    # Qwen3.
    transformers = pytest.importorskip("transformers")
    ours = stirred(config)
    save_model(tmp_path, ours)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    tokens = tokens_for(config)
    assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-4)

    ours.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    theirs(tokens, labels=tokens).loss.backward()
    gradients = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradients[name].grad, atol=1e-4), name


def test_parameter_names_and_count(tmp_path: Path) -> None:
    # Protects: the count that plans and reports show is the true one, and the tied head is written
    # once.
    model = Transformer(GROUPED)
    assert sum(weight.numel() for weight in model.parameters()) == GROUPED.parameter_count()
    assert "lm_head.weight" not in model.state_dict()
    assert "model.layers.0.self_attn.q_norm.weight" in model.state_dict()


def test_round_trip_on_disk(tmp_path: Path) -> None:
    # Protects: what is loaded is what was saved, its sizes and dropout too.
    config = ModelConfig(97, 2, 48, 3, 3, 16, 80, 32, dropout=0.25)
    model = stirred(config)
    save_model(tmp_path, model)
    loaded = load_model(tmp_path)
    assert loaded.config == config and not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True)
    )
    assert load_model(tmp_path, dtype=torch.bfloat16)(tokens_for(config)).dtype == torch.bfloat16


def test_damaged_or_foreign_folders_are_one_clear_line(tmp_path: Path) -> None:
    # Protects: a torn file, a missing one and another architecture are named, without a traceback.
    with pytest.raises(GroundupError, match=r"config\.json"):
        load_model(tmp_path)
    save_model(tmp_path, Transformer(PLAIN))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GroundupError, match="cannot be read as a model"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    table = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(table | {"hidden_size": 64}))
    with pytest.raises(GroundupError, match="does not fit"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(table | {"model_type": "gemma"}))
    with pytest.raises(GroundupError, match="only qwen3 and llama"):
        load_model(tmp_path)


@pytest.mark.parametrize("config", [PLAIN, GROUPED], ids=["plain", "grouped"])
@pytest.mark.parametrize("pieces", [[32], [1] * 8, [5, 3, 1, 7]])
def test_cache_gives_the_logits_of_a_whole_pass(config: ModelConfig, pieces: list[int]) -> None:
    # Protects: reading a text in pieces is reading it at once.
    model = stirred(config).eval()
    tokens = tokens_for(config, batch=2)[:, : sum(pieces)]
    cache, starts = SlotCache(config, 2, torch.empty(0)), accumulate([0, *pieces])
    with torch.no_grad():
        parts = [
            model(part, cache.rows([0, 1], [start] * 2, [size] * 2))
            for part, start, size in zip(tokens.split(pieces, dim=1), starts, pieces, strict=False)
        ]
        assert torch.allclose(torch.cat(parts, dim=1), model(tokens), atol=1e-5)


def test_a_position_never_sees_what_follows_it() -> None:
    # Protects: the loss is a prediction.
    model = stirred(PLAIN).eval()
    tokens = tokens_for(PLAIN, batch=1)
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % PLAIN.vocab_size
    assert torch.equal(model(tokens)[:, :20], model(changed)[:, :20])


def test_more_positions_than_the_context_are_refused() -> None:
    # Protects: rotary angles are never made up beyond the table.
    with pytest.raises(ValueError, match="do not fit"):
        Transformer(PLAIN)(torch.zeros(1, PLAIN.context + 1, dtype=torch.long))


def test_dropout_works_in_training_only_and_follows_the_seed() -> None:
    # Protects: evaluation is deterministic, and training is too once seeded.
    model = stirred(ModelConfig(97, 2, 48, 3, 3, 16, 80, 32, dropout=0.3))
    tokens = tokens_for(PLAIN)
    torch.manual_seed(1)
    first = model(tokens)
    torch.manual_seed(1)
    assert torch.equal(first, model(tokens))
    assert not torch.equal(first, model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    # Protects: two machines begin at the same point; a fresh model predicts nearly uniformly.
    torch.manual_seed(9)
    first = Transformer(PLAIN, 1).state_dict()
    torch.manual_seed(10)
    second = Transformer(PLAIN, 1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["model.embed_tokens.weight"],
        Transformer(PLAIN, 2).state_dict()["model.embed_tokens.weight"],
    )


def test_a_residual_stream_in_bf16_stays_close() -> None:
    # Protects: weights and their gradients stay in float32 while all products are in bf16.
    model = Transformer(PLAIN, 1)
    tokens_BT = torch.arange(32).view(2, 16)
    losses = []
    for residual in (None, torch.bfloat16):
        model.residual = residual
        assert model(tokens_BT).dtype == (residual or torch.float32)
        loss = model.loss(tokens_BT, tokens_BT)
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    grads = [weight.grad for weight in model.parameters()]
    assert {grad.dtype for grad in grads if grad is not None} == {torch.float32}
