"""Looks at a file and says which kind of source it belongs to. Reads first bytes and first records; writes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.collect.archives import open_items
from groundup.collect.code import DATASET_KEYS
from groundup.collect.conversations import is_irc, is_row
from groundup.collect.formats import UNREADABLE, format_of, text_head, wikitext_share
from groundup.collect.globs import Selection
from groundup.collect.languages import DOCS, language_of
from groundup.collect.licenses import is_license_file
from groundup.collect.paragraphs import margin_of
from groundup.collect.records import FORMATS, read_records
from groundup.collect.streams import DamagedError, Item
from groundup.collect.text import TEXT_KEYS, first_text
from groundup.collect.turns import find_turns
from groundup.document import Reject

# Members of an archive that are looked at before it is judged.
MAX_MEMBERS = 300
_EVALUATION_KEYS = (
    {"query", "choices"},
    {"context", "continuation"},
    {"ctx", "endings"},
    {"question", "choices"},
    {"sentence_good", "sentence_bad"},
)
_EVALUATION_NAME = re.compile(
    r"lambada|hellaswag|\barc (?:easy|challenge)|piqa|winogrande|\bmmlu"
    r"|gsm8k|\bblimp|\bcopa\b|\bboolq|truthfulqa|\bevals?\b|evaluation|benchmarks?\b",
    re.IGNORECASE,
)
# What a folder's name says decides only where the bytes leave it open.
_HINTS = (
    ("books", re.compile(r"books?\b|gutenberg|novels?\b|literature", re.IGNORECASE)),
    ("wikipedia", re.compile(r"wiki", re.IGNORECASE)),
    ("web", re.compile(r"\bweb\b|crawl|\bc4\b|\bhtml\b|scraped", re.IGNORECASE)),
    ("conversations", re.compile(r"chats?\b|conversations?|dialog|\btalks?\b|\birc\b|subtitles?", re.IGNORECASE)),
)
_NEUTRAL = re.compile(r"(?:readme|changelog|changes|notice|authors|contributing|manifest|metadata|index)(?:[._-].*)?", re.IGNORECASE)
_GUTENBERG = re.compile(r"project gutenberg", re.IGNORECASE)
# Shorter plain text is no book, however its lines are wrapped.
_BOOK_BYTES = 30_000
# As much wiki markup for 1,000 characters makes a text a page of wikitext.
_WIKITEXT_SHARE = 1.5


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file seems to be: its kind of source (None when it says nothing), its format, and the sign that told."""

    kind: str | None
    form: str
    why: str = ""


def guess(path: Path, name: str = "") -> Guess:
    """Return what a file seems to be; an archive is what most of its members are.

    Args:
        path: the file.
        name: its path below the folder that is looked at, whose words may decide.
    """
    name = name or path.name
    votes: Counter[Guess] = Counter()
    try:
        with path.open("rb") as file:
            for item in islice(open_items(path, file, name, path.stat().st_size, Selection()), MAX_MEMBERS):
                if isinstance(item, Item):
                    votes[guess_item(item)] += 1
    except (OSError, DamagedError) as error:
        return Guess(None, "unreadable", str(error))
    return _elected(votes)


def _elected(votes: Counter[Guess]) -> Guess:
    """Return the guess of the commonest kind; a source tree is code, whatever data lies in it."""
    kinds: Counter[str] = Counter()
    for one, count in votes.items():
        if one.kind is not None:
            kinds[one.kind] += count
    if not kinds:
        return next(iter(votes), Guess(None, "empty"))
    kind = "code" if kinds["code"] * 3 >= kinds.total() else min(kinds, key=lambda kind: (-kinds[kind], kind))
    return next(one for one, _ in votes.most_common() if one.kind == kind)


def guess_item(item: Item) -> Guess:
    """Return what a file, or a member of an archive, seems to be."""
    form = format_of(item.name, item.head)
    if form in ("warc", "arc", "wat", "html"):
        return Guess("web", form, "HTML pages" if form == "html" else "web archives")
    if form == "epub":
        return Guess("books", form, "EPUB books")
    if form == "mediawiki":
        return Guess("wikipedia", form, "MediaWiki dumps")
    if form in UNREADABLE or form == "empty":
        return Guess(None, form)
    if form in FORMATS:
        return _guess_records(item, form)
    return _guess_text(item) if form == "text" else Guess(None, form)


def _guess_records(item: Item, form: str) -> Guess:
    records = [record for _, record in islice(_safely(read_records(item, form)), 3) if not isinstance(record, Reject)]
    if not records:
        return Guess(None, form)
    keys = {str(key).lower() for key in records[0]} if isinstance(records[0], Mapping) else set()
    if _EVALUATION_NAME.search(_words(item.origin)) or any(need <= keys for need in _EVALUATION_KEYS):
        return Guess("evaluation", form, "evaluation items")
    if all(find_turns(record) or is_row(record) for record in records):
        return Guess("conversations", form, "turns by speaker")
    if len(keys & DATASET_KEYS) > 1 and first_text(records[0], ("content", "code", "text")):
        return Guess("code", form, "source files as records")
    if isinstance(records[0], Mapping) and first_text(records[0], TEXT_KEYS) is not None:
        return Guess(hint(item.origin) or ("web" if "url" in keys else "text"), form, "records with a text")
    return Guess(None, form)


def _safely(records: Iterable[Any]) -> Iterable[Any]:
    try:
        yield from records
    except (DamagedError, ValueError, RecursionError):
        return


def _guess_text(item: Item) -> Guess:  # noqa: PLR0911 - a table of cases
    language = language_of(item.name, item.head)
    if language and language not in DOCS:
        return Guess("code", "text", f"source code in {language}")
    if is_license_file(item.name) or _NEUTRAL.fullmatch(item.name) or language in ("markdown", "rst"):
        return Guess(None, "text")
    head = text_head(item.head)
    if is_irc(head):
        return Guess("conversations", "text", "IRC logs")
    if _EVALUATION_NAME.search(_words(item.origin)):
        return Guess("evaluation", "text", "evaluation items")
    if _GUTENBERG.search(head):
        return Guess("books", "text", "Project Gutenberg books")
    if wikitext_share(head) >= _WIKITEXT_SHARE:
        return Guess("wikipedia", "text", "pages of wikitext")
    if len(item.head) > _BOOK_BYTES and margin_of(head):
        return Guess(hint(item.origin) or "books", "text", "long plain text with wrapped lines")
    return Guess(hint(item.origin) or "text", "text", "plain text")


def hint(path: str) -> str | None:
    """Return the kind that the words of a path name, the last word first."""
    for part in reversed(path.split("/")):
        for kind, pattern in _HINTS:
            if pattern.search(_words(part)):
                return kind
    return None


def _words(path: str) -> str:
    return re.sub(r"[_\W]+", " ", path)
