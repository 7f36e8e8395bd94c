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

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy_format
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import VERDICTS, RefinedShard
from groundup.artifacts.document import TableWriter, read_batches
from groundup.artifacts.tokenizer import FILE, Tokenizer
from groundup.artifacts.tokens import token_type
from groundup.errors import GroundupError
from groundup.runtime.run import build_step
from groundup.runtime.store import Facts

INDEX = pa.schema(
    dict.fromkeys(("id", "source", "split"), pa.string())
    # First token in SPLIT.npy; tokens including the end-of-text id; UTF-8 bytes of the text.
    | dict.fromkeys(("offset", "length", "bytes"), pa.int64())
)

_HEADER_BYTES = 128


class TokenWriter:
    """Writes a one-dimensional .npy file in pieces.

    The header is rewritten in place once the number of tokens is known. NumPy pads it, so that its
    size does not change.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.path, self.vocab_size, self.dtype = path, vocab_size, token_type(vocab_size)
        self.tokens = 0
        self._file: IO[bytes] = path.open("wb")

    def __enter__(self) -> TokenWriter:
        self._file.write(bytes(_HEADER_BYTES))
        return self

    def write(self, ids: npt.NDArray[Any]) -> None:
        """Append ids; raise a GroundupError for one outside the vocabulary.

        The file's type could turn it into another token.
        """
        if len(ids) and int(ids.max()) >= self.vocab_size:
            problem = f"token id {int(ids.max())} is outside the vocabulary of {self.vocab_size}"
            raise GroundupError(f"{self.path.name}: {problem}")
        self._file.write(ids.astype(self.dtype).tobytes())
        self.tokens += len(ids)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._file.seek(0)
            form = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.tokens,)}
            npy_format.write_array_header_1_0(self._file, form)
        self._file.close()


@build_step("tokenize/shard", version=1)
def tokenize_shard(folder: Path, shard: RefinedShard, tokenizer_folder: Path) -> Facts:
    """Tokenize the kept documents of a shard into `folder`; memory is bounded by one row group.

    The facts are documents, tokens (end-of-text ids included) and UTF-8 bytes by split.
    """
    tokenizer = _load_once(tokenizer_folder, (tokenizer_folder / FILE).stat().st_mtime_ns)
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
                count, writer = documents.num_rows, writers[split]
                if count == 0:
                    continue
                ids, lengths = tokenizer.encode_batch(documents["text"])
                ids, lengths = np.insert(ids, np.cumsum(lengths), tokenizer.end_id), lengths + 1
                offsets = writer.tokens + np.cumsum(lengths) - lengths
                writer.write(ids)
                constants = [pa.repeat(value, count) for value in (shard.source, split)]
                sizes = pc.binary_length(documents["text"]).cast(pa.int64())
                columns = [documents["id"], *constants, offsets, lengths, sizes]
                index.write(pa.table(columns, schema=INDEX))
                facts[split]["documents"] += count
                facts[split]["tokens"] += len(ids)
                facts[split]["bytes"] += pc.sum(sizes).as_py()
    size = sum(counts["bytes"] for counts in facts.values())
    return {"source": shard.source, "bytes_in": size} | facts


@functools.lru_cache(maxsize=1)
def _load_once(folder: Path, _changed: int) -> Tokenizer:
    """Load the tokenizer for all shards of a worker: its encoder remembers words."""
    return Tokenizer.load(folder)


@build_step("tokenize/index", version=1)
def join_indexes(folder: Path, indexes: dict[str, Path]) -> Facts:
    """Write the index.parquet of all shards, in order of `indexes` (shard → its index)."""
    schema = pa.schema([("shard", pa.string()), *INDEX])
    with TableWriter(folder / "index.parquet", schema) as writer:
        for name, path in indexes.items():
            for batch in read_batches([path]):
                table = pa.Table.from_batches([batch])
                writer.write(table.add_column(0, "shard", pa.repeat(name, len(table))))
    return {"documents": writer.rows}
