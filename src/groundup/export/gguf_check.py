"""Reads a GGUF file back and compares it with the model: every weight, size, token and merge.

That is the first check of a GGUF file. The second is what llama.cpp makes of it (llamacpp.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from groundup.errors import GroundupError
from groundup.export.gguf import (
    fields,
    interleaved_heads,
    stored_type,
    tensor_names,
    tensors,
    written_merges,
)
from groundup.export.parity import log_probabilities
from groundup.export.source_model import WEIGHTS, SourceModel
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

# Values in a block of q8_0, and steps between 0 and the largest of them; the step is kept as f16.
BLOCK, LEVELS = 32, 127
# Token types in a GGUF file.
CONTROL, USER_DEFINED = 3, 4


def check_file(
    path: Path, source: SourceModel, gguf_type: str
) -> tuple[Transformer, dict[str, Any]]:
    """Compare a GGUF file with the folder that it was made from.

    Returns:
        The model that the file holds, rounded as it is there, and what was compared.

    Raises:
        GroundupError: something differs; the file must not be used.
    """
    table = fields(path)
    compare_sizes(table, source.config)
    compare_vocabulary(table, source)
    model = Transformer(dataclasses.replace(source.config, dropout=0.0)).eval()
    types = _load_weights(path, source, gguf_type, model)
    tokens, merges = source.vocabulary
    return model, {"tokens": len(tokens), "merges": len(merges), "tensors": types}


def compare_sizes(table: Mapping[str, Any], config: ModelConfig) -> None:
    """Compare the sizes in the metadata with those of the model.

    Raises:
        GroundupError: naming the first difference.
    """
    sizes = {
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.width,
        "feed_forward_length": config.feed_forward,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "rope.dimension_count": config.head_width,
        "rope.freq_base": _float32(config.rope_theta),
        "attention.layer_norm_rms_epsilon": _float32(config.norm_epsilon),
        "vocab_size": config.vocab_size,
    }
    expected: dict[str, Any] = {"general.architecture": config.layout}
    expected |= {f"{config.layout}.{name}": value for name, value in sizes.items()}
    _compare_fields(table, expected)


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def compare_vocabulary(table: Mapping[str, Any], source: SourceModel) -> None:
    """Compare tokens, merges, special ids, pre-tokenizer and chat template with the tokenizer.

    Raises:
        GroundupError: naming the first difference.
    """
    tokens, merges = source.vocabulary
    tokenizer = source.tokenizer
    expected: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": tokenizer.splitter,
        "tokenizer.ggml.bos_token_id": tokenizer.end_id,
        "tokenizer.ggml.eos_token_id": source.eos,
        "tokenizer.ggml.padding_token_id": tokenizer.end_id,
        "tokenizer.ggml.add_bos_token": False,
    }
    if source.template:
        expected["tokenizer.chat_template"] = source.template
        expected["tokenizer.ggml.eot_token_id"] = tokenizer.stop_id
    _compare_fields(table, expected)
    stored = table.get("tokenizer.ggml.tokens", [])[: len(tokens)]
    # An unused id has a made-up name in the file.
    named = [name if token else "" for name, token in zip(stored, tokens, strict=False)]
    _compare_lists("tokens", named, tokens)
    stored = table.get("tokenizer.ggml.merges", [])
    _compare_lists("merges", stored, written_merges(merges, tokenizer.end))
    types = table.get("tokenizer.ggml.token_type") or []
    for title, token_type, names in (
        ("special tokens", CONTROL, tokenizer.specials),
        ("added tokens", USER_DEFINED, tokenizer.whole_words),
    ):
        of_type = [token for token, t in zip(tokens, types, strict=False) if t == token_type]
        _compare_lists(title, sorted(of_type), sorted(names))


def _compare_fields(table: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if table.get(name) != value:
            raise GroundupError(
                f"export: the GGUF file says {name} = {str(table.get(name))[:80]!r}, the model"
                f" {str(value)[:80]!r}"
            )


def _compare_lists(name: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Compare long lists; the message does not show 50,000 entries."""
    if list(found) != list(expected):
        pairs = enumerate(zip(found, expected, strict=False))
        shorter = min(len(found), len(expected))
        first = next((n for n, (one, other) in pairs if one != other), shorter)
        raise GroundupError(
            f"export: the GGUF file holds other {name} than the tokenizer; the first that differs"
            f" is number {first}"
        )


def _load_weights(
    path: Path, source: SourceModel, gguf_type: str, model: Transformer
) -> dict[str, int]:
    """Compare every tensor with the checkpoint's, and copy it into `model`.

    Returns:
        The number of tensors of each type.

    Raises:
        GroundupError: a tensor is missing, of another type or shape, or further from the checkpoint
            than its type allows.
    """
    missing = {theirs: ours for ours, theirs in tensor_names(source.config).items()}
    parameters = dict(model.named_parameters())
    types: dict[str, int] = {}
    with safe_open(source.path / WEIGHTS, "pt") as file, torch.no_grad():
        for name, stored, values in tensors(path):
            if name not in missing:
                raise GroundupError(
                    f"export: the GGUF file holds {name}, a tensor that the model lacks or one that"
                    " is there twice"
                )
            ours = missing.pop(name)
            weight = file.get_tensor(ours).float()
            expected = stored_type(gguf_type, weight.shape)
            if stored != expected:
                raise GroundupError(f"export: {name} is stored as {stored}, not as {expected}")
            heads = interleaved_heads(source.config, ours)
            found = _separate_rows(torch.from_numpy(values.copy()), heads)
            compare_weight(name, stored, weight, found)
            parameters[ours].copy_(found)
            types[stored] = types.get(stored, 0) + 1
    if missing:
        raise GroundupError(f"export: the GGUF file lacks {', '.join(sorted(missing))[:200]}")
    return types


def _separate_rows(weight: Tensor, heads: int) -> Tensor:
    """Undo `gguf.interleave_rows`, by another implementation than that."""
    if not heads:
        return weight
    return torch.cat([head[start::2] for head in weight.chunk(heads) for start in (0, 1)])


def compare_weight(name: str, gguf_type: str, weight: Tensor, found: Tensor) -> None:
    """Compare one tensor with the checkpoint's: exactly, after rounding if the type rounds.

    f16 and bf16 are compared with PyTorch's rounding, not with that which wrote them.

    Raises:
        GroundupError: it differs.
    """
    if weight.shape != found.shape:
        raise GroundupError(
            f"export: {name} has the shape {tuple(found.shape)}, not {tuple(weight.shape)}"
        )
    if gguf_type == "q8_0":
        wrong = (weight - found).abs() > q8_0_bound(weight)
    else:
        dtypes = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
        wrong = weight.to(dtypes[gguf_type]).float() != found
    if bool(wrong.any()) or not bool(found.isfinite().all()):
        raise GroundupError(
            f"export: {int(wrong.sum())} of {wrong.numel()} weights of {name} are not those of the"
            " checkpoint"
        )


def q8_0_bound(weight: Tensor) -> Tensor:
    """Return how far q8_0 may move each weight.

    That is half a step, plus the rounding of the step to f16 times 127 steps. The step of a block
    is its largest weight over 127; f16 keeps it to 2^-11 of itself, or 2^-25 if it is subnormal.
    """
    blocks = weight.reshape(-1, BLOCK).abs()
    step = blocks.max(dim=1, keepdim=True).values / LEVELS
    bound = step * (0.5 + LEVELS * 2.0**-11) + LEVELS * 2.0**-25
    return (bound * 1.001).expand_as(blocks).reshape(weight.shape)


def rounding_effect(
    model: Transformer, stored: Transformer, rows: Sequence[Tensor]
) -> dict[str, float]:
    """Return how far the rounding of weights moved the model, over all positions of `rows`.

    Those are the mean Kullback-Leibler divergence (nats a token) of the file's model from the
    checkpoint's, the largest difference of a log-probability, and the share of positions whose most
    probable token is the same.
    """
    divergence, difference, same = 0.0, 0.0, 0
    for row in rows:
        before, after = log_probabilities(model, row), log_probabilities(stored, row)
        divergence += float((before.exp() * (before - after)).sum())
        difference = max(difference, float((before - after).abs().max()))
        same += int((before.argmax(-1) == after.argmax(-1)).sum())
    positions = sum(map(len, rows))
    return {
        "rounding_divergence": divergence / positions,
        "rounding_max_difference": difference,
        "rounding_same": same / positions,
    }
