"""Recall and precision of near-duplicates against brute force over all pairs of real documents, some of them planted."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from groundup.document import DOCUMENT, DROPPED, TableWriter, document_id
from groundup.refine.arrays import text_buffers
from groundup.refine.dedup import find_duplicates
from groundup.refine.kernels import jaccard, shingle_sets
from groundup.refine.shard import refine_shard

DOCUMENTS, EDITED, THRESHOLD = 2_500, 600, 0.8


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        texts = planted(sample(data, Path(folder) / "run"))
        shard = refined(texts, Path(folder))
        facts = find_duplicates(shard.parent, [("x.y", shard)], THRESHOLD)
        found = {row["id"]: row["duplicate_of"] for row in pq.read_table(shard.parent / "duplicates.parquet").to_pylist()}
        table = pq.read_table(shard / "documents.parquet", columns=["id", "text"])
    ids = table["id"].to_pylist()
    similar = all_pairs(table)
    place = {name: number for number, name in enumerate(ids)}
    has_twin = {ids[i] for i, j in zip(*np.nonzero(np.triu(similar >= THRESHOLD, 1)), strict=True) for i in (i, j)}
    lost = [
        name
        for name in has_twin - set(found)
        if any(similar[place[name]][place[o]] >= THRESHOLD for o in has_twin - set(found) if o != name)
    ]
    right = sum(similar[place[a], place[b]] >= THRESHOLD for a, b in found.items())
    figures = {
        "documents": len(ids),
        "pairs at Jaccard 0.8 or more": int(np.triu(similar >= THRESHOLD, 1).sum()),
        "dropped": len(found),
        "precision": right / len(found),
        "documents left with a twin that is also left": len(lost),
        "recall": len(found) / (len(found) + len(lost) / 2),
        "candidates compared": int(facts["compared"]),
    }
    return {
        "what": "Near and exact duplicates on real documents with planted edits, against all pairs by brute force.",
        "figures": figures,
        "machine": machine(),
    }


def sample(data: Path, root: Path) -> list[str]:
    """Return texts of 200 to 20,000 characters from all kinds."""
    run = collected(data, root)
    texts = []
    for path in sorted((run.root / "collect" / "documents").glob("*.parquet")):
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
            texts += [text[at : at + 5_000] for at in range(0, min(len(text), 100_000), 5_000) if len(text) - at > 400]
    return random.Random(0).sample(sorted(texts), DOCUMENTS)


def planted(texts: list[str]) -> list[str]:
    """Add copies with one word in 10 to 500 replaced."""
    rng = random.Random(1)
    copies = []
    for text in rng.sample(texts, EDITED):
        words, rate = text.split(" "), rng.choice([10, 20, 50, 100, 500])
        copies.append(" ".join(rng.choice(words) + "x" if rng.randrange(rate) == 0 else word for word in words))
    return texts + copies


def refined(texts: list[str], folder: Path) -> Path:
    """Return a refined shard of texts, filters off."""
    source, out = folder / "in", folder / "lists" / "out"
    source.mkdir()
    out.mkdir(parents=True)
    with TableWriter(source / "documents.parquet", DOCUMENT) as writer, TableWriter(source / "dropped.parquet", DROPPED):
        for number, text in enumerate(texts):
            row = dict.fromkeys(DOCUMENT.names, "") | {
                "id": document_id("x", "f", number),
                "text": text,
                "kind": "code",
                "record": number,
                "turns": None,
            }
            writer.add(row, len(text))
    refine_shard(out, source, "code", [], [], folder)
    return out


def all_pairs(table: object) -> np.ndarray:
    """Return the Jaccard similarity of every pair of documents, from their true shingle sets."""
    sets, offsets = shingle_sets(text_buffers(table["text"].combine_chunks()))  # type: ignore[index]
    count = len(offsets) - 1
    similar = np.zeros((count, count), np.float32)
    for i in range(count):
        for j in range(i + 1, count):
            similar[i, j] = jaccard(sets[offsets[i] : offsets[i + 1]], sets[offsets[j] : offsets[j + 1]], 0.0)
    return similar + similar.T
