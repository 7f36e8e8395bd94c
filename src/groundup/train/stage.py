"""The train stage: token shards → checkpoints, metrics and the ledger of a training.

It resumes from the newest checkpoint, does nothing once the end step is reached, and never discards
an expensive training unasked.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError
from groundup.recipe import Train
from groundup.runtime.files import link, read_json
from groundup.runtime.progress import say
from groundup.runtime.run import EXPENSIVE_SECONDS, Run, changed_settings, write_lock
from groundup.runtime.store import Artifact, Step

if TYPE_CHECKING:
    from groundup.train.setup import TrainSetup

# Raised by hand when equal settings and inputs begin to give other weights.
VERSION = 1
INDEX = "index.parquet"


def run(run: Run) -> None:
    """Train the model of a run to its end step.

    Raises:
        GroundupError: there are no tokens, training was stopped or failed.
        ExpensiveError: another key would discard more than ten minutes of training.
    """
    from groundup.train.distributed import init_distributed
    from groundup.train.launch import launch
    from groundup.train.trainer import Trainer

    setup = prepare(run)
    if finished(run.root, setup):
        run.reused += 1
        return
    begin(run, setup)
    if setup.hardware.processes == 1:
        with init_distributed(setup.hardware) as ranks:
            Trainer(run.root, setup, ranks).train()
    else:
        launch(run.root, setup.hardware)
        if not finished(run.root, setup):
            raise GroundupError(
                "the training processes died; what they had saved is kept, run again to go on"
            )
    run.built += 1


def prepare(run: Run, processes: int = 0) -> TrainSetup:
    """Resolve what to train, and make room for it.

    Args:
        processes: that torchrun has started already; 0 chooses.

    Raises:
        GroundupError: there are no tokens, or they, the model and the hardware do not fit together.
        ExpensiveError: another key would discard more than ten minutes of training.
    """
    view = run.store.view("tokenize")
    if view is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no token shards; run the stages before train first"
        )
    setup = _draft(run, view, processes)
    setup = dataclasses.replace(setup, key_parts=key_of(setup, view))
    _make_room(run, setup.key_parts)
    return _resolve(run, setup)


def _draft(run: Run, view: Artifact, processes: int) -> TrainSetup:
    """Return the setup without what depends on the hardware."""
    from tokenizers import Tokenizer
    from torch import cuda

    from groundup.artifacts.pretrained import find_base
    from groundup.artifacts.tokens import open_shard
    from groundup.model.config import resolve
    from groundup.train.hardware import Hardware
    from groundup.train.setup import InitialWeights, TrainSetup

    recipe, train = run.recipe, run.recipe.train
    if processes:
        train = dataclasses.replace(train, processes=processes)
    vocabulary = Tokenizer.from_file(str(view.path / "tokenizer.json")).get_vocab()
    token_ids = max(vocabulary.values()) + 1
    names = [name for name in view.manifest["files"] if name.endswith(".train.npy")]
    tokens = sum(len(open_shard(view.path / n, token_ids, check_ids=False)) for n in names)
    base, init_from = find_base(recipe), None
    if base is not None:
        base.check(run.root)
        folder = str(base.path.resolve())
        init_from = InitialWeights(folder, base.name, base.license, base.content())
        config = base.config
    else:
        config = resolve(recipe.model, token_ids, tokens, gpu=cuda.is_available())
    weights = {source.name: source.weight for source in recipe.source}
    setup = TrainSetup(config, train, Hardware(), recipe.seed, steps=1, weights=weights)
    setup = dataclasses.replace(
        setup,
        recipe=recipe.file,
        overrides=recipe.overrides,
        init_from=init_from,
        token_ids=token_ids,
    )
    if setup.open_loader(run.root, "train").epoch_size == 0:
        raise GroundupError(
            f"{view.path / 'shards'}: no shard's {tokens} training tokens fill one window of"
            f" context + 1 = {config.context + 1}; add text, or set a smaller [model] context"
        )
    return setup


def key_of(setup: TrainSetup, view: Artifact) -> Step:
    """Return what decides which training this is: data, tokenizer, model, seed, optimizer and the
    initial weights.

    What may change while it runs (rates, end, batch) is in its ledger instead, by step.
    """
    files = view.manifest["files"]
    names = [name for name in files if name.endswith(".npy") or name == "tokenizer.json"]
    present = {Path(name).name.split(".train.")[0].rpartition(".")[0] for name in names}
    settings: dict[str, Any] = {
        "model": setup.config.key_settings(),
        "seed": setup.seed,
        "optimizer": setup.train.optimizer,
        "weights": {name: weight for name, weight in setup.weights.items() if name in present},
    }
    if setup.init_from is not None:
        # 128 bits tell any two models apart, and messages show this value.
        settings["from"] = setup.init_from.content[:32]
    inputs = {name: files[name]["sha256"] for name in sorted(names)}
    return Step("train", "model", VERSION, settings, inputs)


def _make_room(run: Run, new: Step) -> None:
    """Move away or delete a training of another key, or one that is to be done again."""
    from groundup.train.setup import TrainSetup

    setup, folder = TrainSetup.read(run.root), run.root / "train"
    if setup is None or (setup.key_parts.key == new.key and "train" not in run.redo):
        return
    old, reason = setup.key_parts, "this version of groundup trains differently"
    if changed := changed_settings(old.settings, new.settings):
        reason = changed
    elif old.inputs != new.inputs:
        reason = "its token shards or its tokenizer changed"
    elif old.version == new.version:
        reason = "it is to be done again"
    lines = Metrics(folder / "metrics.jsonl").read()
    seconds = max((line["seconds"] for line in lines if "seconds" in line), default=0.0)
    run.charge_discarded("train", seconds, reason)
    if seconds > EXPENSIVE_SECONDS:
        run.set_aside("train")
    else:
        run.store.discard([folder])


def _resolve(run: Run, draft: TrainSetup) -> TrainSetup:
    """Resolve what the recipe leaves open, or take it from the training that was begun."""
    from groundup.train import hardware as hw
    from groundup.train.setup import TrainSetup, automatic_tokens

    old, recorded, train = TrainSetup.read(run.root), hw.recorded_hardware(run.root), draft.train
    # A kill between the lock and train.json leaves no setup. No step was taken then, so the
    # hardware may be probed again.
    if old is not None and recorded is not None:
        hardware, speed = recorded.with_recipe(train, draft.sequences), old.tokens_per_second
    else:
        hardware, speed = hw.resolve_hardware(draft.config, train, draft.sequences)
    if train.steps != "auto":
        steps = train.steps
    elif old is not None:
        steps = old.steps
    else:
        epoch_tokens = draft.open_loader(run.root, "train").epoch_size * draft.config.context
        tokens = automatic_tokens(epoch_tokens, draft.config, hardware.device, speed)
        steps = max(1, tokens // draft.step_tokens)
    if (old is None or recorded is None) and train.compile == "auto":
        pays = steps * draft.step_tokens / speed > hw.COMPILE_PAYS_SECONDS
        hardware = dataclasses.replace(hardware, compile=pays and hw.compiler_works())
    return dataclasses.replace(
        draft, hardware=hardware, steps=steps, tokens_per_second=round(speed, 1)
    )


def finished(root: Path, setup: TrainSetup) -> bool:
    """Return whether a training has reached its end step, with its best checkpoint named."""
    from groundup.train.state import Checkpoints

    checkpoint = Checkpoints(root, setup.key_parts.key).newest()
    best = read_json(root / "train" / "best.json")
    if checkpoint is None or best is None or checkpoint[1].step < setup.steps:
        return False
    return best["step"] == (checkpoint[1].best_step or checkpoint[1].step)


def begin(run: Run, setup: TrainSetup) -> None:
    """Write down what is about to run, before step 0, and changed settings with their step."""
    from groundup.train.setup import SettingsTimeline
    from groundup.train.state import Checkpoints

    root, hardware = run.root, dataclasses.asdict(setup.hardware)
    (root / "train" / "checkpoints").mkdir(parents=True, exist_ok=True)
    origin = setup.init_from.origin() if setup.init_from else {}
    write_lock(run, origin, **hardware)
    # Where older versions recorded the hardware.
    (root / "train" / "machine.json").unlink(missing_ok=True)
    setup.write(root)
    if (root / "tokenize" / INDEX).exists():
        # Which documents this training reads, also when later tokens replace these.
        new = root / "train" / f".{INDEX}"
        new.unlink(missing_ok=True)
        link(root / "tokenize" / INDEX, new)
        new.rename(root / "train" / INDEX)
    checkpoint = Checkpoints(root, setup.key_parts.key).latest_valid(move_damaged=True)
    step = checkpoint[1].step if checkpoint else 0
    timeline = SettingsTimeline(root, setup)
    timeline.record(step, setup.train, setup.steps)
    ledger = timeline.ledger
    if origin and not ledger.events("from"):
        ledger.write("from", step=0, **origin)
    if [event["machine"] for event in ledger.events("machine")][-1:] != [hardware]:
        ledger.write("machine", step=step, machine=hardware)
    say(_headline(setup))
    default, train = Train(), setup.train
    rates = (train.learning_rate, train.muon_learning_rate)
    if origin and step == 0 and rates == (default.learning_rate, default.muon_learning_rate):
        say(
            "train: the learning rates are those for fresh weights; a tenth of them keeps more of"
            " what these weights know"
        )


def _headline(setup: TrainSetup) -> str:
    hardware = setup.hardware
    millions = setup.config.parameter_count() / 1e6
    name = f" of {setup.init_from.name}" if setup.init_from else ""
    device = hardware.device
    if hardware.processes > 1:
        device = f"{hardware.processes} x {device}"
    return (
        f"train: {millions:.1f}M parameters{name}, {setup.steps} steps of {setup.step_tokens}"
        f" tokens, {hardware.precision} on {device}, {hardware.threads} threads, micro-batch"
        f" {hardware.micro_batch}{', layers computed twice' if hardware.recompute else ''}"
    )
