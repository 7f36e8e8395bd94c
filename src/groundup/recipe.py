"""TOML → frozen, validated settings. Reads a recipe; writes `recipe.lock.toml`, every setting as resolved.

An unknown key is an error that names the nearest known one. Every key has a default but `[[source]]`, of which
there is at least one.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from groundup.errors import RecipeError

KINDS = ("books", "wikipedia", "web", "code", "conversations", "text", "evaluation")
Auto = Literal["auto"]


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition` holds; `decode` adds where it happened."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Source:
    """One place that raw text comes from."""

    path: str
    kind: str = "text"
    name: str = ""
    license: str = ""
    # Share of training tokens relative to its size; above 1 the source repeats.
    weight: float = 1.0
    # Globs over origins (archive members too); exclude wins.
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    # Of the file that a pypi: or https: path names; without it the lock remembers what was seen first.
    sha256: str = ""
    # Of plain-text files; "auto" looks at the bytes.
    encoding: str = "auto"

    def __post_init__(self) -> None:
        check(bool(self.path), "path is empty; name a file, folder or glob")
        if self.kind not in KINDS:
            raise ValueError(f'kind "{self.kind}" is unknown{nearest(self.kind, KINDS)}')
        check(0 <= self.weight <= 100, f"weight {self.weight} must lie between 0 and 100")
        check(self.sha256 == "" or bool(re.fullmatch(r"[0-9a-f]{64}", self.sha256)), "sha256 must be 64 hexadecimal digits")
        check(self.encoding == "auto" or _is_encoding(self.encoding), f'encoding "{self.encoding}" is not one that Python knows')
        if not self.name:
            object.__setattr__(self, "name", default_name(self.path))
        check(bool(re.fullmatch(r"[\w.+-]{1,80}", self.name)), f'name "{self.name}" may hold letters, digits and . _ + - only')


@dataclass(frozen=True, slots=True)
class Refine:
    """What is kept."""

    # ISO 639-1 codes; empty keeps every language.
    languages: tuple[str, ...] = ()
    # Rule sets by name; each applies to the kinds it was published for. "package.module:function" is your own.
    filters: tuple[str, ...] = ("gopher", "c4", "code", "conversations")
    near_threshold: float = 0.8

    def __post_init__(self) -> None:
        # Below 0.5 the 16 x 7 bands find too few of the pairs to call them deduplicated.
        check(0.5 <= self.near_threshold <= 1, f"near_threshold {self.near_threshold} must lie between 0.5 and 1")
        for code in self.languages:
            check(bool(re.fullmatch(r"[a-z]{2,3}", code)), f'language "{code}" is not an ISO 639 code such as "en"')


@dataclass(frozen=True, slots=True)
class Tokenize:
    """The tokenizer, and the share of tokens held out for validation."""

    vocab_size: int | Auto = "auto"
    validation: float = 0.05
    # BPE is trained on at most this much text: vocabularies barely change beyond it, and memory does.
    sample_megabytes: int = 512

    def __post_init__(self) -> None:
        if isinstance(self.vocab_size, int):
            check(320 <= self.vocab_size <= 1_000_000, f"vocab_size {self.vocab_size} must lie between 320 and 1,000,000")
        check(0 < self.validation < 0.5, f"validation {self.validation} must lie between 0 and 0.5")
        check(self.sample_megabytes > 0, "sample_megabytes must be positive")


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of the transformer; 0 means: as the preset has it."""

    preset: str = "auto"
    layers: int = 0
    width: int = 0
    heads: int = 0
    # Grouped-query attention when smaller than `heads`.
    kv_heads: int = 0
    head_width: int = 0
    feed_forward: int = 0
    context: int = 0
    dropout: float = 0.0
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, f"dropout {self.dropout} must lie between 0 and 1")
        check(self.rope_theta > 0, "rope_theta must be positive")
        for name in ("layers", "width", "heads", "kv_heads", "head_width", "feed_forward", "context"):
            check(getattr(self, name) >= 0, f"{name} must not be negative")


@dataclass(frozen=True, slots=True)
class Train:
    """The training loop."""

    steps: int | Auto = "auto"
    batch_tokens: int = 16_384
    # Sequences in one forward pass; "auto" is resolved once, into the lock.
    micro_batch: int | Auto = "auto"
    warmup_steps: int = 100
    checkpoint_steps: tuple[int, ...] = ()
    # Rolling checkpoints, for resuming: every so many steps, and how many of them are kept.
    checkpoint_every: int = 500
    keep: int = 2
    optimizer: Literal["muon", "adamw"] = "muon"
    # Of AdamW; embeddings and norms always use it. With optimizer = "adamw" a large model wants a tenth of this.
    learning_rate: float = 0.01
    # Of Muon, for the matrices inside the layers.
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    # The cosine ends at this share of the peak.
    final_learning_rate: float = 0.1
    clip: float = 1.0
    # A step whose loss or gradient lies further from the recent ones, in robust deviations, is not applied; 0 refuses
    # only what is not a number. Healthy runs stay below 13 (docs/experiments.md).
    guard: float = 16.0
    validate_every: int = 250
    validation_tokens: int = 131_072
    sample_seconds: float = 30.0
    sample_prompt: str = "The"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    # Compute the inside of each layer a second time instead of keeping it: a third more work, far less memory.
    recompute: Literal["auto", "on", "off"] = "auto"
    threads: int | Auto = "auto"
    processes: int | Auto = "auto"
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "micro_batch", "threads", "processes"):
            value = getattr(self, name)
            check(value == "auto" or value >= 1, f"{name} must be at least 1")
        for name in ("batch_tokens", "checkpoint_every", "keep", "validate_every", "validation_tokens"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(self.batch_tokens <= 1 << 30, f"batch_tokens {self.batch_tokens} is more than 2^30")
        for name in ("learning_rate", "muon_learning_rate", "clip"):
            check(0 < getattr(self, name) < 100, f"{name} must lie between 0 and 100")
        check(self.warmup_steps >= 0, "warmup_steps must not be negative")
        check(self.guard == 0 or self.guard >= 4, f"guard {self.guard} must be 0, or at least 4: honest steps differ by as much")
        check(0 <= self.weight_decay <= 100, "weight_decay must lie between 0 and 100")
        check(0 <= self.final_learning_rate <= 1, "final_learning_rate is a share between 0 and 1")
        check(all(step > 0 for step in self.checkpoint_steps), "checkpoint_steps must be positive")


@dataclass(frozen=True, slots=True)
class Evaluate:
    """What is measured on the finished model."""

    # "lambada", "hellaswag", or the path of a JSONL file in one of their layouts.
    benchmarks: tuple[str, ...] = ()
    # Questions at most of each benchmark; 0 takes all.
    limit: int = 0
    # Held-out passages in the choice-of-four test.
    passages: int = 200
    sample_tokens: int = 100

    def __post_init__(self) -> None:
        check(self.limit >= 0 and self.passages >= 0 and self.sample_tokens >= 1, "limit, passages and sample_tokens must not be negative")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. `root` is the folder that relative paths start from; it never enters a key."""

    source: tuple[Source, ...]
    name: str = "run"
    seed: int = 1
    refine: Refine = field(default_factory=Refine)
    tokenize: Tokenize = field(default_factory=Tokenize)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    root: Path = field(default=Path(), metadata={"internal": True})
    # Where it was read from, so that a training can read it again.
    file: str = field(default="", metadata={"internal": True})
    overrides: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(len(self.source) > 0, "there is no [[source]]; name at least one path")
        check(bool(re.fullmatch(r"[\w.+-]{1,80}", self.name)), f'name "{self.name}" may hold letters, digits and . _ + - only')
        check(self.name.strip(".") != "", f'name "{self.name}" is no name for a folder')
        check(0 <= self.seed < 2**63, "seed must lie between 0 and 2^63")
        names = [source.name for source in self.source]
        for name in names:
            check(names.count(name) == 1, f'two sources are called "{name}"; give one of them name = "..."')


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def default_name(path: str) -> str:
    """Return a source's name: the last component of its path that holds no pattern, without a file's suffix."""
    if path.startswith("pypi:"):
        return re.sub(r"[^\w.+-]+", "-", re.split(r"[=/]", path.removeprefix("pypi:"))[0])[:80] or "source"
    plain = [part for part in re.split(r"[/\\]", path.rsplit("://", maxsplit=1)[-1]) if part and not re.search(r"[*?\[]", part)]
    stem = re.sub(r"[^\w.+-]+", "-", plain[-1] if plain else "source").strip("-.")
    return (re.sub(r"(\.[A-Za-z]\w{0,4}){1,2}$", "", stem) or stem or "source")[:80]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return '; did you mean "x"?' for the known word nearest to `word`, or all known ones."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(known)}"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides and validate it.

    Raises:
        RecipeError: the file is missing or not TOML, a key is unknown, a value is of the wrong type or impossible.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe; `groundup init DIR` writes one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML: {error}") from None
    for override in overrides:
        _override(table, override)
    table.setdefault("name", re.sub(r"[^\w.+-]+", "-", path.stem))
    recipe = recipe_from(table, str(path), path.resolve().parent)
    return dataclasses.replace(recipe, file=str(path.resolve()), overrides=tuple(overrides))


def recipe_from(table: Mapping[str, Any], where: str, root: Path) -> Recipe:
    """Validate a parsed recipe; `where` names it in errors."""
    recipe = decode(Recipe, table, where)
    return dataclasses.replace(recipe, root=root)


def decode(cls: type[Any], table: Any, where: str) -> Any:
    """Build the settings class `cls` from a TOML table.

    Raises:
        RecipeError: with `where`, the key, what is wrong with it and the nearest known key.
    """
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where}: expected a table, found {type(table).__name__}")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls) if not f.metadata.get("internal")}
    for key in table:
        if key not in known:
            raise RecipeError(f'{where}: unknown key "{key}"{nearest(key, sorted(known))}')
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from None
    except TypeError:
        raise RecipeError(f"{where}: {_missing(cls, values)} is missing") from None


def _missing(cls: type[Any], values: Mapping[str, Any]) -> str:
    need = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return " and ".join(f"[[{n}]]" if n == "source" else f'"{n}"' for n in need if n not in values)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type[Any], hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where}: expected a list, found {_name(value)}")
        return tuple(_value(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(value))
    if origin in (types.UnionType, typing.Union, Literal):
        return _choice(arguments if origin is not Literal else (hint,), value, where)
    return _scalar(hint, value, where)


def _choice(options: Sequence[Any], value: Any, where: str) -> Any:
    words = [word for option in options if typing.get_origin(option) is Literal for word in typing.get_args(option)]
    if isinstance(value, str) and words:
        if value not in words:
            raise RecipeError(f'{where}: "{value}" is not one of {", ".join(words)}')
        return value
    plain = [option for option in options if typing.get_origin(option) is not Literal]
    if not plain:
        raise RecipeError(f"{where}: expected one of {', '.join(words)}, found {_name(value)}")
    return _scalar(plain[0], value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {"str": "text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false"}
        raise RecipeError(f"{where}: expected {names.get(hint.__name__, hint.__name__)}, found {_name(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where}: {value} is not a finite number")
    return value


def _name(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]


def _override(table: dict[str, Any], override: str) -> None:
    """Apply one `--set key.path=value`; the value is TOML, or else text."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override}: expected key.path=value, such as train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for part in parents:
        table = _descend(table, part, override)
    if not isinstance(table, dict):
        raise RecipeError(f'--set {override}: "{last}" must be a key of a table')
    table[last] = value


def _descend(table: Any, part: str, override: str) -> Any:
    below = table[int(part)] if isinstance(table, list) and part.isdigit() and int(part) < len(table) else None
    if isinstance(table, dict):
        below = table.setdefault(part, {})
    if not isinstance(below, (dict, list)):
        raise RecipeError(f'--set {override}: "{part}" is not a table of the recipe')
    return below


def settings(value: Any) -> dict[str, Any]:
    """Return a settings object as plain TOML values, without what never enters a key."""
    table: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        if f.metadata.get("internal"):
            continue
        item = getattr(value, f.name)
        if dataclasses.is_dataclass(item):
            item = settings(item)
        elif isinstance(item, tuple):
            item = [settings(part) if dataclasses.is_dataclass(part) else part for part in item]
        table[f.name] = item
    return table
