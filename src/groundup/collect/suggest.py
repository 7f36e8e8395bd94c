"""Suggests sources for a folder of raw files, each file in exactly one: for `groundup init`.

A folder whose files are nearly all of one kind becomes one source. A mixed folder is divided into
its sub-folders, and the files directly in it by suffix:

    raw/novels/*.txt          →  kind = "books"          path = "novels"
    raw/mixed/a.html, b.py    →  kind = "web"            path = "mixed/*"   include = ["*.html"]
                                 kind = "code"           path = "mixed/*"   include = ["*.py"]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from groundup.collect.detect import Detection, detect_kind
from groundup.collect.files.globs import escape_glob
from groundup.collect.licenses import project_roots
from groundup.collect.sources import RawFile, list_source
from groundup.errors import SourceError
from groundup.recipe import Source

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
class SuggestedSource:
    """A source that `init` writes into the recipe.

    Attributes:
        kind: of source.
        path: relative to the surveyed folder; a folder, a file or a glob.
        files: number of files in it.
        bytes: their size.
        why: one line that says what was seen.
        name: unique among the suggested sources.
        include: patterns, where one folder is divided between several sources.
        readable: whether a reader makes a document of any of it.
    """

    kind: str
    path: str
    files: int
    bytes: int
    why: str
    name: str = ""
    include: tuple[str, ...] = ()
    readable: bool = True


@dataclass(frozen=True, slots=True)
class _File:
    origin: str
    size: int
    detection: Detection

    @property
    def suffix(self) -> str:
        return _suffix(self.origin)


@dataclass
class _Folder:
    """A folder of the tree: the files directly in it, and its sub-folders by name."""

    path: str
    files: list[_File] = field(default_factory=list)
    folders: dict[str, _Folder] = field(default_factory=dict)

    def all_files(self) -> list[_File]:
        """Return the files in it and below."""
        below = [file for _, folder in sorted(self.folders.items()) for file in folder.all_files()]
        return self.files + below


def suggest_sources(folder: Path, own: str = "") -> list[SuggestedSource]:
    """Return sources for everything below a folder but hidden files, in the order of their paths.

    Args:
        folder: with raw files.
        own: path below the folder of the recipe itself, which is left out.

    Raises:
        SourceError: the folder is missing or holds no file.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder")
    listing = list_source(Source(path=".", name="survey"), folder)
    raw_files = [file for file in listing.files if file.origin != own]
    top = _Folder("")
    for file in _detect_files(raw_files, folder.resolve().name):
        parent = top
        for part in file.origin.split("/")[:-1]:
            path = f"{parent.path}/{part}".lstrip("/")
            parent = parent.folders.setdefault(part, _Folder(path))
        parent.files.append(file)
    suggested = _suggest(top, project_roots(file.origin for file in raw_files))
    if not suggested:
        raise SourceError(f"{folder}: nothing in it can be read")
    return _with_names(sorted(suggested, key=lambda source: (source.path, source.kind)), folder)


def _suffix(origin: str) -> str:
    """Return the suffix of a path in small letters, such as `.txt` or `.jsonl.gz`."""
    name = origin.rpartition("/")[2].lower()
    match = re.search(r"\.[a-z]\w{0,9}(?:\.(?:gz|bz2|xz|zst))?$", name)
    return match[0] if match else ""


def _detect_files(files: Sequence[RawFile], top: str) -> list[_File]:
    """Detect the kind of each file below a folder called `top`; see SAMPLE_FILES."""
    seen: dict[tuple[str, str], Counter[Detection]] = {}
    detected = []
    for file in files:
        key = file.origin.rpartition("/")[0], _suffix(file.origin)
        votes = seen.setdefault(key, Counter())
        if len(votes) == 1 and votes.total() >= SAMPLE_FILES:
            detection = next(iter(votes))
        else:
            detection = detect_kind(file.path, f"{top}/{file.origin}")
            votes[detection] += 1
        detected.append(_File(file.origin, file.size, detection))
    return detected


def _suggest(folder: _Folder, projects: frozenset[str]) -> list[SuggestedSource]:
    """Return the sources of a folder: one if it is of one kind, else those of its parts."""
    files = folder.all_files()
    if not files:
        return []
    kind = _common_kind(folder, files, projects)
    if kind is not None:
        return [_source(kind, folder.path or ".", files)]
    parts = [
        source
        for _, below in sorted(folder.folders.items())
        for source in _suggest(below, projects)
    ]
    parts += _divide_by_suffix(folder.files, f"{folder.path}/*".lstrip("/"))
    if len(parts) <= MAX_SOURCES or not folder.path:
        return parts
    by_suffix = list(_divide_by_suffix(files, folder.path))
    return by_suffix if len(by_suffix) < len(parts) else parts


def _common_kind(folder: _Folder, files: Sequence[_File], projects: frozenset[str]) -> str | None:
    """Return the kind of a whole folder, or None when it is mixed."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for file in files:
        if file.detection.kind is not None:
            counts[file.detection.kind] += 1
            sizes[file.detection.kind] += file.size
    if not counts:
        return "text"
    # A source tree holds pages, tables and dumps as test data; it is still one project.
    if folder.path in projects and counts["code"] * 3 >= counts.total():
        return "code"
    best = min(counts, key=lambda kind: (kind == "text", -counts[kind], kind))
    if any(votes[best] < PLURALITY * votes.total() for votes in (counts, sizes)):
        best = "text"
    for votes in (counts, sizes):
        rest = votes.total() - (votes["text"] if best != "text" else 0)
        if votes[best] < MAJORITY * rest:
            return None
    return best


def _divide_by_suffix(files: Sequence[_File], path: str) -> Iterator[SuggestedSource]:
    """Yield one source per kind; all files of a suffix go where most of its bytes are."""
    sizes: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for file in files:
        votes = sizes.setdefault(file.suffix, Counter())
        if file.detection.kind is not None:
            votes[file.detection.kind] += file.size
            total[file.detection.kind] += file.size

    def largest(votes: Counter[str], default: str) -> str:
        return min(votes, key=lambda kind: (-votes[kind], kind), default=default)

    # Files of no kind go with the largest kind, which lists them as rejected.
    rest = largest(total, "text")
    owners = {suffix: largest(votes, rest) for suffix, votes in sizes.items()}
    kinds = sorted(set(owners.values()))
    for kind in kinds:
        owned = [file for file in files if owners[file.suffix] == kind]
        include: list[str] = []
        for suffix in sorted({file.suffix for file in owned}) if len(kinds) > 1 else ():
            same = [file.origin.rpartition("/")[2] for file in owned if file.suffix == suffix]
            names = sorted(set(map(escape_glob, same)))
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
    size, readable = sum(file.size for file in files), len(unread) < len(files)
    return SuggestedSource(
        kind, path, len(files), size, "; ".join(seen), include=include, readable=readable
    )


def _count_reasons(detections: Sequence[Detection], most: int) -> list[str]:
    """Return what was seen, the commonest first."""
    counts = Counter(detection.reason for detection in detections)
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [f"{count:,} × {reason}" for reason, count in ordered[:most]]


def _with_names(sources: Sequence[SuggestedSource], folder: Path) -> list[SuggestedSource]:
    """Give every source a unique name: its path, and its kind where that is not enough."""
    names: Counter[str] = Counter()
    named = []
    for source in sources:
        path = source.path.removesuffix("/*").strip("*.") or folder.resolve().name
        name = re.sub(r"[^\w.+-]+", "-", path).strip("-.")[:60] or source.kind
        name = f"{name}-{source.kind}" if names[name] else name
        names[name] += 1
        unique = name if names[name] == 1 else f"{name}-{names[name]}"
        named.append(replace(source, name=unique))
    return named
