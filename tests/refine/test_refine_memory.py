"""Duplicates and split of five times more data than the memory limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.capped import lists

from groundup.artifacts.document import DOCUMENT, document_id
from groundup.refine.shard import refine_shard

SHARDS, ROWS, MEGABYTES = 16, 15_000, 35


def write_documents(folder: Path, number: int) -> None:
    """Write documents of six words as a collected shard: every tenth is one of 50, some longer ones
    differ in their last word.
    """
    words = np.random.default_rng(number).integers(0, 1 << 40, (ROWS, 6))
    words[::10] = words[::10, :1] % 50
    texts = [" ".join(map(str, row)) for row in words.tolist()]
    texts[1::50] = [
        " ".join([*(f"same{n // 50}x{k}" for k in range(70)), text])
        for n, text in enumerate(texts[1::50])
    ]
    columns = {name: [""] * ROWS for name in DOCUMENT.names} | {
        "id": [document_id("s", str(number), n) for n in range(ROWS)],
        "text": texts,
        "record": range(ROWS),
        "turns": pa.nulls(ROWS, DOCUMENT.field("turns").type),
    }
    folder.mkdir()
    pq.write_table(
        pa.table(columns).cast(DOCUMENT), folder / "documents.parquet", row_group_size=5_000
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    folder, found = tmp_path_factory.mktemp("shards"), []
    for number in range(SHARDS):
        write_documents(folder / f"in.{number}", number)
        (out := folder / f"s.{number:02}").mkdir()
        refine_shard(out, folder / f"in.{number}", "code", [], [], folder)
        found.append((out.name, out))
    return found


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="RLIMIT_AS limits memory on Linux only"
)
def test_data_of_five_times_the_memory(tmp_path: Path, shards: list[tuple[str, Path]]) -> None:
    """Under RLIMIT_AS, the lists equal those made with unlimited memory."""
    data = sum(path.stat().st_size for _, folder in shards for path in folder.iterdir())
    assert data >= 5 * MEGABYTES * 1_000_000
    program = Path(__file__).parents[1] / "helpers" / "capped.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    arguments = [
        sys.executable,
        str(program),
        str(shards[0][1].parent),
        str(tmp_path),
        str(MEGABYTES),
    ]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == lists(tmp_path / "free", shards, 1 << 30)
    for name in ("duplicates.parquet", "split/s.07.npy"):
        assert (tmp_path / "lists" / name).read_bytes() == (tmp_path / "free" / name).read_bytes()
    assert json.loads(done.stdout)["near_duplicate"] > 1_000


def test_memory_is_constant(
    tmp_path: Path, shards: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the documents take the same memory."""
    monkeypatch.setattr("groundup.refine.out_of_core.BLOCK_ROWS", 4_096)
    monkeypatch.setattr("groundup.refine.dedup.lsh_index.BLOCK_ROWS", 4_096)
    lists(tmp_path / "warm", shards[:1], 1 << 20)
    peaks = []
    for count in (1, 4):
        tracemalloc.start()
        lists(tmp_path / str(count), shards[:count], 1 << 20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # One number for each would be eight times as many bytes as documents.
    assert peaks[1] - peaks[0] < 4 * 3 * ROWS
