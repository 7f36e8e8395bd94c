"""Reads the raw files of one shard; writes `documents.parquet` and `dropped.parquet`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from groundup.artifacts.document import (
    DOCUMENT,
    DROPPED,
    MAX_DOCUMENT_BYTES,
    Document,
    Reject,
    TableWriter,
    document_id,
)
from groundup.artifacts.forgotten import REASON
from groundup.collect.charset import repair_text
from groundup.collect.digests import Known
from groundup.collect.files.archives import Refused, open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item, read_all
from groundup.collect.licenses import (
    archive_project,
    detect_license,
    is_license_file,
    project_licenses,
    project_root,
)
from groundup.collect.readers.registry import Reader, read_item
from groundup.collect.readers.user import own_reader
from groundup.recipe import Source
from groundup.runtime.store import Facts

MAX_DETAIL = 300


@dataclass
class Output:
    """The two tables of a shard, and what went into them."""

    source: Source
    documents: TableWriter
    dropped: TableWriter
    # Origin and record of what is left out because a person asked for it.
    forgotten: frozenset[tuple[str, int]] = frozenset()
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, origin: str, found: Document | Reject) -> None:
        """Write a document, or the reason why there is none."""
        if (origin, found.record) in self.forgotten:
            found = Reject(REASON, found.record)
        text = repair_text(found.text) if isinstance(found, Document) else ""
        size = len(text) if text.isascii() else len(text.encode())
        if isinstance(found, Reject):
            self.drop(origin, found)
        elif not text.strip():
            self.drop(origin, Reject("empty", found.record))
        elif size > MAX_DOCUMENT_BYTES:
            self.drop(origin, Reject("too-large", found.record, f"{size:,} bytes of text"))
        else:
            self.documents.add(self._row(origin, found, text), size)

    def _row(self, origin: str, found: Document, text: str) -> dict[str, object]:
        turns = (
            [{key: repair_text(value) for key, value in turn.items()} for turn in found.turns]
            if found.turns
            else None
        )
        return {
            "id": document_id(self.source.name, origin, found.record),
            "text": text,
            "kind": self.source.kind,
            "source": self.source.name,
            "origin": origin,
            "record": found.record,
            "group": f"{self.source.kind}:{repair_text(found.group or origin)}",
            "license": repair_text(found.license) or self.source.license,
            "language": repair_text(found.language),
            "turns": turns,
        }

    def drop(self, origin: str, reject: Reject) -> None:
        """Write the reason why a record gave no document."""
        self.reasons[reject.reason] += 1
        self.dropped.add(
            {
                "id": document_id(self.source.name, origin, reject.record),
                "source": self.source.name,
                "origin": origin,
                "record": reject.record,
                "reason": reject.reason,
                "score": None,
                "duplicate_of": None,
                "detail": repair_text(reject.detail)[:MAX_DETAIL],
            }
        )


def collect_shard(
    folder: Path,
    files: Sequence[Known],
    source: Source,
    projects: Mapping[str, str] | None = None,
    forgotten: Sequence[tuple[str, int]] = (),
    root: Path | None = None,
) -> Facts:
    """Read raw files and write what they hold; every record is a document, or is listed with the
    reason.

    Args:
        folder: where the tables go.
        files: the raw files, as they were hashed.
        source: the source that they belong to.
        projects: roots of source trees among the files → their licenses, for code.
        forgotten: origin and record of documents that are listed without their text.
        root: folder of the recipe, where the source has a reader of the user's own.

    Raises:
        SourceError: a file is not what was hashed any more.
    """
    reader = own_reader(source.reader, root or Path()) if source.reader else None
    with ExitStack() as stack:
        documents = stack.enter_context(TableWriter(folder / "documents.parquet", DOCUMENT))
        dropped = stack.enter_context(TableWriter(folder / "dropped.parquet", DROPPED))
        output = Output(source, documents, dropped, frozenset(forgotten))
        for known in files:
            _collect_file(known, source, projects or {}, output, reader)
    return facts(output, [known.file.size for known in files])


def facts(output: Output, sizes: Sequence[int]) -> Facts:
    """Return what a shard counted."""
    return {
        "source": output.source.name,
        "kind": output.source.kind,
        "files": len(sizes),
        "bytes_in": sum(sizes),
        "bytes_out": output.documents.bytes,
        "documents": output.documents.rows,
        "dropped": dict(sorted(output.reasons.items())),
    }


def _collect_file(
    known: Known, source: Source, projects: Mapping[str, str], output: Output, reader: Reader | None
) -> None:
    try:
        file = known.file.path.open("rb")
    except OSError:
        raise known.changed() from None
    seen = False
    with file:
        known.check(file.fileno())
        inside = _archive_projects(known, file, source) if source.kind == "code" else {}
        for item in _items(known, file, source):
            seen = True
            if isinstance(item, Refused):
                output.add(item.origin, Reject(item.reason, detail=item.detail))
                continue
            for found in read_item(_placed(item, inside or projects), source, reader):
                output.add(item.origin, found)
    if not seen:
        output.add(
            known.file.origin,
            Reject(
                "nothing-selected",
                detail="an archive without any member that the source's patterns name",
            ),
        )
    known.check_after()


def _items(known: Known, file: IO[bytes], source: Source) -> Iterator[Item | Refused]:
    file.seek(0)
    wanted = Selection(source.include, source.exclude)
    return open_items(known.file.path, file, known.file.origin, known.file.size, wanted)


def _placed(item: Item, projects: Mapping[str, str]) -> Item:
    """Return the item with its project and the project's license."""
    archive, bang, _ = item.origin.rpartition("!/")
    roots = frozenset(projects)
    root = project_root(item.origin, roots)
    project = archive_project(archive.partition("!/")[0]) if bang else root.rpartition("/")[2]
    return replace(item, project=project, license=projects.get(root, ""))


def _archive_projects(known: Known, file: IO[bytes], source: Source) -> dict[str, str]:
    """Return the projects inside an archive with their licenses, by a first pass over its names; {}
    for a plain file.
    """
    paths: list[str] = []
    licenses: dict[str, str] = {}
    every = Selection((), source.exclude)
    for item in open_items(known.file.path, file, known.file.origin, known.file.size, every):
        paths.append(item.origin)
        if isinstance(item, Item) and is_license_file(item.origin):
            licenses.setdefault(item.origin, _license(item))
    if not any("!/" in path for path in paths):
        return {}
    return project_licenses(paths, licenses)


def _license(item: Item) -> str:
    try:
        return detect_license(read_all(item.stream, 1 << 20).decode("utf-8", "replace"))
    except DamagedError:
        return ""
