"""Trainings with faults built in: a loss, a gradient or a weight that is wrong at given steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from groundup.model.config import ModelConfig
from groundup.train.setup import Plan
from groundup.train.step import Reading
from groundup.train.trainer import Trainer
from tests.helpers.token_run import CONFIG, plan, write_shards

PLAIN = dataclasses.replace(CONFIG, dropout=0.0)


def fresh(root: Path, **shards: object) -> Path:
    write_shards(root, **shards)  # type: ignore[arg-type]
    (root / "train" / "checkpoints").mkdir(parents=True)
    return root


def long_plan(steps: int, config: ModelConfig = PLAIN, **train: object) -> Plan:
    """Enough steps for the guard to know a range."""
    return plan(steps, config=config, **({"validate_every": 40, "checkpoint_every": 20} | train))


def with_readings(trainer: Trainer, change: Callable[[Trainer, int, Reading], Reading]) -> Trainer:
    """Let `change(trainer, first sample, reading)` put a fault into what the host reads of a step."""
    inner = trainer.stepper.gradients

    def faulty(rows: torch.Tensor, step: int, *rest: object) -> Reading:
        spans = trainer.state.spans
        return change(trainer, place_of(spans, step), inner(rows, step, *rest))  # type: ignore[arg-type]

    trainer.stepper.gradients = faulty  # type: ignore[method-assign, assignment]
    return trainer


def place_of(spans: list[tuple[int, int, int]], step: int) -> int:
    from groundup.train.batch_spans import place

    return place(spans, step)[0]


def bad_samples(
    samples: Collection[int], **wrong: float
) -> Callable[[Trainer, int, Reading], Reading]:
    """A fault that belongs to the data: it comes whenever one of the samples is read first in a
    step.
    """
    return lambda _, first, reading: (
        dataclasses.replace(reading, **wrong) if first in samples else reading
    )
