"""The pretrained model that `[model] from` names: its weights, sizes, tokenizer and license.

    [model]
    from = "models/qwen3-0.6b"     # a Hugging Face folder, or a run directory

Only JSON and safetensors are opened. What cannot be carried over exactly is refused here, before
anything is computed. Of tokenizers, byte-level BPE can be carried with any splitter: no byte is
lost, and text never yields a special token.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from groundup.artifacts.checkpoints import find_model
from groundup.artifacts.tokenizer import CONFIG as TOKENIZER_CONFIG
from groundup.artifacts.tokenizer import END, FILE, PROBES, Tokenizer, splitter_parts
from groundup.errors import GroundupError, RecipeError, one_line
from groundup.model.config import ModelConfig
from groundup.model.hf_io import CONFIG, check_weights, read_config, read_table, weight_files
from groundup.recipe import Recipe
from groundup.runtime.files import content_digest, file_digest
from groundup.runtime.lock import LOCK, load_lock

README = "README.md"
# The front matter of a model card is at its top.
_HEAD_CHARACTERS = 20_000
# Special tokens that end a text in every model; in a chat model `eos_token` may end an answer.
ENDS = (END, "<|end_of_text|>", "</s>")


@dataclass(frozen=True)
class PretrainedModel:
    """A model to start from."""

    path: Path
    name: str  # as reports show it, without folders of this machine
    license: str  # as its model card or its run states it; "" if neither does
    config: ModelConfig  # its sizes, with the context and dropout of the recipe

    @cached_property
    def carried(self) -> PretrainedTokenizer:
        """Its tokenizer and tokenizer.json; GroundupError if it cannot be carried exactly."""
        return read_tokenizer(self.path)

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return self.carried.tokenizer

    def check(self, root: Path) -> None:
        """Raise GroundupError unless weights, tokenizer and sizes fit; weights are not read.

        The model must not be inside of the run that starts from it (`root`).
        """
        if self.path.resolve().is_relative_to(root.resolve()):
            why = "a run cannot go on from itself, since it would replace what it goes on from"
            raise GroundupError(f"{self.path}: {why}; name another --out")
        check_weights(self.path, self.config)
        size, limit = self.tokenizer.vocab_size, self.config.vocab_size
        if size > limit:
            path = self.path / FILE
            raise GroundupError(f"{path}: has {size} ids, and the model's vocab_size is {limit}")

    def content(self) -> str:
        """Return the SHA-256 over the files of weights, whatever the folder is called."""
        paths = weight_files(self.path)
        sizes = [{"size": path.stat().st_size, "sha256": file_digest(path)} for path in paths]
        return content_digest({p.name: size for p, size in zip(paths, sizes, strict=True)})


def find_pretrained(recipe: Recipe) -> PretrainedModel | None:
    """Return the model that a recipe starts from, None for a random start.

    Raises GroundupError if it cannot be read, or its context is shorter than the recipe's.
    """
    if not recipe.model.base:
        return None
    where = f'[model] from = "{recipe.model.base}"'
    folder = recipe.root / Path(recipe.model.base).expanduser()
    if not folder.is_dir():
        raise RecipeError(f"{where}: there is no such folder")
    path = find_model(folder).path if (folder / LOCK).exists() else folder
    if not (path / CONFIG).exists():
        why = f"holds neither a {CONFIG} nor a run; name a model folder or a run directory"
        raise RecipeError(f"{where}: {why}")
    config = read_config(path)
    context = recipe.model.context or config.context
    if context > config.context:
        positions = f"the {config.context} positions of {path / CONFIG}"
        raise RecipeError(f"[model] context {context} is more than {positions}")
    config = dataclasses.replace(config, context=context, dropout=recipe.model.dropout)
    # A checkpoint or a tuned model may be named by its own folder inside of a run.
    above = (path, *path.resolve().parents[:4])
    run = next((load_lock(parent) for parent in above if (parent / LOCK).exists()), None)
    license = license_of(path)
    if run is None:
        # `organization/model` for a folder in a hub's cache, else the name of the folder.
        cached = re.search(r"/models--([^/]+)/snapshots/[^/]+$", path.resolve().as_posix())
        name = cached[1].replace("--", "/") if cached else path.resolve().name
    else:
        name = f"{run.name}/{path.name if path.name != 'model' else 'tuned'}"
        license = license or run.export.license
    return PretrainedModel(path, name, license, config)


def license_of(folder: Path) -> str:
    """Return the license in the front matter of a model card, "" if there is none."""
    try:
        with (folder / README).open(encoding="utf-8", errors="replace") as file:
            head = re.match(r"---\n(.*?)\n---", file.read(_HEAD_CHARACTERS), re.DOTALL)
    except OSError:
        return ""
    line = re.search(r"^license:[ \t]*(.+)$", head[1], re.MULTILINE) if head else None
    text = line[1] if line else ""
    return "".join(c for c in text if c.isprintable()).strip("\"' ")[:200]


@dataclass(frozen=True)
class PretrainedTokenizer:
    """A tokenizer that can be carried over exactly."""

    tokenizer: Tokenizer
    data: bytes  # its tokenizer.json, without what would put tokens around a text or truncate it


def read_tokenizer(folder: Path) -> PretrainedTokenizer:
    """Read the tokenizer of a model folder; GroundupError if it cannot be carried exactly."""
    path = folder / FILE
    if not path.exists():
        why = "there is no such file, and no other kind of tokenizer is read"
        code = "AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)"
        raise GroundupError(f"{path}: {why}; transformers writes one: {code}")
    table = read_table(path)
    try:
        data = path.read_bytes()
        # Tokens would be put around a text, or the text be truncated or padded.
        processor = table.get("post_processor")
        parts = processor.get("processors", [processor]) if processor else []
        adds = any(part.get("type") != "ByteLevel" for part in parts)
        if adds or table.get("truncation") or table.get("padding"):
            table |= {"post_processor": None, "truncation": None, "padding": None}
            data = json.dumps(table, ensure_ascii=False).encode()
        engine = tokenizers.Tokenizer.from_buffer(data)
        _check_byte_level(engine, table)
        tokenizer = Tokenizer(engine, _end_token(folder, engine))
        for name in tokenizer.specials:
            if set(tokenizer.encode(name)) & set(tokenizer.specials.values()):
                raise ValueError(f"the text {name} yields a special token")
        # Some added tokens take the space beside them along.
        added = [token.content for token in engine.get_added_tokens_decoder().values()]
        check_round_trip(tokenizer, [*PROBES, *(f"a {name} b\n{name}\n" for name in added)])
    except (GroundupError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # tokenizers raises plain Exception, and panics if a splitter backtracks for too long.
        raise GroundupError(f"{path}: cannot be carried exactly: {one_line(error)}") from None
    return PretrainedTokenizer(tokenizer, data)


def _check_byte_level(engine: tokenizers.Tokenizer, table: dict[str, Any]) -> None:
    """Raise ValueError unless this is byte-level BPE that loses nothing."""
    model = table["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        fallback = " with byte_fallback" if model.get("byte_fallback") else ""
        raise ValueError(f"model is {model.get('type')}{fallback}; only byte-level BPE is")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"model.{name} is {model[name]!r}; only byte-level BPE without it is")
    normalizer, decoder = table.get("normalizer") or {}, table.get("decoder") or {}
    if normalizer.get("type", "NFC") != "NFC":
        raise ValueError(f"normalizer is {normalizer['type']}; only none, or NFC, is")
    last = (splitter_parts(engine) or [{}])[-1]
    is_byte_level = last.get("type") == "ByteLevel" and decoder.get("type") == "ByteLevel"
    if not is_byte_level or last.get("add_prefix_space"):
        why = "pre_tokenizer or decoder is not ByteLevel without a space put in front"
        raise ValueError(f"{why}; only that is")
    vocabulary = engine.get_vocab(with_added_tokens=False)
    if not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        raise ValueError("some byte is no token of its vocabulary")


def _end_token(folder: Path, engine: tokenizers.Tokenizer) -> str:
    """Return the special token that ends a text."""
    added = engine.get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special}
    config = folder / TOKENIZER_CONFIG
    named = read_table(config).get("eos_token") if config.exists() else None
    named = named.get("content") if isinstance(named, dict) else named
    for name in (*ENDS, named):
        if name in special:
            return str(name)
    tried = f"neither {', '.join(ENDS)} nor the eos_token of {TOKENIZER_CONFIG} ({named!r})"
    raise ValueError(f"no special token ends a text: {tried} is one")


def check_round_trip(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Raise ValueError if a text does not survive encoding and decoding."""
    for text in texts:
        if tokenizer.decode(tokenizer.encode(text)) != tokenizer.normalized(text):
            raise ValueError(f"the text {text[:40]!r} does not come back as it was")
