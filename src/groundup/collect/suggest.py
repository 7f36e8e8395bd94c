"""Chooses sources for a folder of raw files, each file in exactly one of them: what `groundup init`
writes down.

Reads a folder; writes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from groundup.collect.detect import Detection, detect_kind
from groundup.collect.licenses import project_roots
from groundup.collect.sources import RawFile, list_source
from groundup.errors import SourceError
from groundup.recipe import Source

# So many files of one suffix in one folder, all alike, speak for the rest of them.
SAMPLE_FILES = 20
# A kind with this share of a folder's files and bytes has the folder; the rest is read, or
# rejected, as that kind.
MAJORITY = 0.9
# Plain text says little, and every kind reads it: beside so large a share of another kind it does
# not count.
PLURALITY = 0.6
# A folder that would fall into more sources than this is divided by suffix instead.
MAX_SOURCES = 6


@dataclass(frozen=True, slots=True)
class SuggestedSource:
    """A source that `init` proposes.

    Attributes:
        kind: its kind.
        path: relative to the folder looked at; a folder, a file or a glob.
        files: how many files it holds.
        bytes: their size.
        why: one line that says what was seen.
        name: a name that no other source of the survey has.
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
    guess: Detection

    @property
    def suffix(self) -> str:
        name = self.origin.rpartition("/")[2].lower()
        match = re.search(r"\.[a-z]\w{0,9}(?:\.(?:gz|bz2|xz|zst))?$", name)
        return match[0] if match else ""


@dataclass
class _Folder:
    """A folder of the tree: its own files, and its sub-folders by name."""

    path: str
    files: list[_File] = field(default_factory=list)
    folders: dict[str, _Folder] = field(default_factory=dict)

    def all(self) -> list[_File]:
        """Return the files in it and below."""
        return self.files + [
            file for name in sorted(self.folders) for file in self.folders[name].all()
        ]


def suggest_sources(folder: Path, own: str = "") -> list[SuggestedSource]:
    """Return sources for everything below a folder (hidden files and the file `own` aside), in the
    order of their paths.

    Raises:
        SourceError: the folder is missing or holds no file.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: there is no such folder")
    listing = list_source(Source(path=".", name="survey"), folder)
    files = _guessed([file for file in listing.files if file.origin != own], folder.resolve().name)
    tree = _tree(files)
    found = _decide(tree, project_roots(file.origin for file in files))
    if not found:
        raise SourceError(f"{folder}: nothing in it can be read")
    return _named(sorted(found, key=lambda one: (one.path, one.kind)), folder)


def _guessed(files: Sequence[RawFile], top: str) -> list[_File]:
    """Guess every file below a folder called `top`, but for those whose neighbors of the same
    suffix all agree.
    """
    seen: dict[tuple[str, str], Counter[Detection]] = {}
    out = []
    for file in files:
        bare = _File(file.origin, file.size, Detection(None, "", ""))
        votes = seen.setdefault((file.origin.rpartition("/")[0], bare.suffix), Counter())
        if len(votes) == 1 and votes.total() >= SAMPLE_FILES:
            one = next(iter(votes))
        else:
            one = detect_kind(file.path, f"{top}/{file.origin}")
            votes[one] += 1
        out.append(replace(bare, guess=one))
    return out


def _tree(files: Sequence[_File]) -> _Folder:
    top = _Folder("")
    for file in files:
        here = top
        for part in file.origin.split("/")[:-1]:
            here = here.folders.setdefault(part, _Folder(f"{here.path}/{part}".lstrip("/")))
        here.files.append(file)
    return top


def _decide(folder: _Folder, projects: frozenset[str]) -> list[SuggestedSource]:
    """Return the sources of a folder: one if it is of one kind, else those of its parts."""
    files = folder.all()
    if not files:
        return []
    kind = _whole(folder, files, projects)
    if kind is not None:
        return [_found(kind, folder.path or ".", files)]
    found = [
        part for name in sorted(folder.folders) for part in _decide(folder.folders[name], projects)
    ]
    found += list(_divided(folder.files, f"{folder.path}/*".lstrip("/")))
    if len(found) <= MAX_SOURCES or not folder.path:
        return found
    divided = list(_divided(files, folder.path))
    return divided if len(divided) < len(found) else found


def _whole(folder: _Folder, files: Sequence[_File], projects: frozenset[str]) -> str | None:
    """Return the kind of a whole folder, or None when it is mixed."""
    counts, sizes = _votes(files)
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


def _votes(files: Sequence[_File]) -> tuple[Counter[str], Counter[str]]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for file in files:
        if file.guess.kind is not None:
            counts[file.guess.kind] += 1
            sizes[file.guess.kind] += file.size
    return counts, sizes


def _divided(files: Sequence[_File], path: str) -> Iterator[SuggestedSource]:
    """Yield one source a kind for files of several kinds, told apart by suffix; a suffix goes where
    most of its bytes are.
    """
    if not files:
        return
    owners = _owners(files)
    for kind in sorted(set(owners.values())):
        suffixes = [suffix for suffix in sorted(owners) if owners[suffix] == kind]
        mine = [file for file in files if owners[file.suffix] == kind]
        alone = len(set(owners.values())) == 1
        yield _found(kind, path, mine, () if alone else tuple(_patterns(suffixes, mine)))


def _owners(files: Sequence[_File]) -> dict[str, str]:
    sizes: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for file in files:
        votes = sizes.setdefault(file.suffix, Counter())
        if file.guess.kind is not None:
            votes[file.guess.kind] += file.size
            total[file.guess.kind] += file.size
    # What says nothing goes with the largest kind, which lists it as rejected.
    rest = min(total, key=lambda kind: (-total[kind], kind)) if total else "text"
    return {
        suffix: min(votes, key=lambda kind: (-votes[kind], kind)) if votes else rest
        for suffix, votes in sizes.items()
    }


def _patterns(suffixes: Sequence[str], files: Sequence[_File]) -> list[str]:
    """Return patterns that name exactly these files among those of other suffixes."""
    patterns: list[str] = []
    for suffix in suffixes:
        names = sorted(
            {
                re.sub(r"([*?\[])", r"[\1]", file.origin.rpartition("/")[2])
                for file in files
                if file.suffix == suffix
            }
        )
        # Case counts in patterns, and a file without a suffix has nothing but its name.
        same = suffix and all(name.endswith(suffix) for name in names)
        patterns += [f"*{suffix}"] if same else names
    return patterns


def _found(
    kind: str, path: str, files: Sequence[_File], include: tuple[str, ...] = ()
) -> SuggestedSource:
    mine = [
        file.guess
        for file in files
        if file.guess.kind == kind or (file.guess.kind is None and file.guess.readable)
    ]
    unread = [file.guess for file in files if not file.guess.readable]
    others = len(files) - len(mine) - len(unread)
    parts = [
        *_whys(mine),
        *([f"{others:,} of other kinds"] if others else []),
        *(f"not read: {why}" for why in _whys(unread, 6)),
    ]
    return SuggestedSource(
        kind,
        path,
        len(files),
        sum(file.size for file in files),
        "; ".join(parts),
        "",
        include,
        len(unread) < len(files),
    )


def _whys(guesses: Sequence[Detection], most: int = 3) -> list[str]:
    """Return what was seen, the commonest first."""
    counts = Counter(detect_kind.why for detect_kind in guesses)
    return [
        f"{count:,} × {why}"
        for why, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
    ]


def _named(found: Sequence[SuggestedSource], folder: Path) -> list[SuggestedSource]:
    """Give every source a name of its own: its path, and its kind where that is not enough."""
    names: Counter[str] = Counter()
    out = []
    for one in found:
        path = one.path.removesuffix("/*").strip("*.") or folder.resolve().name
        name = re.sub(r"[^\w.+-]+", "-", path).strip("-.")[:60] or one.kind
        name = f"{name}-{one.kind}" if names[name] else name
        names[name] += 1
        out.append(replace(one, name=name if names[name] == 1 else f"{name}-{names[name]}"))
    return out
