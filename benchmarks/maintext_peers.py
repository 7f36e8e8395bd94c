"""Main text by one tool, in a process of its own. Reads FOLDER/pages.json (sets of pages as text);
writes FOLDER/TOOL.json.

    python maintext_peers.py TOOL FOLDER

Nothing but the tool is imported, so that it runs in the virtual environment of the peers too. Each
is used as its README shows, on text that is decoded already, without comments where it knows them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = {
    "trafilatura": "trafilatura==2.3.1",
    "readability": "readability-lxml==0.9",
    "newspaper": "newspaper4k==0.9.6",
    "boilerpy3": "boilerpy3==1.0.7",
    "justext": "justext==3.0.2",
}
Extract = Callable[[str], str | None]


def ours() -> Extract:
    """As the reader of web pages does it, with its bounds."""
    from groundup.collect.readers.web.html import page_document

    def extract(page: str) -> str:
        return str(getattr(page_document(page, 0, ""), "text", ""))

    return extract


def trafilatura(**options: bool) -> Callable[[], Extract]:
    def make() -> Extract:
        import trafilatura

        return lambda page: trafilatura.extract(page, include_comments=False, **options)

    return make


def resiliparse(**options: bool) -> Callable[[], Extract]:
    def make() -> Extract:
        from resiliparse.extract.html2text import extract_plain_text

        return lambda page: extract_plain_text(page, main_content=True, **options)

    return make


def readability() -> Extract:
    """Arc90's, as readability-lxml has it; the text of the HTML that it gives back, a line an
    element.
    """
    from lxml import html
    from readability import Document

    return lambda page: "\n".join(html.fromstring(Document(page).summary()).itertext())


def newspaper() -> Extract:
    import newspaper

    return lambda page: newspaper.fulltext(page)


def boilerpy3() -> Extract:
    from boilerpy3 import extractors

    article = extractors.ArticleExtractor(raise_on_failure=False)
    return lambda page: article.get_content(page)


def justext() -> Extract:
    """With the stop words of the language that the page declares, else of English."""
    import justext

    lists = {
        word[:2].lower(): word
        for word in (
            "German",
            "French",
            "Polish",
            "Italian",
            "Spanish",
            "Portuguese",
            "Danish",
            "Dutch",
        )
    }
    codes = {"de": "ge", "es": "sp", "da": "da", "nl": "du"}

    def extract(page: str) -> str:
        code = (
            re.findall(r"<html[^>]{0,500}?\blang=[\"']?(\w\w)", page[:5000], re.IGNORECASE)
            or ["en"]
        )[0].lower()
        words = justext.get_stoplist(lists.get(codes.get(code, code), "English"))
        return "\n".join(
            part.text for part in justext.justext(page, words) if not part.is_boilerplate
        )

    return extract


# Those whose package is none of ours have its name here, and run in the environment of the peers.
TOOLS: dict[str, tuple[str, Callable[[], Extract]]] = {
    "ours": ("", ours),
    "trafilatura": ("trafilatura", trafilatura()),
    "trafilatura, fast": ("trafilatura", trafilatura(fast=True)),
    "trafilatura, fast, precision": (
        "trafilatura",
        trafilatura(fast=True, favor_precision=True),
    ),
    "resiliparse": ("", resiliparse()),
    "resiliparse, no comments, meta, alt texts": (
        "",
        resiliparse(comments=False, post_meta=False, alt_texts=False),
    ),
    "readability-lxml": ("readability", readability),
    "newspaper4k": ("newspaper", newspaper),
    "boilerpy3": ("boilerpy3", boilerpy3),
    "jusText": ("justext", justext),
}


def attempt(extract: Extract, page: str) -> str:
    """Return what a tool finds; "" where it fails."""
    try:
        return extract(page) or ""
    except Exception:
        return ""


def main(name: str, folder: Path) -> None:
    """Run one tool over each set twice; the better time counts."""
    logging.disable(logging.CRITICAL)
    sets: dict[str, list[str]] = json.loads((folder / "pages.json").read_text(encoding="utf-8"))
    extract = TOOLS[name][1]()
    attempt(extract, "<html><body><p>A first call, so that no import is counted.</p></body></html>")
    found: dict[str, Any] = {}
    for which, pages in sets.items():
        spent = []
        for _ in range(2):
            start = time.process_time()
            texts = [attempt(extract, page) for page in pages]
            spent.append(time.process_time() - start)
        found[which] = {"texts": texts, "seconds": min(spent)}
    (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
