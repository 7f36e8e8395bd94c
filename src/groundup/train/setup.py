"""Everything that the training loop needs to know, resolved, and how its settings change by step.

    RUN/train/train.json    one training, as `TrainSetup.write` writes it. The hardware settings
                            are in the run's lock. A process of torchrun reads only these two.
    RUN/train/ledger.jsonl  events; those of "settings" say which [train] table holds from a step on

A later "settings" event replaces earlier ones from its step on. So a run that returns to a
checkpoint applies every change again at its own step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from groundup.artifacts.pretrained import find_pretrained
from groundup.artifacts.tokens import open_shard
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.config import resolve as resolve_model
from groundup.recipe import Train, load_recipe
from groundup.runtime.files import flush
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.run import Run, changed_settings
from groundup.runtime.sealed import Ledger, read_sealed, write_sealed
from groundup.runtime.store import Artifact, Step
from groundup.schema import decode, settings
from groundup.train.data import Loader
from groundup.train.hardware import (
    COMPILE_PAYS_SECONDS,
    Hardware,
    compiler_works,
    recorded_hardware,
)

# Raised by hand when equal settings and inputs begin to give other weights.
VERSION = 1
FILE, LEDGER, EVENT = "train.json", "ledger.jsonl", "settings"
# steps = "auto": as many epochs, and tokens per parameter, as are worth their time (see
# model/config.py), and a few minutes without a GPU.
EPOCHS, TOKENS_PER_PARAMETER, CPU_SECONDS = 4, 20, 300.0
# But not less on a CPU, however slow the probe was: one pass over the text, these steps or these
# operations, whichever is least. Two idle cores do 1e11 operations a second, so 300 s of them.
MIN_STEPS, MIN_OPERATIONS = 200, 3e13
# Fields of a setup that train.json holds as they are.
PLAIN = ("seed", "steps", "weights", "tokens_per_second", "recipe", "overrides")
# Settings that are part of the key, or resolved before step 0 for the life of a process.
FIXED = (
    "optimizer",
    "precision",
    "compile",
    "threads",
    "processes",
    "micro_batch",
    "recompute",
    "exact",
)


def automatic_tokens(
    epoch_tokens: int, config: ModelConfig, device: str, tokens_per_second: float, step_tokens: int
) -> int:
    """Return the tokens that `steps = "auto"` trains on."""
    most = EPOCHS * epoch_tokens
    if device != "cpu":
        return min(most, TOKENS_PER_PARAMETER * config.parameter_count())
    operations = MIN_OPERATIONS / config.flops_per_token()
    least = min(epoch_tokens, MIN_STEPS * step_tokens, operations)
    return int(min(most, max(least, CPU_SECONDS * tokens_per_second)))


@dataclass(frozen=True)
class InitialWeights:
    """The pretrained model that step 0 takes its weights from; `content` is their SHA-256."""

    folder: str
    name: str
    license: str
    content: str

    def origin(self) -> dict[str, str]:
        """Return where the weights come from, without folders of this machine."""
        return {"name": self.name, "license": self.license or "not stated", "sha256": self.content}


@dataclass(frozen=True)
class TrainSetup:
    """One training, resolved."""

    config: ModelConfig
    train: Train
    hardware: Hardware
    seed: int
    steps: int  # the end step
    # Share of training tokens by source, relative to its size.
    weights: Mapping[str, float] = field(default_factory=dict)
    # Settings and inputs that decide the weights; another key is another training.
    key_parts: Step = field(default_factory=lambda: Step("train", "model", 0))
    tokens_per_second: float = 0.0  # measured by the probe, for the record
    recipe: str = ""  # file to reload the [train] table from, with `overrides`; "" if there is none
    overrides: tuple[str, ...] = ()
    init_from: InitialWeights | None = None  # None if the seed draws the weights
    # Ids of the tokenizer; the embedding of a pretrained model may have more rows.
    token_ids: int = 0

    @property
    def vocabulary(self) -> int:
        """Number of ids that token shards may hold, which decides their type on disk."""
        return self.token_ids or self.config.vocab_size

    @property
    def sequences(self) -> int:
        """Sequences of a step: batch_tokens in whole windows, whatever the hardware."""
        return max(1, round(self.train.batch_tokens / self.config.context))

    @property
    def step_tokens(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.config.context

    @property
    def train_table(self) -> dict[str, Any]:
        """The [train] table, with the end step resolved."""
        return settings(self.train) | {"steps": self.steps}

    def open_loader(self, root: Path, split: str) -> Loader:
        """Open the shards of a split."""
        folder, weights = root / "tokenize" / "shards", self.weights if split == "train" else None
        context, vocabulary = self.config.context, self.vocabulary
        return Loader(
            folder, split, context=context, vocab_size=vocabulary, seed=self.seed, weights=weights
        )

    def write(self, root: Path) -> None:
        """Write train.json."""
        key = self.key_parts
        table = {
            "key": key.key,
            "version": key.version,
            "settings": dict(key.settings),
            "inputs": dict(key.inputs),
            "model": dataclasses.asdict(self.config),
            "train": settings(self.train),
            **{name: getattr(self, name) for name in PLAIN},
            "base": dataclasses.asdict(self.init_from) if self.init_from else {},
            "token_ids": self.token_ids,
        }
        write_sealed(root / "train" / FILE, table)

    @classmethod
    def read(cls, root: Path) -> TrainSetup | None:
        """Return the setup of a run's training, or None if none was begun.

        Raises GroundupError if something else wrote train.json.
        """
        path = root / "train" / FILE
        table = read_sealed(path)
        if table is None:
            return None
        try:
            key = Step("train", "model", table["version"], table["settings"], table["inputs"])
            base, plain = table.get("base"), {name: table[name] for name in PLAIN}
            return cls(
                config=decode(ModelConfig, table["model"], str(path)),
                train=decode(Train, table["train"], str(path)),
                hardware=recorded_hardware(root) or Hardware(),
                key_parts=key,
                init_from=InitialWeights(**base) if base else None,
                token_ids=table.get("token_ids", 0),
                **plain | {"overrides": tuple(plain["overrides"])},
            )
        except (KeyError, TypeError) as error:
            damage = f"{path}: cannot be read ({error})"
            raise GroundupError(f"{damage}; move it away to start again") from None


def draft_setup(run: Run, view: Artifact, processes: int) -> TrainSetup:
    """Return the setup of a run without what depends on the hardware."""
    recipe, train = run.recipe, run.recipe.train
    if processes:
        train = dataclasses.replace(train, processes=processes)
    vocabulary = Tokenizer.from_file(str(view.path / "tokenizer.json")).get_vocab()
    token_ids = max(vocabulary.values()) + 1
    names = [name for name in view.manifest["files"] if name.endswith(".train.npy")]
    tokens = sum(len(open_shard(view.path / n, token_ids, check_ids=False)) for n in names)
    base, init_from = find_pretrained(recipe), None
    if base is not None:
        base.check(run.root)
        folder = str(base.path.resolve())
        init_from = InitialWeights(folder, base.name, base.license, base.content())
        config = base.config
    else:
        config = resolve_model(recipe.model, token_ids, tokens, gpu=choose_device() == "cuda")
    weights = {source.name: source.weight for source in recipe.source}
    setup = TrainSetup(config, train, Hardware(), recipe.seed, steps=1, weights=weights)
    setup = dataclasses.replace(setup, init_from=init_from, token_ids=token_ids)
    setup = dataclasses.replace(setup, recipe=recipe.file, overrides=recipe.overrides)
    if setup.open_loader(run.root, "train").epoch_size == 0:
        raise GroundupError(
            f"{view.path / 'shards'}: no shard's {tokens} training tokens fill one window of"
            f" context + 1 = {config.context + 1}; add text, or set a smaller [model] context"
        )
    return dataclasses.replace(setup, key_parts=key_of(setup, view))


def key_of(setup: TrainSetup, view: Artifact) -> Step:
    """Return what decides which training this is: data, tokenizer, model, seed, optimizer and the
    initial weights.

    What may change while it runs (rates, end, batch) is in its ledger instead, by step.
    """
    files = view.manifest["files"]
    names = [name for name in files if name.endswith(".npy") or name == "tokenizer.json"]
    present = {Path(name).name.split(".train.")[0].rpartition(".")[0] for name in names}
    decided: dict[str, Any] = {
        "model": setup.config.key_settings(),
        "seed": setup.seed,
        "optimizer": setup.train.optimizer,
        "weights": {name: weight for name, weight in setup.weights.items() if name in present},
    }
    if setup.init_from is not None:
        # 128 bits tell any two models apart, and messages show this value.
        decided["from"] = setup.init_from.content[:32]
    inputs = {name: files[name]["sha256"] for name in sorted(names)}
    return Step("train", "model", VERSION, decided, inputs)


def resolve_steps(
    root: Path, draft: TrainSetup, speed: float, old: TrainSetup | None, probed: bool
) -> TrainSetup:
    """Return the whole setup: the end step, and whether compiling pays for so many steps.

    The end step of `old`, a training that was begun, stays if the recipe leaves it open. `probed`
    says that nothing is recorded yet; `speed` is in tokens per second.
    """
    train, hardware, steps = draft.train, draft.hardware, old.steps if old is not None else 0
    if train.steps != "auto":
        steps = train.steps
    elif old is None:
        epoch_tokens = draft.open_loader(root, "train").epoch_size * draft.config.context
        device, step_tokens = hardware.device, draft.step_tokens
        tokens = automatic_tokens(epoch_tokens, draft.config, device, speed, step_tokens)
        steps = max(1, tokens // step_tokens)
        if steps < MIN_STEPS and tokens < epoch_tokens:
            say(
                f'train: steps = "auto" came to {steps} steps, {tokens / epoch_tokens:.1%} of the'
                " text; that is little for a model of this size on a CPU: choose a smaller [model]"
                " preset, or set [train] steps"
            )
    if probed and train.compile == "auto":
        pays = steps * draft.step_tokens / speed > COMPILE_PAYS_SECONDS
        hardware = dataclasses.replace(hardware, compile=pays and compiler_works())
    speed = round(speed, 1)
    return dataclasses.replace(draft, hardware=hardware, steps=steps, tokens_per_second=speed)


def timeline(
    setup: TrainSetup, events: Iterable[Mapping[str, Any]]
) -> list[tuple[int, TrainSetup]]:
    """Return which setup holds from which step on, in order; without events `setup` throughout."""
    changes: list[tuple[int, TrainSetup]] = []
    for event in events:
        step, table = event["step"], event["settings"]
        train = decode(Train, dict(table), LEDGER)
        change = dataclasses.replace(setup, train=train, steps=table["steps"])
        changes = [*(earlier for earlier in changes if earlier[0] < step), (step, change)]
    return changes or [(0, setup)]


class SettingsTimeline:
    """The setup of a training by step, as its ledger has the changes of the [train] settings."""

    def __init__(self, root: Path, setup: TrainSetup) -> None:
        self.root, self.setup = root, setup
        self.ledger = Ledger(root / "train" / LEDGER)
        self.reload()

    def reload(self) -> None:
        """Read the ledger again."""
        self.changes = timeline(self.setup, self.ledger.events(EVENT))

    def at(self, step: int) -> TrainSetup:
        """Return the setup that holds for the step after `step` steps."""
        begun = (setup for first, setup in reversed(self.changes) if first <= step)
        return next(begun, self.changes[0][1])

    def record(self, step: int, now: TrainSetup) -> None:
        """Write into the ledger what holds from `step` on, unless it holds already."""
        recorded, (_, before) = self.ledger.events(EVENT), self.changes[-1]
        if recorded and (before.train, before.steps) == (now.train, now.steps):
            return
        if not recorded and step:
            # A rollback to before `step` needs what held until now.
            self.ledger.write(EVENT, step=0, changed="", settings=before.train_table)
        changed = changed_settings(before.train_table, now.train_table)
        self.ledger.write(EVENT, step=step, changed=changed, settings=now.train_table)
        flush(self.ledger.path)
        self.reload()

    def reload_recipe(self, step: int, world: int) -> str:
        """Let the [train] table of the recipe hold from `step` on, and return what changed."""
        setup, (_, now) = self.setup, self.changes[-1]
        if not setup.recipe:
            why = "this training was not begun from a recipe file"
            raise GroundupError(f"{why}; stop it, and run again to change it")
        train = load_recipe(Path(setup.recipe), setup.overrides).train
        for name in FIXED:
            if getattr(train, name) != getattr(now.train, name):
                fixed = f"[train] {name} cannot change while a run is on"
                raise GroundupError(f"{setup.recipe}: {fixed}; stop it and run again")
        steps = now.steps if train.steps == "auto" else train.steps
        new = dataclasses.replace(setup, train=train, steps=steps)
        if new.sequences < world:
            few = f"{new.sequences} sequences, fewer than the {world} processes"
            raise GroundupError(f"{setup.recipe}: batch_tokens is {few}")
        changed = changed_settings(now.train_table, new.train_table)
        if changed:
            self.record(step, new)
            new.write(self.root)
        return changed or "nothing changed"
