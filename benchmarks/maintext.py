"""Main text of web pages, ours beside trafilatura, resiliparse, readability, newspaper4k,
boilerpipe and jusText. "snippets": 138 pages of trafilatura's evaluation, mostly German, with
passages that a person wants in it or out of it; "articles": 104 English news pages of scrapinghub's
article-extraction-benchmark with the article as a person marked it, by that project's measure (bags
of runs of four words). Decoding is not counted; a tool that fails on a page gives nothing for it.

Text lost is counted page by page: the share of the marked text (passages, or runs of four words)
that a tool does not give. Beside it stands how much it gives of what the body shows, without
scripts, styles, navigation and hidden elements. "marks" are pages with markup that changes what a
text says: the articles again, with an exponent, a quotation and a block of code planted into a
paragraph of the marked text, and the pages of "snippets" that have such markup themselves. An
exponent is kept when something stands between it and its base, or its digits are superscripts; a
quotation when it has quotation marks; a block of code when its blank lines are there.

The reader of ours begins with the call that stands here as "resiliparse, no comments, meta, alt
texts", and ends with it for two pages of three: its speed is the limit of ours.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lxml import etree

from benchmarks import maintext_peers as tools
from benchmarks.dedup_peers import interpreter
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, result
from groundup.collect.readers.web.html import decode_html

SHINGLE_WORDS = 4
# A page that loses more of its marked text than this has lost its article.
MOST_LOST = 0.2
NOT_SHOWN = (
    "//script|//style|//noscript|//template|//nav|//svg|//iframe|//select|//textarea|//*[@hidden]"
    "|//*[contains(translate(@style, ' ', ''), 'display:none')]"
)
# A paragraph without markup, long enough to be found in the marked article by its first words.
PARAGRAPH = re.compile(r"(<p\b[^<>]*>)([^<>]{120,})(</p>)", re.IGNORECASE)
FIRST_WORDS = 8
SENTENCE = " Its mass is 10<sup>23</sup> kilograms, <q>give or take a few</q> of them."
CODE = "<pre>def mass(n):\n    total = 10 * n\n\n    return total</pre>"
EXPONENT = re.compile(r"([\w)]{1,20})<sup\b[^<>]*>([-+−]?\d+)</sup>", re.IGNORECASE)
QUOTATION = re.compile(r"<q(?:\s[^<>]*)?>(.*?)</q>", re.IGNORECASE | re.DOTALL)
PREFORMATTED = re.compile(r"<pre\b[^<>]*>(.*?)</pre>", re.IGNORECASE | re.DOTALL)
BLANK_LINE = re.compile(r"(\S[^\n]*)\n(?:[ \t\r]*\n)+\s*(\S[^\n]*)")
TAG = re.compile(r"<[^<>]*>")
SUPERSCRIPTS = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
MARKS = "[\"'“”„‟«»‹›‘’‚「」『』]"
# Precision, recall.
Scores = tuple[float, float]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    wanted = {"snippets": snippets(data), "articles": articles(data)}
    wanted["marks"] = marked(wanted["snippets"], wanted["articles"])
    pages = {name: [page for page, _ in rows] for name, rows in wanted.items()}
    shown = {name: [visible_size(page) for page in found] for name, found in pages.items()}
    figures: dict[str, object] = {
        "snippets: characters shown": sum(shown["snippets"]),
        "articles: characters shown": sum(shown["articles"]),
        "marks: pages": len(pages["marks"]),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pages.json").write_text(json.dumps(pages), encoding="utf-8")
        for tool, found in run(folder).items():
            for which in ("snippets", "articles"):
                figures |= describe(f"{which}: {tool}", which, wanted[which], found[which])
                figures |= lost(f"{which}: {tool}", which, wanted[which], found[which]["texts"])
                sizes = [len("".join(text.split())) for text in found[which]["texts"]]
                figures[f"{which}: {tool}: share of what is shown"] = sum(sizes) / sum(shown[which])
            figures |= kept_marks(f"marks: {tool}", wanted["marks"], found["marks"]["texts"])
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


def marked(of_snippets: list[Any], of_articles: list[Any]) -> list[tuple[str, Any]]:
    """Return pages with their exponents, quotations and blank lines of code, as patterns by kind:
    of `of_articles` those into which such markup could be planted, of `of_snippets` those that
    have it.
    """
    planted = (plant(page, article) for page, article in of_articles)
    pages = [page for page, _ in of_snippets] + [page for page in planted if page]
    return [(page, found) for page in pages if any((found := patterns(page)).values())]


def plant(page: str, article: str) -> str:
    """Return the page with markup in the first paragraph that is of the article; "" if none is."""
    body = " ".join(re.findall(r"\w+", article))
    for match in PARAGRAPH.finditer(page):
        words = re.findall(r"\w+", html.unescape(match[2]))[:FIRST_WORDS]
        if len(words) == FIRST_WORDS and " ".join(words) in body:
            planted = f"{match[1]}{match[2]}{SENTENCE}{match[3]}{CODE}"
            return page[: match.start()] + planted + page[match.end() :]
    return ""


def patterns(page: str) -> dict[str, list[str]]:
    """Return what a text must match to have kept the marks of a page, its white space folded except
    for that of code; and what it matches where an exponent has become part of its base.
    """
    exponents = [(re.escape(base), digits) for base, digits in EXPONENT.findall(page)]
    quotations = [html.unescape(TAG.sub("", text)).split() for text in QUOTATION.findall(page)]
    blocks = [html.unescape(TAG.sub("", text)) for text in PREFORMATTED.findall(page)]
    return {
        "exponents kept": [
            rf"(?<!\w){base}(?:[^\w\s]{{1,3}}{re.escape(digits)}|\s{re.escape(digits)}"
            rf"|{digits.translate(SUPERSCRIPTS)})(?!\d)"
            for base, digits in exponents
        ],
        "exponents joined to their base": [
            rf"(?<!\w){base}{re.escape(digits)}(?!\d)" for base, digits in exponents
        ],
        "quotations kept": [
            rf"{MARKS}\s?{re.escape(' '.join(words))}\s?{MARKS}" for words in quotations if words
        ],
        "blank lines of code kept": [
            rf"{re.escape(above.strip())}[ \t]*\n[ \t]*\n\s*{re.escape(below.strip())}"
            for block in blocks
            for above, below in BLANK_LINE.findall(block)
        ],
    }


def visible_size(page: str) -> int:
    """Return how many characters the body of a page shows, without white space."""
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True)
    tree: Any = etree.fromstring(page.encode("utf-8", "replace"), parser)
    for element in tree.xpath(NOT_SHOWN):
        # Pages that hide their body show it by a script.
        if element.tag != "body":
            # The text behind the element is not part of it.
            element.text, element[:] = None, []
    body = tree.find("body")
    return len("".join("".join((tree if body is None else body).itertext("*")).split()))


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


def lost(
    label: str, which: str, rows: Sequence[tuple[str, Any]], texts: Sequence[str]
) -> dict[str, object]:
    """Return how much of the marked text of each page is not given, for all pages of the set."""
    share_lost = snippets_lost if which == "snippets" else article_lost
    shares = [share_lost(text, wanted) for (_, wanted), text in zip(rows, texts, strict=True)]
    return {
        f"{label}: marked text lost, mean page": fmean(shares),
        f"{label}: marked text lost, median page": median(shares),
        f"{label}: pages that lose over 20 % of it": sum(share > MOST_LOST for share in shares),
    }


def snippets_lost(text: str, wanted: tuple[list[str], list[str]]) -> float:
    plain = " ".join(text.split())
    return fmean(" ".join(snippet.split()) not in plain for snippet in wanted[0])


def article_lost(text: str, body: str) -> float:
    right = shingles(body)
    return 1 - (shingles(text) & right).total() / right.total()


def kept_marks(
    label: str, rows: Sequence[tuple[str, dict[str, list[str]]]], texts: Sequence[str]
) -> dict[str, object]:
    """Return the share of the marks of each kind that is in the texts."""
    hits: Counter[str] = Counter()
    listed: Counter[str] = Counter()
    for (_, wanted), text in zip(rows, texts, strict=True):
        folded = " ".join(text.split())
        for kind, found in wanted.items():
            where = text if "code" in kind else folded
            hits[kind] += sum(re.search(pattern, where) is not None for pattern in found)
            listed[kind] += len(found)
    return {f"{label}: {kind}": hits[kind] / size for kind, size in listed.items() if size}


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
