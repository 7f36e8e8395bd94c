"""A compressed file is unpacked ahead of its reader, who gets the same bytes and damage."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.collect import shard
from groundup.collect.files.ahead import unpacked_ahead
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import Item
from groundup.collect.shard import collect_shard
from groundup.collect.sources import Digests, RawFile
from groundup.recipe import Source

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


def _lines() -> bytes:
    rng = random.Random(0)
    rows = [{"text": f"{n} " + rng.randbytes(50).hex()} for n in range(9000)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _rows(path: Path) -> list[dict[str, object]]:
    (known,), _ = Digests(path.parent / "raw.json").hash_files(
        [RawFile(path.name, path, path.stat().st_size)]
    )
    with tempfile.TemporaryDirectory() as name:
        collect_shard(Path(name), [known], Source(path="x", kind="text", name="s"))
        tables = [pq.read_table(Path(name, f"{t}.parquet")) for t in ("documents", "dropped")]
    return [row for table in tables for row in table.to_pylist()]


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "unpack"]


@pytest.mark.parametrize("codec", PACK)
@pytest.mark.parametrize("damage", ["none", "cut off", "flipped"])
def test_what_is_read(
    codec: str, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records before damage and the reason after them are those of one thread."""
    data = bytearray(PACK[codec](_lines()))
    if damage == "cut off":
        del data[-len(data) // 3 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0x55
    path = tmp_path / f"a.jsonl.{codec}"
    path.write_bytes(data)
    read = {}
    for least in (0, 1 << 30):
        monkeypatch.setattr(shard, "MIN_AHEAD", least)
        read[least] = _rows(path)
    assert read[0] == read[1 << 30]
    # A byte that changes no length is not always noticed.
    assert damage == "flipped" or (len(read[0]) == 9000) == (damage == "none")
    assert not _threads()


def test_a_reader_that_stops(tmp_path: Path) -> None:
    """The thread ends with the block, though most of the file was not read."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(_lines() * 9))
    with path.open("rb") as file:
        (item,) = open_items(path, file, path.name, path.stat().st_size, Selection())
        assert isinstance(item, Item)
        with unpacked_ahead(item):
            assert item.stream.readline().startswith(b"{")
            assert _threads()
        assert not _threads()
