"""The stage: what runs again when something changes, and what stays frozen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.helpers.refined import refine, refined_run

from groundup.artifacts.corpus import refined_shards
from groundup.errors import GroundupError
from groundup.runtime.run import Run
from groundup.runtime.store import folder_files
from groundup.runtime.workers.map import Workers
from groundup.tokenize.shards import tokenize_shard
from groundup.tokenize.stage import run as tokenize
from groundup.tokenize.train_bpe import Sample, train_tokenizer

WORDS = "the cat sat on a mat and saw another cat on another mat".split()


def documents(seed: int, count: int = 30) -> list[tuple[str, int]]:
    random = np.random.default_rng(seed)
    return [(" ".join(random.choice(WORDS, 40)), 2 if n % 10 == 0 else 1) for n in range(count)]


SHARDS = {"books.1": documents(1), "books.2": documents(2), "web.1": documents(3)}


def built(run: Run) -> int:
    run.built = 0
    tokenize(run)
    return run.built


def test_the_view(tmp_path: Path) -> None:
    """The view holds what the design names; its facts add up; the index covers every kept document
    in order.
    """
    run = refined_run(tmp_path, SHARDS)
    assert built(run) == 1 + 3 + 1
    view = run.store.view("tokenize")
    assert view is not None
    names = {f"shards/{name}.{split}.npy" for name in SHARDS for split in ("train", "validation")}
    assert set(view.manifest["files"]) == names | {
        "tokenizer.json",
        "tokenizer_config.json",
        "index.parquet",
    }
    assert view.facts["sources"]["books"]["train"]["documents"] == 54
    total = view.facts["total"]["validation"]
    assert total["tokens"] == sum(
        len(np.load(tmp_path / "tokenize/shards" / f"{name}.validation.npy")) for name in SHARDS
    )
    index = pq.read_table(tmp_path / "tokenize/index.parquet")
    assert sorted(set(index["shard"].to_pylist())) == sorted(SHARDS)
    assert index.num_rows == 90
    assert built(run) == 0


def test_only_what_changed_is_done_again(tmp_path: Path) -> None:
    """New text in one shard: that shard and the index; the tokenizer stays, because weights depend
    on its ids.
    """
    run = refined_run(tmp_path, SHARDS)
    tokenize(run)
    before = (tmp_path / "tokenize/tokenizer.json").read_bytes()
    refine(run, SHARDS | {"web.1": documents(9)})
    assert built(run) == 2
    refine(run, SHARDS | {"web.1": documents(9), "web.2": documents(10)})
    assert built(run) == 2
    assert (tmp_path / "tokenize/tokenizer.json").read_bytes() == before
    run.discard_planned("tokenize", "tokenize/tokenizer")
    assert built(run) > 1


def test_workers_do_not_matter(tmp_path: Path) -> None:
    """One process or two write the same bytes."""
    contents = []
    for count in (1, 2):
        run = refined_run(tmp_path / str(count), SHARDS)
        run.workers = Workers(count)
        try:
            tokenize(run)
        finally:
            run.workers.close()
        contents.append(folder_files(tmp_path / str(count) / "tokenize"))
    assert contents[0] == contents[1]


def test_the_sample_is_bounded_and_does_not_depend_on_shards(tmp_path: Path) -> None:
    """The same documents are chosen however they are spread; never more bytes than asked for."""
    run = refined_run(tmp_path, SHARDS)
    shards = refined_shards(run.root)
    total = train_tokenizer(tmp_path, shards, 300, 1)["train_bytes"]
    assert total == sum(
        len(text) for docs in SHARDS.values() for text, verdict in docs if verdict == 1
    )
    assert len(list(Sample(shards, total, total))) == 81
    sample = Sample(shards, total, total // 3)
    chosen = list(sample)
    assert 0 < sum(map(len, chosen)) == sample.bytes <= total // 3
    assert set(chosen) >= set(Sample(shards[::-1], total, total // 6))


def test_nothing_to_train_on_is_one_line(tmp_path: Path) -> None:
    """Everything dropped, or refine never ran."""
    run = refined_run(tmp_path, {"a.1": [("text", 0), ("text", 2)]})
    with pytest.raises(GroundupError, match="no text is left"):
        tokenize(run)
    with pytest.raises(GroundupError, match="--redo refine"):
        refined_shards(tmp_path / "elsewhere")


# Versions of the steps → what they make of SHARDS. When this test fails, the output has changed:
# raise the version of the step, so that runs made before are not taken for equal, and
# enter the new digest here.
GOLDEN = {(1, 1): "6bbbe28246e1ea6d4ff4dd0e048995a9e489e4ee44fc742df618d16e46539ca1"}


def test_golden_tokens(tmp_path: Path) -> None:
    """The same documents give the same tokens as ever."""
    run = refined_run(tmp_path, SHARDS)
    tokenize(run)
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "tokenize/shards").glob("*.npy")):
        digest.update(path.read_bytes())
    assert digest.hexdigest() == GOLDEN[train_tokenizer.version, tokenize_shard.version]
