"""Shards are content-defined: a change of one file stays within two shards."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from groundup.collect.shard import cut_shards
from groundup.collect.sources import RawFile

names = st.sets(st.text("abcdef/.é", min_size=1, max_size=12), min_size=1, max_size=120)


def _files(origins: set[str], size: int = 10) -> list[RawFile]:
    return [RawFile(origin, Path(origin), size) for origin in sorted(origins)]


@given(names, st.text("abcdefg", min_size=1, max_size=8))
def test_one_file_changes_at_most_two_shards(origins: set[str], extra: str) -> None:
    """Adding or removing a file changes two shards at the most, wherever it is."""
    before = {(s.name, s.files) for s in cut_shards(_files(origins - {extra}), per_shard=8)}
    after = {(s.name, s.files) for s in cut_shards(_files(origins | {extra}), per_shard=8)}
    assert len(before - after) <= 2
    assert len(after - before) <= 2


@given(names, st.integers(1, 100))
def test_no_file_is_lost_and_names_are_unique(origins: set[str], limit: int) -> None:
    """Every file is in exactly one shard, in order, also where the byte limit cuts."""
    files = _files(origins)
    shards = cut_shards(files, per_shard=8, shard_bytes=limit)
    assert [file for shard in shards for file in shard.files] == files
    assert len({shard.name for shard in shards}) == len(shards)
    assert all(len(shard.files) == 1 or shard.size <= limit for shard in shards)


def test_names_do_not_change() -> None:
    """Names of shards are part of keys on users' disks."""
    assert [shard.name for shard in cut_shards(_files({"a.txt", "b.txt"}))] == ["c90efc5142c899d5"]
