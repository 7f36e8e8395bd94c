"""Takes the main text out of an HTML page, without menus, comments and adverts. Reads HTML as text; returns plain text.

Two extractors share the work. Resiliparse (Bevendorff et al. 2018) is fast and finds nearly all of an article, with scraps of the page
around it; trafilatura (Barbaresi 2021) is exact and ten times slower. So the first is asked, the scraps are trimmed off its text, and
where what is left does not read like prose, the second is asked (`python -m benchmarks maintext`).
"""

from __future__ import annotations

import re
from typing import Any

# Bytes rather than characters: a sentence takes about as many in any script.
PROSE_BYTES = 120
MIN_PROSE = 500
PROSE_SHARE = 0.85
# Both parsers compare each attribute of a tag with all before it: 130,000 take 33 s. On a short page they cannot be so many.
MAX_ATTRIBUTES = 2_000
_SHORT = 200_000
# Ten times what the longest real page has; two million list items take trafilatura 50 s and 2.7 GB.
MAX_TAGS = 500_000
# What resiliparse does with deep nesting takes time by its square: beyond these, trafilatura's parser, which stops at a depth, is asked.
_FAST_CHARACTERS, _FAST_TAGS = 500_000, 20_000

_SENTENCE = re.compile(r"[.!?…。！？।۔؟။]")
# Attributes as the tokenizer of the HTML standard (13.2.5.32 to 39) takes them apart; possessive, so that it never goes back.
_TAG = re.compile(
    r"<[a-zA-Z][^\s/>]*+((?:[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?+)?+){%d})?+" % MAX_ATTRIBUTES
)
# A line that ends a sentence ends its paragraph, unless a list or a table goes on below.
_PARAGRAPH_END = re.compile(r"(?<=[.!?…。！？।۔؟။”»」)])\n(?!\n|[-|] )")


def excess(page: str) -> str:
    """Return what a page has too much of to be parsed in bounded time and memory; "" for any page that a person wrote."""
    if page.count("<") > MAX_TAGS:
        return f"it has more than {MAX_TAGS:,} tags"
    if len(page) > _SHORT and any(match[1] for match in _TAG.finditer(page)):
        return f"a tag has more than {MAX_ATTRIBUTES:,} attributes"
    return ""


def main_text(page: str) -> str:
    """Return the main text of a page, a blank line between paragraphs; "" where there is none."""
    return _fast(page) or _careful(page)


def _fast(page: str) -> str:
    """Return what resiliparse finds, from the first line of prose to the last; "" where that is little, or mostly something else."""
    from resiliparse.extract.html2text import extract_plain_text

    if len(page) > _FAST_CHARACTERS or page.count("<") > _FAST_TAGS:
        return ""
    try:
        lines = extract_plain_text(page, main_content=True, alt_texts=False, comments=False, post_meta=False).split("\n")
    except BaseException as error:
        # A panic of a library in Rust is no Exception to Python.
        if type(error).__name__ != "PanicException":
            raise
        return ""
    prose = [number for number, line in enumerate(lines) if _is_prose(line)]
    if not prose:
        return ""
    kept = lines[prose[0] : prose[-1] + 1]
    size = sum(len(lines[number].encode()) for number in prose)
    return "\n".join(kept) if size >= max(MIN_PROSE, PROSE_SHARE * sum(len(line.encode()) for line in kept)) else ""


def _is_prose(line: str) -> bool:
    return 4 * len(line) >= PROSE_BYTES and len(line.strip().encode()) >= PROSE_BYTES and _SENTENCE.search(line) is not None


def _careful(page: str) -> str:
    """Return what trafilatura finds in its fast mode: its comparison with other extractors takes half as long again for no better text."""
    import trafilatura

    # A saved fragment is refused as no HTML, unless it has a body around it.
    page = page if "<body" in page or "<BODY" in page else f"<html><body><div>{page}</div></body></html>"
    found: Any = trafilatura.extract(page, fast=True, include_comments=False)
    return _PARAGRAPH_END.sub("\n\n", str(found or "").strip())
