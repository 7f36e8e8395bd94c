"""The stage `tune`. Reads the best checkpoint and conversations of the run, or of a file; writes
the view `tune`:

model/ (a Hugging Face folder), adapter/ (for LoRA, in PEFT's format), tuning.json (figures),
metrics.jsonl, left-out.jsonl.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from groundup.artifacts.checkpoints import find_checkpoint, trained_on
from groundup.errors import GroundupError
from groundup.runtime.job import Job
from groundup.runtime.progress import say
from groundup.runtime.run import EXPENSIVE_SECONDS, Run, load_lock
from groundup.runtime.store import Artifact, Facts, Step
from groundup.runtime.workers.map import default_workers
from groundup.schema import settings
from groundup.train.hardware import Hardware, recorded_hardware
from groundup.tune import conversations as talks
from groundup.tune.build import LORA_KEYS, make_model
from groundup.tune.conversations import Material

# Raised by hand when equal settings and inputs begin to give other files.
VERSION = 1

# What [tune] says about what is read, which enters the key by its content; and about a file alone.
READING_KEYS, FILE_KEYS = ("data", "sources", "columns"), ("validation",)


def run(run: Run) -> None:
    """Tune the best checkpoint and publish the view; without a method, leave alone what was tuned
    by hand.

    Raises:
        GroundupError: there is no checkpoint, or nothing to learn from.
    """
    if run.recipe.tune.method == "none":
        _leave_alone(run)
        return
    checkpoint = find_checkpoint(run.root)
    material, collected = talks.of_file(run) if run.recipe.tune.data else (_own(run), [])
    (tuned,) = run.build("tune", [_job(run, checkpoint, material)], "tuning", "model")
    links = {name: tuned.path / name for name in tuned.manifest["files"]}
    run.publish("tune", [*collected, tuned], links, _facts(run, checkpoint))


def _own(run: Run) -> Material:
    tokens = run.store.view("tokenize")
    if tokens is None:
        raise GroundupError(
            f"{run.root / 'tokenize'}: there are no tokens; run with --redo tokenize"
        )
    trained_on(run.root, tokens)
    return talks.of_run(run)


def _facts(run: Run, checkpoint: Artifact) -> Facts:
    """Return what the view remembers: its settings, its base, and whether the recipe asked for it
    or a person did.
    """
    by_hand = settings(load_lock(run.root).tune) != settings(run.recipe.tune)
    return {
        "settings": settings(run.recipe.tune),
        "by_hand": by_hand,
        "base": checkpoint.path.name,
        "content": checkpoint.content,
    }


def _leave_alone(run: Run) -> None:
    """Keep what was tuned by hand; take back what an earlier form of the recipe asked for."""
    view = run.store.view("tune")
    if view is None:
        return
    if not view.facts["by_hand"]:
        seconds = sum(float(entry["seconds"]) for entry in view.manifest["artefacts"])
        run.charge_discarded(
            "tune", seconds, f'method was "{view.facts["settings"]["method"]}", is "none"'
        )
        run.set_aside("tune") if seconds > EXPENSIVE_SECONDS else run.store.discard([view.path])
        run.store.set_discarded_seconds("tune", 0)
        return
    best = find_checkpoint(run.root)
    if best.content != view.facts["content"]:
        old = (
            view.facts["base"]
            if view.facts["base"] != best.path.name
            else f"an earlier {best.path.name}"
        )
        say(
            f"tune: the tuned model was made from {old}, the best checkpoint is {best.path.name};"
            f" `groundup tune {run.root}` tunes it anew"
        )


def _job(run: Run, checkpoint: Artifact, material: Material) -> Job:
    tune = run.recipe.tune
    wanted = {name: value for name, value in settings(tune).items() if name not in READING_KEYS}
    unused = (LORA_KEYS if tune.method != "lora" else ()) + (FILE_KEYS if not tune.data else ())
    wanted = {name: value for name, value in wanted.items() if name not in unused} | {
        "seed": run.recipe.seed
    }
    inputs = {"checkpoint": checkpoint.content} | material.inputs
    step = Step("tune/model", "tuned", VERSION, wanted, inputs)
    arguments = {
        "checkpoint": checkpoint.path,
        "material": material,
        "tune": tune,
        "seed": run.recipe.seed,
        "inputs": inputs,
    }
    return Job(step, make_model, arguments | {"machine": machine_of(run.root)})


def machine_of(root: Path) -> Hardware:
    """Return how the run was trained on this machine, made fit for tuning; what is fresh was not
    measured here.
    """
    gpu = torch.cuda.is_available()
    machine = recorded_hardware(root) or Hardware(
        "cuda" if gpu else "cpu", default_workers(), micro_batch=16
    )
    if machine.device == "cuda" and not gpu:
        machine = dataclasses.replace(
            machine, device="cpu", precision="fp32", threads=default_workers()
        )
    # fp16 would need a scaled loss; the few steps of tuning afford fp32.
    return (
        dataclasses.replace(machine, precision="fp32") if machine.precision == "fp16" else machine
    )
