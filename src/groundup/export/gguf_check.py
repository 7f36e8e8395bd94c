"""The first gate of a GGUF file: read back, it holds the model. Reads the file and the folder it
was made from; writes nothing.

Every weight, every size, every token and merge. What they mean to llama.cpp is the second gate,
`llamacpp.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from groundup.errors import GroundupError
from groundup.export.gguf import (
    fields,
    stored_as,
    tensor_names,
    tensors,
    turned_heads,
    written_merges,
)
from groundup.export.rounding import log_probabilities
from groundup.export.source_model import WEIGHTS, Origin
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer

# Values in a block of q8_0, which share one scale: the largest of them over 127, kept as f16.
BLOCK, LEVELS = 32, 127
CONTROL, USER_DEFINED = 3, 4


def check_file(path: Path, origin: Origin, kind: str) -> tuple[Transformer, dict[str, Any]]:
    """Compare a GGUF file with the folder that it was made from.

    Returns:
        The model that the file holds, rounded as it is there, and what was compared.

    Raises:
        GroundupError: something differs; the file must not be used.
    """
    table = fields(path)
    compare_sizes(table, origin.config)
    compare_vocabulary(table, origin)
    model = Transformer(dataclasses.replace(origin.config, dropout=0.0)).eval()
    found = load_weights(path, origin, kind, model)
    return model, {"tokens": len(origin.vocabulary[0]), "merges": len(origin.vocabulary[1])} | found


def compare_sizes(table: Mapping[str, Any], config: ModelConfig) -> None:
    """Compare the sizes in the metadata with those of the model.

    Raises:
        GroundupError: naming the first that differs.
    """
    wanted: dict[str, Any] = {
        "general.architecture": config.layout,
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.width,
        "feed_forward_length": config.feed_forward,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "rope.dimension_count": config.head_width,
        "rope.freq_base": _as_float32(config.rope_theta),
        "attention.layer_norm_rms_epsilon": _as_float32(config.norm_epsilon),
        "vocab_size": config.vocab_size,
    }
    _compare(
        table,
        {
            name if "general" in name else f"{config.layout}.{name}": value
            for name, value in wanted.items()
        },
    )


def compare_vocabulary(table: Mapping[str, Any], origin: Origin) -> None:
    """Compare tokens, merges, special ids, splitter and chat template with those of the tokenizer.

    Raises:
        GroundupError: naming the first that differs.
    """
    tokens, merges = origin.vocabulary
    end = origin.tokenizer.end_id
    wanted = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": origin.tokenizer.splitter,
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": origin.eos,
        "tokenizer.ggml.padding_token_id": end,
        "tokenizer.ggml.add_bos_token": False,
    }
    if origin.template:
        wanted |= {
            "tokenizer.chat_template": origin.template,
            "tokenizer.ggml.eot_token_id": origin.tokenizer.stop_id,
        }
    _compare(table, wanted)
    kinds = table.get("tokenizer.ggml.token_type") or []
    stored = table.get("tokenizer.ggml.tokens", [])[: len(tokens)]
    _compare_lists(
        "tokens", [name if own else "" for name, own in zip(stored, tokens, strict=False)], tokens
    )
    _compare_lists(
        "merges",
        table.get("tokenizer.ggml.merges", []),
        written_merges(merges, origin.tokenizer.end),
    )
    for kind, names in (
        (CONTROL, origin.tokenizer.specials),
        (USER_DEFINED, origin.tokenizer.whole_words),
    ):
        found = [token for token, own in zip(tokens, kinds, strict=False) if own == kind]
        _compare_lists(
            "special tokens" if kind == CONTROL else "added tokens", sorted(found), sorted(names)
        )


def _compare_lists(name: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Compare long lists; the message does not show 50,000 entries."""
    if list(found) != list(wanted):
        same = sum(
            1
            for _ in itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(found, wanted, strict=False)
            )
        )
        raise GroundupError(
            f"export: the GGUF file holds other {name} than the tokenizer; the first that differs"
            f" is number {same}"
        )


def _compare(table: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if table.get(name) != value:
            raise GroundupError(
                f"export: the GGUF file says {name} = {str(table.get(name))[:80]!r}, the model"
                f" {str(value)[:80]!r}"
            )


def _as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def load_weights(path: Path, origin: Origin, kind: str, model: Transformer) -> dict[str, Any]:
    """Compare every tensor with the checkpoint's, and copy it into `model`; return what was found.

    Raises:
        GroundupError: a tensor is missing, of another type or shape, or further from the checkpoint
            than its type allows.
    """
    ours = {theirs: name for name, theirs in tensor_names(origin.config).items()}
    parameters = dict(model.named_parameters())
    types: dict[str, int] = {}
    with safe_open(origin.path / WEIGHTS, "pt") as file, torch.no_grad():
        for name, stored, values in tensors(path):
            if name not in ours:
                raise GroundupError(
                    f"export: the GGUF file holds {name}, a tensor that the model lacks or one that"
                    " is there twice"
                )
            own = ours.pop(name)
            weight = file.get_tensor(own).float()
            found = halves_apart(torch.from_numpy(values.copy()), turned_heads(origin.config, own))
            if stored != stored_as(kind, weight.shape):
                raise GroundupError(
                    f"export: {name} is stored as {stored}, not as {stored_as(kind, weight.shape)}"
                )
            compare_weight(name, stored, weight, found)
            parameters[own].copy_(found)
            types[stored] = types.get(stored, 0) + 1
    if ours:
        raise GroundupError(f"export: the GGUF file lacks {', '.join(sorted(ours))[:200]}")
    return {"tensors": types}


def halves_apart(weight: Tensor, heads: int) -> Tensor:
    """Return a matrix with the rows 2i and 2i + 1 of each head at i and i + E/2, as we have them; 0
    heads leave it as it is.
    """
    return (
        torch.cat([part[start::2] for part in weight.chunk(heads) for start in (0, 1)])
        if heads
        else weight
    )


def compare_weight(name: str, kind: str, weight: Tensor, found: Tensor) -> None:
    """Compare one tensor as read back with the checkpoint's: exactly, after rounding where the type
    rounds.

    f16 and bf16 are compared with PyTorch's rounding, which is another implementation than the one
    that wrote them.

    Raises:
        GroundupError: it differs.
    """
    if weight.shape != found.shape:
        raise GroundupError(
            f"export: {name} has the shape {tuple(found.shape)}, not {tuple(weight.shape)}"
        )
    if kind == "q8_0":
        wrong = (weight - found).abs() > block_bound(weight)
    else:
        rounded = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
        wrong = weight.to(rounded).float() != found
    if bool(wrong.any()) or not bool(found.isfinite().all()):
        raise GroundupError(
            f"export: {int(wrong.sum())} of {wrong.numel()} weights of {name} are not those of the"
            " checkpoint"
        )


def block_bound(weight: Tensor) -> Tensor:
    """Return how far q8_0 may move each weight: half a step, and the rounding of the step to f16
    times 127 steps.

    The step of a block is its largest weight over 127; f16 keeps it to 2^-11 of itself, or 2^-25
    where it is subnormal.
    """
    blocks = weight.reshape(-1, BLOCK).abs()
    step = blocks.max(dim=1, keepdim=True).values / LEVELS
    bound = step * (0.5 + LEVELS * 2.0**-11) + LEVELS * 2.0**-25
    return (bound * 1.001).expand_as(blocks).reshape(weight.shape)


def moved(model: Transformer, stored: Transformer, rows: Sequence[Tensor]) -> dict[str, float]:
    """Return how far the rounding of weights moved the model, over all positions of `rows`.

    Those are the mean Kullback-Leibler divergence (nats a token) of the file's model from the
    checkpoint's, the largest difference of a log-probability, and the share of positions whose most
    probable token is the same.
    """
    divergence, difference, same, positions = 0.0, 0.0, 0, 0
    for row in rows:
        before, after = log_probabilities(model, row), log_probabilities(stored, row)
        divergence += float((before.exp() * (before - after)).sum())
        difference = max(difference, float((before - after).abs().max()))
        same, positions = (
            same + int((before.argmax(-1) == after.argmax(-1)).sum()),
            positions + len(row),
        )
    return {
        "rounding_divergence": divergence / positions,
        "rounding_max_difference": difference,
        "rounding_same": same / positions,
    }
