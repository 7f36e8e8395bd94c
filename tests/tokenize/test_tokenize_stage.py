"""The stage: what runs again when something changes, and what stays frozen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.helpers.refined import refine, refined_run, train_on

from groundup.artifacts.corpus import refined_shards
from groundup.errors import GroundupError
from groundup.runtime.run import Run
from groundup.runtime.store import folder_files
from groundup.runtime.workers.map import Workers
from groundup.tokenize.shards import tokenize_shard
from groundup.tokenize.stage import run as tokenize
from groundup.tokenize.train_bpe import sampled_ids, train_tokenizer

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


def test_the_sample_follows_ids_alone(tmp_path: Path) -> None:
    """A document is in the sample or not whatever the others are; the size is about right."""
    shards = refined_shards(refined_run(tmp_path / "run", SHARDS).root)
    batches = [batch for shard in shards for batch in shard.batches(["id", "text"], "train")]
    sizes = {
        i: len(t) for batch in batches for i, t in zip(*batch.to_pydict().values(), strict=True)
    }
    total = sum(sizes.values())
    assert train_on(tmp_path / "all", shards, 300)["train_bytes"] == total
    samples = []
    for share in (2, 4):
        below = sampled_ids(total, total // share)
        samples.append({i: size for i, size in sizes.items() if i < below})
        facts = train_on(tmp_path / str(share), shards, 300, total // share)
        assert facts["sample_bytes"] == sum(samples[-1].values())
        assert 0.5 < facts["sample_bytes"] * share / total < 1.5
    assert samples[0].items() > samples[1].items()


def test_a_sample_of_no_document_becomes_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few large documents and a small sample: training on nothing would give 256 bytes."""
    monkeypatch.setattr("groundup.tokenize.train_bpe.sampled_ids", lambda *_: "0")
    run = refined_run(tmp_path, SHARDS)
    tokenize(run)
    (tokenizer,) = run.store.artifacts("tokenize", "tokenize/tokenizer")
    assert tokenizer.facts["sample_bytes"] == tokenizer.facts["train_bytes"] > 0


def test_words_are_counted_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped before training has the counts; after it nobody needs them."""
    monkeypatch.setattr("groundup.tokenize.train_bpe.SMALL_BYTES", 0)
    run = refined_run(tmp_path, SHARDS)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("groundup.tokenize.train_bpe.learn_merges", interrupt)
        tokenize(run)
    assert len(list((tmp_path / ".store/tokenize/words").iterdir())) == 3
    assert built(run) == 1 + 3 + 1
    assert not list((tmp_path / ".store/tokenize/words").iterdir())
    assert "tokenize/words" not in run.store.plan("tokenize")


def test_the_library_trains_on_little_text_with_the_same_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: the tokenizer does not depend on which of the two trained it.
    shards = {"a.1": [("one two " * 50 + "x" * 2000, 1), ("three's ünï 12\n\n" * 9, 1)]}
    outcomes = []
    for name, small_bytes in (("library", 1 << 20), ("kernels", 0)):
        monkeypatch.setattr("groundup.tokenize.train_bpe.SMALL_BYTES", small_bytes)
        run = refined_run(tmp_path / name, shards)
        tokenize(run)
        (tokenizer,) = run.store.artifacts("tokenize", "tokenize/tokenizer")
        outcomes.append((tokenizer.facts, tokenizer.content))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]["long_words"] == 1


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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
