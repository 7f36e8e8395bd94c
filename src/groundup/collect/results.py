"""What the records of raw files become: the two tables of a shard, and counts of what is in them.

The number of a record, which its id is made of, is known only when the records before it were
counted. Where counting takes nearly as long as reading, a piece of a file is read once, into such
tables with records numbered from 0, and they get their numbers when they are copied into the shard:

    collect/count   write_results   RUN/.staging/results/NAME/  documents.parquet, dropped.parquet
    collect/shard   copy_results    its artifact                the same, row group by row group

The staging area is emptied when a run begins.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from groundup.artifacts.document import (
    DOCUMENT,
    DROPPED,
    MAX_DOCUMENT_BYTES,
    Document,
    Reject,
    TableWriter,
    document_id,
    read_batches,
)
from groundup.artifacts.forgotten import REASON
from groundup.collect.charset import repair_text
from groundup.recipe import Source
from groundup.runtime.store import Facts

TABLES = {"documents.parquet": DOCUMENT, "dropped.parquet": DROPPED}
_FACTS = "facts.json"
MAX_DETAIL = 300
# Pages of which less than this share of the visible text is kept are listed in the facts.
LOW_SHARE = 0.2
MAX_LISTED = 100


@dataclass
class CollectedShardWriter:
    """The two tables of a shard, and counts of what went into them."""

    source: Source
    documents: TableWriter
    dropped: TableWriter
    # Origin and record of documents that are listed without their text.
    forgotten: frozenset[tuple[str, int]] = frozenset()
    reasons: Counter[str] = field(default_factory=Counter)  # number of dropped records by reason
    left_out: int = 0  # number of sentences that readers left out of the documents
    # Pages of which the main text was taken, with their visible and kept characters.
    main_text: Counter[str] = field(default_factory=Counter)
    # Those of which little was kept: origin, record and share.
    mostly_left_out: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, origin: str, result: Document | Reject) -> None:
        """Write a document, or the reason why there is none."""
        name, record = self.source.name, result.record
        place: dict[str, object] = {"id": document_id(name, origin, record)}
        place |= {"source": name, "origin": origin, "record": record}
        if (origin, record) in self.forgotten:
            result = Reject(REASON, record)
        if isinstance(result, Document):
            text = repair_text(result.text)
            size = len(text) if text.isascii() else len(text.encode())
            if not text.strip():
                result = Reject("empty", record)
            elif size > MAX_DOCUMENT_BYTES:
                result = Reject("too-large", record, f"{size:,} bytes of text")
        if isinstance(result, Reject):
            self.reasons[result.reason] += 1
            detail = repair_text(result.detail)[:MAX_DETAIL]
            self.dropped.add({**place, "reason": result.reason, "detail": detail})
            return
        turns = [
            {key: repair_text(value) for key, value in turn.items()} for turn in result.turns or ()
        ]
        row = {
            **place,
            "text": text,
            "kind": self.source.kind,
            "group": f"{self.source.kind}:{repair_text(result.group or origin)}",
            "license": repair_text(result.license) or self.source.license,
            "language": repair_text(result.language),
            "turns": turns or None,
        }
        self.documents.add(row, size)
        self.left_out += result.left_out
        if result.visible:
            kept = len("".join(text.split()))
            self.main_text.update(pages=1, visible=result.visible, kept=kept)
            share = round(kept / result.visible, 4)
            if share < LOW_SHARE:
                self.mostly_left_out.append((origin, record, share))

    def facts(self) -> Facts:
        """Return what was written and dropped, and what readers left out of the documents."""
        facts: Facts = {
            "bytes_out": self.documents.bytes,
            "documents": self.documents.rows,
            "dropped": dict(sorted(self.reasons.items())),
            "sentences_left_out": self.left_out,
        }
        if self.main_text:
            lowest = sorted(self.mostly_left_out, key=lambda page: (page[2], page))[:MAX_LISTED]
            facts["main_text"] = {
                **self.main_text,
                "mostly_left_out": len(self.mostly_left_out),
                "least_kept": [list(page) for page in lowest],
            }
        return facts


@contextmanager
def shard_writer(
    folder: Path, source: Source, forgotten: Iterable[tuple[str, int]] = ()
) -> Iterator[CollectedShardWriter]:
    """Write the tables of a shard into a folder; they are whole when the block ends."""
    documents, dropped = (TableWriter(folder / name, TABLES[name]) for name in TABLES)
    with documents, dropped:
        yield CollectedShardWriter(source, documents, dropped, frozenset(forgotten))


def write_results(
    path: Path, source: Source, origin: str, results: Iterable[Document | Reject]
) -> int:
    """Write what a range of a raw file gives as the folder `path`; return how many records.

    The folder appears when it is whole. Whatever `results` raises leaves none.
    """
    # Two workers may have the same call, if one of them was given up as lost.
    growing = _private(path)
    growing.mkdir(parents=True)
    try:
        with shard_writer(growing, source) as writer:
            for result in results:
                writer.add(origin, result)
        (growing / _FACTS).write_text(json.dumps(writer.facts()))
        with suppress(OSError):  # the other one was faster
            growing.rename(path)
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return writer.documents.rows + writer.dropped.rows


def copy_results(path: Path, folder: Path, first: int) -> Facts | None:
    """Move what `write_results` wrote into a shard, and return its facts; None if there is nothing.

    `first` is the number of the first record. The tables have the bytes that reading would give.
    """
    # Whoever has it under another name has it alone, and a copy that is killed leaves no half.
    taken = _private(path)
    try:
        path.rename(taken)
    except FileNotFoundError:
        return None
    try:
        for name, schema in TABLES.items():
            with TableWriter(folder / name, schema) as writer:
                for batch in read_batches([taken / name]):
                    writer.write(_renumbered(batch, first))
        facts: Facts = json.loads((taken / _FACTS).read_text())
    finally:
        shutil.rmtree(taken)
    for page in facts.get("main_text", {}).get("least_kept", ()):
        page[1] += first
    return facts


def _private(path: Path) -> Path:
    """Return a name beside a path that no other process has."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")


def _renumbered(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """Return rows of one raw file with `first` added to their numbers, and the ids that follow."""
    source, origin = (batch.column(name)[0].as_py() for name in ("source", "origin"))
    numbers = [first + number for number in batch.column("record").to_pylist()]
    ids = [document_id(source, origin, number) for number in numbers]
    columns = {"id": pa.array(ids, pa.string()), "record": pa.array(numbers, pa.int64())}
    names = batch.schema.names
    arrays = [columns.get(name, batch.column(name)) for name in names]
    return pa.RecordBatch.from_arrays(arrays, names)
