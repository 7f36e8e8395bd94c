"""Which training steps saw a document: computed from its place among the tokens, not searched.

Reads `train/`: train.json, index.parquet, metrics.jsonl and the checkpoints' state; writes nothing.
A window that holds one of its tokens is a sample of every pass (train/order.py), a sample belongs
to a step (train/batch_spans.py), and a checkpoint of step N has steps 0 to N - 1 in its past.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from groundup.artifacts.checkpoints import list_checkpoints, newest_state, trained_on
from groundup.artifacts.document import Row, matching
from groundup.artifacts.metrics import Metrics
from groundup.artifacts.tokens import train_lengths
from groundup.errors import GroundupError
from groundup.runtime.files import read_json
from groundup.runtime.store import Store
from groundup.train.batch_spans import Span, place, steps_of
from groundup.train.order import Order

# Steps that are named in words.
NAMED = 20


@dataclass(frozen=True)
class Seen:
    """What a training did with some tokens so far.

    Attributes:
        steps: that read a window with one of them, ascending; step 0 is the first.
        times: windows that were read, repeats counted.
        passed_over: windows that were skipped when training went back after trouble.
        refused: those of `steps` that the guard did not apply.
        checkpoints: names of those that are there and have an applied one of `steps` in their past.
        until: steps that the newest checkpoint has taken.
    """

    steps: tuple[int, ...]
    times: int
    passed_over: int
    refused: tuple[int, ...]
    checkpoints: tuple[str, ...]
    until: int

    def words(self) -> str:
        """Return it as a sentence."""
        if not self.steps:
            over = (
                f", {self.passed_over} of its windows were passed over" if self.passed_over else ""
            )
            return f"training has not read it in its {self.until:,} steps{over}"
        more = f" and {len(self.steps) - NAMED:,} more" if len(self.steps) > NAMED else ""
        parts = [
            f"training read it in {len(self.steps):,} of its {self.until:,} steps:"
            f" {_listed(self.steps)}{more}"
        ]
        parts += [f"not applied by the guard: {_listed(self.refused)}"] if self.refused else []
        parts += [f"windows passed over: {self.passed_over:,}"] if self.passed_over else []
        return "; ".join(
            [
                *parts,
                f"in the past of {', '.join(self.checkpoints) or 'no checkpoint that is there'}",
            ]
        )


def _listed(steps: Sequence[int]) -> str:
    return ", ".join(str(step) for step in steps[:NAMED])


@dataclass(frozen=True)
class Course:
    """What one training has read so far, as its newest checkpoint tells."""

    folder: Path
    index: Path
    plan: Mapping[str, Any]
    spans: Sequence[Span]
    skipped: Sequence[tuple[int, int]]
    until: int

    @classmethod
    def open(cls, root: Path) -> Course | None:
        """Return the course of a run's training, or None where no step was saved.

        Raises:
            GroundupError: where documents stood in the tokens of this training is not known any
                more.
        """
        folder = root / "train"
        plan, state = read_json(folder / "train.json"), newest_state(root)
        if not isinstance(plan, dict) or "model" not in plan or state is None:
            return None
        index = folder / "index.parquet"
        tokens = Store(root).view("tokenize")
        # A training of an earlier groundup kept no index of its own.
        if not index.exists():
            if tokens is None:
                raise GroundupError(
                    f"{root / 'tokenize'}: missing or damaged; `groundup run` builds it"
                )
            trained_on(root, tokens)
            index = tokens.path / "index.parquet"
        spans = [(step, first, sequences) for step, first, sequences in state["spans"]]
        return cls(
            folder,
            index,
            plan,
            spans,
            [(first, last) for first, last in state["skipped"]],
            int(state["step"]),
        )

    @cached_property
    def order(self) -> Order:
        """The order of this training's samples, from the lengths of its shards."""
        return Order(
            train_lengths(self.index),
            context=self.plan["model"]["context"],
            seed=self.plan["seed"],
            weights=self.plan["weights"],
        )

    def of_tokens(self, shard: str, begin: int, end: int) -> Seen:
        """Tell of the tokens `begin` to `end` - 1 of a training shard."""
        limit = place(self.spans, self.until)[0] if self.spans else 0
        samples = self.order.samples_of(shard, begin, end, limit)
        taken = steps_of(self.spans, self.until, samples)
        steps, over = np.unique(taken[taken >= 0]).tolist(), samples[taken < 0]
        passed_over = sum(
            int(((over >= first) & (over < last)).sum()) for first, last in self.skipped
        )
        refused = sorted(self._refused & set(steps))
        learned = next((step for step in steps if step not in self._refused), self.until)
        folders = list_checkpoints(self.folder.parent)
        past = [path.name for step, path in folders.items() if step > learned]
        return Seen(
            tuple(steps),
            int((taken >= 0).sum()),
            passed_over,
            tuple(refused),
            tuple(past),
            self.until,
        )

    @cached_property
    def _refused(self) -> set[int]:
        return {
            int(line["step"])
            for line in Metrics(self.folder / "metrics.jsonl").read()
            if "refused_loss" in line
        }

    def of_document(self, document: str, token: int | None = None) -> Seen | None:
        """Tell of a document, or of one of its tokens; None where no training token is of it."""
        for row in self._places([document]):
            begin, length = (
                (row["offset"], row["length"]) if token is None else (row["offset"] + token, 1)
            )
            return self.of_tokens(row["shard"], begin, begin + length)
        return None

    def of_documents(self, documents: Collection[str]) -> dict[str, Seen]:
        """Tell of many documents, reading the index once; those that no training token is of are
        left out.
        """
        return {
            row["id"]: self.of_tokens(row["shard"], row["offset"], row["offset"] + row["length"])
            for row in self._places(documents)
        }

    def _places(self, documents: Collection[str]) -> Iterator[Row]:
        """Yield where documents stand among the training tokens."""
        for batch in matching(
            [self.index], "id", documents, ["id", "shard", "split", "offset", "length"]
        ):
            yield from batch.filter(pc.equal(batch.column("split"), "train")).to_pylist()


def seen(root: Path, document: str, token: int | None = None) -> Seen | None:
    """Tell in which steps the training of a run read a document (or its token); None where nothing
    of it is training text.

    Raises:
        GroundupError: where documents stood in the tokens of this training is not known any more.
    """
    course = Course.open(root)
    return course.of_document(document, token) if course is not None else None


def in_words(root: Path, document: str, token: int | None = None) -> list[str]:
    """Return a line on what the training of a run did with a document (or its token); none where
    there is nothing to say.
    """
    try:
        found = seen(root, document, token)
    except GroundupError as error:
        return [f"which steps read it is not known: {error}"]
    return [found.words()] if found is not None else []
