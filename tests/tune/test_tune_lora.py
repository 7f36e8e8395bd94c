"""LoRA: it starts as the model that it is put into, merges into the same function, and PEFT reads
what is saved.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.helpers.talking import CONTEXT, stirred, talks

from groundup.artifacts.tokenizer import Tokenizer
from groundup.model.hf_io import save_model
from groundup.model.transformer import Transformer
from groundup.recipe import Tune
from groundup.train.hardware import Hardware
from groundup.tune.data import Conversation, make_rows
from groundup.tune.finetuner import Finetuner
from groundup.tune.lora import TARGETS, Adapter

TUNE = Tune("lora", epochs=2, learning_rate=1e-2, batch_tokens=2 * CONTEXT, rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def learner(tokenizer: Tokenizer) -> Finetuner:
    """An adapter that has learned something."""
    rows = make_rows(
        (Conversation("a", n, f"#{n}", t) for n, t in enumerate(talks())),
        tokenizer,
        CONTEXT,
        validation=0,
    )
    found = Finetuner(
        stirred(tokenizer.vocab_size), TUNE, Hardware(micro_batch=2), tokenizer.chat_ids, 1
    )
    found.train(rows.train, lambda: None)
    return found


def test_an_adapter_begins_as_nothing(model: Transformer, tokens: torch.Tensor) -> None:
    before = model(tokens)
    Adapter(model, 4, 8.0, (1, 2), seed=1)
    torch.testing.assert_close(model(tokens), before, rtol=0, atol=0)


def test_only_the_adapter_and_the_chat_tokens_learn(
    learner: Finetuner, tokenizer: Tokenizer
) -> None:
    fresh = dict(stirred(tokenizer.vocab_size).named_parameters())
    weights = dict(learner.model.named_parameters())
    moved = {
        name.replace(".base.", "."): weight
        for name, weight in weights.items()
        if name.rpartition(".")[2] not in "ab"
    }
    assert moved.keys() == fresh.keys()
    for name, weight in moved.items():
        if "embed" not in name:
            torch.testing.assert_close(weight, fresh[name], rtol=0, atol=0)
    changed = (
        (moved["model.embed_tokens.weight"] != fresh["model.embed_tokens.weight"])
        .any(1)
        .nonzero()
        .flatten()
        .tolist()
    )
    assert changed == list(tokenizer.chat_ids)
    assert all(bool(layer.b.any()) for layer in learner.adapter._layers.values())  # type: ignore[union-attr]


def test_peft_reads_the_adapter_of_a_head_of_its_own(
    tokenizer: Tokenizer, tokens: torch.Tensor, tmp_path: Path
) -> None:
    """A Llama's head is no embedding: its rows of the chat tokens learn too, and PEFT puts both
    where they belong.
    """
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    rows = make_rows(
        (Conversation("a", n, f"#{n}", t) for n, t in enumerate(talks()[:12])),
        tokenizer,
        CONTEXT,
        validation=0,
    )
    plain = stirred(tokenizer.vocab_size, layout="llama", tied=False)
    save_model(tmp_path, plain)
    tuned = Finetuner(
        stirred(tokenizer.vocab_size, layout="llama", tied=False),
        TUNE,
        Hardware(micro_batch=2),
        tokenizer.chat_ids,
        1,
    )
    tuned.train(rows.train, lambda: None)
    assert tuned.adapter is not None
    (tmp_path / "adapter").mkdir()
    tuned.adapter.save(tmp_path / "adapter", "step-000007")
    tuned.adapter.merge()
    tuned.model.eval()
    for before, after in (
        (plain.model.embed_tokens.weight, tuned.model.model.embed_tokens.weight),
        (plain.head_weight, tuned.model.head_weight),
    ):
        assert (before != after).any(1).nonzero().flatten().tolist() == list(tokenizer.chat_ids)
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path), tmp_path / "adapter"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, tuned.model(tokens), rtol=1e-4, atol=1e-4)


def test_merged_is_the_same_function(tokenizer: Tokenizer, tokens: torch.Tensor) -> None:
    model = stirred(tokenizer.vocab_size)
    plain = {name: weight.shape for name, weight in model.named_parameters()}
    adapter = Adapter(model, 4, 8.0, (1, 2), seed=1)
    with torch.no_grad():
        for weight in adapter.matrices:
            weight.add_(
                0.1
                * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
            )
    before = model(tokens)
    adapter.merge()
    assert {name: weight.shape for name, weight in model.named_parameters()} == plain
    torch.testing.assert_close(model(tokens), before, rtol=1e-4, atol=1e-5)


def test_peft_gives_the_logits_of_the_merged_model(
    learner: Finetuner, tokenizer: Tokenizer, tokens: torch.Tensor, tmp_path: Path
) -> None:
    """Over the untuned model as transformers loads it: what other programs do with the adapter is
    what was learned here.
    """
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    assert learner.adapter is not None
    save_model(tmp_path, stirred(tokenizer.vocab_size))
    (tmp_path / "adapter").mkdir()
    learner.adapter.save(tmp_path / "adapter", "step-000007")
    learner.model.eval()
    theirs = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path), tmp_path / "adapter"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens).logits, learner.model(tokens), rtol=1e-4, atol=1e-4
        )
        merged = theirs.merge_and_unload()(tokens).logits
        torch.testing.assert_close(merged, learner.model(tokens), rtol=1e-4, atol=1e-4)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    # Two matrices for each place, and the chat tokens.
    assert len(saved) == 2 * len(TARGETS) * learner.model.config.layers + 1
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
