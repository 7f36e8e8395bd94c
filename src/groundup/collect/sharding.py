"""Cuts the sorted files of a source into shards where their names say so. Reads and writes nothing.

Content-defined: whether a file starts a shard depends on its own origin, so that a file added or
removed changes the shard that it lies in and at most one neighbor. Where shards are full first,
cuts move up to the next such file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.collect.sources import RawFile

# One file in 256 starts a shard: small enough that a change redoes seconds of work, large enough
# for a million files.
FILES_PER_SHARD = 256
SHARD_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of raw files, named by the hash of the first origin."""

    name: str
    files: tuple[RawFile, ...]

    @property
    def size(self) -> int:
        """Bytes of its raw files."""
        return sum(file.size for file in self.files)


def _hash(origin: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(origin.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def cut(
    files: Sequence[RawFile], per_shard: int = FILES_PER_SHARD, shard_bytes: int = SHARD_BYTES
) -> list[Shard]:
    """Return the shards of a source's files, which must be sorted by origin; no file is cut, none
    is left out.
    """
    runs: list[list[RawFile]] = []
    size = 0
    for file in files:
        full = size + file.size > shard_bytes
        if not runs or full or _hash(file.origin) % per_shard == 0:
            runs.append([])
            size = 0
        runs[-1].append(file)
        size += file.size
    return [Shard(f"{_hash(run[0].origin):016x}", tuple(run)) for run in runs]
