"""Writes a Hugging Face folder. Reads the folder of a checkpoint or of a tuned model.

The architecture is a plain Qwen3 or Llama, so transformers, vLLM and llama.cpp load the folder
without code of ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.model_card import ANSWER_CODE, CONTINUE_CODE, model_card
from groundup.export.source_model import (
    GENERATION,
    MODEL_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    WEIGHTS,
    Origin,
)
from groundup.model.config import ModelConfig


def write_folder(folder: Path, origin: Origin, name: str, license: str = "") -> None:
    """Write config, weights, tokenizer, generation settings and a model card."""
    settings = dict(origin.settings) | {"model_max_length": origin.config.context}
    # Without a begin token: documents follow an end-of-text id in training, and nothing else
    # precedes them.
    end = origin.tokenizer.end_id
    ends = {
        "bos_token_id": None,
        "eos_token_id": origin.ends if len(origin.ends) > 1 else origin.ends[0],
        "pad_token_id": end,
    }
    _write_json(folder / MODEL_CONFIG, dict(origin.table) | ends)
    _write_json(folder / GENERATION, ends | origin.sampling)
    _write_json(folder / TOKENIZER_CONFIG, settings)
    named = {key: settings[key] for key in ("eos_token", "pad_token") if key in settings}
    others = [token for token in origin.tokenizer.specials if token not in named.values()]
    _write_json(folder / "special_tokens_map.json", named | {"additional_special_tokens": others})
    for file in (TOKENIZER_FILE, WEIGHTS):
        shutil.copyfile(origin.path / file, folder / file)
    (folder / "README.md").write_text(export_card(origin, name, license), encoding="utf-8")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


CONTINUES = f"""It continues text. Every document it was trained on followed an end-of-text token; \
a prompt does best behind one too.

{CONTINUE_CODE}
"""

ANSWERS = f"""It was tuned on conversations and answers in their form (ChatML); `<|im_end|>` ends each \
answer.

{ANSWER_CODE}
"""


def export_card(origin: Origin, name: str, license: str) -> str:
    """Return a short model card; every number in it is counted from the configuration."""
    config = origin.config
    weights = (
        "tuned after training" if origin.name == "tuned" else f"those of checkpoint {origin.name}"
    )
    normalizer = "no normalizer" if origin.tokenizer.keeps_all else "normal form C"
    usage = CONTINUES
    if origin.template:
        usage = ANSWERS.replace("<|im_end|>", origin.tokenizer.special_name(origin.eos))
    body = f"""A decoder-only language model {began(origin)} with groundup; the weights are {weights}.

| | |
|---|---|
| architecture | {architecture(config)} |
| parameters | {config.parameter_count():,} |
| layers | {config.layers} of width {config.width} |
| heads | {config.heads} of width {config.head_width}, {config.kv_heads} for keys and values |
| context | {config.context:,} tokens |
| vocabulary | {config.vocab_size:,} tokens, byte-level BPE, {normalizer} |

{usage}"""
    return model_card(name, body, json.dumps(license) if license else "")


def began(origin: Origin) -> str:
    """Say where training began; what came from elsewhere is quoted as one word of code."""
    if not origin.base:
        return "trained from scratch"
    name, license = (origin.base.get(key, "").replace("`", "'") for key in ("name", "license"))
    return (
        f"trained on from the weights of `{name}` (license:"
        f" {f'`{license}`' if license else 'not stated'})"
    )


def architecture(config: ModelConfig) -> str:
    """Say in words what the layers are made of."""
    norm = "QK-norm, " if config.query_key_norm else ""
    head = "tied embeddings" if config.tied else "an output head of its own"
    return (
        f"{config.layout.capitalize()} (rotary positions, RMSNorm, {norm}gated feed-forward,"
        f" {head})"
    )
