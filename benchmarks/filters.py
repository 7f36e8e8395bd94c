"""Published filters on real English prose, ours beside datatrove's: who keeps what, why they
differ, what people say, and speed. Articles of Wikipedia in many languages: what is lost of them.

Documents are cleaned first, so that both see the same lines. All are judged as web pages. "With our
words" is datatrove's filter again, given our words in place of spaCy's, and without n-grams that
occur once as the most frequent ones: what is left of the difference then is the rules themselves.

Articles are those of the dumps of Wikipedia, of 500 characters or more when they are cleaned. They
go through the filters that a recipe has by default for kind wikipedia, in the language that is
detected, as `refine` does it. datatrove's gopher_quality has the stop words of English unless it is
given others, so it stands here as it is and without its rule of stop words too. Nobody judged the
articles; they count as good, and up to 2 % dropped as right. Languages that are not named lose
none.
"""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import dedup_peers, filter_peers
from benchmarks.corpora import articles, collected, pieces, texts
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, result, seconds
from benchmarks.wikitext import code_of
from groundup.artifacts.arrays import Array
from groundup.artifacts.document import DOCUMENT
from groundup.recipe import Refine
from groundup.refine.clean.pipeline import clean_texts
from groundup.refine.filter import language
from groundup.refine.filter.apply import (
    NO_THRESHOLDS,
    Thresholds,
    applicable_filters,
    apply_filters,
)
from groundup.refine.filter.rules import prose_lines

# Name, kind and path.
CORPORA = (
    ("books", "books", "books"),
    ("wikipedia", "wikipedia", "wikipedia/plain"),
    ("web", "web", "web/jsonl"),
    ("saved pages", "web", "web/html"),
)
LABELLED = "web/quality/agreement_data.jsonl"
# Documents of a corpus at most; characters of a page, into which longer texts are cut.
SAMPLE, PAGE = 400, (1_200, 12_000)
SETS = {
    "gopher_quality": ("gopher_quality",),
    "gopher_repetition": ("gopher_repetition",),
    "c4": ("c4_lines", "c4"),
    "fineweb": ("fineweb",),
}
# What a recipe could ask of gopher_quality in place of 50 words and 0.8 of them with a letter.
STRICTER = (
    ("few_words", 100),
    ("few_words", 150),
    ("few_words", 200),
    ("words_without_letters", 0.9),
    ("words_without_letters", 0.94),
)
ALL = tuple(name for names in SETS.values() for name in names)
# Dumps of encyclopedias, and the characters of an article that is no stub.
DUMPS = ("wikipedia/minidumps/*/*", "wikipedia/*wiki-*[2l]")
ARTICLE = 500
ALLOWED = 0.02


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    corpora = dict(prose(data))
    labeled = [
        json.loads(line) for line in (data / LABELLED).read_text(encoding="utf-8").splitlines()
    ]
    corpora["labeled"] = cleaned([row["text"] for row in labeled]).to_pylist()
    documents = [text for found in corpora.values() for text in found]
    theirs = asked(documents)
    ours = {name: verdict(documents, names) for name, names in SETS.items()}
    kept = {f"our {name}": reasons == "" for name, reasons in ours.items()}
    kept["our four together"] = np.logical_and.reduce(list(kept.values()))
    for reason, bound in STRICTER:
        found = verdict(documents, ["gopher_quality"], {"gopher_quality": {reason: bound}})
        kept[f"our gopher_quality, {reason} = {bound}"] = found == ""
    kept |= {
        f"datatrove's {name}": np.array(theirs[name]["reasons"], object) == ""
        for name in ours
        if theirs
    }
    figures: dict[str, object] = {"MB of text": megabytes(documents)}
    figures |= {f"documents, {name}": len(found) for name, found in corpora.items()}
    where = np.repeat(list(corpora), [len(found) for found in corpora.values()])
    for name, reasons in ours.items() if theirs else ():
        figures |= agreement(name, reasons, theirs, where)
    figures |= dict(
        human(
            {name: keep[where == "labeled"] for name, keep in kept.items()},
            np.array([row["label"] == 1 for row in labeled]),
        )
    )
    figures |= {
        f"pages of books kept, {name}": float(keep[where == "books"].mean())
        for name, keep in kept.items()
    }
    figures |= dict(speeds(documents, theirs))
    figures |= dict(dropped_articles(cleaned_articles(data)))
    return result(__doc__, figures)


def prose(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield English texts by corpus: web pages as the collector reads them, the others cut into
    pages.
    """
    rng = random.Random(1)
    for name, kind, path in CORPORA:
        with tempfile.TemporaryDirectory() as folder:
            found = list(
                texts(collected(data, Path(folder), [{"name": "one", "kind": kind, "path": path}]))
            )
        if kind != "web":
            found = [piece for text in found for piece in pieces(text, rng, *PAGE)]
        clean = cleaned(found)
        english = [
            text
            for text, code in zip(
                clean.to_pylist(), language.detect(clean).code.to_pylist(), strict=True
            )
            if code == "en"
        ]
        yield name, rng.sample(english, min(SAMPLE, len(english)))


def cleaned(of: Sequence[str]) -> pa.StringArray:
    return clean_texts(pa.array(of, pa.string()), np.zeros(len(of), np.bool_)).texts


def asked(documents: Sequence[str], names: Sequence[str] = tuple(SETS)) -> dict[str, Any]:
    """Return the verdicts of datatrove's filters; empty where it cannot be had."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = dedup_peers.interpreter(folder / "venv", ("datatrove", "spacy"))
        if python is None:
            print("filters: datatrove cannot be installed, so ours is measured alone")
            return {}
        lines = "".join(json.dumps(text) + "\n" for text in documents)
        (folder / "documents.jsonl").write_text(lines, encoding="utf-8")
        subprocess.run([python, "-P", filter_peers.__file__, str(folder), *names], check=True)
        found: dict[str, Any] = json.loads((folder / "verdicts.json").read_text())
        return found


def verdict(
    documents: Sequence[str],
    names: Sequence[str],
    thresholds: Thresholds = NO_THRESHOLDS,
    languages: Sequence[str] = (),
    kind: str = "web",
) -> Array:
    """Return the reason for which each document is dropped, "" where it is kept: as refine/shard
    does it. The documents are English by default.
    """
    column = pa.array(documents, pa.string())
    column = prose_lines(column) if "c4_lines" in names else column
    columns = {"text": column, "language": pa.array(languages or ["en"] * len(column))}
    empty = (columns.get(part.name, pa.nulls(len(column), part.type)) for part in DOCUMENT)
    return apply_filters(
        pa.RecordBatch.from_arrays(list(empty), schema=DOCUMENT), kind, names, Path(), thresholds
    ).reason


def cleaned_articles(data: Path) -> dict[str, list[str]]:
    """Return the cleaned texts of articles by the language of their dump."""
    found = defaultdict[str, list[str]](list)
    dumps = sorted(path for pattern in DUMPS for path in data.glob(pattern))
    for path, read in articles(data, dumps):
        found[code_of(path)] += [t for t in cleaned(read).to_pylist() if len(t) >= ARTICLE]
    return {code: part for code, part in sorted(found.items()) if part}


def dropped_articles(articles: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, object]]:
    """Yield the share of articles that each drops, in all and in the languages that lose most."""
    every = [text for part in articles.values() for text in part]
    codes = np.repeat(list(articles), [len(part) for part in articles.values()])
    names = applicable_filters(Refine().filters, "wikipedia")
    detected = language.detect(pa.array(every, pa.string())).code.to_pylist()
    reasons = {"our default filters": verdict(every, names, languages=detected, kind="wikipedia")}
    theirs = asked(every, filter_peers.ARTICLES)
    reasons |= {
        f"datatrove's {name}": np.array(theirs[name]["reasons"], object)
        for name in filter_peers.ARTICLES
        if theirs
    }
    yield "Wikipedia articles", len(every)
    yield "Wikipedia articles: languages", len(articles)
    for name, found in reasons.items():
        over = [code for code in articles if (found != "")[codes == code].mean() > ALLOWED]
        yield f"Wikipedia articles: dropped, {name}", float((found != "").mean())
        yield f"Wikipedia articles: languages with more than 2 % dropped, {name}", len(over)
        for reason, n in Counter(found[found != ""].tolist()).most_common():
            yield f"Wikipedia articles: dropped by {reason}, {name}", n
    ours = reasons["our default filters"]
    for code in articles:
        here = codes == code
        if (ours[here] == "").all():
            continue
        yield f"Wikipedia articles: {code}: articles", int(here.sum())
        for name, found in reasons.items():
            yield f"Wikipedia articles: {code}: dropped, {name}", float((found[here] != "").mean())
        for reason, n in Counter(ours[here & (ours != "")].tolist()).most_common():
            yield f"Wikipedia articles: {code}: dropped by {reason}, our default filters", n


def agreement(name: str, ours: Array, theirs: dict[str, Any], where: Array) -> dict[str, object]:
    """Return in how many documents the verdicts agree, by corpus, and which rules drop what the
    other side keeps.
    """
    figures: dict[str, object] = {}
    for words in ("", filter_peers.SAME) if name + filter_peers.SAME in theirs else ("",):
        reasons = np.array(theirs[name + words]["reasons"], object)
        same = (ours == "") == (reasons == "")
        given = " with our words" if words else ""
        figures |= {
            f"{name}: agreement{given}, {corpus}": float(same[where == corpus].mean())
            for corpus in dict.fromkeys(where.tolist())
        }
        figures[f"{name}: agreement{given}, all"] = float(same.mean())
        for side, reason in (("datatrove", reasons), ("we", ours)):
            for rule, count in Counter(reason[~same & (reason != "")].tolist()).most_common():
                figures[
                    f"{name}: only {side} drop{'s' if side == 'datatrove' else ''}{given}, {rule}"
                ] = count
    return figures


def human(kept: dict[str, Array], good: Array) -> Iterator[tuple[str, object]]:
    """Yield how well keeping goes with what people called good; keeping everything has the base
    rate as its accuracy.
    """
    yield "people: share called good", float(good.mean())
    for name, keep in kept.items():
        yield f"people: accuracy, {name}", float((keep == good).mean())
        yield f"people: precision, {name}", float(good[keep].mean())
        yield f"people: recall, {name}", float(keep[good].mean())


def speeds(documents: Sequence[str], theirs: dict[str, Any]) -> Iterator[tuple[str, object]]:
    size = megabytes(list(documents))
    for name, names in SETS.items():
        yield (
            f"MB a processor second, our {name}",
            size / seconds(lambda names=names: verdict(documents, names)),
        )  # type: ignore[misc]
        if theirs:
            yield f"MB a processor second, datatrove's {name}", size / theirs[name]["seconds"]
    yield (
        "MB a processor second, our four together",
        size / seconds(lambda: verdict(documents, ALL)),
    )
