"""Detects the kind of a raw file: for `groundup init`.

A file is judged by its first bytes and first records, an archive by its members:

    From ann@a.org Mon Jan …      →  mail, "mailboxes"
    {"query": …, "choices": …}    →  evaluation, "evaluation items"
    \\documentclass{book}         →  documents, "LaTeX sources"

The name of a folder decides only where the bytes leave it open.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.files import formats
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.child import Child
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers import code
from groundup.collect.readers.chat.chats import chat_metadata, is_chat
from groundup.collect.readers.chat.conversations import is_irc, is_message_row
from groundup.collect.readers.chat.layouts import find_messages
from groundup.collect.readers.chat.logs import is_chat_log
from groundup.collect.readers.office.office import find_converter
from groundup.collect.readers.office.pdf_pages import is_scan
from groundup.collect.readers.records.columns import propose_columns, prose_columns
from groundup.collect.readers.records.databases import sample_documents
from groundup.collect.readers.records.records import RECORD_FORMATS, read_records
from groundup.collect.readers.text import TEXT_KEYS, record_text
from groundup.collect.readers.wrapped_lines import has_wrapped_lines

# An archive is judged by this many of its members.
MAX_MEMBERS = 300
# A file of records is judged by this many of them.
_RECORDS = 50
# A column of another name is the text of a data set, not a remark in a file of settings.
_MIN_RECORDS = 5
# A scan is told by this many first pages.
_SCAN_PAGES = 3
_EVALUATION_KEYS = (
    {"query", "choices"},
    {"context", "continuation"},
    {"context_options", "continuation"},
    {"ctx", "endings"},
    {"question", "choices"},
    {"question", "choice0", "answer"},
    {"sentence_good", "sentence_bad"},
    {"prompt", "canonical_solution"},
    {"goal", "sol1", "sol2"},
)
_BENCHMARK_NAME = re.compile(
    r"lambada|hellaswag|\barc (?:easy|challenge)|piqa|winogrande|\bmmlu"
    r"|gsm8k|triviaqa|\bblimp|\bcopa\b|\bboolq|truthfulqa",
    re.IGNORECASE,
)
# Records in a folder of such a name are items; prose may be about evaluation.
_EVALUATION_NAME = re.compile(
    rf"{_BENCHMARK_NAME.pattern}|\bevals?\b|evaluation|benchmarks?\b", re.IGNORECASE
)
# The name of a folder decides only where the bytes leave it open.
_NAME_HINTS = {
    # No notebooks, and nothing of DocBook.
    "books": r"\b(?:e ?|text|story|audio|hand|school)?books?\b|gutenberg|novels?\b|literature",
    "wikipedia": r"wiki",
    "web": r"\bweb\b|crawl|\bc4\b|\bhtml\b|scraped",
}
_TALKS_NAME = re.compile(r"chats?\b|conversations?|dialog|\btalks?\b|\birc\b", re.IGNORECASE)
# A line of a play or an interview.
_SPEAKER_LINE = re.compile(r"^[^\W\d_][\w .'-]{0,30}:[ \t]", re.MULTILINE)
# Subtitles have no speakers, so their text is prose: no turns to tune on, no rules of turns.
_SUBTITLES = re.compile(
    r"\s*(?:WEBVTT\b|\[Script Info\]|(?:\d+\s*\n)?\d\d:\d\d:\d\d[,.]\d{2,3}\s*(?:-->|,)\s*\d)"
)
# Files that accompany any kind of source.
_NOTES_NAME = re.compile(
    r"(?:readme|changelog|changes|notice|authors|contributing|manifest|metadata|index)(?:[._-].*)?",
    re.IGNORECASE,
)
_BIBTEX = re.compile(
    r"\s*(?:%[^\n]*\n\s*)*@(?:string|preamble|\w+\s*\{[^\s,]+,\s*\n)", re.IGNORECASE
)
# Shorter plain text is no book, even if its lines are wrapped.
_BOOK_BYTES = 30_000
# Pieces of wiki markup per 1,000 characters that make a text wikitext.
_WIKITEXT_SHARE = 1.5
# What files that no reader reads are called.
_UNREAD = {
    "7z": "7z archives",
    "binary": "binary files",
    "dbx": "mailboxes of Outlook Express",
    "document": "archives of documents",
    "empty": "empty files",
    "image": "images",
    "latex-data": "LaTeX files without text",
    "msg": "Outlook messages",
    "ole": "files of old office programs",
    "program": "programs",
    "pst": "Outlook mailboxes",
    "rar": "RAR archives",
    "wat": "WAT files",
}
# Formats that belong to one kind, and what they are called.
_KIND_OF_FORMAT = {
    "warc": ("web", "web archives"),
    "arc": ("web", "web archives"),
    "html": ("web", "HTML pages"),
    "mhtml": ("web", "saved web pages"),
    "epub": ("books", "EPUB books"),
    "mediawiki": ("wikipedia", "MediaWiki dumps"),
    "eml": ("mail", "mails"),
    "mbox": ("mail", "mailboxes"),
    "stackexchange": ("forum", "dumps of Stack Exchange"),
    "discourse": ("forum", "topics of Discourse"),
    "notebook": ("code", "notebooks"),
    "pdf": ("documents", "PDF files"),
    "scan": ("documents", 'scanned PDF files (ocr = "eng" reads them by Tesseract)'),
    "doc": ("documents", "old Word documents"),
    "ppt": ("documents", "old PowerPoint presentations"),
    "docx": ("documents", "Word documents"),
    "pptx": ("documents", "PowerPoint presentations"),
    "xlsx": ("documents", "Excel workbooks"),
    "xls": ("documents", "Excel workbooks"),
    "odt": ("documents", "OpenDocument texts"),
    "odp": ("documents", "OpenDocument presentations"),
    "ods": ("documents", "OpenDocument spreadsheets"),
    "rtf": ("documents", "RTF documents"),
    "markdown": ("documents", "Markdown files"),
    "rst": ("documents", "reStructuredText files"),
    "asciidoc": ("documents", "AsciiDoc files"),
    "org": ("documents", "Org files"),
    "latex": ("documents", "LaTeX sources"),
    "man": ("documents", "manual pages"),
    "docbook": ("documents", "DocBook documents"),
    "jats": ("documents", "JATS articles"),
    "tei": ("documents", "TEI texts"),
    "fictionbook": ("books", "FictionBook books"),
    "confluence": ("documents", "exports of Confluence"),
    "notion": ("documents", "pages of Notion"),
}
# Notes beside other files may be in these formats, which every kind of source reads.
_NOTES_FORMATS = frozenset("text markdown rst asciidoc org".split())


@dataclass(frozen=True, slots=True)
class Detection:
    """What a file seems to be."""

    # Of source; None where the file could belong to any, such as a note, and where none reads it.
    kind: str | None
    format: str
    reason: str  # what it was recognized by, as a plural: `EPUB books`
    column: str = ""  # of its records, the one with the text, where the name does not say so

    @property
    def readable(self) -> bool:
        """Whether a reader makes documents of it."""
        return self.kind is not None or self.format in (*_NOTES_FORMATS, "xml")


def detect_kind(path: Path, name: str = "") -> Detection:
    """Return what a file seems to be; an archive is what most of its members are.

    `name` is its path below the surveyed folder, whose words may decide.
    """
    name = name or path.name
    votes: Counter[Detection] = Counter()
    try:
        with path.open("rb") as file:
            items = open_items(path, file, name, path.stat().st_size, Selection())
            votes.update(map(_detect_item, islice(items, MAX_MEMBERS)))
    except (OSError, DamagedError) as error:
        why = error.reason if isinstance(error, DamagedError) else error.strerror
        return Detection(None, "unreadable", f"files that cannot be opened ({why})")
    kinds = Counter(vote.kind for vote in votes.elements() if vote.kind is not None)
    if not kinds:
        empty = Detection(None, "empty", "archives with nothing in them")
        return min(votes, key=lambda vote: (-votes[vote], vote.format), default=empty)
    # A source tree is code even if most of its files are data.
    winner = "code" if kinds["code"] * 3 >= kinds.total() else largest(kinds)
    return next(detection for detection, _ in votes.most_common() if detection.kind == winner)


def largest(votes: Counter[str], default: str = "text") -> str:
    """Return the kind with most votes, among equals the first in the alphabet."""
    return min(votes, key=lambda kind: (-votes[kind], kind), default=default)


def _detect_item(item: Item | Refused) -> Detection:  # noqa: PLR0911, PLR0912 - a table
    """Return what a file, or a member of an archive, seems to be."""
    if isinstance(item, Refused):
        return Detection(None, "refused", f"archives: {item.reason}")
    format = formats.detect_format(item.name, item.head)
    if format in formats.UNREADABLE or format == "empty":
        plural = _UNREAD.get(format, format)
        advice = f" ({formats.ADVICE[format]})" if format in formats.ADVICE else ""
        return Detection(None, format, plural + advice)
    is_notes = code.is_license_file(item.name) or _NOTES_NAME.fullmatch(item.name)
    if is_notes and format in _NOTES_FORMATS:
        return Detection(None, format, "notes and documentation")
    if format == "encrypted":
        return Detection(None, format, "encrypted files (save without a password first)")
    if format in ("doc", "ppt") and find_converter(format) is None:
        return Detection(None, format, f"old office files (save as {format}x first)")
    if format in _KIND_OF_FORMAT:
        kind, plural = _KIND_OF_FORMAT["scan" if format == "pdf" and _is_scan(item) else format]
        return Detection(kind, format, plural)
    if format in ("sql", "sqlite"):
        return _detect_tables(item, format)
    if is_chat(format, item.head):
        return Detection("chat", format, "exports of chats")
    if told := chat_metadata(format, item.head):
        return Detection(None, format, f"exports of chats without messages, such as {told}")
    if format in ("feed", "xml"):
        if _EVALUATION_NAME.search(_words(item.origin)):
            return Detection("evaluation", format, "evaluation items")
        if format == "feed":
            return Detection("web", format, "feeds")
        return Detection(None, format, "XML of a sort that is not known")
    if format in RECORD_FORMATS:
        return _detect_records(item, format)
    return _detect_text(item)


def _is_scan(item: Item) -> bool:
    """Return whether the first pages of a PDF on this disk have no text layer."""
    try:
        scan: bool = item.path is not None and Child.call(is_scan, str(item.path), _SCAN_PAGES)
        return scan
    except DamagedError:
        return False


def _detect_tables(item: Item, format: str) -> Detection:
    """Return what a database seems to hold, by the first rows of its tables."""
    plural = "SQLite databases" if format == "sqlite" else "dumps of databases"
    documents: list[Document] = []
    with suppress(DamagedError):
        documents += sample_documents(item)
    if not documents:
        return Detection(None, format, f"{plural} without a column of prose")
    talks = sum(document.turns is not None for document in documents)
    if 2 * talks > len(documents):
        return Detection("forum", format, f"{plural} of boards")
    return Detection("text", format, plural)


def _detect_text(item: Item) -> Detection:  # noqa: PLR0911 - a table of cases
    """Return what a plain text seems to be, by its first 64 KB."""
    language = code.language_of(item.name, item.head)
    if language in ("markdown", "rst"):
        return Detection(None, "text", "notes and documentation")
    if language and language not in code.DOC_LANGUAGES:
        return Detection("code", "text", f"source code in {language}")
    head = formats.text_head(item.head)
    if _BIBTEX.match(head):
        return Detection(None, "text", "bibliographies")
    if is_chat_log(head):
        return Detection("chat", "text", "chats as text")
    if is_irc(head):
        return Detection("conversations", "text", "IRC logs")
    if _SUBTITLES.match(head):
        return Detection("text", "text", "subtitles, which name no speakers")
    if _BENCHMARK_NAME.search(_words(item.origin)):
        return Detection("evaluation", "text", "evaluation items")
    if "project gutenberg" in head.lower():
        return Detection("books", "text", "Project Gutenberg books")
    if formats.wikitext_share(head) >= _WIKITEXT_SHARE:
        return Detection("wikipedia", "text", "pages of wikitext")
    lines = sum(1 for line in head.split("\n") if line.strip())
    if _TALKS_NAME.search(_words(item.origin)) and len(_SPEAKER_LINE.findall(head)) * 3 > lines:
        return Detection("conversations", "text", "lines by speaker")
    named = _kind_in_name(item.origin)
    if len(item.head) > _BOOK_BYTES and has_wrapped_lines(head):
        return Detection(named or "books", "text", "long plain text with wrapped lines")
    return Detection(named or "text", "text", "plain text")


def _detect_records(item: Item, format: str) -> Detection:  # noqa: PLR0911 - a table of cases
    """Return what a file of records seems to be, by its first records."""
    records: list[Any] = []
    try:
        for _, record in islice(read_records(item), _RECORDS):
            if not isinstance(record, Reject):
                records.append(record)
    except (DamagedError, ValueError, RecursionError):
        pass
    if not records:
        return Detection(None, format, f"{format} without a record that can be read")
    first = records[0] if isinstance(records[0], Mapping) else {}
    keys, has_text = {str(key).lower() for key in first}, record_text(first) is not None
    if any(required <= keys for required in _EVALUATION_KEYS) or (
        _EVALUATION_NAME.search(_words(item.origin)) and not (has_text and _has_url(first))
    ):
        return Detection("evaluation", format, "evaluation items")
    if all(find_messages(record) or is_message_row(record) for record in records[:3]):
        return Detection("conversations", format, "turns by speaker")
    if code.is_code_record(first):
        return Detection("code", format, "source files as records")
    if has_text:
        kind = _kind_in_name(item.origin) or ("web" if _has_url(first) else "text")
        return Detection(kind, format, f"records with a text{_besides(records, TEXT_KEYS)}")
    if len(records) >= _MIN_RECORDS and (column := propose_columns(records)):
        reason = f"records with prose in {column}{_besides(records, (column.lower(),))}"
        return Detection("text", format, reason, column)
    return Detection(None, format, f"{format} without a column of prose")


def _besides(records: Sequence[Any], read: Collection[str]) -> str:
    """Return which columns of prose are not read; a template, `text = "{a} {b}"`, would."""
    names = [
        name for name in prose_columns(records) if name.lower() not in read and "." not in name
    ]
    return f", not {' and '.join(names[:3])}" if names else ""


def _has_url(record: Mapping[Any, Any]) -> bool:
    """Return whether a record has a URL: as a key, or among its metadata, as in Dolma."""
    metadata = record.get("metadata")
    parts = (record, metadata if isinstance(metadata, Mapping) else {})
    return any(str(key).lower() == "url" for part in parts for key in part)


def _kind_in_name(path: str) -> str | None:
    """Return the kind that the words of a path name, the last component first."""
    for part in reversed(path.split("/")):
        for kind, pattern in _NAME_HINTS.items():
            if re.search(pattern, _words(part), re.IGNORECASE):
                return kind
    return None


def _words(path: str) -> str:
    return re.sub(r"[_\W]+", " ", path)
