"""Wikitext to text: ours beside mwparserfromhell, wikitextparser and wikiextractor's cleaner, on all real pages of articles.

Pages a second and MB/s of wikitext; what of the markup is left in a megabyte of output, class by class, with the same patterns for
all, formulas and code of ours included; and how many of a reference's words each keeps. A reference is what two or more of the
three peers agree is in a paragraph: so a tool gains nothing by throwing text away, nor by keeping what only it takes for text.
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
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks import wikitext_peers
from benchmarks.machine import test_data
from benchmarks.peers import result

# Counted in the output of every tool: each match is one piece of markup that a reader should not see.
LEFT = {
    "{{ }}": r"\{\{|\}\}",
    "[[ ]]": r"\[\[|\]\]",
    "{| |} |-": r"\{\||\|\}|^\s*\|-",
    "| ! cells": r"^\s*[|!]|\|\|",
    "'' '''": r"''+",
    "== ==": r"^==+|==+\s*$",
    "* # : ; at a line's start": r"^[*#:;]+",
    "<tag>": r"</?(?:ref|references|[bh]r|div|span|small|big|su[bp]|table|t[rdh]|center|font|nowiki|gallery|blockquote|code|p|li|ul)\b"
    r"[^<>\n]*>",
    "&entity;": r"&(?:nbsp|ndash|mdash|amp|lt|gt|quot|minus|times|thinsp|#\d+|#x[0-9a-fA-F]+);",
    "style= class= colspan=": r"\b(?:style|class|align|valign|colspan|rowspan|width|bgcolor)\s*=",
    "http://": r"(?:https?|ftp)://|\[//",
    "__TOC__": r"__[A-Z]{3,}__",
    "File: Category:": r"\b(?i:file|image|category|datei|kategorie|fichier|catégorie|archivo|categoría|файл|категория)\s*:\S|\bthumb\|",
    "-{ }-": r"-\{|\}-",
    "( ; ) left by a template": r"[(（]\s*[,;:、，；]|[(（]\s*[)）]|,\s+,|\s,\s",
}
PATTERNS = {name: re.compile(pattern, re.MULTILINE) for name, pattern in LEFT.items()}
# Words; letters of scripts that put no spaces between words.
WORD = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]{2,}")
# A line that is prose: so long, and ending as sentences do.
PROSE = re.compile(r"^.{80,}[.!?。։।؟\")”»]+\s*$", re.MULTILINE)


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, found in pages(data).items():
            (Path(folder) / "pages.json").write_text(json.dumps(found), encoding="utf-8")
            runs = {tool: run for tool in wikitext_peers.TOOLS if (run := cleaned(tool, Path(folder))) is not None}
            size = sum(len(text.encode()) for _, text in found) / 1e6
            figures |= {f"{name}: pages": len(found), f"{name}: MB": size}
            figures |= compared(name, runs, len(found), size)
    return result(__doc__, figures)


def pages(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Return titles and wikitext of the articles of all dumps, and of single pages, by what they are."""
    wiki = data / "wikipedia"
    sets = {
        "enwiki": wiki.glob("enwiki-*.bz2"),
        "enwiktionary": wiki.glob("enwiktionary-*.bz2"),
        "small wikis": (path for prefix in ("ltg", "aa", "bg") for path in wiki.glob(f"{prefix}wiki-*[2l]")),
        "76 languages": wiki.glob("minidumps/*/*.bz2"),
    }
    found = {name: [page for path in sorted(paths) for page in articles(path)] for name, paths in sets.items()}
    texts = {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in sorted(wiki.glob("wikitext-pages/*.txt"))}
    return found | {"single pages": [(title, html.unescape(text) if "&lt;ref" in text else text) for title, text in texts.items()]}


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the articles of a dump that are no redirects."""
    data = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    data = data.decode("utf-16").encode() if data.startswith((b"\xff\xfe", b"\xfe\xff")) else data
    for match in re.finditer(rb"<page>.*?</page>", data, re.DOTALL):
        page = ElementTree.fromstring(match[0])
        text = page.findtext("revision/text")
        if (page.findtext("ns") or "0") == "0" and page.find("redirect") is None and text:
            yield page.findtext("title") or "", text


def cleaned(tool: str, folder: Path) -> dict[str, Any] | None:
    """Return the seconds and texts of one tool; None when it is not installed."""
    python = sys.executable if tool == "ours" else os.environ.get("PEERS_PYTHON", sys.executable)
    done = subprocess.run([python, wikitext_peers.__file__, tool, str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{tool}: no figures: {done.stderr.strip().splitlines()[-1:]}")
        return None
    read: dict[str, Any] = json.loads((folder / f"{tool}.json").read_text(encoding="utf-8"))
    return read


def compared(name: str, runs: Mapping[str, dict[str, Any]], count: int, size: float) -> dict[str, object]:
    figures: dict[str, object] = {}
    wanted = reference([run["texts"] for tool, run in runs.items() if tool != "ours"])
    for tool, run in runs.items():
        out = sum(len(text.encode()) for text in run["texts"]) / 1e6
        left = Counter({kind: sum(len(pattern.findall(text)) for text in run["texts"]) for kind, pattern in PATTERNS.items()})
        figures[f"{name}: pages a second, {tool}"] = round(count / run["seconds"])
        figures[f"{name}: MB/s, {tool}"] = size / run["seconds"]
        figures[f"{name}: MB of text, {tool}"] = out
        figures[f"{name}: left a MB, {tool}"] = sum(left.values()) / out
        figures |= {f"{name}: left a MB, {tool}, {kind}": number / out for kind, number in left.most_common(6) if number}
        if wanted:
            figures[f"{name}: words of the reference kept, {tool}"] = recall(run["texts"], wanted)
    return figures


def reference(outputs: Sequence[Sequence[str]]) -> list[Counter[str]]:
    """Return for each page how often most of the tools have a word in lines of prose; nothing unless there are three tools."""
    if len(outputs) != 3:
        return []
    counted = ([Counter(WORD.findall(" ".join(PROSE.findall(text)))) for text in texts] for texts in zip(*outputs, strict=True))
    return [Counter({word: sorted(each[word] for each in page)[1] for word in set().union(*page)}) for page in counted]


def recall(texts: Sequence[str], wanted: Sequence[Counter[str]]) -> float:
    kept = sum((Counter(WORD.findall(text)) & page).total() for text, page in zip(texts, wanted, strict=True))
    return kept / max(1, sum(page.total() for page in wanted))
