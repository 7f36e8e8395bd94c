"""Trainings with built-in faults: a wrong loss, gradient or weight at given steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from groundup.model.config import ModelConfig
from groundup.train.data import samples_of_step
from groundup.train.setup import TrainSetup
from groundup.train.step import StepStats
from groundup.train.trainer import Trainer
from tests.helpers.token_run import CONFIG, train_setup, write_shards

PLAIN = dataclasses.replace(CONFIG, dropout=0.0)


class Killed(BaseException):
    """What no handler expects."""


def fresh(root: Path) -> Path:
    write_shards(root)
    (root / "train" / "checkpoints").mkdir(parents=True)
    return root


def long_setup(steps: int, config: ModelConfig = PLAIN, **train: Any) -> TrainSetup:
    """Enough steps for the guard to know a range."""
    settings: dict[str, Any] = {"validate_every": 40, "checkpoint_every": 20} | train
    return train_setup(steps, config=config, **settings)


def with_stats(trainer: Trainer, change: Callable[[Trainer, int, StepStats], StepStats]) -> Trainer:
    """Let `change(trainer, first sample, stats)` replace what the host reads of a step."""
    inner = trainer.train_step.forward_backward

    def faulty(rows: torch.Tensor, step: int, *rest: object) -> StepStats:
        first, _ = samples_of_step(trainer.state.spans, step)
        return change(trainer, first, inner(rows, step, *rest))  # type: ignore[arg-type]

    trainer.train_step.forward_backward = faulty  # type: ignore[method-assign, assignment]
    return trainer


def before_step(trainer: Trainer, act: Callable[[int], object]) -> Trainer:
    """Call `act(step)` before the gradients of every step."""
    inner = trainer.train_step.forward_backward

    def acting(*arguments: object) -> StepStats:
        act(trainer.state.step)
        return inner(*arguments)  # type: ignore[arg-type]

    trainer.train_step.forward_backward = acting  # type: ignore[method-assign, assignment]
    return trainer


def after_step(trainer: Trainer, act: Callable[[int], object]) -> Trainer:
    """Call `act(steps so far)` after every step was applied or refused."""
    inner = trainer._update

    def acting(stats: StepStats, now: TrainSetup) -> str:
        trouble = inner(stats, now)
        act(trainer.state.step)
        return trouble

    trainer._update = acting  # type: ignore[method-assign]
    return trainer


def bad_samples(
    samples: Collection[int], **wrong: Any
) -> Callable[[Trainer, int, StepStats], StepStats]:
    """A fault of the data: it comes whenever one of the samples is the first of a step."""
    return lambda _, first, stats: (
        dataclasses.replace(stats, **wrong) if first in samples else stats
    )
