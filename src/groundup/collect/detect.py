"""Detects which kind of source a file belongs to, from its first bytes and first records."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
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
from groundup.collect.readers.books import has_wrapped_lines
from groundup.collect.readers.chat_layouts import find_messages
from groundup.collect.readers.code import (
    CODE_RECORD_KEYS,
    DOC_LANGUAGES,
    is_license_file,
    language_of,
)
from groundup.collect.readers.conversations import is_irc, is_message_row
from groundup.collect.readers.records import RECORD_FORMATS, read_records
from groundup.collect.readers.text import TEXT_KEYS, first_text

# An archive is judged by this many of its members.
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
# The name of a folder decides only where the bytes leave it open.
_NAME_HINTS = (
    ("books", re.compile(r"books?\b|gutenberg|novels?\b|literature", re.IGNORECASE)),
    ("wikipedia", re.compile(r"wiki", re.IGNORECASE)),
    ("web", re.compile(r"\bweb\b|crawl|\bc4\b|\bhtml\b|scraped", re.IGNORECASE)),
    (
        "conversations",
        re.compile(r"chats?\b|conversations?|dialog|\btalks?\b|\birc\b|subtitles?", re.IGNORECASE),
    ),
)
# Files that accompany any kind of source.
_NOTES_NAME = re.compile(
    r"(?:readme|changelog|changes|notice|authors|contributing|manifest|metadata|index)(?:[._-].*)?",
    re.IGNORECASE,
)
_GUTENBERG = re.compile(r"project gutenberg", re.IGNORECASE)
# Shorter plain text is no book, even if its lines are wrapped.
_BOOK_BYTES = 30_000
# Pieces of wiki markup per 1,000 characters that make a text wikitext.
_WIKITEXT_SHARE = 1.5
# Formats that belong to one kind, and what they are called.
_KIND_OF_FORMAT = {
    "warc": ("web", "web archives"),
    "arc": ("web", "web archives"),
    "html": ("web", "HTML pages"),
    "epub": ("books", "EPUB books"),
    "mediawiki": ("wikipedia", "MediaWiki dumps"),
}


@dataclass(frozen=True, slots=True)
class Detection:
    """What a file seems to be.

    Attributes:
        kind: of source; None where the file could belong to any: text is then read like the files
            around it, other formats are listed as unread.
        format: of the file.
        reason: what it was recognized by, as a plural: `EPUB books`.
    """

    kind: str | None
    format: str
    reason: str

    @property
    def readable(self) -> bool:
        """Whether a reader makes documents of it."""
        return self.kind is not None or self.format in ("text", "xml")


def detect_kind(path: Path, name: str = "") -> Detection:
    """Return what a file seems to be; an archive is what most of its members are.

    Args:
        path: the file.
        name: its path below the surveyed folder, whose words may decide.
    """
    name = name or path.name
    votes: Counter[Detection] = Counter()
    try:
        with path.open("rb") as file:
            items = open_items(path, file, name, path.stat().st_size, Selection())
            for item in islice(items, MAX_MEMBERS):
                if isinstance(item, Item):
                    votes[_detect_item(item)] += 1
                else:
                    votes[Detection(None, "refused", f"archives: {item.reason}")] += 1
    except (OSError, DamagedError) as error:
        why = error.reason if isinstance(error, DamagedError) else error.strerror
        return Detection(None, "unreadable", f"files that cannot be opened ({why})")
    kinds: Counter[str] = Counter()
    for detection, count in votes.items():
        if detection.kind is not None:
            kinds[detection.kind] += count
    if not kinds:
        empty = Detection(None, "empty", "archives with nothing in them")
        return min(votes, key=lambda vote: (-votes[vote], vote.format), default=empty)
    winner = min(kinds, key=lambda kind: (-kinds[kind], kind))
    # A source tree is code even if most of its files are data.
    if kinds["code"] * 3 >= kinds.total():
        winner = "code"
    return next(detection for detection, _ in votes.most_common() if detection.kind == winner)


def _detect_item(item: Item) -> Detection:  # noqa: PLR0911 - a table of cases
    """Return what a file, or a member of an archive, seems to be."""
    format = detect_format(item.name, item.head)
    if format in _KIND_OF_FORMAT:
        kind, plural = _KIND_OF_FORMAT[format]
        return Detection(kind, format, plural)
    if format in ("feed", "xml"):
        if _EVALUATION_NAME.search(_words(item.origin)):
            return Detection("evaluation", format, "evaluation items")
        if format == "feed":
            return Detection("web", format, "feeds")
        return Detection(None, format, "XML of a sort that is not known")
    if format in UNREADABLE or format == "empty":
        plural = {"empty": "empty files", "binary": "binary files"}.get(format, format)
        advice = f" ({ADVICE[format]})" if format in ADVICE else ""
        return Detection(None, format, plural + advice)
    if format in RECORD_FORMATS:
        return _detect_records(item, format)
    return _detect_text(item)


def _detect_records(item: Item, format: str) -> Detection:
    """Return what a file of records seems to be, by its first three records."""
    records = []
    try:
        for _, record in islice(read_records(item), 3):
            if not isinstance(record, Reject):
                records.append(record)
    except (DamagedError, ValueError, RecursionError):
        pass
    if not records:
        return Detection(None, format, f"{format} without a record that can be read")
    first = records[0] if isinstance(records[0], Mapping) else {}
    keys, has_text = {str(key).lower() for key in first}, first_text(first, TEXT_KEYS) is not None
    if any(required <= keys for required in _EVALUATION_KEYS) or (
        _EVALUATION_NAME.search(_words(item.origin)) and not (has_text and _has_url(first))
    ):
        return Detection("evaluation", format, "evaluation items")
    if all(find_messages(record) or is_message_row(record) for record in records):
        return Detection("conversations", format, "turns by speaker")
    if len(keys & CODE_RECORD_KEYS) > 1 and first_text(first, ("content", "code", "text")):
        return Detection("code", format, "source files as records")
    if has_text:
        kind = _kind_in_name(item.origin) or ("web" if _has_url(first) else "text")
        return Detection(kind, format, "records with a text")
    reason = f"{format} without a text under a name that is known (text, content, …)"
    return Detection(None, format, reason)


def _has_url(record: Mapping[Any, Any]) -> bool:
    """Return whether a record has a URL: as a key, or among its metadata, as in Dolma."""
    metadata = record.get("metadata")
    parts = (record, metadata if isinstance(metadata, Mapping) else {})
    return any(str(key).lower() == "url" for part in parts for key in part)


def _detect_text(item: Item) -> Detection:  # noqa: PLR0911 - a table of cases
    language = language_of(item.name, item.head)
    if language and language not in DOC_LANGUAGES:
        return Detection("code", "text", f"source code in {language}")
    is_notes = is_license_file(item.name) or _NOTES_NAME.fullmatch(item.name)
    if is_notes or language in ("markdown", "rst"):
        return Detection(None, "text", "notes and documentation")
    head = text_head(item.head)
    if is_irc(head):
        return Detection("conversations", "text", "IRC logs")
    if _EVALUATION_NAME.search(_words(item.origin)):
        return Detection("evaluation", "text", "evaluation items")
    if _GUTENBERG.search(head):
        return Detection("books", "text", "Project Gutenberg books")
    if wikitext_share(head) >= _WIKITEXT_SHARE:
        return Detection("wikipedia", "text", "pages of wikitext")
    named = _kind_in_name(item.origin)
    if len(item.head) > _BOOK_BYTES and has_wrapped_lines(head):
        return Detection(named or "books", "text", "long plain text with wrapped lines")
    return Detection(named or "text", "text", "plain text")


def _kind_in_name(path: str) -> str | None:
    """Return the kind that the words of a path name, the last component first."""
    for part in reversed(path.split("/")):
        for kind, pattern in _NAME_HINTS:
            if pattern.search(_words(part)):
                return kind
    return None


def _words(path: str) -> str:
    return re.sub(r"[_\W]+", " ", path)
