"""What every form of export starts from. Reads a model folder of a run: sizes, tokenizer, ends,
chat template; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.artifacts.tokenizer import CONFIG, FILE, Tokenizer
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.hf_config import from_hf
from groundup.model.hf_io import SAMPLING

MODEL_CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
TOKENIZER_CONFIG, TOKENIZER_FILE = CONFIG, FILE


@dataclass(frozen=True)
class Origin:
    """A checkpoint or a tuned model: a Hugging Face folder with its tokenizer.

    Attributes:
        name: `step-N` or `tuned`.
        table: config.json.
        settings: tokenizer_config.json.
        generation: generation_config.json, which a checkpoint lacks.
        base: name and license of the model whose weights training began with; empty where they were
            drawn.
    """

    path: Path
    name: str
    table: Mapping[str, Any]
    settings: Mapping[str, Any]
    generation: Mapping[str, Any]
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
        """Names of the tokens by id, "" where no token has one, and the merges ("a b") in the order
        in which they were learned.
        """
        model = json.loads((self.path / TOKENIZER_FILE).read_text(encoding="utf-8"))["model"]
        # A byte-level name has no space in it.
        return self.tokenizer.names(), [
            merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
        ]

    @property
    def ends(self) -> list[int]:
        """Ids that end a text; the first is the one that programs with a single end take."""
        found = self.generation.get("eos_token_id", self.tokenizer.end_id)
        ids = found if isinstance(found, list) else [found]
        return sorted({int(i) for i in ids}, key=lambda i: i != self.eos)

    @property
    def eos(self) -> int:
        """Id of the end that tokenizer_config.json names: `<|im_end|>` after tuning, else
        `<|endoftext|>`.
        """
        return self.special(str(self.settings["eos_token"]))

    @property
    def template(self) -> str:
        """The chat template (Jinja), "" for a model that was never tuned."""
        return str(self.settings.get("chat_template") or "")

    @property
    def sampling(self) -> dict[str, Any]:
        """How programs should sample unless told otherwise."""
        own = {
            name: value
            for name, value in self.generation.items()
            if not name.endswith("_token_id") and name != "transformers_version"
        }
        return SAMPLING | own

    def special(self, token: str) -> int:
        """Return the id of a special token.

        Raises:
            GroundupError: there is no such token.
        """
        ids = self.tokenizer.specials
        if token not in ids:
            raise GroundupError(
                f"{self.path / TOKENIZER_CONFIG}: {token!r} is no special token; there are"
                f" {', '.join(ids)}"
            )
        return ids[token]


def read_origin(path: Path, name: str, base: Mapping[str, str] | None = None) -> Origin:
    """Read the model folder at `path`.

    Raises:
        GroundupError: a file is missing or torn, or the sizes do not fit the tokenizer.
    """
    generation = _read(path / GENERATION) if (path / GENERATION).exists() else {}
    origin = Origin(
        path,
        name,
        _read(path / MODEL_CONFIG),
        _read(path / TOKENIZER_CONFIG),
        generation,
        base or {},
    )
    if origin.tokenizer.vocab_size > origin.config.vocab_size:
        raise GroundupError(
            f"{path}: the tokenizer has {origin.tokenizer.vocab_size} ids, the model"
            f" {origin.config.vocab_size}"
        )
    return origin


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(table, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise GroundupError(f"{path}: cannot be read: {error}") from None
    return table
