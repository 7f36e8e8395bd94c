"""The train stage. Reads the view `RUN/tokenize`; writes `RUN/train`: train.json, machine.json, ledger.jsonl and what the
loop writes. Goes on where a checkpoint stands, does nothing when the end step is reached, and guards what was expensive.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from torch import cuda

from groundup.decoding import decode, settings
from groundup.errors import GroundupError
from groundup.ledger import Ledger
from groundup.metrics import Metrics, cut_back
from groundup.model.config import ModelConfig
from groundup.model.presets import resolve as resolve_model
from groundup.progress import say
from groundup.recipe import Train
from groundup.run import EXPENSIVE_SECONDS, Run, changed_settings, write_lock
from groundup.store import Artefact, Step, read_json, write_json
from groundup.tokens import open_shard
from groundup.train import machine as machines
from groundup.train.checkpoint import Checkpoints
from groundup.train.loader import Loader
from groundup.train.loop import LEDGER, Trainer
from groundup.train.machine import Machine
from groundup.train.parallel import joined
from groundup.train.plan import Plan, automatic_tokens
from groundup.train.stopping import stop_flag

# Raised by hand when equal settings and inputs begin to give other weights.
VERSION = 1
MACHINE, ERROR = "machine.json", ".error"
# torchrun's first restart after a killed process was seen to fail where the second worked.
RESTARTS = 3


def run(run: Run) -> None:
    """Train the model of a run to its end step.

    Raises:
        GroundupError: there are no tokens, training was stopped or failed.
        ExpensiveError: another key would throw away more than ten minutes of training.
    """
    view = run.store.view("tokenize")
    if view is None:
        raise GroundupError(f"{run.root / 'tokenize'}: there are no token shards; run the stages before train first")
    config = _config(run, view)
    step = key_of(run, view, config)
    _make_room(run, step)
    plan = _plan(run, config, step)
    if finished(run.root, plan):
        run.reused += 1
        return
    _begin(run, plan)
    train(run.root, plan) if plan.machine.processes == 1 else _launch(run.root, plan)
    run.built += 1


def _config(run: Run, view: Artefact) -> ModelConfig:
    vocab_size = Tokenizer.from_file(str(view.path / "tokenizer.json")).get_vocab_size()
    tokens = sum(
        len(open_shard(view.path / name, vocab_size, check_ids=False)) for name in view.manifest["files"] if name.endswith(".train.npy")
    )
    config = resolve_model(run.recipe.model, vocab_size, tokens, gpu=cuda.is_available())
    if Loader(view.path / "shards", "train", context=config.context, vocab_size=vocab_size, seed=0, weights=_weights(run)).epoch == 0:
        raise GroundupError(
            f"{view.path / 'shards'}: no shard's {tokens} training tokens fill one window of context + 1 = {config.context + 1}; "
            "add text, or set a smaller [model] context"
        )
    return config


def _weights(run: Run) -> dict[str, float]:
    return {source.name: source.weight for source in run.recipe.source}


def key_of(run: Run, view: Artefact, config: ModelConfig) -> Step:
    """Return what decides the weights: data, tokenizer, model, seed and batch."""
    files = view.manifest["files"]
    names = [name for name in files if name.endswith(".npy") or name == "tokenizer.json"]
    present = {Path(name).name.split(".train.")[0].rpartition(".")[0] for name in names}
    wanted = {
        "model": dataclasses.asdict(config),
        "seed": run.recipe.seed,
        "batch_tokens": run.recipe.train.batch_tokens,
        "optimizer": run.recipe.train.optimizer,
        "weights": {name: weight for name, weight in _weights(run).items() if name in present},
    }
    return Step("train", "model", VERSION, wanted, {name: files[name]["sha256"] for name in sorted(names)})


def _make_room(run: Run, step: Step) -> None:
    """Move away or delete a training of another key, or one that is to be done again."""
    folder = run.root / "train"
    old = Plan.read(folder)
    if old is None or (old.key_parts.key == step.key and "train" not in run.redo):
        return
    seconds = cost(run.root)
    run.throw_away("train", seconds, difference(old.key_parts, step))
    if seconds > EXPENSIVE_SECONDS:
        run.set_aside("train")
    else:
        run.store.discard([folder])


def cost(root: Path) -> float:
    """Return the seconds that went into the training of a run, as its metrics tell."""
    lines = [line["seconds"] for line in Metrics(root / "train" / "metrics.jsonl").read() if "seconds" in line]
    return max(lines, default=0.0)


def difference(old: Step, new: Step) -> str:
    """Say in words why one training cannot go on as another."""
    changed = changed_settings(old.settings, new.settings)
    if changed:
        return changed
    if old.inputs != new.inputs:
        return "its token shards or its tokenizer changed"
    return "it is to be done again" if old.version == new.version else "this version of groundup trains differently"


def _plan(run: Run, config: ModelConfig, step: Step) -> Plan:
    """Resolve what is left open, or take it from the training that was begun."""
    folder, train = run.root / "train", run.recipe.train
    old = Plan.read(folder)
    draft = Plan(config, train, Machine(), run.recipe.seed, 1, _weights(run), step)
    table = read_json(folder / MACHINE)
    speed = old.tokens_per_second if old is not None else 0.0
    # A kill between the two files leaves no plan: no step was taken, so the machine may be looked at again.
    if table is not None and old is not None:
        machine = _with_wishes(decode(Machine, table, str(folder / MACHINE)), train, draft.sequences)
    else:
        machine, speed = machines.resolve(config, train, draft.sequences)
    steps = train.steps
    if steps == "auto":
        steps = old.steps if old is not None else _auto_steps(run, draft, machine, speed)
    if (table is None or old is None) and train.compile == "auto":
        seconds = steps * draft.sequences * config.context / speed
        machine = dataclasses.replace(machine, compile=seconds > machines.COMPILE_PAYS_SECONDS and machines.compiler_works())
    return dataclasses.replace(draft, machine=machine, steps=steps, tokens_per_second=round(speed, 1))


def _with_wishes(machine: Machine, train: Train, sequences: int) -> Machine:
    """What the recipe says in so many words wins over what was resolved before."""
    wishes = {name: getattr(train, name) for name in ("threads", "precision", "micro_batch") if getattr(train, name) != "auto"}
    if train.processes != "auto":
        wishes["processes"] = machines.count_processes(train, sequences, machine.device)
    if train.compile != "auto":
        wishes["compile"] = train.compile == "on"
    machine = dataclasses.replace(machine, **wishes)
    return dataclasses.replace(machine, micro_batch=machines.divisor(sequences // machine.processes, machine.micro_batch))


def _auto_steps(run: Run, plan: Plan, machine: Machine, speed: float) -> int:
    shape = {"context": plan.config.context, "vocab_size": plan.config.vocab_size, "seed": plan.seed}
    loader = Loader(run.root / "tokenize" / "shards", "train", **shape, weights=plan.weights)
    tokens = automatic_tokens(loader.epoch * plan.config.context, plan.config, machine.device, speed)
    return max(1, tokens // (plan.sequences * plan.config.context))


def finished(root: Path, plan: Plan) -> bool:
    """Say whether the training of `plan` has reached its end step, with its best checkpoint named."""
    found = Checkpoints(root, plan.key_parts.key).newest()
    best = read_json(root / "train" / "best.json")
    if found is None or best is None or found[1].step < plan.steps:
        return False
    return best["step"] == (found[1].best_step or found[1].step)


def _begin(run: Run, plan: Plan) -> None:
    """Write down what is about to run, before step 0; note a change of settings with the step from which it holds."""
    folder = run.root / "train"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_json(folder / MACHINE, dataclasses.asdict(plan.machine))
    write_lock(run, **dataclasses.asdict(plan.machine))
    plan.write(folder)
    found = Checkpoints(run.root, plan.key_parts.key).latest_valid(set_aside=True)
    cut_back(folder / LEDGER, int(found[0].facts["ledger_bytes"]) if found else 0)
    ledger = Ledger(folder / LEDGER)
    now = settings(plan.train) | {"steps": plan.steps} | dataclasses.asdict(plan.machine)
    before = [event["settings"] for event in ledger.events("settings")]
    if not before or before[-1] != now:
        ledger.write("settings", step=found[1].step if found else 0, settings=now)
    say(_headline(plan))


def _headline(plan: Plan) -> str:
    machine = plan.machine
    count = plan.config.parameter_count() / 1e6
    where = f"{machine.processes} x {machine.device}" if machine.processes > 1 else machine.device
    return (
        f"train: {count:.1f}M parameters, {plan.steps} steps of {plan.sequences * plan.config.context} tokens, "
        f"{machine.precision} on {where}, {machine.threads} threads, micro-batch {machine.micro_batch}"
    )


def train(root: Path, plan: Plan) -> None:
    """Run the loop in this process, which may be one of several that torchrun started."""
    plan.machine.apply()
    with joined(plan.machine.device) as ranks:
        Trainer(root, plan, ranks).run()


def _launch(root: Path, plan: Plan) -> None:
    """Run the loop in processes of its own, one a rank.

    Raises:
        GroundupError: they were stopped, failed, or died more often than they are started again.
    """
    error = root / "train" / ERROR
    error.unlink(missing_ok=True)
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={plan.machine.processes}", f"--max-restarts={RESTARTS}"]
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(plan.machine.threads)}
    code = _wait([sys.executable, "-m", *launcher, "-m", "groundup.train", str(root)], environment)
    if error.exists():
        message = error.read_text(encoding="utf-8")
        error.unlink()
        raise GroundupError(message)
    if code or not finished(root, plan):
        raise GroundupError("the training processes died; what they had saved is kept, run again to go on")


def _wait(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a command; the first signal is passed on, and its end waited for."""
    passed = False
    with stop_flag() as stop, subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if stop.set and not passed:
                    process.terminate()
                    passed = True
