"""Writes what tuning leaves behind: the model as a Hugging Face folder that knows how to chat, and
lists of figures.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.chat import template
from groundup.artifacts.tokenizer import CONFIG as TOKENIZER_CONFIG
from groundup.artifacts.tokenizer import FILE, Tokenizer, write_config
from groundup.model.hf_io import CONFIG, SAMPLING, save_model
from groundup.model.transformer import Transformer


def write_model(folder: Path, model: Transformer, base: Path) -> None:
    """Write config, weights, tokenizer with chat template, and generation settings that stop at the
    end of an answer.

    Args:
        base: the checkpoint that the model was made from, whose tokenizer it has.
    """
    folder.mkdir()
    save_model(folder, model)
    shutil.copyfile(base / FILE, folder / FILE)
    tokenizer = Tokenizer.load(base)
    stop, end = tokenizer.stop_id, tokenizer.end_id
    change_json(folder / CONFIG, bos_token_id=None, eos_token_id=stop, pad_token_id=end)
    # A program that samples text beyond an answer would meet the end of a document: both end it.
    generation = {
        "bos_token_id": None,
        "eos_token_id": [stop, end] if stop != end else end,
        "pad_token_id": end,
    } | SAMPLING
    write_plain(folder / "generation_config.json", generation)
    others = [name for name in tokenizer.specials if name != tokenizer.end]
    write_config(folder, model.config.context, tokenizer.end, others)
    change_json(
        folder / TOKENIZER_CONFIG,
        eos_token=tokenizer.special_name(stop),
        chat_template=template(tokenizer),
    )
    special = {
        "eos_token": tokenizer.special_name(stop),
        "pad_token": tokenizer.end,
        "additional_special_tokens": others,
    }
    write_plain(folder / "special_tokens_map.json", special)


def change_json(path: Path, **values: Any) -> None:
    """Set entries of a JSON file."""
    write_plain(path, json.loads(path.read_text(encoding="utf-8")) | values)


def write_plain(path: Path, value: Any) -> None:
    """Write a JSON file into a staging folder, which is committed whole."""
    path.write_text(
        json.dumps(value, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
        errors="surrogateescape",
    )


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON object a line."""
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def rounded(value: Any) -> Any:
    """Return figures with six significant digits, beyond which stands rounding; what is not finite
    is None.
    """
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
