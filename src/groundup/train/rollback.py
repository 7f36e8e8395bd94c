"""Records rejected steps, and decides where to continue after repeated ones.

A rollback restores the last checkpoint from before the trouble, skips the samples that were read
since, and lowers the learning rate (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1: they
skipped 200 to 500 batches after a spike, and the same data did not spike from another state).

An incident is what is known of the first of a row of rejected steps:
`RUN/train/incidents/step-NNNNNN-K.json`, K rollbacks after the start of the run.

    step, reason, loss, gradient_norm, first_sample
    weights_finite
    sequences    those that stand out: sample, source, shard, token, loss and gradient norm of this
                 sequence alone, and the documents that its tokens come from
    norms        of gradient and weights, by parameter
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from groundup.model.transformer import Transformer
from groundup.runtime.sealed import write_sealed
from groundup.train.data import Loader, samples_of_step, skip_to
from groundup.train.guard import SLOWER
from groundup.train.hardware import Hardware, uncompiled
from groundup.train.optimizer import FlatParameters
from groundup.train.state import TrainState
from groundup.train.step import StepStats

FOLDER = "incidents"
# Sequences whose documents are named, the most suspicious first; and documents and norms in the
# message of one line.
MAX_SUSPECTS, MAX_NAMED = 8, 3


def rolled_back(failed: TrainState, restored: TrainState) -> TrainState:
    """Return the state to continue with: a restored one that skips what the failed one has read."""
    spans = restored.spans or [(0, 0, failed.spans[0][2])]
    first = samples_of_step(spans, restored.step)[0]
    after = samples_of_step(failed.spans, failed.step)[0]
    rollbacks, rate = failed.guard.rollbacks + 1, failed.guard.rate * SLOWER
    guard = dataclasses.replace(restored.guard, rollbacks=rollbacks, rate=rate)
    spans, skipped = skip_to(spans, restored.step, after), [*restored.skipped, (first, after)]
    return dataclasses.replace(restored, spans=spans, skipped=skipped, guard=guard)


@dataclass(frozen=True)
class Incidents:
    """Examines rejected steps of a training, and writes down what it finds."""

    root: Path
    loader: Loader
    model: Transformer
    parameters: FlatParameters
    hardware: Hardware

    def record(
        self,
        state: TrainState,
        reason: str,
        stats: StepStats,
        norms: Mapping[str, Mapping[str, float]],
    ) -> str:
        """Write the incident of the rejected step of `state`. Return a summary of one line.

        `norms` are those of `Sharding.norms`. The gradients in `parameters` are overwritten.
        """
        first, sequences = samples_of_step(state.spans, state.step)
        incident = {
            "step": state.step,
            "reason": reason,
            "loss": stats.loss,
            "gradient_norm": stats.norm,
            "first_sample": first,
            "weights_finite": self.parameters.are_finite(),
            "sequences": self._suspects(first, sequences),
            "norms": norms,
        }
        folder = self.root / "train" / FOLDER
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{state.step:06d}-{state.guard.rollbacks}.json"
        # JSON has no number that is not finite, so those become text: "nan", "inf".
        text = json.dumps(incident)
        write_sealed(path, json.loads(text, parse_constant=lambda name: str(float(name))))
        return f"{_summary(incident)}; more in {path}"

    def _suspects(self, first: int, sequences: int) -> list[dict[str, Any]]:
        """Return the sequences with the largest gradients alone, without dropout, and documents."""
        alone = []
        self.model.eval()
        try:
            for row_T in torch.from_numpy(self.loader.samples(first, sequences)):
                row_BT = row_T[None].to(self.model.device)
                self.parameters.zero_grad()
                with uncompiled():
                    with self.hardware.autocast():
                        loss = self.model.loss(row_BT[:, :-1], row_BT[:, 1:])
                    loss.backward()
                alone.append((float(loss.detach()), float(self.parameters.grad_norm())))
        finally:
            self.model.train()
        places = self.loader.places(first, sequences)
        suspects: list[dict[str, Any]] = []
        by_gradient = sorted(range(sequences), key=lambda n: _descending(alone[n][1]))
        for number in by_gradient[:MAX_SUSPECTS]:
            source, shard, start = places[number]
            place = {"sample": first + number, "source": source, "shard": shard, "token": start}
            figures = dict(zip(("loss", "gradient"), alone[number], strict=True))
            documents = documents_of(self.root, shard, start, start + self.loader.context + 1)
            suspects.append(place | figures | {"documents": documents})
        return suspects


def documents_of(root: Path, shard: str, start: int, end: int) -> list[dict[str, str]]:
    """Return id, source and origin of the documents that tokens of a training shard come from.

    Nothing if the run has no index.
    """
    path = root / "tokenize" / "index.parquet"
    if not path.exists():
        return []
    name = shard.removesuffix(".train.npy")
    filters = [("shard", "==", name), ("split", "==", "train"), ("offset", "<", end)]
    rows = pq.read_table(path, columns=["id", "source", "offset", "length"], filters=filters)
    rows = rows.filter(pc.greater(pc.add(rows["offset"], rows["length"]), start))
    found, folder = rows.select(["id", "source"]).to_pylist(), root / "collect" / "documents"
    origins: dict[str, str] = {}
    if folder.is_dir() and found:
        chosen = ds.field("id").isin(rows["id"].to_pylist())
        table = ds.dataset(folder, format="parquet").to_table(["id", "origin", "record"], chosen)
        origins = {row["id"]: f"{row['origin']}#{row['record']}" for row in table.to_pylist()}
    return [row | {"origin": origins.get(row["id"], "")} for row in found]


def _summary(incident: Mapping[str, Any]) -> str:
    names: list[str] = []
    for sequence in incident["sequences"]:
        for document in sequence["documents"]:
            name, origin = f"{document['id']} of {document['source']}", document["origin"]
            if origin:
                name = f"{document['id']} ({document['source']}: {origin})"
            names.append(name)
        if not sequence["documents"]:
            names.append(f"token {sequence['token']} of {sequence['shard']}")
    documents = ", ".join(list(dict.fromkeys(names))[:MAX_NAMED])
    gradients = {name: both["gradient"] for name, both in incident["norms"].items()}
    largest = sorted(gradients, key=lambda name: _descending(gradients[name]))[:MAX_NAMED]
    norms = ", ".join(f"{name} {gradients[name]:.3g}" for name in largest)
    broken = "" if incident["weights_finite"] else "; the weights themselves are not finite"
    return f"documents that stand out: {documents}; largest gradients: {norms}{broken}"


def _descending(norm: float) -> float:
    """Return a sort key that puts large and non-finite norms first."""
    return -norm if math.isfinite(norm) else -math.inf
