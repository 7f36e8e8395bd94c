"""Evaluation items planted in real documents, whole and damaged: what share is found, and how many
clean documents are flagged.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.corpora import sample
from benchmarks.machine import machine, test_data
from groundup.artifacts.document import DOCUMENT, DROPPED, TableWriter, document_id
from groundup.collect.readers.text import item_text
from groundup.refine.decontaminate import find_contaminated, find_occurrences, write_grams
from groundup.refine.shard import refine_shard

SETS = {
    "lambada": "evals/lambada/lambada_test.jsonl",
    "arc_easy": "evals/arc_easy/arc_easy.jsonl",
    "gsm8k": "evals/gsm8k/test.jsonl",
}
EACH, CLEAN = 150, 1_000


def shouted(text: str, rng: random.Random) -> str:
    """Other case, other white space, no punctuation."""
    return "  ".join(
        "".join(letter for letter in word if letter.isalnum() or letter in "'-")
        for word in text.upper().split()
    )


def replaced(rate: int) -> Callable[[str, random.Random], str]:
    return lambda text, rng: " ".join(
        "something" if rng.randrange(rate) == 0 else word for word in text.split(" ")
    )


def first_half(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    return " ".join(words[: len(words) * 6 // 10])


DEGREES: dict[str, Callable[[str, random.Random], str]] = {
    "whole": lambda text, rng: text,
    "other case and punctuation": shouted,
    "first six tenths": first_half,
    "one word in 50 replaced": replaced(50),
    "one word in 20 replaced": replaced(20),
}


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = sample(data, folder / "run")
        items = {
            number: text for number, text in enumerate(every_item(data)) if len(text.split()) >= 8
        }
        planted, degrees = plant(texts[CLEAN:], items)
        flagged = found(folder, [*texts[:CLEAN], *planted], items)
    rates = Counter(degrees[number - CLEAN] for number in flagged if number >= CLEAN)
    figures: dict[str, object] = {
        f"found: {name}": rates[name] / degrees.count(name) for name in DEGREES
    }
    figures |= {
        "items": len(items),
        "documents with an item planted": len(planted),
        "clean documents": CLEAN,
    }
    figures |= {"clean documents flagged": sum(number < CLEAN for number in flagged)}
    return {
        "what": "Evaluation items planted in real documents, and clean documents beside them.",
        "figures": figures,
        "machine": machine(),
    }


def every_item(data: Path) -> list[str]:
    texts = []
    for path in SETS.values():
        texts += [
            item_text(json.loads(line))
            for line in (data / path).read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
    return texts


def plant(texts: Sequence[str], items: dict[int, str]) -> tuple[list[str], list[str]]:
    """Put one item into the middle of each text, at every degree of damage."""
    rng = random.Random(2)
    chosen = rng.sample(sorted(items), EACH * len(DEGREES))
    planted, degrees = [], []
    for number, (item, text) in enumerate(zip(chosen, texts, strict=False)):
        degree = list(DEGREES)[number % len(DEGREES)]
        middle = text.find(" ", len(text) // 2)
        planted.append(f"{text[:middle]}\n{DEGREES[degree](items[item], rng)}\n{text[middle:]}")
        degrees.append(degree)
    return planted, degrees


def found(folder: Path, texts: Sequence[str], items: dict[int, str]) -> list[int]:
    """Return the numbers of the texts that are listed as contaminated."""
    collected(folder / "text", texts, "text")
    collected(folder / "tests", list(items.values()), "evaluation")
    for name in ("shard", "grams", "list"):
        (folder / name).mkdir()
    refine_shard(folder / "shard", folder / "text", "text", [], [], Path())
    write_grams(folder / "grams", [folder / "tests"], [])
    find_occurrences(folder / "list", folder / "shard", folder / "grams")
    with TableWriter(folder / "list" / "duplicates.parquet", DROPPED):
        pass
    gone = [folder / "list" / "duplicates.parquet"]
    find_contaminated(
        folder / "list",
        [("x.y", folder / "shard")],
        {"x.y": folder / "list"},
        gone,
        {},
        folder / "grams",
    )
    return pq.read_table(folder / "list" / "contaminated.parquet")["record"].to_pylist()


def collected(folder: Path, texts: Sequence[str], kind: str) -> None:
    folder.mkdir()
    with TableWriter(folder / "documents.parquet", DOCUMENT) as out:
        for number, text in enumerate(texts):
            row = {
                "id": document_id(kind, "x", number),
                "text": text,
                "kind": kind,
                "source": kind,
                "origin": "x",
                "record": number,
            }
            out.add(
                row | {"group": f"{kind}:{number}", "license": "", "language": "", "turns": None},
                len(text),
            )
