"""The stage `tune`: teaches the best checkpoint to answer, if the recipe or a person asks for it.

finetuner.py says what its view holds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from groundup.artifacts.checkpoints import find_checkpoint
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.run import EXPENSIVE_SECONDS, Job, Run, Unkeyed
from groundup.runtime.store import Artifact
from groundup.runtime.workers.map import default_workers
from groundup.schema import settings

if TYPE_CHECKING:
    from groundup.tune.data import TuningData

# Settings of [tune] that say what is read, whose content is in the key instead; and of files only.
READING_KEYS, FILE_KEYS = ("data", "sources", "columns"), ("validation",)


def run(run: Run) -> None:
    """Tune the best checkpoint and publish the view; without a method, keep a tuning by hand.

    Raises GroundupError if there is no checkpoint, or nothing to train on.
    """
    tune = run.recipe.tune
    if tune.method == "none":
        _without_method(run)
        return
    from groundup.tune.data import collected_data, run_conversations

    checkpoint = find_checkpoint(run.root)
    data, collected = collected_data(run) if tune.data else (run_conversations(run), [])
    job, by_hand = _job(run, checkpoint, data), settings(load_lock(run.root).tune) != settings(tune)
    _keep_tuned_by_hand(run, job, by_hand)
    (tuned,) = run.build("tune", [job], "tuning", "model")
    links = {name: tuned.path / name for name in tuned.manifest["files"]}
    facts = {"settings": settings(tune), "by_hand": by_hand, "base": checkpoint.path.name}
    facts |= {"content": checkpoint.content}
    run.publish("tune", [*collected, tuned], links, facts)


def _keep_tuned_by_hand(run: Run, job: Job, by_hand: bool) -> None:
    """Archive a model that was tuned by hand before the recipe's model takes its place.

    A cheap one that another tuning by hand replaces is named only. Also if the recipe's model is
    in the store: the other one would be deleted as unreferenced.
    """
    view = run.store.view("tune")
    if view is None or not view.facts["by_hand"]:
        return
    if job.step.key in [entry["key"] for entry in view.manifest["artefacts"]]:
        return
    if by_hand:
        before = f"{view.facts['settings']['method']}, {view.facts['base']}"
        say(f"tune: replaces the model that was tuned by hand before ({before})")
        return
    # Stops the run here if the tuning was expensive and --redo does not name the stage.
    run.guard("tune", [job.step], building=run.store.find(job.step) is None)
    archived = run.archive("tune")
    say(
        f"tune: the model tuned by hand moved to {archived}, since [tune] of the recipe asks for"
        ' another one; method = "none" there leaves a model tuned by hand in place'
    )


def _without_method(run: Run) -> None:
    """Keep what was tuned by hand; remove what an earlier form of the recipe asked for."""
    view = run.store.view("tune")
    if view is None:
        return
    if not view.facts["by_hand"]:
        seconds = sum(float(entry["seconds"]) for entry in view.manifest["artefacts"])
        why = f'method was "{view.facts["settings"]["method"]}", is "none"'
        run.charge_discarded("tune", seconds, why)
        if seconds > EXPENSIVE_SECONDS:
            run.archive("tune")
        else:
            run.store.discard([view.path])
        run.store.set_discarded_seconds("tune", 0)
        return
    best = find_checkpoint(run.root)
    if best.content != view.facts["content"]:
        base = view.facts["base"]
        if base == best.path.name:
            base = f"an earlier {base}"
        older = f"the tuned model was made from {base}, the best checkpoint is {best.path.name}"
        say(f"tune: {older}; `groundup tune {run.root}` tunes it again")


def _job(run: Run, checkpoint: Artifact, data: TuningData) -> Job:
    from groundup.train.hardware import Hardware, recorded_hardware
    from groundup.tune.finetuner import LORA_KEYS, tune_model

    device, threads = choose_device(), default_workers()
    hardware = recorded_hardware(run.root) or Hardware(device, threads, micro_batch=16)
    if hardware.device == "cuda" and device == "cpu":
        hardware = dataclasses.replace(hardware, device="cpu", precision="fp32", threads=threads)
    # fp16 would need a scaled loss; tuning takes few steps, so fp32 is affordable.
    if hardware.precision == "fp16":
        hardware = dataclasses.replace(hardware, precision="fp32")
    tune = run.recipe.tune
    unused = set(READING_KEYS)
    if tune.method != "lora":
        unused |= set(LORA_KEYS)
    if not tune.data:
        unused |= set(FILE_KEYS)
    inputs = {"checkpoint": checkpoint.content} | data.inputs
    return tune_model.job(
        "tuned",
        inputs,
        key_only={name: value for name, value in settings(tune).items() if name not in unused},
        checkpoint=Unkeyed(checkpoint.path),
        data=Unkeyed(data),
        tune=Unkeyed(tune),
        seed=run.recipe.seed,
        computed_from=Unkeyed(inputs),
        hardware=Unkeyed(hardware),
    )
