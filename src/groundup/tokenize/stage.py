"""The stage `tokenize`. Reads the view `refine`, and the tokenizer of a model that is gone on from;
writes the view `tokenize`:

tokenizer.json, tokenizer_config.json, shards/NAME.train.npy, shards/NAME.validation.npy,
index.parquet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.corpus import RefinedShard, refined_shards
from groundup.artifacts.pretrained import Base, find_base
from groundup.artifacts.tokenizer import CONFIG, FILE
from groundup.runtime.job import Job
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact, Step
from groundup.tokenize.adopt import adopt_tokenizer
from groundup.tokenize.shards import SPLITS, join_indexes, tokenize_shard
from groundup.tokenize.train_bpe import train_tokenizer

# Raise by hand when the output changes.
TOKENIZER_VERSION = 1
ADOPTED_VERSION = 1
SHARD_VERSION = 1
INDEX_VERSION = 1


def run(run: Run) -> None:
    """Train the tokenizer once, or take over that of the model, tokenize every shard, and publish
    the view.

    Raises:
        GroundupError: there is nothing to train on, or the model's tokenizer cannot be carried.
    """
    shards = sorted(refined_shards(run.root), key=lambda shard: (shard.source, shard.name))
    tokenizer = _tokenizer(run, shards)
    tokenized = run.build(
        "tokenize", [_shard_job(shard, tokenizer) for shard in shards], "tokenizing"
    )
    index = _index(run, tokenized)
    run.publish(
        "tokenize",
        [tokenizer, *tokenized, index],
        _links(tokenizer, tokenized, index),
        facts(tokenizer, tokenized),
    )


def _tokenizer(run: Run, shards: Sequence[RefinedShard]) -> Artifact:
    """Frozen: no input is part of its key, because ids in shards and weights mean nothing under
    another tokenizer.
    """
    base = find_base(run.recipe)
    if base is not None:
        return run.build(
            "tokenize", [_adoption(base, shards)], "taking over the tokenizer", "tokenizer"
        )[0]
    wanted = {
        "vocab_size": run.recipe.tokenize.vocab_size,
        "sample_megabytes": run.recipe.tokenize.sample_megabytes,
    }
    step = Step("tokenize/tokenizer", "tokenizer", TOKENIZER_VERSION, wanted)
    return run.build(
        "tokenize",
        [Job(step, train_tokenizer, {"shards": shards, **wanted})],
        "training the tokenizer",
        "tokenizer",
    )[0]


def _adoption(base: Base, shards: Sequence[RefinedShard]) -> Job:
    """Of another tokenizer, nothing that was made from this one stays; so its content is part of
    the key.
    """
    wanted = {
        "from": hashlib.sha256(base.foreign.data).hexdigest(),
        "end": base.foreign.tokenizer.end,
    }
    step = Step("tokenize/tokenizer", "tokenizer", ADOPTED_VERSION, wanted)
    return Job(step, adopt_tokenizer, {"source": base.path, "shards": shards})


def _shard_job(shard: RefinedShard, tokenizer: Artifact) -> Job:
    step = Step(
        "tokenize/shard",
        shard.name,
        SHARD_VERSION,
        {},
        {"tokenizer": tokenizer.content} | dict(shard.digests),
    )
    return Job(
        step,
        tokenize_shard,
        {"shard": shard, "tokenizer_folder": tokenizer.path},
        shard.documents.stat().st_size,
    )


def _index(run: Run, tokenized: Sequence[Artifact]) -> Artifact:
    step = Step(
        "tokenize/index",
        "index",
        INDEX_VERSION,
        {},
        {a.name: a.manifest["files"]["index.parquet"]["sha256"] for a in tokenized},
    )
    job = Job(
        step, join_indexes, {"indexes": {a.name: a.path / "index.parquet" for a in tokenized}}
    )
    return run.build("tokenize", [job], "indexing tokens", "index")[0]


def _links(tokenizer: Artifact, tokenized: Sequence[Artifact], index: Artifact) -> dict[str, Path]:
    links = {name: tokenizer.path / name for name in (FILE, CONFIG)} | {
        "index.parquet": index.path / "index.parquet"
    }
    return links | {
        f"shards/{a.name}.{split}.npy": a.path / f"{split}.npy"
        for a in tokenized
        for split in SPLITS.values()
    }


def facts(tokenizer: Artifact, tokenized: Sequence[Artifact]) -> dict[str, Any]:
    """Return documents, tokens, bytes and bytes per token, by source and split and over all."""
    sources: dict[str, dict[str, dict[str, int]]] = {}
    total = {split: {"documents": 0, "tokens": 0, "bytes": 0} for split in SPLITS.values()}
    for artifact in tokenized:
        source = sources.setdefault(
            artifact.facts["source"],
            {split: {"documents": 0, "tokens": 0, "bytes": 0} for split in total},
        )
        for split, counts in total.items():
            for name in counts:
                counts[name] += artifact.facts[split][name]
                source[split][name] += artifact.facts[split][name]
    return {
        "vocab_size": tokenizer.facts["vocab_size"],
        "tokenizer": tokenizer.facts,
        "sources": {
            name: {split: _ratio(counts) for split, counts in by.items()}
            for name, by in sources.items()
        },
        "total": {split: _ratio(counts) for split, counts in total.items()},
    }


def _ratio(counts: dict[str, int]) -> dict[str, float]:
    return counts | {
        "bytes_per_token": round(counts["bytes"] / counts["tokens"], 4) if counts["tokens"] else 0.0
    }
