"""Near-duplicates by one tool, in a process of its own. Reads FOLDER/documents.jsonl (ours:
FOLDER/shards); writes FOLDER/TOOL.json.

    python peers.py TOOL FOLDER

Nothing but the standard library and the tool is imported, so that it runs in the virtual
environment that the benchmark makes for the peers; they are no dependencies of the project. Each
tool is used as its own README or example shows. Where that leaves the unit open, it is 5-grams of
words: runs of letters and digits, in small letters. Documents are taken in order, and one that is
like a document taken before is dropped, unless the tool has its own idea of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = {
    "datatrove": "datatrove[io,processing]==0.10.1",
    "spacy": "spacy==3.8.18",
    "datasketch": "datasketch==2.0.0",
    "rensa": "rensa==0.5.0",
}
SHINGLE_WORDS, PERMUTATIONS = 5, 128
# rensa does not keep for which document it dropped another; asking again takes minutes for its
# CMinHash.
MOST_ASKED = 2_000
# The arrays of a refined shard beside its index: name, type, width.
ARRAYS = (("ids", "uint64", 2), ("hashes", "uint8", 16), ("sizes", "uint32", 1))

Pairs = list[tuple[int, int]]
# Numbers of the documents that are dropped, and a function that says for which: asked when the
# clock has stopped.
Found = tuple[list[int], Callable[[], Pairs]]


def interpreter(
    folder: Path, names: Sequence[str] = tuple(PACKAGES), packages: Mapping[str, str] = PACKAGES
) -> str | None:
    """Return a Python that has these packages: PEERS_PYTHON, this one, or one made in `folder`;
    None where they cannot be had.
    """
    if named := os.environ.get("PEERS_PYTHON"):
        return named
    if all(importlib.util.find_spec(name) for name in names):
        return sys.executable
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run([*install, *(packages[name] for name in names)], check=False)
    return None if made.returncode else python


def read(folder: Path) -> Iterator[tuple[int, str]]:
    with (folder / "documents.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            yield number, json.loads(line)["text"]


def shingles(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", text.lower())
    return [
        " ".join(words[at : at + SHINGLE_WORDS])
        for at in range(max(1, len(words) - SHINGLE_WORDS + 1))
    ]


def groundup(folder: Path, threshold: float, threads: int = 1) -> Found:
    """The index part of refine/shard, and refine/duplicates, with the memory that a recipe gives
    it; shards are indexed side by side, as workers do it.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from groundup.recipe import Refine
    from groundup.refine.dedup.duplicates import find_duplicates

    (lists := folder / f"lists-{threads}").mkdir()
    shards = [(f"x.{path.name}", path) for path in sorted((folder / "shards").iterdir())]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write_index_of, [path for _, path in shards]))
    memory = Refine().memory_megabytes * 500_000
    find_duplicates(lists, shards, threshold, memory, threads=threads)
    listed = np.load(lists / "listed.npy").tolist()
    return [row for row, _ in listed], lambda: [(row, kept) for row, kept in listed]


def groundup_by_two(folder: Path, threshold: float) -> Found:
    return groundup(folder, threshold, threads=2)


def write_index_of(shard: Path) -> None:
    """Write what refine/shard leaves beside documents.parquet: cleaning and filters are no part of
    finding duplicates.
    """
    from contextlib import ExitStack

    import numpy as np

    from groundup.artifacts.arrays import lengths, text_buffers
    from groundup.artifacts.document import read_batches
    from groundup.refine.dedup.lsh_index import WIDTH, document_keys, write_index
    from groundup.refine.out_of_core import RowFile, parse_ids

    with ExitStack() as stack:
        keys = stack.enter_context(RowFile(shard / ".keys", np.dtype(np.uint64), WIDTH))
        arrays = {
            name: stack.enter_context(RowFile(shard / f".{name}", np.dtype(dtype), width))
            for name, dtype, width in ARRAYS
        }
        for batch in read_batches([shard / "documents.parquet"], ["id", "text"]):
            texts = text_buffers(batch.column("text"))
            of_texts, hashes = document_keys(texts)
            keys.append(of_texts)
            arrays["hashes"].append(hashes)
            arrays["ids"].append(parse_ids(batch.column("id")))
            arrays["sizes"].append(lengths(batch.column("text")))
        write_index(shard, keys)
        for name, spool in arrays.items():
            spool.save(shard / f"{name}.npy")


def datasketch(folder: Path, threshold: float) -> Found:
    """MinHash and MinHashLSH with 128 permutations; a document that the index finds nothing for
    goes into it.
    """
    from datasketch import MinHash, MinHashLSH

    index, pairs = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS), []
    for number, text in read(folder):
        signature = MinHash(num_perm=PERMUTATIONS)
        signature.update_batch([shingle.encode() for shingle in shingles(text)])
        if found := index.query(signature):
            pairs += [(number, other) for other in found]
        else:
            index.insert(number, signature)
    return sorted({number for number, _ in pairs}), lambda: pairs


def rensa_with(
    make: Callable[[float], Any], units: Callable[[str], list[str]]
) -> Callable[[Path, float], Found]:
    """Its deduplicator, which takes documents as they come and looks at the estimate of what it
    finds.
    """

    def rensa(folder: Path, threshold: float) -> Found:
        index = make(threshold)
        kept = index.add_pairs((str(number), units(text)) for number, text in read(folder))
        dropped = [number for number, is_kept in enumerate(kept) if not is_kept]

        def pairs() -> Pairs:
            asked = dropped[:MOST_ASKED]
            wanted = set(asked)
            texts = [units(text) for number, text in read(folder) if number in wanted]
            return [
                (row, int(other))
                for row, others in zip(asked, index.get_duplicate_sets(texts), strict=True)
                for other in others
            ]

        return dropped, pairs

    return rensa


def r_minhash(threshold: float) -> Any:
    from rensa import RMinHashDeduplicator

    return RMinHashDeduplicator(threshold=threshold, num_perm=PERMUTATIONS, use_lsh=True)


def c_minhash(threshold: float) -> Any:
    from rensa import CMinHashDeduplicator

    return CMinHashDeduplicator(threshold=threshold, num_perm=PERMUTATIONS)


def datatrove(folder: Path, threshold: float) -> Found:
    """The four MinHash steps of its example in one local process; its buckets (14 of 8) are its
    threshold.
    """
    import numpy as np
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    work = {
        name: str(folder / "datatrove" / name)
        for name in ("signatures", "buckets", "clusters", "kept", "logs")
    }

    def step(number: int, pipeline: list[Any], tasks: int = 1) -> None:
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{work['logs']}/{number}"
        ).run()

    def reader() -> Any:
        return JsonlReader(str(folder), glob_pattern="documents.jsonl")

    step(1, [reader(), MinhashDedupSignature(output_folder=work["signatures"])])
    step(
        2,
        [MinhashDedupBuckets(input_folder=work["signatures"], output_folder=work["buckets"])],
        tasks=14,
    )
    step(3, [MinhashDedupCluster(input_folder=work["buckets"], output_folder=work["clusters"])])
    step(
        4,
        [
            reader(),
            MinhashDedupFilter(input_folder=work["clusters"]),
            JsonlWriter(output_folder=work["kept"]),
        ],
    )

    def pairs() -> Pairs:
        found = [
            np.fromfile(path, np.uint32).reshape(-1, 4)[:, [1, 3]]
            for path in Path(work["buckets"]).glob("*.dups")
        ]
        return np.unique(np.concatenate(found), axis=0).tolist()

    dropped = [np.fromfile(path, np.uint32) for path in Path(work["clusters"]).glob("*.remove")]
    return np.concatenate([np.zeros(0, np.uint32), *dropped]).tolist(), pairs


TOOLS: dict[str, Callable[[Path, float], Found]] = {
    "groundup": groundup,
    "groundup, two threads": groundup_by_two,
    "datatrove": datatrove,
    "datasketch": datasketch,
    "rensa": rensa_with(r_minhash, shingles),
    "rensa, CMinHash": rensa_with(c_minhash, shingles),
    "rensa, single words": rensa_with(r_minhash, str.split),
}


def main(name: str, folder: Path, threshold: float = 0.8) -> None:
    """Run one tool, first on a few documents so that imports and compilation are not counted."""
    tool = TOOLS[name]
    if (folder / "few").exists():
        tool(folder / "few", threshold)
    start, processor = time.perf_counter(), time.process_time()
    dropped, pairs = tool(folder, threshold)
    seconds = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    (folder / f"{name}.json").write_text(
        json.dumps(seconds | {"dropped": dropped, "pairs": pairs()})
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *(float(value) for value in sys.argv[3:]))
