"""Peak memory of duplicates and split for up to 50 million documents, whose index is made up, a
twentieth of them in families of four.

A child process does the work with `[refine] memory_megabytes` at its default. What is sampled is
its anonymous memory, which is
its own until it gives it back, and its resident memory: with it the mapped files, whose pages the
system takes back whenever it needs the room. MILLIONS="1 10" leaves out the fifty, which take
twenty minutes and 45 GB of disk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import machine, watched
from groundup.artifacts.document import DOCUMENT
from groundup.recipe import Refine
from groundup.refine.dedup.lsh_index import WIDTH
from groundup.refine.dedup.minhash import mix_all
from groundup.refine.out_of_core import parse_ids

MILLIONS = tuple(map(int, os.environ.get("MILLIONS", "1 10 50").split()))
SHARD, FAMILY, TWIN_SHARE = 1_000_000, 4, 0.05
WORDS, LETTERS = 6, 8
# Index, ids, sizes, hashes, Parquet, and what the split writes while it works.
DISK_BYTES = 950


def measure() -> dict[str, object] | None:
    figures: dict[str, object] = {"memory_megabytes": Refine().memory_megabytes}
    for millions in MILLIONS:
        with tempfile.TemporaryDirectory() as folder:
            if shutil.disk_usage(folder).free < millions * 1_000_000 * DISK_BYTES:
                print(f"{millions} million documents: left out, the disk is too small")
                continue
            for number in range(millions):
                write_shard(Path(folder) / f"s.{number:03}", number, millions)
            figures |= {
                f"{millions} million documents: {name}": value
                for name, value in lists_of(Path(folder)).items()
            }
    what = (
        "Peak memory of the lists of duplicates and of the split, over a made-up index with short"
        " texts."
    )
    return {"what": what, "figures": figures, "machine": machine()}


def write_shard(folder: Path, number: int, shards: int) -> None:
    """Write what refine/shard would leave of a million documents."""
    folder.mkdir()
    chance = np.random.default_rng(number)
    # Documents of one family have the same keys and the same text wherever they stand; all others
    # are alone.
    families = max(1, int(shards * SHARD * TWIN_SHARE / FAMILY))
    who = np.arange(SHARD, dtype=np.uint64) + np.uint64(families + number * SHARD)
    twins = chance.random(SHARD) < TWIN_SHARE
    who[twins] = chance.integers(0, families, twins.sum())
    write_keys(folder, who, number)
    ids = hexadecimal(chance.integers(0, 1 << 63, (SHARD, 2)).astype(np.uint64))
    np.save(folder / "ids.npy", parse_ids(ids))
    np.save(folder / "sizes.npy", np.full(SHARD, WORDS * (LETTERS + 1), np.uint32))
    np.save(folder / "hashes.npy", chance.integers(0, 256, (SHARD, 16), np.uint8))
    empty = pa.array([""] * SHARD)
    columns = {name: empty for name in DOCUMENT.names if name not in ("turns", "record")}
    columns |= {
        "id": ids,
        "text": texts(who),
        "record": pa.array(np.arange(SHARD)),
        "turns": pa.nulls(SHARD, DOCUMENT.field("turns").type),
    }
    table = pa.table({name: columns[name] for name in DOCUMENT.names}).cast(DOCUMENT)
    pq.write_table(table, folder / "documents.parquet", row_group_size=100_000, compression="zstd")


def write_keys(folder: Path, who: np.ndarray, number: int) -> None:
    """Write the sorted keys of every band: a hash of the document's number and the band; the exact
    texts all differ.
    """
    keys = np.lib.format.open_memmap(folder / "keys.npy", "w+", np.uint64, (WIDTH, SHARD))
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.uint32, (WIDTH, SHARD))
    for band in range(WIDTH):
        base = who if band else np.arange(SHARD, dtype=np.uint64) + np.uint64(number * SHARD)
        own = mix_all(base * np.uint64(WIDTH) + np.uint64(band))
        order = np.argsort(own)
        keys[band], rows[band] = own[order], order


def hexadecimal(numbers: np.ndarray) -> pa.StringArray:
    """Return rows of numbers as hexadecimal text."""
    digits = numbers.astype(">u8").tobytes().hex().encode()
    width = numbers.shape[1] * 16
    offsets = np.arange(0, len(digits) + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(digits))


def texts(who: np.ndarray) -> pa.StringArray:
    """Return a text of six words for each document, the same for the same number."""
    hashed = np.stack(
        [mix_all(who * np.uint64(3) + np.uint64(k)) for k in range(WORDS * LETTERS // 16)], axis=1
    )
    letters = np.frombuffer(hashed.astype(">u8").tobytes().hex().encode(), np.uint8).reshape(
        -1, WORDS, LETTERS
    )
    spaced = np.concatenate([letters, np.full((len(who), WORDS, 1), 32, np.uint8)], axis=2)
    offsets = np.arange(0, spaced.size + 1, WORDS * (LETTERS + 1), dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(who), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(spaced))
    )


def lists_of(folder: Path) -> dict[str, object]:
    """Make both lists in a process of its own, and watch its memory."""
    start = time.perf_counter()
    out, peaks = watched([sys.executable, "-m", "benchmarks.memory", str(folder)])
    index = sum(path.stat().st_size for path in folder.glob("s.*/*"))
    return {
        "near duplicates": json.loads(out)["near_duplicate"],
        "index and documents (GB)": round(index / 1e9, 3),
        "peak anonymous memory (GB)": peaks["own"],
        "peak resident memory (GB)": peaks["resident"],
        "seconds": round(time.perf_counter() - start, 1),
    }


def main(folder: Path) -> None:
    """Make both lists and print what was found."""
    from groundup.refine.dedup.duplicates import find_duplicates
    from groundup.refine.split import split_documents

    shards = [(path.name, path) for path in sorted(folder.glob("s.*"))]
    memory = Refine().memory_megabytes * 500_000
    (out := folder / "lists").mkdir()
    found = find_duplicates(out, shards, 0.8, memory)
    split_documents(out, shards, {"s": "code"}, [out / "duplicates.parquet"], {}, 1, 0.05, memory)
    print(json.dumps({"near_duplicate": found["near_duplicate"]["documents"]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
