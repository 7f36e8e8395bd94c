"""The model that every export starts from: its sizes, tokenizer, ends and chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.artifacts.chat import GENERATION_MARKS
from groundup.artifacts.tokenizer import CONFIG, FILE, Tokenizer
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_io import SAMPLING, from_hf, read_table

MODEL_CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
TOKENIZER_CONFIG, TOKENIZER_FILE = CONFIG, FILE


@dataclass(frozen=True)
class SourceModel:
    """A checkpoint or a tuned model: a Hugging Face folder with its tokenizer."""

    path: Path
    name: str  # `step-N` or `tuned`
    table: Mapping[str, Any]  # config.json
    settings: Mapping[str, Any]  # tokenizer_config.json
    generation: Mapping[str, Any]  # generation_config.json, which a checkpoint lacks
    # Name and license of the base model; empty if training began with random weights.
    base: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def config(self) -> ModelConfig:
        """Sizes of the model."""
        return from_hf(self.table)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the folder."""
        return Tokenizer.load(self.path)

    @cached_property
    def vocabulary(self) -> tuple[list[str], list[str]]:
        """Token names by id ("" for an unused id), and the merges ("a b") in order."""
        model = json.loads((self.path / TOKENIZER_FILE).read_text(encoding="utf-8"))["model"]
        # Older files hold a merge as a string. A byte-level name has no space in it.
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        return self.tokenizer.names(), merges

    @property
    def ends(self) -> list[int]:
        """Ids that end a text; the first is for programs that take only one."""
        ends = self.generation.get("eos_token_id", self.tokenizer.end_id)
        ids = {int(i) for i in (ends if isinstance(ends, list) else [ends])}
        return sorted(ids, key=lambda i: i != self.eos)

    @property
    def eos(self) -> int:
        """Id of the eos_token: `<|im_end|>` after tuning, else `<|endoftext|>`.

        Raises GroundupError if tokenizer_config.json names a token that is not special.
        """
        token, ids = str(self.settings["eos_token"]), self.tokenizer.specials
        if token not in ids:
            wrong = f"{token!r} is no special token; there are {', '.join(ids)}"
            raise GroundupError(f"{self.path / TOKENIZER_CONFIG}: {wrong}")
        return ids[token]

    @property
    def template(self) -> str:
        """The chat template (Jinja) for llama.cpp, "" for a model that was never tuned.

        It is without the marks of generation, which render nothing and not every Jinja knows.
        """
        template = str(self.settings.get("chat_template") or "")
        for mark in GENERATION_MARKS:
            template = template.replace(mark, "")
        return template

    @property
    def sampling(self) -> dict[str, Any]:
        """Default sampling parameters for other programs."""
        return SAMPLING | {
            name: value
            for name, value in self.generation.items()
            if not name.endswith("_token_id") and name != "transformers_version"
        }


def read_source_model(path: Path, name: str, base: Mapping[str, str] | None = None) -> SourceModel:
    """Read the model folder at `path`.

    Raises GroundupError if a file is missing or damaged, or the sizes do not fit the tokenizer.
    """
    generation = read_table(path / GENERATION) if (path / GENERATION).exists() else {}
    table, settings = read_table(path / MODEL_CONFIG), read_table(path / TOKENIZER_CONFIG)
    source = SourceModel(path, name, table, settings, generation, base or {})
    ids, rows = source.tokenizer.vocab_size, source.config.vocab_size
    if ids > rows:
        raise GroundupError(f"{path}: the tokenizer has {ids} ids, the model {rows}")
    return source
