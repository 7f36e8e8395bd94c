"""Suggests at most twelve sources for a folder of raw files: for `groundup init`.

A folder whose files are nearly all of one kind is a part; so are the files of a kind that lie
directly in a mixed folder. A part of a megabyte is a data set with a source of its own. Smaller
parts of one kind share a source, which names them by few patterns:

    raw/novels/*.txt (9 MB)        →  kind = "books"      path = "novels"
    raw/a.eml, raw/old/mail/*.eml  →  kind = "mail"       path = "."      include = ["*.eml"]
    raw/slack/*.json, raw/b.json   →  kind = "chat"       path = "slack"
                                      kind = "text"       path = "*"      include = ["*.json"]

Each file that can be read goes into exactly one source. Files that cannot are in the source of
their folder or in none; either way they are counted, with what a user can do about them.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from groundup.artifacts.kinds import KINDS
from groundup.collect.detect import Detection, detect_kind, largest
from groundup.collect.files.archives import Refused
from groundup.collect.licenses import project_roots
from groundup.collect.patterns import Patterns
from groundup.collect.sources import RawFile, list_source
from groundup.errors import SourceError
from groundup.recipe import Source, clean_name

MAX_SOURCES = 12
# Include and exclude patterns of one source, together.
MAX_PATTERNS = 20
# The same where nothing else tells files apart that must not be mixed.
MAX_EXACT_PATTERNS = 500
# A part of this size is a data set of its own.
DATA_SET_BYTES = 1_000_000
# When this many files of one suffix in one folder are alike, the rest are not opened.
SAMPLE_FILES = 20
# A kind with this share of a folder's files and bytes gets the folder; the rest is read, or
# rejected, as that kind.
MAJORITY = 0.9
# Every kind of source reads plain text. Next to this share of another kind it does not count.
PLURALITY = 0.6
# So few files of another kind than the others of their suffix and folder are named one by one.
FEW_FILES = 4
# Between these kinds a file may go with its neighbors.
_PROSE = frozenset(kind for kind in KINDS if KINDS[kind].is_prose and kind != "web")
# Files that no patterns tell apart are shared out this often, before one source takes all.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class SuggestedSource:
    """A source that `init` writes into the recipe."""

    kind: str
    path: str  # relative to the surveyed folder; a folder, a file or a glob
    files: int  # number of files in it
    bytes: int  # their size
    why: str  # one line that says what was seen
    name: str = ""  # unique among the suggested sources
    # Patterns, where one folder is divided between several sources.
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    column: str = ""  # that holds the text of its records, where the name does not say so
    members: Sequence[RawFile] = ()  # its files; their origins begin at its path


@dataclass(frozen=True, slots=True)
class FileSort:
    """Files of one sort."""

    reason: str  # as a plural; where they are not read, with what a user can do about them
    files: int
    bytes: int
    example: str  # path of one of them, below the surveyed folder


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The sources of a folder, in the order of their paths, and the sorts of files, most first."""

    sources: list[SuggestedSource]
    unread: list[FileSort]
    sorts: list[FileSort]  # of what is read
    refused: Sequence[Refused]  # links, pipes and the like
    listed: int  # files of the folder, of which only some may have been looked at


@dataclass(frozen=True, slots=True)
class _File:
    """A raw file; its suffix is in small letters, such as `.txt` or `.jsonl.gz`."""

    origin: str
    suffix: str
    size: int
    detection: Detection

    @property
    def label(self) -> str | None:
        """Its kind, and the column of its records: files of one source have one label."""
        kind, column = self.detection.kind, self.detection.column
        return f"{kind}:{column}" if column else kind


@dataclass(eq=False)
class _Group:
    """The files of one source, all that can be read."""

    label: str
    files: list[_File]
    is_data_set: bool = False
    path: str = ""
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.label.partition(":")[0]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def suggest_sources(folder: Path, own: str = "", most: int = 0) -> Suggestions:
    """Return sources for everything below a folder but hidden files, or for one file.

    `own` is the path below the folder of the recipe itself, which is left out. With `most`, only so
    many files are looked at, chosen by a hash of their names. Raises SourceError if the path is
    missing or holds no file.
    """
    if not folder.exists():
        raise SourceError(f"{folder}: there is no such file or folder")
    listing = list_source(Source(path=str(folder.absolute()), name="survey"), folder.parent)
    raw = listing.files
    if 0 < most < len(raw):
        raw = sorted(heapq.nsmallest(most, raw, key=lambda file: name_hash(file.origin)))
    files = _without_columns(_survey(folder, raw, own))
    if not files:
        raise SourceError(f"{folder}: nothing in it can be read")
    readable = [file for file in files if file.detection.readable]
    groups = _share_out(readable, project_roots(file.origin for file in files))
    owners = _set_paths(groups, files) if groups else {}
    held = defaultdict[int, list[_File]](list)
    for file in files:
        if file.origin in owners:
            held[id(owners[file.origin])].append(file)
    top = folder.resolve().name
    by_origin = {file.origin: file for file in raw}
    sources = [_suggested(group, held[id(group)], by_origin) for group in groups]
    if folder.is_file():
        sources = [replace(source, path=folder.name) for source in sources]
    ordered = sorted(sources, key=lambda source: (source.path, source.kind))
    unread = _count_sorts(file for file in files if not file.detection.readable)
    sorts, listed = _count_sorts(readable), len(listing.files)
    return Suggestions(_named(ordered, top), unread, sorts, listing.refused, listed)


def name_hash(name: str) -> bytes:
    """Return by what files of a sample are chosen: the same ones at every call."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _survey(folder: Path, raw: Iterable[RawFile], own: str) -> list[_File]:
    """Return the files below a folder with what they seem to be; only a sample is opened."""
    files, top = [], folder.resolve().name
    seen = defaultdict[tuple[str, str], Counter[Detection]](Counter)
    for file in (file for file in raw if file.origin != own):
        parent, _, name = file.origin.rpartition("/")
        match = re.search(r"\.[a-z]\w{0,9}(?:\.(?:gz|bz2|xz|zst))?$", name.lower())
        suffix = match[0] if match else ""
        votes = seen[parent, suffix]
        detection = next(iter(votes), None)
        if detection is None or len(votes) > 1 or votes.total() < SAMPLE_FILES:
            inside = file.origin if folder.is_file() else f"{top}/{file.origin}"
            detection = detect_kind(file.path, inside)
            votes[detection] += 1
        files.append(_File(file.origin, suffix, file.size, detection))
    return files


def _share_out(files: Sequence[_File], projects: frozenset[str]) -> list[_Group]:
    """Return the groups of files that become sources: data sets, and the rest of each kind."""
    parts = sorted(_parts("", files, projects), key=lambda part: -part.bytes)
    data_sets = [part for part in parts if part.is_data_set and part.bytes >= DATA_SET_BYTES]
    while True:
        rest = defaultdict[str, list[_File]](list)
        for part in parts:
            if part not in data_sets:
                rest[part.label] += part.files
        if len(data_sets) + len(rest) <= MAX_SOURCES:
            return [*data_sets, *(_Group(label, rest[label]) for label in sorted(rest))]
        # The smallest that has company in the rest, or among the data sets.
        labels = Counter([*rest, *(part.label for part in data_sets)])
        data_sets.remove(next(part for part in reversed(data_sets) if labels[part.label] > 1))


def _parts(folder: str, files: Sequence[_File], projects: frozenset[str]) -> Iterator[_Group]:
    """Yield the parts of a folder: the whole if it is of one kind, else those of its folders.

    `folder` is its path, "" at the top; `files` are all files below it.
    """
    if not files:
        return
    kind = _common_kind(files, folder in projects)
    if kind is not None:
        yield _Group(kind, list(files), is_data_set=True)
        return
    prefix = f"{folder}/".lstrip("/")
    below = defaultdict[str, list[_File]](list)
    for file in files:
        part, inside, _ = file.origin.removeprefix(prefix).partition("/")
        below[part if inside else ""].append(file)
    yield from _divide_by_suffix(below.pop("", []))
    for part in sorted(below):
        yield from _parts(prefix + part, below[part], projects)


def _without_columns(files: Sequence[_File]) -> list[_File]:
    """Return the files; where their columns would need too many sources, the small are unread."""
    sizes = Counter[str]()
    for file in files:
        if file.detection.column:
            sizes[file.detection.column] += file.size
    kinds = {file.detection.kind for file in files if not file.detection.column} - {None}
    kept = {column for column, _ in sizes.most_common(max(0, MAX_SOURCES - 1 - len(kinds)))}
    shown = []
    for file in files:
        column = file.detection.column
        if column and column not in kept:
            reason = f'{file.detection.reason} (give them a source with text = "{column}")'
            unread = replace(file.detection, kind=None, column="", reason=reason)
            shown.append(replace(file, detection=unread))
        else:
            shown.append(file)
    return shown


def _common_kind(files: Sequence[_File], is_project: bool) -> str | None:
    """Return the kind of a whole folder, or None when it is mixed."""
    counts, sizes = Counter[str](), Counter[str]()
    for file in files:
        if file.label is not None:
            counts[file.label] += 1
            sizes[file.label] += file.size
    if not counts:
        is_plain = all(file.detection.format in ("text", "xml") for file in files)
        return "text" if is_plain else "documents"
    # A source tree holds pages, tables and dumps as test data; it is still one project.
    if is_project and counts["code"] * 3 >= counts.total():
        return "code"
    best = largest(Counter({kind: n for kind, n in counts.items() if kind != "text"}))
    if any(votes[best] < PLURALITY * votes.total() for votes in (counts, sizes)):
        best = "text"
    for votes in (counts, sizes):
        rest = votes.total() - (votes["text"] if best != "text" else 0)
        if votes[best] < MAJORITY * rest:
            return None
    return best


def _divide_by_suffix(files: Sequence[_File]) -> Iterator[_Group]:
    """Yield one part per kind; files of a suffix go where most of them belong.

    Only a few files of another kind stay apart: a pattern names each of them.
    """
    by_suffix, total = defaultdict[str, list[_File]](list), Counter[str]()
    for file in files:
        by_suffix[file.suffix].append(file)
        if file.label is not None:
            total[file.label] += file.size
    # Files of no kind go with the largest kind that a model is trained on.
    trained = Counter({label: n for label, n in total.items() if label != "evaluation"})
    rest = largest(trained or total)
    parts = defaultdict[str, list[_File]](list)
    for same in by_suffix.values():
        kinds = [file.label or rest for file in same]
        counts, sizes = Counter(kinds), Counter[str]()
        for file, kind in zip(same, kinds, strict=True):
            sizes[kind] += file.size
        owner = max(sorted(counts), key=lambda kind: (counts[kind], sizes[kind]))
        for file, kind in zip(same, kinds, strict=True):
            is_many = len(same) - counts[owner] > FEW_FILES and not file.detection.column
            parts[owner if is_many or {kind, owner} <= _PROSE else kind].append(file)
    for kind in sorted(parts):
        yield _Group(kind, parts[kind])


def _set_paths(groups: list[_Group], files: Sequence[_File]) -> dict[str, _Group]:
    """Give each group a path and patterns that name its files and those of no other.

    Returns the group of each file that is in one. Where too many patterns would be needed, files
    move to the most general group; if that does not help, it takes all but evaluation items.
    """
    if len(groups) == 1:
        groups[0].path = "."
        return dict.fromkeys((file.origin for file in files), groups[0])

    @cache
    def patterns_below(prefix: str, is_direct: bool) -> Patterns:
        return Patterns(prefix, _below(files, prefix, is_direct))

    for attempt in range(_ROUNDS + 1):
        groups.sort(key=_order)
        rest, is_last = groups[0], attempt == _ROUNDS
        owners = {file.origin: group for group in groups for file in group.files}
        # The first group comes last: files of no group that others name are not its own.
        left: set[str] = set()
        for group in reversed(groups):
            left |= _locate(group, patterns_below, owners, group is rest, is_last)
        if not left:
            return owners
        role = KINDS[rest.kind].role
        for group in groups[1:]:
            gone = left if attempt + 1 < _ROUNDS else {file.origin for file in group.files}
            if KINDS[group.kind].role == role:
                rest.files += [file for file in group.files if file.origin in gone]
                group.files = [file for file in group.files if file.origin not in gone]
        groups[:] = [group for group in groups if group.files]
    return owners


def _order(group: _Group) -> tuple[bool, bool, bool, int]:
    """Return where a group stands among those that may take files of others: the first does.

    Plain text and documents are the kinds whose rules are for all prose.
    """
    is_trained = KINDS[group.kind].role == "training"
    is_general = group.label in ("text", "documents")
    return not is_trained, group.is_data_set, not is_general, -group.bytes


def _locate(
    group: _Group,
    patterns_below: Callable[[str, bool], Patterns],
    owners: dict[str, _Group],
    is_rest: bool,
    is_last: bool,
) -> set[str]:
    """Set the path and the patterns of a group; return the files that they cannot tell apart.

    Files of no group may be named, too, and become the group's.
    """
    # A model must not be trained on evaluation items, however long the list of patterns.
    is_exact = is_last or KINDS[group.kind].role == "evaluation"
    limit = MAX_EXACT_PATTERNS if is_exact else MAX_PATTERNS
    mine = {file.origin for file in group.files}
    folder = _common_folder(mine)
    prefix = f"{folder}/" if folder else ""
    patterns = patterns_below(prefix, False)
    group.path, group.include, group.exclude = folder or ".", [], []
    if all("/" not in origin.removeprefix(prefix) for origin in mine):
        direct = patterns_below(prefix, True)
        if len(direct.sizes) < len(patterns.sizes):
            patterns, group.path = direct, f"{prefix}*"
    others = {origin for origin in patterns.sizes if owners.get(origin, group) is not group}
    if len(mine) == 1 and len(patterns.sizes) > 1:
        (group.path,) = mine
        return set()
    named, left = set(patterns.sizes), set[str]()
    if others:
        named, left = _tell_apart(group, patterns, others, limit, is_rest)
    for origin in named - others:
        owners.setdefault(origin, group)
    return left


def _tell_apart(
    group: _Group, patterns: Patterns, others: set[str], limit: int, is_rest: bool
) -> tuple[set[str], set[str]]:
    """Set the patterns of a group among `others`; return what they name, and whom they miss.

    Either they include the group's files, or they exclude the others, whatever is shorter.
    """
    mine = {file.origin for file in group.files}
    group.include, left, exceptions = patterns.cover(mine, others, limit, FEW_FILES)
    named = patterns.named(group.include)
    # Archives are opened whatever is included.
    closed, kept, _ = patterns.cover(patterns.archives - named, mine, limit)
    group.exclude = [*closed, *exceptions]
    excluded, over, _ = patterns.cover(others, mine, limit)
    if over:
        # Those that are left go with the rest: few bytes, if many files.
        excluded, over, _ = patterns.cover(others, mine, limit, by_size=True)
    count = len(group.include) + len(group.exclude)
    is_long = bool(left or kept) or count > limit
    if (is_rest and is_long) or (not over and (is_long or len(excluded) * 2 < count)):
        group.include, group.exclude, left = [], excluded, over
        named = set(patterns.sizes) - patterns.named(excluded)
    return named, left


def _below(files: Sequence[_File], prefix: str, is_direct: bool) -> dict[str, int]:
    """Return the sizes of files below a folder, or of those that lie in it directly."""
    below = {file.origin: file.size for file in files if file.origin.startswith(prefix)}
    if is_direct:
        return {name: n for name, n in below.items() if "/" not in name.removeprefix(prefix)}
    return below


def _common_folder(origins: Collection[str]) -> str:
    """Return the innermost folder that holds all files, "" for the top."""
    # What two paths share, those between them in the alphabet share, too.
    low, high = (origin.rpartition("/")[0] for origin in (min(origins), max(origins)))
    return os.path.commonpath([low, high])


def _suggested(
    group: _Group, files: Sequence[_File], raw: Mapping[str, RawFile]
) -> SuggestedSource:
    """Return the source of a group of files, with a line that says what was seen in them."""
    seen = [file.detection for file in files if file.detection.readable]
    alike = [detection for detection in seen if detection.kind in (group.kind, None)]
    counts = Counter(detection.reason for detection in alike)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    why = [f"{count:,} × {reason}" for reason, count in ordered[:3]]
    if len(ordered) > 3:
        why.append(f"{sum(count for _, count in ordered[3:]):,} others")
    if len(alike) < len(seen):
        why.append(f"{len(seen) - len(alike):,} of other kinds")
    unread = len(files) - len(seen)
    if unread:
        why.append(f"{unread:,} not read")
    size = sum(file.size for file in files)
    # A path is "." or a folder, a folder and "/*", or that of a single file.
    start = 0 if group.path == "." else len(group.path.removesuffix("*").rstrip("/")) + 1
    members = (raw[file.origin] for file in files)
    return SuggestedSource(
        group.kind,
        group.path,
        len(files),
        size,
        "; ".join(why),
        include=tuple(group.include),
        exclude=tuple(group.exclude),
        column=group.label.partition(":")[2],
        members=[replace(m, origin=m.origin[start:] or m.path.name) for m in members],
    )


def _named(sources: Iterable[SuggestedSource], top: str) -> list[SuggestedSource]:
    """Return sources with a name each: their path, and their kind where that is not enough."""
    names, named = Counter[str](), []
    for source in sources:
        path = source.path.removesuffix("/*").strip("*.")
        is_divided = source.include or source.exclude
        name = clean_name(path or (source.column or source.kind if is_divided else top))
        name = name.strip("-.")[:60] or source.kind
        name = f"{name}-{source.kind}" if names[name] else name
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}-{names[name]}"
        named.append(replace(source, name=unique))
    return named


def _count_sorts(files: Iterable[_File]) -> list[FileSort]:
    """Return the sorts of files, the most frequent first."""
    by_reason = defaultdict[str, list[_File]](list)
    for file in files:
        by_reason[file.detection.reason].append(file)
    ordered = sorted(by_reason.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return [
        FileSort(reason, len(same), sum(file.size for file in same), same[0].origin)
        for reason, same in ordered
    ]
