"""Answers that people copied and rewrote by known degrees (Clough and Stevenson 2011, "Developing a
corpus of plagiarised short answers"): which of them each step of refine ties to the text that they
were made from.

Jaccard of whole documents is a poor measure of plagiarism, and says so here: copied sentences among
others are half of a text at most. What is meant to find them is decontamination, which asks how
much of the original stands in the document.
"""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import contamination
from benchmarks import dedup_peers as peers
from benchmarks.corpora import collected
from benchmarks.duplicates import THRESHOLD, run
from benchmarks.machine import machine, test_data
from benchmarks.pairs import similarities
from groundup.artifacts.arrays import text_buffers
from groundup.refine.dedup.duplicates import find_duplicates
from groundup.refine.dedup.minhash import shingle_sets
from groundup.refine.out_of_core import DocumentTable, Scratch
from groundup.refine.shard import refine_shard
from groundup.refine.split import SIMILAR, find_clusters

FOLDER = "dedup/plagiarised-short-answers"
DEGREES = {
    "cut": "copied and pasted",
    "light": "lightly revised",
    "heavy": "heavily revised",
    "non": "not copied",
}
MEMORY = 1 << 28


@dataclass(frozen=True)
class Answer:
    """One answer: its row and that of its original in the shard, and how it came about."""

    row: int
    original: int
    degree: str


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None or not (data / FOLDER).is_dir():
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard = refined(data, folder)
        table = pq.read_table(shard / "documents.parquet", columns=["origin", "text"])
        answers = labeled(data / FOLDER / "file_information.csv", table["origin"].to_pylist())
        texts = table["text"].to_pylist()
        found = {
            f"near duplicate of its original, Jaccard {THRESHOLD}": near(folder, shard, answers),
            f"in the cluster of its original, Jaccard {SIMILAR}": clustered(folder, shard, answers),
            "holds 13-grams of its original, as decontamination asks": holding(
                folder, texts, answers
            ),
        } | beside(folder, texts, answers)
        alike = dict(zip([one.row for one in answers], jaccards(texts, answers), strict=True))
    figures: dict[str, object] = {}
    for degree, name in DEGREES.items():
        rows = {one.row for one in answers if one.degree == degree}
        figures |= {
            f"{name}: answers": len(rows),
            f"{name}: Jaccard with the original, median": statistics.median(alike[r] for r in rows),
        }
        figures |= {
            f"{name}: at Jaccard {SIMILAR} or more": sum(alike[row] >= SIMILAR for row in rows)
            / len(rows)
        }
        figures |= {
            f"{name}: {way}": len(rows & of_way) / len(rows) for way, of_way in found.items()
        }
    return {
        "what": "Answers copied from an original by degree of rewriting: the share that is found.",
        "figures": figures,
        "machine": machine(),
    }


def refined(data: Path, folder: Path) -> Path:
    """Return the answers and originals as a refined shard, filters off."""
    source = {"name": "answers", "kind": "text", "path": FOLDER, "include": ["*.txt"]}
    (part,) = (collected(data, folder / "run", [source]).root / "collect" / "documents").glob(
        "*.parquet"
    )
    for name in ("in", "shard"):
        (folder / name).mkdir()
    pq.write_table(pq.read_table(part), folder / "in" / "documents.parquet")
    refine_shard(folder / "shard", folder / "in", "text", [], [], folder)
    return folder / "shard"


def labeled(information: Path, origins: list[str]) -> list[Answer]:
    """Return the answers of the corpus that are there."""
    place = {Path(origin).name: row for row, origin in enumerate(origins)}
    with information.open(encoding="utf-8", newline="") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["Category"] in DEGREES and row["File"] in place
        ]
    return [
        Answer(place[row["File"]], place[f"orig_task{row['Task']}.txt"], row["Category"])
        for row in rows
    ]


def near(folder: Path, shard: Path, answers: list[Answer]) -> set[int]:
    find_duplicates(folder, [("x.y", shard)], THRESHOLD, MEMORY)
    listed = {frozenset(pair) for pair in np.load(folder / "listed.npy").tolist()}
    return {one.row for one in answers if {one.row, one.original} in listed}


def clustered(folder: Path, shard: Path, answers: list[Answer]) -> set[int]:
    corpus = DocumentTable([("x.y", shard)])
    with Scratch(folder / "scratch") as scratch:
        number = find_clusters(corpus, np.ones(corpus.rows, np.bool_), scratch, MEMORY)
    return {one.row for one in answers if number[one.row] == number[one.original]}


def holding(folder: Path, texts: list[str], answers: list[Answer]) -> set[int]:
    """Hold each answer against its original by itself: 19 of them would make a copied sentence a
    common phrase.
    """
    rows = set()
    for one in answers:
        (own := folder / f"holding-{one.row}").mkdir()
        if contamination.found(own, [texts[one.row]], {0: texts[one.original]}):
            rows.add(one.row)
    return rows


def beside(folder: Path, texts: list[str], answers: list[Answer]) -> dict[str, set[int]]:
    """Return what datasketch finds at both thresholds, where it can be had; originals are indexed
    first.
    """
    python = peers.interpreter(folder / "venv", ["datasketch"])
    if python is None:
        return {}
    originals = sorted({one.original for one in answers})
    order = originals + [one.row for one in answers]
    (folder / "documents.jsonl").write_text(
        "".join(json.dumps({"text": texts[row]}) + "\n" for row in order), encoding="utf-8"
    )
    ways = {}
    for threshold in (THRESHOLD, SIMILAR):
        reported = {
            (order[a], order[b])
            for a, b in (run("datasketch", python, folder, threshold) or {"pairs": []})["pairs"]
        }
        ways[f"datasketch at {threshold}"] = {
            one.row for one in answers if (one.row, one.original) in reported
        }
    return ways


def jaccards(texts: list[str], answers: list[Answer]) -> list[float]:
    pairs = np.array([(one.row, one.original) for one in answers])
    return similarities(*shingle_sets(text_buffers(pa.array(texts))), pairs).tolist()
