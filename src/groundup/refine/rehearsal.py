"""Compile the kernels of refine side by side, before the first shard needs them.

numba compiles a kernel when it is first called, which takes one core some twenty seconds for all of
them. Workers that began with shards would all compile the same kernels at the same time. So, on a
machine that has none yet, each worker first makes a part of the steps on two small texts. numba
keeps what it compiles on disk, where the other workers find it.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from groundup.artifacts.arrays import lengths, text_buffers
from groundup.artifacts.document import DOCUMENT, TableWriter
from groundup.refine.clean.pipeline import DEFAULT_PERSONAL, clean_texts
from groundup.refine.dedup.duplicates import find_duplicates
from groundup.refine.dedup.lsh_index import WIDTH, document_keys, write_index
from groundup.refine.filter import language
from groundup.refine.filter.apply import apply_filters
from groundup.refine.filter.rules import RULE_SETS
from groundup.refine.lines import LineIndex
from groundup.refine.out_of_core import Scratch, parse_ids
from groundup.refine.split import split_documents
from groundup.refine.stats import text_stats
from groundup.runtime.workers.map import Workers

# Two equal texts are duplicates, of one cluster.
TEXTS = [
    "The cat sat on the mat.\n\n- It slept \u2014 1 + 1 = 2.\ncat@example.org, 555 0100\n" * 4
] * 2
KIND = "web"


def compile_kernels(workers: Workers) -> None:
    """Compile all kernels that most runs need, by several workers; one compiles as it goes."""
    if workers.count > 1:
        names = [f"kernels to {part}" for part in PARTS]
        for _ in workers.map(rehearse, [(part,) for part in PARTS], names):
            pass


def rehearse(part: str) -> None:
    """Make one of the PARTS."""
    # The collector goes through all objects of numba time and again: 6 % of compiling.
    gc.disable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder), pa.array(TEXTS))
    finally:
        gc.enable()


def _clean(folder: Path, texts: pa.StringArray) -> None:
    clean_texts(texts, np.zeros(len(texts), np.bool_), DEFAULT_PERSONAL)


def _detect(folder: Path, texts: pa.StringArray) -> None:
    language.detect(texts)


def _filter(folder: Path, texts: pa.StringArray) -> None:
    text_stats(text_buffers(texts))
    for rules in RULE_SETS.values():
        if rules.cut_lines:
            rules.cut_lines(texts)
    apply_filters(_batch(texts), KIND, list(RULE_SETS), folder)


def _index_lines(folder: Path, texts: pa.StringArray) -> None:
    with (
        Scratch(folder / "scratch") as scratch,
        scratch.rows("hashes", np.uint64) as hashes,
        scratch.rows("rows", np.uint32) as rows,
    ):
        LineIndex(folder, hashes, rows).append(text_buffers(texts))


def _compare(folder: Path, texts: pa.StringArray) -> None:
    """Find duplicates in a shard and split it."""
    batch, (keys, hashes) = _batch(texts), document_keys(text_buffers(texts))
    with TableWriter(folder / "documents.parquet", DOCUMENT) as table:
        table.write(batch)
    with Scratch(folder / "scratch") as scratch, scratch.rows("keys", np.uint64, WIDTH) as file:
        file.append(keys)
        write_index(folder, file)
    arrays = {"ids": parse_ids(batch.column("id")), "hashes": hashes, "sizes": lengths(texts)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (lists := folder / "lists").mkdir()
    shards = [(f"{KIND}.shard", folder)]
    find_duplicates(lists, shards, 0.8)
    split_documents(lists, shards, {KIND: KIND}, [lists / "duplicates.parquet"], {}, 1, 0.5)


def _batch(texts: pa.StringArray) -> pa.RecordBatch:
    rows = [
        dict.fromkeys(DOCUMENT.names) | {"id": f"{n:032x}", "text": text, "group": "web:"}
        for n, text in enumerate(texts.to_pylist())
    ]
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENT)


# The longest first, so that workers end at about the same time.
PARTS: Mapping[str, Callable[[Path, pa.StringArray], None]] = {
    "compare": _compare,
    "clean": _clean,
    "filter": _filter,
    "detect languages": _detect,
    "index lines": _index_lines,
}
