"""The stage `tokenize`: trains a tokenizer, or adopts that of the base model, and tokenizes once.

Its view holds tokenizer.json, tokenizer_config.json, shards/NAME.train.npy,
shards/NAME.validation.npy and index.parquet (document → shard, split, offset, length).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from groundup.errors import GroundupError
from groundup.runtime.run import Run, Unkeyed, taken
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
    tokenized = run.build("tokenize", taken(jobs), "tokenizing")
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
    # Only the training reads them, and the tokenizer is frozen.
    run.discard_step("tokenize", "tokenize/words")


def _tokenizer(run: Run, shards: Sequence[RefinedShard]) -> Artifact:
    """Return the tokenizer of the run, which is frozen: the documents are not part of its key.

    Ids in token shards and weights mean nothing under another tokenizer. The content of an adopted
    tokenizer is part of the key.
    """
    if "tokenize" in run.redo:
        # Its key does not know the data that it was made from.
        run.discard_planned("tokenize", "tokenize/tokenizer")
    base = None
    if run.recipe.model.base:
        # Late: it imports PyTorch.
        from groundup.artifacts.pretrained import find_pretrained

        base = find_pretrained(run.recipe)
    if base is None:
        return _trained_tokenizer(run, shards)
    from groundup.tokenize.adopt import adopt_tokenizer

    digest = hashlib.sha256(base.carried.data).hexdigest()
    key, path = {"from": digest, "end": base.tokenizer.end}, Unkeyed(base.path)
    texts = Unkeyed(shards)
    job = adopt_tokenizer.job("tokenizer", inputs={}, key_only=key, source=path, shards=texts)
    (tokenizer,) = run.build("tokenize", [job], "taking over the tokenizer", "tokenizer", here=True)
    return tokenizer


def _trained_tokenizer(run: Run, shards: Sequence[RefinedShard]) -> Artifact:
    """Return the tokenizer that the run has; train one if it has none."""
    from groundup.tokenize.train_bpe import ALL_IDS, SMALL_BYTES, sampled_ids, train_tokenizer
    from groundup.tokenize.word_counts import WORDS

    settings, refined = run.recipe.tokenize, run.store.view("refine")
    sources = refined.facts["sources"].values() if refined is not None else ()
    train_bytes = sum(source["train"]["bytes"] for source in sources)
    job = train_tokenizer.job(
        "tokenizer",
        inputs={},
        # It decides the counts.
        key_only={"sample_megabytes": settings.sample_megabytes},
        vocab_size=settings.vocab_size,
        counts=Unkeyed([]),
        train_bytes=Unkeyed(train_bytes),
        small=Unkeyed(()),
    )
    if run.store.find(job.step) is None:
        if train_bytes == 0:
            look = "`groundup inspect` shows what refine dropped, and why"
            raise GroundupError(f"tokenize: no text is left to train on; {look}")
        # Before the work: it stops where an old tokenizer was expensive.
        run.guard("tokenize", [job.step])
        below = sampled_ids(train_bytes, settings.sample_megabytes * 1_000_000)
        if below == ALL_IDS and train_bytes < SMALL_BYTES:
            made_of: dict[str, Any] = {"small": shards}
        else:
            counts = _count_words(run, shards, below)
            if not any(shard.facts["bytes"] for shard in counts):
                # The sample is smaller than most documents.
                counts = _count_words(run, shards, ALL_IDS)
            made_of = {"counts": [(shard.path / WORDS, shard.facts) for shard in counts]}
        job = replace(job, arguments={**job.arguments, **made_of})
    (tokenizer,) = run.build("tokenize", [job], "training the tokenizer", "tokenizer")
    return tokenizer


def _count_words(run: Run, shards: Sequence[RefinedShard], below: str) -> list[Artifact]:
    """Count the words of the documents of each shard whose id sorts before `below`."""
    from groundup.tokenize.word_counts import count_words

    jobs = [
        count_words.job(
            shard.name,
            inputs=dict(shard.digests),
            size=shard.documents.stat().st_size,
            shard=Unkeyed(shard),
            below=below,
        )
        for shard in shards
    ]
    return run.build("tokenize", jobs, "counting words")


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
