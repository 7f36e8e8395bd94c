"""Wikitext to text: ours beside mwparserfromhell, wikitextparser and wikiextractor's cleaner, on
all real pages of articles.

Pages a second and MB/s of wikitext; what of the markup is left in a megabyte of output, class by
class, with the same patterns for all; and how many of a reference's words each keeps. The reference
is what two of the three peers agree on in lines of prose, of
pages without their notes: so nothing is gained by throwing text away.

"holes" are sentences that lost words or figures with a template (`benchmarks.wikitext_holes` says
how they are seen), in a thousand of the sentences that a tool gives, over the Wikipedias of all
languages and the single pages.
"""

from __future__ import annotations

import bz2
import html
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import wikitext_holes, wikitext_peers
from benchmarks.machine import test_data
from benchmarks.peers import result

# Counted in the output of every tool: each match is one piece of markup that a reader should not
# see.
LEFT = {
    "{{ }}": r"\{\{|\}\}",
    "[[ ]]": r"\[\[|\]\]",
    "{| |} |-": r"\{\||\|\}|^\s*\|-",
    "| ! cells": r"^\s*[|!]|\|\|",
    "'' '''": r"''+",
    "== ==": r"^==+|==+\s*$",
    "* # : ; at a line's start": r"^[*#:;]+",
    "<tag>": (
        r"</?(?:ref|references|[bh]r|div|span|small|big|su[bp]|table|t[rdh]|center|font|nowiki|gallery|blockquote|code|p|li|ul)\b"
        r"[^<>\n]*>"
    ),
    "&entity;": r"&(?:nbsp|ndash|mdash|amp|lt|gt|quot|minus|times|thinsp|#\d+|#x[0-9a-fA-F]+);",
    "style= class= colspan=": r"\b(?:style|class|align|valign|colspan|rowspan|width|bgcolor)\s*=",
    "http://": r"(?:https?|ftp)://|\[//",
    "__TOC__": r"__[A-Z]{3,}__",
    "File: Category:": (
        r"\b(?i:file|image|category|datei|kategorie|fichier|catégorie|archivo|categoría|файл|категория)\s*:\S|\bthumb\|"
    ),
    "-{ }-": r"-\{|\}-",
    "( ; ) left by a template": r"[(（]\s*[,;:、，；]|[(（]\s*[)）]|,\s+,|\s,\s",
}
PATTERNS = {name: re.compile(pattern, re.MULTILINE) for name, pattern in LEFT.items()}
ENGLISH = re.compile(
    r"(?i:file|image|category|datei|kategorie|fichier|catégorie|archivo|categoría|файл|категория)$"
)
ALONE = re.compile(r"^\[\[([^\[\]|:\n]{2,40}):[^\s\[\]|][^\[\]\n]*\]\][ \t]*$", re.MULTILINE)
# Words; letters of scripts that put no spaces between words.
WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{2,}")
# Notes stand below a page, not in its sentences, but some tools leave them there: the reference is
# made without them.
REFERENCE = re.compile(r"<ref[^<>]*/>|<ref\b[^<>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
# A line that is prose: so long, and ending as sentences do.
PROSE = re.compile(r"^[^|\n]{80,}[.!?。։।؟\")”»]+\s*$", re.MULTILINE)


# Title, wikitext and language of each page.
Pages = Sequence[tuple[str, str, str]]
Run = tuple[float, list[str]]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    sets = pages(data)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: {tool: cleaned(tool, Path(folder), found) for tool in wikitext_peers.TOOLS}
            for name, found in sets.items()
        }
        bare = {
            name: [(title, REFERENCE.sub("", text), code) for title, text, code in found]
            for name, found in sets.items()
        }
        peers = [tool for tool in wikitext_peers.TOOLS if tool != "ours"]
        wanted = {
            name: reference([cleaned(tool, Path(folder), bare[name]) for tool in peers])
            for name in sets
        }
    figures: dict[str, object] = {}
    for name, found in sets.items():
        figures |= compared(name, found, runs[name], wanted[name])
    every = {tool: together([runs[name][tool] for name in sets]) for tool in wikitext_peers.TOOLS}
    return result(
        __doc__,
        figures
        | compared("all", list(chain(*sets.values())), every, list(chain(*wanted.values())))
        | holes(sets, runs),
    )


def holes(
    sets: Mapping[str, Pages], runs: Mapping[str, Mapping[str, Run | None]]
) -> dict[str, object]:
    """Return the figures of holes: of encyclopedias, since a dictionary has few sentences."""
    names = [name for name in sets if name != "enwiktionary"]
    pages = list(chain(*(sets[name] for name in names)))
    texts = {
        tool: run[1]
        for tool in wikitext_peers.TOOLS
        if (run := together([runs[name][tool] for name in names])) is not None
    }
    return dict(wikitext_holes.figures(pages, texts))


def pages(data: Path) -> dict[str, Pages]:
    """Return the articles of all dumps, and single pages, by what they are."""
    wiki = data / "wikipedia"
    sets = {
        "enwiki": wiki.glob("enwiki-*.bz2"),
        "enwiktionary": wiki.glob("enwiktionary-*.bz2"),
        "small wikis": (
            path for prefix in ("ltg", "aa", "bg") for path in wiki.glob(f"{prefix}wiki-*[2l]")
        ),
        "76 languages": wiki.glob("minidumps/*/*.bz2"),
    }
    found = {
        name: [(*page, code_of(path)) for path in sorted(paths) for page in articles(path)]
        for name, paths in sets.items()
    }
    texts = {
        path.stem: path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(wiki.glob("wikitext-pages/*.txt"))
    }
    return found | {
        "single pages": [
            (title, html.unescape(text) if "&lt;ref" in text else text, "")
            for title, text in texts.items()
        ]
    }


def code_of(dump: Path) -> str:
    """Return the language of a dump: from its name, or from that of its folder."""
    match = re.match(r"([a-z_]{2,12}?)wik(?:i|tionary)-", dump.name)
    return match[1] if match else dump.parent.name


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the articles of a dump that are no redirects."""
    data = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    data = data.decode("utf-16").encode() if data.startswith((b"\xff\xfe", b"\xfe\xff")) else data
    for match in re.finditer(rb"<page>.*?</page>", data, re.DOTALL):
        page = ElementTree.fromstring(match[0])
        text = page.findtext("revision/text")
        if (page.findtext("ns") or "0") == "0" and page.find("redirect") is None and text:
            yield page.findtext("title") or "", text


def cleaned(tool: str, folder: Path, found: Pages) -> Run | None:
    """Return the processor seconds and the texts of one tool; None when it is not installed."""
    (folder / "pages.json").write_text(json.dumps(found), encoding="utf-8")
    python = sys.executable if tool == "ours" else os.environ.get("PEERS_PYTHON", sys.executable)
    done = subprocess.run(
        [python, wikitext_peers.__file__, tool, str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(f"{tool}: no figures: {done.stderr.strip().splitlines()[-1:]}")
        return None
    read = json.loads((folder / f"{tool}.json").read_text(encoding="utf-8"))
    return read["seconds"], read["texts"]


def together(runs: Sequence[Run | None]) -> Run | None:
    there = [run for run in runs if run is not None]
    return (
        (sum(seconds for seconds, _ in there), [text for _, texts in there for text in texts])
        if len(there) == len(runs)
        else None
    )


def compared(
    name: str, found: Pages, runs: Mapping[str, Run | None], wanted: Sequence[Counter[str]]
) -> dict[str, object]:
    size = sum(len(text.encode()) for _, text, _ in found) / 1e6
    figures: dict[str, object] = {f"{name}: pages": len(found), f"{name}: MB": size}
    for tool, run in runs.items():
        if run is None:
            continue
        seconds, texts = run
        out = sum(len(text.encode()) for text in texts) / 1e6
        left = {
            kind: sum(len(pattern.findall(text)) for text in texts) / out
            for kind, pattern in PATTERNS.items()
        }
        left["Category: in other languages"] = (
            sum(map(unlinked, (page for _, page, _ in found), texts)) / out
        )
        figures[f"{name}: pages a second, {tool}"] = round(len(found) / seconds)
        figures[f"{name}: MB/s, {tool}"] = size / seconds
        figures[f"{name}: MB of text, {tool}"] = out
        figures[f"{name}: left a MB, {tool}"] = sum(left.values())
        if name == "all":
            figures |= {
                f"{name}: left a MB, {tool}, {kind}": number for kind, number in left.items()
            }
        if wanted:
            figures[f"{name}: words of the reference kept, {tool}"] = recall(texts, wanted)
    return figures


def unlinked(page: str, text: str) -> int:
    """Count lines that are left of links into a namespace, by the names that such links alone on
    their line have in the page.
    """
    names = {name for name in ALONE.findall(page) if not ENGLISH.match(name)}
    return (
        len(re.findall(rf"^(?:{'|'.join(map(re.escape, names))}):\S", text, re.MULTILINE))
        if names
        else 0
    )


def reference(runs: Sequence[Run | None]) -> list[Counter[str]]:
    """Return for each page how often most of the tools have a word in lines of prose; nothing
    unless all three are there.
    """
    outputs = [run[1] for run in runs if run is not None]
    if len(outputs) != 3:
        return []
    counted = (
        [Counter(WORD.findall(" ".join(PROSE.findall(text)))) for text in texts]
        for texts in zip(*outputs, strict=True)
    )
    return [
        Counter({word: sorted(each[word] for each in page)[1] for word in set().union(*page)})
        for page in counted
    ]


def recall(texts: Sequence[str], wanted: Sequence[Counter[str]]) -> float:
    kept = sum(
        (Counter(WORD.findall(text)) & page).total()
        for text, page in zip(texts, wanted, strict=True)
    )
    return kept / max(1, sum(page.total() for page in wanted))
