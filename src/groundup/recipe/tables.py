"""TOML → frozen, validated settings. Reads a recipe; writes `recipe.lock.toml`, every setting as
resolved.

An unknown key is an error that names the nearest known one. Every key has a default but
`[[source]]`, of which there is at least one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.recipe.languages import LANGUAGES, nearest_language
from groundup.recipe.source import TUNING, Source
from groundup.schema import check, nearest

Auto = Literal["auto"]
Hidden = Literal["remove", "mask", "keep"]
# By rule set and reason: the bound of a rule, or the least and the most where it has both.
Thresholds = Mapping[str, Mapping[str, float | tuple[float, ...]]]
# Of [model]: what a model that is gone on from brings itself.
SIZES = ("layers", "width", "heads", "kv_heads", "head_width", "feed_forward")
ROPE_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Personal:
    """What becomes of addresses and numbers that may be somebody's: gone, a word such as "[email]"
    in their place, or as it is.

    Gone is the default: a mask is one more word that the model learns to write, and the reference
    job takes addresses out.
    """

    email: Hidden = "remove"
    url: Hidden = "remove"
    # Public addresses only; dotted versions and sections stay.
    ip: Hidden = "remove"
    phone: Hidden = "remove"
    # Those that are looked for in source code too.
    in_code: tuple[Literal["email", "url", "ip", "phone"], ...] = ("email",)

    def actions(self, code: bool) -> dict[str, str]:
        """Return "remove" or "mask" for each kind that does not stay, in prose or in source code."""
        kinds = self.in_code if code else ("email", "url", "ip", "phone")
        return {
            kind: getattr(self, kind) for kind in sorted(kinds) if getattr(self, kind) != "keep"
        }


@dataclass(frozen=True, slots=True)
class Refine:
    """What is kept."""

    # ISO 639-1 codes; empty keeps every language.
    languages: tuple[str, ...] = ()
    # Rule sets by name; each applies to the kinds it was published for. "package.module:function"
    # is your own.
    filters: tuple[str, ...] = ("gopher", "c4", "code", "conversations")
    personal: Personal = field(default_factory=Personal)
    # In place of published ones.
    thresholds: Thresholds = field(default_factory=dict)
    near_threshold: float = 0.8
    # A line that so many documents of its source hold is boilerplate, and cut; 0 cuts none. At 10
    # real pages lose nothing that a person would miss, at 5 sentences of manuals
    # (docs/experiments.md).
    repeated_lines: int = 10
    # Texts that may stand in documents and in evaluation files alike.
    allowed_overlap: tuple[str, ...] = ()
    # What comparing all documents may hold in memory; less costs more passes over the index, never
    # another result.
    memory_megabytes: int = 2_048
    # A source that loses more of its bytes stops the run; exact duplicates do not count, since
    # their text is still there.
    most_dropped: float = 0.95

    def __post_init__(self) -> None:
        # Below 0.5 the 16 x 7 bands find too few of the pairs to call them deduplicated.
        check(
            0.5 <= self.near_threshold <= 1,
            f"near_threshold {self.near_threshold} must lie between 0.5 and 1",
        )
        check(self.memory_megabytes >= 1, "memory_megabytes must be positive")
        check(
            0 <= self.most_dropped <= 1,
            f"most_dropped {self.most_dropped} is a share between 0 and 1",
        )
        check(
            self.repeated_lines == 0 or self.repeated_lines >= 2,
            f"repeated_lines {self.repeated_lines} must be 0, or at least 2",
        )
        for code in self.languages:
            check(code in LANGUAGES, f'language "{code}" is unknown{nearest_language(code)}')


@dataclass(frozen=True, slots=True)
class Tokenize:
    """The tokenizer, and the share of tokens held out for validation."""

    vocab_size: int | Auto = "auto"
    validation: float = 0.05
    # BPE is trained on at most this much text: vocabularies barely change beyond it, and memory
    # does.
    sample_megabytes: int = 512

    def __post_init__(self) -> None:
        if isinstance(self.vocab_size, int):
            check(
                320 <= self.vocab_size <= 1_000_000,
                f"vocab_size {self.vocab_size} must lie between 320 and 1,000,000",
            )
        check(0 < self.validation < 0.5, f"validation {self.validation} must lie between 0 and 0.5")
        check(self.sample_megabytes > 0, "sample_megabytes must be positive")


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of the transformer; 0 means: as the preset has it, or the model that is gone on from."""

    preset: str = "auto"
    # A model folder in Qwen3's or Llama's layout, or a run directory: training goes on from its
    # weights, with its tokenizer.
    base: str = field(default="", metadata={"key": "from"})
    layers: int = 0
    width: int = 0
    heads: int = 0
    # Grouped-query attention when smaller than `heads`.
    kv_heads: int = 0
    head_width: int = 0
    feed_forward: int = 0
    context: int = 0
    dropout: float = 0.0
    rope_theta: float = ROPE_THETA

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, f"dropout {self.dropout} must lie between 0 and 1")
        check(self.rope_theta > 0, "rope_theta must be positive")
        for name in (*SIZES, "context"):
            check(getattr(self, name) >= 0, f"{name} must not be negative")
        # The context is how far a window of training reaches, and may be shorter than what the
        # model was built for.
        usual = {"preset": "auto", "rope_theta": ROPE_THETA} | dict.fromkeys(SIZES, 0)
        named = [
            name for name, value in usual.items() if self.base and getattr(self, name) != value
        ]
        check(not named, f"from brings the sizes of its model; leave out {' and '.join(named)}")


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
    # Of AdamW; embeddings and norms always use it. With optimizer = "adamw" a large model wants a
    # tenth of this.
    learning_rate: float = 0.01
    # Of Muon, for the matrices inside the layers.
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    # The cosine ends at this share of the peak.
    final_learning_rate: float = 0.1
    clip: float = 1.0
    # A step whose loss or gradient lies further from the recent ones, in robust deviations, is not
    # applied; 0 refuses only what is not a number. Healthy runs stay below 13
    # (docs/experiments.md).
    guard: float = 16.0
    validate_every: int = 250
    validation_tokens: int = 131_072
    sample_seconds: float = 30.0
    sample_prompt: str = "The"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    # Compute the inside of each layer a second time instead of keeping it: a third more work, far
    # less memory.
    recompute: Literal["auto", "on", "off"] = "auto"
    threads: int | Auto = "auto"
    processes: int | Auto = "auto"
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "micro_batch", "threads", "processes"):
            value = getattr(self, name)
            check(value == "auto" or value >= 1, f"{name} must be at least 1")
        for name in (
            "batch_tokens",
            "checkpoint_every",
            "keep",
            "validate_every",
            "validation_tokens",
        ):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(self.batch_tokens <= 1 << 30, f"batch_tokens {self.batch_tokens} is more than 2^30")
        for name in ("learning_rate", "muon_learning_rate", "clip"):
            check(0 < getattr(self, name) < 100, f"{name} must lie between 0 and 100")
        check(self.warmup_steps >= 0, "warmup_steps must not be negative")
        check(
            self.guard == 0 or self.guard >= 4,
            f"guard {self.guard} must be 0, or at least 4: honest steps differ by as much",
        )
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
        check(
            self.limit >= 0 and self.passages >= 0 and self.sample_tokens >= 1,
            "limit, passages and sample_tokens must not be negative",
        )


@dataclass(frozen=True, slots=True)
class Tune:
    """Teaching the finished model to answer."""

    # none: the model stays as it was trained; sft: all weights learn; lora: small matrices beside
    # them do.
    method: Literal["none", "sft", "lora"] = "none"
    # A file, folder or glob with conversations or a table of text and label; empty takes the
    # conversations of the run.
    data: str = ""
    # Of the run's own conversations: the names of the sources to take; empty takes all of kind
    # conversations.
    sources: tuple[str, ...] = ()
    # Of a table: the columns of text and label, where they are not called so or the like.
    columns: tuple[str, ...] = ()
    epochs: int = 3
    # Peak of AdamW's rate; "auto" follows the width of the model and the method.
    learning_rate: float | Auto = "auto"
    batch_tokens: int = 8_192
    # Of LoRA: inner size of the matrices, and what their product counts: alpha / rank.
    rank: int = 16
    alpha: float = 32.0
    # Share of a file's rows that is held out; the run's own conversations keep the split of the
    # run.
    validation: float = 0.1
    # Rows to learn from at most; 0 takes all.
    limit: int = 0
    # Tokens of a greedy answer to a held-out prompt at most.
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "rank", "answer_tokens"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(
            self.rank <= 4_096 and self.batch_tokens <= 1 << 30,
            "rank must be at most 4,096 and batch_tokens at most 2^30",
        )
        check(
            self.learning_rate == "auto" or 0 < self.learning_rate < 10,
            "learning_rate must lie between 0 and 10",
        )
        check(0 < self.alpha <= 65_536, "alpha must lie between 0 and 65,536")
        check(
            0 <= self.validation <= 0.9, f"validation {self.validation} must lie between 0 and 0.9"
        )
        check(self.limit >= 0, "limit must not be negative")
        check(not (self.data and self.sources), "name either data or sources, not both")
        check(
            len(self.columns) in (0, 2) and all(self.columns),
            'columns are two, such as ["text", "label"]',
        )


@dataclass(frozen=True, slots=True)
class Export:
    """Forms in which other programs load the finished model."""

    # hf: a Hugging Face folder; gguf: files for llama.cpp, which need the package gguf.
    formats: tuple[Literal["hf", "gguf"], ...] = ("hf",)
    # Numbers of the GGUF files, one file each.
    gguf_types: tuple[Literal["f32", "f16", "bf16", "q8_0"], ...] = ("f16",)
    # Of the weights, as their exports say it; empty says nothing.
    license: str = ""
    # What `groundup export` asks for beside that: form, type and model of each.
    more: tuple[tuple[str, str, str], ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(len(self.formats) > 0, "formats is empty; name hf, gguf or both")
        check(
            "gguf" not in self.formats or len(self.gguf_types) > 0,
            "gguf_types is empty; name f32, f16, bf16 or q8_0",
        )
        check(
            len(self.license) <= 200 and self.license.isprintable(),
            "license is the name of one, such as Apache-2.0",
        )


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
    tune: Tune = field(default_factory=Tune)
    export: Export = field(default_factory=Export)
    root: Path = field(default=Path(), metadata={"internal": True})
    # Where it was read from, so that a training can read it again.
    file: str = field(default="", metadata={"internal": True})
    overrides: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(len(self.source) > 0, "there is no [[source]]; name at least one path")
        check(
            bool(re.fullmatch(r"[\w.+-]{1,80}", self.name)),
            f'name "{self.name}" may hold letters, digits and . _ + - only',
        )
        check(self.name.strip(".") != "", f'name "{self.name}" is no name for a folder')
        check(0 <= self.seed < 2**63, "seed must lie between 0 and 2^63")
        own = self.model.base and self.tokenize.vocab_size != "auto"
        check(not own, "[tokenize] vocab_size: [model] from brings its own tokenizer; leave it out")
        names = [source.name for source in self.source]
        for name in names:
            check(
                names.count(name) == 1,
                f'two sources are called "{name}"; give one of them name = "..."',
            )
        check(
            all(source.kind != TUNING for source in self.source),
            f'no source is of kind "{TUNING}"; name such files as [tune] data',
        )
        talks = [source.name for source in self.source if source.kind == "conversations"]
        check(
            self.tune.method == "none" or bool(self.tune.data or talks),
            "[tune]: there is no source of kind conversations; name data",
        )
        for name in self.tune.sources:
            check(
                name in talks,
                f'[tune] sources: "{name}" is no source of kind'
                f" conversations{nearest(name, talks)}",
            )
