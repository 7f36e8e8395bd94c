"""What is known of a step that the guard refused: `RUN/train/incidents/step-NNNNNN-K.json`, K times
after going back.

Reads the model, the batch, and the lineage of its tokens (`tokenize/index.parquet`,
`collect/documents`). The gradient of each sequence alone says which of them stand out; the index
says which documents those tokens come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from groundup.model.transformer import Transformer
from groundup.runtime.files import write_json
from groundup.train.data import Loader
from groundup.train.flat_params import FlatParameters
from groundup.train.hardware import Machine, uncompiled

FOLDER = "incidents"
# Sequences whose documents are named, those that stand out most first; and documents and norms in
# the one-line message.
SUSPECTS, NAMED = 8, 3


def examine(
    root: Path,
    loader: Loader,
    model: Transformer,
    parameters: FlatParameters,
    machine: Machine,
    first: int,
    sequences: int,
) -> dict[str, Any]:
    """Return norms by parameter, and the sequences of the step that stand out with their documents.

    Args:
        parameters: with the gradients of the refused step.
        first: number of the step's first sample; `sequences` follow from it, those of all ranks.
    """
    # First, since the gradients of single sequences take their place.
    lengths = {
        name: {"gradient": gradient, "weights": weights}
        for name, (gradient, weights) in parameters.lengths().items()
    }
    alone = [
        _alone(loader, model, parameters, machine, number)
        for number in range(first, first + sequences)
    ]
    places = loader.places(first, sequences)
    suspects = []
    for number in sorted(range(sequences), key=lambda n: _order(alone[n][1]))[:SUSPECTS]:
        (source, shard, start), (loss, gradient) = places[number], alone[number]
        found = documents(root, shard, start, start + loader.context + 1)
        place = {"sample": first + number, "source": source, "shard": shard, "token": start}
        suspects.append(place | {"loss": loss, "gradient": gradient} | found)
    return {"weights_finite": parameters.finite(), "sequences": suspects, "norms": lengths}


def _alone(
    loader: Loader, model: Transformer, parameters: FlatParameters, machine: Machine, sample: int
) -> tuple[float, float]:
    """Return loss and gradient norm of one sequence alone, without dropout."""
    rows_BT = torch.from_numpy(loader.samples(sample, 1)).to(model.device)
    parameters.zero()
    model.eval()
    try:
        with uncompiled():
            with machine.autocast():
                loss = model.loss(rows_BT[:, :-1], rows_BT[:, 1:])
            loss.backward()
    finally:
        model.train()
    return float(loss.detach()), parameters.norm()


def documents(root: Path, shard: str, start: int, end: int) -> dict[str, Any]:
    """Return the documents that tokens `start` to `end` of a training shard come from; nothing
    where no index says so.
    """
    path = root / "tokenize" / "index.parquet"
    if not path.exists():
        return {"documents": []}
    own = [
        ("shard", "==", shard.removesuffix(".train.npy")),
        ("split", "==", "train"),
        ("offset", "<", end),
    ]
    rows = pq.read_table(path, columns=["id", "source", "offset", "length"], filters=own)
    rows = rows.filter(pc.greater(pc.add(rows["offset"], rows["length"]), start)).to_pylist()
    origins = _origins(root, [row["id"] for row in rows])
    return {
        "documents": [
            {"id": row["id"], "source": row["source"], "origin": origins.get(row["id"], "")}
            for row in rows
        ]
    }


def _origins(root: Path, ids: Sequence[str]) -> dict[str, str]:
    folder = root / "collect" / "documents"
    if not folder.is_dir() or not ids:
        return {}
    table = ds.dataset(folder, format="parquet").to_table(
        columns=["id", "origin", "record"], filter=ds.field("id").isin(list(ids))
    )
    return {row["id"]: f"{row['origin']}#{row['record']}" for row in table.to_pylist()}


def write(root: Path, step: int, rollbacks: int, found: Mapping[str, Any]) -> Path:
    """Write an incident and return where it is; JSON has no NaN, so that what is not finite is a
    word.
    """
    path = root / "train" / FOLDER / f"step-{step:06d}-{rollbacks}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, _plain(found))
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def summary(found: Mapping[str, Any]) -> str:
    """Return the documents and the norms that stand out, for a message of one line."""
    names: list[str] = []
    for sequence in found["sequences"]:
        for one in sequence["documents"] or [
            {"id": f"token {sequence['token']}", "source": sequence["shard"], "origin": ""}
        ]:
            name = (
                f"{one['id']} ({one['source']}: {one['origin']})"
                if one["origin"]
                else f"{one['id']} of {one['source']}"
            )
            names += [name] if name not in names else []
    by_gradient = sorted(found["norms"].items(), key=lambda item: _order(item[1]["gradient"]))
    norms = ", ".join(f"{name} {both['gradient']:.3g}" for name, both in by_gradient[:NAMED])
    weights = "" if found["weights_finite"] else "; the weights themselves are not finite"
    return (
        f"documents that stand out: {', '.join(names[:NAMED])}; largest gradients: {norms}{weights}"
    )


def _order(length: float) -> float:
    return -length if math.isfinite(length) else -math.inf
