"""The tables of a recipe as frozen classes: every setting with its default and its bounds.

The comment above a field is its documentation: docs/recipe.md is generated from these.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.recipe.benchmarks import Evaluate
from groundup.recipe.languages import LANGUAGES, nearest_language
from groundup.recipe.templates import parse_template
from groundup.schema import check, nearest

KINDS = tuple(
    "books wikipedia web code conversations mail chat forum documents text evaluation".split()
)
# Kinds whose documents may have turns, which a model can be tuned on.
TALKS = ("conversations", "mail", "chat", "forum")
# Kind of the source that `[tune] data` names; no [[source]] is of this kind.
TUNING = "tuning"
# Settings of a source that name columns of its records.
RECORD_COLUMNS = ("text", "title", "group", "language")
# Codecs of Python that decode something else than the text of a file.
NO_CHARACTER_SETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}
MAX_PATTERNS = 1_000

Auto = Literal["auto"]
Hidden = Literal["remove", "mask", "keep"]
# Rule set → reason → the bound of the rule, or its least and most value if it has both.
Thresholds = Mapping[str, Mapping[str, float | tuple[float, ...]]]
# Sizes in [model] that a pretrained model brings itself.
SIZES = ("layers", "width", "heads", "kv_heads", "head_width", "feed_forward")
ROPE_THETA = 10_000.0
# Languages of Tesseract, such as chi_sim_vert and script/Latin.
_TESSERACT_NAMES = re.compile(r"[A-Za-z]\w*(?:/\w+)?(?:\+[A-Za-z]\w*(?:/\w+)?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """One place that raw text comes from."""

    # A file, folder or glob; or https://, s3://, hf://OWNER/NAME, pypi:NAME==VERSION, scrape:FILE.
    path: str
    # What the files are; it decides readers, filters and grouping.
    kind: str = "text"
    # Name in every report; by default the last part of the path.
    name: str = ""
    # License of the texts; one that a document states itself comes first.
    license: str = ""
    # Share of training tokens relative to the size of the source, 0 to 100; above 1 it repeats.
    weight: float = 1.0
    # Of two duplicates, the one from the source of higher priority (0 to 100) stays; among equals
    # the longer one in bytes.
    priority: int = 0
    # Globs over origins, members of archives too: only matching files are read.
    include: tuple[str, ...] = ()
    # Globs over origins: matching files are not read, even if `include` matches.
    exclude: tuple[str, ...] = ()
    # The one folder outside of the source that links in it may lead into; the stores of the Hugging
    # Face cache, git-annex and DVC need no naming.
    follow_links: str = ""
    # Who speaks in mail, chats and forums: "pseudonyms", the same for a name everywhere, or
    # "names".
    speakers: Literal["pseudonyms", "names"] = "pseudonyms"
    # SHA-256 of the file that a pypi: or https: path names; without it, the lock remembers the one
    # that was fetched first.
    sha256: str = ""
    # "package.module:function" of your own, which reads the files instead of the reader of the
    # kind.
    reader: str = ""
    # Languages of scans, as Tesseract names them, such as "eng" or "deu+fra": pages of PDF files
    # without a text layer, and images, are read by Tesseract, which must be installed.
    ocr: str = ""
    # Encoding of plain-text files; "auto" detects it from the bytes.
    encoding: str = "auto"
    # Records: the column that holds the text, or a template such as "{title}: {body}"; by default
    # the first column of a common name. "{a.b}" is a value inside another, also inside JSON.
    text: str = ""
    # Records: column of the title, which becomes the first line where the text does not begin with
    # it.
    title: str = ""
    # Records: column of the unit that is never split between training and validation.
    group: str = ""
    # Records: column of the language, as an ISO 639-1 code.
    language: str = ""
    # scrape: seconds between two requests to a host, 0 to 300; more if its robots.txt asks for it.
    delay: float = 1.0
    # scrape: most pages to fetch.
    max_pages: int = 10_000
    # scrape: name under which hosts are visited, best with an address for their owners.
    user_agent: str = "groundup"
    # As in [refine], for this source; 1 allows anything, such as a source whose documents are all
    # in another source too.
    most_dropped: float | Literal["auto"] = "auto"
    # Columns of text and label in tuning data.
    columns: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(bool(self.path), "path is empty; name a file, folder or glob")
        if self.kind not in (*KINDS, TUNING):
            raise ValueError(f'kind "{self.kind}" is unknown{nearest(self.kind, KINDS)}')
        check(0 <= self.weight <= 100, f"weight {self.weight} must lie between 0 and 100")
        message = f'reader "{self.reader}" is not of the form "package.module:function"'
        check(not self.reader or ":" in self.reader, message)
        message = f'ocr "{self.ocr}" is not of the form "eng" or "deu+fra"'
        check(not self.ocr or _TESSERACT_NAMES.fullmatch(self.ocr) is not None, message)
        check(0 <= self.priority <= 100, f"priority {self.priority} must lie between 0 and 100")
        most = self.most_dropped
        check(most == "auto" or 0 <= most <= 1, f"most_dropped {most} is a share between 0 and 1")
        for key in RECORD_COLUMNS:
            try:
                parse_template(getattr(self, key) or "text")
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
        digest = not self.sha256 or re.fullmatch(r"[0-9a-f]{64}", self.sha256)
        check(bool(digest), "sha256 must be 64 hexadecimal digits")
        try:
            # zlib, idna and the like are none; the standard library has no public name for this.
            codec = codecs.lookup("utf-8" if self.encoding == "auto" else self.encoding)
            is_text = codec._is_text_encoding and codec.name not in NO_CHARACTER_SETS
        except LookupError:
            is_text = False
        check(is_text, f'encoding "{self.encoding}" is not one that Python knows')
        few = len(self.include) + len(self.exclude) <= MAX_PATTERNS
        message = f"include and exclude have more than {MAX_PATTERNS:,} patterns"
        check(few, f"{message}, and every file is compared with each; put the files into folders")
        check(0 <= self.delay <= 300, f"delay {self.delay} must lie between 0 and 300 seconds")
        check(self.max_pages >= 1, f"max_pages {self.max_pages} must be at least 1")
        agent = re.fullmatch(r"[!-~][ -~]{0,199}", self.user_agent)
        check(bool(agent), "user_agent is a name of plain letters, such as my-lab/1.0 (mail)")
        is_web = not self.path.startswith("scrape:") or self.kind == "web"
        check(is_web, 'path "scrape:..." gives web pages: write kind = "web"')
        if not self.name:
            object.__setattr__(self, "name", default_name(self.path))
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class Personal:
    """Personal data: removed (a mask is one more word to learn), masked as "[email]", or kept."""

    # E-mail addresses.
    email: Hidden = "remove"
    # Web addresses.
    url: Hidden = "remove"
    # Public IP addresses; versions and section numbers with dots stay.
    ip: Hidden = "remove"
    # Phone numbers.
    phone: Hidden = "remove"
    # Keys and tokens of services, passwords behind their label, private keys.
    secret: Hidden = "remove"
    # Two or more lines of postal addresses and phone numbers, as below mails.
    signature: Hidden = "remove"
    # Which of these are looked for in source code too.
    in_code: tuple[Literal["email", "url", "ip", "phone", "secret"], ...] = ("email", "secret")

    def actions(self, code: bool) -> dict[str, str]:
        """Return "remove" or "mask" by field, for code or for prose, without the fields to keep."""
        kinds = ("email", "url", "ip", "phone", "secret", "signature")
        names = sorted(self.in_code if code else kinds)
        return {name: getattr(self, name) for name in names if getattr(self, name) != "keep"}


@dataclass(frozen=True, slots=True)
class Refine:
    """Which documents and which parts of their texts are kept."""

    # Languages to keep, as ISO 639-1 codes; empty keeps every language.
    languages: tuple[str, ...] = ()
    # Rule sets by name; each applies to the kinds that it was published for. A filter of your own
    # is "package.module:function".
    filters: tuple[str, ...] = ("gopher", "c4", "code", "conversations")
    # What to do with personal data.
    personal: Personal = field(default_factory=Personal)
    # Bounds of rules that replace the published ones: rule set, reason, value.
    thresholds: Thresholds = field(default_factory=dict)
    # Jaccard similarity of word 5-grams, 0.5 to 1, from which a document counts as a duplicate.
    near_threshold: float = 0.8
    # Documents of a source that must hold a line before it counts as boilerplate and is cut; 0
    # cuts none. At 10, real pages lose nothing that a person would miss; at 5, they lose sentences
    # of manuals (docs/experiments.md).
    repeated_lines: int = 10
    # Texts that may be in documents and in evaluation files alike.
    allowed_overlap: tuple[str, ...] = ()
    # Megabytes that comparing all documents may use. Less memory takes more passes over the index
    # and never changes the result.
    memory_megabytes: int = 2_048
    # Share of the bytes of a source, 0 to 1, that may be dropped before the run stops. Exact
    # duplicates do not count, since their text is still there.
    most_dropped: float = 0.95

    def __post_init__(self) -> None:
        near, most, repeated = self.near_threshold, self.most_dropped, self.repeated_lines
        # Below 0.5 the 16 x 7 bands find too few of the pairs to call them deduplicated.
        check(0.5 <= near <= 1, f"near_threshold {near} must lie between 0.5 and 1")
        check(self.memory_megabytes >= 1, "memory_megabytes must be positive")
        check(0 <= most <= 1, f"most_dropped {most} is a share between 0 and 1")
        check(repeated == 0 or repeated >= 2, f"repeated_lines {repeated} must be 0, or at least 2")
        for code in self.languages:
            check(code in LANGUAGES, f'language "{code}" is unknown{nearest_language(code)}')


@dataclass(frozen=True, slots=True)
class Tokenize:
    """The tokenizer, and the split into training and validation."""

    # Entries of the vocabulary, 320 to 1,000,000; "auto" follows the amount of text.
    vocab_size: int | Auto = "auto"
    # Share of the tokens of each source that is held out, above 0 and below 0.5.
    validation: float = 0.05
    # Megabytes of text to train BPE on, about. More text barely changes the vocabulary and takes
    # more time.
    sample_megabytes: int = 512

    def __post_init__(self) -> None:
        size = self.vocab_size
        fits = size == "auto" or 320 <= size <= 1_000_000
        check(fits, f"vocab_size {size} must lie between 320 and 1,000,000")
        check(0 < self.validation < 0.5, f"validation {self.validation} must lie between 0 and 0.5")
        check(self.sample_megabytes > 0, "sample_megabytes must be positive")


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of the transformer; 0 takes the size of the preset, or of the pretrained model."""

    # Named: tiny, starter, small, 30m, 125m, 300m, 500m, 1b, 3b; "auto" follows the text, to 500m.
    preset: str = "auto"
    # A model folder in the layout of Qwen3 or Llama, or a run directory: training starts from its
    # weights, with its tokenizer.
    base: str = field(default="", metadata={"key": "from"})
    # Number of transformer layers.
    layers: int = 0
    # Width of the residual stream (hidden size).
    width: int = 0
    # Number of query heads.
    heads: int = 0
    # Number of key and value heads; fewer than `heads` is grouped-query attention.
    kv_heads: int = 0
    # Width of a head; 64 or 128 load everywhere.
    head_width: int = 0
    # Inner width of the feed-forward (intermediate size).
    feed_forward: int = 0
    # Tokens that the model attends to at most.
    context: int = 0
    # Dropout probability in training, 0 to 1.
    dropout: float = 0.0
    # Base of the rotary position frequencies.
    rope_theta: float = ROPE_THETA

    def __post_init__(self) -> None:
        check(0 <= self.dropout < 1, f"dropout {self.dropout} must lie between 0 and 1")
        check(self.rope_theta > 0, "rope_theta must be positive")
        for name in (*SIZES, "context"):
            check(getattr(self, name) >= 0, f"{name} must not be negative")
        # A context may be given: a training window can be shorter than what the model allows.
        defaults = {"preset": "auto", "rope_theta": ROPE_THETA} | dict.fromkeys(SIZES, 0)
        named = [name for name, value in defaults.items() if getattr(self, name) != value]
        message = f"from brings the sizes of its model; leave out {' and '.join(named)}"
        check(not (self.base and named), message)


@dataclass(frozen=True, slots=True)
class Train:
    """The training loop."""

    # Optimizer steps; "auto" follows the amount of text, and takes some minutes without a GPU.
    steps: int | Auto = "auto"
    # Tokens of a step, over all processes.
    batch_tokens: int = 16_384
    # Sequences in one forward pass; "auto" is measured once and written to the lock.
    micro_batch: int | Auto = "auto"
    # Steps in which the learning rate rises from 0 to its peak.
    warmup_steps: int = 100
    # Steps whose checkpoints are kept for good.
    checkpoint_steps: tuple[int, ...] = ()
    # Steps between two rolling checkpoints, from which a stopped training resumes.
    checkpoint_every: int = 500
    # Number of rolling checkpoints to keep.
    keep: int = 2
    # Muon trains the matrices inside the layers, AdamW the rest; adamw uses AdamW alone.
    optimizer: str = "muon"
    # Peak learning rate of AdamW; embeddings and norms always use it. With optimizer = "adamw" a
    # large model needs a tenth of the default.
    learning_rate: float = 0.01
    # Peak learning rate of Muon.
    muon_learning_rate: float = 0.02
    # Decoupled weight decay; norms have none.
    weight_decay: float = 0.1
    # Share of the peak, 0 to 1, at which the cosine schedule ends.
    final_learning_rate: float = 0.1
    # Largest norm of the gradient; a larger one is scaled down.
    clip: float = 1.0
    # A step is skipped if its loss or gradient norm lies this many robust deviations from recent
    # ones; 0 only skips NaN and infinity. Healthy runs stay below 13 (docs/experiments.md).
    guard: float = 16.0
    # Steps between two validations.
    validate_every: int = 250
    # Tokens of each validation.
    validation_tokens: int = 131_072
    # Seconds between two samples of the model in the log.
    sample_seconds: float = 30.0
    # Text that these samples continue.
    sample_prompt: str = "The"
    # Number format of forward and backward passes; "auto" takes what this machine is fast at.
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    # torch.compile; "auto" uses it if the training is long enough to pay for it.
    compile: Literal["auto", "on", "off"] = "auto"
    # Compute layers again in the backward pass (activation checkpointing): slower, less memory.
    recompute: Literal["auto", "on", "off"] = "auto"
    # GPUs add in a fixed order, so a resumed training ends with the same bytes; false is faster.
    exact: bool = True
    # CPU threads of a process.
    threads: int | Auto = "auto"
    # Processes that train together; "auto" is one per GPU.
    processes: int | Auto = "auto"
    # Log to TensorBoard.
    tensorboard: bool = False
    # Log to Weights & Biases.
    wandb: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "micro_batch", "threads", "processes"):
            value = getattr(self, name)
            check(value == "auto" or value >= 1, f"{name} must be at least 1")
        positive = "batch_tokens checkpoint_every keep validate_every validation_tokens"
        for name in positive.split():
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        check(self.batch_tokens <= 1 << 30, f"batch_tokens {self.batch_tokens} is more than 2^30")
        for name in ("learning_rate", "muon_learning_rate", "clip"):
            check(0 < getattr(self, name) < 100, f"{name} must lie between 0 and 100")
        few = self.steps == "auto" or self.steps <= 1_000_000_000
        check(few, f"steps {self.steps} is more than a thousand million")
        for name in ("warmup_steps", "sample_seconds"):
            check(getattr(self, name) >= 0, f"{name} must not be negative")
        message = f"guard {self.guard} must be 0, or at least 4: honest steps differ by as much"
        check(self.guard == 0 or self.guard >= 4, message)
        check(0 <= self.weight_decay <= 100, "weight_decay must lie between 0 and 100")
        check(0 <= self.final_learning_rate <= 1, "final_learning_rate is a share between 0 and 1")
        check(all(step > 0 for step in self.checkpoint_steps), "checkpoint_steps must be positive")


@dataclass(frozen=True, slots=True)
class Tune:
    """Fine-tuning of the trained model on conversations, or on a table of text and label."""

    # none: no fine-tuning; sft: all weights learn; lora: low-rank adapters learn.
    method: Literal["none", "sft", "lora"] = "none"
    # A file, folder or glob with conversations or a table of text and label; empty takes the
    # conversations of the run.
    data: str = ""
    # Names of the sources whose conversations to take; empty takes all of kind conversations.
    sources: tuple[str, ...] = ()
    # The columns of text and label of a table, if their names do not say so.
    columns: tuple[str, ...] = ()
    # Passes over the data.
    epochs: int = 3
    # Peak learning rate of AdamW; "auto" follows the method and the width of the model.
    learning_rate: float | Auto = "auto"
    # Tokens of a step.
    batch_tokens: int = 8_192
    # Rank of the LoRA matrices.
    rank: int = 16
    # LoRA alpha: the product of the matrices is scaled by alpha / rank.
    alpha: float = 32.0
    # Share of the rows of `data` that is held out, 0 to 0.9; conversations of the run keep its
    # split.
    validation: float = 0.1
    # Rows to learn from; 0 takes all.
    limit: int = 0
    # Most tokens of an answer to a held-out prompt.
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_tokens", "rank", "answer_tokens"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1")
        bounded = self.rank <= 4_096 and self.batch_tokens <= 1 << 30
        check(bounded, "rank must be at most 4,096 and batch_tokens at most 2^30")
        rate, share = self.learning_rate, self.validation
        check(rate == "auto" or 0 < rate < 10, "learning_rate must lie between 0 and 10")
        check(0 < self.alpha <= 65_536, "alpha must lie between 0 and 65,536")
        check(0 <= share <= 0.9, f"validation {share} must lie between 0 and 0.9")
        check(self.limit >= 0, "limit must not be negative")
        check(not (self.data and self.sources), "name either data or sources, not both")
        pair = len(self.columns) in (0, 2) and all(self.columns)
        check(pair, 'columns are two, such as ["text", "label"]')


@dataclass(frozen=True, slots=True)
class Export:
    """Formats in which other programs load the finished model."""

    # hf: a Hugging Face folder; gguf: files for llama.cpp, which need the package gguf.
    formats: tuple[str, ...] = ("hf",)
    # Number formats of the GGUF files, one file each.
    gguf_types: tuple[Literal["f32", "f16", "bf16", "q8_0"], ...] = ("f16",)
    # License of the weights, as their exports state it; empty states none.
    license: str = ""
    # What `groundup export` asks for in addition: format, type and model of each.
    more: tuple[tuple[str, str, str], ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(len(self.formats) > 0, "formats is empty; name hf, gguf or both")
        typed = "gguf" not in self.formats or self.gguf_types
        check(bool(typed), "gguf_types is empty; name f32, f16, bf16 or q8_0")
        named = len(self.license) <= 200 and self.license.isprintable()
        check(named, "license is the name of one, such as Apache-2.0")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe."""

    # The sources, one [[source]] table each; at least one.
    source: tuple[Source, ...]
    # Name of the run, and of its directory under runs/.
    name: str = "run"
    # Seed of everything that is random.
    seed: int = 1
    refine: Refine = field(default_factory=Refine)
    tokenize: Tokenize = field(default_factory=Tokenize)
    model: Model = field(default_factory=Model)
    train: Train = field(default_factory=Train)
    evaluate: Evaluate = field(default_factory=Evaluate)
    tune: Tune = field(default_factory=Tune)
    export: Export = field(default_factory=Export)
    # Folder that relative paths start from; it never enters a key.
    root: Path = field(default=Path(), metadata={"internal": True})
    # The recipe file and its overrides, so that a running training can read them again.
    file: str = field(default="", metadata={"internal": True})
    overrides: tuple[str, ...] = field(default=(), metadata={"internal": True})

    def __post_init__(self) -> None:
        check(len(self.source) > 0, "there is no [[source]]; name at least one path")
        check_name(self.name)
        check(self.name.strip(".") != "", f'name "{self.name}" is no name for a folder')
        check(0 <= self.seed < 2**63, "seed must lie between 0 and 2^63")
        own = not self.model.base or self.tokenize.vocab_size == "auto"
        check(own, "[tokenize] vocab_size: [model] from brings its own tokenizer; leave it out")
        names = [source.name for source in self.source]
        for name in names:
            message = f'two sources are called "{name}"; give one of them name = "..."'
            check(names.count(name) == 1, message)
        message = f'no source is of kind "{TUNING}"; name such files as [tune] data'
        check(all(source.kind != TUNING for source in self.source), message)
        conversations = [source.name for source in self.source if source.kind in TALKS]
        learns = self.tune.method == "none" or self.tune.data or conversations
        check(
            bool(learns),
            "[tune]: there is no source of conversations, mail, chat or forum; name data",
        )
        for name in self.tune.sources:
            message = f'[tune] sources: "{name}" is no source of conversations, mail, chat or forum'
            check(name in conversations, message + nearest(name, conversations))


def check_name(name: str) -> None:
    """Raise ValueError unless a name can be that of a file."""
    allowed = re.fullmatch(r"[\w.+-]{1,80}", name)
    check(bool(allowed), f'name "{name}" may hold letters, digits and . _ + - only')


def clean_name(text: str) -> str:
    """Return text with a hyphen in place of the characters that `check_name` refuses."""
    return re.sub(r"[^\w.+-]+", "-", text)


def default_name(path: str) -> str:
    """Return the name of a source: the last part of its path without pattern and suffix."""
    if path.startswith("pypi:"):
        package = re.split(r"[=/]", path.removeprefix("pypi:"))[0]
        return clean_name(package)[:80] or "source"
    parts = re.split(r"[/\\]", path.removeprefix("scrape:").rsplit("://", maxsplit=1)[-1])
    plain = [part for part in parts if part and not re.search(r"[*?\[]", part)]
    stem = clean_name(plain[-1] if plain else "source").strip("-.")
    return (re.sub(r"(\.[A-Za-z]\w{0,4}){1,2}$", "", stem) or stem or "source")[:80]
