"""Writes a Hugging Face folder.

The architecture is a plain Qwen3 or Llama, so transformers, vLLM and llama.cpp load the folder
without custom code.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from groundup.export.source_model import (
    GENERATION,
    MODEL_CONFIG,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    WEIGHTS,
    SourceModel,
)
from groundup.model.config import ModelConfig
from groundup.runtime.files import write_json


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
    special_tokens: dict[str, Any] = {
        key: settings[key] for key in ("eos_token", "pad_token") if key in settings
    }
    named = set(special_tokens.values())
    others = [token for token in source.tokenizer.specials if token not in named]
    special_tokens["additional_special_tokens"] = others
    write_json(folder / "special_tokens_map.json", special_tokens)
    for file in (TOKENIZER_FILE, WEIGHTS):
        shutil.copyfile(source.path / file, folder / file)
    (folder / "README.md").write_text(model_card(source, name, license), encoding="utf-8")


CONTINUES = """It continues text. Every document it was trained on followed an end-of-text token; a prompt does best behind one too.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER")
prompt = tokenizer(tokenizer.eos_token + "The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0]))
```
"""

ANSWERS = """It was tuned on conversations and answers in their form (ChatML); `<|im_end|>` ends each answer.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER")
turns = [{"role": "user", "content": "Hello"}]
prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0, prompt["input_ids"].shape[1] :]))
```
"""


def model_card(source: SourceModel, name: str, license: str) -> str:
    """Return a short model card; every number in it is counted from the configuration."""
    config = source.config
    weights = (
        "tuned after training" if source.name == "tuned" else f"those of checkpoint {source.name}"
    )
    head = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"license: {json.dumps(license)}"] if license else []),
    ]
    return f"""---
{chr(10).join(head)}
---

# {name}

A decoder-only language model {began(source)} with groundup; the weights are {weights}.

| | |
|---|---|
| architecture | {architecture(config)} |
| parameters | {config.parameter_count():,} |
| layers | {config.layers} of width {config.width} |
| heads | {config.heads} of width {config.head_width}, {config.kv_heads} for keys and values |
| context | {config.context:,} tokens |
| vocabulary | {config.vocab_size:,} tokens, byte-level BPE, {"no normalizer" if source.tokenizer.keeps_all else "normal form C"} |

{ANSWERS.replace("<|im_end|>", source.tokenizer.special_name(source.eos)) if source.template else CONTINUES}"""


def began(source: SourceModel) -> str:
    """Say where training began; what came from elsewhere is quoted as one word of code."""
    if not source.base:
        return "trained from scratch"
    name, license = (source.base.get(key, "").replace("`", "'") for key in ("name", "license"))
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
