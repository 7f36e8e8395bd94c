"""Looks at a file and says which kind of source it belongs to. Reads first bytes and first records;
writes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Reject
from groundup.collect.files.archives import open_items
from groundup.collect.files.formats import (
    ADVICE,
    UNREADABLE,
    detect_format,
    text_head,
    wikitext_share,
)
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.licenses import is_license_file
from groundup.collect.readers.chat_layouts import find_turns
from groundup.collect.readers.code import DATASET_KEYS
from groundup.collect.readers.code_languages import DOCS, language_of
from groundup.collect.readers.conversations import is_irc, is_row
from groundup.collect.readers.paragraphs import margin_of
from groundup.collect.readers.records import FORMATS, read_records
from groundup.collect.readers.text import TEXT_KEYS, first_text

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
    (
        "conversations",
        re.compile(r"chats?\b|conversations?|dialog|\btalks?\b|\birc\b|subtitles?", re.IGNORECASE),
    ),
)
_NEUTRAL = re.compile(
    r"(?:readme|changelog|changes|notice|authors|contributing|manifest|metadata|index)(?:[._-].*)?",
    re.IGNORECASE,
)
_GUTENBERG = re.compile(r"project gutenberg", re.IGNORECASE)
# Files that go with any kind, and are read as that.
_NOTES = "notes and documentation"
# Shorter plain text is no book, however its lines are wrapped.
_BOOK_BYTES = 30_000
# As much wiki markup for 1,000 characters makes a text a page of wikitext.
_WIKITEXT_SHARE = 1.5


# Formats that belong to one kind.
_TOLD = {
    "warc": ("web", "web archives"),
    "arc": ("web", "web archives"),
    "html": ("web", "HTML pages"),
    "epub": ("books", "EPUB books"),
    "mediawiki": ("wikipedia", "MediaWiki dumps"),
}


@dataclass(frozen=True, slots=True)
class Detection:
    """What a file seems to be: its kind of source (None when it says nothing), its format, and the
    sign that told.

    One without a kind is read with its neighbors where its format is `text`, and listed as unread
    otherwise.
    """

    kind: str | None
    form: str
    why: str

    @property
    def readable(self) -> bool:
        """Whether some reader makes a document of it."""
        return self.kind is not None or self.form in ("text", "xml")


def detect_kind(path: Path, name: str = "") -> Detection:
    """Return what a file seems to be; an archive is what most of its members are.

    Args:
        path: the file.
        name: its path below the folder that is looked at, whose words may decide.
    """
    name = name or path.name
    votes: Counter[Detection] = Counter()
    try:
        with path.open("rb") as file:
            for item in islice(
                open_items(path, file, name, path.stat().st_size, Selection()), MAX_MEMBERS
            ):
                votes[
                    (
                        guess_item(item)
                        if isinstance(item, Item)
                        else Detection(None, "refused", f"archives: {item.reason}")
                    )
                ] += 1
    except (OSError, DamagedError) as error:
        why = error.reason if isinstance(error, DamagedError) else error.strerror
        return Detection(None, "unreadable", f"files that cannot be opened ({why})")
    return _elected(votes)


def _elected(votes: Counter[Detection]) -> Detection:
    """Return the guess of the commonest kind; a source tree is code, whatever data lies in it."""
    kinds: Counter[str] = Counter()
    for one, count in votes.items():
        if one.kind is not None:
            kinds[one.kind] += count
    if not kinds:
        return min(
            votes,
            key=lambda one: (-votes[one], one.form),
            default=Detection(None, "empty", "archives with nothing in them"),
        )
    kind = (
        "code"
        if kinds["code"] * 3 >= kinds.total()
        else min(kinds, key=lambda kind: (-kinds[kind], kind))
    )
    return next(one for one, _ in votes.most_common() if one.kind == kind)


def guess_item(item: Item) -> Detection:
    """Return what a file, or a member of an archive, seems to be."""
    form = detect_format(item.name, item.head)
    if form in _TOLD:
        return Detection(_TOLD[form][0], form, _TOLD[form][1])
    if form in ("feed", "xml"):
        return _guess_xml(item, form)
    if form in UNREADABLE or form == "empty":
        return Detection(None, form, _unread(form))
    if form in FORMATS:
        return _guess_records(item, form)
    return _guess_text(item)


def _guess_xml(item: Item, form: str) -> Detection:
    if _EVALUATION_NAME.search(_words(item.origin)):
        return Detection("evaluation", form, "evaluation items")
    return (
        Detection("web", form, "feeds")
        if form == "feed"
        else Detection(None, form, "XML of a sort that is not known")
    )


def _unread(form: str) -> str:
    """Return what a file is that no reader reads, and what a person can do about it."""
    name = {"empty": "empty files", "binary": "binary files"}.get(form, form)
    return f"{name} ({ADVICE[form]})" if form in ADVICE else name


def _guess_records(item: Item, form: str) -> Detection:
    records = [
        record
        for _, record in islice(_safely(read_records(item, form)), 3)
        if not isinstance(record, Reject)
    ]
    if not records:
        return Detection(None, form, f"{form} without a record that can be read")
    first = records[0] if isinstance(records[0], Mapping) else {}
    keys, texts = {str(key).lower() for key in first}, first_text(first, TEXT_KEYS) is not None
    if any(need <= keys for need in _EVALUATION_KEYS) or (
        _EVALUATION_NAME.search(_words(item.origin)) and not (texts and _has_address(first))
    ):
        return Detection("evaluation", form, "evaluation items")
    if all(find_turns(record) or is_row(record) for record in records):
        return Detection("conversations", form, "turns by speaker")
    if len(keys & DATASET_KEYS) > 1 and first_text(first, ("content", "code", "text")):
        return Detection("code", form, "source files as records")
    if texts:
        return Detection(
            hint(item.origin) or ("web" if _has_address(first) else "text"),
            form,
            "records with a text",
        )
    return Detection(
        None, form, f"{form} without a text under a name that is known (text, content, …)"
    )


def _has_address(record: Mapping[Any, Any]) -> bool:
    """Return whether a record names an address: of its own, or among its metadata, as Dolma's do."""
    more = record.get("metadata")
    return "url" in {
        str(key).lower()
        for part in (record, more if isinstance(more, Mapping) else {})
        for key in part
    }


def _safely(records: Iterable[Any]) -> Iterable[Any]:
    try:
        yield from records
    except (DamagedError, ValueError, RecursionError):
        return


def _guess_text(item: Item) -> Detection:  # noqa: PLR0911 - a table of cases
    language = language_of(item.name, item.head)
    if language and language not in DOCS:
        return Detection("code", "text", f"source code in {language}")
    if (
        is_license_file(item.name)
        or _NEUTRAL.fullmatch(item.name)
        or language in ("markdown", "rst")
    ):
        return Detection(None, "text", _NOTES)
    head = text_head(item.head)
    if is_irc(head):
        return Detection("conversations", "text", "IRC logs")
    if _EVALUATION_NAME.search(_words(item.origin)):
        return Detection("evaluation", "text", "evaluation items")
    if _GUTENBERG.search(head):
        return Detection("books", "text", "Project Gutenberg books")
    if wikitext_share(head) >= _WIKITEXT_SHARE:
        return Detection("wikipedia", "text", "pages of wikitext")
    if len(item.head) > _BOOK_BYTES and margin_of(head):
        return Detection(hint(item.origin) or "books", "text", "long plain text with wrapped lines")
    return Detection(hint(item.origin) or "text", "text", "plain text")


def hint(path: str) -> str | None:
    """Return the kind that the words of a path name, the last word first."""
    for part in reversed(path.split("/")):
        for kind, pattern in _HINTS:
            if pattern.search(_words(part)):
                return kind
    return None


def _words(path: str) -> str:
    return re.sub(r"[_\W]+", " ", path)
