"""Duplicates: precision, recall against brute force, the total order, and linear cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from groundup.refine.dedup.duplicates import EXACT, NEAR, find_duplicates
from groundup.refine.dedup.lsh_index import NEAR as NEAR_BANDS
from groundup.refine.dedup.lsh_index import LshIndex
from groundup.refine.out_of_core import DocumentTable, Scratch

Row = dict[str, Any]
Shards = list[tuple[str, Path]]
Refine = Callable[[Sequence[Sequence[str]]], Shards]
THRESHOLD = 0.8


def duplicates(shards: Shards, folder: Path) -> tuple[dict[str, Row], dict[str, Any]]:
    folder.mkdir()
    facts = find_duplicates(folder, shards, THRESHOLD)
    return {
        row["id"]: row for row in pq.read_table(folder / "duplicates.parquet").to_pylist()
    }, facts


def documents(shards: Shards) -> list[Row]:
    return [
        row
        for _, folder in shards
        for row in pq.read_table(folder / "documents.parquet").to_pylist()
    ]


def brute_force(shingles: Sequence[set[tuple[str, ...]]]) -> np.ndarray:
    """Return the Jaccard similarity of all pairs, by counting documents per shingle."""
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, own in enumerate(shingles):
        for shingle in own:
            holders[shingle].append(number)
    common = np.zeros((len(shingles), len(shingles)), np.int32)
    for held in holders.values():
        if len(held) > 1:
            common[np.ix_(held, held)] += 1
    sizes = np.array([len(own) for own in shingles])
    return common / np.maximum(sizes[:, None] + sizes[None, :] - common, 1)


def test_against_brute_force(
    tmp_path: Path, refined: Refine, real_texts: list[str], plain_shingles: Callable[..., Any]
) -> None:
    """On 2,000 real documents: exact precision, no missed pair in a bucket, recall >= 0.95."""
    third = len(real_texts) // 3
    shards = refined([real_texts[:third], real_texts[third : 2 * third], real_texts[2 * third :]])
    rows = documents(shards)
    assert len(rows) >= 2_000
    found, _ = duplicates(shards, tmp_path / "out")
    place = {row["id"]: number for number, row in enumerate(rows)}
    similar = brute_force([plain_shingles(row["text"]) for row in rows])
    folded = [" ".join(row["text"].split()) for row in rows]
    for name, entry in found.items():
        own, kept = place[name], place[entry["duplicate_of"]]
        assert entry["duplicate_of"] not in found or entry["reason"] == EXACT
        assert entry["score"] == (1.0 if entry["reason"] == EXACT else similar[own, kept])
        assert entry["score"] >= THRESHOLD
        assert (folded[own] == folded[kept]) == (entry["reason"] == EXACT)
    _kept_buckets_are_clear(shards, rows, found, similar, tmp_path)
    lost, recall = _recall(rows, found, similar, folded)
    print(
        f"{len(rows)} documents, {len(found)} found, greedy brute force {lost}, recall {recall:.4f}"
    )
    assert recall >= 0.95


def _kept_buckets_are_clear(
    shards: Shards, rows: Sequence[Row], found: dict[str, Row], similar: np.ndarray, folder: Path
) -> None:
    kept = np.array([row["id"] not in found for row in rows])
    with Scratch(folder / "scratch") as scratch:
        shelf = shelf_of(shards, scratch)
        held = [
            members[i:j]
            for band in NEAR_BANDS
            for starts, members in shelf.buckets(band, kept)
            for i, j in pairwise(starts.tolist())
        ]
    assert held
    assert max(np.triu(similar[np.ix_(members, members)], 1).max() for members in held) < THRESHOLD


def shelf_of(shards: Shards, scratch: Scratch, memory: int = 1 << 30) -> LshIndex:
    corpus = DocumentTable(shards)
    return LshIndex(
        corpus,
        scratch.joined(corpus, "sizes"),
        scratch.joined(corpus, "ids"),
        memory,
        scratch.folder,
    )


def _recall(
    rows: Sequence[Row], found: dict[str, Row], similar: np.ndarray, folded: Sequence[str]
) -> tuple[int, float]:
    """Drop greedily over all pairs; return the near duplicates, and the share found."""
    kept: list[int] = []
    near, texts = [], set()
    for number in sorted(
        range(len(rows)), key=lambda n: (-len(rows[n]["text"].encode()), rows[n]["id"])
    ):
        if folded[number] in texts:
            continue
        texts.add(folded[number])
        if kept and similar[number, kept].max() >= THRESHOLD:
            near.append(number)
        else:
            kept.append(number)
    assert len(near) > 100
    return len(near), sum(rows[number]["id"] in found for number in near) / len(near)


def test_winner(tmp_path: Path, refined: Refine) -> None:
    """The longest is kept, then the smallest id; the list is in the order of rows."""
    words = [f"word{n}" for n in range(60)]
    long, short = " ".join(words), " ".join(words[:57])
    shards = refined(
        [[short, "something else entirely, with no copy", long], [long.replace(" ", "\n\t"), long]]
    )
    rows = documents(shards)
    found, facts = duplicates(shards, tmp_path / "out")
    longest = min(
        (row for row in rows if len(row["text"]) == max(len(r["text"]) for r in rows)),
        key=lambda row: row["id"],
    )
    assert longest["text"].startswith("word0\n\tword1")
    assert {name: (row["duplicate_of"], row["reason"]) for name, row in found.items()} == {
        rows[0]["id"]: (longest["id"], NEAR),
        rows[2]["id"]: (longest["id"], EXACT),
        rows[4]["id"]: (longest["id"], EXACT),
    }
    assert list(found) == [rows[0]["id"], rows[2]["id"], rows[4]["id"]]
    assert (facts[EXACT]["by_source"], facts[NEAR]["by_source"]) == (
        {"source0": 1, "source1": 1},
        {"source0": 1},
    )


def test_priority(tmp_path: Path, refined: Refine) -> None:
    """The copy of the source with the higher priority stays, even if it is shorter."""
    words = [f"word{n}" for n in range(60)]
    shards = refined([[" ".join(words), "alone in the world"], [" ".join(words[:58])]])
    rows = documents(shards)
    for priorities, kept, dropped in (
        ({}, 0, 2),
        ({"source1": 1}, 2, 0),
        ({"source0": 5, "source1": 1}, 0, 2),
    ):
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        facts = find_duplicates(folder, shards, THRESHOLD, priorities=priorities)
        (row,) = pq.read_table(folder / "duplicates.parquet").to_pylist()
        assert (row["id"], row["duplicate_of"]) == (rows[dropped]["id"], rows[kept]["id"])
        assert facts[NEAR]["bytes"] == len(rows[dropped]["text"])


def test_chain(tmp_path: Path, refined: Refine) -> None:
    """In a chain A ~ B ~ C with A unlike C, only B is dropped."""
    words = [f"w{n}" for n in range(140)]
    chain = [
        " ".join([*words[:100], "longest of all three"]),
        " ".join(words[8:108]),
        " ".join(words[16:116]),
    ]
    shards = refined([chain])
    rows = documents(shards)
    found, _ = duplicates(shards, tmp_path / "out")
    assert list(found) == [rows[1]["id"]]


def test_shard_order_does_not_matter(tmp_path: Path, refined: Refine) -> None:
    """The result does not depend on the order of the shards."""
    texts = [" ".join(f"w{(n * 7 + k) % 90}" for k in range(60 + n % 5)) for n in range(60)]
    shards = refined([texts[:20], texts[20:40], texts[40:]])
    first, _ = duplicates(shards, tmp_path / "a")
    second, _ = duplicates(shards[::-1], tmp_path / "b")
    assert first
    assert first == second


def test_similar_documents_cost_linear_time(tmp_path: Path, refined: Refine) -> None:
    """A bucket of thousands of similar documents costs one comparison for each."""
    body = " ".join(f"w{n}" for n in range(80))
    shards = refined([[f"{body} {n}" for n in range(5_000)]])
    found, facts = duplicates(shards, tmp_path / "out")
    assert len(found) == 4_999
    assert facts["compared"] <= 3 * 5_000


def test_without_words(tmp_path: Path, refined: Refine) -> None:
    """Texts without words have no near duplicates; an empty corpus is no error."""
    found, _ = duplicates(refined([["!!!", "???", "!!!"]]), tmp_path / "a")
    assert [row["reason"] for row in found.values()] == [EXACT]
    assert find_duplicates(tmp_path, [], THRESHOLD)["documents"] == 0
