"""How much of validation stands in train: 13-grams of words, exactly, without LSH. Reads the refine
view; writes nothing.

The 13-grams of validation are held, sorted; train is streamed past them. The length is that of
Brown et al. 2020 ("GPT-3"), appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.corpus import kept_documents
from groundup.refine.dedup.minhash import scrambled, shingle_sets

GRAM_WORDS = 13
# A document counts as overlapping when more than this share of its 13-grams stands in train.
OVERLAPPING = 0.5
# 8 bytes each: at most 800 MB of hashes are held. Beyond it, documents are sampled by the hash of
# their id.
MOST_GRAMS = 100_000_000


@dataclass(frozen=True)
class Pair:
    """A validation document and the train document that shares most 13-grams with it; `share` is of
    the former's.
    """

    validation: str
    train: str
    share: float


@dataclass(frozen=True)
class Overlap:
    """What `measure` found.

    Attributes:
        documents: validation documents that were measured.
        sampled: share of the validation documents that was measured.
        overlapping: share of them with more than OVERLAPPING of their 13-grams somewhere in train.
        grams: share of all their 13-grams that stands in train.
        worst: the documents with the largest share, and where most of it stands.
    """

    documents: int
    sampled: float
    overlapping: float
    grams: float
    worst: tuple[Pair, ...]


def measure(run_root: Path, worst: int = 10) -> Overlap:
    """Measure the overlap of the validation documents of a run with its train documents.

    Raises:
        StoreError: the run has no refine stage yet.
    """
    ids, sets, offsets, sampled = _validation(run_root)
    grams = np.unique(sets)
    seen = np.zeros(len(grams), np.bool_)
    for batch in kept_documents(run_root, ["text"], "train"):
        _mark(grams, shingle_sets(text_buffers(batch.column("text")), GRAM_WORDS)[0], seen)
    found = np.concatenate([[0], np.cumsum(seen[np.searchsorted(grams, sets)])])[offsets]
    shares = np.diff(found) / np.maximum(np.diff(offsets), 1)
    chosen = [row for row in np.argsort(-shares, kind="stable")[:worst].tolist() if shares[row] > 0]
    return Overlap(
        documents=len(ids),
        sampled=sampled,
        overlapping=float((shares > OVERLAPPING).mean()) if len(ids) else 0.0,
        grams=float(found[-1] / max(offsets[-1], 1)),
        worst=tuple(
            _worst_pairs(
                run_root, [(ids[row], sets[offsets[row] : offsets[row + 1]]) for row in chosen]
            )
        ),
    )


def _validation(run_root: Path) -> tuple[list[str], Array, Array, float]:
    """Return ids, 13-gram sets and their offsets of the validation documents, and the share of them
    that was taken.
    """
    size = sum(
        int(np.diff(text_buffers(batch.column("text"))[0]).sum())
        for batch in kept_documents(run_root, ["text"], "validation")
    )
    # There is at most one word for every two bytes.
    share = min(1.0, MOST_GRAMS / max(size / 2, 1))
    ids: list[str] = []
    parts, ends, total = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)], 0
    for batch in kept_documents(run_root, ["id", "text"], "validation"):
        numbers = np.array(
            [int(text[:16], 16) for text in batch.column("id").to_pylist()], np.uint64
        )
        sample = batch.filter(pa.array(scrambled(numbers) / 2.0**64 <= share))
        sets, offsets = shingle_sets(text_buffers(sample.column("text")), GRAM_WORDS)
        ids += sample.column("id").to_pylist()
        parts.append(sets)
        ends.append(offsets[1:] + total)
        total += len(sets)
    return ids, np.concatenate(parts), np.concatenate(ends), share


def _mark(grams: Array, others: Array, seen: Array) -> None:
    """Mark the sorted `grams` that occur among `others`."""
    if len(grams):
        places = np.minimum(np.searchsorted(grams, others), len(grams) - 1)
        seen[places[grams[places] == others]] = True


def _worst_pairs(run_root: Path, documents: list[tuple[str, Array]]) -> list[Pair]:
    best = [Pair(name, "", 0.0) for name, _ in documents]
    for batch in kept_documents(run_root, ["id", "text"], "train") if documents else ():
        sets, offsets = shingle_sets(text_buffers(batch.column("text")), GRAM_WORDS)
        for k, (name, own) in enumerate(documents):
            common = np.concatenate([[0], np.cumsum(np.isin(sets, own))])[offsets]
            row = int(np.argmax(np.diff(common)))
            share = float(np.diff(common)[row] / len(own))
            if share > best[k].share:
                best[k] = Pair(name, str(batch.column("id")[row]), share)
    return best
