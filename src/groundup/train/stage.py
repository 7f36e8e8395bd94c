"""The train stage: token shards → checkpoints, metrics and the ledger of a training.

It resumes from the newest checkpoint, does nothing once the end step is reached, and never discards
an expensive training unasked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifacts.metrics import Metrics
from groundup.errors import GroundupError
from groundup.recipe import Train
from groundup.runtime.files import file_digest, link_whole, make_folder
from groundup.runtime.lock import write_lock
from groundup.runtime.progress import say
from groundup.runtime.run import EXPENSIVE_SECONDS, Run, changed_settings
from groundup.runtime.sealed import read_sealed
from groundup.runtime.store import Step

if TYPE_CHECKING:
    from groundup.train.setup import TrainSetup

INDEX, TOKENIZER = "index.parquet", "tokenizer.json"
# Event of the run's ledger: a training of another key took the place of one with this loss.
RETRAIN = "retrain"


def run(run: Run) -> None:
    """Train the model of a run to its end step.

    Raises GroundupError if there are no tokens, training was stopped or failed; ExpensiveError if
    another key would discard more than ten minutes of training.
    """
    from groundup.train.distributed import init_distributed
    from groundup.train.launch import launch
    from groundup.train.trainer import Trainer

    # Idle workers would hold memory for as long as training takes.
    run.workers.close()
    setup = prepare(run)
    if finished(run.root, setup):
        run.reused += 1
        return
    begin(run, setup)
    if setup.hardware.processes == 1:
        with init_distributed(setup.hardware) as ranks:
            Trainer(run.root, setup, ranks).train()
    elif not launch(run.root, setup.hardware) or not finished(run.root, setup):
        remedy = "checkpoints are kept, run the same command to resume"
        raise GroundupError(f"the training processes died; {remedy}")
    run.built += 1
    # The loss of the training that this one replaced, beside its own.
    events = [e for e in run.ledger.events(RETRAIN) if e["key"] == setup.key_parts.key]
    best = read_sealed(run.root / "train" / "best.json")
    if events and best is not None and None not in (best["loss"], events[-1]["loss"]):
        reason, note = events[-1]["reason"], ""
        if "tokenizer" in reason or "data" in reason:
            note = "; tokens and validation text are not the same, so compare bits per byte instead"
        say(f"train: validation loss {best['loss']:.4g}, before {events[-1]['loss']:.4g}{note}")


def prepare(run: Run, processes: int = 0) -> TrainSetup:
    """Resolve what to train, make room for it, and resolve on what hardware.

    torchrun may have started `processes` already; 0 chooses.
    """
    from groundup.train.hardware import recorded_hardware
    from groundup.train.hardware_probe import resolve_hardware
    from groundup.train.setup import TrainSetup, draft_setup, resolve_steps

    view = run.store.view("tokenize")
    if view is None:
        missing = f"{run.root / 'tokenize'}: there are no token shards"
        raise GroundupError(f"{missing}; run the stages before train first")
    draft = draft_setup(run, view, processes)
    _make_room(run, draft.key_parts)
    old, hardware = TrainSetup.read(run.root), recorded_hardware(run.root)
    # A kill between writing the lock and train.json leaves no setup. No step was taken then, so the
    # hardware may be probed again.
    probed = old is None or hardware is None
    if old is not None and hardware is not None:
        hardware, speed = hardware.with_recipe(draft.train, draft.sequences), old.tokens_per_second
    else:
        hardware, speed = resolve_hardware(draft.config, draft.train, draft.sequences)
    draft = dataclasses.replace(draft, hardware=hardware)
    return resolve_steps(run.root, draft, speed, old, probed)


def _make_room(run: Run, new: Step) -> None:
    """Move away or delete a training of another key, or one that is to be done again."""
    from groundup.train.setup import TrainSetup

    setup, folder = TrainSetup.read(run.root), run.root / "train"
    if setup is None or (setup.key_parts.key == new.key and "train" not in run.redo):
        return
    old = setup.key_parts
    names = {*old.inputs, *new.inputs}
    changed = {name for name in names if old.inputs.get(name) != new.inputs.get(name)}
    reasons = ["its tokenizer changed"] if TOKENIZER in changed else []
    if shards := len(changed - {TOKENIZER}):
        reasons.append(f"its data changed ({shards} of {len(names - {TOKENIZER})} token shards)")
    if settings := changed_settings(_dotted(old.settings), _dotted(new.settings)):
        reasons.append(settings)
    reason = "; ".join(reasons) or "this version of groundup trains differently"
    if old.key == new.key:
        reason = "it is to be done again"
    lines = Metrics(folder / "metrics.jsonl").read()
    seconds = max((line["seconds"] for line in lines if "seconds" in line), default=0.0)
    run.charge_discarded("train", seconds, reason)
    best = read_sealed(folder / "best.json") or {"loss": None}
    # Before anything is moved: a kill in between must not lose the loss.
    run.ledger.write(RETRAIN, key=new.key, reason=reason, loss=best["loss"])
    archived = run.archive("train") if seconds > EXPENSIVE_SECONDS else None
    if archived is None:
        run.store.discard([folder])
    where = f"; the old training moved to {archived}" if archived else ""
    say(f"train: trains again from step 0: {reason}{where}")


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of an inner table as `table.name`."""
    dotted: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            dotted |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            dotted[name] = value
    return dotted


def finished(root: Path, setup: TrainSetup) -> bool:
    """Return whether a training has reached its end step, with its best checkpoint named.

    A kill may leave checkpoints that the last one replaced: then it has not.
    """
    from groundup.train.setup import SettingsTimeline
    from groundup.train.state import Checkpoints

    checkpoints = Checkpoints(root, setup.key_parts.key)
    newest, best = checkpoints.newest(), read_sealed(root / "train" / "best.json")
    if newest is None or best is None or newest[1].step < setup.steps:
        return False
    state = newest[1]
    wanted = checkpoints.wanted(state, SettingsTimeline(root, setup).at(state.step).train)
    is_named = best["step"] == (state.best_step or state.step)
    return is_named and wanted.issuperset(checkpoints.steps())


def begin(run: Run, setup: TrainSetup) -> None:
    """Write down what is about to run, before step 0, and changed settings with their step."""
    from groundup.train.setup import SettingsTimeline
    from groundup.train.state import Checkpoints

    root, hardware = run.root, dataclasses.asdict(setup.hardware)
    make_folder(root / "train" / "checkpoints")
    origin = setup.init_from.origin() if setup.init_from else {}
    write_lock(root, run.recipe, machine=hardware, weights=origin)
    # Where older versions recorded the hardware.
    (root / "train" / "machine.json").unlink(missing_ok=True)
    setup.write(root)
    checkpoint = Checkpoints(root, setup.key_parts.key).latest_valid(move_damaged=True)
    step = checkpoint[1].step if checkpoint else 0
    timeline = SettingsTimeline(root, setup)
    timeline.record(step, setup)
    ledger = timeline.ledger
    if origin and not ledger.events("from"):
        ledger.write("from", step=0, **origin)
    if [event["machine"] for event in ledger.events("machine")][-1:] != [hardware]:
        ledger.write("machine", step=step, machine=hardware)
    index = root / "tokenize" / INDEX
    if index.exists():
        # Which documents this training reads, also when later tokens replace these.
        digest = file_digest(index)
        if [event["sha256"] for event in ledger.events("index")][-1:] != [digest]:
            ledger.write("index", step=step, sha256=digest)
        link_whole(index, root / "train" / INDEX)
    # Earlier versions left it behind.
    (root / "train" / f".{INDEX}").unlink(missing_ok=True)
    _announce(setup, step)


def _announce(setup: TrainSetup, step: int) -> None:
    """Say what is trained on what, and warn of rates that are too high for pretrained weights."""
    hardware, train, default = setup.hardware, setup.train, Train()
    name = f" of {setup.init_from.name}" if setup.init_from else ""
    device = hardware.device
    if hardware.processes > 1:
        device = f"{hardware.processes} x {device}"
    say(
        f"train: {setup.config.parameter_count() / 1e6:.1f}M parameters{name}, {setup.steps} steps"
        f" of {setup.step_tokens} tokens, {hardware.precision} on {device}, {hardware.threads}"
        f" threads, micro-batch {hardware.micro_batch}"
        f"{', layers computed twice' if hardware.recompute else ''}, attention {hardware.attention}"
        f"{'' if hardware.exact else ', not exact: a resumed run may end with other bytes'}"
    )
    rates = (train.learning_rate, train.muon_learning_rate)
    are_defaults = rates == (default.learning_rate, default.muon_learning_rate)
    if setup.init_from and step == 0 and are_defaults:
        high = "the learning rates are the defaults for fresh weights"
        say(f"train: {high}; a tenth of them keeps more of a pretrained model")
