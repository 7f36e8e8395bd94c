"""Wikitext to text by one tool, in a process of its own. Reads FOLDER/pages.json; writes
FOLDER/TOOL.json: seconds and texts.

    python wikitext_peers.py TOOL FOLDER

Nothing but the standard library and the tool is imported, so that it runs in the virtual
environment of the peers, which
PEERS_PYTHON names: `pip install mwparserfromhell==0.7.2 wikitextparser==3.0.0
wikiextractor==3.1.0`. None of them is a dependency. Each is used as its manual shows; wikiextractor
without templates, as no tool here is given their definitions. Ours is told the language of the
wiki, as its reader of dumps is.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of a title, wikitext and a language.
Clean = Callable[[str, str, str], str]


def ours() -> Clean:
    to_text = importlib.import_module("groundup.collect.readers.wiki.wikitext").to_text
    return lambda title, text, code: str(to_text(text, (), code))


def mwparserfromhell() -> Clean:
    parse = importlib.import_module("mwparserfromhell").parse
    return lambda title, text, code: str(parse(text).strip_code())


def wikitextparser() -> Clean:
    parse = importlib.import_module("wikitextparser").parse
    return lambda title, text, code: str(parse(text).plain_text())


def wikiextractor() -> Clean:
    extractor = importlib.import_module("wikiextractor.extract").Extractor

    def clean(title: str, text: str, code: str) -> str:
        page = extractor("1", "1", "", title, [])
        return "\n".join(page.clean_text(text, expand_templates=False, html_safe=False))

    return clean


TOOLS: dict[str, Callable[[], Clean]] = {
    "ours": ours,
    "mwparserfromhell": mwparserfromhell,
    "wikitextparser": wikitextparser,
    "wikiextractor": wikiextractor,
}


def main(tool: str, folder: Path) -> None:
    pages: list[Any] = json.loads((folder / "pages.json").read_text(encoding="utf-8"))
    clean = TOOLS[tool]()
    clean(*pages[0])
    start = time.process_time()
    texts = [clean(*page) for page in pages]
    seconds = time.process_time() - start
    (folder / f"{tool}.json").write_text(
        json.dumps({"seconds": seconds, "texts": texts}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
