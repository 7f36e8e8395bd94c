"""Model folders as other programs leave them: small random models by transformers' own classes,
tokenizers in the form of real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from groundup.artifacts.tokenizer import LLAMA3_PATTERN, PROBES, QWEN2_PATTERN
from tests.helpers.exporting import TEXT

# Of each family: what cuts words, special tokens, and tokens that are added and are no specials.
SPECIALS = {
    "qwen2": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>"),
    "llama-bpe": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    "gpt-2": ("<|endoftext|>",),
    "smollm": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
}
FAMILIES = tuple(SPECIALS)
ADDED = ("<think>", "</think>")


def engine_of(family: str, vocab_size: int = 600) -> tokenizers.Tokenizer:
    """Train a tokenizer as that family has it: its splitter, its normal form, specials behind the
    vocabulary.
    """
    engine = tokenizers.Tokenizer(models.BPE(ignore_merges=family == "llama-bpe"))
    engine.normalizer = normalizers.NFC() if family == "qwen2" else None
    engine.pre_tokenizer = splitter_of(family)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=2,
    )
    source = Path(json.__file__).with_name("decoder.py").read_text()
    engine.train_from_iterator([source, TEXT * 4, *PROBES, *PROBES], trainer)
    engine.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIALS[family]]
    )
    if family == "qwen2":
        engine.add_tokens([AddedToken(name, special=False, normalized=False) for name in ADDED])
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    if family == "llama-bpe":
        begin = SPECIALS[family][0]
        around = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, engine.token_to_id(begin))]
        )
        engine.post_processor = processors.Sequence([engine.post_processor, around])
    return engine


def splitter_of(family: str) -> pre_tokenizers.PreTokenizer:
    """Return what cuts words in a family of tokenizers."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {
        "qwen2": lambda: pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated"), bytes_only]
        ),
        "llama-bpe": lambda: pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"), bytes_only]
        ),
        "gpt-2": lambda: gpt2,
        "smollm": lambda: pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), gpt2]
        ),
    }[family]()


def write_tokenizer(folder: Path, family: str, end: str = "") -> tokenizers.Tokenizer:
    """Write tokenizer.json and tokenizer_config.json; `end` is what the latter calls eos_token."""
    folder.mkdir(parents=True, exist_ok=True)
    engine = engine_of(family)
    engine.save(str(folder / "tokenizer.json"))
    usual = "<|end_of_text|>" if family == "llama-bpe" else "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Qwen2Tokenizer", "eos_token": end or usual})
    )
    return engine


SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    # Not 64 / 4.
    "head_dim": 32,
    "max_position_embeddings": 64,
}


def write_model(
    folder: Path,
    layout: str = "llama",
    tied: bool = False,
    vocab_size: int = 640,
    shard: str = "5GB",
    **config: Any,
) -> Any:
    """Save a model of transformers' with every weight drawn at random; return it."""
    transformers = pytest.importorskip("transformers")
    name = {"llama": "Llama", "qwen3": "Qwen3"}[layout]
    made = getattr(transformers, f"{name}Config")(
        **(SIZES | {"vocab_size": vocab_size, "tie_word_embeddings": tied} | config)
    )
    model = getattr(transformers, f"{name}ForCausalLM")(made)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * 0.1
                + (1 if weight.ndim == 1 else 0)
            )
    model.eval().save_pretrained(folder, max_shard_size=shard)
    return model


def write_folder(
    folder: Path, layout: str = "llama", family: str = "llama-bpe", padding: int = 7, **model: Any
) -> Path:
    """Write a whole model folder whose embedding has `padding` rows more than the tokenizer has
    ids.
    """
    engine = write_tokenizer(folder, family)
    write_model(folder, layout, vocab_size=max(engine.get_vocab().values()) + 1 + padding, **model)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
