"""Deduplicate and split a folder under a memory limit: `python capped.py FOLDER OUT MEGABYTES`."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import psutil

from groundup.refine.dedup.duplicates import find_duplicates
from groundup.refine.split import split_documents

Shards = list[tuple[str, Path]]


def lists(folder: Path, shards: Shards, memory: int) -> dict[str, int]:
    """Write both lists into `folder`; return what they count."""
    folder.mkdir()
    found = find_duplicates(folder, shards, 0.8, memory)
    facts = split_documents(
        folder, shards, {"s": "code"}, [folder / "duplicates.parquet"], {}, 1, 0.05, memory
    )["sources"]["s"]
    duplicates = {name: found[name]["documents"] for name in ("exact_duplicate", "near_duplicate")}
    return {
        "documents": found["documents"],
        "validation": facts["validation"]["documents"],
    } | duplicates


def main(folder: Path, out: Path, megabytes: int) -> None:
    """Compile the kernels on the first shard, then limit the memory and process all shards."""
    shards = [(path.name, path) for path in sorted(folder.glob("s.*"))]
    lists(out / "warm", shards[:1], 1 << 20)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 1_000_000,) * 2)
    # A quarter for a part of the index: memory-mapped files count under RLIMIT_AS.
    print(json.dumps(lists(out / "lists", shards, megabytes * 250_000)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
