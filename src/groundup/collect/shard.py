"""Shards: cut the raw files of a source into shards, and read one shard into two tables.

A shard is an artifact with `documents.parquet` and `dropped.parquet`: every record of its raw
files is a document in the first, or stands in the second with the reason.

Shards are content-defined. Whether a file starts a shard depends on its own origin only, so adding
or removing a file changes the shard that it is in and one neighbor at the most. Where a shard is
full first, the cuts up to the next such file move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from groundup.artifacts.document import Reject
from groundup.artifacts.kinds import KINDS
from groundup.collect.files.ahead import unpacked_ahead
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import ARCHIVES, Selection
from groundup.collect.files.streams import DamagedError, Item, read_all
from groundup.collect.licenses import (
    archive_project,
    detect_license,
    project_licenses,
    project_root,
)
from groundup.collect.pieces import PIECE_BYTES, Piece, open_item
from groundup.collect.readers.chat.people import (
    PEOPLE_FILES,
    People,
    nearest_people,
    read_people,
)
from groundup.collect.readers.code import is_license_file
from groundup.collect.readers.registry import Reader, read_item, user_reader
from groundup.collect.results import CollectedShardWriter, copy_results, shard_writer
from groundup.collect.sources import HashedFile, RawFile, origin_hash
from groundup.recipe import Source
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

# Raised by hand whenever a reader's output changes; a golden test fails when it changes without.
VERSION = 24
# One file in 256 starts a shard: a change redoes seconds of work, and a million files make few
# enough shards.
FILES_PER_SHARD = 256
SHARD_BYTES = PIECE_BYTES
# A smaller compressed file is read before a thread has started.
MIN_AHEAD = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive raw files, named by the hash of the first origin."""

    name: str
    files: tuple[RawFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its raw files."""
        return sum(file.size for file in self.files)


def cut_shards(
    files: Sequence[RawFile], per_shard: int = FILES_PER_SHARD, shard_bytes: int = SHARD_BYTES
) -> list[Shard]:
    """Return the shards of a source's files, which must be sorted by origin.

    A file that is longer than `shard_bytes` is a shard by itself, and may be cut into pieces.
    """
    groups: list[tuple[str, list[RawFile]]] = []
    size = 0
    for file in files:
        name = origin_hash(file.origin)
        full = size + file.size > shard_bytes
        if not groups or full or int(name, 16) % per_shard == 0:
            groups.append((name, []))
            size = 0
        groups[-1][1].append(file)
        size += file.size
    return [Shard(name, tuple(group)) for name, group in groups]


@build_step("collect/shard", version=VERSION)
def collect_shard(
    folder: Path,
    files: Sequence[HashedFile],
    source: Source,
    projects: Mapping[str, str] | None = None,
    forgotten: Sequence[tuple[str, int]] = (),
    root: Path | None = None,
    refused: Sequence[Sequence[str]] = (),
    people: Mapping[str, People] | None = None,
    piece: Piece | None = None,
    results: Path | None = None,
) -> Facts:
    """Read raw files; every record becomes a document, or is listed with the reason.

    `projects` has the license of each root of a source tree, and `people` who is who in each folder
    of an export of chats. `forgotten` are the origin and record of documents that are listed
    without their text, `refused` origin, reason and detail of files that are not opened. `root` is
    the folder of the recipe, for a user's reader. Of a file that is cut `piece` is read, or moved
    here from the folder `results`. Raises SourceError if a file is no longer what was hashed.
    """
    facts = None
    # A record that is to be forgotten is in the results.
    if piece and results and not forgotten:
        with files[0].open():
            facts = copy_results(results, folder, piece.first)
    if facts is None:
        known = _Known(projects or {}, people or {})
        with shard_writer(folder, source, forgotten) as writer:
            _collect_files(files, known, writer, root, piece)
            for origin, reason, detail in refused:
                writer.add(origin, Reject(reason, detail=detail))
        facts = writer.facts()
    return {
        "source": source.name,
        "kind": source.kind,
        "files": len(files) if piece is None or not piece.start else 0,
        "bytes_in": piece.size if piece else sum(hashed.file.size for hashed in files),
        **facts,
    }


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a raw file before it is read."""

    projects: Mapping[str, str]  # root of a source tree → license
    people: Mapping[str, People]  # folder of an export of chats → who is who in it

    def of(self, raw: RawFile, file: IO[bytes], source: Source) -> _Known:
        """Return it with what the members of an archive add, which takes a pass over it."""
        projects, people = self.projects, self.people
        if KINDS[source.kind].is_code:
            projects = _archive_projects(raw, file, source) or projects
        elif KINDS[source.kind].has_turns and raw.origin.lower().endswith(ARCHIVES):
            people = {**people, **_archive_people(raw, file, source)}
        file.seek(0)
        return _Known(projects, people)

    def place(self, item: Item, roots: frozenset[str]) -> Item:
        """Return an item with its project, license and people; `roots` are those of `projects`."""
        root = project_root(item.origin, roots)
        archive, in_archive, _ = item.origin.partition("!/")
        name = archive_project(archive) if in_archive else root.rpartition("/")[2]
        people = nearest_people(item.origin, self.people)
        return replace(item, project=name, license=self.projects.get(root, ""), people=people)


def _collect_files(
    files: Sequence[HashedFile],
    known: _Known,
    writer: CollectedShardWriter,
    root: Path | None,
    piece: Piece | None,
) -> None:
    name = writer.source.reader
    reader = user_reader(name, root or Path()) if name else None
    for hashed in files:
        with hashed.open() as file:
            _collect_file(hashed, file, known, writer, reader, piece)


def _collect_file(
    hashed: HashedFile,
    file: IO[bytes],
    known: _Known,
    writer: CollectedShardWriter,
    reader: Reader | None,
    piece: Piece | None,
) -> None:
    """Read every record of a raw file, or of a piece of it, or of the members of an archive."""
    raw, source = hashed.file, writer.source
    known = known.of(raw, file, source)
    roots, seen = frozenset(known.projects), False
    items: Iterable[Item | Refused]
    if piece is None:
        selection = Selection(source.include, source.exclude)
        items = open_items(raw.path, file, raw.origin, raw.size, selection)
    else:
        items = [open_item(hashed, file, source, piece)]
    for item in items:
        seen = True
        if isinstance(item, Refused):
            writer.add(item.origin, Reject(item.reason, detail=item.detail))
            continue
        is_large = raw.size > MIN_AHEAD and item.origin == raw.origin
        with unpacked_ahead(item) if is_large else nullcontext():
            for result in read_item(known.place(item, roots), source, reader):
                writer.add(item.origin, result)
    if not seen:
        detail = "an archive without any member that the source's patterns name"
        writer.add(raw.origin, Reject("nothing-selected", detail=detail))


def _archive_projects(raw: RawFile, file: IO[bytes], source: Source) -> dict[str, str]:
    """Return the projects inside an archive with their licenses, {} for a plain file.

    This is a first pass over the archive: a license file may come after the files that it covers.
    """
    paths, licenses = list[str](), dict[str, str]()
    selection = Selection((), source.exclude)
    for item in open_items(raw.path, file, raw.origin, raw.size, selection):
        paths.append(item.origin)
        if isinstance(item, Refused) or not is_license_file(item.origin):
            continue
        try:
            text = read_all(item.stream, 1 << 20).decode("utf-8", "replace")
        except DamagedError:
            text = ""
        licenses.setdefault(item.origin, detect_license(text))
    return project_licenses(paths, licenses) if any("!/" in path for path in paths) else {}


def _archive_people(raw: RawFile, file: IO[bytes], source: Source) -> dict[str, People]:
    """Return who is who in the exports of chats inside an archive, by folder; a first pass."""
    people: dict[str, People] = {}
    selection = Selection(PEOPLE_FILES, source.exclude)
    for item in open_items(raw.path, file, raw.origin, raw.size, selection):
        if not isinstance(item, Refused):
            with suppress(DamagedError):
                people[item.origin.rpartition("/")[0]] = read_people(read_all(item.stream))
    return people
