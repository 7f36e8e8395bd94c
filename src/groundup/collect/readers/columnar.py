"""Rows of Parquet files, Arrow files (Feather) and Arrow streams."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from groundup.artifacts.document import Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.files.streams import DamagedError, Item, spool

# Rows in memory at a time. A few bytes of such a file may expand to megabytes.
BATCH = 64


def read_columnar(item: Item) -> Iterator[tuple[int, Any | Reject]]:
    """Yield the rows of a Parquet file, an Arrow file (Feather), or an Arrow stream."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_parquet = detect_format(item.name, item.head) == "parquet"
    file: Any
    batches: Iterable[Any]
    index = 0
    try:
        if is_parquet:
            file = pq.ParquetFile(item.path or spool(item.stream))
            batches = file.iter_batches(batch_size=BATCH)
        elif item.head.startswith(b"ARROW1"):
            file = pa.ipc.open_file(item.path or spool(item.stream))
            batches = map(file.get_batch, range(file.num_record_batches))
        else:
            # `datasets` saves streams.
            file = batches = pa.ipc.open_stream(_ChunkedReader(item.stream))
        with file:
            for batch in batches:
                if not is_parquet:
                    # Arrow trusts the offsets of a file, and a wrong one crashes the process.
                    batch.validate(full=True)
                for start in range(0, batch.num_rows, BATCH):
                    for record in batch.slice(start, BATCH).to_pylist():
                        yield index, record
                        index += 1
    except (pa.ArrowException, OSError) as error:
        detail = f"not {'Parquet' if is_parquet else 'Arrow'}: {' '.join(str(error).split())[:200]}"
        raise DamagedError("damaged", detail) from None


class _ChunkedReader(io.RawIOBase):
    """A stream that reads in chunks, so a length field that lies allocates no memory."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all that are left."""
        chunks = []
        while size and (chunk := self._stream.read(min(size, 1 << 20) if size > 0 else 1 << 20)):
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)
