"""The format hf: a Hugging Face folder.

The architecture is a plain Qwen3 or Llama, so transformers, vLLM and llama.cpp load the folder
without custom code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.model_card import ANSWER_CODE, CONTINUE_CODE, model_card
from groundup.export import parity
from groundup.export.formats import ExportOptions, Format, Written
from groundup.export.source_model import (
    GENERATION,
    MODEL_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    WEIGHTS,
    SourceModel,
    read_source_model,
)
from groundup.model.hf_io import load_model
from groundup.runtime.files import write_json


class HuggingFaceFolder(Format):
    """A folder that transformers loads; compared with what transformers makes of it."""

    version, file, program = 2, "hf{model}", "transformers"

    def key(self, sources: Sequence[str]) -> dict[str, Any]:
        """Return the version of transformers."""
        return {"transformers": parity.package_version("transformers")}

    def write(self, folder: Path, source: SourceModel, options: ExportOptions) -> Written:
        """Write `hf/`, and compare its logits and token ids with the model's."""
        target = folder / "hf"
        target.mkdir()
        write_folder(target, source, options.facts["name"], options.facts["license"])
        found = parity.check(target, source, load_model(source.path), options.texts, options.seed)
        return {"bytes": sum(path.stat().st_size for path in target.iterdir())} | found

    def differences(self, artifact: Path, source: SourceModel) -> Iterator[str]:
        """Compare what the folder says beside its weights."""
        exported = read_source_model(artifact / "hf", source.name)
        for name in ("config", "vocabulary", "eos", "ends", "template"):
            if getattr(exported, name) != getattr(source, name):
                yield f"{artifact / 'hf'}: its {name} is not the model's"


def write_folder(folder: Path, source: SourceModel, name: str, license: str = "") -> None:
    """Write config, weights, tokenizer, generation settings and a model card."""
    settings = dict(source.settings) | {"model_max_length": source.config.context}
    ends = {
        # Documents follow an end-of-text id in training; no begin token precedes them.
        "bos_token_id": None,
        "eos_token_id": source.ends if len(source.ends) > 1 else source.ends[0],
        "pad_token_id": source.tokenizer.end_id,
    }
    write_json(folder / MODEL_CONFIG, dict(source.table) | ends)
    write_json(folder / GENERATION, ends | source.sampling)
    write_json(folder / TOKENIZER_CONFIG, settings)
    named = {key: settings[key] for key in ("eos_token", "pad_token") if key in settings}
    others = [token for token in source.tokenizer.specials if token not in named.values()]
    special_tokens = named | {"additional_special_tokens": others}
    write_json(folder / "special_tokens_map.json", special_tokens)
    for file in (TOKENIZER_FILE, WEIGHTS):
        shutil.copyfile(source.path / file, folder / file)
    (folder / "README.md").write_text(export_card(source, name, license), encoding="utf-8")


CONTINUES = f"""It continues text. Every document it was trained on followed an end-of-text token; \
a prompt does best behind one too.

{CONTINUE_CODE}
"""

ANSWERS = f"""It was tuned on conversations and answers in their form (ChatML); `<|im_end|>` ends \
each answer.

{ANSWER_CODE}
"""


def export_card(source: SourceModel, name: str, license: str) -> str:
    """Return a short model card; every number in it is counted from the configuration."""
    config = source.config
    start, weights = "trained from scratch", f"those of checkpoint {source.name}"
    if source.base:
        # Names from elsewhere are quoted as one word of code.
        base, terms = (source.base.get(key, "").replace("`", "'") for key in ("name", "license"))
        quoted = f"`{terms}`" if terms else "not stated"
        start = f"trained on from the weights of `{base}` (license: {quoted})"
    if source.name == "tuned":
        weights = "tuned after training"
    norm = "QK-norm, " if config.query_key_norm else ""
    head = "tied embeddings" if config.tied else "an output head of its own"
    parts = f"rotary positions, RMSNorm, {norm}gated feed-forward, {head}"
    normalizer = "no normalizer" if source.tokenizer.keeps_all else "normal form C"
    usage = CONTINUES
    if source.template:
        usage = ANSWERS.replace("<|im_end|>", source.tokenizer.special_name(source.eos))
    body = f"""A decoder-only language model {start} with groundup; the weights are {weights}.

| | |
|---|---|
| architecture | {config.layout.capitalize()} ({parts}) |
| parameters | {config.parameter_count():,} |
| layers | {config.layers} of width {config.width} |
| heads | {config.heads} of width {config.head_width}, {config.kv_heads} for keys and values |
| context | {config.context:,} tokens |
| vocabulary | {config.vocab_size:,} tokens, byte-level BPE, {normalizer} |

{usage}"""
    return model_card(name, body, json.dumps(license) if license else "")
