"""Results of a reader, kept on disk for the rest of a run.

The number of a record, which its id is made of, is known only when the records before it were
counted. Where counting takes nearly as long as reading, a piece of a file is read once, with its
records numbered from 0; they get their numbers when they are taken out again.

A file holds pickled lists of results, in LZ4. Only the program that wrote it reads it: it lies in
the staging area, which is emptied when a run begins.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from groundup.artifacts.document import Document, Reject

_CODEC = "lz4"
# Characters of text that are pickled at a time; a result without text counts as a line.
_BLOCK_CHARACTERS, _LINE = 4 << 20, 80


def write_results(path: Path, results: Iterable[Document | Reject]) -> int:
    """Write results, and return how many; the file appears when it is whole.

    Whatever `results` raises leaves no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two workers may have the same call, if one of them was given up as lost.
    growing = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    count = characters = 0
    block: list[Document | Reject] = []
    try:
        with pa.CompressedOutputStream(str(growing), _CODEC) as file:
            for result in results:
                block.append(result)
                count += 1
                characters += len(result.text) if isinstance(result, Document) else _LINE
                if characters >= _BLOCK_CHARACTERS:
                    pickle.dump(block, cast("Any", file), pickle.HIGHEST_PROTOCOL)
                    block, characters = [], 0
            pickle.dump(block, cast("Any", file), pickle.HIGHEST_PROTOCOL)
        growing.rename(path)
    finally:
        growing.unlink(missing_ok=True)
    return count


def read_results(path: Path, first: int) -> Iterator[Document | Reject]:
    """Yield the results of a file; `first` is the number of its first record."""
    with suppress(EOFError), pa.CompressedInputStream(str(path), _CODEC) as file:
        while True:
            for result in pickle.load(cast("Any", file)):
                yield replace(result, record=result.record + first)
