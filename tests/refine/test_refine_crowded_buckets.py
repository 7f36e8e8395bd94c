"""A million documents in one bucket: comparisons per document are bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.artifacts.corpus import TRAIN, VALIDATION
from groundup.artifacts.document import DOCUMENT
from groundup.refine.dedup import duplicates as dedup
from groundup.refine.dedup.lsh_index import CLUSTER, NEAR, WIDTH
from groundup.refine.dedup.minhash import mix_all
from groundup.refine.split import split_documents


def write_crowd(folder: Path, rows: int, text: Callable[[int], str], equal: bool) -> None:
    """Write a refined shard whose documents share one near key and one cluster key."""
    folder.mkdir()
    numbers = np.arange(rows, dtype=np.uint64)
    keys = np.stack(
        [np.sort(mix_all(numbers * np.uint64(WIDTH) + np.uint64(band))) for band in range(WIDTH)]
    )
    keys[[NEAR[0], CLUSTER[0], *([0] if equal else [])]] = 7
    np.save(folder / "keys.npy", keys)
    np.save(folder / "rows.npy", np.tile(np.arange(rows, dtype=np.uint32), (WIDTH, 1)))
    np.save(folder / "ids.npy", np.stack([mix_all(numbers), numbers], axis=1))
    np.save(
        folder / "hashes.npy",
        (
            np.zeros((rows, 16)) if equal else numbers.repeat(2).view(np.uint8).reshape(rows, 16)
        ).astype(np.uint8),
    )
    texts = pa.array([text(number) for number in range(rows)])
    np.save(folder / "sizes.npy", np.array([len(one) for one in texts.to_pylist()], np.uint32))
    ids = pa.array([f"{high:016x}{low:016x}" for high, low in np.load(folder / "ids.npy").tolist()])
    columns = {name: pa.array([""] * rows) for name in DOCUMENT.names} | {
        "id": ids,
        "text": texts,
        "record": numbers.astype(np.int64),
    }
    columns["turns"] = pa.nulls(rows, DOCUMENT.field("turns").type)
    pq.write_table(
        pa.table({name: columns[name] for name in DOCUMENT.names}).cast(DOCUMENT),
        folder / "documents.parquet",
        row_group_size=100_000,
    )


@pytest.mark.parametrize("rows", [3_000, pytest.param(1_000_000, marks=pytest.mark.torture)])
@pytest.mark.parametrize("crowd", ["equal", "nearly equal", "unlike"])
def test_crowded_bucket(tmp_path: Path, crowd: str, rows: int) -> None:
    """Copies leave one document; unlike documents all stay, with bounded comparisons."""
    body = " ".join(f"w{n}" for n in range(40))
    text = {
        "equal": lambda n: body,
        "nearly equal": lambda n: f"{body} {n}",
        "unlike": lambda n: " ".join(f"{n}x{k}" for k in range(8)),
    }[crowd]
    write_crowd(tmp_path / "s.0", rows, text, crowd == "equal")
    shards = [("s.0", tmp_path / "s.0")]
    (out := tmp_path / "out").mkdir()
    facts = dedup.find_duplicates(out, shards, 0.8)
    left = {"equal": 1, "nearly equal": 1, "unlike": rows}[crowd]
    assert (
        facts["exact_duplicate"]["documents"] + facts["near_duplicate"]["documents"] == rows - left
    )
    assert facts["compared"] <= rows * (dedup.MAX_COMPARED + 1)
    split = split_documents(out, shards, {"s": "code"}, [out / "duplicates.parquet"], {}, 1, 0.05)[
        "sources"
    ]["s"]
    assert split["train"]["documents"] + split["validation"]["documents"] == left
    verdict = np.load(out / "split" / "s.0.npy")
    assert ((verdict == TRAIN) | (verdict == VALIDATION)).sum() == left
