"""Measure how much of validation occurs in train: 13-grams of words, exactly, without LSH.

The 13-grams of validation are held in memory, sorted; train is streamed past them. The length is
that of Brown et al. 2020 ("GPT-3"), appendix C.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, lengths, text_buffers
from groundup.artifacts.corpus import kept_documents
from groundup.refine.dedup.minhash import mix_all, shingle_sets
from groundup.refine.out_of_core import parse_ids
from groundup.runtime.workers.map import default_workers, map_ahead

GRAM_WORDS = 13
# A validation document leaks if more than this share of its 13-grams occurs in train.
LEAKING_SHARE = 0.5
# 8 bytes each: at most 800 MB of hashes are held. Beyond that, documents are sampled by the hash of
# their id.
MAX_GRAMS = 100_000_000


class LeakedPair(NamedTuple):
    """A validation document, and the train document with the largest share of its 13-grams."""

    validation: str
    train: str
    share: float


class Leakage(NamedTuple):
    """The leakage of validation into train."""

    documents: int  # validation documents measured
    sampled: float  # share of the validation documents that was measured
    leaking: float  # share of them with more than LEAKING_SHARE of their 13-grams in train
    grams: float  # share of all their 13-grams that occurs in train
    worst: tuple[LeakedPair, ...]  # the documents with the largest share


def measure_leakage(run_root: Path, worst: int = 10) -> Leakage:
    """Measure the leakage of a run; a StoreError if it has no refine stage yet."""
    ids, sets, offsets, sampled = _validation(run_root)
    grams = np.unique(sets)
    seen = np.zeros(len(grams), np.bool_)

    def hits(batch: pa.RecordBatch) -> Array:
        train = shingle_sets(text_buffers(batch.column("text")), GRAM_WORDS)[0]
        places = np.minimum(np.searchsorted(grams, train), len(grams) - 1)
        return places[grams[places] == train]

    batches = kept_documents(run_root, ["text"], "train") if len(grams) else ()
    for places in map_ahead(hits, batches, default_workers()):
        seen[places] = True
    held = np.concatenate([[0], np.cumsum(seen[np.searchsorted(grams, sets)])])[offsets]
    shares = np.diff(held) / np.maximum(np.diff(offsets), 1)
    largest = [row for row in np.argsort(-shares, kind="stable")[:worst] if shares[row] > 0]
    closest = [LeakedPair(ids[row], "", 0.0) for row in largest]
    for batch in kept_documents(run_root, ["id", "text"], "train") if closest else ():
        train, ends = shingle_sets(text_buffers(batch.column("text")), GRAM_WORDS)
        for k, row in enumerate(largest):
            own = sets[offsets[row] : offsets[row + 1]]
            common = np.diff(np.concatenate([[0], np.cumsum(np.isin(train, own))])[ends])
            best = int(np.argmax(common))
            share = float(common[best] / len(own))
            if share > closest[k].share:
                closest[k] = LeakedPair(ids[row], str(batch.column("id")[best]), share)
    leaking = float((shares > LEAKING_SHARE).mean()) if ids else 0.0
    in_train = float(held[-1] / max(offsets[-1], 1))
    return Leakage(len(ids), sampled, leaking, in_train, tuple(closest))


def _validation(run_root: Path) -> tuple[list[str], Array, Array, float]:
    """Return ids, 13-gram sets and their offsets of a sample of validation, and its share."""
    batches = kept_documents(run_root, ["text"], "validation")
    size = sum(int(lengths(batch.column("text")).sum(dtype=np.int64)) for batch in batches)
    # There is at most one word for every two bytes.
    share = min(1.0, MAX_GRAMS / max(size / 2, 1))
    ids: list[str] = []
    parts, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    for batch in kept_documents(run_root, ["id", "text"], "validation"):
        chance = mix_all(parse_ids(batch.column("id"))[:, 0]) / 2.0**64
        sample = batch.filter(pa.array(chance <= share))
        sets, offsets = shingle_sets(text_buffers(sample.column("text")), GRAM_WORDS)
        ids += sample.column("id").to_pylist()
        parts.append(sets)
        sizes.append(np.diff(offsets))
    return ids, np.concatenate(parts), np.cumsum(np.concatenate(sizes)), share
