"""Writes a Hugging Face folder. Reads a checkpoint and the view `tokenize`.

The architecture is a plain Qwen3, so transformers, vLLM and llama.cpp load the folder without code of ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.model.config import ModelConfig
from groundup.tokenizer import END, FILE, SPECIALS, Tokenizer, write_config

CONFIG, WEIGHTS = "config.json", "model.safetensors"

# As the samples of the report are drawn.
SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.95}


def write_folder(folder: Path, checkpoint: Path, tokenizer_folder: Path, name: str) -> ModelConfig:
    """Write config, weights, tokenizer, generation settings and a model card; return the sizes of the model."""
    table = json.loads((checkpoint / CONFIG).read_text(encoding="utf-8"))
    config = ModelConfig.from_hf(table)
    tokenizer = Tokenizer.load(tokenizer_folder)
    # Without a begin token: documents follow an end-of-text id in training, and nothing else precedes them.
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.end_id, "pad_token_id": tokenizer.end_id}
    _write_json(folder / CONFIG, table | ends)
    _write_json(folder / "generation_config.json", ends | SAMPLING)
    _write_json(folder / "special_tokens_map.json", {"eos_token": END, "pad_token": END, "additional_special_tokens": list(SPECIALS[1:])})
    write_config(folder, config.context)
    shutil.copyfile(tokenizer_folder / FILE, folder / FILE)
    shutil.copyfile(checkpoint / WEIGHTS, folder / WEIGHTS)
    (folder / "README.md").write_text(model_card(name, config, checkpoint.name), encoding="utf-8")
    return config


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def model_card(name: str, config: ModelConfig, checkpoint: str) -> str:
    """Return a short model card; every number in it is counted from the configuration."""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A decoder-only language model trained from scratch with groundup; the weights are those of checkpoint {checkpoint}.

| | |
|---|---|
| architecture | Qwen3 (rotary positions, RMSNorm, QK-norm, gated feed-forward, tied embeddings) |
| parameters | {config.parameter_count():,} |
| layers | {config.layers} of width {config.width} |
| heads | {config.heads} of width {config.head_width}, {config.kv_heads} for keys and values |
| context | {config.context:,} tokens |
| vocabulary | {config.vocab_size:,} tokens, byte-level BPE, no normalizer |

It continues text. Every document it was trained on followed an end-of-text token; a prompt does best behind one too.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH OF THIS FOLDER")
model = AutoModelForCausalLM.from_pretrained("PATH OF THIS FOLDER")
prompt = tokenizer(tokenizer.eos_token + "The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0]))
```
"""
