"""Takes the main text out of an HTML page, without menus, comments and adverts. Reads HTML as text;
returns plain text.

Two extractors share the work. Resiliparse (Bevendorff et al. 2018) is fast and finds nearly all of
an article, with scraps of the page around it; trafilatura (Barbaresi 2021) is exact and ten times
slower. So the first is asked, the scraps are trimmed off its text, and where what is left does not
read like prose, the second is asked (`python -m benchmarks maintext`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# A line of as many bytes with the end of a sentence in it is prose; in bytes a sentence is about as
# long in any script.
PROSE_BYTES = 120
MIN_PROSE = 500
PROSE_SHARE = 0.85
# Parsers compare each attribute of a tag with all before it: 130,000 take 33 s. The rest is cut; a
# short page cannot have so many.
MAX_ATTRIBUTES = 1_000
_SHORT = 200_000
# Memory and seconds go by tags: as many take trafilatura 0.7 GB and up to 20 s, a third of the
# deadline.
MAX_TAGS = 300_000
# Resiliparse takes time by the square of the depth, 10 s for as many tags; trafilatura's parser
# stops at a depth.
_FAST_TAGS = 20_000
# It takes a list that stands less than three elements deep for a menu, and most of those of a page
# with few <div> stand there.
_FAST_DIVISIONS = 10

_SENTENCE = re.compile(r"[.!?…。！？।۔؟။]")
# Attributes as the tokenizer of the HTML standard (13.2.5.32 to 39) takes them apart; possessive,
# so that it never goes back.
_ATTRIBUTE = r"[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+)?+"
_FLOOD = re.compile(
    rf"(<[a-zA-Z][^\s/>]*+(?:{_ATTRIBUTE}){{0,{MAX_ATTRIBUTES}}}+)(?:{_ATTRIBUTE})*+"
)
# A line too long to be wrapped, the end of a sentence or of a table: a paragraph ends, unless a
# list or a table goes on below, or code, whose lines are indented.
_PARAGRAPH_END = re.compile(
    r"(?:(?<=[.!?…。！？।۔؟။”»」)])|(?<=\| )|(?<=[^\n]{120}))\n(?!\n|- |\||[ \t])"
)

# What stands behind a colon: lines up to a blank one, and beyond it what is indented, as lists are,
# and code.
_ANNOUNCED = re.compile(r"\s*\S[^\n]*(?:\n[^\n]*\S[^\n]*|\n\n {2,}\S[^\n]*)*")


def main_text(page: str) -> str:
    """Return the main text of a page, a blank line between paragraphs; "" where there is none.

    Time and memory go by the number of its tags: callers refuse a page with more than MAX_TAGS.
    """
    # In a script this may cut what only looks like a tag, and nobody reads that.
    page = _FLOOD.sub(r"\1", page) if len(page) > _SHORT else page
    return _fast(page) or _careful(page)


def _fast(page: str) -> str:
    """Return what resiliparse finds, from the first line of prose to the last; "" where that is
    little, or mostly something else.
    """
    from resiliparse.extract.html2text import extract_plain_text

    if page.count("<") > _FAST_TAGS or page.count("<div") < _FAST_DIVISIONS:
        return ""
    try:
        lines = extract_plain_text(
            page, main_content=True, alt_texts=False, comments=False, post_meta=False
        ).split("\n")
    except BaseException as error:
        # A panic of a library in Rust is no Exception to Python.
        if type(error).__name__ != "PanicException":
            raise
        return ""
    prose = [number for number, line in enumerate(lines) if _is_prose(line)]
    if not prose:
        return ""
    kept = "\n".join(lines[prose[0] : prose[-1] + 1]).strip()
    size = sum(len(lines[number].encode()) for number in prose)
    # Manuals of code are more code than prose; trafilatura runs the lines of code inside
    # definitions together.
    share = 0 if "<pre" in page and "<dd" in page else PROSE_SHARE
    return (
        kept + _announced(kept, lines[prose[-1] + 1 :])
        if size >= max(MIN_PROSE, share * len(kept.encode()))
        else ""
    )


def _announced(kept: str, rest: Sequence[str]) -> str:
    """Return the list, code or line that the last line of prose announces by a colon, and which is
    no prose itself; else "".
    """
    found = _ANNOUNCED.match("\n".join(["", *rest])) if kept.endswith((":", "：")) else None
    return found[0].rstrip() if found else ""


def _is_prose(line: str) -> bool:
    return (
        4 * len(line) >= PROSE_BYTES
        and len(line.strip().encode()) >= PROSE_BYTES
        and _SENTENCE.search(line) is not None
    )


def _careful(page: str) -> str:
    """Return what trafilatura finds, without its comparison with other extractors, and lists kept
    where they stand alone.
    """
    import trafilatura

    # A saved fragment is refused as no HTML, unless it has a body around it.
    page = (
        page
        if "<body" in page or "<BODY" in page
        else f"<html><body><div>{page}</div></body></html>"
    )
    found: Any = trafilatura.extract(page, fast=True, favor_recall=True, include_comments=False)
    return _PARAGRAPH_END.sub("\n\n", str(found or "").strip())
