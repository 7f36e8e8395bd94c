"""Compute which training steps read a document, from its place among the tokens.

    tokens of a shard → windows that hold them → samples of every pass → steps

A window that holds one of its tokens is one sample in each pass (train/data.py). The spans of a
checkpoint say which samples each step took (train/data.py). Steps count from 0, so the
checkpoint step-N was made by steps 0 to N - 1: it knows a document that one of them read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from groundup.artifacts.checkpoints import list_checkpoints, newest_state, trained_on
from groundup.artifacts.document import matching
from groundup.artifacts.metrics import Metrics
from groundup.artifacts.tokens import train_lengths
from groundup.errors import GroundupError
from groundup.runtime.sealed import read_sealed
from groundup.runtime.store import Store
from groundup.train.data import SampleOrder, Span, samples_of_step, steps_of_samples

# Steps that a description lists.
MAX_STEPS = 20


@dataclass(frozen=True)
class Seen:
    """What a training has done with some tokens so far."""

    steps: tuple[int, ...]  # that read a window with one of the tokens, ascending
    times: int  # windows that were read, repeats counted
    passed_over: int  # windows that were skipped when training went back after trouble
    refused: tuple[int, ...]  # those of `steps` that the guard did not apply
    # Names of those on disk that were made by an applied one of `steps`.
    checkpoints: tuple[str, ...]
    until: int  # steps that the newest checkpoint has taken

    def words(self) -> str:
        """Return it as a sentence."""
        if not self.steps:
            skipped = f"; {self.passed_over:,} of its windows were skipped"
            unread = f"training has not read it in its {self.until:,} steps"
            return unread + (skipped if self.passed_over else "")
        shown, refused = (", ".join(map(str, n[:MAX_STEPS])) for n in (self.steps, self.refused))
        hidden = len(self.steps) - MAX_STEPS
        more = f" and {hidden:,} more" if hidden > 0 else ""
        text = f"training read it in {len(self.steps):,} of its {self.until:,} steps: {shown}{more}"
        if refused:
            text += f"; not applied by the guard: {refused}"
        if self.passed_over:
            text += f"; windows skipped: {self.passed_over:,}"
        return f"{text}; in the past of {', '.join(self.checkpoints) or 'no checkpoint on disk'}"


@dataclass(frozen=True)
class TrainingTrace:
    """What the training of a run has read up to its newest checkpoint."""

    folder: Path  # `RUN/train`
    index: Path  # Parquet file of where each document is in the tokens of this training
    settings: Mapping[str, Any]  # train.json
    spans: Sequence[Span]  # which samples each step took
    skipped: Sequence[tuple[int, int]]  # ranges [first, last) of samples that were skipped
    until: int  # steps that the newest checkpoint has taken

    @classmethod
    def open(cls, root: Path) -> TrainingTrace | None:
        """Return the trace of a run's training, None if there is no checkpoint.

        Raises GroundupError if it is not known where documents were in the tokens of this training.
        """
        folder = root / "train"
        settings, state = read_sealed(folder / "train.json"), newest_state(root)
        if settings is None or "model" not in settings or state is None:
            return None
        index = folder / "index.parquet"
        if not index.exists():
            # A training of an earlier groundup has no index of its own.
            tokens = Store(root).view("tokenize")
            if tokens is None:
                lost = f"{root / 'tokenize'}: missing or damaged"
                raise GroundupError(f"{lost}; `groundup run` builds it")
            trained_on(root, tokens)
            index = tokens.path / "index.parquet"
        spans = [(step, first, sequences) for step, first, sequences in state["spans"]]
        skipped = [(first, last) for first, last in state["skipped"]]
        return cls(folder, index, settings, spans, skipped, int(state["step"]))

    @cached_property
    def order(self) -> SampleOrder:
        """The order of the samples, which follows from the lengths of the shards."""
        return SampleOrder(
            train_lengths(self.index),
            context=self.settings["model"]["context"],
            seed=self.settings["seed"],
            weights=self.settings["weights"],
        )

    def of_documents(self, documents: Collection[str], token: int | None = None) -> dict[str, Seen]:
        """Trace documents (or one token of each); those without training tokens are left out."""
        sample_count = samples_of_step(self.spans, self.until)[0] if self.spans else 0
        # Steps that the guard did not apply.
        lines = Metrics(self.folder / "metrics.jsonl").read()
        refused = {int(line["step"]) for line in lines if "refused_loss" in line}
        folders = list_checkpoints(self.folder.parent)
        columns = ["id", "shard", "split", "offset", "length"]
        traced = {}
        for batch in matching([self.index], "id", documents, columns):
            for row in batch.filter(pc.equal(batch.column("split"), "train")).to_pylist():
                begin, end = row["offset"], row["offset"] + row["length"]
                if token is not None:
                    begin, end = begin + token, begin + token + 1
                samples = self.order.samples_of(row["shard"], begin, end, sample_count)
                # -1 for a sample that no step took.
                step_of = steps_of_samples(self.spans, self.until, samples)
                steps = np.unique(step_of[step_of >= 0]).tolist()
                left = samples[step_of < 0]
                applied = [step for step in steps if step not in refused]
                learned = applied[0] if applied else self.until
                traced[row["id"]] = Seen(
                    steps=tuple(steps),
                    times=int((step_of >= 0).sum()),
                    passed_over=sum(int(((left >= a) & (left < b)).sum()) for a, b in self.skipped),
                    refused=tuple(step for step in steps if step in refused),
                    checkpoints=tuple(path.name for at, path in folders.items() if at > learned),
                    until=self.until,
                )
        return traced


def trace_document(root: Path, document: str, token: int | None = None) -> Seen | None:
    """Return what training did with a document (or a token of it), None if it is not trained on.

    Raises GroundupError as `TrainingTrace.open` does.
    """
    trace = TrainingTrace.open(root)
    return trace.of_documents([document], token).get(document) if trace is not None else None


def describe_trace(root: Path, document: str, token: int | None = None) -> list[str]:
    """Return a line on what training did with a document, or no line if it is not trained on."""
    try:
        seen = trace_document(root, document, token)
    except GroundupError as error:
        return [f"which steps read it is not known: {error}"]
    return [seen.words()] if seen is not None else []
