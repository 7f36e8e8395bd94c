"""Token shards: exact contents, the type checked on write and on read, an index that leads from
token to document.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.helpers.hostile import HOSTILE
from tests.helpers.refined import refined_run, train_on

from groundup.artifacts import tokenizer as tokenizer_module
from groundup.artifacts.corpus import refined_shards
from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import open_shard, token_type
from groundup.errors import GroundupError
from groundup.tokenize.shards import TokenWriter, tokenize_shard

TEXTS = [(text or "empty", number % 3) for number, text in enumerate(HOSTILE * 2)]


@pytest.mark.parametrize("fast_bytes", [0, 1 << 20])
def test_a_shard_holds_its_kept_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_bytes: int
) -> None:
    """Every kept document stands where the index says, ends with the end-of-text id, and decodes to
    itself; with the library and with the fast encoder.
    """
    monkeypatch.setattr(tokenizer_module, "FAST_BYTES", fast_bytes)
    run = refined_run(tmp_path / "run", {"a.1": TEXTS})
    (shard,) = refined_shards(run.root)
    train_on(tmp_path, [shard], 300)
    facts = tokenize_shard(tmp_path, shard, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
    for verdict, split in ((1, "train"), (2, "validation")):
        tokens = open_shard(tmp_path / f"{split}.npy", tokenizer.vocab_size)
        mine = [row for row in rows if row["split"] == split]
        wanted = [text for text, v in TEXTS if v == verdict]
        parts = [tokens[row["offset"] : row["offset"] + row["length"]] for row in mine]
        assert [tokenizer.decode(part[:-1]) for part in parts] == wanted
        assert all(part[-1] == tokenizer.end_id for part in parts)
        assert [row["bytes"] for row in mine] == [len(text.encode()) for text in wanted]
        assert facts[split] == {
            "documents": len(wanted),
            "tokens": len(tokens),
            "bytes": sum(row["bytes"] for row in mine),
        }
        assert sum(map(len, parts)) == len(tokens)


@pytest.mark.parametrize(("vocab_size", "kind"), [(300, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_the_type_fits_the_vocabulary(tmp_path: Path, vocab_size: int, kind: str) -> None:
    """65,536 entries are the last that fit into uint16: its largest id is 65,535."""
    assert token_type(vocab_size) == np.dtype(kind)
    ids = np.array([0, vocab_size - 1], np.uint32)
    with TokenWriter(tmp_path / "x.npy", vocab_size) as writer:
        writer.write(ids)
        writer.write(ids[:0])
    assert open_shard(tmp_path / "x.npy", vocab_size).tolist() == ids.tolist()
    np.save(tmp_path / "y.npy", ids.astype(kind))
    assert (tmp_path / "x.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


def test_wrong_ids_are_refused_on_write_and_read(tmp_path: Path) -> None:
    """An id that does not fit would silently become another token."""
    with (
        pytest.raises(GroundupError, match="token id 300 is outside"),
        TokenWriter(tmp_path / "x.npy", 300) as writer,
    ):
        writer.write(np.array([300], np.uint32))
    np.save(tmp_path / "y.npy", np.array([1, 300], np.uint16))
    with pytest.raises(GroundupError, match=r"y\.npy: token id 300 is outside"):
        open_shard(tmp_path / "y.npy", 300)
    with pytest.raises(GroundupError, match="flat uint"):
        open_shard(tmp_path / "y.npy", 70_000)
    (tmp_path / "y.npy").write_bytes((tmp_path / "y.npy").read_bytes()[:-1])
    with pytest.raises(GroundupError, match="cannot be read"):
        open_shard(tmp_path / "y.npy", 300)


def test_an_empty_split_is_an_empty_shard(tmp_path: Path) -> None:
    """A source without validation documents is no error."""
    with TokenWriter(tmp_path / "x.npy", 300):
        pass
    assert len(open_shard(tmp_path / "x.npy", 300)) == 0


def test_ends_are_put_after_each_document(tmp_path: Path) -> None:
    """Empty documents count too."""
    run = refined_run(tmp_path / "run", {"a.1": [("ab", 1), ("", 1), ("c", 1)]})
    (shard,) = refined_shards(run.root)
    train_on(tmp_path, [shard], 300)
    tokenize_shard(tmp_path, shard, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    end = tokenizer.end_id
    want = [*tokenizer.encode("ab"), end, end, *tokenizer.encode("c"), end]
    assert open_shard(tmp_path / "train.npy", tokenizer.vocab_size).tolist() == want
    lengths = pq.read_table(tmp_path / "index.parquet").column("length").to_pylist()
    assert lengths == [len(want) - 3, 1, 2]


def test_verdicts_must_match_documents(tmp_path: Path) -> None:
    """A split of another length would shift every verdict."""
    run = refined_run(tmp_path, {"a.1": TEXTS})
    (shard,) = refined_shards(run.root)
    shard.split.chmod(0o644)
    for count in (3, len(TEXTS) + 1):
        np.save(shard.split, np.ones(count, np.uint8))
        with pytest.raises(GroundupError, match="--redo refine"):
            list(shard.batches(["text"], "train"))
