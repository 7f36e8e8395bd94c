"""What a document is: its identity, its Arrow schemas, and how tables are written and read.

A reader of the stage `collect` yields documents and rejects:

    Document("The cat sat …", record=3, group="cats.txt", license="CC0")
    Reject("malformed", record=4, detail="line 4 is not JSON")

The collector writes them as two Parquet tables:

    raw file → reader ─┬ Document → DOCUMENT   collect/documents/SOURCE.SHARD.parquet
                       └ Reject   → DROPPED    collect/dropped/SOURCE.SHARD.parquet

`DOCUMENT` has one row a document:

    id                                 text           kind   source  origin        record  …
    9f0c2ab71d44…  (32 hex digits)     The cat sat …  books  mine    raw/cats.txt  3

and `DROPPED` one row for every record that gave no document, or that a later stage dropped, with
the reason. The id is a hash of source, origin and record number. So it does not depend on the text,
and stays the same when cleaning changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# Role of an answer that is the label of a task; every other role is one of a conversation.
LABEL = "label"
# Role of an answer that its record marks as not to be learned; it is context of what follows.
UNLEARNED = "assistant-unlearned"

TURN = pa.struct([("role", pa.string()), ("content", pa.string())])

DOCUMENT = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("kind", pa.string()),
        ("source", pa.string()),
        # Path of the raw file in its source; members of archives follow after "!/".
        ("origin", pa.string()),
        ("record", pa.int64()),
        # The unit that is never split between train and validation, such as a book or a host.
        ("group", pa.string()),
        ("license", pa.string()),
        ("language", pa.string()),
        # Conversations keep their turns beside the rendered text, so that tuning need not parse it.
        ("turns", pa.list_(TURN)),
    ]
)

DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("origin", pa.string()),
        ("record", pa.int64()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("duplicate_of", pa.string()),
        ("detail", pa.string()),
    ]
)

# Later passes read a row group at a time. About 8 MB of text keep their memory small, whatever the
# size of the shard.
ROW_GROUP_BYTES = 8 << 20
# pyarrow's string columns hold 2 GB. A document beyond this limit is never prose, and would exceed
# every bound on memory per batch.
MAX_DOCUMENT_BYTES = 64 << 20

Turn = dict[str, str]
# A row of a table as a dictionary.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """One document as a reader yields it, before it has an id."""

    text: str  # decoded, not yet cleaned
    record: int = 0  # number of the record in its origin; malformed records count too
    group: str = ""  # unit that may not be split between train and validation, without its kind
    license: str = ""
    language: str = ""
    turns: Sequence[Turn] | None = None  # messages with `role` and `content`, of conversations
    left_out: int = 0  # sentences that the reader left out, as a template's words are not known
    # Characters that the record shows, without white space, where the reader takes only a part of
    # them; the facts of the shard say how many it took.
    visible: int = 0


@dataclass(frozen=True, slots=True)
class Reject:
    """A record (or a whole raw file) that gave no document, and why."""

    reason: str  # a short code, such as `redirect`, `binary`, `malformed`
    record: int = 0
    detail: str = ""  # for a person


def document_id(source: str, origin: str, record: int) -> str:
    """Return the 128-bit id (32 hexadecimal digits) of a record of a raw file."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (source, origin, str(record)):
        data = part.encode("utf-8", "surrogatepass")
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def dropped_rows(
    batch: pa.RecordBatch,
    reasons: pa.Array,
    scores: pa.Array,
    details: pa.Array,
    duplicate_of: pa.Array | None = None,
) -> pa.RecordBatch:
    """Return rows of the DROPPED schema for the documents of a batch."""
    kept = duplicate_of if duplicate_of is not None else pa.nulls(len(batch), pa.string())
    origin = [batch.column(name) for name in ("id", "source", "origin", "record")]
    columns = [*origin, reasons, scores, kept, details]
    arrays = [column.cast(f.type) for column, f in zip(columns, DROPPED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=DROPPED)


class TableWriter:
    """Writes rows of one schema as Parquet, in row groups of about `ROW_GROUP_BYTES`."""

    def __init__(self, path: Path, schema: pa.Schema, codec: str = "zstd") -> None:
        self.schema = schema
        self.rows = self.bytes = 0
        self._pending: list[dict[str, object]] = []
        self._pending_bytes = 0
        self._writer = pq.ParquetWriter(path, schema, compression=codec)

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, row: dict[str, object], size: int = 256) -> None:
        """Queue one row of about `size` bytes; `bytes` counts them."""
        self._pending.append(row)
        self._pending_bytes += size
        self.rows += 1
        self.bytes += size
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def write(self, table: pa.Table | pa.RecordBatch) -> None:
        """Write a table as one row group."""
        self._flush()
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        # Without rows Parquet would get an empty row group, which readers have to step over.
        if table.num_rows:
            self._writer.write_table(table.select(self.schema.names).cast(self.schema))
            self.rows += table.num_rows

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self.schema))
        self._pending.clear()
        self._pending_bytes = 0


def read_batches(
    paths: Iterable[Path], columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the row groups of Parquet files one by one, in order."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(columns) if columns else None)
                yield from table.combine_chunks().to_batches()


def matching(
    paths: Iterable[Path],
    column: str,
    values: Collection[str],
    columns: Sequence[str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows whose `column` is one of `values`, in order, one row group at a time."""
    value_set = pa.array(sorted(values), pa.string())
    for batch in read_batches(paths, columns):
        rows = batch.filter(pc.is_in(batch.column(column), value_set))
        if len(rows):
            yield rows
