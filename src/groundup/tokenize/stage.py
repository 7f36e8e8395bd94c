"""The stage `tokenize`: trains a tokenizer, or adopts that of the base model, and tokenizes once.

Its view holds tokenizer.json, tokenizer_config.json, shards/NAME.train.npy,
shards/NAME.validation.npy and index.parquet (document → shard, split, offset, length).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from groundup.runtime.run import Run, Unkeyed
from groundup.runtime.store import Artifact, Facts

if TYPE_CHECKING:
    from groundup.artifacts.corpus import RefinedShard


def run(run: Run) -> None:
    """Train or adopt the tokenizer, tokenize every shard, and publish the view.

    Raises a GroundupError without text to train on, or if the base model's tokenizer is unusable.
    """
    from groundup.artifacts.corpus import VERDICTS, refined_shards
    from groundup.artifacts.tokenizer import CONFIG, FILE
    from groundup.tokenize.shards import join_indexes, tokenize_shard

    shards = sorted(refined_shards(run.root), key=lambda shard: (shard.source, shard.name))
    tokenizer = _tokenizer(run, shards)
    jobs = [
        tokenize_shard.job(
            shard.name,
            inputs={"tokenizer": tokenizer.content} | dict(shard.digests),
            size=shard.documents.stat().st_size,
            shard=Unkeyed(shard),
            tokenizer_folder=Unkeyed(tokenizer.path),
        )
        for shard in shards
    ]
    tokenized = run.build("tokenize", jobs, "tokenizing")
    join = join_indexes.job(
        "index",
        inputs={a.name: a.manifest["files"]["index.parquet"]["sha256"] for a in tokenized},
        indexes=Unkeyed({a.name: a.path / "index.parquet" for a in tokenized}),
    )
    (index,) = run.build("tokenize", [join], "indexing tokens", "index")
    links = {name: tokenizer.path / name for name in (FILE, CONFIG)}
    links["index.parquet"] = index.path / "index.parquet"
    for artifact in tokenized:
        for split in VERDICTS:
            links[f"shards/{artifact.name}.{split}.npy"] = artifact.path / f"{split}.npy"
    facts = _facts(tokenizer, tokenized, list(VERDICTS))
    run.publish("tokenize", [tokenizer, *tokenized, index], links, facts)


def _tokenizer(run: Run, shards: Sequence[RefinedShard]) -> Artifact:
    """Return the tokenizer of the run, which is frozen: the documents are not part of its key.

    Ids in token shards and weights mean nothing under another tokenizer. The content of an adopted
    tokenizer is part of the key.
    """
    from groundup.tokenize.train_bpe import train_tokenizer

    if "tokenize" in run.redo:
        # Its key does not know the data that it was made from.
        run.discard_planned("tokenize", "tokenize/tokenizer")
    base, texts = None, Unkeyed(shards)
    if run.recipe.model.base:
        # Late: it imports PyTorch.
        from groundup.artifacts.pretrained import find_pretrained

        base = find_pretrained(run.recipe)
    if base is None:
        settings = run.recipe.tokenize
        job = train_tokenizer.job(
            "tokenizer",
            inputs={},
            shards=texts,
            vocab_size=settings.vocab_size,
            sample_megabytes=settings.sample_megabytes,
        )
    else:
        from groundup.tokenize.adopt import adopt_tokenizer

        digest = hashlib.sha256(base.carried.data).hexdigest()
        key, path = {"from": digest, "end": base.tokenizer.end}, Unkeyed(base.path)
        job = adopt_tokenizer.job("tokenizer", inputs={}, key_only=key, source=path, shards=texts)
    what = "training the tokenizer" if base is None else "taking over the tokenizer"
    (tokenizer,) = run.build("tokenize", [job], what, "tokenizer")
    return tokenizer


def _facts(tokenizer: Artifact, tokenized: Sequence[Artifact], splits: Sequence[str]) -> Facts:
    """Return documents, tokens, bytes and bytes per token, by source and split and in total."""

    def total(shards: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
        sums: dict[str, dict[str, Any]] = {}
        for split in splits:
            counts = sum((Counter(shard.facts[split]) for shard in shards), Counter[str]())
            ratio = counts["bytes"] / counts["tokens"] if counts["tokens"] else 0.0
            names = ("documents", "tokens", "bytes")
            sums[split] = {n: counts[n] for n in names} | {"bytes_per_token": round(ratio, 4)}
        return sums

    sources = defaultdict[str, list[Artifact]](list)
    for artifact in tokenized:
        sources[artifact.facts["source"]].append(artifact)
    return {
        "vocab_size": tokenizer.facts["vocab_size"],
        "tokenizer": tokenizer.facts,
        "sources": {source: total(shards) for source, shards in sources.items()},
        "total": total(tokenized),
    }
