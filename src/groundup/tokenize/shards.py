"""Documents → token shards. Reads refined documents; writes train.npy, validation.npy and
index.parquet.

A shard is a plain one-dimensional .npy of uint16, or of uint32 when the vocabulary has more than
65,536 entries: the tokens of its documents in order, each document followed by the end-of-text id.
The index says which document stands where, so that any token leads back to its document.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import TRAIN, VALIDATION, RefinedShard
from groundup.artifacts.document import TableWriter, read_batches
from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import token_type
from groundup.errors import GroundupError

SPLITS = {TRAIN: "train", VALIDATION: "validation"}

INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        # Of the first token in SPLIT.npy, and the number of tokens with the end-of-text id.
        ("offset", pa.int64()),
        ("length", pa.int64()),
        # UTF-8 bytes of the text.
        ("bytes", pa.int64()),
    ]
)

# The .npy header is rewritten in place once the number of tokens is known, so it has a fixed size.
_HEADER_BYTES = 128


class TokenWriter:
    """Writes a one-dimensional .npy file piece by piece; ids outside the vocabulary are refused."""

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
            GroundupError: an id does not belong to the vocabulary: stored in this type it would
                become another token.
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
            self._file.write(_header(self.dtype, self.tokens))
        self._file.close()


def _header(dtype: np.dtype[Any], count: int) -> bytes:
    """Return a .npy header, format 1.0, of exactly _HEADER_BYTES (numpy.lib.format describes it)."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({count},), }}".encode()
    size = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1) + b"\n"


def tokenize_shard(folder: Path, shard: RefinedShard, tokenizer_folder: Path) -> dict[str, Any]:
    """Tokenize the kept documents of a shard into `folder`; memory is that of one row group.

    Returns:
        facts: documents, tokens (end-of-text ids included) and UTF-8 bytes by split.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    facts = {name: {"documents": 0, "tokens": 0, "bytes": 0} for name in SPLITS.values()}
    with ExitStack() as stack:
        writers = {
            s: stack.enter_context(TokenWriter(folder / f"{name}.npy", tokenizer.vocab_size))
            for s, name in SPLITS.items()
        }
        index = stack.enter_context(TableWriter(folder / "index.parquet", INDEX))
        for batch in shard.batches(["id", "text", "split"]):
            for verdict, name in SPLITS.items():
                part = batch.filter(pc.equal(batch["split"], verdict))
                if part.num_rows:
                    rows = _append(writers[verdict], tokenizer, part, shard.source, name)
                    index.write(rows)
                    _count(facts[name], rows)
    return {"source": shard.source} | facts


def _append(
    writer: TokenWriter, tokenizer: Tokenizer, batch: pa.RecordBatch, source: str, split: str
) -> pa.Table:
    """Write the tokens of one batch and return its rows of the index."""
    start = writer.tokens
    ids, lengths = with_ends(*tokenizer.encode_batch(batch["text"]), tokenizer.end_id)
    writer.write(ids)
    offsets = start + np.cumsum(lengths) - lengths
    constant = [pa.repeat(value, batch.num_rows) for value in (source, split)]
    sizes = pc.binary_length(batch["text"]).cast(pa.int64())
    return pa.table(
        [batch["id"], *constant, pa.array(offsets), pa.array(lengths), sizes], schema=INDEX
    )


def with_ends(
    ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], end: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Put `end` after each run of `lengths` ids."""
    return np.insert(ids, np.cumsum(lengths), end), lengths + 1


def _count(fact: dict[str, int], rows: pa.Table) -> None:
    fact["documents"] += rows.num_rows
    fact["tokens"] += pc.sum(rows["length"]).as_py()
    fact["bytes"] += pc.sum(rows["bytes"]).as_py()


def join_indexes(folder: Path, indexes: dict[str, Path]) -> dict[str, Any]:
    """Write `index.parquet` with the rows of all shards in order, and the shard's name in front of
    each.
    """
    schema = pa.schema([("shard", pa.string()), *INDEX])
    with TableWriter(folder / "index.parquet", schema) as writer:
        for name, batch in _index_batches(indexes):
            table = pa.Table.from_batches([batch])
            writer.write(table.add_column(0, "shard", pa.repeat(name, len(table))))
    return {"documents": writer.rows}


def _index_batches(indexes: dict[str, Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for name, path in indexes.items():
        for batch in read_batches([path]):
            yield name, batch
