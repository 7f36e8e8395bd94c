"""Models of other programs: Qwen3 and Llama as transformers writes them are the same function here,
and written back the same there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.helpers.hf_models import edit, write_model

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import (
    check_weights,
    from_hf,
    load_model,
    parameter_shapes,
    read_config,
    save_model,
    to_hf,
)
from groundup.model.kv_cache import SlotCache
from groundup.model.transformer import Transformer
from groundup.train.optimizer import FlatParameters

LAYOUTS = [(layout, tied) for layout in ("qwen3", "llama") for tied in (True, False)]


def tokens_for(vocab_size: int, batch: int = 3, length: int = 40) -> torch.Tensor:
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("layout", "tied"), LAYOUTS)
def test_logits_gradients_and_cache(tmp_path: Path, layout: str, tied: bool) -> None:
    # Protects: what is gone on from is the model that the folder holds: grouped heads of a width of
    # their own, any base and epsilon.
    theirs = write_model(
        tmp_path,
        layout,
        tied,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )
    ours, tokens = load_model(tmp_path), tokens_for(640)
    assert (
        ours.config.layout,
        ours.config.tied,
        ours.config.rope_theta,
        ours.config.norm_epsilon,
    ) == (layout, tied, 500_000.0, 1e-5)
    with torch.no_grad():
        logits, wanted = ours(tokens), theirs(tokens).logits
        assert float((logits - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
        cache, ends = SlotCache(ours.config, 3, torch.empty(0)), ((0, 7), (7, 8), (8, 9), (9, 40))
        steps = [cache.rows([0, 1, 2], [start] * 3, [end - start] * 3) for start, end in ends]
        pairs = zip(tokens.split([7, 1, 1, 31], dim=1), steps, strict=True)
        parts = torch.cat([ours(part, rows) for part, rows in pairs], dim=1)
        assert float((parts - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    ours.train().loss(tokens[:, :-1], tokens[:, 1:]).backward()
    theirs(tokens, labels=tokens).loss.backward()
    gradients = dict(theirs.named_parameters())
    assert {name for name, _ in ours.named_parameters()} == gradients.keys()
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradients[name].grad, atol=1e-4), name


@pytest.mark.parametrize(("layout", "tied"), LAYOUTS)
def test_written_back_it_stays_what_it_was(tmp_path: Path, layout: str, tied: bool) -> None:
    # Protects: a checkpoint of a Llama is a Llama to other programs, with a head of its own where
    # it had one.
    transformers = pytest.importorskip("transformers")
    write_model(tmp_path / "in", layout, tied)
    (tmp_path / "out").mkdir()
    save_model(tmp_path / "out", load_model(tmp_path / "in"))
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert (
        type(theirs).__name__ == {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[layout]
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.config.bos_token_id is None and theirs.config.eos_token_id is None
    with torch.no_grad():
        tokens = tokens_for(640)
        assert torch.allclose(theirs(tokens).logits, load_model(tmp_path / "in")(tokens), atol=1e-4)
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) != tied


@given(
    st.sampled_from(["qwen3", "llama"]),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_sizes_are_counted_as_they_are(
    layout: Any, tied: bool, layers: int, groups: int, per_group: int
) -> None:
    # Protects: plans and reports count what there is, and a config.json says it again.
    config = ModelConfig(
        50, layers, 16, groups * per_group, groups, 6, 24, 32, layout=layout, tied=tied
    )
    model = Transformer(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.parameter_count()
    assert {
        name: tuple(weight.shape) for name, weight in model.named_parameters()
    } == parameter_shapes(config)
    assert from_hf(to_hf(config)) == config
    assert config.key_settings() | {"layout": layout, "tied": tied} == {
        n: getattr(config, n) for n in ModelConfig.__dataclass_fields__
    }


def test_a_head_of_its_own_learns_with_the_embedding() -> None:
    # Protects: Muon is for the matrices inside the layers; the head, a table of tokens, is AdamW's.
    config = ModelConfig(50, 1, 16, 1, 1, 16, 24, 32, layout="llama", tied=False)
    stacks = FlatParameters(Transformer(config)).stacks
    assert [stack.names for stack in stacks if stack.kind == "embedding"] == [
        ("model.embed_tokens.weight", "lm_head.weight")
    ]
    assert all("lm_head.weight" not in stack.names for stack in stacks if stack.kind != "embedding")


def test_numbered_parts_half_precision_and_old_names(tmp_path: Path) -> None:
    # Protects: large models come in parts, mostly in bfloat16; old Llama folders name fewer sizes
    # and carry angles along.
    theirs = write_model(tmp_path, shard="100KB", num_key_value_heads=4, head_dim=16)
    assert (
        len(list(tmp_path.glob("model-*.safetensors"))) > 1
        and not (tmp_path / "model.safetensors").exists()
    )
    for path in tmp_path.glob("model-*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    first = sorted(tmp_path.glob("model-*.safetensors"))[0]
    save_file(
        load_file(first) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}, first
    )
    table = json.loads((tmp_path / "config.json").read_text())
    for name in ("num_key_value_heads", "head_dim", "rope_parameters", "rms_norm_eps"):
        table.pop(name)
    (tmp_path / "config.json").write_text(
        json.dumps(table | {"rope_theta": 10_000.0, "rope_scaling": None, "mlp_bias": None})
    )
    ours, tokens = load_model(tmp_path), tokens_for(640)
    assert ours.head_weight.dtype == torch.float32
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(weight.bfloat16())
        assert torch.allclose(ours(tokens), theirs(tokens).logits, atol=1e-4)


REFUSED: dict[str, Any] = {
    "model_type": "mistral",
    "architectures": ["LlamaForSequenceClassification"],
    "hidden_act": "gelu",
    "attention_bias": True,
    "mlp_bias": True,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0},
    "partial_rotary_factor": 0.5,
    "use_sliding_window": True,
    "layer_types": ["full_attention", "sliding_attention"],
    "quantization_config": {"quant_method": "gptq"},
    "auto_map": {"AutoModelForCausalLM": "own.Own"},
    "num_hidden_layers": 10**9,
    "hidden_size": "wide",
    "vocab_size": None,
    "head_dim": 7,
    "num_key_value_heads": 3,
    "rms_norm_eps": "small",
    "tie_word_embeddings": "no",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_lacking_is_refused_by_name_and_file(tmp_path: Path, name: str) -> None:
    # Protects: a foreign model is never loaded as something that it is not, and the user knows
    # which line of which file it is.
    config = ModelConfig(50, 2, 16, 2, 1, 8, 24, 32, layout="llama", tied=False)
    (tmp_path / "config.json").write_text(json.dumps(to_hf(config) | {name: REFUSED[name]}))
    said = {"num_key_value_heads": "kv_heads", "head_dim": "head_width"}.get(name, name)
    with pytest.raises(GroundupError, match=rf"config\.json: .*{said}") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"model_type": "llama"}',
        "[" * 100_000,
        '{"model_type": ["llama"], "layer_types": 3}',
    ],
)
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    # Protects: garbage is one line.
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(GroundupError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def lose(tensors: dict[str, torch.Tensor]) -> None:
    tensors.pop("model.norm.weight")


def quantise(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)


def bias(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(8)


def turn(tensors: dict[str, torch.Tensor]) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T.contiguous()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose, "model.norm.weight is missing"),
        (quantise, "I8; quantized"),
        (bias, "q_proj.bias is unknown"),
        (turn, "has the shape"),
    ],
)
def test_weights_that_are_not_those_of_the_sizes(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    # Protects: found from the headers alone, before anything is computed.
    model = Transformer(ModelConfig(50, 1, 16, 1, 1, 16, 24, 32, layout="llama", tied=False))
    save_model(tmp_path, model)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(GroundupError, match=said):
        check_weights(tmp_path, model.config)


def test_pickles_are_never_opened_and_indexes_stay_beside(tmp_path: Path) -> None:
    # Protects: guarantee 11: no artifact is unpickled, and no index leads out of its folder.
    model = Transformer(ModelConfig(50, 1, 16, 1, 1, 16, 24, 32))
    save_model(tmp_path, model)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(GroundupError, match="nothing but safetensors is opened"):
        load_model(tmp_path)
    tables: tuple[dict[str, object], ...] = (
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": {"a": 3}},
        {"weight_map": []},
        {},
    )
    for table in tables:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table))
        with pytest.raises(GroundupError, match=r"index\.json: weight_map"):
            load_model(tmp_path)
    edit(tmp_path / "model.safetensors.index.json", weight_map={"a": "part.safetensors"})
    with pytest.raises(GroundupError, match=r"part\.safetensors: there is no such file"):
        load_model(tmp_path)
