"""Near-duplicates of 100,000 real documents, a fifth of them edited copies: ours beside datatrove,
datasketch and rensa.

Every tool reads the same documents in a process of its own. The truth is the exact Jaccard
similarity of sets of word 5-grams (groundup's definition) of all pairs, from a join that does not
hash documents; on 2,000 documents it is held against comparing each with each. One notion for all
tools: which documents are dropped. A pair is found when not both of it are kept; a drop is right
when a kept document is at least half alike; a pair that a tool reports is right when it is half
alike.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import dedup_peers as peers
from benchmarks.corpora import ALL_KINDS, collected, pieces, texts
from benchmarks.machine import machine, test_data, watched
from benchmarks.pairs import every_pair, similar_pairs, similarities
from benchmarks.planted import SAME_WORDS, planted
from groundup.artifacts.arrays import Array, text_buffers
from groundup.artifacts.document import DOCUMENT, TableWriter, document_id
from groundup.refine.dedup.minhash import shingle_sets

OURS = ("groundup", "groundup, two threads")
# Our documents are in several shards, which two threads share evenly.
SHARDS = 8
ORIGINALS, COPIES, FEW, BRUTE = 80_000, 20_000, 400, 2_000
THRESHOLD, ALIKE = 0.8, 0.5
BANDS = ((0.8, 0.85), (0.85, 0.9), (0.9, 0.95), (0.95, 1.01))
# A text of fewer words has nothing to be compared by.
FEWEST_WORDS = 10


@dataclass(frozen=True)
class Truth:
    """Documents, and which of them are alike.

    Attributes:
        original: for each document the row of the one that it is a copy of, or its own (int64).
        sets, offsets: shingle sets.
        pairs: all pairs at ALIKE or more, shape (n, 2).
        similarity: of each.
        same: which documents are copies with the words of their original, whatever their Jaccard: a
            German sharp s or an accented
            Greek vowel in capitals is another word.
        brute: ascending rows of BRUTE documents, copies and their originals among them.
    """

    original: Array
    sets: Array
    offsets: Array
    pairs: Array
    similarity: Array
    same: Array
    brute: Array


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents, original, same = generated(data, folder / "run")
        write(folder, documents)
        load = os.getloadavg()[0]
        size = sum(len(text.encode()) for text in documents) / 1e6
        truth = truth_of(documents, original, same)
        figures: dict[str, object] = {
            "documents": len(documents),
            "MB": size,
            "others' load on this machine (processes)": load,
        } | facts(truth)
        python = peers.interpreter(folder / "venv")
        if python is None:
            print("duplicates: the peers cannot be installed, so ours is measured alone")
        for tool in peers.TOOLS if python else OURS:
            found = run(tool, sys.executable if tool in OURS or python is None else python, folder)
            if found is not None:
                figures |= {
                    f"{tool}: {figure}": value
                    for figure, value in judged(found, truth, size).items()
                }
    used = ", ".join(package for name, package in peers.PACKAGES.items() if name != "spacy")
    return {
        "what": (
            f"Duplicates among real documents and edited copies, beside {used}; one process and one"
            " core each, and ours with two threads, too;"
            f" near_threshold {THRESHOLD}. Where a tool leaves the unit to its user, it"
            " is 5-grams of words in small letters; rensa's own example has single words. Seconds"
            " by the clock count only where no others load the machine; processor seconds always."
        ),
        "figures": figures,
        "machine": machine(),
    }


def generated(data: Path, root: Path) -> tuple[list[str], Array, Array]:
    """Return documents in random order, for each the row of the one that it is a copy of (or its
    own), and whether it has its words.
    """
    rng = random.Random(1)
    cut = [piece for text in texts(collected(data, root, ALL_KINDS)) for piece in pieces(text, rng)]
    long_enough = np.diff(shingle_sets(text_buffers(pa.array(cut)), 1)[1]) >= FEWEST_WORDS
    cut = [piece for piece, enough in zip(cut, long_enough.tolist(), strict=True) if enough]
    originals = rng.sample(cut, min(ORIGINALS, len(cut)))
    copies = planted(originals, COPIES, rng)
    documents = originals + [text for text, _, _ in copies]
    order = np.array(rng.sample(range(len(documents)), len(documents)))
    place = np.argsort(order)
    original = place[np.array([*range(len(originals)), *(number for _, number, _ in copies)])]
    same = np.array([False] * len(originals) + [edit in SAME_WORDS for _, _, edit in copies])
    return [documents[row] for row in order.tolist()], original[order], same[order]


def write(folder: Path, documents: list[str]) -> None:
    """Write the documents as every tool wants them, and a few of them for the first run, which is
    not counted.
    """
    for place, some in ((folder, documents), (folder / "few", documents[:FEW])):
        place.mkdir(exist_ok=True)
        lines = (
            json.dumps({"text": text, "id": str(number)}, ensure_ascii=False)
            for number, text in enumerate(some)
        )
        (place / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for shard, numbers in enumerate(np.array_split(np.arange(len(some)), SHARDS)):
            write_shard(place / "shards" / f"{shard:02}", some, numbers.tolist())


def write_shard(folder: Path, documents: list[str], numbers: list[int]) -> None:
    """Write some of the documents as refine/shard does."""
    folder.mkdir(parents=True)
    with TableWriter(folder / "documents.parquet", DOCUMENT) as out:
        for number in numbers:
            text = documents[number]
            row = dict.fromkeys(DOCUMENT.names, "") | {
                "id": document_id("x", "y", number),
                "text": text,
                "record": number,
            }
            out.add(row | {"turns": None}, len(text))


def truth_of(documents: list[str], original: Array, same: Array) -> Truth:
    sets, offsets = shingle_sets(text_buffers(pa.array(documents)))
    pairs, similarity = similar_pairs(sets, offsets, ALIKE)
    rng = np.random.default_rng(1)
    copied = rng.permutation(np.unique(original[copies_of(original)]))[: BRUTE // 3]
    families = np.flatnonzero(np.isin(original, copied))
    alone = rng.permutation(np.setdiff1d(np.arange(len(original)), families))
    return Truth(
        original,
        sets,
        offsets,
        pairs,
        similarity,
        same,
        np.sort(np.concatenate([families, alone])[:BRUTE]),
    )


def copies_of(original: Array) -> Array:
    """Return the rows that are copies."""
    return np.flatnonzero(original != np.arange(len(original)))


def facts(truth: Truth) -> dict[str, object]:
    """Return what there is to find.

    Raises:
        AssertionError: brute force and join name different pairs.
    """
    rows = copies_of(truth.original)
    found = similarities(truth.sets, truth.offsets, np.stack([rows, truth.original[rows]], axis=1))
    figures: dict[str, object] = {}
    for low, end in ((0.0, 0.3), (0.3, 0.5), (0.5, 0.65), (0.65, 0.8), *BANDS):
        figures[f"planted copies at Jaccard {low} to {min(end, 1.0)}"] = int(
            ((found >= low) & (found < end)).sum()
        )
    high = truth.similarity >= THRESHOLD
    figures["planted pairs at 0.8 or more, copies of one document among them"] = int(
        (high & in_family(truth)).sum()
    )
    figures["other pairs at 0.8 or more, which the data has by itself"] = int(
        (high & ~in_family(truth)).sum()
    )
    pairs, _ = every_pair(truth.sets, truth.offsets, truth.brute, ALIKE)
    if not np.array_equal(pairs, truth.pairs[np.isin(truth.pairs, truth.brute).all(axis=1)]):
        raise AssertionError("the join and brute force disagree")
    compared = f"among {BRUTE} documents, each compared with each (the join names the same)"
    return figures | {f"pairs at 0.5 or more {compared}": len(pairs)}


def in_family(truth: Truth) -> Array:
    """Return which pairs are planted: a copy and its original, or two copies of one."""
    return truth.original[truth.pairs[:, 0]] == truth.original[truth.pairs[:, 1]]


def run(
    tool: str, python: str, folder: Path, threshold: float = THRESHOLD
) -> dict[str, Any] | None:
    """Let one tool look at the documents; None where it fails."""
    try:
        _, peaks = watched([python, "-P", peers.__file__, tool, str(folder), str(threshold)])
    except subprocess.CalledProcessError as error:
        print(f"duplicates: {tool} is left out: {error}\n{error.stderr[-1000:]}")
        return None
    return json.loads((folder / f"{tool}.json").read_text()) | {"peaks": peaks}


def judged(found: dict[str, Any], truth: Truth, size: float) -> dict[str, object]:
    """Return the figures of one tool."""
    kept = np.ones(len(truth.original), np.bool_)
    kept[found["dropped"]] = False
    missed = kept[truth.pairs].all(axis=1)
    planted_pairs = in_family(truth)

    def recall(among: Array) -> float:
        return 1 - float(missed[among].mean())

    high = truth.similarity >= THRESHOLD
    figures: dict[str, object] = {
        "recall, planted pairs at 0.8 or more": recall(planted_pairs & high)
    }
    for low, end in BANDS:
        band = (truth.similarity >= low) & (truth.similarity < end)
        figures[f"recall, planted pairs at {low} to {min(end, 1.0)}"] = recall(planted_pairs & band)
    copies = np.flatnonzero(truth.same)
    lost = kept[copies] & kept[truth.original[copies]]
    figures["recall, copies with the same words (other case, white space or punctuation)"] = (
        1 - float(lost.mean())
    )
    figures["recall, other pairs at 0.8 or more"] = recall(~planted_pairs & high)
    figures[f"recall, pairs among {BRUTE} documents by brute force"] = recall(
        high & np.isin(truth.pairs, truth.brute).all(axis=1)
    )
    reported = np.unique(np.sort(np.array(found["pairs"], np.int64).reshape(-1, 2), axis=1), axis=0)
    alike = (similarities(truth.sets, truth.offsets, reported) >= ALIKE) | same_words(
        truth, reported
    )
    wrong = int((~kept & ~beside_kept(truth, kept)).sum())
    return figures | {
        "documents dropped": len(found["dropped"]),
        "dropped, and no kept document is half alike": wrong,
        "precision of drops": 1 - wrong / len(found["dropped"]),
        "pairs judged": len(reported),
        "precision of pairs": float(alike.mean()),
        "seconds": found["seconds"],
        "processor seconds": found["processor"],
        "MB a processor second": size / found["processor"],
        "MB/s by the clock": size / found["seconds"],
        "peak memory (GB)": found["peaks"]["resident"],
        "of it no mapped file (GB)": found["peaks"]["own"],
    }


def same_words(truth: Truth, pairs: Array) -> Array:
    """Return which pairs are a copy that has the words of its original, and that original."""
    a, b = pairs[:, 0], pairs[:, 1]
    return (truth.same[a] & (truth.original[a] == b)) | (truth.same[b] & (truth.original[b] == a))


def beside_kept(truth: Truth, kept: Array) -> Array:
    """Return which documents are half alike to a kept one, or have its words."""
    beside = np.zeros(len(kept), np.bool_)
    copies = np.flatnonzero(truth.same)
    pairs = np.concatenate([truth.pairs, np.stack([copies, truth.original[copies]], axis=1)])
    for own, other in ((0, 1), (1, 0)):
        beside[pairs[kept[pairs[:, other]], own]] = True
    return beside
