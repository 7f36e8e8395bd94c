"""The LSH index: buckets equal those of a dictionary; an earlier result changes nothing."""

from __future__ import annotations

import random
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from groundup.refine.dedup.duplicates import EarlierResult, find_duplicates
from groundup.refine.dedup.lsh_index import ENTRY_BYTES, WIDTH, LshIndex, write_index
from groundup.refine.dedup.parts import index_parts, write_buckets
from groundup.refine.out_of_core import DocumentTable, RowFile, Scratch

Shards = list[tuple[str, Path]]
Refine = Callable[..., Shards]


def made_up(
    folder: Path, shards: Sequence[int], keys: int, seed: int = 0
) -> tuple[Shards, np.ndarray]:
    """Write the index of shards with these sizes and random keys; return all keys, too."""
    chance, found, drawn = np.random.default_rng(seed), [], []
    for number, rows in enumerate(shards):
        (out := folder / f"s.{number}").mkdir(parents=True)
        of_rows = chance.integers(0, 1 << 63, keys).astype(np.uint64)[
            chance.integers(0, keys, (rows, WIDTH))
        ] + np.uint64(number % 1)
        with RowFile(out / ".keys", np.dtype(np.uint64), WIDTH) as spool:
            spool.append(of_rows)
            write_index(out, spool)
        np.save(out / "sizes.npy", chance.integers(1, 9, rows).astype(np.uint32))
        np.save(out / "ids.npy", chance.integers(0, 1 << 63, (rows, 2)).astype(np.uint64))
        found.append((f"s.{number}", out))
        drawn.append(of_rows)
        chance = np.random.default_rng(seed)
    return found, np.concatenate(drawn)


@pytest.mark.parametrize("parts", [1, 7, 60])
def test_buckets_equal_a_dictionary(tmp_path: Path, parts: int) -> None:
    """For any part size, with excluded rows, for buckets of some rows, and as tasks write them."""
    shards, keys = made_up(tmp_path, [40, 0, 25, 60], 30)
    chance = np.random.default_rng(1)
    among, touching = chance.random(len(keys)) < 0.8, chance.random(len(keys)) < 0.05
    with Scratch(tmp_path / "scratch") as scratch:
        corpus = DocumentTable(shards)
        sizes, ids = scratch.joined(corpus, "sizes"), scratch.joined(corpus, "ids")
        memory, bands, written = corpus.rows * ENTRY_BYTES // parts, (0, 5, WIDTH - 1), []
        for number, part in enumerate(index_parts(corpus.rows, bands, memory)):
            (folder := tmp_path / f"part{number}").mkdir()
            write_buckets(folder, shards, part, {}, {}, memory)
            written.append(folder)
        read = LshIndex(corpus, sizes, ids, memory, scratch.folder)
        for shelf, band in product((read, replace(read, written=written)), bands):
            plain = defaultdict(list)
            for row in sorted(range(len(keys)), key=lambda n: (-int(sizes[n]), *ids[n].tolist())):
                plain[int(keys[row, band])].append(row)
            for mask, some in ((None, None), (among, None), (None, touching), (among, touching)):
                wanted = [
                    [row for row in held if mask is None or mask[row]]
                    for held in plain.values()
                    if some is None or some[held].any()
                ]
                found = [
                    rows[i:j].tolist()
                    for starts, rows in shelf.buckets(band, mask, some)
                    for i, j in pairwise(starts.tolist())
                ]
                assert sorted(found) == sorted(held for held in wanted if len(held) > 1)


def test_crowd_has_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of all documents is sorted in a mapped file of any size."""
    monkeypatch.setattr("groundup.refine.dedup.lsh_index.BLOCK_ROWS", 1_000)
    peaks = []
    for rows in (5_000, 50_000):
        shards, _ = made_up(tmp_path / str(rows), [rows // 2, rows // 2], 1)
        with Scratch(tmp_path / f"scratch{rows}") as scratch:
            corpus = DocumentTable(shards)
            sizes, ids = scratch.joined(corpus, "sizes"), scratch.joined(corpus, "ids")
            tracemalloc.start()
            shelf = LshIndex(corpus, sizes, ids, 1_000 * ENTRY_BYTES, scratch.folder)
            ((starts, members),) = shelf.buckets(7)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            order = np.lexsort((ids[:, 1], ids[:, 0], -sizes.astype(np.int64)))
            assert starts.tolist() == [0, rows]
            assert (sizes[members] == sizes[order]).all() and (ids[members] == ids[order]).all()
    # One number for each would be 360,000 bytes.
    assert peaks[1] - peaks[0] < 90_000


def chained(chance: random.Random, count: int, family: str = "w") -> list[str]:
    """Return texts that overlap in a chain, so drops depend on other drops; two of them twice."""
    words = [f"{family}{n}" for n in range(160)]
    texts = []
    for _ in range(count):
        at, size = chance.randrange(0, 60), chance.randrange(80, 100)
        texts.append(" ".join(words[at : at + size]))
    return texts + texts[:2]


@pytest.mark.parametrize("most", [128, 2])
@pytest.mark.parametrize("seed", range(8))
def test_earlier_result_changes_nothing(
    tmp_path: Path, refined: Refine, monkeypatch: pytest.MonkeyPatch, seed: int, most: int
) -> None:
    """A shard is added, removed or changed: the bytes equal a list made from scratch."""
    monkeypatch.setattr("groundup.refine.dedup.duplicates.MAX_COMPARED", most)
    chance = random.Random(seed)
    shards = refined([chained(chance, 12) for _ in range(5)])
    before, after = shards[:4], [*shards[1:], *refined([chained(chance, 12)], first=9)]
    chance.shuffle(after)
    (first := tmp_path / "first").mkdir()
    facts = find_duplicates(first, before, 0.8)
    same = frozenset(name for name, _ in shards[1:4])
    if seed % 3 == 0:
        # The content behind a name is another.
        same -= {shards[2][0]}
    lists = []
    for name, earlier, memory in (
        ("scratch", None, 1 << 30),
        ("on", None if facts["crowded"] else EarlierResult(first, facts["shards"], same), 1 << 30),
        ("small", None, 1 << 12),
    ):
        (folder := tmp_path / name).mkdir()
        made = find_duplicates(folder, after, 0.8, memory, earlier)
        lists.append(
            (folder / "duplicates.parquet").read_bytes() + (folder / "listed.npy").read_bytes()
        )
        assert made["near_duplicate"]["documents"] + made["exact_duplicate"]["documents"] > 20
        assert sorted(path.name for path in folder.iterdir()) == [
            "duplicates.parquet",
            "listed.npy",
        ]
    assert lists[0] == lists[1] == lists[2]


def test_new_shard_costs_its_own_comparisons(tmp_path: Path, refined: Refine) -> None:
    """With an earlier result, only pairs with a new document are compared."""
    chance = random.Random(3)
    shards = refined([chained(chance, 40, f"family{n % 5}w") for n in range(6)])
    (first := tmp_path / "first").mkdir()
    facts = find_duplicates(first, shards[:5], 0.8)
    names = frozenset(name for name, _ in shards[:5])
    compared = []
    for name, earlier in (("scratch", None), ("on", EarlierResult(first, facts["shards"], names))):
        (folder := tmp_path / name).mkdir()
        compared.append(find_duplicates(folder, shards, 0.8, 1 << 30, earlier)["compared"])
    assert compared[1] < compared[0] / 2
    (folder := tmp_path / "nothing").mkdir()
    assert (
        find_duplicates(
            folder, shards[:5], 0.8, 1 << 30, EarlierResult(first, facts["shards"], names)
        )["compared"]
        == 0
    )
