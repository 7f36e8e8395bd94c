"""Main text of web pages, ours beside trafilatura, resiliparse, readability, newspaper4k,
boilerpipe and jusText. "snippets": 138 pages of trafilatura's evaluation, mostly German, with
passages that a person wants in it or out of it; "articles": 104 English news pages of scrapinghub's
article-extraction-benchmark with the article as a person marked it, by that project's measure (bags
of runs of four words). Decoding is not counted; a tool that fails on a page gives nothing for it.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import maintext_peers as tools
from benchmarks.dedup_peers import interpreter
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, result
from groundup.collect.readers.html import decode_html

SHINGLE_WORDS = 4
# Precision, recall.
Scores = tuple[float, float]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    wanted = {"snippets": snippets(data), "articles": articles(data)}
    pages = {name: [page for page, _ in rows] for name, rows in wanted.items()}
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages.json").write_text(json.dumps(pages), encoding="utf-8")
        for tool, found in run(folder).items():
            for which, rows in wanted.items():
                figures |= describe(f"{which}: {tool}", which, rows, found[which])
    return result(__doc__, figures)


def snippets(data: Path) -> list[tuple[str, Any]]:
    """Return the pages with what should be in their main text, and what should not."""
    folder = data / "web/html/trafilatura-eval"
    listed = json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).values()
    return [
        (
            decode_html((folder / "pages" / entry["file"]).read_bytes()),
            (entry["with"], entry["without"]),
        )
        for entry in listed
    ]


def articles(data: Path) -> list[tuple[str, Any]]:
    """Return the pages with their articles."""
    folder = data / "web/html/article-extraction-benchmark"
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    paths = sorted(folder.glob("*.html.gz"))
    return [
        (
            decode_html(gzip.decompress(path.read_bytes())),
            truth[path.name.removesuffix(".html.gz")]["articleBody"],
        )
        for path in paths
    ]


def run(folder: Path) -> dict[str, Any]:
    """Return what each tool found in each set, and in how many seconds."""
    python = interpreter(folder / "venv", list(tools.PACKAGES), tools.PACKAGES)
    found = {}
    for name, (package, _) in tools.TOOLS.items():
        if package and python is None:
            continue
        command = [
            python if package and python else sys.executable,
            tools.__file__,
            name,
            str(folder),
        ]
        subprocess.run(command, check=True)
        found[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def describe(
    label: str, which: str, rows: Sequence[tuple[str, Any]], found: dict[str, Any]
) -> dict[str, object]:
    truth = [wanted for _, wanted in rows]
    precision, recall = (of_snippets if which == "snippets" else of_articles)(found["texts"], truth)
    return {
        f"{label}: F1": 2 * precision * recall / (precision + recall),
        f"{label}: precision": precision,
        f"{label}: recall": recall,
        f"{label}: MB of HTML a second": megabytes([page for page, _ in rows]) / found["seconds"],
        f"{label}: pages that gave nothing": sum(not text.strip() for text in found["texts"]),
    }


def of_snippets(texts: Iterable[str], wanted: Iterable[tuple[list[str], list[str]]]) -> Scores:
    """Precision and recall over all snippets, white space folded (trafilatura's own count)."""
    hits = wrong = listed = 0
    for text, (inside, outside) in zip(texts, wanted, strict=True):
        plain = " ".join(text.split())
        hits += sum(" ".join(snippet.split()) in plain for snippet in inside)
        wrong += sum(" ".join(snippet.split()) in plain for snippet in outside)
        listed += len(inside)
    return hits / (hits + wrong), hits / listed


def of_articles(texts: Iterable[str], bodies: Iterable[str]) -> Scores:
    """Means of the pages' precision and recall; a page without text counts for recall only, as in
    that project's evaluate.py.
    """
    precisions, recalls = [], []
    for text, body in zip(texts, bodies, strict=True):
        got, right = shingles(text), shingles(body)
        common = (got & right).total()
        precisions += [common / got.total()] if got else []
        recalls.append(common / right.total())
    return fmean(precisions), fmean(recalls)


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return Counter(
        tuple(words[at : at + SHINGLE_WORDS])
        for at in range(max(1, len(words) - SHINGLE_WORDS + 1))
        if words
    )
