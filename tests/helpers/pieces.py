"""What the pieces of a file give, beside what one pass over it gives."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from groundup.collect.pieces import (
    CUTTABLE,
    Piece,
    count_records,
    cut_file,
    join_ranges,
    results_path,
)
from groundup.collect.shard import collect_shard
from groundup.collect.sources import Digests, HashedFile, RawFile
from groundup.recipe import Source

Row = dict[str, Any]


def hash_file(path: Path) -> HashedFile:
    raw = RawFile(path.name, path, path.stat().st_size)
    (known,), _ = Digests(path.parent / "raw.json").hash_files([raw])
    return known


def collect_rows(
    known: HashedFile, source: Source, piece: Piece | None = None, results: Path | None = None
) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        collect_shard(Path(name), [known], source, piece=piece, results=results)
        tables = [pq.read_table(Path(name, f"{t}.parquet")) for t in ("documents", "dropped")]
    return sorted((row for t in tables for row in t.to_pylist()), key=lambda row: row["record"])


def results_of(known: HashedFile, source: Source, part: Piece) -> Path:
    return results_path(known.file.path.parent / "results", source, part.digest, part.head)


def pieces_of(known: HashedFile, source: Source, piece_bytes: int) -> list[Piece]:
    """Return the pieces of a file; what is read once is counted both ways."""
    cut = cut_file(Path(), known, source, piece_bytes)
    counts = []
    for start, stop, digest in [] if cut["rows"] else cut["ranges"]:
        where = known, source, start, stop, cut["format"], cut["codec"]
        counts.append(count_records(Path(), *where))
        results = results_of(known, source, Piece(start, stop, digest, head=cut["head"]))
        assert count_records(Path(), *where, results=results) == counts[-1]
        can_be_read_once = cut["codec"] in CUTTABLE[cut["format"]].read_once
        assert not can_be_read_once or results.exists() == (counts[-1]["records"] is not None)
    return join_ranges(known.file.size, cut, counts)


def check(name: str, data: bytes, kind: str, piece_bytes: int) -> list[Piece]:
    """Compare the pieces of a file with a single pass over it; return them."""
    source = Source(path="x", kind=kind, name="s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        known = hash_file(path)
        parts = pieces_of(known, source, piece_bytes)
        assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
        if len(parts) > 1:
            read = [collect_rows(known, source, part) for part in parts]
            assert list(chain(*read)) == collect_rows(known, source)
            for rows, part in zip(read, parts, strict=True):
                results = results_of(known, source, part)
                assert not part.is_counted or rows == collect_rows(known, source, part, results)
                assert not part.is_counted or not results.exists()
    return parts
