"""The train stage. Reads the view `RUN/tokenize`; writes `RUN/train`: train.json, machine.json,
ledger.jsonl, index.parquet and what the loop writes. Goes on where a checkpoint stands, does
nothing when the end step is reached, and guards what was expensive.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import cuda

from groundup.artifacts.metrics import Metrics
from groundup.artifacts.pretrained import Base, find_base
from groundup.artifacts.tokens import open_shard
from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.model.presets import resolve as resolve_model
from groundup.recipe import Train
from groundup.runtime.files import link, read_json, write_json
from groundup.runtime.progress import say
from groundup.runtime.run import EXPENSIVE_SECONDS, Run, changed_settings, write_lock
from groundup.runtime.store import Artifact, Step
from groundup.schema import decode
from groundup.train import hardware as machines
from groundup.train.data import Loader
from groundup.train.hardware import Machine
from groundup.train.launch import launch, train
from groundup.train.settings_timeline import Changes
from groundup.train.setup import Plan, automatic_tokens
from groundup.train.state import Checkpoints

# Raised by hand when equal settings and inputs begin to give other weights.
VERSION = 1
MACHINE, INDEX = "machine.json", "index.parquet"


def run(run: Run) -> None:
    """Train the model of a run to its end step.

    Raises:
        GroundupError: there are no tokens, training was stopped or failed.
        ExpensiveError: another key would throw away more than ten minutes of training.
    """
    plan = prepare(run)
    if finished(run.root, plan):
        run.reused += 1
        return
    begin(run, plan)
    if plan.machine.processes == 1:
        train(run.root, plan)
    else:
        launch(run.root, plan)
        if not finished(run.root, plan):
            raise GroundupError(
                "the training processes died; what they had saved is kept, run again to go on"
            )
    run.built += 1


def prepare(run: Run, processes: int = 0) -> Plan:
    """Resolve what is to be trained, and make room for it.

    Args:
        processes: that were started already, on one machine or several; 0 chooses.

    Raises:
        GroundupError: there are no tokens, or they, the model and the machine do not fit together.
        ExpensiveError: another key would throw away more than ten minutes of training.
    """
    view = run.store.view("tokenize")
    if view is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no token shards; run the stages before train first"
        )
    base, token_ids = _base(run), _token_ids(view)
    config = _config(run, view, base, token_ids)
    origin = _origin(base)
    step = key_of(run, view, config, origin.get("content", ""))
    _make_room(run, step)
    train = (
        run.recipe.train
        if not processes
        else dataclasses.replace(run.recipe.train, processes=processes)
    )
    return _plan(
        run,
        Plan(
            config,
            train,
            Machine(),
            run.recipe.seed,
            1,
            _weights(run),
            step,
            base=origin,
            token_ids=token_ids,
        ),
    )


def _base(run: Run) -> Base | None:
    base = find_base(run.recipe)
    if base is not None:
        base.check(run.root)
    return base


def _origin(base: Base | None) -> dict[str, str]:
    """Return where the first weights come from, as train.json has it."""
    if base is None:
        return {}
    return {
        "folder": str(base.path.resolve()),
        "name": base.name,
        "license": base.license,
        "content": base.content(),
    }


def _token_ids(view: Artifact) -> int:
    return max(Tokenizer.from_file(str(view.path / "tokenizer.json")).get_vocab().values()) + 1


def _config(run: Run, view: Artifact, base: Base | None, vocab_size: int) -> ModelConfig:
    tokens = sum(
        len(open_shard(view.path / name, vocab_size, check_ids=False))
        for name in view.manifest["files"]
        if name.endswith(".train.npy")
    )
    config = (
        base.config
        if base
        else resolve_model(run.recipe.model, vocab_size, tokens, gpu=cuda.is_available())
    )
    if (
        Loader(
            view.path / "shards",
            "train",
            context=config.context,
            vocab_size=vocab_size,
            seed=0,
            weights=_weights(run),
        ).epoch
        == 0
    ):
        raise GroundupError(
            f"{view.path / 'shards'}: no shard's {tokens} training tokens fill one window of"
            f" context + 1 = {config.context + 1}; add text, or set a smaller [model] context"
        )
    return config


def _weights(run: Run) -> dict[str, float]:
    return {source.name: source.weight for source in run.recipe.source}


def key_of(run: Run, view: Artifact, config: ModelConfig, first_weights: str = "") -> Step:
    """Return what decides which training this is: data, tokenizer, model, seed, optimizer and the
    weights that it begins with.

    What changes while it runs (rates, end, batch) is in its ledger instead, by step.

    Args:
        first_weights: content of the model that is gone on from, "" where the seed draws them.
    """
    files = view.manifest["files"]
    names = [name for name in files if name.endswith(".npy") or name == "tokenizer.json"]
    present = {Path(name).name.split(".train.")[0].rpartition(".")[0] for name in names}
    wanted = {
        "model": config.named(),
        "seed": run.recipe.seed,
        "optimizer": run.recipe.train.optimizer,
        "weights": {name: weight for name, weight in _weights(run).items() if name in present},
    }
    # Shortened for the eyes of who reads what changed; 128 bits tell any two models apart.
    wanted |= {"from": first_weights[:32]} if first_weights else {}
    return Step(
        "train", "model", VERSION, wanted, {name: files[name]["sha256"] for name in sorted(names)}
    )


def _make_room(run: Run, step: Step) -> None:
    """Move away or delete a training of another key, or one that is to be done again."""
    folder = run.root / "train"
    old = Plan.read(folder)
    if old is None or (old.key_parts.key == step.key and "train" not in run.redo):
        return
    seconds = cost(run.root)
    run.charge_discarded("train", seconds, difference(old.key_parts, step))
    if seconds > EXPENSIVE_SECONDS:
        run.set_aside("train")
    else:
        run.store.discard([folder])


def cost(root: Path) -> float:
    """Return the seconds that went into the training of a run, as its metrics tell."""
    lines = [
        line["seconds"]
        for line in Metrics(root / "train" / "metrics.jsonl").read()
        if "seconds" in line
    ]
    return max(lines, default=0.0)


def difference(old: Step, new: Step) -> str:
    """Say in words why one training cannot go on as another."""
    changed = changed_settings(old.settings, new.settings)
    if changed:
        return changed
    if old.inputs != new.inputs:
        return "its token shards or its tokenizer changed"
    return (
        "it is to be done again"
        if old.version == new.version
        else "this version of groundup trains differently"
    )


def _plan(run: Run, draft: Plan) -> Plan:
    """Resolve what is left open, or take it from the training that was begun."""
    folder, config, train = run.root / "train", draft.config, draft.train
    old = Plan.read(folder)
    draft = dataclasses.replace(draft, recipe=run.recipe.file, overrides=run.recipe.overrides)
    table = read_json(folder / MACHINE)
    speed = old.tokens_per_second if old is not None else 0.0
    # A kill between the two files leaves no plan: no step was taken, so the machine may be looked
    # at again.
    if table is not None and old is not None:
        machine = _with_wishes(
            decode(Machine, table, str(folder / MACHINE)), train, draft.sequences
        )
    else:
        machine, speed = machines.resolve(config, train, draft.sequences)
    steps = train.steps
    if steps == "auto":
        steps = old.steps if old is not None else _auto_steps(run, draft, machine, speed)
    if (table is None or old is None) and train.compile == "auto":
        seconds = steps * draft.sequences * config.context / speed
        machine = dataclasses.replace(
            machine, compile=seconds > machines.COMPILE_PAYS_SECONDS and machines.compiler_works()
        )
    return dataclasses.replace(
        draft, machine=machine, steps=steps, tokens_per_second=round(speed, 1)
    )


def _with_wishes(machine: Machine, train: Train, sequences: int) -> Machine:
    """What the recipe says in so many words wins over what was resolved before."""
    wishes: dict[str, Any] = {
        name: getattr(train, name)
        for name in ("threads", "precision")
        if getattr(train, name) != "auto"
    }
    wishes |= {
        name: getattr(train, name) == "on"
        for name in ("compile", "recompute")
        if getattr(train, name) != "auto"
    }
    processes = machine.processes if train.processes == "auto" else train.processes
    wishes["processes"] = machines.count_processes(
        dataclasses.replace(train, processes=processes), sequences, machine.device
    )
    if train.micro_batch != "auto":
        wishes["micro_batch"] = machines.divisor(sequences // processes, train.micro_batch)
    return dataclasses.replace(machine, **wishes)


def _auto_steps(run: Run, plan: Plan, machine: Machine, speed: float) -> int:
    shape = {"context": plan.config.context, "vocab_size": plan.vocabulary, "seed": plan.seed}
    loader = Loader(run.root / "tokenize" / "shards", "train", **shape, weights=plan.weights)
    tokens = automatic_tokens(
        loader.epoch * plan.config.context, plan.config, machine.device, speed
    )
    return max(1, tokens // (plan.sequences * plan.config.context))


def finished(root: Path, plan: Plan) -> bool:
    """Say whether the training of `plan` has reached its end step, with its best checkpoint named."""
    found = Checkpoints(root, plan.key_parts.key).newest()
    best = read_json(root / "train" / "best.json")
    if found is None or best is None or found[1].step < plan.steps:
        return False
    return best["step"] == (found[1].best_step or found[1].step)


def begin(run: Run, plan: Plan) -> None:
    """Write down what is about to run, before step 0; note a change of settings with the step from
    which it holds.
    """
    folder = run.root / "train"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_json(folder / MACHINE, dataclasses.asdict(plan.machine))
    write_lock(run, plan.origin(), **dataclasses.asdict(plan.machine))
    plan.write(folder)
    _keep_index(run.root / "tokenize", folder)
    found = Checkpoints(run.root, plan.key_parts.key).latest_valid(set_aside=True)
    step = found[1].step if found else 0
    changes = Changes(folder, plan)
    changes.note(step, plan.train, plan.steps)
    if plan.base and not any(changes.ledger.events("from")):
        changes.ledger.write("from", step=0, **plan.origin())
    machine = dataclasses.asdict(plan.machine)
    if [event["machine"] for event in changes.ledger.events("machine")][-1:] != [machine]:
        changes.ledger.write("machine", step=step, machine=machine)
    say(_headline(plan))
    if plan.base and step == 0 and _rates(plan.train) == _rates(Train()):
        say(
            "train: the learning rates are those for fresh weights; a tenth of them keeps more of"
            " what these weights know"
        )


def _rates(train: Train) -> tuple[float, float]:
    return train.learning_rate, train.muon_learning_rate


def _keep_index(tokens: Path, folder: Path) -> None:
    """Keep where documents stand in the tokens that this training reads, so that it is known when
    later data replace them.
    """
    if (tokens / INDEX).exists():
        new = folder / f".{INDEX}"
        new.unlink(missing_ok=True)
        link(tokens / INDEX, new)
        new.rename(folder / INDEX)


def _headline(plan: Plan) -> str:
    machine = plan.machine
    count = plan.config.parameter_count() / 1e6
    of = f" of {plan.base['name']}" if plan.base else ""
    where = f"{machine.processes} x {machine.device}" if machine.processes > 1 else machine.device
    return (
        f"train: {count:.1f}M parameters{of}, {plan.steps} steps of"
        f" {plan.sequences * plan.config.context} tokens, {machine.precision} on {where},"
        f" {machine.threads} threads, micro-batch"
        f" {machine.micro_batch}{', layers computed twice' if machine.recompute else ''}"
    )
