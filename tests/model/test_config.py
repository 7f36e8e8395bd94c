"""Presets have the sizes that their names promise; impossible ones are recipe errors; operations
are counted right.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import GroundupError, RecipeError
from groundup.model.config import PRESETS, ModelConfig, resolve
from groundup.model.hf_io import from_hf, to_hf
from groundup.model.transformer import Transformer
from groundup.recipe import Model


@pytest.mark.parametrize(("name", "count"), [("300m", 300e6), ("500m", 500e6), ("3b", 2.97e9)])
def test_named_sizes_are_counted(name: str, count: float) -> None:
    # Protects: "300m" is 300M parameters within 2 % at the vocabulary of the reference job.
    assert abs(resolve(Model(preset=name), 50_000, 1).parameter_count() / count - 1) < 0.02


def test_heads_cover_the_width() -> None:
    # Protects: every preset runs where heads must be 64 or 128 wide, and has as many as its width
    # wants.
    for name in PRESETS:
        config = resolve(Model(preset=name), 50_000, 1)
        assert config.heads * config.head_width == config.width, name
        assert config.head_width in (64, 128)


def test_auto_grows_with_the_text() -> None:
    # Protects: more text never picks a smaller model, and a CPU is not given a large one unasked.
    counts = [
        resolve(Model(), 8000, tokens, gpu=True).parameter_count()
        for tokens in (10**4, 10**6, 10**8, 10**10)
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1]
    assert resolve(Model(), 8000, 10**12).width == PRESETS["starter"].width


def test_explicit_sizes_override_the_preset() -> None:
    # Protects: a recipe that changes the width need not recompute the heads.
    config = resolve(Model(preset="small", width=256, layers=3, kv_heads=2), 4096, 1)
    assert (config.width, config.heads, config.kv_heads, config.layers) == (256, 4, 2, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "starer"},
        {"width": 100},
        {"heads": 3, "kv_heads": 2},
        {"head_width": 63, "width": 63, "heads": 1},
    ],
)
def test_impossible_sizes_are_recipe_errors(wrong: dict[str, object]) -> None:
    # Protects: one clear line instead of a shape error in the first step.
    with pytest.raises(RecipeError, match=r"\[model\]"):
        resolve(Model(**({"preset": "starter"} | wrong)), 4096, 1)  # type: ignore[arg-type]


def test_flops_are_those_that_torch_counts() -> None:
    # Protects: utilization figures. torch counts attention in full, so it is compared over the same
    # positions.
    config = ModelConfig(
        vocab_size=64,
        layers=2,
        width=32,
        heads=2,
        kv_heads=1,
        head_width=16,
        feed_forward=48,
        context=64,
    )
    model = Transformer(config)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(torch.zeros(1, 64, dtype=torch.long))
    attention = 4 * config.heads * config.head_width * config.layers
    forward = config.flops_per_token() / 3 - attention * (64 + 1) / 2 + attention * 64
    assert counter.get_total_flops() == pytest.approx(64 * forward)


sizes = st.integers(1, 6)


@given(
    sizes, sizes, sizes, sizes, st.sampled_from([2, 16, 64]), st.floats(0, 0.9), st.floats(100, 1e6)
)
def test_config_round_trips(
    layers: int, width: int, groups: int, per_group: int, head: int, dropout: float, theta: float
) -> None:
    # Protects: nothing of a model's sizes is lost in config.json, in either of transformers'
    # layouts.
    config = ModelConfig(
        99, layers, width * 8, groups * per_group, groups, head, 24, 40, dropout, theta
    )
    table = to_hf(config)
    assert from_hf(table) == config
    new_layout = {k: v for k, v in table.items() if k not in ("rope_theta", "rope_scaling")}
    new_layout["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    assert from_hf(new_layout) == config


@pytest.mark.parametrize(
    "change",
    [
        {"tie_word_embeddings": 1},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "yarn"}},
        {"use_sliding_window": True},
        {"head_dim": 7},
    ],
)
def test_what_the_transformer_lacks_is_refused(change: dict[str, object]) -> None:
    # Protects: a foreign folder is never loaded as something that it is not.
    table = to_hf(ModelConfig(99, 1, 16, 1, 1, 16, 24, 40))
    with pytest.raises(GroundupError, match=r"config\.json"):
        from_hf(table | change)


def test_sizes_are_known_without_torch() -> None:
    # Protects: `groundup plan` does not wait two seconds for torch to count parameters.
    code = "import sys, groundup.model.config as c; assert c.PRESETS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
