"""Detects the kind of raw files, and suggests sources for a folder of them: for `groundup init`.

A file is judged by its first bytes and first records, an archive by its members. A folder whose
files are nearly all of one kind becomes one source. A mixed folder is divided into its sub-folders,
and the files directly in it by suffix; each file goes into exactly one source:

    raw/novels/*.txt          →  kind = "books"          path = "novels"
    raw/mixed/a.html, b.py    →  kind = "web"            path = "mixed/*"   include = ["*.html"]
                                 kind = "code"           path = "mixed/*"   include = ["*.py"]
"""

from __future__ import annotations

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Reject
from groundup.collect.files import formats
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.licenses import project_roots
from groundup.collect.readers import code
from groundup.collect.readers.books import has_wrapped_lines
from groundup.collect.readers.chat_layouts import find_messages
from groundup.collect.readers.conversations import is_irc, is_message_row
from groundup.collect.readers.records import RECORD_FORMATS, read_records
from groundup.collect.readers.text import record_text
from groundup.collect.sources import list_source
from groundup.errors import SourceError
from groundup.recipe import Source, clean_name

# An archive is judged by this many of its members.
MAX_MEMBERS = 300
_EVALUATION_KEYS = (
    *({"query", "choices"}, {"context", "continuation"}, {"ctx", "endings"}),
    *({"question", "choices"}, {"sentence_good", "sentence_bad"}),
)
_EVALUATION_NAME = re.compile(
    r"lambada|hellaswag|\barc (?:easy|challenge)|piqa|winogrande|\bmmlu"
    r"|gsm8k|\bblimp|\bcopa\b|\bboolq|truthfulqa|\bevals?\b|evaluation|benchmarks?\b",
    re.IGNORECASE,
)
# The name of a folder decides only where the bytes leave it open.
_NAME_HINTS = {
    "books": r"books?\b|gutenberg|novels?\b|literature",
    "wikipedia": r"wiki",
    "web": r"\bweb\b|crawl|\bc4\b|\bhtml\b|scraped",
    "conversations": r"chats?\b|conversations?|dialog|\btalks?\b|\birc\b|subtitles?",
}
# Files that accompany any kind of source.
_NOTES_NAME = re.compile(
    r"(?:readme|changelog|changes|notice|authors|contributing|manifest|metadata|index)(?:[._-].*)?",
    re.IGNORECASE,
)
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
    **dict.fromkeys(("docx", "odt"), ("documents", "office documents")),
    **dict.fromkeys(("pptx", "odp"), ("documents", "presentations")),
    "eml": ("mail", "mails"),
    "mbox": ("mail", "mailboxes"),
    "mhtml": ("web", "saved pages"),
}
# When this many files of one suffix in one folder are alike, the rest are not opened.
SAMPLE_FILES = 20
# A kind with this share of a folder's files and bytes gets the folder; the rest is read, or
# rejected, as that kind.
MAJORITY = 0.9
# Every kind of source reads plain text. Next to this share of another kind it does not count.
PLURALITY = 0.6
# A folder that would need more sources than this is divided by suffix instead.
MAX_SOURCES = 6


@dataclass(frozen=True, slots=True)
class Detection:
    """What a file seems to be."""

    # Of source; None where the file could belong to any: text is then read like the files around
    # it, other formats are listed as unread.
    kind: str | None
    format: str
    reason: str  # what it was recognized by, as a plural: `EPUB books`

    @property
    def readable(self) -> bool:
        """Whether a reader makes documents of it."""
        return self.kind is not None or self.format in ("text", "xml")


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
    winner = "code" if kinds["code"] * 3 >= kinds.total() else _largest(kinds)
    return next(detection for detection, _ in votes.most_common() if detection.kind == winner)


def _detect_item(item: Item | Refused) -> Detection:  # noqa: PLR0911, PLR0912 - a table of cases
    """Return what a file, or a member of an archive, seems to be."""
    if isinstance(item, Refused):
        return Detection(None, "refused", f"archives: {item.reason}")
    format = formats.detect_format(item.name, item.head)
    if format in _KIND_OF_FORMAT:
        kind, plural = _KIND_OF_FORMAT[format]
        return Detection(kind, format, plural)
    if format in ("feed", "xml"):
        if _EVALUATION_NAME.search(_words(item.origin)):
            return Detection("evaluation", format, "evaluation items")
        if format == "feed":
            return Detection("web", format, "feeds")
        return Detection(None, format, "XML of a sort that is not known")
    if format in formats.UNREADABLE or format == "empty":
        plural = {"empty": "empty files", "binary": "binary files"}.get(format, format)
        advice = f" ({formats.ADVICE[format]})" if format in formats.ADVICE else ""
        return Detection(None, format, plural + advice)
    if format in RECORD_FORMATS:
        return _detect_records(item, format)
    language = code.language_of(item.name, item.head)
    if language and language not in code.DOC_LANGUAGES:
        return Detection("code", "text", f"source code in {language}")
    is_notes = code.is_license_file(item.name) or _NOTES_NAME.fullmatch(item.name)
    if is_notes or language in ("markdown", "rst"):
        return Detection(None, "text", "notes and documentation")
    head = formats.text_head(item.head)
    if is_irc(head):
        return Detection("conversations", "text", "IRC logs")
    if _EVALUATION_NAME.search(_words(item.origin)):
        return Detection("evaluation", "text", "evaluation items")
    if "project gutenberg" in head.lower():
        return Detection("books", "text", "Project Gutenberg books")
    if formats.wikitext_share(head) >= _WIKITEXT_SHARE:
        return Detection("wikipedia", "text", "pages of wikitext")
    named = _kind_in_name(item.origin)
    if len(item.head) > _BOOK_BYTES and has_wrapped_lines(head):
        return Detection(named or "books", "text", "long plain text with wrapped lines")
    return Detection(named or "text", "text", "plain text")


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
    keys, has_text = {str(key).lower() for key in first}, record_text(first) is not None
    if any(required <= keys for required in _EVALUATION_KEYS) or (
        _EVALUATION_NAME.search(_words(item.origin)) and not (has_text and _has_url(first))
    ):
        return Detection("evaluation", format, "evaluation items")
    if all(find_messages(record) or is_message_row(record) for record in records):
        return Detection("conversations", format, "turns by speaker")
    if code.is_code_record(first):
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


def _kind_in_name(path: str) -> str | None:
    """Return the kind that the words of a path name, the last component first."""
    for part in reversed(path.split("/")):
        for kind, pattern in _NAME_HINTS.items():
            if re.search(pattern, _words(part), re.IGNORECASE):
                return kind
    return None


def _words(path: str) -> str:
    return re.sub(r"[_\W]+", " ", path)


@dataclass(frozen=True, slots=True)
class SuggestedSource:
    """A source that `init` writes into the recipe."""

    kind: str
    path: str  # relative to the surveyed folder; a folder, a file or a glob
    files: int  # number of files in it
    bytes: int  # their size
    why: str  # one line that says what was seen
    name: str = ""  # unique among the suggested sources
    include: tuple[str, ...] = ()  # patterns, where one folder is divided between several sources
    readable: bool = True  # whether a reader makes a document of any of it


@dataclass(frozen=True, slots=True)
class _File:
    """A raw file; its suffix is in small letters, such as `.txt` or `.jsonl.gz`."""

    origin: str
    suffix: str
    size: int
    detection: Detection


def suggest_sources(folder: Path, own: str = "") -> list[SuggestedSource]:
    """Return sources for everything below a folder but hidden files, in the order of their paths.

    `own` is the path below the folder of the recipe itself, which is left out. Raises SourceError
    if the folder is missing or holds no file.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder")
    raw = list_source(Source(path=".", name="survey"), folder).files
    files, top = [], folder.resolve().name
    seen = defaultdict[tuple[str, str], Counter[Detection]](Counter)
    for file in (file for file in raw if file.origin != own):
        parent, _, name = file.origin.rpartition("/")
        match = re.search(r"\.[a-z]\w{0,9}(?:\.(?:gz|bz2|xz|zst))?$", name.lower())
        suffix = match[0] if match else ""
        votes = seen[parent, suffix]
        detection = next(iter(votes), None)
        if detection is None or len(votes) > 1 or votes.total() < SAMPLE_FILES:
            detection = detect_kind(file.path, f"{top}/{file.origin}")
            votes[detection] += 1
        files.append(_File(file.origin, suffix, file.size, detection))
    if not files:
        raise SourceError(f"{folder}: nothing in it can be read")
    # A name is the path, and the kind where that is not enough.
    names, named = Counter[str](), []
    projects = project_roots(file.origin for file in files)
    for source in sorted(_suggest("", files, projects), key=lambda part: (part.path, part.kind)):
        path = source.path.removesuffix("/*").strip("*.") or top
        name = clean_name(path).strip("-.")[:60] or source.kind
        name = f"{name}-{source.kind}" if names[name] else name
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}-{names[name]}"
        named.append(replace(source, name=unique))
    return named


def _suggest(
    folder: str, files: Sequence[_File], projects: frozenset[str]
) -> list[SuggestedSource]:
    """Return the sources of a folder: one if it is of one kind, else those of its parts.

    `folder` is its path, "" at the top; `files` are all files below it.
    """
    if not files:
        return []
    kind = _common_kind(files, folder in projects)
    if kind is not None:
        return [_source(kind, folder or ".", files)]
    prefix = f"{folder}/".lstrip("/")
    below = defaultdict[str, list[_File]](list)
    for file in files:
        part, inside, _ = file.origin.removeprefix(prefix).partition("/")
        below[part if inside else ""].append(file)
    parts = list(_divide_by_suffix(below.pop("", []), f"{prefix}*"))
    for part in sorted(below):
        parts += _suggest(prefix + part, below[part], projects)
    if len(parts) <= MAX_SOURCES or not folder:
        return parts
    by_suffix = list(_divide_by_suffix(files, folder))
    return by_suffix if len(by_suffix) < len(parts) else parts


def _common_kind(files: Sequence[_File], is_project: bool) -> str | None:
    """Return the kind of a whole folder, or None when it is mixed."""
    counts, sizes = Counter[str](), Counter[str]()
    for file in files:
        if file.detection.kind is not None:
            counts[file.detection.kind] += 1
            sizes[file.detection.kind] += file.size
    if not counts:
        return "text"
    # A source tree holds pages, tables and dumps as test data; it is still one project.
    if is_project and counts["code"] * 3 >= counts.total():
        return "code"
    best = _largest(Counter({kind: n for kind, n in counts.items() if kind != "text"}))
    if any(votes[best] < PLURALITY * votes.total() for votes in (counts, sizes)):
        best = "text"
    for votes in (counts, sizes):
        rest = votes.total() - (votes["text"] if best != "text" else 0)
        if votes[best] < MAJORITY * rest:
            return None
    return best


def _largest(votes: Counter[str], default: str = "text") -> str:
    return min(votes, key=lambda kind: (-votes[kind], kind), default=default)


def _divide_by_suffix(files: Sequence[_File], path: str) -> Iterator[SuggestedSource]:
    """Yield one source per kind; all files of a suffix go where most of its bytes are."""
    sizes, total = defaultdict[str, Counter[str]](Counter), Counter[str]()
    for file in files:
        votes, kind = sizes[file.suffix], file.detection.kind
        if kind is not None:
            votes[kind] += file.size
            total[kind] += file.size
    # Files of no kind go with the largest kind, which lists them as rejected.
    rest = _largest(total)
    owners = {suffix: _largest(votes, rest) for suffix, votes in sizes.items()}
    kinds = sorted(set(owners.values()))
    for kind in kinds:
        owned = [file for file in files if owners[file.suffix] == kind]
        include: list[str] = []
        for suffix in sorted({file.suffix for file in owned}) if len(kinds) > 1 else ():
            same = [file.origin.rpartition("/")[2] for file in owned if file.suffix == suffix]
            names = sorted(set(map(glob.escape, same)))
            # Patterns are case-sensitive, and a file without a suffix has only its name.
            uniform = suffix and all(name.endswith(suffix) for name in names)
            include += [f"*{suffix}"] if uniform else names
        yield _source(kind, path, owned, tuple(include))


def _source(
    kind: str, path: str, files: Sequence[_File], include: tuple[str, ...] = ()
) -> SuggestedSource:
    """Return a source of some files, with a line that says what was seen in them."""
    detections = [file.detection for file in files]
    unread = [seen for seen in detections if not seen.readable]
    read = [seen for seen in detections if seen.kind in (kind, None) and seen.readable]
    others = len(files) - len(read) - len(unread)
    seen = _count_reasons(read, 3)
    if others:
        seen.append(f"{others:,} of other kinds")
    seen += [f"not read: {reason}" for reason in _count_reasons(unread, 6)]
    size, why, readable = (
        sum(file.size for file in files),
        "; ".join(seen),
        len(unread) < len(files),
    )
    return SuggestedSource(kind, path, len(files), size, why, "", include, readable)


def _count_reasons(detections: Sequence[Detection], most: int) -> list[str]:
    """Return what was seen, the commonest first."""
    counts = Counter(detection.reason for detection in detections)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [f"{count:,} × {reason}" for reason, count in ordered[:most]]
