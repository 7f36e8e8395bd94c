"""The stage `tune`: teaches the best checkpoint to answer, if the recipe or a person asks for it.

finetuner.py says what its view holds.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from groundup.artifacts.checkpoints import find_checkpoint
from groundup.runtime.lock import load_lock, write_lock
from groundup.runtime.progress import say
from groundup.runtime.resources import choose_device
from groundup.runtime.run import EXPENSIVE_SECONDS, Job, Run, Unkeyed
from groundup.runtime.store import Artifact, Step
from groundup.runtime.workers.map import default_workers
from groundup.schema import settings

if TYPE_CHECKING:
    from groundup.train.hardware import Hardware
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
    # In this process, which hears signals; idle workers would hold memory meanwhile.
    run.workers.close()
    (tuned,) = run.build("tune", [job], "tuning", "model", here=True)
    job.arguments["checkpoints"].discard()
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
    from groundup.tune.finetuner import LORA_KEYS, tune_model
    from groundup.tune.state import STEP, TuneCheckpoints

    hardware = _hardware(run, checkpoint)
    tune = run.recipe.tune
    unused = set(READING_KEYS)
    if tune.method != "lora":
        unused |= set(LORA_KEYS)
    if not tune.data:
        unused |= set(FILE_KEYS)
    inputs = {"checkpoint": checkpoint.content} | data.inputs
    decided = {name: value for name, value in settings(tune).items() if name not in unused}
    saved = Step(STEP, "tuned", tune_model.version, decided | {"seed": run.recipe.seed}, inputs)
    return tune_model.job(
        "tuned",
        inputs,
        key_only=decided,
        checkpoint=Unkeyed(checkpoint.path),
        data=Unkeyed(data),
        tune=Unkeyed(tune),
        seed=run.recipe.seed,
        computed_from=Unkeyed(inputs),
        hardware=Unkeyed(hardware),
        checkpoints=Unkeyed(TuneCheckpoints(run.root, saved.key)),
    )


def _hardware(run: Run, checkpoint: Artifact) -> Hardware:
    """Return the settings that training recorded, as far as the devices are here.

    A run without a record is probed as training would be. Both, and how packed sequences are
    attended to, are then in the lock.
    """
    import torch

    from groundup.model.hf_io import read_config
    from groundup.model.packed_attention import choose_packed_kernel
    from groundup.train.hardware import Hardware, recorded_hardware
    from groundup.train.hardware_probe import resolve_hardware

    recorded, device = recorded_hardware(run.root), choose_device()
    if recorded is None:
        config = read_config(checkpoint.path)
        sequences = max(1, round(run.recipe.tune.batch_tokens / config.context))
        recorded, _ = resolve_hardware(config, run.recipe.train, sequences)
    hardware = recorded
    if hardware.device not in ("cpu", device):
        micro_batch = hardware.micro_batch
        hardware = Hardware(device, default_workers(), micro_batch=micro_batch)
    # fp16 would need a scaled loss; tuning takes few steps, so fp32 is affordable.
    if hardware.precision == "fp16":
        hardware = dataclasses.replace(hardware, precision="fp32")
    if hardware.device == "cuda":
        processes = min(hardware.processes, torch.cuda.device_count())
        hardware = dataclasses.replace(hardware, processes=processes)
    if not hardware.packed_attention:
        kernel = choose_packed_kernel(hardware.device, hardware.precision)
        hardware = dataclasses.replace(hardware, packed_attention=kernel)
        machine = dataclasses.asdict(recorded) | {"packed_attention": kernel}
        write_lock(run.root, load_lock(run.root), machine=machine)
    # Here autocast chooses the types: the matrices of LoRA stay in fp32.
    return dataclasses.replace(hardware, residual="fp32")
