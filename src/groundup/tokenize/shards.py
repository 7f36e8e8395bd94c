"""Kept documents → token shards, and an index from each token back to its document.

A shard is a plain one-dimensional .npy file of uint16, or of uint32 if the vocabulary has more than
65,536 entries. It holds the tokens of its documents in order, each document followed by the
end-of-text id:

    document "b2" (3 tokens), document "07" (1 token)  →  [t0 t1 t2 end t3 end]

    id  source  split  offset  length  bytes          index.parquet of the shard
    b2  books   train       0       4     11
    07  books   train       4       2      5

The view's index.parquet holds the rows of all shards, with a first column `shard`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import VERDICTS, RefinedShard
from groundup.artifacts.document import TableWriter, read_batches
from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import token_type
from groundup.errors import GroundupError
from groundup.runtime.run import BuildStep
from groundup.runtime.store import Facts

INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        # First token in SPLIT.npy, and number of tokens including the end-of-text id.
        ("offset", pa.int64()),
        ("length", pa.int64()),
        # UTF-8 bytes of the text.
        ("bytes", pa.int64()),
    ]
)

# The .npy header is rewritten in place once the number of tokens is known, so its size is fixed.
_HEADER_BYTES = 128


class TokenWriter:
    """Writes a one-dimensional .npy file in pieces."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.path, self.vocab_size, self.dtype = path, vocab_size, token_type(vocab_size)
        self.tokens = 0
        self._file: IO[bytes] = path.open("wb")

    def __enter__(self) -> TokenWriter:
        self._file.write(bytes(_HEADER_BYTES))
        return self

    def write(self, ids: npt.NDArray[Any]) -> None:
        """Append ids.

        Raises:
            GroundupError: an id is outside the vocabulary; the file's type could turn it into
                another token.
        """
        if len(ids) and int(ids.max()) >= self.vocab_size:
            raise GroundupError(
                f"{self.path.name}: token id {int(ids.max())} is outside the vocabulary of"
                f" {self.vocab_size}"
            )
        self._file.write(ids.astype(self.dtype).tobytes())
        self.tokens += len(ids)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(_npy_header(self.dtype, self.tokens))
        self._file.close()


def _npy_header(dtype: np.dtype[Any], length: int) -> bytes:
    """Return a .npy header, format 1.0, of _HEADER_BYTES bytes (see numpy.lib.format)."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({length},), }}".encode()
    size = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n"


def tokenize_shard(folder: Path, shard: RefinedShard, tokenizer_folder: Path) -> Facts:
    """Tokenize the kept documents of a shard into `folder`; memory is bounded by one row group.

    Returns:
        facts: documents, tokens (end-of-text ids included) and UTF-8 bytes by split.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    facts = {split: {"documents": 0, "tokens": 0, "bytes": 0} for split in VERDICTS}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(TokenWriter(folder / f"{split}.npy", tokenizer.vocab_size))
            for split in VERDICTS
        }
        index = stack.enter_context(TableWriter(folder / "index.parquet", INDEX))
        for batch in shard.batches(["id", "text", "split"]):
            for split, verdict in VERDICTS.items():
                documents = batch.filter(pc.equal(batch["split"], verdict))
                if documents.num_rows:
                    rows = _append(writers[split], tokenizer, documents, shard.source, split)
                    index.write(rows)
                    facts[split]["documents"] += rows.num_rows
                    facts[split]["tokens"] += pc.sum(rows["length"]).as_py()
                    facts[split]["bytes"] += pc.sum(rows["bytes"]).as_py()
    return {"source": shard.source} | facts


def _append(
    writer: TokenWriter, tokenizer: Tokenizer, documents: pa.RecordBatch, source: str, split: str
) -> pa.Table:
    """Write the tokens of a batch of documents; return its rows of the index."""
    start = writer.tokens
    ids, lengths = with_ends(*tokenizer.encode_batch(documents["text"]), tokenizer.end_id)
    writer.write(ids)
    offsets = start + np.cumsum(lengths) - lengths
    constants = [pa.repeat(value, documents.num_rows) for value in (source, split)]
    sizes = pc.binary_length(documents["text"]).cast(pa.int64())
    columns = [documents["id"], *constants, pa.array(offsets), pa.array(lengths), sizes]
    return pa.table(columns, schema=INDEX)


def with_ends(
    ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], end: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Insert `end` after each document; `lengths` holds the ids of each in `ids`."""
    return np.insert(ids, np.cumsum(lengths), end), lengths + 1


def join_indexes(folder: Path, indexes: dict[str, Path]) -> Facts:
    """Write the index.parquet of all shards, in order of `indexes` (shard → its index)."""
    schema = pa.schema([("shard", pa.string()), *INDEX])
    with TableWriter(folder / "index.parquet", schema) as writer:
        for name, path in indexes.items():
            for batch in read_batches([path]):
                table = pa.Table.from_batches([batch])
                writer.write(table.add_column(0, "shard", pa.repeat(name, len(table))))
    return {"documents": writer.rows}


SHARD = BuildStep("tokenize/shard", 1, tokenize_shard)
JOIN = BuildStep("tokenize/index", 1, join_indexes)
