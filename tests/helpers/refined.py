"""A refined run in the shape that the stage `refine` leaves behind, made from a few texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from groundup.artifacts.corpus import RefinedShard
from groundup.artifacts.document import DOCUMENT, TableWriter, document_id
from groundup.recipe import recipe_from
from groundup.runtime.run import Run
from groundup.runtime.store import Facts, Step
from groundup.tokenize.train_bpe import sampled_ids, train_tokenizer
from groundup.tokenize.word_counts import WORDS, count_words

# name of a shard → (text, verdict) or (text, verdict, turns) of its documents; 0 duplicate, 1
# train, 2 validation
Shards = Mapping[str, Sequence[tuple[Any, ...]]]


def refined_run(
    root: Path, shards: Shards, kinds: Mapping[str, str] | None = None, **settings: Any
) -> Run:
    """Return a run whose view `refine` holds `shards`."""
    sources = sorted({name.rpartition(".")[0] for name in shards})
    table = {
        "source": [
            {"path": f"raw/{s}", "name": s, "kind": (kinds or {}).get(s, "text")} for s in sources
        ],
        **settings,
    }
    run = Run(root, recipe_from(table, "test", root))
    refine(run, shards)
    return run


def refine(run: Run, shards: Shards) -> None:
    artifacts = []
    for name, documents in shards.items():
        step = Step("refine/shard", name, 1, inputs={"texts": repr(documents)})
        artifacts.append(
            run.store.build(step, _write_documents, {"name": name, "documents": documents})
        )
    step = Step(
        "refine/split",
        "split",
        1,
        inputs={a.name: a.content for a in artifacts} | {"verdicts": repr(shards)},
    )
    split = run.store.build(step, _write_split, {"shards": shards})
    links = {f"documents/{a.name}.parquet": a.path / "documents.parquet" for a in artifacts}
    links |= {f"split/{name}.npy": split.path / "split" / f"{name}.npy" for name in shards}
    facts = {
        "sources": {name: {"train": {"bytes": _train_bytes(docs)}} for name, docs in shards.items()}
    }
    run.store.publish("refine", links, [*artifacts, split], facts)


def _train_bytes(documents: Sequence[tuple[Any, ...]]) -> int:
    return sum(len(text.encode()) for text, verdict, *_ in documents if verdict == 1)


def train_on(
    folder: Path, shards: Sequence[RefinedShard], vocab_size: int | str, limit: int = 10**9
) -> Facts:
    """Train a tokenizer on about `limit` bytes of shards, as the stage does; return its facts."""
    batches = [batch for shard in shards for batch in shard.batches(["text"], "train")]
    total = sum(len(text.encode()) for batch in batches for text in batch["text"].to_pylist())
    counts = []
    for shard in shards:
        words = folder / "words" / shard.name
        words.mkdir(parents=True)
        facts = count_words(words, shard, sampled_ids(total, limit))
        counts.append((words / WORDS, facts))
    return train_tokenizer(folder, counts, vocab_size, total)


def _write_documents(
    folder: Path, name: str, documents: Sequence[tuple[Any, ...]]
) -> dict[str, Any]:
    source = name.rpartition(".")[0]
    with TableWriter(folder / "documents.parquet", DOCUMENT) as writer:
        for record, (text, _, *rest) in enumerate(documents):
            row = {
                "id": document_id(source, name, record),
                "text": text,
                "source": source,
                "record": record,
            }
            row |= (
                {"origin": name, "group": f"text:{name}#{record}", "turns": rest[0]} if rest else {}
            )
            writer.add(row, len(text.encode()))
    return {"documents": len(documents)}


def _write_split(folder: Path, shards: Shards) -> dict[str, Any]:
    (folder / "split").mkdir()
    for name, documents in shards.items():
        np.save(
            folder / "split" / f"{name}.npy",
            np.array([verdict for _, verdict, *_ in documents], np.uint8),
        )
    return {}
